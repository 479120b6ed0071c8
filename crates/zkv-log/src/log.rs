//! The log as its readers see it.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock, PoisonError};

use zkv_io::{FileMap, StorageFile};

use crate::codec::DecoderPool;
use crate::dictionary::{DictionaryPlace, Interner};
use crate::error::{LogError, Result};
use crate::header::Identity;
use crate::layout::{CELL_BYTES, SEGMENT_HEADER_BYTES};
use crate::pack::{PackJob, Packed, Packer};
use crate::position::{CellId, Location, Position};
use crate::prepacked::Prepacked;
use crate::scan::SegmentScan;
use crate::segment::Segment;
use crate::sync::atomic::{self, AtomicBool};
use crate::sync::{ArcSwap, Mutex};
use crate::turn::SyncTurns;

/// A compressed segment log, open for reading. Clones share everything.
///
/// Reads take no lock that a writer holds.
#[derive(Clone)]
pub struct Log {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub file: Arc<dyn StorageFile>,
    pub map: Arc<dyn FileMap>,
    pub identity: Identity,
    pub segments: ArcSwap<SegmentList>,
    pub decoders: DecoderPool,
    pub interner: Interner,
    pub packer: Packer,
    /// The end of the last commit that is in the operating system's hands, of those since the opening.
    pub finished_upto: Mutex<Position>,
    /// The log's end when it was opened: a sync is asked for it where it was mended.
    pub opened_upto: Position,
    /// Up to where the log is known to be durable.
    pub synced_upto: Mutex<Position>,
    /// Whether a sync has failed; each buffered write asks.
    pub is_sync_failed: AtomicBool,
    /// What the system said then: it is there before `is_sync_failed` says so.
    pub sync_failure: OnceLock<String>,
    /// Whether the file may have been cut since it was synced: a power cut brings back what stood behind its end.
    pub may_be_longer: AtomicBool,
    /// Who syncs, and who waits for that.
    pub sync_turns: SyncTurns,
}

/// The segments of the log at one moment, by slot.
#[derive(Debug, Default)]
pub(crate) struct SegmentList {
    pub by_slot: Vec<Option<Arc<Segment>>>,
}

impl SegmentList {
    pub(crate) fn new<'a>(segments: impl IntoIterator<Item = &'a Arc<Segment>>) -> Self {
        let mut by_slot = Vec::new();
        for segment in segments {
            let slot = segment.place.id.slot as usize;
            if by_slot.len() <= slot {
                by_slot.resize(slot + 1, None);
            }
            by_slot[slot] = Some(Arc::clone(segment));
        }
        Self { by_slot }
    }

    #[inline]
    pub(crate) fn get(&self, slot: u32) -> Option<&Arc<Segment>> {
        self.by_slot.get(slot as usize)?.as_ref()
    }
}

/// What is known of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// The slot that the segment fills.
    pub slot: u32,
    /// Its place in the order of the log, from 1.
    pub sequence: u64,
    /// Bytes in use, its header included, its seal not.
    pub data_bytes: u32,
    /// Whether it is full.
    pub is_sealed: bool,
}

impl Log {
    /// What makes this log this log.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    /// The log as it now is. The segments of a view are not overwritten while it lives.
    #[must_use]
    pub fn view(&self) -> LogView {
        let until = Position { sequence: u64::MAX, offset: u32::MAX };
        let segments = self.shared.segments.load_full();
        LogView { shared: Arc::clone(&self.shared), segments, until }
    }

    /// Cuts `entries` into blocks, in their order, and compresses them, on several threads where
    /// there is enough. Trains a dictionary now and then.
    ///
    /// # Errors
    /// [`LogError::EntryTooLarge`].
    pub fn pack(&self, entries: &[&[u8]]) -> Result<Packed> {
        self.packer().pack(&self.shared.interner, entries)
    }

    /// As [`Log::pack`], where `prepacked` has, for each entry, what [`Cell::take_prepacked`] gave for it: one that gets
    /// a block of its own again, with the dictionary that it was packed with, goes there as it is.
    ///
    /// [`Cell::take_prepacked`]: crate::Cell::take_prepacked
    ///
    /// # Errors
    /// [`LogError::EntryTooLarge`].
    pub fn pack_again(
        &self,
        entries: &[&[u8]],
        prepacked: Vec<Option<Prepacked>>,
    ) -> Result<Packed> {
        self.packer().pack_again(&self.shared.interner, entries, prepacked)
    }

    /// As [`Log::pack`], for a commit that waits: up to 128 KiB are compressed at level 3 where the log's
    /// is 4 or 5, which takes half as long, and 4 % more room.
    ///
    /// # Errors
    /// [`LogError::EntryTooLarge`].
    pub fn pack_awaited(&self, entries: &[&[u8]]) -> Result<Packed> {
        self.packer().pack_awaited(&self.shared.interner, entries)
    }

    fn packer(&self) -> &Packer {
        let Shared { packer, segments, file, interner, .. } = &*self.shared;
        packer.inherit(|DictionaryPlace { segment: id, number }| {
            let segments = segments.load();
            let segment = segments.get(id.slot).filter(|segment| segment.id() == id)?;
            segment.dictionary(&**file, interner, number).ok()
        });
        packer
    }

    /// Begins what [`Log::pack`] does, so that any thread can help: [`Log::finish_packing`] ends it.
    ///
    /// # Errors
    /// [`LogError::EntryTooLarge`].
    pub fn begin_packing(&self, entries: &[&[u8]]) -> Result<PackJob> {
        self.packer().begin(&self.shared.interner, entries)
    }

    /// Packs some of `job`, until nothing of it is left to begin. `entries` knows those with these
    /// numbers.
    pub fn help_packing<'e>(&self, job: &PackJob, entries: impl Fn(Range<usize>) -> Vec<&'e [u8]>) {
        self.shared.packer.help(job, entries);
    }

    /// Packs what is left of `job`, as [`Log::pack`] does: once for each job. Who helps is not waited
    /// for.
    #[must_use]
    pub fn finish_packing<'e, F>(&self, job: &PackJob, entries: F) -> Packed
    where
        F: Fn(Range<usize>) -> Vec<&'e [u8]> + Sync,
    {
        self.shared.packer.finish(job, entries)
    }

    /// `packed`, which was made of `entries`, without those that are not kept: one flag for each. `None`
    /// where all are.
    ///
    /// # Panics
    /// Where `entries` or `is_kept` are fewer than what was packed.
    #[must_use]
    pub fn repack(&self, packed: &Packed, entries: &[&[u8]], is_kept: &[bool]) -> Option<Packed> {
        self.shared.packer.repack(packed, entries, is_kept)
    }

    /// Makes everything up to `upto`, the end of a finished commit, durable. What lies behind the log's
    /// end stands for that end.
    ///
    /// # Errors
    /// [`LogError::Io`]; from then on [`LogError::SyncFailed`], until the log is opened again: a
    /// later success would prove nothing.
    pub fn sync(&self, upto: Position) -> Result<()> {
        if !self.is_sync_failed() && upto <= self.synced_upto() {
            return Ok(());
        }
        // What is not written yet is not vouched for: the next opening would miss it.
        let upto = upto.min(self.finished_upto().max(self.shared.opened_upto));
        let answer = || match self.is_sync_failed() {
            true => Some(Err(self.sync_failure())),
            false => (upto <= self.synced_upto()).then_some(Ok(())),
        };
        let _turn = match self.shared.sync_turns.wait(answer) {
            Ok(turn) => turn,
            Err(answer) => return answer,
        };
        // Whoever has committed by now need not sync again.
        let finished = self.finished_upto();
        self.sync_file(upto.max(finished))
    }

    fn finished_upto(&self) -> Position {
        *self.shared.finished_upto.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a sync has failed since the log was opened: nothing is written any more.
    #[must_use]
    pub fn is_sync_failed(&self) -> bool {
        self.shared.is_sync_failed.load(atomic::Ordering::Acquire)
    }

    /// [`LogError::SyncFailed`], with what the system said of the first sync that failed.
    #[must_use]
    pub fn sync_failure(&self) -> LogError {
        LogError::SyncFailed { cause: self.shared.sync_failure.get().cloned().unwrap_or_default() }
    }

    /// It is the caller's turn, or the caller is the writer, who wants this to happen whatever was synced.
    fn sync_file(&self, upto: Position) -> Result<()> {
        // One that was before this turn may have failed, and the system says so only once: the next one
        // would succeed, though the disk has not got the pages.
        if self.is_sync_failed() {
            return Err(self.sync_failure());
        }
        // Before it, since the file may be cut again meanwhile.
        self.shared.may_be_longer.store(false, atomic::Ordering::SeqCst);
        let synced = self.shared.file.sync_data();
        let mut synced_upto =
            self.shared.synced_upto.lock().unwrap_or_else(PoisonError::into_inner);
        match synced {
            Ok(()) => {
                *synced_upto = upto.max(*synced_upto);
                Ok(())
            }
            Err(cause) => {
                self.shared.sync_failure.get_or_init(|| cause.to_string());
                self.shared.is_sync_failed.store(true, atomic::Ordering::Release);
                Err(LogError::Io { action: "sync", cause })
            }
        }
    }

    /// As [`Log::sync`], though `upto` may have been durable before: what was written again was not.
    pub(crate) fn sync_again(&self, upto: Position) -> Result<()> {
        let _turn = self.shared.sync_turns.wait(|| None::<()>);
        self.sync_file(upto)
    }

    /// Up to where the log is known to be durable.
    #[must_use]
    pub fn synced_upto(&self) -> Position {
        *self.shared.synced_upto.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The data file's length in bytes, with the room made ahead of the log's end.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn file_bytes(&self) -> Result<u64> {
        self.shared.file.len().map_err(LogError::io("measure"))
    }

    /// The data file.
    #[must_use]
    pub fn file(&self) -> &Arc<dyn StorageFile> {
        &self.shared.file
    }
}

/// The log at one moment.
#[derive(Clone)]
pub struct LogView {
    pub(crate) shared: Arc<Shared>,
    pub(crate) segments: Arc<SegmentList>,
    /// What stands from here on is not seen.
    until: Position,
}

impl LogView {
    /// The same view, without what stands at `end` or behind it.
    #[must_use]
    pub fn until(self, end: Position) -> Self {
        Self { until: end, ..self }
    }

    /// What makes this log this log.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    /// The bytes of all slots, of which the file may not have the last one's yet.
    #[must_use]
    pub fn slots_bytes(&self) -> u64 {
        self.segments.by_slot.len() as u64 * u64::from(self.shared.identity.slot_bytes)
    }

    /// The end of what this view sees of `segment`, in bytes from its start.
    #[inline]
    pub(crate) fn end_of(&self, segment: &Segment) -> u32 {
        match segment.place.id.sequence.cmp(&self.until.sequence) {
            Ordering::Less => segment.end(),
            Ordering::Equal => segment.end().min(self.until.offset),
            Ordering::Greater => 0,
        }
    }

    /// The place of the location's segment in the order of the log; `None` where its slot holds no
    /// segment of this view.
    #[must_use]
    pub fn sequence_of(&self, location: Location) -> Option<u64> {
        self.cell_of(location).map(|(segment, _)| segment.place.id.sequence)
    }

    /// What names the entries at `location`, which are then the same whenever and through whichever
    /// view they are read. `None` where others may still be added to them, where this view does not
    /// see all of them, and where its slot holds no segment of this view.
    #[inline]
    #[must_use]
    pub fn cell_id(&self, location: Location) -> Option<CellId> {
        let (segment, cell) = self.cell_of(location)?;
        let is_whole = self.end_of(segment) >= (cell + 1) * CELL_BYTES;
        is_whole.then_some(CellId { location, nonce: segment.place.id.nonce })
    }

    /// Whether all entries at `location` stand before `end`, so that none was added to them since.
    #[must_use]
    pub fn is_before(&self, location: Location, end: Position) -> bool {
        self.cell_of(location).is_some_and(|(segment, cell)| {
            let sequence = segment.place.id.sequence;
            Position { sequence, offset: (cell + 1) * CELL_BYTES } <= end
        })
    }

    /// What stands there, or behind it, this view does not see. Where it sees all that is published, that
    /// is behind any log's end.
    #[must_use]
    pub fn seen_upto(&self) -> Position {
        self.until
    }

    #[inline]
    pub(crate) fn cell_of(&self, location: Location) -> Option<(&Arc<Segment>, u32)> {
        let slot_bytes = self.shared.identity.slot_bytes;
        let segment = self.segments.get(location.slot(slot_bytes)?)?;
        Some((segment, location.cell(slot_bytes)))
    }

    /// The segments in the order of the log.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let mut infos: Vec<SegmentInfo> = self
            .segments
            .by_slot
            .iter()
            .flatten()
            .filter(|segment| segment.place.id.sequence <= self.until.sequence)
            .map(|segment| SegmentInfo {
                slot: segment.place.id.slot,
                sequence: segment.place.id.sequence,
                data_bytes: self.end_of(segment),
                is_sealed: segment.is_sealed(),
            })
            .collect();
        infos.sort_by_key(|info| info.sequence);
        infos
    }

    /// What blocks are filled up to before compression, as the log was opened:
    /// [`LogOptions::block_bytes`](crate::LogOptions::block_bytes).
    #[must_use]
    pub fn block_bytes(&self) -> usize {
        self.shared.packer.block_bytes()
    }

    /// How many blocks the full segment in `slot` has, of whatever kind; `None` where its seal is damaged, or
    /// has not been read: see [`LogView::learn_block_count`].
    #[must_use]
    pub fn block_count(&self, slot: u32) -> Option<u32> {
        self.segments.get(slot)?.block_count()
    }

    /// Reads the seal of the segment in `slot`, if it has one and nobody has: some kilobytes of the file.
    pub fn learn_block_count(&self, slot: u32) {
        if let Some(segment) = self.segments.get(slot) {
            segment.learn_block_count(&*self.shared.file);
        }
    }

    /// How many different dictionaries the segments use.
    ///
    /// # Errors
    /// As [`LogView::read`].
    pub fn dictionary_count(&self) -> Result<usize> {
        let mut digests = HashSet::new();
        for segment in self.segments.by_slot.iter().flatten() {
            digests.extend(segment.dictionary_digests(&*self.shared.file)?);
        }
        Ok(digests.len())
    }

    /// How many threads should read at once, where much is to be read: as many as compress, unless fewer
    /// may read.
    #[must_use]
    pub fn read_threads(&self) -> usize {
        self.shared.packer.thread_count().min(self.shared.decoders.max())
    }

    /// Reads the entries of the segment in `slot` in their order, from `from` on, a block's start;
    /// `None` from its first block on.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] where the slot holds no segment, and [`LogError::Io`].
    pub fn scan(&self, slot: u32, from: Option<u32>) -> Result<SegmentScan> {
        let at = self.shared.identity.slot_start(slot);
        let missing = LogError::Corrupt { offset: at, what: "no such segment" };
        let segment = self.segments.get(slot).ok_or(missing)?;
        SegmentScan::new(self, Arc::clone(segment), from.unwrap_or(SEGMENT_HEADER_BYTES))
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Log").field("identity", self.identity()).finish_non_exhaustive()
    }
}

impl fmt::Debug for LogView {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LogView").field("segments", &self.segments().len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use zkv_io::MemoryStorage;

    use super::*;
    use crate::{Access, LogOptions, LogWriter, OpenFile, create};

    fn open() -> LogWriter {
        let (storage, path) = (MemoryStorage::new(), Path::new("log"));
        let options = LogOptions { slot_bytes: 64 << 10, ..LogOptions::default() };
        create(&storage, path, &options).unwrap();
        let file = OpenFile::open(Arc::new(storage), path, Access::ReadWrite, options).unwrap();
        file.recover(None).unwrap().writer.unwrap()
    }

    fn free_first(writer: &mut LogWriter) {
        let noise = |seed: u64| fastrand::Rng::with_seed(seed);
        let mut entry = vec![0; 24 << 10];
        for seed in 0..3 {
            noise(seed).fill(&mut entry);
            writer.append(&[&entry]).unwrap();
        }
        assert!(writer.view().segments().len() > 1);
        let freed = writer.free(&[0]).unwrap();
        writer.log().sync(freed.end).unwrap();
    }

    /// `arc-swap` lends what it holds without counting it. Whoever was lent a list of segments, or a
    /// view with one, holds their slots all the same, once another is stored.
    #[test]
    fn a_slot_is_held_by_whoever_was_lent_its_segment() {
        const NEXT: u32 = 9;
        let mut writer = open();
        let published = ArcSwap::from_pointee(writer.view());
        let (lent_list, lent_view) = (writer.shared.segments.load(), published.load());
        free_first(&mut writer);
        published.store(Arc::new(writer.view()));
        assert_eq!(writer.take_slot(NEXT), (NEXT, NEXT + 1), "both hold it");
        drop(lent_list);
        assert_eq!(writer.take_slot(NEXT), (NEXT, NEXT + 1), "the view holds it");
        drop(lent_view);
        assert_eq!(writer.take_slot(NEXT), (0, NEXT));
    }
}
