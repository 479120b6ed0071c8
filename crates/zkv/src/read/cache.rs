//! Values that were read lately, so that they need not be decompressed again.

mod doorkeeper;
mod label;
mod ring;
mod table;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use zkv_index::KeyHash;

pub(crate) use label::{CheckpointId, Place};
use ring::Ring;

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
    bytes_max: AtomicUsize,
    shard_count: usize,
    /// Made when the first value comes.
    shards: OnceLock<Box<[Shard]>>,
}

#[derive(Debug, Default)]
struct Shard {
    /// Made when its first value comes.
    ring: RwLock<Option<Ring>>,
}

impl ValueCache {
    /// A cache of at most `bytes_max` bytes; of none, it keeps nothing.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let shards_most = SHARDS_ENOUGH.max(bytes_max / ring::BYTES_MAX);
        let shard_count = (bytes_max / SHARD_BYTES_MIN).clamp(1, shards_most);
        Self { bytes_max: AtomicUsize::new(bytes_max), shard_count, shards: OnceLock::new() }
    }

    #[inline]
    pub(crate) fn is_off(&self) -> bool {
        self.bytes_max() == 0
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
        let value_bytes_end =
            (self.bytes_max() / SHARE_MAX).min(self.shard_bytes() / SHARD_SHARE_MAX);
        if value.len() >= value_bytes_end {
            return;
        }
        let shards =
            self.shards.get_or_init(|| (0..self.shard_count).map(|_| Shard::default()).collect());
        let shard = shard_of(shards, place.hash);
        if shard.read().as_ref().is_none_or(|ring| ring.lets_in(place.hash)) {
            let mut ring = shard.write();
            // Within the lock: whoever has taken the ring away has set another limit before.
            let ring = ring.get_or_insert_with(|| Ring::new(self.shard_bytes()));
            ring.put(place, led_by, value);
        }
    }

    /// From now on takes no more than `bytes_max`, and forgets everything. A limit of less than twice that
    /// stays as it is.
    pub(crate) fn shrink_to(&self, bytes_max: usize) {
        if bytes_max >= self.bytes_max() / 2 {
            return;
        }
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
        for shard in self.shards.get().into_iter().flatten() {
            *shard.write() = None;
        }
    }

    /// How much memory it takes, but for a few bytes a shard.
    pub(crate) fn bytes(&self) -> u64 {
        let bytes_of = |shard: &Shard| shard.read().as_ref().map_or(0, |ring| ring.bytes() as u64);
        self.shards.get().map_or(0, |shards| shards.iter().map(bytes_of).sum())
    }

    #[inline]
    fn look<T>(&self, hash: KeyHash, take: impl FnOnce(&Ring) -> Option<T>) -> Option<T> {
        let ring = shard_of(self.shards.get()?, hash).read();
        take(ring.as_ref()?)
    }

    #[inline]
    fn bytes_max(&self) -> usize {
        self.bytes_max.load(Ordering::Relaxed)
    }

    fn shard_bytes(&self) -> usize {
        self.bytes_max() / self.shard_count
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

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    const VALUE: [u8; 60] = [7; 60];

    fn place(number: u64) -> Place {
        Place { hash: KeyHash(Rng::with_seed(number).u128(..)), cell: [0; 16] }
    }

    fn fill(cache: &ValueCache, count: u64) -> usize {
        (0..count).for_each(|number| cache.put(&place(number), None, &VALUE));
        (0..count).filter(|number| cache.get(&place(*number)).is_some()).count()
    }

    #[test]
    fn a_cache_that_was_shrunk_lets_go_of_its_memory_and_keeps_less() {
        let cache = ValueCache::new(16 << 20);
        assert!(fill(&cache, 20_000) > 19_000);
        assert!(cache.bytes() > 20_000 * VALUE.len() as u64);
        cache.shrink_to(200 << 10);
        assert_eq!((cache.bytes(), cache.is_off()), (0, false));
        let there = fill(&cache, 20_000);
        assert!((1000..2500).contains(&there), "{there}");
        assert!(cache.bytes() <= 200 << 10, "{}", cache.bytes());
    }

    #[test]
    fn a_little_less_is_not_worth_forgetting_everything() {
        let cache = ValueCache::new(1 << 20);
        let there = fill(&cache, 1000);
        for bytes in [512 << 10, 1 << 20, 1 << 30] {
            cache.shrink_to(bytes);
            assert_eq!(fill(&cache, 1000), there);
        }
        cache.shrink_to(0);
        assert!(cache.is_off() && fill(&cache, 1000) == 0);
    }

    #[test]
    fn what_comes_again_stays_also_where_values_were_longer_before() {
        let hits_behind = |length: usize| {
            let cache = ValueCache::new(1 << 20);
            let long = vec![7; length];
            (1 << 40..(1 << 40) + 1000).for_each(|number| cache.put(&place(number), None, &long));
            let mut random = Rng::with_seed(1);
            let mut hits = 0;
            for round in 0..600_000 {
                // The lower, the more often.
                let number = (0..3).fold(30_000, |end, _| random.u64(0..=end));
                match cache.get(&place(number)) {
                    Some(_) => hits += u32::from(round >= 400_000),
                    None => cache.put(&place(number), None, &VALUE),
                }
            }
            hits
        };
        let (short, long) = (hits_behind(VALUE.len()), hits_behind(16_000));
        assert!(long > short - short / 50, "{long} for {short}");
    }

    #[test]
    fn what_is_shrunk_while_others_put_keeps_its_limit() {
        let cache = ValueCache::new(32 << 20);
        std::thread::scope(|scope| {
            let putting = [0, 1].map(|_| scope.spawn(|| fill(&cache, 100_000)));
            cache.shrink_to(100 << 10);
            for thread in putting {
                thread.join().unwrap();
            }
        });
        assert!(cache.bytes() <= 100 << 10, "{}", cache.bytes());
    }
}
