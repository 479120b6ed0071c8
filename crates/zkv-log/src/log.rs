//! The log as its readers see it.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use zkv_io::{FileMap, StorageFile};

use crate::block::{BlockHeader, BlockKind, is_whole};
use crate::codec::{Decoder, DecoderPool};
use crate::dictionary::Interner;
use crate::entries::Entries;
use crate::error::{LogError, Result};
use crate::header::Identity;
use crate::layout::{BLOCK_HEADER_BYTES, CELL_BYTES, SEGMENT_HEADER_BYTES};
use crate::pack::{Packed, Packer};
use crate::position::{EntryAddress, Location, Position};
use crate::scan::SegmentScan;
use crate::segment::Segment;

/// A read copies this much at once: most blocks, whose payload is about 300 bytes long, and what
/// else stands in their cell. A second copy would wait for the first.
const AHEAD_BYTES: u32 = 768;
/// A cell and most of a block that starts in it.
const PREFETCH_BYTES: u32 = 512;

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
    pub sync: Mutex<SyncState>,
    /// Held during a sync. A failure of the disk is reported to one caller only: who syncs at the
    /// same time must not take its own success for proof. Who waits here may find its work done.
    pub sync_gate: Mutex<()>,
}

/// What is known of what the disk holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SyncState {
    pub synced_upto: Position,
    pub failed: bool,
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
    fn get(&self, slot: u32) -> Option<&Arc<Segment>> {
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
        self.shared.packer.pack(&self.shared.interner, entries)
    }

    /// Makes everything up to `upto`, the end of a finished commit, durable.
    ///
    /// # Errors
    /// [`LogError::Io`]; from then on [`LogError::SyncFailed`], until the log is opened again: a
    /// later success would prove nothing.
    pub fn sync(&self, upto: Position) -> Result<()> {
        if !self.is_sync_failed() && upto <= self.synced_upto() {
            return Ok(());
        }
        let _gate = self.shared.sync_gate.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_sync_failed() {
            return Err(LogError::SyncFailed);
        }
        if upto <= self.synced_upto() {
            return Ok(());
        }
        self.sync_file(upto)
    }

    /// Whether a sync has failed since the log was opened: nothing is written any more.
    #[must_use]
    pub fn is_sync_failed(&self) -> bool {
        self.sync_state().failed
    }

    /// The caller holds the gate, or is the writer, who wants this to happen whatever was synced.
    fn sync_file(&self, upto: Position) -> Result<()> {
        let synced = self.shared.file.sync_data();
        let mut state = self.shared.sync.lock().unwrap_or_else(PoisonError::into_inner);
        match synced {
            Ok(()) => {
                state.synced_upto = state.synced_upto.max(upto);
                Ok(())
            }
            Err(source) => {
                state.failed = true;
                Err(LogError::Io { action: "sync", source })
            }
        }
    }

    /// As [`Log::sync`], though `upto` may have been durable before: what was written again was not.
    pub(crate) fn sync_again(&self, upto: Position) -> Result<()> {
        let _gate = self.shared.sync_gate.lock().unwrap_or_else(PoisonError::into_inner);
        self.sync_file(upto)
    }

    /// Up to where the log is known to be durable.
    #[must_use]
    pub fn synced_upto(&self) -> Position {
        self.sync_state().synced_upto
    }

    pub(crate) fn sync_state(&self) -> SyncState {
        *self.shared.sync.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// The end of what this view sees of `segment`, in bytes from its start.
    #[inline]
    pub(crate) fn end_of(&self, segment: &Segment) -> u32 {
        match segment.place.id.sequence.cmp(&self.until.sequence) {
            Ordering::Less => segment.end(),
            Ordering::Equal => segment.end().min(self.until.offset),
            Ordering::Greater => 0,
        }
    }

    /// Looks for an entry among the blocks that start at `location`, the newest block first.
    /// `matches` is shown one entry after another, and returns what it wants of the one it knows.
    ///
    /// Returns `None` where no entry matches, or the slot holds no segment of this view.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] where a block at the location is damaged, and [`LogError::Io`].
    #[inline]
    pub fn find<T>(
        &self,
        location: Location,
        mut matches: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some((segment, cell)) = self.cell_of(location) else { return Ok(None) };
        let cell_start = segment.place.start + u64::from(cell * CELL_BYTES);
        // While the cell table's byte is on its way.
        self.shared.map.prefetch(cell_start, PREFETCH_BYTES);
        let first = segment.first_block(&*self.shared.map, cell)?;
        let mut decoder = self.shared.decoders.take();
        let found = self.find_in_cell(segment, first, &mut decoder, &mut matches);
        if matches!(found, Ok(Some(_))) || !segment.is_sealed() {
            return found;
        }
        self.find_again(segment, cell, first, found, &mut decoder, &mut matches)
    }

    /// Shows all entries of the blocks that start at `location` to `visit`, the newest block first.
    ///
    /// # Errors
    /// As [`LogView::find`].
    pub fn visit(&self, location: Location, mut visit: impl FnMut(&[u8])) -> Result<()> {
        let Some((segment, cell)) = self.cell_of(location) else { return Ok(()) };
        let first = segment.first_block(&*self.shared.map, cell)?;
        let mut decoder = self.shared.decoders.take();
        let mut show = |entry: &[u8]| -> Option<()> {
            visit(entry);
            None
        };
        self.find_in_cell(segment, first, &mut decoder, &mut show).map(|_| ())
    }

    /// The place of the location's segment in the order of the log; `None` where its slot holds no
    /// segment of this view.
    #[must_use]
    pub fn sequence_of(&self, location: Location) -> Option<u64> {
        self.cell_of(location).map(|(segment, _)| segment.place.id.sequence)
    }

    #[inline]
    fn cell_of(&self, location: Location) -> Option<(&Arc<Segment>, u32)> {
        let slot_bytes = self.shared.identity.slot_bytes;
        let segment = self.segments.get(location.slot(slot_bytes)?)?;
        Some((segment, location.cell(slot_bytes)))
    }

    /// The byte of the cell table that led to `first` may be damaged: a location without its entry
    /// is so rare that the table can be held against its checksum each time.
    #[cold]
    fn find_again<T>(
        &self,
        segment: &Segment,
        cell: u32,
        first: u32,
        found: Result<Option<T>>,
        decoder: &mut Decoder,
        matches: &mut impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<Option<T>> {
        let checked = segment.first_block_checked(&*self.shared.file, cell)?;
        if checked == first {
            return found;
        }
        self.find_in_cell(segment, checked, decoder, matches)
    }

    #[inline]
    fn find_in_cell<T>(
        &self,
        segment: &Segment,
        first: u32,
        decoder: &mut Decoder,
        matches: &mut impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<Option<T>> {
        let end = ((first / CELL_BYTES + 1) * CELL_BYTES).min(self.end_of(segment));
        self.copy_ahead(segment, first, decoder)?;
        let mut starts = BlockStarts::default();
        let mut offset = first;
        while offset < end && starts.push(offset) {
            let copied = decoder.block.get((offset - first) as usize..);
            let header = copied.and_then(|bytes| BlockHeader::decode(*bytes.first_chunk()?));
            offset = offset.saturating_add(header.map_or(CELL_BYTES, |found| found.block_bytes()));
        }
        let mut copied = Some(first);
        // The newest last: a key that was written twice into one cell stands in two blocks.
        for start in starts.iter().rev() {
            if copied.take() != Some(start) {
                self.copy_ahead(segment, start, decoder)?;
            }
            if !self.load_copied(segment, start, decoder)? {
                continue;
            }
            let damaged = |_| segment.damaged(start, "a block's entries");
            for entry in Entries::parse(&decoder.payload).map_err(damaged)? {
                if let Some(found) = matches(entry.map_err(damaged)?) {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// Copies the block at `offset` out of the map, checks the copy, and decompresses it into
    /// `decoder.payload`; `false` where it is whole and holds no entries.
    pub(crate) fn load_block(
        &self,
        segment: &Segment,
        offset: u32,
        decoder: &mut Decoder,
    ) -> Result<bool> {
        self.copy_ahead(segment, offset, decoder)?;
        self.load_copied(segment, offset, decoder)
    }

    /// Copies what stands at `offset` into `decoder.block`: most blocks whole, in one copy.
    #[inline]
    fn copy_ahead(&self, segment: &Segment, offset: u32, decoder: &mut Decoder) -> Result<()> {
        let bytes = segment.end().saturating_sub(offset).min(AHEAD_BYTES);
        decoder.block.resize(bytes as usize, 0);
        let at = segment.place.start + u64::from(offset);
        self.shared.map.copy_out(at, &mut decoder.block).map_err(LogError::io("read"))
    }

    /// As [`LogView::load_block`], where `decoder.block` holds the start of the block already, or
    /// all of it and more.
    #[inline]
    fn load_copied(&self, segment: &Segment, offset: u32, decoder: &mut Decoder) -> Result<bool> {
        let damaged = || segment.damaged(offset, "a block");
        let header = decoder.block.first_chunk().and_then(|bytes| BlockHeader::decode(*bytes));
        let header = header.ok_or_else(damaged)?;
        if header.block_bytes() > segment.end().saturating_sub(offset) {
            return Err(damaged());
        }
        let copied = decoder.block.len();
        decoder.block.resize(header.block_bytes() as usize, 0);
        if let Some(rest) = decoder.block.get_mut(copied..) {
            let at = segment.place.start + u64::from(offset) + copied as u64;
            self.shared.map.copy_out(at, rest).map_err(LogError::io("read"))?;
        }
        let tag = header.tag;
        let with_entries = matches!(tag.kind, BlockKind::EntriesRaw | BlockKind::EntriesZstd);
        let dictionary = if with_entries && tag.number > 0 {
            let shared = &self.shared;
            Some(segment.dictionary(&*shared.file, &shared.interner, tag.number)?)
        } else {
            None
        };
        let seed = dictionary.map_or(segment.place.seed, |found| found.seed);
        if !is_whole(&decoder.block, seed, offset) {
            return Err(damaged());
        }
        match tag.kind {
            BlockKind::EntriesZstd => {
                let max = segment.place.slot_bytes as usize;
                let dictionary = dictionary.map(|found| &*found.dictionary);
                decoder.decompress_block(dictionary, max).ok_or_else(damaged)?;
            }
            BlockKind::EntriesRaw => {
                decoder.payload.clear();
                let payload = &decoder.block[BLOCK_HEADER_BYTES as usize..];
                decoder.payload.extend_from_slice(payload);
            }
            _ => {}
        }
        Ok(with_entries)
    }

    /// The entry at `address`.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] where the block is damaged or has no such entry, and
    /// [`LogError::Io`].
    pub fn read(&self, address: EntryAddress) -> Result<Vec<u8>> {
        let offset = address.offset;
        let at = self.shared.identity.slot_start(address.slot) + u64::from(offset);
        let missing = || LogError::Corrupt { offset: at, what: "no such entry" };
        let segment = self.segments.get(address.slot).ok_or_else(missing)?;
        let mut decoder = self.shared.decoders.take();
        if !self.load_block(segment, offset, &mut decoder)? {
            return Err(missing());
        }
        let mut entries = Entries::parse(&decoder.payload).map_err(|_| missing())?;
        let entry = entries.nth(address.ordinal as usize).ok_or_else(missing)?;
        Ok(entry.map_err(|_| missing())?.to_vec())
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

/// The starts of the blocks of one cell: at most one for every eight bytes.
#[derive(Default)]
struct BlockStarts {
    offsets: [u32; (CELL_BYTES / BLOCK_HEADER_BYTES) as usize],
    count: usize,
}

impl BlockStarts {
    #[inline]
    fn push(&mut self, offset: u32) -> bool {
        match self.offsets.get_mut(self.count) {
            Some(place) => {
                *place = offset;
                self.count += 1;
                true
            }
            None => false,
        }
    }

    #[inline]
    fn iter(&self) -> impl DoubleEndedIterator<Item = u32> {
        self.offsets[..self.count].iter().copied()
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
