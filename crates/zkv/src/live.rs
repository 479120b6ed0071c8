//! How much of each segment is still in use.

use std::collections::{BTreeMap, BTreeSet};

use zkv_io::{Cursor, Overrun};
use zkv_log::{Location, LogView};
use zkv_record::{Kind, Record};

use crate::layout::{LIVE_SHARE_BYTES, SEGMENT_USE_BYTES};

/// The index checkpoint's sections that hold the table: what is in each segment, and what of that
/// is in use.
pub(crate) const SEGMENTS_SECTION: u32 = 2;
pub(crate) const LIVE_SECTION: u32 = 3;

/// Records, and the bytes of their keys and values before compression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    pub records: u32,
    pub raw_bytes: u64,
}

/// What every segment holds, by slot; and what of it is in use, by slot and collection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LiveTable {
    segments: BTreeMap<u32, Amount>,
    live: BTreeMap<(u32, u32), Amount>,
}

/// What a commit does to the table.
#[derive(Debug, Default)]
pub(crate) struct LiveChange {
    added: LiveTable,
    killed: BTreeMap<(u32, u32), Amount>,
}

/// The bytes of the user's that a record holds.
pub(crate) fn raw_bytes(record: &Record<'_>) -> u64 {
    let bytes = match record.kind {
        Kind::Put => record.key.len() + record.value.len(),
        Kind::Head => record.key.len(),
        Kind::Piece => record.value.len(),
        Kind::Delete => 0,
    };
    bytes as u64
}

impl Amount {
    fn of_one(raw_bytes: u64) -> Self {
        Self { records: 1, raw_bytes }
    }

    /// A forged index may hold any number.
    fn add(&mut self, other: Self) {
        self.records = self.records.saturating_add(other.records);
        self.raw_bytes = self.raw_bytes.saturating_add(other.raw_bytes);
    }

    fn subtract(&mut self, other: Self) {
        self.records = self.records.saturating_sub(other.records);
        self.raw_bytes = self.raw_bytes.saturating_sub(other.raw_bytes);
    }
}

impl LiveChange {
    /// Notes a record of `collection` that was written to `slot`.
    pub(crate) fn add(&mut self, slot: u32, collection: u32, raw_bytes: u64, is_live: bool) {
        self.added.add(slot, raw_bytes);
        if is_live {
            self.added.add_live(slot, collection, raw_bytes);
        }
    }

    /// Notes that a record in `slot` is superseded.
    pub(crate) fn kill(&mut self, slot: u32, collection: u32, raw_bytes: u64) {
        self.killed.entry((slot, collection)).or_default().add(Amount::of_one(raw_bytes));
    }
}

impl LiveTable {
    pub(crate) fn apply(&mut self, change: &LiveChange) {
        for (slot, amount) in &change.added.segments {
            self.segments.entry(*slot).or_default().add(*amount);
        }
        for (place, amount) in &change.added.live {
            self.live.entry(*place).or_default().add(*amount);
        }
        for (place, amount) in &change.killed {
            if let Some(live) = self.live.get_mut(place) {
                live.subtract(*amount);
                if *live == Amount::default() {
                    self.live.remove(place);
                }
            }
        }
    }

    /// Notes a record that was written to `slot`.
    pub(crate) fn add(&mut self, slot: u32, raw_bytes: u64) {
        self.segments.entry(slot).or_default().add(Amount::of_one(raw_bytes));
    }

    /// Notes that a record counted before is in use.
    pub(crate) fn add_live(&mut self, slot: u32, collection: u32, raw_bytes: u64) {
        self.live.entry((slot, collection)).or_default().add(Amount::of_one(raw_bytes));
    }

    /// Notes that nothing of `collection` is in use any longer.
    pub(crate) fn drop_collection(&mut self, collection: u32) {
        self.live.retain(|(_, of), _| *of != collection);
    }

    /// The collections of which something is in use.
    pub(crate) fn collections(&self) -> BTreeSet<u32> {
        self.live.keys().map(|(_, collection)| *collection).collect()
    }

    /// The slots of which `other` says something else.
    pub(crate) fn differing_slots(&self, other: &Self) -> Vec<u32> {
        let live_of = |table: &Self, slot: u32| -> Vec<(u32, Amount)> {
            let rows = table.live.range((slot, 0)..=(slot, u32::MAX));
            rows.map(|((_, collection), amount)| (*collection, *amount)).collect()
        };
        let of = |table: &Self, slot: u32| {
            (table.segments.get(&slot).copied().unwrap_or_default(), live_of(table, slot))
        };
        let slots: BTreeSet<u32> = [self, other]
            .into_iter()
            .flat_map(|table| {
                table.segments.keys().copied().chain(table.live.keys().map(|at| at.0))
            })
            .collect();
        slots.into_iter().filter(|slot| of(self, *slot) != of(other, *slot)).collect()
    }

    /// Live keys and values of `collection`, before compression; of all without one.
    pub(crate) fn live_raw_bytes(&self, collection: Option<u32>) -> u64 {
        let rows = self.live.iter().filter(|((_, of), _)| collection.is_none_or(|one| one == *of));
        rows.fold(0, |sum, (_, amount)| sum.saturating_add(amount.raw_bytes))
    }

    /// The bytes of the data file that live records of `collection` take, or all of them: of each
    /// segment the live share.
    pub(crate) fn live_data_bytes(&self, log: &LogView, collection: Option<u32>) -> u64 {
        let live = log.segments().into_iter().map(|segment| {
            let whole = self.segments.get(&segment.slot).copied().unwrap_or_default().raw_bytes;
            let rows = self.live.range((segment.slot, 0)..=(segment.slot, u32::MAX));
            let of_rows = rows.filter(|((_, of), _)| collection.is_none_or(|one| one == *of));
            let live = of_rows.fold(0u64, |sum, (_, amount)| sum.saturating_add(amount.raw_bytes));
            let share =
                u128::from(segment.data_bytes) * u128::from(live) / u128::from(whole.max(1));
            u64::try_from(share).unwrap_or(u64::MAX)
        });
        live.fold(0, u64::saturating_add)
    }

    /// The two sections: segments, and what of them is in use.
    pub(crate) fn encode(&self) -> (Vec<u8>, Vec<u8>) {
        let mut segments = Vec::with_capacity(self.segments.len() * SEGMENT_USE_BYTES);
        for (slot, amount) in &self.segments {
            segments.extend(slot.to_le_bytes());
            segments.extend(amount.records.to_le_bytes());
            segments.extend(amount.raw_bytes.to_le_bytes());
        }
        let mut live = Vec::with_capacity(self.live.len() * LIVE_SHARE_BYTES);
        for ((slot, collection), amount) in &self.live {
            live.extend(slot.to_le_bytes());
            live.extend(collection.to_le_bytes());
            live.extend(amount.records.to_le_bytes());
            live.extend(amount.raw_bytes.to_le_bytes());
        }
        (segments, live)
    }

    pub(crate) fn decode(segments: &[u8], live: &[u8]) -> Result<Self, Overrun> {
        let mut table = Self::default();
        let mut cursor = Cursor::new(segments);
        while !cursor.rest().is_empty() {
            let slot = cursor.u32()?;
            let amount = Amount { records: cursor.u32()?, raw_bytes: cursor.u64()? };
            table.segments.insert(slot, amount);
        }
        let mut cursor = Cursor::new(live);
        while !cursor.rest().is_empty() {
            let place = (cursor.u32()?, cursor.u32()?);
            let amount = Amount { records: cursor.u32()?, raw_bytes: cursor.u64()? };
            table.live.insert(place, amount);
        }
        Ok(table)
    }
}

/// The slot of a location.
pub(crate) fn slot_of(location: Location, slot_bytes: u32) -> u32 {
    // An index holds locations below 2^47, so the slot fits.
    location.slot(slot_bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> LiveTable {
        let (mut table, mut change) = (LiveTable::default(), LiveChange::default());
        for slot in 0..5 {
            change.add(slot, slot % 2, 100, slot != 3);
            change.add(slot, 1, 50, true);
            change.kill(slot, 1, 50);
        }
        table.apply(&change);
        table
    }

    #[test]
    fn a_table_round_trips_and_no_truncation_within_a_row_decodes() {
        let table = table();
        let (segments, live) = table.encode();
        assert_eq!(LiveTable::decode(&segments, &live), Ok(table.clone()));
        for end in 0..segments.len() {
            let decoded = LiveTable::decode(&segments[..end], &live);
            assert_ne!(decoded, Ok(table.clone()));
            assert_eq!(decoded.is_ok(), end % SEGMENT_USE_BYTES == 0);
        }
        for end in 0..live.len() {
            let decoded = LiveTable::decode(&segments, &live[..end]);
            assert_ne!(decoded, Ok(table.clone()));
            assert_eq!(decoded.is_ok(), end % LIVE_SHARE_BYTES == 0);
        }
    }

    #[test]
    fn what_is_in_use_is_known_by_collection() {
        let mut table = table();
        assert_eq!(table.live_raw_bytes(None), 400);
        assert_eq!((table.live_raw_bytes(Some(0)), table.live_raw_bytes(Some(1))), (300, 100));
        assert_eq!(table.collections(), BTreeSet::from([0, 1]));
        let before = table.clone();
        table.drop_collection(0);
        assert_eq!(table.live_raw_bytes(None), 100);
        assert_eq!(table.differing_slots(&before), [0, 2, 4]);
    }
}
