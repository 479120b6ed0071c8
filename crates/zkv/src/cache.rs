//! Values that were read lately, so that they need not be decompressed again.

mod doorkeeper;
mod label;
mod ring;
mod table;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use zkv_index::KeyHash;

use doorkeeper::Doorkeeper;
pub(crate) use label::{CheckpointId, Place};
use ring::Ring;

/// What a value may take with all that a ring has beside it, as far as the doorkeeper cares.
const VALUE_BYTES: usize = 256;
/// Values over this share of the cache are not kept, nor over this one of a shard: one would drop many.
const SHARE_MAX: usize = 64;
const SHARD_SHARE_MAX: usize = 4;
/// Up to a cache of 8 MiB, a shard's share is no less than the cache's.
const SHARD_BYTES_MIN: usize = 512 << 10;
/// Readers of one shard take turns at its lock's counter, and of so many seldom meet: there are more only
/// where a ring would be too long.
const SHARDS_ENOUGH: usize = 64;

/// A cache of values, bounded in bytes. Threads share it by shards.
#[derive(Debug)]
pub(crate) struct ValueCache {
    bytes_max: usize,
    /// Made when the first value comes.
    shards: OnceLock<Box<[Shard]>>,
    /// Made when a shard is full: it may take a good part of what a large cache takes that is not.
    doorkeeper: OnceLock<Doorkeeper>,
}

#[derive(Debug, Default)]
struct Shard {
    /// Made when its first value comes.
    ring: RwLock<Option<Ring>>,
    /// Until it is full, all are let in.
    is_full: AtomicBool,
}

impl ValueCache {
    /// A cache of at most `bytes_max` bytes; of none, it keeps nothing.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, shards: OnceLock::new(), doorkeeper: OnceLock::new() }
    }

    #[inline]
    pub(crate) fn is_off(&self) -> bool {
        self.bytes_max == 0
    }

    /// A copy of the value at `place`.
    #[inline]
    pub(crate) fn get(&self, place: &Place) -> Option<Vec<u8>> {
        self.look(place.hash, |ring| ring.get(place).map(<[u8]>::to_vec))
    }

    /// A copy of the value to which the checkpoint `by` leads from `hash`, where the caller knows of
    /// nothing that came behind it.
    #[inline]
    pub(crate) fn get_led(&self, hash: KeyHash, by: CheckpointId) -> Option<Vec<u8>> {
        self.look(hash, |ring| ring.get_led(hash, by).map(<[u8]>::to_vec))
    }

    /// Notes that the checkpoint `led_by` leads to `place`, whose value was found here.
    pub(crate) fn relabel(&self, place: &Place, led_by: CheckpointId) {
        if let Some(shards) = self.shards.get() {
            let mut ring = shard_of(shards, place.hash).write();
            if let Some(ring) = &mut *ring {
                ring.relabel(place, led_by);
            }
        }
    }

    /// Keeps a copy of the value at `place`, to which the checkpoint `led_by` leads, if one does. A full
    /// cache may leave it.
    pub(crate) fn put(&self, place: &Place, led_by: Option<CheckpointId>, value: &[u8]) {
        let shard_bytes = self.bytes_max / self.shard_count();
        if value.len() >= (self.bytes_max / SHARE_MAX).min(shard_bytes / SHARD_SHARE_MAX) {
            return;
        }
        let shards =
            self.shards.get_or_init(|| (0..self.shard_count()).map(|_| Shard::default()).collect());
        let shard = shard_of(shards, place.hash);
        if !shard.is_full.load(Ordering::Relaxed) || self.doorkeeper().has_seen(place.hash) {
            let mut ring = shard.write();
            let ring = ring.get_or_insert_with(|| Ring::new(shard_bytes));
            ring.put(place, led_by, value);
            shard.is_full.store(ring.is_full(), Ordering::Relaxed);
        }
    }

    /// How much memory it takes, but for the doorkeeper and a few bytes a shard.
    pub(crate) fn bytes(&self) -> u64 {
        let bytes_of = |shard: &Shard| shard.read().as_ref().map_or(0, |ring| ring.bytes() as u64);
        self.shards.get().map_or(0, |shards| shards.iter().map(bytes_of).sum())
    }

    #[inline]
    fn look<T>(&self, hash: KeyHash, take: impl FnOnce(&Ring) -> Option<T>) -> Option<T> {
        let ring = shard_of(self.shards.get()?, hash).read();
        take(ring.as_ref()?)
    }

    fn shard_count(&self) -> usize {
        let most = SHARDS_ENOUGH.max(self.bytes_max / ring::BYTES_MAX);
        (self.bytes_max / SHARD_BYTES_MIN).clamp(1, most)
    }

    fn doorkeeper(&self) -> &Doorkeeper {
        self.doorkeeper.get_or_init(|| Doorkeeper::new(self.bytes_max / VALUE_BYTES))
    }
}

impl Shard {
    #[inline]
    fn read(&self) -> RwLockReadGuard<'_, Option<Ring>> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Option<Ring>> {
        self.ring.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// By bits of the hash of which neither buckets nor tags are made.
#[inline]
fn shard_of(shards: &[Shard], hash: KeyHash) -> &Shard {
    let part = hash.0 >> 32 & u128::from(u32::MAX);
    &shards[((part * shards.len() as u128) >> 32) as usize]
}
