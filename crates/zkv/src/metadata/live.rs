//! How much of each segment is still in use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use zkv_io::{Cursor, Overrun};
use zkv_log::{Location, LogView, SegmentParts};
use zkv_record::{Kind, Record};

use crate::layout::{LIVE_SHARE_BYTES, SEGMENT_USE_BYTES};
use crate::metadata::known::KnownSegments;

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

/// What of a segment is in use by one collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Share {
    amount: Amount,
    /// Where in the segment it stands, and what was in use before.
    parts: SegmentParts,
}

/// What live records of a collection take, as [`CollectionInfo`](crate::CollectionInfo) tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CollectionBytes {
    pub raw_bytes: u64,
    pub live_bytes: u64,
}

/// Where a record stands, as the table knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub slot: u32,
    pub parts: SegmentParts,
}

/// What every segment holds, by slot; and what of it is in use, by slot and collection. A segment that
/// was cleaned is not in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct LiveTable {
    segments: BTreeMap<u32, SegmentUse>,
    live: BTreeMap<(u32, u32), Share>,
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

impl Place {
    pub(crate) fn of(location: Location, slot_bytes: u32) -> Self {
        let parts = SegmentParts::of(location, slot_bytes);
        Self { slot: slot_of(location, slot_bytes), parts }
    }
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

impl Share {
    fn add(&mut self, other: Self) {
        self.amount.add(other.amount);
        self.parts = self.parts.union(other.parts);
    }
}

impl LiveChange {
    /// Notes a record of `collection` that was written to `place`, and is in use where it is no mark.
    pub(crate) fn add(&mut self, place: Place, collection: u32, weight: Weight) {
        self.added.add(place.slot, weight);
        if let Weight::Value(raw_bytes) = weight {
            self.added.add_live(place, collection, raw_bytes);
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
        for (of @ (slot, collection), share) in &change.added.live {
            KnownSegments::add(&mut self.known, *slot, *collection, share.parts);
            self.live.entry(*of).or_default().add(*share);
        }
        for (of, amount) in &change.killed {
            if let Some(live) = self.live.get_mut(of) {
                live.amount.subtract(*amount);
                if live.amount == Amount::default() {
                    self.live.remove(of);
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
            let is_untouched = used.values.records == self.live_in(*slot).records;
            let shares = self.live.range((*slot, 0)..=(*slot, u32::MAX));
            (*slot, is_untouched, shares.map(|((_, collection), share)| (*collection, share.parts)))
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

    /// What of the segment in `slot` is in use.
    pub(crate) fn live_in(&self, slot: u32) -> Amount {
        let mut sum = Amount::default();
        let rows = self.live.range((slot, 0)..=(slot, u32::MAX));
        rows.for_each(|(_, share)| sum.add(share.amount));
        sum
    }

    /// Notes that a record counted before is in use.
    pub(crate) fn add_live(&mut self, place: Place, collection: u32, raw_bytes: u64) {
        let share = Share { amount: Amount::of_one(raw_bytes), parts: place.parts };
        self.live.entry((place.slot, collection)).or_default().add(share);
    }

    /// Notes that nothing of `collection` is in use any longer, nor ever will be.
    pub(crate) fn drop_collection(&mut self, collection: u32) {
        self.live.retain(|(_, of), _| *of != collection);
        KnownSegments::drop_collection(&mut self.known, collection);
    }

    /// The collections of which something is, or once was, in use.
    pub(crate) fn collections(&self) -> BTreeSet<u32> {
        let in_use = self.live.keys().map(|(_, collection)| *collection);
        in_use.chain(self.known.collections()).collect()
    }

    /// The slots of which `other` says something else, or does not know all parts in which something is in use.
    pub(crate) fn differing_slots(&self, other: &Self) -> Vec<u32> {
        let live_of = |table: &Self, slot: u32| -> Vec<(u32, Share)> {
            let rows = table.live.range((slot, 0)..=(slot, u32::MAX));
            rows.map(|((_, collection), share)| (*collection, *share)).collect()
        };
        let is_told = |(one, two): (&(u32, Share), &(u32, Share))| {
            (one.0, one.1.amount) == (two.0, two.1.amount) && two.1.parts.contains(one.1.parts)
        };
        // One that only one of them takes for cleaned is the same as long as nothing of it lives.
        let differs = |slot: u32| {
            let (one, two) = (self.segments.get(&slot), other.segments.get(&slot));
            let (one_live, two_live) = (live_of(self, slot), live_of(other, slot));
            one_live.len() != two_live.len()
                || !one_live.iter().zip(&two_live).all(is_told)
                || (one.is_some() && two.is_some() && one != two)
        };
        let slots: BTreeSet<u32> = [self, other]
            .into_iter()
            .flat_map(|table| {
                table.segments.keys().copied().chain(table.live.keys().map(|of| of.0))
            })
            .collect();
        slots.into_iter().filter(|slot| differs(*slot)).collect()
    }

    /// Live keys and values, before compression.
    pub(crate) fn live_raw_bytes(&self) -> u64 {
        self.live.values().fold(0, |sum, share| sum.saturating_add(share.amount.raw_bytes))
    }

    /// The bytes of the data file that live records take: of each segment the live share.
    pub(crate) fn live_data_bytes(&self, log: &LogView) -> u64 {
        let live = log.segments().into_iter().map(|segment| {
            let whole = self.segments.get(&segment.slot).map_or(0, SegmentUse::weight);
            share_of(u64::from(segment.data_bytes), self.live_in(segment.slot).weight(), whole)
        });
        live.fold(0, u64::saturating_add)
    }

    /// What live records of each collection take before compression, and of the data file.
    pub(crate) fn by_collection(&self, log: &LogView) -> BTreeMap<u32, CollectionBytes> {
        let data_bytes = log.segments().into_iter();
        let data_bytes: BTreeMap<u32, u32> =
            data_bytes.map(|segment| (segment.slot, segment.data_bytes)).collect();
        let mut sums: BTreeMap<u32, CollectionBytes> = BTreeMap::new();
        for ((slot, collection), share) in &self.live {
            let whole = self.segments.get(slot).map_or(0, SegmentUse::weight);
            let bytes = data_bytes.get(slot).copied().unwrap_or(0);
            let live = share_of(u64::from(bytes), share.amount.weight(), whole);
            let sum = sums.entry(*collection).or_default();
            sum.raw_bytes = sum.raw_bytes.saturating_add(share.amount.raw_bytes);
            sum.live_bytes = sum.live_bytes.saturating_add(live);
        }
        sums
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
        for ((slot, collection), Share { amount, parts }) in &self.live {
            live.extend(slot.to_le_bytes());
            live.extend(collection.to_le_bytes());
            live.extend(amount.records.to_le_bytes());
            live.extend(amount.raw_bytes.to_le_bytes());
            live.extend(parts.bits().to_le_bytes());
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
            let of = (cursor.u32()?, cursor.u32()?);
            let amount = Amount { records: cursor.u32()?, raw_bytes: cursor.u64()? };
            let parts = SegmentParts::from_bits(cursor.u64()?);
            table.live.insert(of, Share { amount, parts });
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
mod tests;
