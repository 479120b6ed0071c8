//! Compression and decompression of one block's payload, with contexts that are used again.
//!
//! A frame is stored without its magic number: four bytes of every small block that say nothing.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crossbeam_queue::ArrayQueue;
use zstd_safe::{CCtx, CParameter, DCtx};

use crate::dictionary::{Dictionary, DictionaryDigest};

/// zstd's frame magic number (RFC 8878, section 3.1.1).
const FRAME_MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

/// Compresses payloads. It keeps the last dictionary prepared, so one encoder is used again and
/// again by whoever packs.
pub(crate) struct Encoder {
    plain: CCtx<'static>,
    /// Made when the first dictionary comes: its tables take some megabytes.
    prepared: Option<(CCtx<'static>, DictionaryDigest)>,
    frame: Vec<u8>,
    level: i32,
}

impl Encoder {
    pub(crate) fn new(level: i32) -> Self {
        Self { plain: new_context(level), prepared: None, frame: Vec::new(), level }
    }

    /// The frame of `raw`, without its magic; `None` where it is no shorter than `raw`.
    pub(crate) fn compress(
        &mut self,
        raw: &[u8],
        dictionary: Option<&Dictionary>,
    ) -> Option<&[u8]> {
        self.frame(raw, dictionary).filter(|frame| frame.len() < raw.len())
    }

    /// The frame of `raw`, without its magic, however long it is. zstd has no reason to fail.
    pub(crate) fn frame(&mut self, raw: &[u8], dictionary: Option<&Dictionary>) -> Option<&[u8]> {
        let context = match dictionary {
            Some(dictionary) => prepare(&mut self.prepared, dictionary, self.level)?,
            None => &mut self.plain,
        };
        self.frame.clear();
        self.frame.reserve(zstd_safe::compress_bound(raw.len()));
        context.compress2(&mut self.frame, raw).ok()?;
        self.frame.strip_prefix(&FRAME_MAGIC)
    }
}

fn new_context(level: i32) -> CCtx<'static> {
    let mut context = CCtx::try_create().unwrap_or_else(|| out_of_memory());
    let parameters = [
        CParameter::CompressionLevel(level),
        // The block's own checksum covers the frame, and its header names the dictionary.
        CParameter::ChecksumFlag(false),
        CParameter::DictIdFlag(false),
        // The reader holds the content size against the format's limit.
        CParameter::ContentSizeFlag(true),
    ];
    set_all(&mut context, &parameters);
    context
}

/// Ends the process where zstd gets no memory for a context, as it ends where a `Vec` gets none: a
/// panic would leave others to go on with half of something.
fn out_of_memory() -> ! {
    std::alloc::handle_alloc_error(std::alloc::Layout::new::<CCtx<'static>>())
}

fn set_all(context: &mut CCtx<'static>, parameters: &[CParameter]) {
    for parameter in parameters {
        let set = context.set_parameter(*parameter);
        debug_assert!(set.is_ok(), "zstd refuses {parameter:?}");
    }
}

/// The context that has `dictionary` loaded. zstd digests it with the context's own parameters, and
/// keeps it until another one is loaded.
fn prepare<'a>(
    prepared: &'a mut Option<(CCtx<'static>, DictionaryDigest)>,
    dictionary: &Dictionary,
    level: i32,
) -> Option<&'a mut CCtx<'static>> {
    if prepared.as_ref().is_none_or(|(_, digest)| digest != dictionary.digest()) {
        let mut context = new_context(level);
        set_all(&mut context, &small_block_parameters(level));
        context.load_dictionary(dictionary.bytes()).ok()?;
        *prepared = Some((context, *dictionary.digest()));
    }
    prepared.as_mut().map(|(context, _)| context)
}

/// What a dictionary and a small block want other than zstd's own choice for a level. zstd's tables
/// are too small for 112 Ki positions, and its match length of 4 finds worse ones. Level 5, the
/// default, is made of the fastest strategy that looks more than once. From level 9 on, blocks are
/// parsed optimally, which pays at once where they are small. Chosen by the sweeps in
/// `docs/benchmarks.md`: 3 to 6 % smaller at the same time.
fn small_block_parameters(level: i32) -> Vec<CParameter> {
    use CParameter::{ChainLog, HashLog, MinMatch, SearchLog, Strategy, TargetLength};
    use zstd_safe::Strategy::{ZSTD_btultra, ZSTD_btultra2, ZSTD_greedy};
    let mut parameters = match level {
        ..9 => vec![MinMatch(5), HashLog(18), ChainLog(17)],
        9.. => vec![MinMatch(3), HashLog(17), ChainLog(18)],
    };
    match level {
        5 => parameters.extend([Strategy(ZSTD_greedy), SearchLog(3), TargetLength(2)]),
        9 => parameters.extend([Strategy(ZSTD_btultra), SearchLog(5), TargetLength(32)]),
        10..16 => parameters.extend([Strategy(ZSTD_btultra), SearchLog(6), TargetLength(64)]),
        16.. => parameters.extend([Strategy(ZSTD_btultra2), SearchLog(8), TargetLength(256)]),
        _ => {}
    }
    parameters
}

/// Decompresses payloads, and holds the buffers that a read needs.
pub(crate) struct Decoder {
    /// Made when it is first needed: a scan that finds nothing needs none.
    context: Option<DCtx<'static>>,
    /// The dictionary used last, most likely the next one, too.
    pub(crate) dictionary: Option<Arc<Dictionary>>,
    /// The compressed block, header first.
    pub(crate) block: Vec<u8>,
    /// The decompressed payload.
    pub(crate) payload: Vec<u8>,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self { context: None, dictionary: None, block: Vec::new(), payload: Vec::new() }
    }

    #[inline]
    pub(crate) fn has_dictionary(&self, digest: &DictionaryDigest) -> bool {
        self.dictionary.as_ref().is_some_and(|last| last.digest() == digest)
    }

    /// Decompresses the frame that fills `block` from byte 8 on into `self.payload`, with
    /// `self.dictionary` where it needs one. The four bytes before it are overwritten. `None` where
    /// it is no such frame, or longer than `payload_bytes_max` when decompressed.
    #[inline]
    pub(crate) fn decompress_block(
        &mut self,
        block: &mut [u8],
        with_dictionary: bool,
        payload_bytes_max: usize,
    ) -> Option<()> {
        let dictionary = self.dictionary.as_deref().filter(|_| with_dictionary);
        let frame = block.get_mut(4..)?;
        frame.get_mut(..4)?.copy_from_slice(&FRAME_MAGIC);
        decompress(&mut self.context, frame, dictionary, payload_bytes_max, &mut self.payload)
    }

    /// As [`Decoder::decompress_block`], for a frame that stands elsewhere.
    pub(crate) fn decompress_frame(
        &mut self,
        stripped: &[u8],
        dictionary: Option<&Dictionary>,
        payload_bytes_max: usize,
    ) -> Option<()> {
        self.block.clear();
        self.block.extend_from_slice(&FRAME_MAGIC);
        self.block.extend_from_slice(stripped);
        let (context, payload) = (&mut self.context, &mut self.payload);
        decompress(context, &self.block, dictionary, payload_bytes_max, payload)
    }
}

#[inline]
fn decompress(
    context: &mut Option<DCtx<'static>>,
    frame: &[u8],
    dictionary: Option<&Dictionary>,
    payload_bytes_max: usize,
    payload: &mut Vec<u8>,
) -> Option<()> {
    let bytes = usize::try_from(zstd_safe::get_frame_content_size(frame).ok()??).ok()?;
    if bytes > payload_bytes_max {
        return None;
    }
    payload.clear();
    payload.reserve(bytes);
    let made = || DCtx::try_create().unwrap_or_else(|| out_of_memory());
    let context = context.get_or_insert_with(made);
    let written = match dictionary {
        Some(dictionary) => {
            context.decompress_using_ddict(payload, frame, dictionary.for_reading())
        }
        None => context.decompress(payload, frame),
    };
    (written.ok()? == bytes && payload.len() == bytes).then_some(())
}

/// How long the content of a frame is, as the frame's start says; `None` where no frame starts.
pub(crate) fn content_bytes(stripped: &[u8]) -> Option<u64> {
    /// Of a frame's header, which says it (RFC 8878, section 3.1.1.1), without the magic number.
    const HEADER_BYTES_MAX: usize = 14;
    let mut start = [0; FRAME_MAGIC.len() + HEADER_BYTES_MAX];
    let count = stripped.len().min(HEADER_BYTES_MAX);
    start[..FRAME_MAGIC.len()].copy_from_slice(&FRAME_MAGIC);
    start[FRAME_MAGIC.len()..][..count].copy_from_slice(&stripped[..count]);
    zstd_safe::get_frame_content_size(&start[..FRAME_MAGIC.len() + count]).ok()?
}

/// Idle decoders. At most `max` exist; who needs one more waits for another reader, never for a
/// writer.
pub(crate) struct DecoderPool {
    idle: ArrayQueue<Box<Decoder>>,
    made_count: AtomicUsize,
    waiting_count: AtomicUsize,
    gate: Mutex<()>,
    returned: Condvar,
}

impl DecoderPool {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            idle: ArrayQueue::new(max),
            made_count: AtomicUsize::new(0),
            waiting_count: AtomicUsize::new(0),
            gate: Mutex::new(()),
            returned: Condvar::new(),
        }
    }

    /// How many reads may decompress at once.
    pub(crate) fn max(&self) -> usize {
        self.idle.capacity()
    }

    #[inline]
    pub(crate) fn take(&self) -> PooledDecoder<'_> {
        let decoder = self.idle.pop().unwrap_or_else(|| self.make_or_wait());
        PooledDecoder { decoder: Some(decoder), pool: self }
    }

    #[cold]
    #[allow(deprecated, reason = "`try_update`, its new name, came with Rust 1.95")]
    fn make_or_wait(&self) -> Box<Decoder> {
        let more = |made| (made < self.idle.capacity()).then_some(made + 1);
        if self.made_count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok() {
            return Box::new(Decoder::new());
        }
        let mut guard = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        // Counted before looking again: who returns a decoder after that look sees the count, and
        // cannot notify before this thread waits, since it needs the gate.
        self.waiting_count.fetch_add(1, Ordering::SeqCst);
        let decoder = loop {
            match self.idle.pop() {
                Some(decoder) => break decoder,
                None => guard = self.returned.wait(guard).unwrap_or_else(PoisonError::into_inner),
            }
        };
        self.waiting_count.fetch_sub(1, Ordering::SeqCst);
        decoder
    }

    #[inline]
    fn put_back(&self, decoder: Box<Decoder>) {
        // The queue holds as many as were ever made.
        let _ = self.idle.push(decoder);
        if self.waiting_count.load(Ordering::SeqCst) > 0 {
            drop(self.gate.lock().unwrap_or_else(PoisonError::into_inner));
            self.returned.notify_one();
        }
    }
}

/// A decoder that returns to its pool.
pub(crate) struct PooledDecoder<'a> {
    decoder: Option<Box<Decoder>>,
    pool: &'a DecoderPool,
}

impl std::ops::Deref for PooledDecoder<'_> {
    type Target = Decoder;

    fn deref(&self) -> &Decoder {
        self.decoder.as_ref().expect("a decoder is held until the drop")
    }
}

impl std::ops::DerefMut for PooledDecoder<'_> {
    fn deref_mut(&mut self) -> &mut Decoder {
        self.decoder.as_mut().expect("a decoder is held until the drop")
    }
}

impl Drop for PooledDecoder<'_> {
    fn drop(&mut self) {
        if let Some(mut decoder) = self.decoder.take() {
            decoder.shrink();
            self.pool.put_back(decoder);
        }
    }
}

impl Decoder {
    /// Gives back what a large value needed, so that the pool's memory stays bounded.
    fn shrink(&mut self) {
        const KEPT_BYTES: usize = 256 << 10;
        for buffer in [&mut self.block, &mut self.payload] {
            if buffer.capacity() > KEPT_BYTES {
                *buffer = Vec::new();
            }
        }
    }
}

impl std::fmt::Debug for DecoderPool {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("DecoderPool")
            .field("made_count", &self.made_count)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::LEVELS;

    #[test]
    fn payloads_round_trip_and_bombs_are_refused() {
        let raw = vec![7u8; 100_000];
        let mut encoder = Encoder::new(3);
        let frame = encoder.compress(&raw, None).unwrap().to_vec();
        let mut decoder = Decoder::new();
        decoder.decompress_frame(&frame, None, raw.len()).unwrap();
        assert_eq!(decoder.payload, raw);
        assert!(decoder.decompress_frame(&frame, None, raw.len() - 1).is_none());
        for end in 0..frame.len() {
            assert!(decoder.decompress_frame(&frame[..end], None, raw.len()).is_none());
        }
    }

    #[test]
    fn every_level_that_options_allow_makes_frames_with_and_without_a_dictionary() {
        let document = |number: u32| format!(r#"{{"id":{number},"kind":"page","lang":"en"}}"#);
        let text: String = (0..40).map(document).collect();
        // zstd takes any text for a dictionary of bytes alone.
        let dictionary = Arc::new(Dictionary::new(text.into_bytes()).unwrap());
        let raw = document(99).repeat(4).into_bytes();
        for level in LEVELS.filter(|level| *level != 0) {
            for dictionary in [None, Some(&dictionary)] {
                let mut encoder = Encoder::new(level);
                let frame = encoder.compress(&raw, dictionary.map(|one| &**one)).unwrap().to_vec();
                let mut decoder = Decoder::new();
                decoder.decompress_frame(&frame, dictionary.map(|one| &**one), raw.len()).unwrap();
                assert_eq!(decoder.payload, raw, "level {level}");
            }
        }
    }

    #[test]
    fn what_does_not_shrink_is_left_alone() {
        assert!(Encoder::new(3).compress(b"x", None).is_none());
    }

    #[test]
    fn readers_over_the_limit_wait_for_readers() {
        let pool = DecoderPool::new(2);
        let (first, second) = (pool.take(), pool.take());
        std::thread::scope(|scope| {
            let third = scope.spawn(|| drop(pool.take()));
            while pool.waiting_count.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            assert!(!third.is_finished());
            drop(first);
            third.join().unwrap();
        });
        drop(second);
        assert_eq!(pool.made_count.load(Ordering::Relaxed), 2);
    }
}
