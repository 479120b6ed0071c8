//! Under which names a value is found.

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::Equivalent;
use zkv_index::KeyHash;
use zkv_log::CellId;

/// The newest record of a key in a cell that no longer changes. So a value that is found by its place
/// is right whatever has been written since; whether it is still the key's is the index's to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub hash: KeyHash,
    pub cell: CellId,
}

/// Names a checkpoint: no two of this process have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointId(u64);

impl CheckpointId {
    pub(crate) fn next() -> Self {
        static USED: AtomicU64 = AtomicU64::new(0);
        Self(USED.fetch_add(1, Ordering::Relaxed))
    }
}

/// What a kept value is found by: its place, once the index has told that; and the checkpoint that led
/// there. Whoever goes by the same checkpoint would be led there again, and need not ask.
#[derive(Clone, Copy, Debug)]
pub(super) struct Label {
    pub place: Place,
    pub led_by: Option<CheckpointId>,
}

impl PartialEq for Label {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl Eq for Label {}

impl Equivalent<Label> for Place {
    fn equivalent(&self, label: &Label) -> bool {
        label.place == *self
    }
}

/// Whatever a checkpoint leads to from `hash`.
pub(super) struct Led {
    pub hash: KeyHash,
    pub by: CheckpointId,
}

impl Equivalent<Label> for Led {
    fn equivalent(&self, label: &Label) -> bool {
        label.place.hash == self.hash && label.led_by == Some(self.by)
    }
}

// Equal things have equal hashes: each of them is of one key, and a key is in few cells.

impl Hash for Place {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.hash.hash(hasher);
    }
}

impl Hash for Label {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.place.hash(hasher);
    }
}

impl Hash for Led {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.hash.hash(hasher);
    }
}
