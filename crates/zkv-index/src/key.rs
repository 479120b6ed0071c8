//! What stands for a key, and where its record lies.

use std::num::NonZeroU64;

/// How many bits of a hash the file keeps, at any table size.
///
/// A candidate is verified by reading its key, so two keys that share a prefix cost a read, never
/// a wrong answer: of the gets for absent keys, the share `keys / 2^36` reads a block in vain (one
/// in 690 at a hundred million keys). Each further bit would halve that for an eighth of a byte a
/// key.
pub const HASH_BITS: u32 = 36;

/// The keyed 128-bit hash of a key. In memory it stands for the key itself.
///
/// Hashes are taken to be uniform: whoever can choose them can make tables crowded (but not
/// wrong), which is why they are keyed with a secret of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash(pub u128);

impl KeyHash {
    /// The part of the hash that the file keeps.
    #[inline]
    pub(crate) fn prefix(self) -> Prefix {
        Prefix((self.0 >> (u128::BITS - HASH_BITS)) as u64)
    }
}

/// The top [`HASH_BITS`] bits of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Prefix(u64);

impl Prefix {
    /// How many prefixes there are.
    pub(crate) const COUNT: u64 = 1 << HASH_BITS;

    pub(crate) fn new(value: u64) -> Option<Self> {
        (value < Self::COUNT).then_some(Self(value))
    }

    #[inline]
    pub(crate) fn get(self) -> u64 {
        self.0
    }
}

/// Where a record lies. The index does not know what the number means, only that it is not zero
/// and below 2^47.
///
/// A table spends as many bits on each location as its largest one needs: small, dense numbers
/// make small files.
///
/// ```
/// use zkv_index::Location;
/// assert_eq!(Location::new(7).map(Location::get), Some(7));
/// assert_eq!(Location::new(0), None);
/// assert_eq!(Location::new(1 << 47), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location(NonZeroU64);

impl Location {
    /// How many bits the largest location has.
    pub const BITS_MAX: u32 = 47;
    /// The smallest location.
    pub(crate) const MIN: Self = Self(NonZeroU64::MIN);

    /// The location numbered `value`; `None` for 0 and from 2^47 on.
    #[inline]
    #[must_use]
    pub const fn new(value: u64) -> Option<Self> {
        match NonZeroU64::new(value) {
            Some(value) if value.get() >> Self::BITS_MAX == 0 => Some(Self(value)),
            _ => None,
        }
    }

    /// The location's number.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}
