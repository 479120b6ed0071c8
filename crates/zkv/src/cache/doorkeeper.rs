//! Who may enter a full cache: those that were asked for not long ago.

use std::sync::atomic::{AtomicU32, Ordering};

use zkv_index::KeyHash;

/// For so many keys that the cache could hold there is one place. More of them let in more of what
/// nobody asks for again; with fewer, a full cache learns more slowly.
const KEYS_PER_PLACE: usize = 4;

/// Remembers keys that were turned away, each until another one takes its place (the doorkeeper of
/// Einziger and others' TinyLFU, 2017, without its aging). Keeping a value that is asked for once costs
/// a tenth of reading it, and takes another's room.
#[derive(Debug)]
pub(super) struct Doorkeeper {
    places: Box<[AtomicU32]>,
}

impl Doorkeeper {
    /// For a cache of about `keys` values.
    pub(super) fn new(keys: usize) -> Self {
        let count = (keys / KEYS_PER_PLACE).next_power_of_two();
        Self { places: (0..count).map(|_| AtomicU32::new(0)).collect() }
    }

    /// Whether the key is among those turned away last. If not, it is now.
    #[expect(clippy::cast_possible_truncation, reason = "any parts of a hash will do")]
    pub(super) fn has_seen(&self, hash: KeyHash) -> bool {
        let (key, number) = ((hash.0 >> 32) as u32, (hash.0 >> 64) as usize);
        let place = &self.places[number & (self.places.len() - 1)];
        let is_known = place.load(Ordering::Relaxed) == key;
        if !is_known {
            place.store(key, Ordering::Relaxed);
        }
        is_known
    }
}

#[cfg(test)]
mod tests {
    use zkv_index::KeyHash;

    use super::Doorkeeper;

    fn hash(number: u64) -> KeyHash {
        KeyHash(fastrand::Rng::with_seed(number).u128(..))
    }

    #[test]
    fn those_that_come_again_soon_are_known_and_others_are_not() {
        let doorkeeper = Doorkeeper::new(4000);
        assert!((0..100).all(|number| !doorkeeper.has_seen(hash(number))));
        let known = (0..100).filter(|number| doorkeeper.has_seen(hash(*number))).count();
        assert!(known >= 80, "{known}");
        let strangers = (100..100_000).filter(|number| doorkeeper.has_seen(hash(*number))).count();
        assert!(strangers <= 10, "{strangers}");
        assert!((0..100).all(|number| !doorkeeper.has_seen(hash(number))));
    }
}
