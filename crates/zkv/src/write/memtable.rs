//! Records that are visible and not yet in the log.

mod arena;
mod list;
mod slots;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::PoisonError;

use bytes::Bytes;
use zkv_index::KeyHash;
use zkv_record::{Kind, Record};

use crate::hashed::KeySet;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use crate::write::operation::Operation;
pub(crate) use arena::Arena;
use list::AppendList;
use slots::Slots;

/// What a record costs besides its own bytes: its entry, and slots for it, twice as many of both
/// as are in use at the worst.
pub(crate) const ENTRY_OVERHEAD_BYTES: usize = 96;

/// Where no older record of the key is in the buffer.
const NONE: u32 = u32::MAX;

/// A buffer of records, all that came, so that whoever has seen it at some moment can see it so
/// again. Readers take no lock.
pub(crate) struct Memtable {
    /// In the order in which they came.
    entries: AppendList<Entry>,
    /// Leads to the newest of each key.
    slots: Slots,
    bytes: AtomicUsize,
    /// How many of them may be seen: those of one commit appear together.
    published: AtomicU32,
    /// How the first of them change the count of a collection's keys, of those that somebody has asked for.
    counted: Mutex<BTreeMap<u32, Counted>>,
}

/// What so many of a buffer's records do to the count of keys.
#[derive(Clone, Copy, Default)]
struct Counted {
    records: u32,
    change: i64,
}

struct Entry {
    hash: KeyHash,
    record: Bytes,
    /// The record of the same key before this one, or [`NONE`].
    before: u32,
    /// One further back, by as many as make each of them found in a few steps (Myers, 1983: an applicative
    /// random-access stack); the first of a key has itself.
    jump: u32,
    /// How many of the same key came before.
    depth: u32,
    /// Whether the key had a value beneath this buffer, once somebody has asked.
    beneath: AtomicU8,
}

/// What [`Entry::beneath`] may be.
const NOT_ASKED: u8 = 0;
const ABSENT: u8 = 1;
const PRESENT: u8 = 2;

/// How many of a buffer's records a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen(u32);

impl Seen {
    /// Of a buffer that nobody writes to any more.
    pub(crate) const ALL: Self = Self(u32::MAX);
}

impl Memtable {
    pub(crate) fn new() -> Self {
        Self::with_room_for(0)
    }

    /// An empty buffer for about as many records as `other` holds: growing costs more than filling.
    pub(crate) fn like(other: &Self) -> Self {
        Self::with_room_for(other.slots.used())
    }

    fn with_room_for(count: usize) -> Self {
        Self {
            entries: AppendList::new(),
            slots: Slots::with_room_for(count),
            bytes: AtomicUsize::new(0),
            published: AtomicU32::new(0),
            counted: Mutex::default(),
        }
    }

    /// Adds an encoded record, to be seen once it is published; only one thread at a time may.
    #[inline]
    pub(crate) fn insert(&self, hash: KeyHash, record: Bytes) {
        self.bytes.fetch_add(record.len() + ENTRY_OVERHEAD_BYTES, Ordering::Relaxed);
        let before = self.newest(hash);
        let (jump, depth) = self.jump_behind(before);
        let beneath = NOT_ASKED.into();
        let entry = Entry { hash, record, before: before.unwrap_or(NONE), jump, depth, beneath };
        let number = self.entries.push(entry);
        self.slots.put(hash, number, before, |number| self.hash_of(number));
    }

    /// Makes room for so many more keys at once.
    pub(crate) fn reserve(&self, more: usize) {
        self.slots.reserve(more, |number| self.hash_of(number));
    }

    /// Lets readers see all that was inserted.
    pub(crate) fn publish(&self) {
        self.published.store(self.entries.len(), Ordering::Release);
    }

    /// What readers see now.
    #[inline]
    pub(crate) fn seen(&self) -> Seen {
        Seen(self.published.load(Ordering::Acquire))
    }

    /// Shows the newest record of the key among those `seen` to `found`.
    #[inline]
    pub(crate) fn get<T>(
        &self,
        hash: KeyHash,
        seen: Seen,
        found: impl FnOnce(&[u8]) -> T,
    ) -> Option<T> {
        let number = self.find(hash, seen)?;
        self.entries.get(number).map(|entry| found(&entry.record))
    }

    pub(crate) fn contains(&self, hash: KeyHash, seen: Seen) -> bool {
        self.find(hash, seen).is_some()
    }

    /// What leads further back from the record that comes next, behind `before` of the same key, and how many
    /// came before it.
    fn jump_behind(&self, before: Option<u32>) -> (u32, u32) {
        let of = |number: u32| self.entries.get(number).map(|entry| (entry.jump, entry.depth));
        let first = (self.entries.len(), 0);
        let Some((before, (jump, depth))) = before.and_then(|one| Some((one, of(one)?))) else {
            return first;
        };
        let (further, jump_depth) = of(jump).unwrap_or(first);
        let further_depth = of(further).unwrap_or(first).1;
        let is_as_far = depth - jump_depth == jump_depth - further_depth;
        (if is_as_far { further } else { before }, depth + 1)
    }

    #[inline]
    fn find(&self, hash: KeyHash, seen: Seen) -> Option<u32> {
        let mut number = self.newest(hash)?;
        while number >= seen.0 {
            let Entry { before, jump, .. } = self.entries.get(number)?;
            if *before == NONE {
                return None;
            }
            number = if *jump >= seen.0 { *jump } else { *before };
        }
        Some(number)
    }

    #[inline]
    fn newest(&self, hash: KeyHash) -> Option<u32> {
        let is_it = |number| self.entries.get(number).is_some_and(|entry| entry.hash == hash);
        self.slots.find(hash, is_it)
    }

    fn hash_of(&self, number: u32) -> KeyHash {
        self.entries.get(number).map_or(KeyHash(0), |entry| entry.hash)
    }

    /// About how much memory the records take, with those that were replaced.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The memory that it takes, which is more where it has few records.
    pub(crate) fn held_bytes(&self) -> usize {
        let overhead = self.entries.len() as usize * ENTRY_OVERHEAD_BYTES;
        self.bytes().saturating_sub(overhead) + self.entries.bytes() + self.slots.bytes()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.used() == 0
    }

    /// How many tables it has outgrown, and the newest.
    #[cfg(test)]
    pub(crate) fn table_count(&self) -> usize {
        self.slots.table_count()
    }

    /// How many records came before `seen`.
    pub(crate) fn count(&self, seen: Seen) -> u32 {
        self.entries.len().min(seen.0)
    }

    /// The number of the newest record below `end` whose key is not `met` yet, and then is. Asked again
    /// and again, it goes through the newest record of each key, however often that was written later.
    pub(crate) fn newest_below(&self, end: u32, met: &mut KeySet) -> Option<u32> {
        (0..end).rev().find(|number| met.insert(self.hash_of(*number)))
    }

    /// The record `number`.
    pub(crate) fn record(&self, number: u32) -> Option<&[u8]> {
        self.entries.get(number).map(|entry| &*entry.record)
    }

    /// How the records `seen` change the count of a collection's keys. `is_beneath` says whether a key had a
    /// value beneath this buffer; it is asked once for each key, whoever counts. Whoever counts again looks
    /// at what has come since.
    pub(crate) fn count_keys<E>(
        &self,
        collection: u32,
        seen: Seen,
        is_beneath: impl FnMut(KeyHash, &Record<'_>) -> Result<bool, E>,
    ) -> Result<i64, E> {
        let counted = || self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let records = self.count(seen);
        let before = counted().get(&collection).copied().unwrap_or_default();
        let before = if before.records <= records { before } else { Counted::default() };
        let mut changes = BTreeMap::new();
        let is_asked = |one| one == collection;
        self.count_between(before.records..records, is_asked, is_beneath, &mut changes)?;
        let change = before.change + changes.get(&collection).copied().unwrap_or(0);
        let mut counted = counted();
        let known = counted.entry(collection).or_default();
        if known.records < records {
            *known = Counted { records, change };
        }
        Ok(change)
    }

    /// As [`Memtable::count_keys`], of all collections, to be added to `changes`.
    pub(crate) fn count_all_keys<E>(
        &self,
        seen: Seen,
        is_beneath: impl FnMut(KeyHash, &Record<'_>) -> Result<bool, E>,
        changes: &mut BTreeMap<u32, i64>,
    ) -> Result<(), E> {
        self.count_between(0..self.count(seen), |_| true, is_beneath, changes)
    }

    fn count_between<E>(
        &self,
        numbers: Range<u32>,
        is_asked: impl Fn(u32) -> bool,
        mut is_beneath: impl FnMut(KeyHash, &Record<'_>) -> Result<bool, E>,
        changes: &mut BTreeMap<u32, i64>,
    ) -> Result<(), E> {
        for entry in numbers.filter_map(|number| self.entries.get(number)) {
            let Ok(record) = Record::decode(&entry.record) else { continue };
            if !is_asked(record.collection) {
                continue;
            }
            let was = match self.entries.get(entry.before) {
                Some(before) => is_put(&before.record),
                None => match entry.beneath.load(Ordering::Relaxed) {
                    NOT_ASKED => {
                        let was = is_beneath(entry.hash, &record)?;
                        entry.beneath.store(if was { PRESENT } else { ABSENT }, Ordering::Relaxed);
                        was
                    }
                    known => known == PRESENT,
                },
            };
            let change = i64::from(record.kind != Kind::Delete) - i64::from(was);
            *changes.entry(record.collection).or_default() += change;
        }
        Ok(())
    }

    /// The newest record of each key with its number, nearly in the order of hashes.
    pub(crate) fn newest_of_each(&self) -> Vec<(u32, Operation<'_>)> {
        // Each is looked at in the order in which it came: that is how they lie in memory.
        let entries = self.entries.iter();
        let all: Vec<Option<Operation<'_>>> =
            entries.map(|entry| Operation::new(entry.hash, &entry.record)).collect();
        let mut newest = Vec::with_capacity(self.slots.used());
        self.slots.for_each(|number| {
            let operation = all.get(number as usize).copied().flatten();
            newest.extend(operation.map(|operation| (number, operation)));
        });
        newest
    }

    /// The same in the order of hashes.
    pub(crate) fn by_hash(&self) -> Vec<(u32, Operation<'_>)> {
        let mut newest = self.newest_of_each();
        sort_what_is_nearly_sorted(&mut newest);
        newest
    }
}

/// Insertion: nearly all stand a few places from where they belong.
fn sort_what_is_nearly_sorted(operations: &mut [(u32, Operation<'_>)]) {
    for end in 1..operations.len() {
        let mut place = end;
        while place > 0 && operations[place - 1].1.hash > operations[place].1.hash {
            operations.swap(place - 1, place);
            place -= 1;
        }
    }
}

/// Whether an encoded record gives its key a value.
pub(crate) fn is_put(record: &[u8]) -> bool {
    Record::decode(record).is_ok_and(|record| record.kind != Kind::Delete)
}

impl std::fmt::Debug for Memtable {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Memtable").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uniform, as hashes are; the last of them wrap around the table's end.
    fn hash(number: u32) -> KeyHash {
        let uniform = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        KeyHash(if number.is_multiple_of(100) { u128::MAX - u128::from(number) } else { uniform })
    }

    fn record(key: u32, value: u32) -> Vec<u8> {
        let (key, value) = (key.to_le_bytes(), value.to_le_bytes());
        let record = if value[0].is_multiple_of(3) {
            Record::delete(&key)
        } else {
            Record::put(&key, &value)
        };
        let mut bytes = Vec::new();
        record.encode_into(&mut bytes);
        bytes
    }

    #[test]
    fn a_buffer_holds_the_newest_record_of_each_key_by_hash() {
        let (memtable, mut arena) = (Memtable::new(), Arena::default());
        const KEYS: u32 = 2000;
        for value in 0..3 * KEYS {
            let key = value % KEYS;
            memtable.insert(hash(key), arena.add(record(key, value)));
        }
        memtable.publish();
        let mut expected: Vec<(KeyHash, Vec<u8>)> =
            (0..KEYS).map(|key| (hash(key), record(key, 2 * KEYS + key))).collect();
        expected.sort();
        let found = memtable.by_hash();
        assert!(found.iter().map(|(_, one)| (one.hash, one.record.to_vec())).eq(expected));
        let seen = memtable.seen();
        assert_eq!(memtable.get(hash(7), seen, <[u8]>::to_vec), Some(record(7, 2 * KEYS + 7)));
        assert!(!memtable.contains(hash(KEYS + 1), seen));
        assert!(memtable.bytes() >= 3 * KEYS as usize * ENTRY_OVERHEAD_BYTES);
        let held = memtable.held_bytes();
        assert!(held > memtable.bytes() / 4 && held < 2 * memtable.bytes(), "{held}");
    }

    #[test]
    fn what_was_seen_stays_as_it_was_and_what_is_not_published_is_not_seen() {
        let (memtable, mut arena) = (Memtable::new(), Arena::default());
        const KEYS: u32 = 700;
        let mut moments = Vec::new();
        for round in 0..4 {
            moments.push(memtable.seen());
            for key in 0..KEYS {
                memtable.insert(hash(key), arena.add(record(key, round)));
            }
            assert_eq!(Some(&memtable.seen()), moments.last());
            memtable.publish();
        }
        for (round, seen) in (0u32..4).zip(moments) {
            for key in 0..KEYS {
                let found = memtable.get(hash(key), seen, <[u8]>::to_vec);
                assert_eq!(found, round.checked_sub(1).map(|round| record(key, round)));
            }
            let (mut end, mut met) = (memtable.count(seen), KeySet::default());
            let newest = std::iter::from_fn(|| {
                end = memtable.newest_below(end, &mut met)?;
                Some(memtable.record(end)?.to_vec())
            });
            let newest: Vec<_> = newest.collect();
            let keys = if round == 0 { 0 } else { KEYS };
            let all = (0..keys).rev().map(|key| record(key, round - 1));
            assert_eq!(newest, all.collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_moment_finds_its_own_among_thousands_of_records_of_one_key() {
        let (memtable, mut arena) = (Memtable::new(), Arena::default());
        let mut random = fastrand::Rng::with_seed(1);
        let (mut newest, mut moments) = ([None; 3], Vec::new());
        for value in 0..5000 {
            moments.push((memtable.seen(), newest));
            let key = random.u32(..100).saturating_sub(97);
            memtable.insert(hash(key), arena.add(record(key, value)));
            memtable.publish();
            newest[key as usize] = Some(value);
        }
        moments.push((memtable.seen(), newest));
        for (seen, newest) in moments {
            for (key, value) in (0..).zip(newest) {
                let found = memtable.get(hash(key), seen, <[u8]>::to_vec);
                assert_eq!(found, value.map(|value| record(key, value)), "{key} of {seen:?}");
            }
        }
        // From the last record of the first key, each jump leads over half of what is left, sooner or later.
        let mut steps = 0;
        let mut number = memtable.newest(hash(0)).unwrap();
        while let Some(entry) = memtable.entries.get(number).filter(|entry| entry.depth > 0) {
            number = entry.jump;
            steps += 1;
        }
        assert!(steps < 13, "{steps} jumps behind 5,000 records");
    }

    #[test]
    fn keys_are_counted_and_what_lies_beneath_is_asked_once() {
        let (memtable, mut arena) = (Memtable::new(), Arena::default());
        // Of each three values one is a mark; the even keys lie beneath.
        let mut model = std::collections::BTreeSet::from([0, 2, 4, 6, 8]);
        let (mut asked, mut moments) = (0, Vec::new());
        for value in 0..40u32 {
            let key = value * 7 % 10;
            memtable.insert(hash(key), arena.add(record(key, value)));
            memtable.publish();
            if value % 3 == 0 {
                model.remove(&key)
            } else {
                model.insert(key)
            };
            let mut changes = BTreeMap::new();
            let is_beneath = |_, record: &Record<'_>| {
                asked += 1;
                Ok::<_, ()>(record.key[0].is_multiple_of(2))
            };
            let seen = memtable.seen();
            memtable.count_all_keys(seen, is_beneath, &mut changes).unwrap();
            let change = model.len() as i64 - 5;
            assert_eq!(changes, BTreeMap::from([(0, change)]));
            let unasked = |_, _: &Record<'_>| Err(());
            assert_eq!(memtable.count_keys(0, seen, unasked), Ok(change));
            assert_eq!(memtable.count_keys(1, seen, unasked), Ok(0), "another collection's");
            moments.push((seen, change));
        }
        assert_eq!(asked, 10);
        // Whoever sees less counts less, also behind those who have seen more.
        for (seen, change) in moments {
            assert_eq!(memtable.count_keys(0, seen, |_, _| Err(())), Ok(change));
        }
    }

    #[test]
    fn readers_find_what_was_inserted_before_they_looked() {
        let (memtable, mut arena) = (Memtable::new(), Arena::default());
        let inserted = AtomicU32::new(0);
        const KEYS: u32 = 20_000;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for key in 0..KEYS {
                    memtable.insert(hash(key), arena.add(record(key, key)));
                    memtable.publish();
                    inserted.store(key + 1, Ordering::Release);
                }
            });
            let mut seen = 0;
            while seen < KEYS {
                seen = inserted.load(Ordering::Acquire);
                for key in (0..seen).rev().take(3).chain((0..seen).step_by(997)) {
                    let found = memtable.get(hash(key), memtable.seen(), <[u8]>::to_vec);
                    assert_eq!(found, Some(record(key, key)));
                }
            }
        });
    }
}
