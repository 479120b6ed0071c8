//! Appending: one writer, whole commits, and room made ahead of the log's end.

use std::collections::BTreeMap;
use std::sync::Arc;

use zkv_io::Storage;

use crate::block::BlockKind;
use crate::checkpoint::{CheckpointDictionary, CheckpointSegment, LogCheckpoint};
use crate::commit::Commit;
use crate::error::{LogError, Result};
use crate::header::FileHeader;
use crate::layout::{COMMIT_BLOCK_BYTES, DICTIONARIES_MAX, PAGE_BYTES};
use crate::log::{Log, LogView, SegmentList, Shared};
use crate::mark::CommitMark;
use crate::position::{EntryAddress, FIRST_END, Location, Position};
use crate::reclaim::FreeSlot;
use crate::segment::{Segment, SegmentId};
use crate::sync::atomic::Ordering;
use crate::walk::Chain;

/// The first room made ahead of the log's end: a small store stays small.
const WINDOW_BYTES_MIN: u32 = 4 << 10;
/// The largest: at 100 bytes a commit, the length changes once in ten thousand commits.
const WINDOW_BYTES_MAX: u32 = 1 << 20;

/// The log's only writer.
pub struct LogWriter {
    pub(crate) shared: Arc<Shared>,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) tail: Tail,
    pub(crate) members: BTreeMap<u64, Arc<Segment>>,
    pub(crate) free: Vec<FreeSlot>,
    /// Slots of the file, in use or not.
    pub(crate) slot_count: u32,
    pub(crate) last_commit: u64,
    pub(crate) last_commit_checksum: u32,
    /// Whether the last block is an end mark.
    pub(crate) is_ended: bool,
    /// The newest roll call, and the end of its commit.
    pub(crate) roll_call: RollCallPlace,
    pub(crate) repair: Option<Repair>,
    /// Whether the log was opened at an end mark that may not be on the disk.
    pub(crate) is_mark_unproven: bool,
    /// The end of what the file holds, written or zeroed, in bytes from its start.
    pub(crate) file_end: u64,
    pub(crate) window_bytes: u32,
    pub(crate) write_buffer_bytes: usize,
    /// Bytes of the log that were written since it was opened.
    pub(crate) written_bytes: u64,
}

/// The end of the log.
#[derive(Clone, Debug)]
pub(crate) struct Tail {
    pub segment: Arc<Segment>,
    pub offset: u32,
    /// The cell in which the last block starts.
    pub last_cell: u32,
    pub block_count: u32,
    /// By number.
    pub dictionaries: Vec<CheckpointDictionary>,
    /// Of all blocks of the segment so far.
    pub chain: Chain,
}

impl Tail {
    pub(crate) fn position(&self) -> Position {
        Position { sequence: self.segment.place.id.sequence, offset: self.offset }
    }

    pub(crate) fn dictionary_offsets(&self) -> [u32; DICTIONARIES_MAX] {
        let mut offsets = [0; DICTIONARIES_MAX];
        for (place, known) in offsets.iter_mut().zip(&self.dictionaries) {
            *place = known.offset;
        }
        offsets
    }
}

/// Where a roll call stands. A segment header may name it once its commit is durable.
#[derive(Clone, Debug, Default)]
pub(crate) struct RollCallPlace {
    /// The newest that is durable.
    pub durable: Position,
    /// Those written since, each with the end of its commit, in the order of the log.
    pub written: Vec<(Position, Position)>,
}

/// What must happen before the next append, since a block that was given up could otherwise be taken for
/// one of the log behind a block that is written now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Repair {
    /// Slots whose segment headers are no part of the log.
    pub stray_slots: Vec<u32>,
    /// Free slots without a header, where a crash may have left something of such segments.
    pub headerless_slots: Vec<u32>,
    /// Written again.
    pub unproven: Option<Unproven>,
    /// An aborted commit has used up the tail segment's dictionary numbers and cells.
    pub renew_tail: bool,
    /// Where the file ended before that commit.
    pub file_end: Option<u64>,
}

/// What nothing proves to be on the disk.
#[derive(Clone, Debug)]
pub(crate) struct Unproven {
    pub from: Position,
    /// All that hold a part of it.
    pub segments: Vec<Arc<Segment>>,
}

/// What a finished commit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Commits count from 1.
    pub number: u64,
    /// The end of the log behind it, to be given to [`Log::sync`].
    pub end: Position,
}

impl LogWriter {
    /// The readers' side of this log.
    #[must_use]
    pub fn log(&self) -> Log {
        Log { shared: Arc::clone(&self.shared) }
    }

    /// The end of the last commit.
    #[must_use]
    pub fn end(&self) -> Position {
        self.tail.position()
    }

    /// The log up to the last commit: what is appended later is not seen, also where it stands in a
    /// segment, or a cell, that this view has.
    #[must_use]
    pub fn view(&self) -> LogView {
        self.log().view().until(self.end())
    }

    /// The number of the last commit; 0 before the first.
    #[must_use]
    pub fn last_commit(&self) -> u64 {
        self.last_commit
    }

    /// How many bytes of the log were written since it was opened: blocks, headers and seals, not the
    /// room made ahead.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Starts a commit. Nothing of it is visible before [`Commit::finish`]; dropped unfinished, it
    /// is wiped at once, or, where that cannot be written, before the next one starts.
    ///
    /// # Errors
    /// [`LogError::SyncFailed`] after a failed sync, [`LogError::Io`] where what an aborted
    /// commit or a crash left behind could not be wiped, and [`LogError::Corrupt`] where somebody has cut the file.
    pub fn begin(&mut self) -> Result<Commit<'_>> {
        self.mend()?;
        Ok(Commit::new(self))
    }

    /// Wipes what a crash or an aborted commit has left behind the log's end, and writes anew what
    /// nothing proves to be on the disk. It is done before the next commit at the latest; before a
    /// [`Log::sync`] that shall vouch for what was written before the log was opened, it must be.
    ///
    /// # Errors
    /// As [`LogWriter::begin`].
    pub fn mend(&mut self) -> Result<()> {
        if self.log().is_sync_failed() {
            return Err(self.log().sync_failure());
        }
        // First: a repair ends with a sync, behind which the mark counts as durable.
        self.write_mark_again()?;
        self.repair()?;
        self.check_is_whole()
    }

    /// Whatever is appended behind a hole is lost with what the file has lost: nobody is told that it is safe.
    fn check_is_whole(&self) -> Result<()> {
        let file_bytes = self.shared.file.len().map_err(LogError::io("measure"))?;
        if file_bytes < self.file_end {
            let what = "its end was cut off while it was open";
            return Err(LogError::Corrupt { offset: file_bytes, what });
        }
        Ok(())
    }

    /// Appends `entries` as one commit, and returns where each of them is. They are not durable
    /// before [`Log::sync`].
    ///
    /// # Errors
    /// [`LogError::EntryTooLarge`], [`LogError::Io`], [`LogError::SyncFailed`]; nothing was
    /// appended then.
    pub fn append(&mut self, entries: &[&[u8]]) -> Result<Vec<EntryAddress>> {
        let packed = self.log().pack_awaited(entries)?;
        let mut commit = self.begin()?;
        let addresses = commit.append(&packed)?;
        commit.finish(Room::Exact)?;
        Ok(addresses)
    }

    /// Appends a roll call, makes the log durable, and returns what an index checkpoint must keep
    /// of it.
    ///
    /// # Errors
    /// As [`LogWriter::append`] and [`Log::sync`].
    pub fn checkpoint(&mut self) -> Result<Vec<u8>> {
        let members: Vec<SegmentId> =
            self.members.values().map(|segment| segment.place.id).collect();
        let mut commit = self.begin()?;
        let place = commit.put_members(BlockKind::RollCall, &members)?;
        let committed = commit.finish(Room::Exact)?;
        self.note_roll_call(place, committed.end);
        self.log().sync(committed.end)?;
        self.note_durable_roll_call();
        Ok(self.encode_checkpoint())
    }

    fn encode_checkpoint(&self) -> Vec<u8> {
        let segments = self
            .members
            .values()
            .map(|segment| CheckpointSegment { id: segment.place.id, data_end: segment.end() });
        LogCheckpoint {
            last_commit: self.last_commit,
            watermark: self.end(),
            watermark_checksum: self.last_commit_checksum,
            roll_call: self.roll_call.durable,
            block_count: self.tail.block_count,
            chain: self.tail.chain,
            dictionaries: self.tail.dictionaries.clone(),
            segments: segments.collect(),
            cells: self.tail.segment.growing_cells(self.tail.offset),
        }
        .encode()
    }

    /// Syncs the log, marks its end as durable, and gives back the room made ahead.
    ///
    /// # Errors
    /// [`LogError::Io`] and [`LogError::SyncFailed`]. Nothing acknowledged is lost then.
    pub fn close(&mut self) -> Result<()> {
        let untouched = self.is_ended && self.repair.is_none();
        if !untouched {
            self.mend()?;
            self.log().sync(self.end())?;
            let mut commit = self.begin()?;
            commit.mark_end();
            let committed = commit.finish(Room::Exact)?;
            self.log().sync(committed.end)?;
            self.is_ended = true;
        }
        self.trim()
    }

    /// Cuts off the room made ahead but for the last page's, where the log's last segment is the file's
    /// last.
    ///
    /// # Errors
    /// [`LogError::Io`]; [`LogError::SyncFailed`] after a failed sync, and the file is as it was.
    pub fn trim(&mut self) -> Result<()> {
        if self.log().is_sync_failed() {
            return Err(self.log().sync_failure());
        }
        if self.repair.is_none() {
            self.cut_behind(self.slot_count)?;
        }
        Ok(())
    }

    /// Cuts off what is behind so many slots, and what the log's last segment leaves of the last of them;
    /// `false` where the system does not now.
    pub(crate) fn cut_behind(&mut self, slot_count: u32) -> Result<bool> {
        let segment = &self.tail.segment;
        let end = if segment.place.id.slot + 1 == slot_count {
            (segment.place.start + u64::from(self.tail.offset)).next_multiple_of(PAGE_BYTES)
        } else {
            self.shared.identity.slot_start(slot_count)
        };
        self.cut_to(end)
    }

    /// Makes the file end there, unless it ends before; `false` where the system does not now.
    fn cut_to(&mut self, end: u64) -> Result<bool> {
        if end >= self.file_end {
            return Ok(true);
        }
        let cut = self.shared.file.set_len(end);
        self.shared.may_be_longer.store(true, Ordering::SeqCst);
        match cut {
            Ok(()) => self.file_end = end,
            // Windows refuses while another process has the file mapped.
            Err(_) if cfg!(windows) => return Ok(false),
            Err(cause) => {
                // It may have been done all the same.
                let left = self.shared.file.len().unwrap_or(self.file_end);
                self.file_end = left.clamp(end, self.file_end);
                return Err(LogError::Io { action: "cut", cause });
            }
        }
        Ok(true)
    }

    pub(crate) fn publish_segments(&self) {
        let list = SegmentList::new(self.members.values());
        self.shared.segments.store(Arc::new(list));
    }

    /// Notes a roll call that was written at `place`, in a commit that ends at `end`.
    pub(crate) fn note_roll_call(&mut self, place: Position, end: Position) {
        self.note_durable_roll_call();
        self.roll_call.written.push((place, end));
    }

    /// Whatever was synced since: a slot that is used again because of one roll call has a header that
    /// names that one, or a later one.
    pub(crate) fn note_durable_roll_call(&mut self) {
        let synced_upto = self.log().synced_upto();
        let RollCallPlace { durable, written } = &mut self.roll_call;
        let is_written_only = |(_, end): &(Position, Position)| *end > synced_upto;
        let count = written.iter().position(is_written_only).unwrap_or(written.len());
        if let Some((place, _)) = written.drain(..count).next_back() {
            *durable = place;
        }
    }

    /// Does what [`Repair`] asks for. A crash within it leaves as much to repair as before, or
    /// less.
    fn repair(&mut self) -> Result<()> {
        let Some(repair) = self.repair.clone() else { return Ok(()) };
        if let Some(unproven) = &repair.unproven {
            self.write_again(unproven)?;
            if !repair.stray_slots.is_empty() {
                // Durably first: of a header that was lost, the stray may have the only copy of what it says.
                self.log().sync_again(self.end())?;
            }
        }
        let start = self.tail.segment.place.start;
        let slot_end = start + u64::from(self.tail.segment.place.slot_bytes);
        let file_bytes = self.shared.file.len().map_err(LogError::io("measure"))?;
        if !repair.stray_slots.is_empty() {
            // Durably first: a segment that opens with a roll call may be whole where its commit was
            // refused, and whoever starts there needs the seal that is wiped next.
            self.wipe_strays(&repair.stray_slots, file_bytes)?;
            self.log().sync_again(self.end())?;
        }
        self.wipe_hidden_strays(&repair.headerless_slots, file_bytes)?;
        self.write_zeros(start + u64::from(self.tail.offset), slot_end.min(file_bytes))?;
        self.log().sync_again(self.end())?;
        let filled = file_bytes.next_multiple_of(PAGE_BYTES);
        if filled > file_bytes {
            // What a commit that was given up has put behind the file's end comes to light when that grows: by
            // now, nothing leads to it.
            self.write_zeros(file_bytes, filled)?;
            self.log().sync_again(self.end())?;
        }
        if repair.renew_tail {
            self.renew_tail();
        }
        self.file_end = self.file_end.max(filled);
        self.repair = None;
        if let Some(end) = repair.file_end {
            // All that led there is wiped, durably, and no view has seen it. A crash that keeps the length leaves
            // what was before this. Where the file is not cut now, the next close does it.
            let _ = self.cut_to(end.next_multiple_of(PAGE_BYTES));
        }
        Ok(())
    }

    /// Replaces the tail's segment by one that knows nothing of an aborted commit.
    pub(crate) fn renew_tail(&mut self) {
        let offsets = self.tail.dictionary_offsets();
        let Tail { segment, offset, last_cell, .. } = &self.tail;
        let segment = Arc::new(segment.renewed(*offset, *last_cell, offsets));
        self.members.insert(segment.place.id.sequence, Arc::clone(&segment));
        self.tail.segment = segment;
        self.publish_segments();
    }

    /// Writes the log anew where a sync that failed may have left pages that the system takes for clean
    /// and the disk never saw (Rebello et al., ATC 2020).
    fn write_again(&self, Unproven { from, segments }: &Unproven) -> Result<()> {
        if *from <= FIRST_END {
            self.write_file_header_again(segments)?;
        }
        for segment in segments {
            let first = if segment.place.id.sequence == from.sequence { from.offset } else { 0 };
            let last = if segment.is_sealed() { segment.place.slot_bytes } else { segment.end() };
            let mut bytes = vec![0; last.saturating_sub(first) as usize];
            let start = segment.place.start + u64::from(first);
            self.shared.file.read_at(start, &mut bytes).map_err(LogError::io("read"))?;
            if first == 0 {
                self.restore_header(segment, &mut bytes)?;
            }
            self.shared.file.write_at(start, &bytes).map_err(LogError::io("write"))?;
        }
        Ok(())
    }

    /// Nothing proves the sync with which the file was made, either.
    fn write_file_header_again(&self, segments: &[Arc<Segment>]) -> Result<()> {
        let Some(first) = segments.iter().find(|segment| segment.id().sequence == 1) else {
            return Ok(());
        };
        let identity = self.log().identity().clone();
        let header = FileHeader { identity, first_nonce: first.id().nonce };
        self.shared.file.write_at(0, &header.encode()).map_err(LogError::io("write"))
    }

    /// The sync behind an end mark may have failed, and the system takes its page for clean. It goes to
    /// the disk with what is written next: what stands behind a mark that is lost would be lost, too.
    fn write_mark_again(&mut self) -> Result<()> {
        if !self.is_mark_unproven {
            return Ok(());
        }
        let mut mark = [0; COMMIT_BLOCK_BYTES as usize];
        let offset = u64::from(self.tail.offset) - u64::from(COMMIT_BLOCK_BYTES);
        let at = self.tail.segment.place.start + offset;
        self.shared.file.read_at(at, &mut mark).map_err(LogError::io("read"))?;
        self.shared.file.write_at(at, &mark).map_err(LogError::io("write"))?;
        self.is_mark_unproven = false;
        Ok(())
    }

    /// Puts the header of `segment` into its bytes, where a crash has kept the blocks and lost it.
    fn restore_header(&self, segment: &Segment, bytes: &mut [u8]) -> Result<()> {
        if self.header_in(bytes, segment.id()).is_some() {
            return Ok(());
        }
        let seal = if segment.is_sealed() { segment.read_seal(&*self.shared.file)? } else { None };
        // A seal has the digest of the segment with the header that it repeats.
        let header = seal.map_or_else(|| self.segment_header(segment.id()), |seal| seal.header);
        let cell = header.encode_cell();
        if let Some(place) = bytes.get_mut(..cell.len()) {
            place.copy_from_slice(&cell);
        }
        Ok(())
    }

    pub(crate) fn write_zeros(&self, from: u64, to: u64) -> Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let mut at = from;
        while at < to {
            // Whole pages, but for the first and the last: one that the disk cannot read need not be read for it.
            let upto = to.min((at + 1).next_multiple_of(ZEROS.len() as u64));
            let count = usize::try_from(upto - at).unwrap_or(ZEROS.len());
            self.shared.file.write_at(at, &ZEROS[..count]).map_err(LogError::io("write"))?;
            at += count as u64;
        }
        Ok(())
    }

    /// How many bytes to zero ahead of a commit that ends at `end`, in a slot that ends at
    /// `slot_end`: the room doubles, so that small commits seldom change the file's length.
    pub(crate) fn next_window(&mut self, end: u64, slot_end: u64) -> usize {
        self.window_bytes = (self.window_bytes * 2).clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
        let left = usize::try_from(slot_end.saturating_sub(end)).unwrap_or(usize::MAX);
        left.min(self.window_bytes as usize)
    }

    pub(crate) fn mark(&self, number: u64) -> CommitMark {
        CommitMark { number, synced_upto: self.log().synced_upto(), chain: Chain::default() }
    }

    pub(crate) fn location(&self, slot: u32, offset: u32) -> Option<Location> {
        Location::new(slot, offset, self.shared.identity.slot_bytes)
    }
}

/// Whether a commit makes room for those behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// The file ends with the commit's last page: for large ones, and for those that nobody syncs.
    Exact,
    /// Zeros are written behind the commit, in the same call, where the room made before is used
    /// up. A sync of the commits that fill them then changes nothing but their bytes.
    Ahead,
}

impl std::fmt::Debug for LogWriter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = formatter.debug_struct("LogWriter");
        debug
            .field("end", &self.end())
            .field("last_commit", &self.last_commit)
            .finish_non_exhaustive()
    }
}
