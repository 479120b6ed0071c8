//! How many keys each collection has.

use std::collections::BTreeMap;

use zkv_io::{Cursor, Overrun};

use crate::layout::KEY_COUNT_BYTES;

/// The index checkpoint's section that holds the counts.
pub(crate) const SECTION: u32 = 4;

/// The count of keys, by collection. A forged index may claim any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyCounts {
    by_collection: BTreeMap<u32, u64>,
}

impl KeyCounts {
    pub(crate) fn of(&self, collection: u32) -> u64 {
        self.by_collection.get(&collection).copied().unwrap_or(0)
    }

    pub(crate) fn total(&self) -> u64 {
        self.by_collection.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    pub(crate) fn add(&mut self, collection: u32, change: i64) {
        let count = self.of(collection).saturating_add_signed(change);
        if count == 0 {
            self.by_collection.remove(&collection);
        } else {
            self.by_collection.insert(collection, count);
        }
    }

    /// Forgets the keys of a collection.
    pub(crate) fn drop_collection(&mut self, collection: u32) {
        self.by_collection.remove(&collection);
    }

    pub(crate) fn collections(&self) -> impl Iterator<Item = u32> + '_ {
        self.by_collection.keys().copied()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.by_collection.len() * KEY_COUNT_BYTES);
        for (collection, count) in &self.by_collection {
            bytes.extend(collection.to_le_bytes());
            bytes.extend(count.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Overrun> {
        let mut cursor = Cursor::new(bytes);
        let mut by_collection = BTreeMap::new();
        while !cursor.rest().is_empty() {
            by_collection.insert(cursor.u32()?, cursor.u64()?);
        }
        Ok(Self { by_collection })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_round_trip_and_no_truncation_within_a_row_decodes() {
        let mut counts = KeyCounts::default();
        for collection in 0..4 {
            counts.add(collection, i64::from(collection) + 1);
        }
        counts.add(2, -3);
        let bytes = counts.encode();
        assert_eq!(KeyCounts::decode(&bytes), Ok(counts.clone()));
        for end in 0..bytes.len() {
            assert_eq!(KeyCounts::decode(&bytes[..end]).is_ok(), end % KEY_COUNT_BYTES == 0);
        }
        assert_eq!(counts.total(), 7);
        assert_eq!((counts.of(2), counts.of(3), counts.of(9)), (0, 4, 0));
    }

    #[test]
    fn no_count_that_an_index_may_claim_overflows() {
        let mut counts = KeyCounts::default();
        counts.add(0, -1);
        assert_eq!(counts.of(0), 0);
        counts.add(0, i64::MAX);
        counts.add(0, i64::MAX);
        counts.add(0, i64::MAX);
        counts.add(1, 1);
        assert_eq!((counts.of(0), counts.total()), (u64::MAX, u64::MAX));
    }
}
