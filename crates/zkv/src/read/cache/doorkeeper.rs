//! Who may enter a full cache: those that were asked for not long ago.

use std::sync::atomic::{AtomicU16, Ordering};

use zkv_index::KeyHash;

/// For so many values that a ring holds there is one place. With more values to a place, a full one learns
/// more slowly; with fewer, it takes in more of what comes too seldom to stay, which costs time.
const VALUES_PER_PLACE: usize = 2;

/// Remembers keys that were turned away, each until another one takes its place (the doorkeeper of
/// Einziger and others' TinyLFU, 2017, without its aging). What is asked for once would take another's room.
#[derive(Debug)]
pub(super) struct Doorkeeper {
    places: Box<[AtomicU16]>,
}

impl Doorkeeper {
    /// For about so many values.
    pub(super) fn new(values: usize) -> Self {
        Self { places: (0..places_for(values)).map(|_| AtomicU16::new(0)).collect() }
    }

    /// What one for so many values takes.
    pub(super) fn bytes_of(values: usize) -> usize {
        places_for(values) * size_of::<AtomicU16>()
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.places)
    }

    /// For how many values it is.
    pub(super) fn values(&self) -> usize {
        self.places.len() * VALUES_PER_PLACE
    }

    /// Whether the key is among those turned away last. If not, it is now.
    #[expect(clippy::cast_possible_truncation, reason = "any parts of a hash will do")]
    pub(super) fn has_seen(&self, hash: KeyHash) -> bool {
        let (key, number) = ((hash.0 >> 32) as u16, (hash.0 >> 64) as u32);
        let number = (u64::from(number) * self.places.len() as u64) >> 32;
        let place = &self.places[number as usize];
        let is_known = place.load(Ordering::Relaxed) == key;
        if !is_known {
            place.store(key, Ordering::Relaxed);
        }
        is_known
    }
}

fn places_for(values: usize) -> usize {
    values.div_ceil(VALUES_PER_PLACE).max(1)
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
        let doorkeeper = Doorkeeper::new(2000);
        assert!((0..100).all(|number| !doorkeeper.has_seen(hash(number))));
        let known = (0..100).filter(|number| doorkeeper.has_seen(hash(*number))).count();
        assert!(known >= 80, "{known}");
        let strangers = (100..100_000).filter(|number| doorkeeper.has_seen(hash(*number))).count();
        assert!(strangers <= 10, "{strangers}");
        assert!((0..100).all(|number| !doorkeeper.has_seen(hash(number))));
    }
}
