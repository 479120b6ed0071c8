//! What a commit that is on its way to the log keeps others from writing.

use std::collections::{BTreeSet, HashSet};

use zkv_index::KeyHash;

use crate::write_set::WriteSet;

/// Keys that a commit has read or writes. Between the moment at which it was found to conflict with
/// nothing and the one at which it becomes visible, nobody may buffer a write to them.
#[derive(Debug, Default)]
pub(crate) struct Reserved {
    keys: HashSet<KeyHash>,
    collections: BTreeSet<u32>,
}

impl Reserved {
    pub(crate) fn of(sets: &[&WriteSet<'_>]) -> Self {
        let mut reserved = Self::default();
        for set in sets {
            reserved.keys.extend(set.writes.keys().map(|(hash, _)| hash));
            if let Some(reads) = &set.reads {
                reserved.keys.extend(&reads.keys);
                reserved.collections.extend(&reads.scanned);
            }
            reserved.collections.extend(set.moves.iter().map(|moves| moves.of.id));
        }
        reserved
    }

    pub(crate) fn concerns(&self, set: &WriteSet<'_>) -> bool {
        let concerns = |(hash, collection): (KeyHash, u32)| {
            self.keys.contains(&hash) || self.collections.contains(&collection)
        };
        set.writes.keys().any(concerns)
    }
}
