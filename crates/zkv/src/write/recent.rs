//! What was written lately: whether what a transaction has read is still so.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use zkv_index::KeyHash;

use crate::hashed::{KeyMap, KeySet};
use crate::metadata::catalog::DEFAULT;
use crate::write::spill::{Spilled, SpilledKeys};

/// Keys that are remembered at most, of about 100 bytes each. Where a transaction lives so long
/// that more are written, and has read any, it conflicts.
const KEYS_MAX: usize = 1 << 20;
/// Keys of a batch from which on they are remembered as they lie there, so that nobody waits for it;
/// and how many of those at most, of 32 bytes each.
const BATCH_KEYS_MIN: usize = 1 << 13;
const BATCH_KEYS_MAX: usize = 4 << 20;

/// Ends of collections that are remembered at most. Where a transaction lives so long that there are more, and
/// has touched a named collection, it conflicts.
const ENDS_MAX: usize = 1 << 16;

/// The end of a transaction forgets so many keys at once: writers wait for it.
const FORGOTTEN_AT_ONCE: usize = 1 << 12;
/// Room for so many stays where none are left.
const KEYS_KEPT_MAX: usize = 1 << 12;

/// Moments count commits.
pub(crate) type Tick = u64;

/// Commits since the oldest transaction that is still open began; none where there is none.
#[derive(Default)]
pub(crate) struct Recent {
    now: Tick,
    /// When the open transactions began, and how many did at that moment.
    open: BTreeMap<Tick, usize>,
    /// When each key was written last.
    keys: KeyMap<Tick>,
    /// The same, mostly the oldest first; a key may have been written again since.
    order: VecDeque<(Tick, KeyHash)>,
    /// The keys of large batches, the oldest first.
    batches: VecDeque<(Tick, Arc<SpilledKeys>)>,
    /// When a key of each collection was written last.
    collections: HashMap<u32, Tick>,
    /// When each collection was cleared or dropped.
    ended: HashMap<u32, Tick>,
    /// Of keys that were written up to here, some are forgotten.
    forgotten: Tick,
    /// Of collections that ended up to here, some are forgotten.
    forgotten_ends: Tick,
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
        for _ in 0..FORGOTTEN_AT_ONCE {
            let Some((tick, hash)) =
                self.order.front().copied().filter(|(tick, _)| *tick <= oldest)
            else {
                break;
            };
            self.order.pop_front();
            if self.keys.get(&hash) == Some(&tick) {
                self.keys.remove(&hash);
            }
        }
        while self.batches.front().is_some_and(|(tick, _)| *tick <= oldest) {
            self.batches.pop_front();
        }
    }

    /// Forgets the oldest write, where its key has been written again since or many others were.
    fn make_room(&mut self) {
        let Some((tick, hash)) = self.order.pop_front() else { return };
        if self.keys.get(&hash) != Some(&tick) {
            return;
        }
        if self.keys.len() <= KEYS_MAX / 2 {
            // The others are writes to few keys, most of which say nothing any more.
            self.order.push_back((tick, hash));
            return;
        }
        self.keys.remove(&hash);
        self.forgotten = self.forgotten.max(tick);
    }

    fn forget_all(&mut self) {
        // Emptying a table takes as long as it is large, and it would stay so.
        if self.keys.capacity().max(self.order.capacity()) > KEYS_KEPT_MAX {
            (self.keys, self.order) = Default::default();
        }
        self.keys.clear();
        self.order.clear();
        self.batches.clear();
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
            while self.order.len() >= KEYS_MAX {
                self.make_room();
            }
            self.keys.insert(hash, self.now);
            self.order.push_back((self.now, hash));
            self.collections.insert(collection, self.now);
        }
    }

    /// Notes a commit of a batch.
    pub(crate) fn note_batch(&mut self, spilled: &Spilled) {
        let keys = spilled.keys();
        if keys.len() < BATCH_KEYS_MIN {
            self.note(keys.iter());
            return;
        }
        self.now += 1;
        if self.open.is_empty() {
            return;
        }
        self.collections.extend(keys.collections().iter().map(|one| (*one, self.now)));
        self.batches.push_back((self.now, Arc::clone(keys)));
        let mut count: usize = self.batches.iter().map(|(_, keys)| keys.len()).sum();
        while count > BATCH_KEYS_MAX
            && let Some((tick, keys)) = self.batches.pop_front()
        {
            count -= keys.len();
            self.forgotten = self.forgotten.max(tick);
        }
    }

    /// Notes a commit that clears or drops a collection.
    pub(crate) fn note_end_of(&mut self, collection: u32) {
        self.now += 1;
        let Some((oldest, _)) = self.open.first_key_value() else { return };
        // It has another number from now on: those would pile up. Whoever has scanned it has touched it, too.
        self.collections.remove(&collection);
        if self.ended.len() >= ENDS_MAX {
            self.ended.retain(|_, tick| *tick > *oldest);
            if self.ended.len() > ENDS_MAX / 2 {
                // So few would go each time that every clear would look at all of them.
                self.ended.clear();
                self.forgotten_ends = self.now;
            }
        }
        self.ended.insert(collection, self.now);
    }

    /// Whether nothing that was read has been written since.
    pub(crate) fn is_current(&self, reads: &Reads) -> bool {
        let is_newer = |tick: Option<&Tick>| tick.is_some_and(|tick| *tick > reads.since);
        let later = || self.batches.iter().rev().take_while(|(tick, _)| *tick > reads.since);
        let is_written =
            |key: &KeyHash| is_newer(self.keys.get(key)) || later().any(|(_, keys)| keys.has(*key));
        let is_known = reads.keys.is_empty() || reads.since >= self.forgotten;
        let are_ends_known = reads.touched.is_empty() || reads.since >= self.forgotten_ends;
        is_known
            && are_ends_known
            && !reads.keys.iter().any(is_written)
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
    use crate::keys::Keys;
    use crate::write::spill::{Wish, Wishes};

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
    fn a_transaction_that_outlives_what_is_remembered_conflicts_where_it_has_read_a_key() {
        let mut recent = Recent::default();
        let old = recent.begin();
        recent.note((0..KEYS_MAX as u128 + 1).map(|key| (KeyHash(key + 10), 0)));
        assert!(recent.order.len() <= KEYS_MAX);
        assert!(!recent.is_current(&reads(old, &[1], &[])));
        assert!(recent.is_current(&reads(old, &[], &[5])));
        assert!(!recent.is_current(&reads(old, &[], &[0])));
        let new = recent.begin();
        assert!(recent.is_current(&reads(new, &[1], &[])));
        recent.end(old);
        recent.end(new);
        let room = (recent.keys.capacity(), recent.order.capacity());
        assert!(room.0 + room.1 <= 4 * KEYS_KEPT_MAX, "{room:?}");
    }

    #[test]
    fn of_collections_that_end_beside_an_open_transaction_only_so_many_are_remembered() {
        let mut recent = Recent::default();
        let max = u32::try_from(ENDS_MAX).unwrap();
        let old = recent.begin();
        let touched =
            |since: Tick, of: &[u32]| Reads { touched: of.to_vec(), ..reads(since, &[], of) };
        for ended in 1..=max {
            note(&mut recent, 1, ended);
            recent.note_end_of(ended);
        }
        assert!(recent.is_current(&touched(old, &[max + 10])));
        assert!(!recent.is_current(&touched(old, &[1])));
        let new = recent.begin();
        for ended in max + 1..=max + 5 {
            note(&mut recent, 1, ended);
            recent.note_end_of(ended);
        }
        assert!(recent.ended.len() <= ENDS_MAX && recent.collections.len() < 10);
        assert!(!recent.is_current(&touched(old, &[1])), "forgotten");
        let unaware = Reads { touched: Vec::new(), ..reads(old, &[], &[]) };
        assert!(recent.is_current(&unaware), "it knows of no collection");
        let later = recent.begin();
        assert!(recent.is_current(&touched(later, &[1])));
        [old, new, later].into_iter().for_each(|since| recent.end(since));
        assert!(recent.ended.is_empty());
    }

    #[test]
    fn however_often_a_key_is_written_the_others_are_remembered() {
        let mut recent = Recent::default();
        let old = recent.begin();
        note(&mut recent, 2, 0);
        for _ in 0..2 {
            (1..KEYS_MAX).for_each(|_| note(&mut recent, 1, 0));
            let (first, second) = (recent.begin(), recent.begin());
            assert!(recent.is_current(&reads(first, &[1, 2], &[])));
            recent.end(first);
            recent.end(second);
            assert!(recent.is_current(&reads(old, &[3], &[])));
        }
        assert!(!recent.is_current(&reads(old, &[1], &[])));
        recent.end(old);
        let room = (recent.keys.capacity(), recent.order.capacity());
        assert!(room.0 + room.1 <= 4 * KEYS_KEPT_MAX, "{room:?}");
    }

    fn batch(keys: std::ops::Range<u32>, collection: u32) -> Spilled {
        let mut wishes = Wishes::default();
        for key in keys {
            let wish = Wish { collection: 1, key: &key.to_be_bytes(), value: None };
            wishes.push(&wish).unwrap();
        }
        // Any batch knows the default collection, whether it writes to that or not.
        Spilled::new(wishes, vec![DEFAULT, collection], &Keys::new([7; 32])).unwrap()
    }

    #[test]
    fn a_batch_conflicts_with_who_has_read_its_keys_or_its_collection() {
        let key = |number: u32| Keys::new([7; 32]).hash(5, &number.to_be_bytes()).0;
        for count in [2, 20_000] {
            let mut recent = Recent::default();
            recent.note_batch(&batch(0..count, 5));
            let before = recent.begin();
            recent.note_batch(&batch(0..count, 5));
            let behind = recent.begin();
            assert!(!recent.is_current(&reads(before, &[key(1)], &[])), "{count}");
            assert!(!recent.is_current(&reads(before, &[], &[5])));
            assert!(recent.is_current(&reads(before, &[key(count)], &[DEFAULT, 4])));
            assert!(recent.is_current(&reads(behind, &[key(1)], &[5])));
            recent.end(before);
            assert!(recent.order.is_empty() && recent.batches.is_empty());
            recent.end(behind);
        }
    }

    #[test]
    fn batches_of_too_many_keys_are_forgotten_the_oldest_first() {
        let mut recent = Recent::default();
        let before = recent.begin();
        recent.note_batch(&batch(0..20_000, 5));
        let between = recent.begin();
        let large = batch(0..(1 << 20), 5);
        for _ in 0..4 {
            recent.note_batch(&large);
        }
        assert!(!recent.is_current(&reads(before, &[1], &[])));
        assert!(recent.is_current(&reads(before, &[], &[])));
        assert!(recent.is_current(&reads(between, &[1], &[])));
        recent.note_batch(&large);
        assert!(!recent.is_current(&reads(between, &[1], &[])));
    }
}
