//! Sets and maps of keys by their hash.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use zkv_index::KeyHash;

/// Takes a part of a hash for its own: it is uniform already, and keyed with the store's secret.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    #[expect(clippy::cast_possible_truncation, reason = "any part of it will do")]
    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        // A `KeyHash` is one number and never comes by here.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
}

pub(crate) type KeySet = HashSet<KeyHash, BuildHasherDefault<AsItIs>>;
pub(crate) type KeyMap<T> = HashMap<KeyHash, T, BuildHasherDefault<AsItIs>>;
