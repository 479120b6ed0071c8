//! What was written lately: whether what a transaction has read is still so.

use std::collections::{BTreeMap, HashMap, VecDeque};

use zkv_index::KeyHash;

use crate::catalog::DEFAULT;
use crate::hashed::{KeyMap, KeySet};

/// Keys that are remembered at most, of about 100 bytes each. Where a transaction lives so long
/// that more are written, it conflicts.
const KEYS_MAX: usize = 1 << 20;

/// Room for so many stays where none are left.
const KEYS_KEPT_MAX: usize = 1 << 12;

/// Moments count commits.
pub(crate) type Tick = u64;

/// Commits since the oldest transaction that is still open began; none where there is none.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    now: Tick,
    /// When the open transactions began, and how many did at that moment.
    open: BTreeMap<Tick, usize>,
    /// When each key was written last.
    keys: KeyMap<Tick>,
    /// The same, the oldest first; a key may have been written again since.
    order: VecDeque<(Tick, KeyHash)>,
    /// When a key of each collection was written last.
    collections: HashMap<u32, Tick>,
    /// When each collection was cleared or dropped.
    ended: HashMap<u32, Tick>,
    /// What was written up to here is forgotten.
    forgotten: Tick,
}

/// What a transaction has read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reads {
    pub since: Tick,
    pub keys: KeySet,
    /// Collections of which all keys were read.
    pub scanned: Vec<u32>,
    /// Named collections of which any were.
    pub touched: Vec<u32>,
}

impl Recent {
    /// Begins a transaction; it is to be ended.
    pub(crate) fn begin(&mut self) -> Tick {
        *self.open.entry(self.now).or_default() += 1;
        self.now
    }

    /// Ends a transaction that began at `since`.
    pub(crate) fn end(&mut self, since: Tick) {
        if let Some(count) = self.open.get_mut(&since) {
            *count -= 1;
            if *count == 0 {
                self.open.remove(&since);
            }
        }
        match self.open.first_key_value() {
            Some((oldest, _)) => self.forget_until(*oldest),
            None => self.forget_all(),
        }
    }

    fn forget_until(&mut self, oldest: Tick) {
        while let Some((tick, hash)) = self.order.front().copied() {
            if tick > oldest {
                break;
            }
            self.order.pop_front();
            if self.keys.get(&hash) == Some(&tick) {
                self.keys.remove(&hash);
            }
        }
    }

    fn forget_all(&mut self) {
        // Emptying a table takes as long as it is large, and it would stay so.
        if self.keys.capacity() > KEYS_KEPT_MAX {
            (self.keys, self.order) = Default::default();
        }
        self.keys.clear();
        self.order.clear();
        self.collections.clear();
        self.ended.clear();
    }

    /// Notes a commit of these keys.
    pub(crate) fn note(&mut self, keys: impl Iterator<Item = (KeyHash, u32)>) {
        self.now += 1;
        if self.open.is_empty() {
            return;
        }
        for (hash, collection) in keys {
            if self.order.len() == KEYS_MAX {
                // Who began before conflicts, whatever it has read, and who begins later has not seen this.
                self.forget_all();
                self.forgotten = self.now;
                return;
            }
            self.keys.insert(hash, self.now);
            self.order.push_back((self.now, hash));
            self.collections.insert(collection, self.now);
        }
    }

    /// Notes a commit that clears or drops a collection.
    pub(crate) fn note_end_of(&mut self, collection: u32) {
        self.now += 1;
        if !self.open.is_empty() {
            self.ended.insert(collection, self.now);
        }
    }

    /// Whether nothing that was read has been written since.
    pub(crate) fn is_current(&self, reads: &Reads) -> bool {
        let is_newer = |tick: Option<&Tick>| tick.is_some_and(|tick| *tick > reads.since);
        reads.since >= self.forgotten
            && !reads.keys.iter().any(|key| is_newer(self.keys.get(key)))
            && !reads.scanned.iter().any(|one| is_newer(self.collections.get(one)))
            && !reads.touched.iter().any(|one| is_newer(self.ended.get(one)))
    }
}

impl Reads {
    pub(crate) fn note_scan(&mut self, collection: u32) {
        if !self.scanned.contains(&collection) {
            self.scanned.push(collection);
        }
    }

    /// The default collection never ends.
    pub(crate) fn note_touch(&mut self, collection: u32) {
        if collection != DEFAULT && !self.touched.contains(&collection) {
            self.touched.push(collection);
        }
    }

    /// Whether a commit of these keys would change what was read.
    pub(crate) fn depends_on(&self, hash: KeyHash, collection: u32) -> bool {
        self.keys.contains(&hash) || self.scanned.contains(&collection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(since: Tick, keys: &[u128], scanned: &[u32]) -> Reads {
        Reads {
            since,
            keys: keys.iter().copied().map(KeyHash).collect(),
            scanned: scanned.to_vec(),
            touched: vec![0],
        }
    }

    fn note(recent: &mut Recent, key: u128, collection: u32) {
        recent.note(std::iter::once((KeyHash(key), collection)));
    }

    #[test]
    fn only_what_was_read_and_is_written_later_conflicts() {
        let mut recent = Recent::default();
        note(&mut recent, 1, 0);
        let since = recent.begin();
        assert!(recent.is_current(&reads(since, &[1, 2], &[0, 5])));
        note(&mut recent, 1, 0);
        assert!(!recent.is_current(&reads(since, &[1], &[])));
        assert!(recent.is_current(&reads(since, &[2], &[5])));
        assert!(!recent.is_current(&reads(since, &[], &[0])), "a key of what was scanned");
        let later = recent.begin();
        assert!(recent.is_current(&reads(later, &[1], &[0])));
        recent.note_end_of(0);
        assert!(!recent.is_current(&reads(later, &[2], &[])), "the collection is another one");
    }

    #[test]
    fn what_no_open_transaction_needs_is_forgotten() {
        let mut recent = Recent::default();
        let (first, second) = (recent.begin(), recent.begin());
        note(&mut recent, 1, 0);
        let third = recent.begin();
        note(&mut recent, 2, 0);
        note(&mut recent, 1, 0);
        recent.end(first);
        assert_eq!(recent.keys.len(), 2);
        recent.end(second);
        assert!(!recent.is_current(&reads(third, &[1], &[])));
        assert_eq!(recent.order.len(), 2);
        recent.end(third);
        assert!(recent.keys.is_empty() && recent.order.is_empty() && recent.open.is_empty());
        note(&mut recent, 3, 0);
        assert!(recent.keys.is_empty(), "nobody asks");
    }

    #[test]
    fn a_transaction_that_outlives_what_is_remembered_conflicts() {
        let mut recent = Recent::default();
        let old = recent.begin();
        recent.note((0..KEYS_MAX as u128 + 1).map(|key| (KeyHash(key + 10), 0)));
        assert!(recent.order.len() <= KEYS_MAX);
        assert!(!recent.is_current(&reads(old, &[1], &[])));
        let new = recent.begin();
        assert!(recent.is_current(&reads(new, &[1], &[])));
        recent.end(old);
        recent.end(new);
        let room = (recent.keys.capacity(), recent.order.capacity());
        assert!(room.0 + room.1 <= 4 * KEYS_KEPT_MAX, "{room:?}");
    }
}
