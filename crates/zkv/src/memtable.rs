//! Records that are visible and not yet in the log.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};

use papaya::HashMap;
use zkv_index::KeyHash;
use zkv_record::{Kind, Record};

/// What a record costs besides its own bytes: the map's entry and two allocations.
const ENTRY_OVERHEAD_BYTES: usize = 96;

/// A buffer of records, the newest of each key. Readers take no lock.
pub(crate) struct Memtable {
    records: HashMap<KeyHash, Box<[u8]>, BuildHasherDefault<TakeHash>>,
    bytes: AtomicUsize,
}

impl Memtable {
    pub(crate) fn new() -> Self {
        Self {
            records: HashMap::with_hasher(BuildHasherDefault::default()),
            bytes: AtomicUsize::new(0),
        }
    }

    /// An empty buffer for about as many records as `other` holds: growing costs more than filling.
    pub(crate) fn like(other: &Self) -> Self {
        let count = other.records.len();
        let records = HashMap::with_capacity_and_hasher(count, BuildHasherDefault::default());
        Self { records, bytes: AtomicUsize::new(0) }
    }

    /// Puts an encoded record in the place of an older one; only one thread at a time may. Returns
    /// whether a put stood there, and `None` where nothing did.
    pub(crate) fn insert(&self, hash: KeyHash, record: Box<[u8]>) -> Option<bool> {
        let added = record.len() + ENTRY_OVERHEAD_BYTES;
        let records = self.records.pin();
        let replaced = records.insert(hash, record);
        let removed = replaced.map_or(0, |old| old.len() + ENTRY_OVERHEAD_BYTES);
        self.bytes.fetch_add(added, Ordering::Relaxed);
        self.bytes.fetch_sub(removed, Ordering::Relaxed);
        replaced.map(|old| is_put(old))
    }

    /// Shows the record of the key to `found`.
    #[inline]
    pub(crate) fn get<T>(&self, hash: KeyHash, found: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.records.pin().get(&hash).map(|record| found(record))
    }

    pub(crate) fn contains(&self, hash: KeyHash) -> bool {
        self.records.pin().contains_key(&hash)
    }

    pub(crate) fn hashes(&self) -> Vec<KeyHash> {
        self.records.pin().keys().copied().collect()
    }

    /// About how much memory the records take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Shows all records to `visit`, in no order.
    pub(crate) fn with_all<T>(&self, visit: impl FnOnce(&[(KeyHash, &[u8])]) -> T) -> T {
        let records = self.records.pin();
        let all: Vec<(KeyHash, &[u8])> =
            records.iter().map(|(hash, record)| (*hash, &**record)).collect();
        visit(&all)
    }
}

/// Whether an encoded record gives its key a value.
pub(crate) fn is_put(record: &[u8]) -> bool {
    Record::decode(record).is_ok_and(|record| record.kind != Kind::Delete)
}

/// The keys are hashes already.
#[derive(Default)]
struct TakeHash(u64);

impl Hasher for TakeHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, value: u128) {
        // The low half: the index uses the high one.
        #[expect(clippy::cast_possible_truncation, reason = "half of a uniform hash is one")]
        let low = value as u64;
        self.0 = low;
    }
}

impl std::fmt::Debug for Memtable {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Memtable").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}
