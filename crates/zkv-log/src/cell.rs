//! The entries of all blocks that start in one cell: what a location leads to.

use std::num::NonZeroU64;

use zkv_io::Overrun;

use crate::entries::Entries;
use crate::position::{Location, Position};
use crate::prepacked::Prepacked;

/// The entries of a cell, the oldest first. One is used again and again by whoever scans.
#[derive(Debug)]
pub struct Cell {
    location: Location,
    block_count: usize,
    /// The payloads of the blocks, one behind another.
    payloads: Vec<u8>,
    entries: Vec<Place>,
    /// By the numbers of their entries.
    prepacked: Vec<(usize, Prepacked)>,
}

/// Where an entry stands.
#[derive(Clone, Copy, Debug)]
struct Place {
    block: Position,
    start: usize,
    end: usize,
}

impl Default for Cell {
    fn default() -> Self {
        let location = Location::from_number(NonZeroU64::MIN);
        let (payloads, entries, prepacked) = Default::default();
        Self { location, block_count: 0, payloads, entries, prepacked }
    }
}

impl Cell {
    /// Where the entries are found again.
    #[must_use]
    pub fn location(&self) -> Location {
        self.location
    }

    /// How many blocks start in the cell. No two entries of one block are of the same key.
    #[must_use]
    pub fn block_count(&self) -> usize {
        self.block_count
    }

    /// Bytes that its blocks take, decompressed.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.payloads.len()
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry `number`, the oldest being 0.
    ///
    /// # Panics
    /// Where there are fewer.
    #[inline]
    #[must_use]
    pub fn entry(&self, number: usize) -> &[u8] {
        let place = self.entries[number];
        &self.payloads[place.start..place.end]
    }

    /// Where the block of the entry `number` stands in the order of the log.
    ///
    /// # Panics
    /// Where there are fewer.
    #[must_use]
    pub fn block_of(&self, number: usize) -> Position {
        self.entries[number].block
    }

    /// The entry `number` as it was packed, where it has a block of its own and the scan was to keep that. It is
    /// given once.
    #[must_use]
    pub fn take_prepacked(&mut self, number: usize) -> Option<Prepacked> {
        let found = self.prepacked.iter().position(|(of, _)| *of == number)?;
        Some(self.prepacked.swap_remove(found).1)
    }

    /// Keeps what `pack` makes of the last block, where that holds one entry.
    pub(crate) fn keep_prepacked(&mut self, pack: impl FnOnce() -> Option<Prepacked>) {
        let Some(last) = self.entries.len().checked_sub(1) else { return };
        let is_alone = last == 0 || self.entries[last - 1].block != self.entries[last].block;
        if is_alone && let Some(prepacked) = pack() {
            self.prepacked.push((last, prepacked));
        }
    }

    /// Holds the block at `first`, whose payload it takes, and nothing else.
    pub(crate) fn start(
        &mut self,
        location: Location,
        first: Position,
        payload: &mut Vec<u8>,
    ) -> Result<(), Overrun> {
        self.location = location;
        std::mem::swap(&mut self.payloads, payload);
        self.block_count = 0;
        self.entries.clear();
        self.prepacked.clear();
        self.note(first, 0)
    }

    /// Adds the next block.
    pub(crate) fn add(&mut self, block: Position, payload: &[u8]) -> Result<(), Overrun> {
        let start = self.payloads.len();
        self.payloads.extend_from_slice(payload);
        self.note(block, start)
    }

    /// Notes the entries of the payload that starts at `start`.
    fn note(&mut self, block: Position, start: usize) -> Result<(), Overrun> {
        self.block_count += 1;
        let payload = &self.payloads[start..];
        let entries = Entries::parse(payload)?;
        let mut start = self.payloads.len() - entries.bytes_left();
        for entry in entries {
            let end = start + entry?.len();
            self.entries.push(Place { block, start, end });
            start = end;
        }
        Ok(())
    }
}
