//! Under which names a value is found.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};

use zkv_index::KeyHash;
use zkv_log::CellId;

/// The newest record of a key in a cell that no longer changes. So a value that is found by its place
/// is right whatever has been written since; whether it is still the key's is the index's to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub hash: KeyHash,
    pub(super) cell: [u8; CellId::BYTES],
}

/// Of a place as bytes, the hash first.
pub(super) const PLACE_BYTES: usize = size_of::<u128>() + CellId::BYTES;

impl Place {
    #[inline]
    pub(crate) fn new(hash: KeyHash, cell: CellId) -> Self {
        Self { hash, cell: cell.to_bytes() }
    }

    #[inline]
    pub(super) fn to_bytes(self) -> [u8; PLACE_BYTES] {
        let mut bytes = [0; PLACE_BYTES];
        let (hash, cell) = bytes.split_at_mut(size_of::<u128>());
        hash.copy_from_slice(&self.hash.0.to_ne_bytes());
        cell.copy_from_slice(&self.cell);
        bytes
    }
}

/// Names a checkpoint, until a slot is freed: no two of this process have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointId(NonZeroU64);

impl CheckpointId {
    pub(crate) fn next() -> Self {
        static USED: AtomicU64 = AtomicU64::new(0);
        Self(NonZeroU64::MIN.saturating_add(USED.fetch_add(1, Ordering::Relaxed)))
    }

    #[inline]
    pub(super) fn number(self) -> u64 {
        self.0.get()
    }
}
