//! A hash table of numbers that one thread fills while others look things up.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

use zkv_index::KeyHash;

use crate::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Slots of the first table; each further one has twice as many as the one before it, whether that was made or not.
const FIRST_SLOTS: usize = 512;
const TABLES: usize = 22;
/// A table has at least this many slots for each number: longer searches cost more than memory.
const SLOTS_PER_NUMBER: usize = 2;

/// Leads from hashes to numbers. Open addressing with linear probing, from the slot that the hash's
/// first bits name: the slots' order is nearly that of the hashes.
///
/// A table that is full is followed by a larger one, and stays as it is, for those who are reading
/// it: together the older ones take as much memory as the newest.
pub(super) struct Slots {
    tables: [OnceLock<Box<[AtomicU64]>>; TABLES],
    newest: AtomicUsize,
    used: AtomicU32,
}

impl Slots {
    /// An empty table with room for `count` numbers.
    pub(super) fn with_room_for(count: usize) -> Self {
        let newest = (0..TABLES - 1).find(|table| count * SLOTS_PER_NUMBER <= FIRST_SLOTS << table);
        Self {
            tables: [const { OnceLock::new() }; TABLES],
            newest: AtomicUsize::new(newest.unwrap_or(0)),
            used: AtomicU32::new(0),
        }
    }

    /// How many hashes have a number.
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Acquire) as usize
    }

    /// The memory that its tables take.
    pub(super) fn bytes(&self) -> usize {
        let tables = self.tables.iter().filter_map(OnceLock::get);
        tables.map(|table| table.len() * size_of::<AtomicU64>()).sum()
    }

    #[cfg(test)]
    pub(super) fn table_count(&self) -> usize {
        self.tables.iter().filter_map(OnceLock::get).count()
    }

    /// The number of `hash`, which is one that `is_it` agrees to.
    #[inline]
    pub(super) fn find(&self, hash: KeyHash, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let slots = self.tables[self.newest.load(Ordering::Acquire)].get()?;
        for slot in from_home(slots, hash) {
            let value = slot.load(Ordering::Acquire);
            let number = number_in(value)?;
            if value >> 32 == tag(hash) && is_it(number) {
                return Some(number);
            }
        }
        None
    }

    /// Gives `hash` the number `number`, in the place of `before`, which is what [`Slots::find`]
    /// found for it. Only one thread at a time may. `hash_of` knows the hashes of all numbers.
    pub(super) fn put(
        &self,
        hash: KeyHash,
        number: u32,
        before: Option<u32>,
        hash_of: impl Fn(u32) -> KeyHash,
    ) {
        if before.is_none() {
            let used = self.used.load(Ordering::Relaxed) + 1;
            self.make_room(used as usize, hash_of);
            self.used.store(used, Ordering::Release);
        }
        if let Some(slots) = self.tables[self.newest.load(Ordering::Relaxed)].get() {
            put_into(slots, hash, number, before);
        }
    }

    /// Makes the newest table, or the next one that has it, where there is no room for `count` numbers.
    fn make_room(&self, count: usize, hash_of: impl Fn(u32) -> KeyHash) {
        let newest = self.newest.load(Ordering::Relaxed);
        let has_room =
            |table: &usize| count.saturating_mul(SLOTS_PER_NUMBER) <= FIRST_SLOTS << *table;
        let wanted = (newest..TABLES).find(has_room).unwrap_or(TABLES - 1);
        let full = self.tables[newest].get();
        if full.is_some() && wanted == newest {
            return;
        }
        let larger = new_table(wanted);
        for slot in full.into_iter().flatten() {
            if let Some(number) = number_in(slot.load(Ordering::Relaxed)) {
                put_into(&larger, hash_of(number), number, None);
            }
        }
        let _ = self.tables[wanted].set(larger);
        self.newest.store(wanted, Ordering::Release);
    }

    /// Makes room for so many more numbers at once. Whoever puts many in the order of their hashes needs that:
    /// in a table that is still small, all of them would have their homes at its beginning, and each would be
    /// searched for past all that came before.
    pub(super) fn reserve(&self, more: usize, hash_of: impl Fn(u32) -> KeyHash) {
        self.make_room(self.used().saturating_add(more), hash_of);
    }

    /// Shows all numbers to `each`, nearly in the order of their hashes.
    pub(super) fn for_each(&self, each: impl FnMut(u32)) {
        let Some(slots) = self.tables[self.newest.load(Ordering::Acquire)].get() else { return };
        let numbers = slots.iter().filter_map(|slot| number_in(slot.load(Ordering::Acquire)));
        numbers.for_each(each);
    }
}

fn new_table(table: usize) -> Box<[AtomicU64]> {
    (0..FIRST_SLOTS << table).map(|_| AtomicU64::new(0)).collect()
}

/// Lets the first slot that is free, or holds `before`, hold `number`.
fn put_into(slots: &[AtomicU64], hash: KeyHash, number: u32, before: Option<u32>) {
    for slot in from_home(slots, hash) {
        let found = number_in(slot.load(Ordering::Relaxed));
        if found.is_none() || found == before {
            slot.store(tag(hash) << 32 | (u64::from(number) + 1), Ordering::Release);
            return;
        }
    }
}

/// All slots, in the order in which a hash's are searched. At least half of them are free.
#[inline]
fn from_home(slots: &[AtomicU64], hash: KeyHash) -> impl Iterator<Item = &AtomicU64> {
    let (before, behind) = slots.split_at(home(hash, slots.len()));
    behind.iter().chain(before)
}

/// The first bits of a hash.
#[inline]
fn home(hash: KeyHash, slot_count: usize) -> usize {
    (hash.0 >> (u128::BITS - slot_count.trailing_zeros())) as usize
}

/// The last bits of a hash, which rule most others out without a look at them.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the last bits are what is wanted")]
fn tag(hash: KeyHash) -> u64 {
    u64::from(hash.0 as u32)
}

/// What a slot holds; `None` where it is free.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the last bits are what is wanted")]
fn number_in(slot: u64) -> Option<u32> {
    (slot as u32).checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hashes of which some begin alike, and some are at the end of all.
    fn hashes() -> Vec<KeyHash> {
        let mut hash = 1u128;
        let mut next = |number: u128| {
            hash = hash.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645).wrapping_add(1);
            match number % 64 {
                0 => KeyHash(hash | u128::MAX << 100),
                1 => KeyHash(hash >> 40),
                _ => KeyHash(hash),
            }
        };
        (0..5000).map(&mut next).collect()
    }

    #[test]
    fn numbers_are_found_while_the_table_grows_and_replaced_in_their_place() {
        let hashes = hashes();
        for room in [0, hashes.len()] {
            let slots = Slots::with_room_for(room);
            let find = |slots: &Slots, hash: KeyHash, of: &[KeyHash]| {
                slots.find(hash, |number| of[number as usize % of.len()] == hash)
            };
            let of = |number: u32| hashes[number as usize % hashes.len()];
            for (number, hash) in (0..).zip(&hashes) {
                assert_eq!(find(&slots, *hash, &hashes), None);
                slots.put(*hash, number, None, of);
                assert_eq!(find(&slots, *hash, &hashes), Some(number));
            }
            let count = u32::try_from(hashes.len()).unwrap();
            for (number, hash) in (0..).zip(&hashes) {
                assert_eq!(find(&slots, *hash, &hashes), Some(number));
                slots.put(*hash, number + count, Some(number), of);
                assert_eq!(find(&slots, *hash, &hashes), Some(number + count));
            }
            assert_eq!(slots.used(), hashes.len());
        }
    }

    /// How far the number that is furthest from its hash's home lies behind it.
    fn furthest(slots: &Slots, hashes: &[KeyHash]) -> usize {
        let table = slots.tables[slots.newest.load(Ordering::Acquire)].get().unwrap();
        let numbers = table.iter().map(|slot| number_in(slot.load(Ordering::Acquire)));
        let distances = numbers.enumerate().filter_map(|(place, number)| {
            let home = home(hashes[number? as usize], table.len());
            Some((place + table.len() - home) % table.len())
        });
        distances.max().unwrap_or(0)
    }

    #[test]
    fn many_hashes_in_their_order_lie_near_their_homes_where_room_was_made() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut hashes: Vec<KeyHash> = (0..20_000).map(|_| KeyHash(random.u128(..))).collect();
        // Some were there before.
        hashes[100..].sort();
        for before in [0, 100] {
            let (slots, of) = (Slots::with_room_for(0), |number: u32| hashes[number as usize]);
            for (number, hash) in (0..).zip(&hashes) {
                if number as usize == before {
                    slots.reserve(hashes.len() - before, of);
                }
                slots.put(*hash, number, None, of);
                if number.is_multiple_of(500) {
                    let furthest = furthest(&slots, &hashes);
                    assert!(furthest < 50, "{furthest} behind its home, of {number}");
                }
            }
            for (number, hash) in (0..).zip(&hashes) {
                assert_eq!(slots.find(*hash, |number| of(number) == *hash), Some(number));
            }
        }
    }
}
