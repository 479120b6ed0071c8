//! Where things are: in the order of the log, and in the file.

use std::num::NonZeroU64;

use crate::layout::{CELL_BYTES, SEGMENT_HEADER_BYTES};

/// A place in the order of the log: segments by sequence number, bytes within one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The segment's sequence number, from 1; 0 stands before everything.
    pub sequence: u64,
    /// Bytes from the segment's start.
    pub offset: u32,
}

/// The end of a log without a commit: its file is synced with this much before it gets its name.
pub(crate) const FIRST_END: Position = Position { sequence: 1, offset: SEGMENT_HEADER_BYTES };

/// Where an entry can be found again: the slot, and the cell of [`CELL_BYTES`] bytes in which the
/// entry's block starts. Several blocks may start in one cell, so a reader also needs to know the
/// entry when it sees it.
///
/// It is a dense number, never zero: `slot * cells a slot + cell`, and cell 0 holds the segment's
/// header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location(NonZeroU64);

impl Location {
    /// The location with this number.
    #[must_use]
    pub const fn from_number(number: NonZeroU64) -> Self {
        Self(number)
    }

    /// The number, to be stored.
    #[must_use]
    pub const fn number(self) -> NonZeroU64 {
        self.0
    }

    pub(crate) fn new(slot: u32, offset: u32, slot_bytes: u32) -> Option<Self> {
        let cell = u64::from(offset / CELL_BYTES);
        NonZeroU64::new(u64::from(slot) * u64::from(slot_bytes / CELL_BYTES) + cell).map(Self)
    }

    /// The slot, in a log whose slots have `slot_bytes` bytes; `None` beyond the largest slot.
    #[must_use]
    pub fn slot(self, slot_bytes: u32) -> Option<u32> {
        u32::try_from(self.0.get() / u64::from(slot_bytes / CELL_BYTES)).ok()
    }

    pub(crate) fn cell(self, slot_bytes: u32) -> u32 {
        let cells = slot_bytes / CELL_BYTES;
        // The remainder is below `cells`, a u32.
        u32::try_from(self.0.get() % u64::from(cells)).unwrap_or(0)
    }
}

/// Some of the 64 equal parts that a segment has, by where blocks start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentParts(u64);

impl SegmentParts {
    /// No part.
    pub const NONE: Self = Self(0);
    /// All parts.
    pub const ALL: Self = Self(u64::MAX);

    /// The part that has `location`, in a log whose slots have `slot_bytes` bytes.
    #[must_use]
    pub fn of(location: Location, slot_bytes: u32) -> Self {
        Self(1 << Self::number(location.cell(slot_bytes) * CELL_BYTES, slot_bytes))
    }

    /// The parts with a bit for each, the lowest for the first.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// A bit for each part, to be stored.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The parts of either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all parts of `other` are among these.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// Whether what starts at `offset` is in one of these parts.
    pub(crate) fn has(self, offset: u32, slot_bytes: u32) -> bool {
        self == Self::ALL || self.0 & 1 << Self::number(offset, slot_bytes) != 0
    }

    /// Where the first of these parts starts that starts behind `offset`.
    pub(crate) fn next_start(self, offset: u32, slot_bytes: u32) -> Option<u32> {
        Self::next_of(self.0, offset, slot_bytes)
    }

    /// Where the parts end that follow one upon the other from the one of `offset` on; `None` at the slot's end.
    pub(crate) fn run_end(self, offset: u32, slot_bytes: u32) -> Option<u32> {
        Self::next_of(!self.0, offset, slot_bytes)
    }

    fn next_of(bits: u64, offset: u32, slot_bytes: u32) -> Option<u32> {
        let behind = bits & (u64::MAX << 1) << Self::number(offset, slot_bytes);
        (behind != 0).then(|| behind.trailing_zeros() * (slot_bytes / u64::BITS))
    }

    fn number(offset: u32, slot_bytes: u32) -> u32 {
        (offset / (slot_bytes / u64::BITS)).min(u64::BITS - 1)
    }
}

/// What names the entries of one cell for as long as the log is open. See [`LogView::cell_id`].
///
/// [`LogView::cell_id`]: crate::LogView::cell_id
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CellId {
    pub(crate) location: Location,
    /// The segment's: its slot is used again once it is freed.
    pub(crate) nonce: u64,
}

impl CellId {
    /// How many bytes [`CellId::to_bytes`] gives.
    pub const BYTES: usize = 16;

    /// Bytes of which no two names give the same, to be compared; not to be stored in a file.
    #[inline]
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        (u128::from(self.location.0.get()) << 64 | u128::from(self.nonce)).to_ne_bytes()
    }
}

/// The exact place of one entry, from the end of its commit on: that of a commit that was given up, or that
/// a crash has taken, may lead to what was appended there instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EntryAddress {
    /// The sequence number of the entry's segment: once that is freed, another one may fill its slot.
    pub sequence: u64,
    /// The slot that the entry's segment fills.
    pub slot: u32,
    /// The start of the entry's block, in bytes from the segment's start.
    pub offset: u32,
    /// The entry's number within its block, from 0.
    pub ordinal: u32,
}
