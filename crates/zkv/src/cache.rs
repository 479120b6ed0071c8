//! Values that were read lately, so that they need not be decompressed again.

use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::OnceLock;

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};
use zkv_index::KeyHash;
use zkv_log::CellId;

use crate::hashed::AsItIs;

/// What a value takes besides its bytes: its place and its entry in the cache's tables, half of them
/// free, and its allocation.
const OVERHEAD_BYTES: u64 = 120;
/// How long a value is on average, as far as the cache cares: it remembers half as many keys that it
/// has dropped as it could hold of this.
const VALUE_BYTES: u64 = 200;
/// Values over this share of the cache are not kept: one would drop many.
const SHARE_MAX: usize = 64;

/// The newest record of a key in a cell that no longer changes. So a value that is found by its place
/// is right whatever has been written since; whether it is still the key's is the index's to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub hash: KeyHash,
    pub cell: CellId,
}

impl Hash for Place {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        // Each key is in few cells.
        self.hash.hash(hasher);
    }
}

#[derive(Clone, Copy, Debug)]
struct Weigh;

impl Weighter<Place, Box<[u8]>> for Weigh {
    fn weight(&self, _: &Place, value: &Box<[u8]>) -> u64 {
        OVERHEAD_BYTES + value.len() as u64
    }
}

type Values = Cache<Place, Box<[u8]>, Weigh, BuildHasherDefault<AsItIs>>;

/// A cache of values, bounded in bytes. Threads share it by shards.
#[derive(Debug)]
pub(crate) struct ValueCache {
    bytes_max: usize,
    /// Made when the first value comes.
    values: OnceLock<Values>,
}

impl ValueCache {
    /// A cache of at most `bytes_max` bytes; of none, it keeps nothing.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, values: OnceLock::new() }
    }

    #[inline]
    pub(crate) fn is_off(&self) -> bool {
        self.bytes_max == 0
    }

    /// A copy of the value at `place`.
    #[inline]
    pub(crate) fn get(&self, place: &Place) -> Option<Vec<u8>> {
        self.values.get()?.get(place).map(<[u8]>::into_vec)
    }

    /// Keeps a copy of the value at `place`.
    pub(crate) fn put(&self, place: Place, value: &[u8]) {
        if value.len() <= self.bytes_max / SHARE_MAX {
            self.values.get_or_init(|| self.new_values()).insert(place, value.into());
        }
    }

    /// About how much memory it takes.
    pub(crate) fn bytes(&self) -> u64 {
        self.values.get().map_or(0, Values::weight)
    }

    fn new_values(&self) -> Values {
        let bytes_max = self.bytes_max as u64;
        let count = bytes_max / (OVERHEAD_BYTES + VALUE_BYTES);
        let options = OptionsBuilder::new()
            .weight_capacity(bytes_max)
            .estimated_items_capacity(usize::try_from(count).unwrap_or(usize::MAX))
            .build();
        let options = options.expect("both of its options are set");
        Cache::with_options(
            options,
            Weigh,
            BuildHasherDefault::default(),
            DefaultLifecycle::default(),
        )
    }
}
