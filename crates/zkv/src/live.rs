//! How much of each segment is still in use.

use std::collections::{BTreeMap, BTreeSet};

use zkv_io::{Cursor, Overrun};
use zkv_log::{Location, LogView};
use zkv_record::{Kind, Record};

use crate::layout::SEGMENT_USE_BYTES;

/// The index checkpoint's section that holds the table.
pub(crate) const SECTION: u32 = 2;

/// What a segment's records amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SegmentUse {
    pub records: u32,
    pub live_records: u32,
    /// Bytes of keys and values, before compression.
    pub raw_bytes: u64,
    pub live_raw_bytes: u64,
}

/// The use of every segment, by slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LiveTable {
    by_slot: BTreeMap<u32, SegmentUse>,
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

impl LiveTable {
    /// Notes a record that was written to `slot`.
    pub(crate) fn add(&mut self, slot: u32, raw_bytes: u64, is_live: bool) {
        let entry = self.by_slot.entry(slot).or_default();
        entry.records = entry.records.saturating_add(1);
        // A forged index may hold any number.
        entry.raw_bytes = entry.raw_bytes.saturating_add(raw_bytes);
        if is_live {
            self.add_live(slot, raw_bytes);
        }
    }

    /// Notes that a record counted before is in use.
    pub(crate) fn add_live(&mut self, slot: u32, raw_bytes: u64) {
        let entry = self.by_slot.entry(slot).or_default();
        entry.live_records = entry.live_records.saturating_add(1);
        entry.live_raw_bytes = entry.live_raw_bytes.saturating_add(raw_bytes);
    }

    /// Notes that a record in `slot` is superseded.
    pub(crate) fn kill(&mut self, slot: u32, raw_bytes: u64) {
        let entry = self.by_slot.entry(slot).or_default();
        entry.live_records = entry.live_records.saturating_sub(1);
        entry.live_raw_bytes = entry.live_raw_bytes.saturating_sub(raw_bytes);
    }

    /// The slots of which `other` says something else.
    pub(crate) fn differing_slots(&self, other: &Self) -> Vec<u32> {
        let slots: BTreeSet<u32> =
            self.by_slot.keys().chain(other.by_slot.keys()).copied().collect();
        let entry = |table: &Self, slot: &u32| table.by_slot.get(slot).copied().unwrap_or_default();
        slots.into_iter().filter(|slot| entry(self, slot) != entry(other, slot)).collect()
    }

    /// Live keys and values of all segments, before compression.
    pub(crate) fn live_raw_bytes(&self) -> u64 {
        self.by_slot.values().fold(0, |sum, entry| sum.saturating_add(entry.live_raw_bytes))
    }

    /// The bytes of the data file that live records take: of each segment its live share.
    pub(crate) fn live_data_bytes(&self, log: &LogView) -> u64 {
        let live = log.segments().into_iter().map(|segment| {
            let entry = self.by_slot.get(&segment.slot).copied().unwrap_or_default();
            let whole = u128::from(entry.raw_bytes.max(1));
            let live = u128::from(segment.data_bytes) * u128::from(entry.live_raw_bytes) / whole;
            u64::try_from(live).unwrap_or(u64::MAX)
        });
        live.fold(0, u64::saturating_add)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.by_slot.len() * SEGMENT_USE_BYTES);
        for (slot, entry) in &self.by_slot {
            bytes.extend(slot.to_le_bytes());
            bytes.extend(entry.records.to_le_bytes());
            bytes.extend(entry.live_records.to_le_bytes());
            bytes.extend(entry.raw_bytes.to_le_bytes());
            bytes.extend(entry.live_raw_bytes.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Overrun> {
        let mut cursor = Cursor::new(bytes);
        let mut by_slot = BTreeMap::new();
        while !cursor.rest().is_empty() {
            let slot = cursor.u32()?;
            let entry = SegmentUse {
                records: cursor.u32()?,
                live_records: cursor.u32()?,
                raw_bytes: cursor.u64()?,
                live_raw_bytes: cursor.u64()?,
            };
            by_slot.insert(slot, entry);
        }
        Ok(Self { by_slot })
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

    #[test]
    fn a_table_round_trips_and_no_truncation_within_a_row_decodes() {
        let mut table = LiveTable::default();
        for slot in 0..5 {
            table.add(slot, 100, slot != 3);
            table.add(slot, 50, true);
            table.kill(slot, 50);
        }
        let bytes = table.encode();
        assert_eq!(LiveTable::decode(&bytes), Ok(table.clone()));
        for end in 0..bytes.len() {
            assert_ne!(LiveTable::decode(&bytes[..end]), Ok(table.clone()));
            assert_eq!(LiveTable::decode(&bytes[..end]).is_ok(), end % SEGMENT_USE_BYTES == 0);
        }
        assert_eq!(table.live_raw_bytes(), 400);
    }
}
