//! How a table's size is chosen, and which bucket a prefix belongs to.

use std::cmp::Reverse;

use crate::bucket::BUCKET_BYTES;
use crate::error::IndexError;
use crate::key::{HASH_BITS, Prefix};

/// The bits of a bucket that hold entries: 62 bytes.
pub(crate) const ENTRY_BITS: u32 = 496;
/// The largest table has 16 GiB, for three thousand million keys. The limit keeps the product of
/// a prefix and a bucket count within 64 bits.
pub(crate) const BUCKETS_MAX: u32 = 1 << 28;
/// How far from home an entry may ever lie, in buckets. Only prefixes that somebody has chosen
/// come near it.
pub(crate) const DISPLACEMENT_MAX: u16 = 4095;
/// Tables are filled to 95 % at most, whatever displacement would allow: beyond, lookups pass ever
/// more buckets.
const LOAD_MAX_PERCENT: u64 = 95;
/// Appended tables are small, and every lookup passes all of them: here a second bucket costs more
/// than the room.
const APPENDED_LOAD_MAX_PERCENT: u64 = 75;

/// How a table divides the prefixes among its buckets, and a bucket's bits among its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// How many buckets are home to some prefix. Spill buckets may follow them.
    pub(crate) bucket_count: u32,
    /// How many low bits of its prefix an entry keeps.
    pub(crate) prefix_bits: u8,
    /// How many bits a location takes.
    pub(crate) location_bits: u8,
    /// Whether entries have a bit that says put or kill.
    pub(crate) has_kills: bool,
}

/// What decides a table's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Measure {
    pub(crate) entry_count: u64,
    pub(crate) location_max: u64,
    pub(crate) has_kills: bool,
}

impl Measure {
    /// How many bytes the table takes, but for its spill.
    ///
    /// # Errors
    /// [`IndexError::TooLarge`] where no table holds so much.
    pub(crate) fn table_bytes(&self) -> Result<u64, IndexError> {
        if self.entry_count == 0 {
            return Ok(0);
        }
        Ok(u64::from(Geometry::plan(self, 0)?.bucket_count) * BUCKET_BYTES as u64)
    }
}

impl Geometry {
    /// The smallest table for `measure` in which entries may lie `displacement_least` buckets from
    /// home, or further.
    ///
    /// Fewer bits of the prefix let more entries into a bucket, but allow less displacement and so
    /// need a lower load. Every number of bits is tried.
    ///
    /// # Errors
    /// [`IndexError::TooLarge`] where no table holds so much.
    pub(crate) fn plan(measure: &Measure, displacement_least: u32) -> Result<Self, IndexError> {
        let floor = u64::from(displacement_least);
        IndexError::check_limit("displacement in buckets", floor, u64::from(DISPLACEMENT_MAX))?;
        let entries_max = u64::from(BUCKETS_MAX) * u64::from(ENTRY_BITS);
        IndexError::check_limit("entries in a table", measure.entry_count, entries_max)?;
        let location_bits = (u64::BITS - measure.location_max.leading_zeros()).max(1);
        #[expect(clippy::cast_possible_truncation, reason = "at most 47 and 36")]
        let with_bits = |prefix_bits: u32| Self {
            bucket_count: BUCKETS_MAX,
            prefix_bits: prefix_bits as u8,
            location_bits: location_bits as u8,
            has_kills: measure.has_kills,
        };
        (0..=HASH_BITS)
            .filter_map(|bits| with_bits(bits).shrink_to(measure.entry_count, displacement_least))
            .min_by_key(|geometry| (geometry.bucket_count, Reverse(geometry.prefix_bits)))
            .ok_or(IndexError::TooLarge {
                what: "entries in a table",
                found: measure.entry_count,
                max: entries_max,
            })
    }

    /// This geometry with the fewest buckets that will do; `None` where even the most do not.
    fn shrink_to(self, entry_count: u64, displacement_least: u32) -> Option<Self> {
        let holds = |bucket_count: u32| {
            let geometry = Self { bucket_count, ..self };
            geometry.displacement_limit().is_some_and(|limit| {
                limit >= displacement_least && geometry.can_hold(entry_count, limit)
            })
        };
        let (mut low, mut high) = (1, BUCKETS_MAX);
        if !holds(high) {
            return None;
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if holds(middle) { high = middle } else { low = middle + 1 }
        }
        Some(Self { bucket_count: high, ..self })
    }

    /// Whether `entry_count` entries are likely to fit without anyone's displacement passing the
    /// limit.
    ///
    /// Entries that arrive at random and are served `slots` a bucket form a queue whose length
    /// passes `x` with a chance of about `exp(-2 x (1 - load) / load)` (the heavy-traffic limit of
    /// Kingman, 1962). The table is sized so that the whole of it fails once in a hundred times;
    /// it is then built again with twice the displacement. In whole numbers, and with
    /// `ln x < 0.6932 (log2 x + 1)`.
    fn can_hold(self, entry_count: u64, displacement_limit: u32) -> bool {
        let capacity = u64::from(self.bucket_count) * u64::from(self.slots());
        if entry_count <= u64::from(self.slots()) {
            return true;
        }
        let load_max_percent =
            if self.has_kills { APPENDED_LOAD_MAX_PERCENT } else { LOAD_MAX_PERCENT };
        if entry_count * 100 > capacity * load_max_percent {
            return false;
        }
        let queue = u64::from(displacement_limit) * u64::from(self.slots());
        let log = 6932 * u64::from((u64::from(self.bucket_count) * 100).ilog2() + 1);
        let free = u128::from(capacity - entry_count);
        20_000 * free * u128::from(queue) >= u128::from(entry_count) * u128::from(log)
    }

    /// How many bits an entry takes.
    #[inline]
    pub(crate) fn entry_bits(self) -> u32 {
        u32::from(self.prefix_bits) + u32::from(self.has_kills) + u32::from(self.location_bits)
    }

    /// How many entries fit a bucket: 5 to 496.
    #[inline]
    pub(crate) fn slots(self) -> u32 {
        ENTRY_BITS / self.entry_bits()
    }

    /// The bucket in which the search for `prefix` starts.
    #[inline]
    pub(crate) fn home(self, prefix: Prefix) -> u32 {
        ((prefix.get() * u64::from(self.bucket_count)) >> HASH_BITS) as u32
    }

    /// The smallest prefix whose home is `bucket` or a later one.
    pub(crate) fn first_prefix(self, bucket: u32) -> u64 {
        (u64::from(bucket) << HASH_BITS).div_ceil(u64::from(self.bucket_count))
    }

    /// How many buckets from home an entry may lie, so that its bucket and the low bits of its
    /// prefix still tell the whole prefix: the prefixes of one more bucket than that must differ in
    /// these bits. `None` where those of a single bucket do not.
    pub(crate) fn displacement_limit(self) -> Option<u32> {
        if u32::from(self.prefix_bits) >= HASH_BITS {
            return Some(u32::from(DISPLACEMENT_MAX));
        }
        let prefixes_a_bucket = Prefix::COUNT.div_ceil(u64::from(self.bucket_count));
        let buckets = (1u64 << self.prefix_bits) / prefixes_a_bucket;
        let limit = buckets.checked_sub(1)?.min(u64::from(DISPLACEMENT_MAX));
        u32::try_from(limit).ok()
    }

    /// The low bits of `prefix`, as an entry keeps them.
    #[inline]
    pub(crate) fn low_bits(self, prefix: Prefix) -> u64 {
        prefix.get() & ((1 << self.prefix_bits) - 1)
    }

    /// The least prefix of any entry in `bucket` that lies at most `displacement_max` buckets from home.
    #[inline]
    pub(crate) fn least_prefix(self, bucket: u32, displacement_max: u16) -> u64 {
        self.first_prefix(bucket.saturating_sub(u32::from(displacement_max)))
    }

    /// The prefix of an entry in `bucket`, of whose entries none has one below `least`; `None` where there
    /// is none with these low bits.
    #[inline]
    pub(crate) fn recover(self, bucket: u32, least: u64, low: u64) -> Option<Prefix> {
        let distance = low.wrapping_sub(least) & ((1 << self.prefix_bits) - 1);
        Prefix::new(least + distance).filter(|&prefix| self.home(prefix) <= bucket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(entry_count: u64, location_max: u64) -> Measure {
        Measure { entry_count, location_max, has_kills: false }
    }

    #[test]
    fn a_key_takes_five_to_six_bytes() {
        // Slots of 32,768 cells each hold 8 MiB.
        let cases = [
            (200_000, 2 * 32_768 - 1, 5.9),
            (1_000_000, 8 * 32_768 - 1, 5.9),
            (10_000_000, 60 * 32_768, 5.9),
            (100_000_000, 600 * 32_768, 6.0),
            (1_000_000_000, 12_000 * 32_768, 6.4),
        ];
        for (entry_count, location_max, most) in cases {
            let geometry = Geometry::plan(&measure(entry_count, location_max), 0).unwrap();
            #[expect(clippy::cast_precision_loss)]
            let bytes_a_key = f64::from(geometry.bucket_count) * 64.0 / entry_count as f64;
            assert!(bytes_a_key < most, "{entry_count}: {bytes_a_key:.2} bytes, {geometry:?}");
        }
    }

    #[test]
    fn a_small_table_is_one_bucket() {
        for entry_count in 0..=8 {
            let geometry = Geometry::plan(&measure(entry_count, 65_535), 0).unwrap();
            assert_eq!(geometry.bucket_count, 1);
        }
        assert_eq!(Geometry::plan(&measure(100, 65_535), 0).unwrap().bucket_count, 12);
    }

    #[test]
    fn more_displacement_is_had_on_demand_and_refused_over_the_limit() {
        for least in [1, 8, 64, 4095] {
            let geometry = Geometry::plan(&measure(1_000_000, 65_535), least).unwrap();
            assert!(geometry.displacement_limit() >= Some(least));
        }
        assert!(Geometry::plan(&measure(1_000_000, 65_535), 4096).is_err());
        for too_many in [1 << 36, 1 << 40, u64::MAX] {
            assert!(Geometry::plan(&measure(too_many, 1), 0).is_err());
        }
    }

    #[test]
    fn bucket_and_low_bits_tell_the_prefix() {
        for (bucket_count, prefix_bits) in [(1, 36), (2, 36), (7, 35), (1000, 28), (65_537, 23)] {
            let geometry =
                Geometry { bucket_count, prefix_bits, location_bits: 16, has_kills: false };
            let limit = u16::try_from(geometry.displacement_limit().unwrap()).unwrap();
            let last_bucket = bucket_count - 1;
            for home in [0, 1, bucket_count / 2, last_bucket] {
                let home = home.min(last_bucket);
                let edges = [geometry.first_prefix(home), geometry.first_prefix(home + 1) - 1];
                for prefix in edges.map(|prefix| Prefix::new(prefix).unwrap()) {
                    assert_eq!(geometry.home(prefix), home);
                    for displacement in [0, 1, limit] {
                        let bucket = home + u32::from(displacement.min(limit));
                        let low = geometry.low_bits(prefix);
                        let least = geometry.least_prefix(bucket, limit);
                        assert_eq!(geometry.recover(bucket, least, low), Some(prefix));
                    }
                }
            }
        }
    }
}
