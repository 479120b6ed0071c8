//! Going on behind what is damaged, with whatever a lookup finds there.

use crate::block::{BlockHeader, BlockKind, Tag, is_whole};
use crate::cell::Cell;
use crate::error::{LogError, Result};
use crate::layout::{BLOCK_HEADER_BYTES, CELL_BYTES, DICTIONARY_BYTES_MAX};
use crate::position::SegmentParts;

use super::SegmentScan;

/// How much is summed up in vain in search of whole blocks, before the rest of the segment is given up: a
/// tenth of a second. Damage takes little of it; forged bytes that all look like long blocks take hours.
const SUMMED_BYTES_MAX: u64 = 1 << 30;
/// What a read that fails counts for: a disk may try for seconds.
const FAILED_READ_BYTES: u64 = 1 << 20;
/// What the system reads at once, and fails to read: no other place in it is tried.
const PAGE_BYTES: u64 = 4096;

/// Goes through what is behind a damaged place of a segment: through the cells that [`LogView::find`] can
/// read there, with those of their blocks that are newer than what is damaged in them.
///
/// Whole blocks are found by the segment's cell table, as lookups find them, and their checksums tell that
/// they stand where they were written. What stands in no cell that an index leads to may be forged.
///
/// [`LogView::find`]: crate::LogView::find
pub struct DamagedScan {
    scan: SegmentScan,
    /// The cell table, where the seal is whole.
    sealed_cells: Option<Vec<u8>>,
    /// Whether the scan stands at what is damaged, and that was told.
    is_at_damage: bool,
    /// Where the first damage was met.
    damaged_from: u32,
    /// A bit for each dictionary whose block was found damaged in search of others: it takes long to find.
    nameless: u16,
    /// The page of the file that could not be read last.
    failed_page: Option<u64>,
    /// What may still be summed up in vain.
    left_bytes: u64,
}

impl DamagedScan {
    pub(super) fn new(mut scan: SegmentScan) -> Self {
        scan.until = scan.view.end_of(&scan.segment);
        scan.parts = SegmentParts::ALL;
        let (segment, file) = (&scan.segment, &*scan.view.shared.file);
        let seal = if segment.is_sealed() { segment.read_seal(file) } else { Ok(None) };
        // Where it cannot be read this time, its table is looked at through the map, unproven.
        let seal = seal.unwrap_or_default();
        if segment.is_sealed() && seal.is_none() {
            // Where nothing can be read, nothing is found either.
            let _ = segment.walk(file);
        }
        let mut damaged = Self {
            sealed_cells: seal.map(|seal| seal.cells),
            is_at_damage: true,
            damaged_from: scan.offset,
            nameless: 0,
            failed_page: None,
            left_bytes: SUMMED_BYTES_MAX,
            scan,
        };
        // Whoever has met it has told of it.
        damaged.is_news();
        damaged
    }

    /// As [`SegmentScan::next_cell`], but that the next call goes on behind an error. Each damaged place has
    /// one, up to the next whole block; blocks whose dictionary is lost have none of their own.
    ///
    /// # Errors
    /// As [`SegmentScan::next_cell`].
    pub fn next_cell(&mut self, cell: &mut Cell) -> Result<bool> {
        loop {
            if std::mem::take(&mut self.is_at_damage) {
                self.pass();
            }
            match self.scan.next_cell(cell) {
                Err(error) => {
                    self.is_at_damage = true;
                    if self.is_news() {
                        return Err(error);
                    }
                }
                found => return found,
            }
        }
    }

    /// Whether what the scan has failed at is more than what follows from what was told before. Of a
    /// dictionary that is found to be lost, that is noted.
    fn is_news(&mut self) -> bool {
        let scan = &mut self.scan;
        let header = scan.look_ahead(scan.offset, BLOCK_HEADER_BYTES);
        let header = header.ok().and_then(|bytes| BlockHeader::decode(*bytes.first_chunk()?));
        let Some(number) = header.and_then(|header| dictionary_of(header.tag)) else { return true };
        if scan.lost_dictionaries & 1 << number != 0 {
            return false;
        }
        let shared = &scan.view.shared;
        match scan.segment.dictionary(&*shared.file, &shared.interner, number) {
            Ok(_) => true,
            Err(error) => {
                scan.lost_dictionaries |= 1 << number;
                let start = scan.segment.place.start;
                let met = start + u64::from(self.damaged_from)..start + u64::from(scan.offset);
                !matches!(error, LogError::Corrupt { offset, .. } if met.contains(&offset))
            }
        }
    }

    /// Goes to the next whole block, or to the end where there is none.
    fn pass(&mut self) {
        let (damaged, until) = (self.scan.offset, self.scan.until);
        let mut cell = damaged / CELL_BYTES;
        let mut found = match self.behind(damaged) {
            Some(next) if next / CELL_BYTES == cell => self.first_whole(next),
            _ => None,
        };
        while found.is_none() && self.left_bytes > 0 && (cell + 1) * CELL_BYTES < until {
            cell += 1;
            let first = self.first_block(cell);
            found = self.first_whole(first);
        }
        self.scan.offset = found.unwrap_or(until);
    }

    /// The first whole block from the one at `first` on, among those that a lookup finds in its cell.
    fn first_whole(&mut self, first: u32) -> Option<u32> {
        let end = ((first / CELL_BYTES + 1) * CELL_BYTES).min(self.scan.until);
        let mut offset = first;
        while offset < end && self.left_bytes > 0 {
            if self.is_whole(offset) {
                return Some(offset);
            }
            offset = self.behind(offset)?;
        }
        None
    }

    /// Where the cell table says that the first block of the cell starts.
    fn first_block(&self, cell: u32) -> u32 {
        let start = cell * CELL_BYTES;
        if let Some(cells) = &self.sealed_cells {
            return start + cells.get(cell as usize).copied().map_or(0, u32::from);
        }
        let (view, segment) = (&self.scan.view, &self.scan.segment);
        // It is in memory, made anew by a walk, or nothing can be read.
        segment.first_block(&*view.shared.map, cell).unwrap_or(start)
    }

    /// Where the next block starts by the header of the one at `offset`.
    fn behind(&mut self, offset: u32) -> Option<u32> {
        Some(offset.saturating_add(self.header(offset)?.block_bytes()))
    }

    fn header(&mut self, offset: u32) -> Option<BlockHeader> {
        let page = Some((self.scan.segment.place.start + u64::from(offset)) / PAGE_BYTES);
        if page == self.failed_page {
            return None;
        }
        match self.scan.look_ahead(offset, BLOCK_HEADER_BYTES) {
            Ok(bytes) => BlockHeader::decode(*bytes.first_chunk()?),
            Err(_) => {
                self.failed_page = page;
                self.left_bytes = self.left_bytes.saturating_sub(FAILED_READ_BYTES);
                None
            }
        }
    }

    fn is_whole(&mut self, offset: u32) -> bool {
        let Some(header) = self.header(offset) else { return false };
        let end = offset.saturating_add(header.block_bytes());
        if end > self.scan.until || !self.may_end(offset, end) {
            return false;
        }
        let bytes = header.block_bytes();
        let checked = self.check(offset, header.tag, bytes);
        let vain = match checked {
            Ok(true) => 0,
            Ok(false) => u64::from(bytes),
            Err(_) => u64::from(bytes).max(FAILED_READ_BYTES),
        };
        self.left_bytes = self.left_bytes.saturating_sub(vain);
        matches!(checked, Ok(true))
    }

    /// Whether the block at `offset` may end there: most places within a block that look like another one
    /// are told apart so, and need not be summed up.
    fn may_end(&self, offset: u32, end: u32) -> bool {
        let cell = end / CELL_BYTES;
        let is_proven = self.sealed_cells.is_some() || !self.scan.segment.is_sealed();
        // The next block is the first in its cell.
        let is_told = is_proven && end < self.scan.until && cell != offset / CELL_BYTES;
        !is_told || self.first_block(cell) == end
    }

    /// Holds a block against its checksum.
    fn check(&mut self, offset: u32, tag: Tag, bytes: u32) -> Result<bool> {
        let scan = &mut self.scan;
        let mut seed = scan.segment.place.seed;
        if let Some(number) = dictionary_of(tag) {
            if (scan.lost_dictionaries | self.nameless) & 1 << number != 0 {
                return Ok(false);
            }
            let shared = &scan.view.shared;
            match scan.segment.dictionary_name(&*shared.file, &shared.interner, number) {
                Ok(named) => seed = named.seed,
                Err(error) => {
                    self.nameless |= 1 << number;
                    let summed = DICTIONARY_BYTES_MAX as u64;
                    self.left_bytes = self.left_bytes.saturating_sub(summed);
                    return Err(error);
                }
            }
        }
        let block = scan.look_ahead(offset, bytes)?.get(..bytes as usize);
        Ok(block.is_some_and(|block| is_whole(block, seed, offset)))
    }
}

/// The number of the dictionary that a block with this tag needs.
pub(super) fn dictionary_of(tag: Tag) -> Option<u8> {
    let with_entries = matches!(tag.kind, BlockKind::EntriesRaw | BlockKind::EntriesZstd);
    (with_entries && tag.number > 0).then_some(tag.number)
}

impl std::fmt::Debug for DamagedScan {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = formatter.debug_struct("DamagedScan");
        debug.field("scan", &self.scan).finish_non_exhaustive()
    }
}
