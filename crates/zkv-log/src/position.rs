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

/// The exact place of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EntryAddress {
    /// The slot that the entry's segment fills.
    pub slot: u32,
    /// The start of the entry's block, in bytes from the segment's start.
    pub offset: u32,
    /// The entry's number within its block, from 0.
    pub ordinal: u32,
}
