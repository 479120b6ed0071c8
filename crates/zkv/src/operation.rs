//! One record on its way into the log.

use zkv_index::KeyHash;
use zkv_record::Record;

/// One record of a commit.
#[derive(Clone, Copy)]
pub(crate) struct Operation<'a> {
    pub hash: KeyHash,
    pub record: &'a [u8],
    pub key_start: KeyStart,
}

/// The first bytes of a record's key: they decide most comparisons of keys without a look at the
/// records, which lie anywhere in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyStart(u128);

impl<'a> Operation<'a> {
    pub(crate) fn new(hash: KeyHash, record: &'a [u8]) -> Self {
        Self { hash, record, key_start: KeyStart::of(key_of(record)) }
    }
}

impl KeyStart {
    pub(crate) fn of(key: &[u8]) -> Self {
        let mut start = [0; 16];
        let count = key.len().min(start.len());
        start[..count].copy_from_slice(&key[..count]);
        Self(u128::from_be_bytes(start))
    }
}

/// The key of an encoded record.
pub(crate) fn key_of(record: &[u8]) -> &[u8] {
    Record::decode(record).map_or(&[], |record| record.key)
}
