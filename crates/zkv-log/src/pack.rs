//! Cutting entries into blocks and compressing them, on several threads where there is enough.
//!
//! Packing knows nothing of places, so it needs no lock that the log's writer holds.

use std::ops::{Range, RangeInclusive};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_queue::ArrayQueue;

use crate::block::BlockKind;
use crate::codec::Encoder;
use crate::dictionary::{Dictionary, DictionaryPlace, Interner};
use crate::entries::{cut, write_payload};
use crate::error::{LogError, Result};
use crate::layout::entry_bytes_max;
use crate::log::Log;
use crate::options::LogOptions;
use crate::prepacked::Prepacked;
use crate::sampler::{Sampler, Scale};

/// Raw bytes that one thread packs at a time: enough to forget the cost of sharing them out.
const CHUNK_BYTES: usize = 128 << 10;
/// Longer entries gain next to nothing from a dictionary.
const DICTIONARY_PAYLOAD_BYTES_MAX: usize = 64 << 10;
/// A dictionary and a block that needs it must fit a segment together: they take at most this share
/// of it each.
const SLOT_SHARE: usize = 8;
/// Threads that help without being asked: one that has to wait for the packing, and one that compacts.
const VISITORS: usize = 2;
/// Level 3 takes half as long as 5, for 4 % more room (the sweep in `docs/benchmarks.md`). Who asks for
/// more than 5 has chosen to wait.
const QUICK_LEVELS: RangeInclusive<i32> = 4..=5;
const QUICK_LEVEL: i32 = 3;

/// Entries in compressed blocks, ready to be appended in one piece.
#[derive(Debug)]
pub struct Packed {
    pub(crate) chunks: Vec<PackedChunk>,
    pub(crate) dictionary: Option<Arc<Dictionary>>,
    pub(crate) entry_count: usize,
}

impl Packed {
    /// The blocks' bytes, without their headers.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.payloads.len()).sum()
    }
}

#[derive(Debug, Default)]
pub(crate) struct PackedChunk {
    pub payloads: Vec<u8>,
    pub blocks: Vec<PackedBlock>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct PackedBlock {
    /// Where its payload ends within its chunk's; it starts where the one before it ends.
    pub end: usize,
    pub kind: BlockKind,
    pub with_dictionary: bool,
    pub entry_count: u32,
}

/// Entries that are being packed, by whoever has time: see [`Log::begin_packing`].
#[derive(Debug)]
pub struct PackJob {
    dictionary: Option<Arc<Dictionary>>,
    /// The entries' numbers, chunk by chunk.
    ranges: Vec<Range<usize>>,
    /// The entries as they were packed before: none, or one for each.
    prepacked: Vec<Option<Prepacked>>,
    chunks: Vec<Mutex<Option<PackedChunk>>>,
    /// The first chunk that nobody has begun.
    next: AtomicUsize,
    raw_bytes: u64,
    pace: Pace,
}

/// Whether a commit waits for what is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    Steady,
    Quick,
}

impl PackJob {
    fn chunk(&self, number: usize) -> MutexGuard<'_, Option<PackedChunk>> {
        self.chunks[number].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A way to pack entries that is not the log's own: at another level, with dictionaries of its own.
#[derive(Debug)]
pub struct Packing(Packer);

impl Packing {
    /// As `options` say, for about `raw_bytes` of entries; the first dictionary is trained on the first
    /// of them.
    #[must_use]
    pub fn new(log: &Log, options: &LogOptions, raw_bytes: u64) -> Self {
        let scale = Scale::to_write_anew(raw_bytes, options.compression_level);
        Self(Packer::new(options, log.identity().slot_bytes, None, scale))
    }

    /// As [`Log::pack`], for `log`.
    ///
    /// # Errors
    /// [`LogError::EntryTooLarge`].
    pub fn pack(&self, log: &Log, entries: &[&[u8]]) -> Result<Packed> {
        self.0.pack(&log.shared.interner, entries)
    }

    /// Lets `log` go on with the dictionary that this has come to.
    pub fn hand_over(&self, log: &Log) {
        log.shared.packer.go_on_as(&self.0);
    }
}

/// Packs entries. Shared by all who write to a log.
pub(crate) struct Packer {
    sampler: Mutex<Sampler>,
    encoders: ArrayQueue<Box<Encoder>>,
    /// One that is quicker than those, where the level has one.
    quick_encoder: ArrayQueue<Box<Encoder>>,
    block_bytes: usize,
    slot_bytes: u32,
    level: i32,
    thread_count: usize,
}

impl Packer {
    pub(crate) fn new(
        options: &LogOptions,
        slot_bytes: u32,
        inherited: Option<DictionaryPlace>,
        scale: Scale,
    ) -> Self {
        let thread_count = options.compression_threads as usize;
        let dictionary_bytes_max = slot_bytes as usize / SLOT_SHARE;
        let sampler = Sampler::new(inherited, dictionary_bytes_max, scale, options);
        Self {
            sampler: Mutex::new(sampler),
            encoders: ArrayQueue::new(thread_count + VISITORS),
            quick_encoder: ArrayQueue::new(1),
            block_bytes: entry_bytes_max(slot_bytes).min(options.block_bytes as usize),
            slot_bytes,
            level: options.compression_level,
            thread_count,
        }
    }

    pub(crate) fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    pub(crate) fn thread_count(&self) -> usize {
        self.thread_count
    }

    /// Packs `entries` in their order.
    pub(crate) fn pack(&self, interner: &Interner, entries: &[&[u8]]) -> Result<Packed> {
        let job = self.begin(interner, entries)?;
        Ok(self.finish(&job, |range| entries[range].to_vec()))
    }

    /// As [`Packer::pack`]: entries that were packed before and get blocks of their own again are not compressed.
    pub(crate) fn pack_again(
        &self,
        interner: &Interner,
        entries: &[&[u8]],
        prepacked: Vec<Option<Prepacked>>,
    ) -> Result<Packed> {
        let job = PackJob { prepacked, ..self.begin(interner, entries)? };
        Ok(self.finish(&job, |range| entries[range].to_vec()))
    }

    /// As [`Packer::pack`], for a commit that waits: what one thread packs is packed quickly.
    pub(crate) fn pack_awaited(&self, interner: &Interner, entries: &[&[u8]]) -> Result<Packed> {
        let mut job = self.begin(interner, entries)?;
        if job.ranges.len() == 1 && QUICK_LEVELS.contains(&self.level) {
            job.pace = Pace::Quick;
        }
        Ok(self.finish(&job, |range| entries[range].to_vec()))
    }

    /// Begins to pack `entries` in their order.
    pub(crate) fn begin(&self, interner: &Interner, entries: &[&[u8]]) -> Result<PackJob> {
        let max = entry_bytes_max(self.slot_bytes);
        if let Some(entry) = entries.iter().find(|entry| entry.len() > max) {
            return Err(LogError::EntryTooLarge { bytes: entry.len(), max });
        }
        let dictionary = self.sampler().dictionary_for(interner, entries);
        let ranges = cut_into_chunks(entries);
        let chunks = ranges.iter().map(|_| Mutex::default()).collect();
        let raw_bytes = entries.iter().map(|entry| entry.len() as u64).sum();
        let (next, pace, prepacked) = (AtomicUsize::new(0), Pace::Steady, Vec::new());
        Ok(PackJob { dictionary, ranges, prepacked, chunks, next, raw_bytes, pace })
    }

    /// Packs chunks of `job` until none is left to begin.
    pub(crate) fn help<'e>(&self, job: &PackJob, entries: impl Fn(Range<usize>) -> Vec<&'e [u8]>) {
        let mut encoder = None;
        loop {
            let number = job.next.fetch_add(1, Ordering::Relaxed);
            let Some(range) = job.ranges.get(number) else { break };
            let encoder = encoder.get_or_insert_with(|| self.take_encoder(job.pace));
            let chunk = self.pack_chunk(encoder, &entries(range.clone()), job, range);
            *job.chunk(number) = Some(chunk);
        }
        if let Some(encoder) = encoder {
            self.put_back(encoder, job.pace);
        }
    }

    /// Packs what is left of `job`, on all cores. Each job is finished once.
    pub(crate) fn finish<'e, F>(&self, job: &PackJob, entries: F) -> Packed
    where
        F: Fn(Range<usize>) -> Vec<&'e [u8]> + Sync,
    {
        let helpers = self.thread_count.min(job.ranges.len()).saturating_sub(1);
        std::thread::scope(|scope| {
            for _ in 0..helpers {
                let help = || self.help(job, &entries);
                // Where the system has no more threads, this one does it all.
                if std::thread::Builder::new().spawn_scoped(scope, help).is_err() {
                    break;
                }
            }
            self.help(job, &entries);
        });
        let mut encoder = None;
        let chunks = job.ranges.iter().enumerate().map(|(number, range)| {
            let packed = job.chunk(number).take();
            packed.unwrap_or_else(|| {
                // Another thread has begun it: whatever keeps that, it is not waited for.
                let encoder = encoder.get_or_insert_with(|| self.take_encoder(job.pace));
                self.pack_chunk(encoder, &entries(range.clone()), job, range)
            })
        });
        let chunks = chunks.collect();
        if let Some(encoder) = encoder {
            self.put_back(encoder, job.pace);
        }
        let entry_count = job.ranges.last().map_or(0, |last| last.end);
        let packed = Packed { chunks, dictionary: job.dictionary.clone(), entry_count };
        self.sampler().note_packed(job.raw_bytes, packed.payload_bytes() as u64);
        packed
    }

    fn sampler(&self) -> MutexGuard<'_, Sampler> {
        self.sampler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with the dictionary of the opening before: the first call reads it, and others wait.
    pub(crate) fn inherit(&self, read: impl FnOnce(DictionaryPlace) -> Option<Arc<Dictionary>>) {
        self.sampler().inherit(read);
    }

    /// Goes on with the dictionary that `other` has come to.
    fn go_on_as(&self, other: &Self) {
        let dictionary = other.sampler().current();
        if let Some(dictionary) = dictionary {
            self.sampler().go_on_with(dictionary);
        }
    }

    /// `packed`, which was made of `entries`, without those that are not kept: only the blocks that
    /// hold one are packed anew. `None` where all are kept.
    pub(crate) fn repack(
        &self,
        packed: &Packed,
        entries: &[&[u8]],
        is_kept: &[bool],
    ) -> Option<Packed> {
        if is_kept.iter().all(|kept| *kept) {
            return None;
        }
        let mut encoder = self.take_encoder(Pace::Steady);
        let (mut raw, mut number) = (Vec::new(), 0);
        let chunks = packed.chunks.iter().map(|chunk| {
            let (mut repacked, mut start) = (PackedChunk::default(), 0);
            for block in chunk.blocks.iter().copied() {
                let payload = &chunk.payloads[start..block.end];
                start = block.end;
                let numbers = number..number + block.entry_count as usize;
                number = numbers.end;
                let kept: Vec<&[u8]> =
                    numbers.clone().filter(|at| is_kept[*at]).map(|at| entries[at]).collect();
                if kept.len() == numbers.len() {
                    repacked.copy_block(payload, block);
                } else if !kept.is_empty() {
                    let dictionary = packed.dictionary.as_deref().filter(|_| block.with_dictionary);
                    write_payload(&kept, &mut raw);
                    repacked.pack_block(kept.len(), &raw, &mut encoder, dictionary);
                }
            }
            repacked
        });
        let chunks = chunks.collect();
        self.put_back(encoder, Pace::Steady);
        let entry_count = is_kept.iter().filter(|kept| **kept).count();
        Some(Packed { chunks, dictionary: packed.dictionary.clone(), entry_count })
    }

    fn encoders(&self, pace: Pace) -> (&ArrayQueue<Box<Encoder>>, i32) {
        match pace {
            Pace::Steady => (&self.encoders, self.level),
            Pace::Quick => (&self.quick_encoder, QUICK_LEVEL),
        }
    }

    fn take_encoder(&self, pace: Pace) -> Box<Encoder> {
        let (idle, level) = self.encoders(pace);
        idle.pop().unwrap_or_else(|| Box::new(Encoder::new(level)))
    }

    fn put_back(&self, encoder: Box<Encoder>, pace: Pace) {
        // Where more threads pack than the pool holds, the encoder is dropped.
        let _ = self.encoders(pace).0.push(encoder);
    }

    fn pack_chunk(
        &self,
        encoder: &mut Encoder,
        entries: &[&[u8]],
        job: &PackJob,
        range: &Range<usize>,
    ) -> PackedChunk {
        let payload_bytes_max =
            DICTIONARY_PAYLOAD_BYTES_MAX.min(self.slot_bytes as usize / SLOT_SHARE);
        let dictionary = |payload: &[u8]| {
            job.dictionary.as_deref().filter(|_| payload.len() <= payload_bytes_max)
        };
        let (mut chunk, mut raw, mut number) = (PackedChunk::default(), Vec::new(), range.start);
        for block in cut(entries, self.block_bytes) {
            let before = job.prepacked.get(number).and_then(Option::as_ref);
            number += block.len();
            write_payload(block, &mut raw);
            let dictionary = dictionary(&raw);
            match before.filter(|before| block.len() == 1 && before.is_as_with(dictionary)) {
                Some(before) => chunk.copy_prepacked(before),
                None => chunk.pack_block(block.len(), &raw, encoder, dictionary),
            }
        }
        chunk
    }
}

impl PackedChunk {
    /// Puts the payload `raw` of so many entries into one block.
    fn pack_block(
        &mut self,
        entry_count: usize,
        raw: &[u8],
        encoder: &mut Encoder,
        dictionary: Option<&Dictionary>,
    ) {
        let entry_count = u32::try_from(entry_count).unwrap_or(u32::MAX);
        let (kind, with_dictionary) = match encoder.compress(raw, dictionary) {
            Some(frame) => {
                self.payloads.extend_from_slice(frame);
                (BlockKind::EntriesZstd, dictionary.is_some())
            }
            None => {
                self.payloads.extend_from_slice(raw);
                (BlockKind::EntriesRaw, false)
            }
        };
        let end = self.payloads.len();
        self.blocks.push(PackedBlock { end, kind, with_dictionary, entry_count });
    }

    fn copy_prepacked(&mut self, Prepacked { payload, kind, dictionary }: &Prepacked) {
        let (kind, with_dictionary) = (*kind, dictionary.is_some());
        self.copy_block(payload, PackedBlock { end: 0, kind, with_dictionary, entry_count: 1 });
    }

    fn copy_block(&mut self, payload: &[u8], block: PackedBlock) {
        self.payloads.extend_from_slice(payload);
        self.blocks.push(PackedBlock { end: self.payloads.len(), ..block });
    }
}

/// Ranges of entries of about [`CHUNK_BYTES`] each.
fn cut_into_chunks(entries: &[&[u8]]) -> Vec<Range<usize>> {
    let (mut ranges, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (number, entry) in entries.iter().enumerate() {
        bytes += entry.len();
        if bytes >= CHUNK_BYTES {
            ranges.push(start..number + 1);
            (start, bytes) = (number + 1, 0);
        }
    }
    if start < entries.len() {
        ranges.push(start..entries.len());
    }
    ranges
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Packer")
            .field("block_bytes", &self.block_bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// 512 KB of sentences, in the first language or in another that shares no byte with it: too
    /// many words for a block to repeat them, and few enough for a dictionary.
    fn entries(is_first: bool) -> Vec<Vec<u8>> {
        let mut state = 1u32;
        let mut word = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            format!("{:016x}", u64::from(state >> 23).wrapping_mul(0x9e37_79b9_7f4a_7c15))
        };
        let translated = |byte: u8| if is_first { byte } else { !byte };
        let entry =
            |_| (0..4).map(|_| word()).collect::<String>().bytes().map(translated).collect();
        (0..8000).map(entry).collect()
    }

    #[test]
    fn the_first_dictionary_is_used_at_once_and_a_later_one_from_the_next_call_on() {
        for threads in [1, 4] {
            let options = LogOptions { compression_threads: threads, ..LogOptions::default() };
            let packer = Packer::new(&options, 1 << 20, None, Scale::BESIDE_WRITES);
            let interner = Interner::default();
            let pack = |is_first| {
                let entries = entries(is_first);
                let slices: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
                packer.pack(&interner, &slices).unwrap().dictionary.unwrap()
            };
            let first = pack(true);
            let calls_with_first =
                (0..20).take_while(|_| Arc::ptr_eq(&pack(false), &first)).count();
            // The second attempt is due in the eighth call of all, and wins; it ends in the tenth.
            assert_eq!(calls_with_first, 8, "{threads} threads");
        }
    }

    #[test]
    fn a_short_commit_is_packed_at_level_3_unless_more_than_5_was_asked_for() {
        let entries = entries(true);
        let slices: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
        let (short, long) = (&slices[..100], &slices[..4000]);
        let packer = |level| {
            let options = LogOptions { compression_level: level, ..LogOptions::default() };
            Packer::new(&options, 1 << 20, None, Scale::BESIDE_WRITES)
        };
        let interner = Interner::default();
        let payloads = |packed: Packed| -> Vec<Vec<u8>> {
            packed.chunks.into_iter().map(|chunk| chunk.payloads).collect()
        };
        let packed = |level, entries| payloads(packer(level).pack(&interner, entries).unwrap());
        let awaited =
            |level, entries| payloads(packer(level).pack_awaited(&interner, entries).unwrap());
        assert!(packed(3, short) != packed(5, short));
        assert!(awaited(5, short) == packed(3, short));
        assert!(awaited(6, short) == packed(6, short));
        assert!(awaited(1, short) == packed(1, short));
        assert!(awaited(5, long) == packed(5, long));
    }

    #[test]
    fn who_helps_is_not_waited_for() {
        let options = LogOptions { compression_threads: 2, ..LogOptions::default() };
        let interner = Interner::default();
        let entries = entries(true);
        let slices: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
        let packed = |die: bool| {
            let packer = Packer::new(&options, 1 << 20, None, Scale::BESIDE_WRITES);
            let job = packer.begin(&interner, &slices).unwrap();
            if die {
                // One that has begun a chunk, and is gone.
                let help = || packer.help(&job, |_| panic!("a test's panic"));
                assert!(catch_unwind(AssertUnwindSafe(help)).is_err());
            }
            packer.finish(&job, |range| slices[range].to_vec())
        };
        let (alone, helped) = (packed(false), packed(true));
        assert_eq!(helped.entry_count, slices.len());
        let payloads = |packed: &Packed| -> Vec<Vec<u8>> {
            packed.chunks.iter().map(|chunk| chunk.payloads.clone()).collect()
        };
        assert!(alone.chunks.len() > 2);
        assert!(payloads(&alone) == payloads(&helped));
    }
}
