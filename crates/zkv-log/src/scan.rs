//! Reading a segment's entries in the order of the log.

mod damaged;

use std::sync::Arc;

use crate::block::{BlockHeader, BlockKind, Tag};
use crate::cell::Cell;
use crate::codec::Decoder;
use crate::entries::Entries;
use crate::error::{LogError, Result};
use crate::layout::{BLOCK_HEADER_BYTES, CELL_BYTES, SEGMENT_HEADER_BYTES};
use crate::log::LogView;
use crate::position::{Location, Position, SegmentParts};
use crate::prepacked::Prepacked;
use crate::segment::Segment;
pub use damaged::DamagedScan;

/// A scan copies so much of the segment at once: many blocks, and still little beside the
/// processor's caches.
const AHEAD_BYTES: u32 = 64 << 10;

/// Goes through one segment. Each block is read through the map and checked. Behind an error it stays where it is,
/// and [`SegmentScan::go_on_behind`] goes on.
pub struct SegmentScan {
    view: LogView,
    segment: Arc<Segment>,
    offset: u32,
    /// Blocks that start from here on are left to others.
    until: u32,
    /// Blocks that start in other parts are passed over.
    parts: SegmentParts,
    /// What the segment holds from `ahead_from` on.
    ahead: Vec<u8>,
    ahead_from: u32,
    decoder: Decoder,
    /// A bit for each dictionary without which blocks are given up: only behind damage.
    lost_dictionaries: u16,
    keeps_prepacked: bool,
}

/// A block of entries whose payload is in the decoder.
#[derive(Clone, Copy)]
struct Loaded {
    offset: u32,
    tag: Tag,
}

/// A block of entries that a scan has reached.
#[derive(Debug)]
pub struct ScannedBlock<'a> {
    /// Where the block's entries are found again.
    pub location: Location,
    /// Where the block stands in the order of the log.
    pub position: Position,
    payload: &'a [u8],
    segment: &'a Segment,
}

impl<'a> ScannedBlock<'a> {
    /// The block's entries.
    ///
    /// # Errors
    /// [`LogError::Corrupt`](crate::LogError::Corrupt) where they do not fit the block.
    pub fn entries(&self) -> Result<impl Iterator<Item = Result<&'a [u8]>> + use<'a>> {
        let (segment, offset) = (self.segment, self.position.offset);
        let damaged = move |_| segment.damaged(offset, "a block's entries");
        let entries = Entries::parse(self.payload).map_err(damaged)?;
        Ok(entries.map(move |entry| entry.map_err(damaged)))
    }
}

impl SegmentScan {
    pub(crate) fn new(view: &LogView, segment: Arc<Segment>, from: u32) -> Result<Self> {
        let offset = from.max(SEGMENT_HEADER_BYTES);
        let until = view.end_of(&segment);
        let (view, decoder) = (view.clone(), Decoder::new());
        let (ahead, ahead_from, lost_dictionaries) = (Vec::new(), 0, 0);
        let parts = SegmentParts::ALL;
        let scan = Self {
            view,
            segment,
            offset,
            until,
            parts,
            ahead,
            ahead_from,
            decoder,
            lost_dictionaries,
            keeps_prepacked: false,
        };
        Ok(scan)
    }

    /// Passes over all blocks that do not start in `parts`. They are not read, and nobody notices what is
    /// damaged there.
    #[must_use]
    pub fn only(self, parts: SegmentParts) -> Self {
        Self { parts, ..self }
    }

    /// Keeps entries that have blocks of their own as they were packed, for [`Cell::take_prepacked`].
    #[must_use]
    pub fn with_prepacked(self) -> Self {
        Self { keeps_prepacked: true, ..self }
    }

    /// Splits off a scan of the next cells, which can go on in another thread: of 64 KiB of the segment,
    /// which it has read, or of one cell that takes more. `None` at the segment's end.
    pub fn split(&mut self) -> Option<Self> {
        // What is met on the way there is met again by whoever scans it.
        let _ = self.pass_over();
        if self.until <= self.offset {
            return None;
        }
        // What cannot be read at once, or told apart, is left to whoever scans it.
        let end = self.whole_cells().unwrap_or(self.until);
        let (view, segment) = (self.view.clone(), Arc::clone(&self.segment));
        let (ahead, ahead_from) = (std::mem::take(&mut self.ahead), self.ahead_from);
        let offset = std::mem::replace(&mut self.offset, end);
        let (decoder, lost_dictionaries) = (Decoder::new(), 0);
        Some(Self {
            view,
            segment,
            offset,
            until: end,
            parts: self.parts,
            ahead,
            ahead_from,
            decoder,
            lost_dictionaries,
            keeps_prepacked: self.keeps_prepacked,
        })
    }

    /// Where the last of the cells ends that lie within what is read at once.
    fn whole_cells(&mut self) -> Option<u32> {
        let first = self.offset;
        let wanted_end = self.parts.run_end(first, self.segment.place.slot_bytes);
        let until = wanted_end.unwrap_or(u32::MAX).min(self.until);
        self.look_ahead(first, AHEAD_BYTES.min(until - first)).ok()?;
        let known_end = self.ahead_from + u32::try_from(self.ahead.len()).ok()?;
        let (mut at, mut end) = (first, first);
        while at < until {
            let known = &self.ahead[(at - self.ahead_from) as usize..];
            let Some(header) = known.first_chunk() else { break };
            let next = at.checked_add(BlockHeader::decode(*header)?.block_bytes())?;
            if known_end < next && first < end {
                break;
            }
            if next / CELL_BYTES != at / CELL_BYTES || until <= next {
                end = next;
            }
            at = next;
            if known_end <= at {
                break;
            }
        }
        self.look_ahead(first, end - first).ok()?;
        (first < end && end <= self.until).then_some(end)
    }

    /// Goes on with what `other` scans. The buffers for decompressing stay.
    pub fn go_on_with(&mut self, mut other: Self) {
        std::mem::swap(&mut self.decoder, &mut other.decoder);
        *self = other;
    }

    /// Goes on behind the damaged block that the last error was about, to the segment's end, also where that
    /// was left to others. Which of two records of a key counts is not known there without an index: see
    /// [`DamagedScan`].
    #[must_use]
    pub fn go_on_behind(self) -> DamagedScan {
        DamagedScan::new(self)
    }

    /// The next block of entries; `None` at the segment's end.
    ///
    /// # Errors
    /// [`LogError::Corrupt`](crate::LogError::Corrupt) where a block is damaged, and [`LogError::Io`](crate::LogError::Io).
    pub fn next_block(&mut self) -> Result<Option<ScannedBlock<'_>>> {
        let Some(Loaded { offset, .. }) = self.advance()? else { return Ok(None) };
        Ok(Some(ScannedBlock {
            location: self.location_of(offset)?,
            position: Position { sequence: self.segment.place.id.sequence, offset },
            payload: &self.decoder.payload,
            segment: &self.segment,
        }))
    }

    /// Reads all blocks of entries that start in the next cell in which any does into `cell`, in
    /// place of what it held; `false` at the segment's end.
    ///
    /// # Errors
    /// As [`SegmentScan::next_block`]. What `cell` holds then is of no use: which of a key's records
    /// counts cannot be told without the block that is damaged.
    pub fn next_cell(&mut self, cell: &mut Cell) -> Result<bool> {
        let Some(loaded) = self.advance()? else { return Ok(false) };
        let first = loaded.offset;
        let sequence = self.segment.place.id.sequence;
        let location = self.location_of(first)?;
        let block = Position { sequence, offset: first };
        let started = cell.start(location, block, &mut self.decoder.payload);
        started.map_err(|_| self.no_entries(first))?;
        self.keep_prepacked(cell, loaded);
        let end = (first / CELL_BYTES + 1) * CELL_BYTES;
        while let Some(loaded) = self.advance_until(end)? {
            let offset = loaded.offset;
            let added = cell.add(Position { sequence, offset }, &self.decoder.payload);
            added.map_err(|_| self.no_entries(offset))?;
            self.keep_prepacked(cell, loaded);
        }
        Ok(true)
    }

    /// Keeps the block that was loaded last, and is in `cell`, as it is packed.
    fn keep_prepacked(&self, cell: &mut Cell, Loaded { offset, tag }: Loaded) {
        if !self.keeps_prepacked {
            return;
        }
        cell.keep_prepacked(|| {
            let shared = &self.view.shared;
            let named =
                |number| self.segment.dictionary_name(&*shared.file, &shared.interner, number);
            let dictionary = match (tag.kind, tag.number) {
                (_, 0) => None,
                (BlockKind::EntriesZstd, number) => Some(named(number).ok()?.digest),
                _ => return None,
            };
            let block =
                (offset - self.ahead_from) as usize..(self.offset - self.ahead_from) as usize;
            let payload = self.ahead.get(block)?.get(BLOCK_HEADER_BYTES as usize..)?.to_vec();
            Some(Prepacked { payload, kind: tag.kind, dictionary })
        });
    }

    /// The block at `offset` was read, and its entries do not fit it: the scan stays there.
    #[cold]
    fn no_entries(&mut self, offset: u32) -> LogError {
        self.offset = offset;
        self.ahead.clear();
        self.segment.damaged(offset, "a block's entries")
    }

    fn location_of(&self, offset: u32) -> Result<Location> {
        let place = &self.segment.place;
        let location = Location::new(place.id.slot, offset, place.slot_bytes);
        location.ok_or_else(|| self.segment.damaged(offset, "a block's place"))
    }

    /// Puts the entries of the next block that has any into the decoder, and says where it starts.
    fn advance(&mut self) -> Result<Option<Loaded>> {
        self.advance_until(u32::MAX)
    }

    /// As [`SegmentScan::advance`], among the blocks that start before `end`.
    fn advance_until(&mut self, end: u32) -> Result<Option<Loaded>> {
        let end = self.until.min(end);
        loop {
            // What is damaged in a part that is passed over costs nothing of what was read before it.
            if end <= self.offset {
                return Ok(None);
            }
            self.pass_over()?;
            let offset = self.offset;
            if end <= offset {
                return Ok(None);
            }
            let (bytes, of_entries) = self.load(offset).inspect_err(|_| self.ahead.clear())?;
            self.offset += bytes;
            if let Some(tag) = of_entries {
                return Ok(Some(Loaded { offset, tag }));
            }
        }
    }

    /// Goes to the next block that starts in one of the wanted parts.
    fn pass_over(&mut self) -> Result<()> {
        let slot_bytes = self.segment.place.slot_bytes;
        while self.offset < self.until && !self.parts.has(self.offset, slot_bytes) {
            let next = self.parts.next_start(self.offset, slot_bytes).unwrap_or(self.until);
            self.go_to(next.min(self.until))?;
        }
        Ok(())
    }

    /// Goes to the first block that starts at `bound` or behind it: from a block shortly before, which the
    /// cell table leads to, or, where that is wrong, from where the scan stands. Each block on the way is held
    /// against its checksum, since a wrong length would lead past others.
    fn go_to(&mut self, bound: u32) -> Result<()> {
        if bound == self.until {
            self.offset = bound;
            return Ok(());
        }
        if let Some(near) = self.block_before(bound)
            && let Ok((bytes, _)) = self.load(near)
        {
            self.offset = near + bytes;
        }
        while self.offset < bound {
            let (bytes, _) = self.load(self.offset).inspect_err(|_| self.ahead.clear())?;
            self.offset += bytes;
        }
        Ok(())
    }

    /// The last block that the cell table tells of between where the scan stands and `bound`, a cell's start.
    fn block_before(&self, bound: u32) -> Option<u32> {
        let cells = self.offset / CELL_BYTES + 1..bound / CELL_BYTES;
        cells.rev().find_map(|cell| {
            let first = self.segment.first_block(&*self.view.shared.map, cell).ok()?;
            // The table says the same of a block at a cell's start and of none.
            (!first.is_multiple_of(CELL_BYTES)).then_some(first)
        })
    }

    /// Loads the block at `offset`, and says how long it is and, where it holds entries, how.
    fn load(&mut self, offset: u32) -> Result<(u32, Option<Tag>)> {
        let damaged = |segment: &Segment| segment.damaged(offset, "a block");
        let header = self.look_ahead(offset, BLOCK_HEADER_BYTES)?;
        let header = header.first_chunk().and_then(|bytes| BlockHeader::decode(*bytes));
        let header = header.ok_or_else(|| damaged(&self.segment))?;
        let bytes = header.block_bytes();
        if bytes > self.segment.end().saturating_sub(offset) {
            return Err(damaged(&self.segment));
        }
        if self.lost_dictionaries & 1 << header.tag.number != 0
            && damaged::dictionary_of(header.tag).is_some()
        {
            return Err(self.segment.damaged(offset, "a block whose dictionary is lost"));
        }
        self.look_ahead(offset, bytes)?;
        let start = (offset - self.ahead_from) as usize;
        let block = &mut self.ahead[start..start + bytes as usize];
        let (view, decoder) = (&self.view, &mut self.decoder);
        let with_entries = view.open_block(&self.segment, offset, header.tag, block, decoder)?;
        Ok((bytes, with_entries.then_some(header.tag)))
    }

    /// At least `bytes` of what stands at `offset`, as far as the segment goes.
    fn look_ahead(&mut self, offset: u32, bytes: u32) -> Result<&[u8]> {
        let left = self.segment.end().saturating_sub(offset);
        let bytes = bytes.min(left) as usize;
        let known = |scan: &Self| {
            let start = offset.checked_sub(scan.ahead_from)? as usize;
            (start + bytes <= scan.ahead.len()).then_some(start)
        };
        let start = match known(self) {
            Some(start) => start,
            None => {
                // Where not all of it can be read, what is needed now may be.
                let much = bytes.max(left.min(AHEAD_BYTES) as usize);
                let copied = self.copy(offset, much).or_else(|_| self.copy(offset, bytes));
                copied.map_err(self.segment.unread(offset))?;
                0
            }
        };
        Ok(&self.ahead[start..])
    }

    fn copy(&mut self, offset: u32, bytes: usize) -> std::io::Result<()> {
        self.ahead.resize(bytes, 0);
        self.ahead_from = offset;
        let at = self.segment.place.start + u64::from(offset);
        let copied = self.view.shared.map.copy_out(at, &mut self.ahead);
        copied.inspect_err(|_| self.ahead.clear())
    }
}

impl std::fmt::Debug for SegmentScan {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = formatter.debug_struct("SegmentScan");
        debug
            .field("slot", &self.segment.place.id.slot)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}
