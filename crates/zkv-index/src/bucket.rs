//! One bucket: entries packed into 62 bytes, and 16 check bits.

use zkv_io::crc32c;

use crate::geometry::Geometry;
use crate::key::Location;
use crate::layout::{BUCKET, Field};

/// A bucket fills one cache line.
pub(crate) const BUCKET_BYTES: usize = 64;
const CHECK: Field = Field::of(BUCKET, "check");
/// What is stored where the check comes to zero: the least number that is not the exclusive or of one,
/// two or three flips' syndromes, so that those are still seen. The tests prove it.
const CHECK_OF_ZERO: u16 = 0x00A5;

/// Whether an entry adds a location or takes an older one away.
///
/// As wide as what it stands beside, because entries are copied in streams: a narrow field is
/// copied in parts, and reading it whole then stalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i64)]
pub(crate) enum Sign {
    Put = 1,
    Kill = -1,
}

/// What one slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) prefix_low: u64,
    pub(crate) location: Location,
    pub(crate) sign: Sign,
}

/// A copy of a bucket's bytes. It is longer than a bucket so that any field is read with one load
/// of eight bytes, whose excess is masked off.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(crate) struct Bucket {
    bytes: [u8; BUCKET_BYTES + 8],
}

impl Bucket {
    pub(crate) const fn empty() -> Self {
        Self { bytes: [0; BUCKET_BYTES + 8] }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..BUCKET_BYTES]
    }

    /// The bytes to be filled with those of a bucket.
    #[inline]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..BUCKET_BYTES]
    }

    /// Whether the bytes are those that were written as bucket `number` of a table with `salt`.
    #[inline]
    pub(crate) fn is_whole(&self, salt: u32, number: u32) -> bool {
        CHECK.array(&self.bytes) == self.check(salt, number).to_le_bytes()
    }

    /// Completes the bucket.
    pub(crate) fn seal(&mut self, salt: u32, number: u32) {
        let check = self.check(salt, number);
        CHECK.put(&mut self.bytes, &check.to_le_bytes());
    }

    #[inline]
    fn check(&self, salt: u32, number: u32) -> u16 {
        // The number enters by exclusive or: buckets less than 2^16 apart, in an aligned group of
        // 2^16, then never have each other's check, but for the one of which that is zero.
        match fold(crc32c(salt ^ number, &self.bytes[..CHECK.offset])) {
            // Bytes that were lost often read as zeros: these are no bucket, not even an empty one.
            0 => CHECK_OF_ZERO,
            check => check,
        }
    }

    /// The content of slot `index`; `None` where it is empty.
    #[inline]
    pub(crate) fn slot(&self, geometry: Geometry, index: u32) -> Option<Slot> {
        let (start, sign_bit, location_bit) = bits_of(geometry, index);
        let location = Location::new(self.field(location_bit, u32::from(geometry.location_bits)))?;
        let prefix_low = self.field(start, u32::from(geometry.prefix_bits));
        let is_kill = geometry.has_kills && self.field(sign_bit, 1) == 1;
        let sign = if is_kill { Sign::Kill } else { Sign::Put };
        Some(Slot { prefix_low, location, sign })
    }

    /// As [`Bucket::slot`], where its prefix has these low bits.
    #[inline]
    pub(crate) fn slot_with(&self, geometry: Geometry, index: u32, low: u64) -> Option<Slot> {
        let start = index * geometry.entry_bits();
        if self.field(start, u32::from(geometry.prefix_bits)) == low {
            self.slot(geometry, index)
        } else {
            None
        }
    }

    /// Fills slot `index`, which is empty.
    #[inline]
    pub(crate) fn put(&mut self, geometry: Geometry, index: u32, slot: &Slot) {
        let (start, sign_bit, location_bit) = bits_of(geometry, index);
        self.or_field(start, slot.prefix_low);
        self.or_field(sign_bit, u64::from(slot.sign == Sign::Kill));
        self.or_field(location_bit, slot.location.get());
    }

    /// `count` bits, at most 57 less the seven that may precede them in their first byte.
    #[inline]
    fn field(&self, first_bit: u32, count: u32) -> u64 {
        self.word(first_bit) >> (first_bit % 8) & ((1 << count) - 1)
    }

    #[inline]
    fn or_field(&mut self, first_bit: u32, value: u64) {
        let at = first_bit as usize / 8;
        let word = self.word(first_bit) | value << (first_bit % 8);
        self.bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }

    /// The eight bytes from that with `first_bit` on.
    #[inline]
    fn word(&self, first_bit: u32) -> u64 {
        let at = first_bit as usize / 8;
        let mut word = [0; 8];
        word.copy_from_slice(&self.bytes[at..at + 8]);
        u64::from_le_bytes(word)
    }
}

/// Where an entry, its sign and its location start, in bits from the bucket's start.
#[inline]
fn bits_of(geometry: Geometry, index: u32) -> (u32, u32, u32) {
    let start = index * geometry.entry_bits();
    let sign = start + u32::from(geometry.prefix_bits);
    (start, sign, sign + u32::from(geometry.has_kills))
}

/// Folds 32 check bits into 16: the lower half, and the upper one turned by 13.
///
/// CRC32C has the factor x + 1, so that one flipped bit always changes an odd number of its bits,
/// and a fold keeps that parity: an odd number of flips never goes unseen. By how far the halves
/// must be turned against each other so that no two flips go unseen either was found by trying all
/// sixteen; the tests below prove it.
#[inline]
fn fold(crc: u32) -> u16 {
    let [a, b, c, d] = crc.to_le_bytes();
    u16::from_le_bytes([a, b]) ^ u16::from_le_bytes([c, d]).rotate_left(13)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What each single flip does to the check. The check is linear, but for the zero that is stored as
    /// another number, so that a set of flips goes unseen only where these cancel out, or come to that.
    fn syndromes() -> Vec<u16> {
        let clean = Bucket::empty().check(0, 0);
        let flip_in_entries = |bit: usize| {
            let mut bucket = Bucket::empty();
            bucket.bytes[bit / 8] ^= 1 << (bit % 8);
            bucket.check(0, 0) ^ clean
        };
        (0..CHECK.offset * 8).map(flip_in_entries).chain((0..16).map(|bit| 1 << bit)).collect()
    }

    #[test]
    fn the_check_is_linear() {
        let clean = Bucket::empty().check(7, 9);
        let (mut one, mut two, mut both) = (Bucket::empty(), Bucket::empty(), Bucket::empty());
        one.bytes[3] = 0x15;
        two.bytes[60] = 0xF0;
        both.bytes[3] = 0x15;
        both.bytes[60] = 0xF0;
        assert_eq!(one.check(7, 9) ^ two.check(7, 9) ^ clean, both.check(7, 9));
    }

    #[test]
    fn every_flip_of_one_two_or_three_bits_is_seen() {
        let syndromes = syndromes();
        assert_eq!(syndromes.len(), BUCKET_BYTES * 8);
        // Three flips, like any odd number, leave an odd number of bits: never none, and not those of
        // what a zero is stored as.
        assert!(syndromes.iter().all(|syndrome| syndrome.count_ones() % 2 == 1));
        assert_eq!(CHECK_OF_ZERO.count_ones() % 2, 0);
        let different: BTreeSet<_> = syndromes.iter().collect();
        assert_eq!(different.len(), syndromes.len());
        assert!(syndromes.iter().all(|syndrome| !different.contains(&(syndrome ^ CHECK_OF_ZERO))));
    }

    /// Every check belongs to one number below 2^16, for entries that are alike: the one of which it
    /// would be zero, too.
    #[test]
    fn zeros_are_no_bucket_whatever_its_number() {
        let number = |check| move |number: &u32| Bucket::empty().check(3, *number) == check;
        for first in [0, 1 << 16, 5 << 16] {
            let numbers = first..first + (1 << 16);
            assert!(numbers.clone().all(|number| !Bucket::empty().is_whole(3, number)));
            assert_eq!(numbers.clone().filter(number(CHECK_OF_ZERO)).count(), 2);
            for sealed in numbers.filter(number(CHECK_OF_ZERO)) {
                let mut bucket = Bucket::empty();
                bucket.seal(3, sealed);
                assert!(bucket.is_whole(3, sealed));
                assert_ne!(bucket.bytes(), [0; BUCKET_BYTES]);
            }
        }
    }

    #[test]
    fn every_single_and_double_flip_of_a_real_bucket_is_seen() {
        let geometry =
            Geometry { bucket_count: 9, prefix_bits: 30, location_bits: 20, has_kills: true };
        let mut bucket = Bucket::empty();
        for index in 0..geometry.slots() {
            let location = Location::new(u64::from(index) * 771 + 1).unwrap();
            let slot =
                Slot { prefix_low: u64::from(index) * 77_777_771, location, sign: Sign::Kill };
            bucket.put(geometry, index, &slot);
        }
        bucket.seal(0xDEAD_BEEF, 5);
        assert!(bucket.is_whole(0xDEAD_BEEF, 5));
        for first in 0..BUCKET_BYTES * 8 {
            for second in 0..=first {
                let mut bad = bucket.clone();
                bad.bytes[first / 8] ^= 1 << (first % 8);
                if second != first {
                    bad.bytes[second / 8] ^= 1 << (second % 8);
                }
                assert!(!bad.is_whole(0xDEAD_BEEF, 5), "bits {first} and {second}");
            }
        }
    }

    #[test]
    fn a_bucket_never_passes_for_a_near_one() {
        let mut bucket = Bucket::empty();
        bucket.seal(3, 0);
        let passing = (1..=u32::from(u16::MAX)).find(|&number| bucket.is_whole(3, number));
        assert_eq!(passing, None);
    }

    #[test]
    fn the_example_of_the_format_page_holds() {
        let geometry =
            Geometry { bucket_count: 1, prefix_bits: 36, location_bits: 16, has_kills: false };
        let slot = |prefix_low, location| Slot {
            prefix_low,
            location: Location::new(location).unwrap(),
            sign: Sign::Put,
        };
        let mut bucket = Bucket::empty();
        bucket.put(geometry, 0, &slot(0x1_2345_6789, 0x8001));
        bucket.put(geometry, 1, &slot(0xF_0000_0000, 0x0002));
        bucket.seal(0, 0);
        let entries = [0x89, 0x67, 0x45, 0x23, 0x11, 0x00, 0x08, 0, 0, 0, 0xF0, 0x02];
        assert_eq!(bucket.bytes()[..62], [&entries[..], &[0; 50]].concat());
        assert_eq!(bucket.bytes()[62..], [0xAF, 0xCA]);
    }

    #[test]
    fn entries_of_every_width_round_trip() {
        for (prefix_bits, location_bits, has_kills) in
            [(0, 1, false), (1, 1, true), (36, 47, true), (25, 16, false), (36, 16, false)]
        {
            let geometry = Geometry { bucket_count: 1, prefix_bits, location_bits, has_kills };
            let slot = |index: u32| Slot {
                prefix_low: u64::MAX.wrapping_sub(u64::from(index)) & ((1 << prefix_bits) - 1),
                location: Location::new((1 << location_bits) - 1).unwrap(),
                sign: if has_kills && index.is_multiple_of(2) { Sign::Kill } else { Sign::Put },
            };
            let mut bucket = Bucket::empty();
            for index in 0..geometry.slots() {
                assert_eq!(bucket.slot(geometry, index), None);
                bucket.put(geometry, index, &slot(index));
            }
            for index in 0..geometry.slots() {
                assert_eq!(bucket.slot(geometry, index), Some(slot(index)));
            }
            assert_eq!(bucket.bytes[CHECK.offset..], [0; 10]);
        }
    }
}
