//! Finds where in a shard's ring the value of a key starts.

use std::sync::atomic::{AtomicU32, Ordering};

use zkv_index::KeyHash;

/// Slots of a bucket: one line of a processor's cache, the one that a look into the table costs.
const SLOTS: usize = 16;
/// The lowest bits of a slot: which of them are set tells how often the value was read lately.
const READ_BITS: u32 = 0b11;
/// Above them, part of the key's hash: of 256 other keys in the bucket, one is looked at for nothing.
const TAG_BITS: u32 = 8;
const TAG_MASK: u32 = (1 << TAG_BITS) - 1;
const TAG_SHIFT: u32 = READ_BITS.count_ones();
/// Above that, one more than the unit in which the value starts: zero is a free slot.
const UNIT_SHIFT: u32 = TAG_SHIFT + TAG_BITS;

/// Units that a table can tell apart.
pub(super) const UNITS_MAX: usize = (1 << (u32::BITS - UNIT_SHIFT)) - 1;
/// What a slot takes.
pub(super) const SLOT_BYTES: usize = size_of::<AtomicU32>();

#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket([AtomicU32; SLOTS]);

/// A key is in the one bucket that its hash names. Where that is full, one of its keys is forgotten, as
/// a cache may.
#[derive(Debug)]
pub(super) struct Table {
    buckets: Box<[Bucket]>,
}

/// How often a value was read lately: not at all, once, or more often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reads(u32);

impl Reads {
    pub(super) const NONE: Self = Self(0);

    /// What is left of them once they have kept the value for another round, if there are any.
    pub(super) fn spend(self) -> Option<Self> {
        (self != Self::NONE).then_some(Self(self.0 >> 1))
    }
}

impl Table {
    /// With at least `slots` slots.
    pub(super) fn new(slots: usize) -> Self {
        Self { buckets: (0..buckets_for(slots)).map(|_| Bucket::default()).collect() }
    }

    /// What one of so many slots takes.
    pub(super) fn bytes_of(slots: usize) -> usize {
        buckets_for(slots) * size_of::<Bucket>()
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }

    pub(super) fn slots(&self) -> usize {
        self.buckets.len() * SLOTS
    }

    /// The first value for which `is_it`, which is asked with its unit, among those that may be of `hash`.
    #[inline]
    pub(super) fn find(&self, hash: KeyHash, is_it: impl Fn(usize) -> bool) -> Option<Listed<'_>> {
        let tag = tag_of(hash);
        self.bucket(hash).0.iter().find_map(|slot| {
            let content = slot.load(Ordering::Relaxed);
            let unit = unit_of(content)?;
            (content >> TAG_SHIFT & TAG_MASK == tag && is_it(unit)).then_some(Listed { slot, unit })
        })
    }

    /// Notes that a value of `hash` starts at `unit`.
    pub(super) fn insert(&mut self, hash: KeyHash, unit: usize, reads: Reads) {
        let slot = self.bucket_mut(hash).iter_mut().map(AtomicU32::get_mut);
        let least = slot.min_by_key(|slot| (**slot != 0, **slot & READ_BITS));
        *least.expect("a bucket has slots") = content_of(hash, unit, reads);
    }

    /// Takes out the value of `hash` that starts at `unit`, unless it was forgotten already.
    pub(super) fn remove(&mut self, hash: KeyHash, unit: usize) -> Option<Reads> {
        let wanted = content_of(hash, unit, Reads::NONE);
        let mut slots = self.bucket_mut(hash).iter_mut().map(AtomicU32::get_mut);
        let slot = slots.find(|slot| **slot & !READ_BITS == wanted)?;
        Some(Reads(std::mem::take(slot) & READ_BITS))
    }

    #[inline]
    fn bucket(&self, hash: KeyHash) -> &Bucket {
        &self.buckets[self.number(hash)]
    }

    fn bucket_mut(&mut self, hash: KeyHash) -> &mut [AtomicU32; SLOTS] {
        let number = self.number(hash);
        &mut self.buckets[number].0
    }

    /// As evenly as the hash, without a division.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "it is below the number of buckets")]
    fn number(&self, hash: KeyHash) -> usize {
        let part = (hash.0 >> 64) & u128::from(u64::MAX);
        ((part * self.buckets.len() as u128) >> 64) as usize
    }
}

fn buckets_for(slots: usize) -> usize {
    slots.div_ceil(SLOTS).max(1)
}

/// A value that is in the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listed<'a> {
    slot: &'a AtomicU32,
    pub unit: usize,
}

impl Listed<'_> {
    /// Counts that it was read.
    #[inline]
    pub(super) fn note_read(self) {
        let content = self.slot.load(Ordering::Relaxed);
        let more = content << 1 & READ_BITS | 1;
        // What stays as it is stays in the caches of all processors.
        if content & READ_BITS != more {
            self.slot.fetch_or(more, Ordering::Relaxed);
        }
    }
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "any bits that no bucket is chosen by will do")]
fn tag_of(hash: KeyHash) -> u32 {
    hash.0 as u32 & TAG_MASK
}

#[inline]
fn unit_of(content: u32) -> Option<usize> {
    (content >> UNIT_SHIFT).checked_sub(1).map(|unit| unit as usize)
}

#[expect(clippy::cast_possible_truncation, reason = "a ring has no more units than UNITS_MAX")]
fn content_of(hash: KeyHash, unit: usize, reads: Reads) -> u32 {
    debug_assert!(unit < UNITS_MAX);
    (unit as u32 + 1) << UNIT_SHIFT | tag_of(hash) << TAG_SHIFT | reads.0
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    fn hash(number: usize) -> KeyHash {
        KeyHash(Rng::with_seed(number as u64).u128(..))
    }

    fn is_there(table: &Table, number: usize) -> bool {
        table.find(hash(number), |found| found == number).is_some()
    }

    #[test]
    fn a_full_bucket_forgets_what_is_read_least() {
        let mut table = Table::new(1);
        for number in 0..SLOTS {
            table.insert(hash(number), number, Reads::NONE);
        }
        for number in (0..SLOTS).filter(|number| *number != 5) {
            table.find(hash(number), |unit| unit == number).unwrap().note_read();
        }
        table.insert(hash(SLOTS), SLOTS, Reads::NONE);
        assert!((0..=SLOTS).all(|number| is_there(&table, number) == (number != 5)));
        assert_eq!(table.remove(hash(5), 5), None);
        assert_eq!(table.remove(hash(SLOTS), SLOTS), Some(Reads::NONE));
    }

    #[test]
    fn reads_are_counted_up_to_two_and_spent_one_by_one() {
        let mut table = Table::new(1);
        for reads in 0..4 {
            table.insert(hash(1), 9, Reads::NONE);
            for _ in 0..reads {
                table.find(hash(1), |_| true).unwrap().note_read();
            }
            let mut left = table.remove(hash(1), 9);
            assert!(!is_there(&table, 9));
            for _ in 0..reads.min(2) {
                left = left.unwrap().spend();
            }
            assert_eq!(left.unwrap().spend(), None, "{reads}");
        }
    }

    #[test]
    fn all_buckets_are_used() {
        let mut table = Table::new(100 * SLOTS);
        for number in 0..800 {
            table.insert(hash(number), number, Reads::NONE);
        }
        let there = (0..800).filter(|number| is_there(&table, *number)).count();
        assert!(there > 780, "{there}");
        let used = table
            .buckets
            .iter()
            .filter(|bucket| bucket.0.iter().any(|slot| slot.load(Ordering::Relaxed) != 0));
        assert!(used.count() > 95);
    }
}
