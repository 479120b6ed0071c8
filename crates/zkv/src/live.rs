//! How much of each segment is still in use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use zkv_io::{Cursor, Overrun};
use zkv_log::{Location, LogView};
use zkv_record::{Kind, Record};

use crate::known::KnownSegments;
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

/// What a segment holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SegmentUse {
    pub values: Amount,
    pub marks: Amount,
}

/// What every segment holds, by slot; and what of it is in use, by slot and collection. A segment that
/// was cleaned is not in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct LiveTable {
    segments: BTreeMap<u32, SegmentUse>,
    live: BTreeMap<(u32, u32), Amount>,
    known: Arc<KnownSegments>,
}

/// What a record is to the table.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Weight {
    /// The bytes of its key and value.
    Value(u64),
    /// The bytes of the record.
    Mark(u64),
}

/// What a commit does to the table.
#[derive(Debug, Default)]
pub(crate) struct LiveChange {
    added: LiveTable,
    killed: BTreeMap<(u32, u32), Amount>,
}

impl Weight {
    pub(crate) fn of(record: &Record<'_>) -> Self {
        if record.is_mark() {
            Self::Mark(record.encoded_bytes() as u64)
        } else {
            Self::Value(raw_bytes(record))
        }
    }
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

impl SegmentUse {
    fn add(&mut self, weight: Weight) {
        match weight {
            Weight::Value(bytes) => self.values.add(Amount::of_one(bytes)),
            Weight::Mark(bytes) => self.marks.add(Amount::of_one(bytes)),
        }
    }

    fn add_all(&mut self, other: &Self) {
        self.values.add(other.values);
        self.marks.add(other.marks);
    }

    /// How many there are of either.
    pub(crate) fn records(&self) -> u64 {
        u64::from(self.values.records) + u64::from(self.marks.records)
    }

    /// Of all that the segment holds, in the measure of [`Amount::weight`].
    pub(crate) fn weight(&self) -> u64 {
        self.values.weight().saturating_add(self.marks.weight())
    }
}

impl Amount {
    /// What it takes in a segment, before compression: a record without a byte takes some, too.
    pub(crate) fn weight(self) -> u64 {
        const RECORD_BYTES: u64 = 4; // Flags, the key's length, its entry's place in the block.
        self.raw_bytes.saturating_add(u64::from(self.records) * RECORD_BYTES)
    }

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
    /// Notes a record of `collection` that was written to `slot`, and is in use where it is no mark.
    pub(crate) fn add(&mut self, slot: u32, collection: u32, weight: Weight) {
        self.added.add(slot, weight);
        if let Weight::Value(raw_bytes) = weight {
            self.added.add_live(slot, collection, raw_bytes);
        }
    }

    /// Notes that a record in `slot` is superseded, or may be.
    pub(crate) fn kill(&mut self, slot: u32, collection: u32, raw_bytes: u64) {
        self.killed.entry((slot, collection)).or_default().add(Amount::of_one(raw_bytes));
    }
}

impl LiveTable {
    pub(crate) fn apply(&mut self, change: &LiveChange) {
        for (slot, added) in &change.added.segments {
            if !self.segments.contains_key(slot) {
                KnownSegments::begin(&mut self.known, *slot);
            }
            self.segments.entry(*slot).or_default().add_all(added);
        }
        for (slot, _) in change.killed.keys() {
            KnownSegments::touch(&mut self.known, *slot);
        }
        for (place @ (slot, collection), amount) in &change.added.live {
            KnownSegments::add(&mut self.known, *slot, *collection);
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
    pub(crate) fn add(&mut self, slot: u32, weight: Weight) {
        self.segments.entry(slot).or_default().add(weight);
    }

    /// What is known of the segments: to be asked once all that was added is.
    pub(crate) fn known(&self) -> Arc<KnownSegments> {
        Arc::clone(&self.known)
    }

    /// Finds out what is known of the segments by what they hold, and hold still.
    ///
    /// A share stays as long as something of the collection is in use: what was killed because it may
    /// have been superseded has left its bytes in there.
    pub(crate) fn learn_segments(&mut self) {
        let known = self.segments.iter().map(|(slot, used)| {
            let is_untouched = used.values.records == self.live_in(*slot, None).records;
            let shares = self.live.range((*slot, 0)..=(*slot, u32::MAX));
            (*slot, is_untouched, shares.map(|((_, collection), _)| *collection).collect())
        });
        self.known = Arc::new(KnownSegments::of(known));
    }

    /// Forgets a segment of which nothing is needed any longer.
    pub(crate) fn forget(&mut self, slot: u32) {
        KnownSegments::forget(&mut self.known, slot);
        self.segments.remove(&slot);
        self.live.retain(|(of, _), _| *of != slot);
    }

    /// What the segment in `slot` holds; `None` where it was cleaned, or never held a record.
    pub(crate) fn segment(&self, slot: u32) -> Option<&SegmentUse> {
        self.segments.get(&slot)
    }

    /// Whether segments besides those in `slots` hold records and were not cleaned.
    pub(crate) fn has_others(&self, slots: impl Iterator<Item = u32>) -> bool {
        let slots: BTreeSet<u32> = slots.collect();
        self.segments.keys().any(|slot| !slots.contains(slot))
    }

    /// What of the segment in `slot` is in use, of `collection` or of all.
    pub(crate) fn live_in(&self, slot: u32, collection: Option<u32>) -> Amount {
        let rows = self.live.range((slot, 0)..=(slot, u32::MAX));
        let mut sum = Amount::default();
        rows.filter(|((_, of), _)| collection.is_none_or(|one| one == *of))
            .for_each(|(_, amount)| sum.add(*amount));
        sum
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
        // One that only one of them takes for cleaned is the same as long as nothing of it lives.
        let differs = |slot: u32| {
            let (one, two) = (self.segments.get(&slot), other.segments.get(&slot));
            live_of(self, slot) != live_of(other, slot)
                || (one.is_some() && two.is_some() && one != two)
        };
        let slots: BTreeSet<u32> = [self, other]
            .into_iter()
            .flat_map(|table| {
                table.segments.keys().copied().chain(table.live.keys().map(|at| at.0))
            })
            .collect();
        slots.into_iter().filter(|slot| differs(*slot)).collect()
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
            let whole = self.segments.get(&segment.slot).map_or(0, SegmentUse::weight);
            let live = self.live_in(segment.slot, collection).weight();
            share_of(u64::from(segment.data_bytes), live, whole)
        });
        live.fold(0, u64::saturating_add)
    }

    /// The two sections: segments, and what of them is in use.
    pub(crate) fn encode(&self) -> (Vec<u8>, Vec<u8>) {
        let mut segments = Vec::with_capacity(self.segments.len() * SEGMENT_USE_BYTES);
        for (slot, SegmentUse { values, marks }) in &self.segments {
            segments.extend(slot.to_le_bytes());
            segments.extend(values.records.to_le_bytes());
            segments.extend(values.raw_bytes.to_le_bytes());
            segments.extend(marks.records.to_le_bytes());
            segments.extend(marks.raw_bytes.to_le_bytes());
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
            let values = Amount { records: cursor.u32()?, raw_bytes: cursor.u64()? };
            let marks = Amount { records: cursor.u32()?, raw_bytes: cursor.u64()? };
            table.segments.insert(slot, SegmentUse { values, marks });
        }
        let mut cursor = Cursor::new(live);
        while !cursor.rest().is_empty() {
            let place = (cursor.u32()?, cursor.u32()?);
            let amount = Amount { records: cursor.u32()?, raw_bytes: cursor.u64()? };
            table.live.insert(place, amount);
        }
        table.learn_segments();
        Ok(table)
    }
}

/// `part` of `whole`, as a share of `bytes`.
pub(crate) fn share_of(bytes: u64, part: u64, whole: u64) -> u64 {
    let share = u128::from(bytes) * u128::from(part) / u128::from(whole.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
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
            let weight = if slot == 3 { Weight::Mark(100) } else { Weight::Value(100) };
            change.add(slot, slot % 2, weight);
            change.add(slot, 1, Weight::Value(50));
            change.kill(slot, 1, 50);
        }
        table.apply(&change);
        table
    }

    #[test]
    fn a_table_round_trips_and_no_truncation_within_a_row_decodes() {
        let (segments, live) = table().encode();
        let decode = |segments, live| LiveTable::decode(segments, live).map(|table| table.encode());
        assert_eq!(decode(&segments, &live), Ok((segments.clone(), live.clone())));
        for end in 0..segments.len() {
            let decoded = decode(&segments[..end], &live);
            assert_ne!(decoded, Ok((segments.clone(), live.clone())));
            assert_eq!(decoded.is_ok(), end % SEGMENT_USE_BYTES == 0);
        }
        for end in 0..live.len() {
            let decoded = decode(&segments, &live[..end]);
            assert_ne!(decoded, Ok((segments.clone(), live.clone())));
            assert_eq!(decoded.is_ok(), end % LIVE_SHARE_BYTES == 0);
        }
    }

    #[test]
    fn a_segment_is_untouched_until_something_of_it_is_superseded_or_it_is_forgotten() {
        let mut table = LiveTable::default();
        let apply = |table: &mut LiveTable, kills: &[u32]| {
            let mut change = LiveChange::default();
            for slot in 0..4 {
                change.add(slot, 0, Weight::Value(10));
                change.add(slot, 0, Weight::Mark(10));
            }
            kills.iter().for_each(|slot| change.kill(*slot, 0, 10));
            table.apply(&change);
        };
        let untouched = |table: &LiveTable| -> Vec<u32> {
            let mut found = table.clone();
            found.learn_segments();
            let [known, found] = [table.known(), found.known()];
            let untouched = (0..5).filter(|slot| known.is_untouched(*slot)).collect();
            assert!((0..5).all(|slot| known.is_untouched(slot) == found.is_untouched(slot)));
            untouched
        };
        apply(&mut table, &[]);
        let before = table.known();
        assert_eq!(untouched(&table), [0, 1, 2, 3]);
        apply(&mut table, &[1]);
        assert_eq!(untouched(&table), [0, 2, 3]);
        apply(&mut table, &[1, 2]);
        assert_eq!(untouched(&table), [0, 3]);
        table.forget(0);
        assert_eq!(untouched(&table), [3]);
        // Another segment fills the slot.
        apply(&mut table, &[]);
        assert_eq!(untouched(&table), [0, 3]);
        assert!((0..4).all(|slot| before.is_untouched(slot)), "who saw it before sees it still");
    }

    #[test]
    fn a_segment_lacks_a_collection_until_something_of_it_is_added() {
        let (mut table, mut change) = (LiveTable::default(), LiveChange::default());
        change.add(0, 20, Weight::Value(10));
        change.add(1, 21, Weight::Mark(10));
        table.apply(&change);
        let lacks = |table: &LiveTable, slot| {
            let known = table.known();
            [20, 21].map(|collection| known.lacks(slot, collection))
        };
        assert_eq!((lacks(&table, 0), lacks(&table, 1)), ([false, true], [true, true]));
        assert_eq!(lacks(&table, 2), [false, false], "nothing is known of it");

        // Another thread's commit adds the first record of a collection and kills the last of another.
        let (before, mut change) = (table.known(), LiveChange::default());
        change.add(1, 21, Weight::Value(10));
        change.kill(0, 20, 10);
        table.apply(&change);
        assert!(before.lacks(1, 21), "who saw it before sees it still");
        assert_eq!((lacks(&table, 0), lacks(&table, 1)), ([false, true], [true, false]));
        table.learn_segments();
        assert_eq!((lacks(&table, 0), lacks(&table, 1)), ([true, true], [true, false]));
        table.forget(1);
        assert_eq!(lacks(&table, 1), [false, false]);
    }

    #[test]
    fn a_collection_of_which_something_may_be_superseded_is_not_lacked() {
        let (mut table, mut change) = (LiveTable::default(), LiveChange::default());
        for _ in 0..2 {
            change.add(0, 20, Weight::Value(10));
        }
        // Of one that cannot be read, it is not known whether it is superseded, nor how long it is.
        change.kill(0, 20, 0);
        change.kill(0, 20, 10);
        table.apply(&change);
        table.learn_segments();
        assert!(!table.known().lacks(0, 20));
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
