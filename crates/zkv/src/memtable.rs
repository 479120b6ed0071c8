//! Records that are visible and not yet in the log.

mod arena;
mod list;
mod slots;

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use zkv_index::KeyHash;
use zkv_record::{Kind, Record};

use crate::operation::Operation;
pub(crate) use arena::Arena;
use list::AppendList;
use slots::Slots;

/// What a record costs besides its own bytes: its entry, and slots for it, twice as many of both
/// as are in use at the worst.
const ENTRY_OVERHEAD_BYTES: usize = 96;

/// A buffer of records, the newest of each key. Readers take no lock.
pub(crate) struct Memtable {
    /// All records in the order in which they came, also those that were replaced since.
    entries: AppendList<Entry>,
    slots: Slots,
    bytes: AtomicUsize,
}

struct Entry {
    hash: KeyHash,
    record: Bytes,
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
        }
    }

    /// Puts an encoded record in the place of an older one; only one thread at a time may. Returns
    /// whether a put stood there, and `None` where nothing did.
    pub(crate) fn insert(&self, hash: KeyHash, record: Bytes) -> Option<bool> {
        self.bytes.fetch_add(record.len() + ENTRY_OVERHEAD_BYTES, Ordering::Relaxed);
        let before = self.find(hash);
        let number = self.entries.push(Entry { hash, record });
        self.slots.put(hash, number, before, |number| self.hash_of(number));
        before.and_then(|before| self.entries.get(before)).map(|entry| is_put(&entry.record))
    }

    /// Shows the record of the key to `found`.
    #[inline]
    pub(crate) fn get<T>(&self, hash: KeyHash, found: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let number = self.find(hash)?;
        self.entries.get(number).map(|entry| found(&entry.record))
    }

    pub(crate) fn contains(&self, hash: KeyHash) -> bool {
        self.find(hash).is_some()
    }

    #[inline]
    fn find(&self, hash: KeyHash) -> Option<u32> {
        let is_it = |number| self.entries.get(number).is_some_and(|entry| entry.hash == hash);
        self.slots.find(hash, is_it)
    }

    fn hash_of(&self, number: u32) -> KeyHash {
        self.entries.get(number).map_or(KeyHash(0), |entry| entry.hash)
    }

    pub(crate) fn hashes(&self) -> Vec<KeyHash> {
        self.by_hash().into_iter().map(|operation| operation.hash).collect()
    }

    /// About how much memory the records take, with those that were replaced.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.used() == 0
    }

    /// The newest record of each key, in the order of their hashes.
    pub(crate) fn by_hash(&self) -> Vec<Operation<'_>> {
        // Each is looked at in the order in which it came: that is how they lie in memory.
        let entries = self.entries.iter();
        let all: Vec<Option<Operation<'_>>> =
            entries.map(|entry| Operation::new(entry.hash, &entry.record)).collect();
        let mut newest = Vec::with_capacity(self.slots.used());
        self.slots.for_each(|number| {
            newest.extend(all.get(number as usize).copied().flatten());
        });
        sort_what_is_nearly_sorted(&mut newest);
        newest
    }
}

/// Insertion: nearly all stand a few places from where they belong.
fn sort_what_is_nearly_sorted(operations: &mut [Operation<'_>]) {
    for end in 1..operations.len() {
        let mut place = end;
        while place > 0 && operations[place - 1].hash > operations[place].hash {
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
            let before = value.checked_sub(KEYS).map(|before| is_put(&record(key, before)));
            assert_eq!(memtable.insert(hash(key), arena.add(record(key, value))), before);
        }
        let mut expected: Vec<(KeyHash, Vec<u8>)> =
            (0..KEYS).map(|key| (hash(key), record(key, 2 * KEYS + key))).collect();
        expected.sort();
        let found = memtable.by_hash();
        assert!(found.iter().map(|one| (one.hash, one.record.to_vec())).eq(expected));
        assert_eq!(memtable.get(hash(7), <[u8]>::to_vec), Some(record(7, 2 * KEYS + 7)));
        assert!(!memtable.contains(hash(KEYS + 1)));
        assert!(memtable.bytes() >= 3 * KEYS as usize * ENTRY_OVERHEAD_BYTES);
    }

    #[test]
    fn readers_find_what_was_inserted_before_they_looked() {
        let (memtable, mut arena) = (Memtable::new(), Arena::default());
        let inserted = std::sync::atomic::AtomicU32::new(0);
        const KEYS: u32 = 20_000;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for key in 0..KEYS {
                    memtable.insert(hash(key), arena.add(record(key, key)));
                    inserted.store(key + 1, Ordering::Release);
                }
            });
            let mut seen = 0;
            while seen < KEYS {
                seen = inserted.load(Ordering::Acquire);
                for key in (0..seen).rev().take(3).chain((0..seen).step_by(997)) {
                    assert_eq!(memtable.get(hash(key), <[u8]>::to_vec), Some(record(key, key)));
                }
            }
        });
    }
}
