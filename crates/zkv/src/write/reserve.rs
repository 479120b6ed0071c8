//! What a commit that is on its way to the log keeps others from writing.

use std::collections::BTreeSet;

use crate::hashed::KeySet;
use crate::write::write_set::{Write, WriteSet};

/// Keys that a commit has read or writes. Between the moment at which it was found to conflict with
/// nothing and the one at which it becomes visible, nobody may buffer a write to them.
#[derive(Debug, Default)]
pub(crate) struct Reserved {
    keys: KeySet,
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

    pub(crate) fn concerns(&self, writes: &[Write<'_>]) -> bool {
        let concerns = |write: &Write<'_>| {
            self.keys.contains(&write.hash) || self.collections.contains(&write.collection)
        };
        writes.iter().any(concerns)
    }
}
