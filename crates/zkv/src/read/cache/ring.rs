//! Values in the order in which they came, in a ring of bytes.
//!
//! What is read while it is in the ring goes round once more, up to twice for what is read often
//! (the clock of Corbató, "A paging experiment with the Multics system", 1968, over values of any length). To
//! find a value costs one line of the table, and those in which the value stands.

use std::ops::Range;

use zkv_index::KeyHash;

use super::doorkeeper::Doorkeeper;
use super::label::{CheckpointId, PLACE_BYTES, Place};
use super::table::{Listed, Reads, SLOT_BYTES, Table, UNITS_MAX};

/// Values start at multiples of this.
const UNIT_BYTES: usize = 8;
/// One slot of the table for so many bytes of the ring: of shorter values, headers counted, some are
/// forgotten early.
const BYTES_PER_SLOT: usize = 64;
/// A table begins with so many slots, and gets twice as many whenever a quarter of them is taken, so that few of its buckets are
/// full: a cache takes memory for what it holds, whatever it may come to hold.
const SLOTS_AT_FIRST: usize = 64;
/// What a long value takes, as far as the doorkeeper cares.
const LONG_BYTES: usize = 512;
/// No ring is longer.
pub(super) const BYTES_MAX: usize = UNITS_MAX * UNIT_BYTES;
/// What stands before a value: its place, the number of the checkpoint that leads there, and its
/// length.
const PLACE: Range<usize> = 0..PLACE_BYTES;
const LED_BY: Range<usize> = PLACE.end..PLACE.end + size_of::<u64>();
const LENGTH: Range<usize> = LED_BY.end..LED_BY.end + size_of::<u32>();
/// What a value takes besides its own bytes and the rest of its last unit.
const HEADER_BYTES: usize = LENGTH.end;

#[derive(Debug)]
pub(super) struct Ring {
    table: Table,
    slots_max: usize,
    /// Values between `tail` and `head`.
    count: usize,
    /// Grows as values come, up to `bytes_max`.
    bytes: Vec<u8>,
    bytes_max: usize,
    /// Where the oldest value starts.
    tail: usize,
    /// Behind the newest one.
    head: usize,
    /// Behind the last value of the round before, while some of that are left: then `head` is before
    /// `tail`.
    end_before: Option<usize>,
    /// Made when the ring is full: until then, all are let in.
    doorkeeper: Option<Doorkeeper>,
}

impl Ring {
    /// Of at most `bytes_max` bytes with its table and its doorkeeper.
    pub(super) fn new(bytes_max: usize) -> Self {
        let slots_max = bytes_max / (BYTES_PER_SLOT + SLOT_BYTES);
        let others = Table::bytes_of(slots_max) + Doorkeeper::bytes_of(slots_max);
        let bytes_max = bytes_max.saturating_sub(others).min(BYTES_MAX);
        Self {
            table: Table::new(slots_max.min(SLOTS_AT_FIRST)),
            slots_max,
            count: 0,
            bytes: Vec::new(),
            bytes_max,
            tail: 0,
            head: 0,
            end_before: None,
            doorkeeper: None,
        }
    }

    /// Whether a value of this hash may come in.
    pub(super) fn lets_in(&self, hash: KeyHash) -> bool {
        self.doorkeeper.as_ref().is_none_or(|doorkeeper| doorkeeper.has_seen(hash))
    }

    /// How much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        let doorkeeper = self.doorkeeper.as_ref().map_or(0, Doorkeeper::bytes);
        self.table.bytes() + self.bytes.capacity() + doorkeeper
    }

    /// The value at `place`, which counts as read.
    #[inline]
    pub(super) fn get(&self, place: &Place) -> Option<&[u8]> {
        self.read(self.find(place)?)
    }

    /// The value to which the checkpoint `by` leads from `hash`, which counts as read.
    #[inline]
    pub(super) fn get_led(&self, hash: KeyHash, by: CheckpointId) -> Option<&[u8]> {
        let by = by.number().to_ne_bytes();
        self.read(self.table.find(hash, |unit| {
            let header = self.header(unit);
            hash_of(header) == hash && header[LED_BY] == by
        })?)
    }

    /// Notes what leads to the value at `place`, if that is here.
    pub(super) fn relabel(&mut self, place: &Place, led_by: CheckpointId) {
        if let Some(unit) = self.find(place).map(|listed| listed.unit) {
            self.bytes[unit * UNIT_BYTES..][LED_BY].copy_from_slice(&led_by.number().to_ne_bytes());
        }
    }

    /// Keeps a copy of `value`, unless it is longer than the ring.
    pub(super) fn put(&mut self, place: &Place, led_by: Option<CheckpointId>, value: &[u8]) {
        let Ok(length) = u32::try_from(value.len()) else { return };
        let room = whole_units(HEADER_BYTES + value.len());
        if room > self.bytes_max || self.find(place).is_some() {
            return;
        }
        self.make_room(room);
        let entry = &mut self.bytes[self.head..][..room];
        entry[PLACE].copy_from_slice(&place.to_bytes());
        let led_by = led_by.map_or(0, CheckpointId::number);
        entry[LED_BY].copy_from_slice(&led_by.to_ne_bytes());
        entry[LENGTH].copy_from_slice(&length.to_ne_bytes());
        entry[HEADER_BYTES..][..value.len()].copy_from_slice(value);
        self.table.insert(place.hash, self.head / UNIT_BYTES, Reads::NONE);
        self.head += room;
        self.count += 1;
        let slots = self.table.slots();
        if slots < self.slots_max && slots <= 4 * self.count {
            self.grow_table(slots * 2);
        }
        self.grow_doorkeeper();
    }

    /// As many as there are, but no fewer than of `LONG_BYTES`: of longer ones, each makes room for many short ones,
    /// which are to be known then.
    fn values_expected(&self) -> usize {
        self.count.max(self.bytes_max / LONG_BYTES).min(self.slots_max)
    }

    /// One that is for too few values forgets too early. What it knew is forgotten once.
    fn grow_doorkeeper(&mut self) {
        let values = self.values_expected();
        if self.doorkeeper.as_ref().is_some_and(|doorkeeper| values > 2 * doorkeeper.values()) {
            self.doorkeeper = Some(Doorkeeper::new(values));
        }
    }

    /// Puts what the table has into one of more slots.
    fn grow_table(&mut self, slots: usize) {
        let grown = Table::new(slots.min(self.slots_max));
        let mut table = std::mem::replace(&mut self.table, grown);
        let older = self.tail..self.end_before.unwrap_or(self.head);
        let newer = 0..self.end_before.map_or(0, |_| self.head);
        for values in [older, newer] {
            let mut start = values.start;
            while start < values.end {
                let (hash, room) = self.value_at(start);
                let unit = start / UNIT_BYTES;
                if let Some(reads) = table.remove(hash, unit) {
                    self.table.insert(hash, unit, reads);
                }
                start += room;
            }
        }
    }

    /// The hash of the value at `start`, and what it takes.
    fn value_at(&self, start: usize) -> (KeyHash, usize) {
        let header = self.header(start / UNIT_BYTES);
        (hash_of(header), whole_units(HEADER_BYTES + length_of(header)))
    }

    #[inline]
    fn find(&self, place: &Place) -> Option<Listed<'_>> {
        let bytes = place.to_bytes();
        self.table.find(place.hash, |unit| self.header(unit)[PLACE] == bytes)
    }

    #[inline]
    fn read(&self, listed: Listed<'_>) -> Option<&[u8]> {
        listed.note_read();
        let header = self.header(listed.unit);
        self.bytes.get(listed.unit * UNIT_BYTES + HEADER_BYTES..)?.get(..length_of(header))
    }

    #[inline]
    fn header(&self, unit: usize) -> &[u8; HEADER_BYTES] {
        self.bytes[unit * UNIT_BYTES..].first_chunk().expect("a value starts behind its header")
    }

    /// Makes `room` bytes behind `head` free.
    fn make_room(&mut self, room: usize) {
        loop {
            match self.end_before {
                None if self.head + room <= self.bytes_max => {
                    return self.grow_to(self.head + room);
                }
                None => {
                    self.end_before = Some(self.head);
                    self.head = 0;
                    let values = self.values_expected();
                    self.doorkeeper.get_or_insert_with(|| Doorkeeper::new(values));
                }
                Some(_) if self.head + room <= self.tail => return,
                Some(end) if self.tail == end => {
                    self.end_before = None;
                    self.tail = 0;
                }
                Some(_) => self.pass_oldest(),
            }
        }
    }

    /// Makes at least so many bytes of it, of which there may be so many.
    fn grow_to(&mut self, bytes: usize) {
        if bytes > self.bytes.len() {
            let bytes = bytes.max(2 * self.bytes.len()).min(self.bytes_max);
            self.bytes.reserve_exact(bytes - self.bytes.len());
            self.bytes.resize(bytes, 0);
        }
    }

    /// The oldest value goes, or round once more.
    fn pass_oldest(&mut self) {
        let start = self.tail;
        let (hash, room) = self.value_at(start);
        self.tail += room;
        self.count -= 1;
        let reads = self.table.remove(hash, start / UNIT_BYTES);
        if let Some(left) = reads.and_then(Reads::spend) {
            self.bytes.copy_within(start..start + room, self.head);
            self.table.insert(hash, self.head / UNIT_BYTES, left);
            self.head += room;
            self.count += 1;
        }
    }
}

#[inline]
fn hash_of(header: &[u8; HEADER_BYTES]) -> KeyHash {
    KeyHash(u128::from_ne_bytes(*header.first_chunk().expect("a place begins with the hash")))
}

#[inline]
fn length_of(header: &[u8; HEADER_BYTES]) -> usize {
    u32::from_ne_bytes(*header.last_chunk().expect("a header ends with the length")) as usize
}

fn whole_units(bytes: usize) -> usize {
    bytes.next_multiple_of(UNIT_BYTES)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use fastrand::Rng;
    use zkv_index::KeyHash;

    use super::*;

    const RING_BYTES: usize = 8 << 10;

    fn place(key: u64, cell: u64) -> Place {
        let hash = KeyHash(Rng::with_seed(key).u128(..));
        Place { hash, cell: u128::from(cell).to_ne_bytes() }
    }

    fn value(rng: &mut Rng, lengths: Range<usize>) -> Vec<u8> {
        let length = rng.usize(lengths);
        std::iter::repeat_with(|| rng.u8(..)).take(length).collect()
    }

    fn put(ring: &mut Ring, key: u64, value: &[u8]) {
        ring.put(&place(key, 0), None, value);
    }

    #[test]
    fn what_is_found_is_what_was_put_there_under_the_name_that_it_has() {
        for seed in 0..30 {
            let mut rng = Rng::with_seed(seed);
            let longest = [8, 60, 300, 1500][usize::try_from(seed % 4).unwrap()];
            let ids: Vec<_> = (0..3).map(|_| CheckpointId::next()).collect();
            let mut ring = Ring::new(RING_BYTES);
            let mut known: HashMap<(u64, u64), (Vec<u8>, Option<CheckpointId>)> = HashMap::new();
            let mut found = 0;
            for _ in 0..20_000 {
                let (key, cell) = (rng.u64(..200), rng.u64(..2));
                let at = place(key, cell);
                let by = ids[rng.usize(..ids.len())];
                match rng.u8(..4) {
                    0 if ring.get(&at).is_none() => {
                        let (value, led_by) =
                            (value(&mut rng, 0..longest), rng.bool().then_some(by));
                        ring.put(&at, led_by, &value);
                        assert_eq!(ring.get(&at), Some(&value[..]));
                        known.insert((key, cell), (value, led_by));
                    }
                    1 if ring.get(&at).is_some() => {
                        ring.relabel(&at, by);
                        known.get_mut(&(key, cell)).unwrap().1 = Some(by);
                        assert!(ring.get_led(at.hash, by).is_some());
                    }
                    2 => {
                        let Some(value) = ring.get_led(at.hash, by) else { continue };
                        let is_it = |cell| {
                            known
                                .get(&(key, cell))
                                .is_some_and(|known| *known == (value.to_vec(), Some(by)))
                        };
                        assert!(is_it(0) || is_it(1));
                        found += 1;
                    }
                    _ => {
                        let Some(value) = ring.get(&at) else { continue };
                        assert_eq!(*value, *known[&(key, cell)].0);
                        found += 1;
                    }
                }
                assert!(ring.bytes() <= RING_BYTES);
            }
            let is_full = ring.doorkeeper.is_some();
            assert!(found > 100 && is_full, "{found} found with seed {seed}");
        }
    }

    #[test]
    fn the_newest_values_are_there_as_many_as_there_is_room_for() {
        let mut ring = Ring::new(RING_BYTES);
        let values: Vec<_> = (0..1000).map(|key| (key, vec![7; 60])).collect();
        for (key, value) in &values {
            put(&mut ring, *key, value);
        }
        let there: Vec<u64> = (0..1000).filter(|key| ring.get(&place(*key, 0)).is_some()).collect();
        let room = RING_BYTES / (HEADER_BYTES + 60 + UNIT_BYTES);
        assert!(there.len() >= room - room / 8, "{} of {room}", there.len());
        assert!(there.iter().all(|key| *key >= 1000 - 2 * room as u64), "{there:?}");
    }

    #[test]
    fn the_table_grows_with_the_values_and_loses_none_nor_how_often_they_were_read() {
        let mut ring = Ring::new(1 << 20);
        let mut bytes_before = ring.bytes();
        assert!(bytes_before <= 2 * SLOTS_AT_FIRST * SLOT_BYTES, "{bytes_before}");
        for key in 0..5000 {
            put(&mut ring, key, &[3; 84]);
            if key < 100 {
                assert!(ring.get(&place(key, 0)).is_some());
            }
            let bytes = ring.bytes();
            assert!(bytes >= bytes_before && bytes <= 1000 + 300 * (ring.count + 1), "{bytes}");
            bytes_before = bytes;
        }
        let there = (0..5000).filter(|key| ring.find(&place(*key, 0)).is_some()).count();
        assert!(there > 4990, "{there}");
        // What was read goes round once more.
        for key in 5000..12_000 {
            put(&mut ring, key, &[4; 84]);
        }
        assert!((0..100).filter(|key| ring.get(&place(*key, 0)).is_some()).count() > 95);
        assert!(ring.doorkeeper.is_some() && ring.get(&place(200, 0)).is_none());
    }

    #[test]
    fn what_is_read_between_outlives_what_is_not() {
        let mut ring = Ring::new(RING_BYTES);
        for key in 0..10 {
            put(&mut ring, key, &[1; 60]);
        }
        for other in 100..2000 {
            put(&mut ring, other, &[2; 60]);
            if other % 30 == 0 {
                assert!((0..5).all(|key| ring.get(&place(key, 0)).is_some()));
            }
        }
        assert!((0..5).all(|key| ring.get(&place(key, 0)).is_some()));
        assert!((5..10).all(|key| ring.get(&place(key, 0)).is_none()));
    }

    #[test]
    fn what_is_longer_than_the_ring_is_left_out_and_nothing_goes_for_it() {
        for bytes in [0, 1, 63, 64, 200, RING_BYTES] {
            let mut ring = Ring::new(bytes);
            put(&mut ring, 1, &[1]);
            let is_there = ring.get(&place(1, 0)).is_some();
            assert_eq!(is_there, bytes >= 200, "{bytes}");
            put(&mut ring, 2, &vec![2; bytes]);
            assert_eq!(ring.get(&place(1, 0)).is_some(), is_there);
            assert_eq!(ring.get(&place(2, 0)), None);
        }
    }

    #[test]
    fn the_longest_ring_uses_all_of_its_bytes() {
        let mut ring = Ring::new(BYTES_MAX + BYTES_MAX / 8);
        assert_eq!(ring.bytes_max, BYTES_MAX);
        let value = vec![3; 1 << 20];
        for key in 0..100 {
            put(&mut ring, key, &value);
            assert!(ring.get(&place(key, 0)).is_some_and(|found| *found == value));
        }
    }
}
