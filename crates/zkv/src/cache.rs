//! Values that were read lately, so that they need not be decompressed again.

mod doorkeeper;
mod label;

use std::hash::BuildHasherDefault;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};
use zkv_index::KeyHash;

use crate::hashed::AsItIs;
use doorkeeper::Doorkeeper;
pub(crate) use label::{CheckpointId, Place};
use label::{Label, Led};

/// What a value takes besides its bytes: its label and its entry in the cache's tables, half of them
/// free, and its allocation.
const OVERHEAD_BYTES: usize = 136;
/// How long a value is on average, as far as the cache cares: it remembers half as many keys that it
/// has dropped as it could hold of this.
const VALUE_BYTES: usize = 200;
/// Values over this share of the cache are not kept: one would drop many.
const SHARE_MAX: usize = 64;
/// A shard holds several of the longest values, so that it fills up.
const SHARD_BYTES_MIN: usize = 512 << 10;
/// Readers of one shard take turns at its lock's counter.
const SHARDS_MAX: usize = 64;
/// From so many hundredths on it is full: its shards fill up unevenly.
const FULL_PERCENT: u64 = 90;
/// How full it is takes a look at each shard: every so many puts.
const LOOKED_AT_ONE_IN: u32 = 64;

#[derive(Clone, Copy, Debug)]
struct Weigh;

impl Weighter<Label, Box<[u8]>> for Weigh {
    fn weight(&self, _: &Label, value: &Box<[u8]>) -> u64 {
        (OVERHEAD_BYTES + value.len()) as u64
    }
}

type Values = Cache<Label, Box<[u8]>, Weigh, BuildHasherDefault<AsItIs>>;

/// A cache of values, bounded in bytes. Threads share it by shards.
#[derive(Debug)]
pub(crate) struct ValueCache {
    bytes_max: usize,
    /// Made when the first value comes.
    kept: OnceLock<Kept>,
}

#[derive(Debug)]
struct Kept {
    values: Values,
    /// Until it is full, all are let in.
    is_full: AtomicBool,
    puts: AtomicU32,
    /// Made when the cache is full: it may take a good part of what a large one takes that is not.
    doorkeeper: OnceLock<Doorkeeper>,
    /// About how many values there is room for.
    count: usize,
}

impl ValueCache {
    /// A cache of at most `bytes_max` bytes; of none, it keeps nothing.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, kept: OnceLock::new() }
    }

    #[inline]
    pub(crate) fn is_off(&self) -> bool {
        self.bytes_max == 0
    }

    /// A copy of the value at `place`.
    #[inline]
    pub(crate) fn get(&self, place: &Place) -> Option<Vec<u8>> {
        self.kept.get()?.values.get(place).map(<[u8]>::into_vec)
    }

    /// A copy of the value to which the checkpoint `by` leads from `hash`, where the caller knows of
    /// nothing that came behind it.
    #[inline]
    pub(crate) fn get_led(&self, hash: KeyHash, by: CheckpointId) -> Option<Vec<u8>> {
        self.kept.get()?.values.get(&Led { hash, by }).map(<[u8]>::into_vec)
    }

    /// Notes that the checkpoint `led_by` leads to `place`, whose value was found here.
    pub(crate) fn relabel(&self, place: Place, led_by: CheckpointId, value: &[u8]) {
        if let Some(kept) = self.kept.get() {
            kept.values.insert(Label { place, led_by: Some(led_by) }, value.into());
        }
    }

    /// Keeps a copy of the value at `place`, to which the checkpoint `led_by` leads, if one does. A full
    /// cache may leave it.
    pub(crate) fn put(&self, place: Place, led_by: Option<CheckpointId>, value: &[u8]) {
        if value.len() > self.bytes_max / SHARE_MAX {
            return;
        }
        let kept = self.kept.get_or_init(|| Kept::new(self.bytes_max));
        if !kept.is_full() || kept.doorkeeper().has_seen(place.hash) {
            kept.values.insert(Label { place, led_by }, value.into());
        }
    }

    /// About how much memory it takes.
    pub(crate) fn bytes(&self) -> u64 {
        self.kept.get().map_or(0, |kept| kept.values.weight())
    }
}

impl Kept {
    fn new(bytes_max: usize) -> Self {
        let count = bytes_max / (OVERHEAD_BYTES + VALUE_BYTES);
        let options = OptionsBuilder::new()
            .weight_capacity(bytes_max as u64)
            .estimated_items_capacity(count)
            .shards((bytes_max / SHARD_BYTES_MIN).clamp(1, SHARDS_MAX))
            .build();
        let values = Cache::with_options(
            options.expect("all that it needs is set"),
            Weigh,
            BuildHasherDefault::default(),
            DefaultLifecycle::default(),
        );
        Self {
            values,
            is_full: AtomicBool::new(false),
            puts: AtomicU32::new(0),
            doorkeeper: OnceLock::new(),
            count,
        }
    }

    fn doorkeeper(&self) -> &Doorkeeper {
        self.doorkeeper.get_or_init(|| Doorkeeper::new(self.count))
    }

    fn is_full(&self) -> bool {
        // What is full stays so.
        if self.is_full.load(Ordering::Relaxed) {
            return true;
        }
        if self.puts.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOKED_AT_ONE_IN) {
            let bytes_full = self.values.capacity() / 100 * FULL_PERCENT;
            self.is_full.store(self.values.weight() >= bytes_full, Ordering::Relaxed);
        }
        false
    }
}
