//! What a lookup yields.

use std::ops::Deref;

use crate::key::Location;

/// Where a key may lie, each place once: those of newer tables first, and of one table in no order of age.
///
/// Reuse one for many lookups: up to four locations need no heap.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    found: FewLocations,
    /// Those of them that more than one entry puts, once for each more.
    repeated: FewLocations,
    /// What newer tables have killed and no older one has shown yet.
    killed: FewLocations,
}

/// Of a billion keys, five share their first 36 bits; a lookup of one reads at each of their places.
const CANDIDATES_MAX: usize = 4096;

impl Candidates {
    /// An empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn clear(&mut self) {
        self.found.clear();
        self.repeated.clear();
        self.killed.clear();
    }

    /// Adds the entry of a table that puts `location`, unless a newer table has killed it.
    pub(crate) fn put(&mut self, location: Location) {
        if self.killed.remove(location) {
            return;
        }
        if self.found.contains(&location) {
            self.repeated.push(location);
        } else {
            self.found.push(location);
        }
    }

    /// Whether several keys lie at `location`, of those that cannot be told from each other here.
    #[must_use]
    pub fn is_shared(&self, location: Location) -> bool {
        self.repeated.contains(&location)
    }

    /// Whether there are more than keys can share the first bits of a hash by chance, or by the
    /// work of somebody who knows the store's secret: then they are forged.
    #[inline]
    pub(crate) fn is_flooded(&self) -> bool {
        self.found.len() + self.repeated.len() + self.killed.len() > CANDIDATES_MAX
    }

    /// Makes the kills of one table count for the older ones.
    pub(crate) fn kill(&mut self, location: Location) {
        self.killed.push(location);
    }
}

impl Deref for Candidates {
    type Target = [Location];

    fn deref(&self) -> &[Location] {
        &self.found
    }
}

const INLINE_COUNT: usize = 4;

/// A list that needs no heap while it is short.
#[derive(Clone, Debug)]
pub(crate) struct FewLocations {
    count: usize,
    inline: [Location; INLINE_COUNT],
    /// Holds all locations once they are more than fit `inline`.
    spilled: Vec<Location>,
}

impl Default for FewLocations {
    fn default() -> Self {
        Self { count: 0, inline: [Location::MIN; INLINE_COUNT], spilled: Vec::new() }
    }
}

impl FewLocations {
    pub(crate) fn clear(&mut self) {
        self.count = 0;
        self.spilled.clear();
    }

    pub(crate) fn push(&mut self, location: Location) {
        if self.count < INLINE_COUNT {
            self.inline[self.count] = location;
        } else {
            if self.count == INLINE_COUNT {
                self.spilled.extend_from_slice(&self.inline);
            }
            self.spilled.push(location);
        }
        self.count += 1;
    }

    /// Removes one occurrence of `location`; `false` where there is none.
    pub(crate) fn remove(&mut self, location: Location) -> bool {
        let Some(index) = self.iter().position(|&listed| listed == location) else { return false };
        let last = self.count - 1;
        if self.count > INLINE_COUNT {
            self.spilled.swap_remove(index);
            if last == INLINE_COUNT {
                self.inline.copy_from_slice(&self.spilled);
                self.spilled.clear();
            }
        } else {
            self.inline.swap(index, last);
        }
        self.count = last;
        true
    }
}

impl Deref for FewLocations {
    type Target = [Location];

    fn deref(&self) -> &[Location] {
        if self.count <= INLINE_COUNT { &self.inline[..self.count] } else { &self.spilled }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(number: u64) -> Location {
        Location::new(number).unwrap()
    }

    #[test]
    fn a_kill_cancels_one_older_entry() {
        let mut candidates = Candidates::new();
        candidates.kill(location(1));
        candidates.put(location(1));
        assert!(candidates.is_empty());
        candidates.put(location(1));
        assert!(!candidates.is_shared(location(1)));
        candidates.put(location(1));
        assert_eq!(*candidates, [location(1)]);
        assert!(candidates.is_shared(location(1)));
        candidates.clear();
        assert!(!candidates.is_shared(location(1)));
    }

    #[test]
    fn the_list_spills_and_returns() {
        let mut list = FewLocations::default();
        for number in 1..=10 {
            list.push(location(number));
            assert_eq!(list.len() as u64, number);
        }
        for number in (1..=10).rev() {
            assert!(list.remove(location(number)));
            assert!(!list.remove(location(number)));
            let mut left: Vec<_> = list.iter().map(|location| location.get()).collect();
            left.sort_unstable();
            assert_eq!(left, (1..number).collect::<Vec<_>>());
        }
    }
}
