//! One record on its way into the log.

use zkv_index::KeyHash;
use zkv_record::Record;

use crate::metadata::live::raw_bytes;
use crate::write::resolve::RecordKind;

/// One record of a commit, with what committing it asks of it: records lie anywhere in memory, so
/// each is looked at once.
#[derive(Clone, Copy)]
pub(crate) struct Operation<'a> {
    pub hash: KeyHash,
    pub record: &'a [u8],
    pub key_start: KeyStart,
    pub collection: u32,
    /// The user's bytes in it.
    pub raw_bytes: u64,
    pub kind: RecordKind,
}

/// The first bytes of a record's key: they decide most comparisons of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyStart(u128);

impl<'a> Operation<'a> {
    /// `None` where the bytes are no record.
    pub(crate) fn new(hash: KeyHash, record: &'a [u8]) -> Option<Self> {
        let decoded = Record::decode(record).ok()?;
        let key_start = KeyStart::of(decoded.key);
        let (raw_bytes, kind) = (raw_bytes(&decoded), RecordKind::of(&decoded));
        let collection = decoded.collection;
        Some(Self { hash, record, key_start, collection, raw_bytes, kind })
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

/// The numbers that come with `starts` in the order of their keys, which begin so, and which `key`
/// knows: what is alike stands together, and compresses better.
pub(crate) fn sorted_by_key<'k>(
    starts: impl Iterator<Item = (KeyStart, usize)>,
    key: impl Fn(usize) -> &'k [u8],
) -> Vec<usize> {
    let mut order: Vec<(KeyStart, usize)> = starts.collect();
    order.sort_unstable_by(|left, right| {
        left.0.cmp(&right.0).then_with(|| key(left.1).cmp(key(right.1)))
    });
    order.into_iter().map(|(_, number)| number).collect()
}

/// The key of an encoded record.
pub(crate) fn key_of(record: &[u8]) -> &[u8] {
    Record::decode(record).map_or(&[], |record| record.key)
}
