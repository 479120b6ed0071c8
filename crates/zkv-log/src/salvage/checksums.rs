//! Checksums of any range of a slot, each in the same short time however long the range is.
//!
//! Behind damage a block may start at any byte and have any length; summing each of those ranges
//! would take hours for a slot of noise, or a file made for it. A CRC is linear: that of a range
//! follows from those of the two prefixes that it lies between.

use std::ops::Range;
use std::sync::LazyLock;

/// The Castagnoli polynomial, its bits in the order of CRC32C (RFC 3720, appendix B.4).
const POLYNOMIAL: u32 = 0x82F6_3B78;
/// The polynomial 1 in that order of bits.
const ONE: u32 = 1 << 31;
/// The bits of a length that one table of powers covers; two cover a slot.
const LOW_BITS: u32 = 12;

/// What a byte does to the state.
const BYTES: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut state, mut bit) = (byte, 0);
        while bit < 8 {
            state = times_x(state);
            bit += 1;
        }
        table[byte as usize] = state;
        byte += 1;
    }
    table
};

/// The number of the entry of [`BYTES`] with this top byte: no two have the same.
const BY_TOP_BYTE: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[(BYTES[byte] >> 24) as usize] = byte.to_le_bytes()[0];
        byte += 1;
    }
    table
};

/// The states of a CRC32C that starts at 0, behind each byte of a slot.
pub(super) struct RangeChecksums {
    states: Vec<u32>,
}

impl RangeChecksums {
    pub(super) fn new(bytes: &[u8]) -> Self {
        let mut states = Vec::with_capacity(bytes.len() + 1);
        let mut state = 0u32;
        states.push(state);
        for byte in bytes {
            state = (state >> 8) ^ BYTES[usize::from(state.to_le_bytes()[0] ^ byte)];
            states.push(state);
        }
        Self { states }
    }

    /// As `crc32c(seed, &bytes[range])`.
    pub(super) fn of(&self, seed: u32, range: Range<usize>) -> u32 {
        let (before, behind) = (self.states[range.start], self.states[range.end]);
        !(times(!seed ^ before, POWERS.of_bytes(range.len())) ^ behind)
    }

    /// As [`seed_of`], of `bytes[range]`.
    pub(super) fn seed_of(&self, checksum: u32, range: Range<usize>) -> u32 {
        let (before, behind) = (self.states[range.start], self.states[range.end]);
        !(times(!checksum ^ behind, INVERSES.of_bytes(range.len())) ^ before)
    }
}

/// The seed with which `crc32c(seed, bytes)` is `checksum`.
pub(super) fn seed_of(checksum: u32, bytes: &[u8]) -> u32 {
    let mut state = !checksum;
    for byte in bytes.iter().rev() {
        // The state was shifted by a byte, so that its top byte is that of the table's entry.
        let index = BY_TOP_BYTE[usize::from(state.to_le_bytes()[3])];
        state = ((state ^ BYTES[usize::from(index)]) << 8) | u32::from(index ^ byte);
    }
    !state
}

/// The number of the seed with which `block` is whole at `offset`.
pub(super) fn seed_of_block(block: &[u8], offset: u32) -> Option<u32> {
    let (checksum, tagged) = block.split_first_chunk()?;
    let checksum = u32::from_le_bytes(*checksum);
    Some(seed_of(checksum, &[&offset.to_le_bytes(), tagged].concat()))
}

const fn times_x(polynomial: u32) -> u32 {
    if polynomial & 1 == 1 { (polynomial >> 1) ^ POLYNOMIAL } else { polynomial >> 1 }
}

/// What [`times_x`] makes `polynomial` of: only one with the top bit was reduced, since a shift clears it.
const fn by_x(polynomial: u32) -> u32 {
    if polynomial & ONE == 0 { polynomial << 1 } else { ((polynomial ^ POLYNOMIAL) << 1) | 1 }
}

/// The product of two polynomials, modulo that of CRC32C.
fn times(mut one: u32, mut other: u32) -> u32 {
    let mut product = 0;
    while one != 0 {
        if one & ONE != 0 {
            product ^= other;
        }
        one <<= 1;
        other = times_x(other);
    }
    product
}

/// Powers of x: what appending bytes does to a state.
struct Powers {
    low: Vec<u32>,
    high: Vec<u32>,
}

static POWERS: LazyLock<Powers> = LazyLock::new(|| Powers::new(ONE >> 8));
/// What takes that back.
static INVERSES: LazyLock<Powers> =
    LazyLock::new(|| Powers::new((0..8).fold(ONE, |power, _| by_x(power))));

impl Powers {
    /// Those of `of_byte`.
    fn new(of_byte: u32) -> Self {
        let count = 1 << LOW_BITS;
        let powers = |step| {
            std::iter::successors(Some(ONE), move |power| Some(times(*power, step))).take(count + 1)
        };
        let low: Vec<u32> = powers(of_byte).collect();
        let high = powers(low[count]).collect();
        Self { low, high }
    }

    /// Up to 2^24 bytes: a slot is not longer.
    fn of_bytes(&self, count: usize) -> u32 {
        let low = self.low[count & ((1 << LOW_BITS) - 1)];
        times(low, self.high[count >> LOW_BITS])
    }
}

#[cfg(test)]
mod tests {
    use zkv_io::crc32c;

    use super::*;

    fn noise(count: usize) -> Vec<u8> {
        let mut state = 7u64;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    #[test]
    fn every_range_has_the_checksum_that_summing_it_gives() {
        let bytes = noise(20_000);
        let checksums = RangeChecksums::new(&bytes);
        let ends = [0, 1, 7, 255, 4095, 4096, 4097, 8192, 19_999, 20_000];
        for start in ends {
            for end in ends.into_iter().filter(|end| start <= *end) {
                for seed in [0, 1, 0xDEAD_BEEF, u32::MAX] {
                    let expected = crc32c(seed, &bytes[start..end]);
                    assert_eq!(checksums.of(seed, start..end), expected, "{start}..{end}");
                    assert_eq!(checksums.seed_of(expected, start..end), seed, "{start}..{end}");
                }
            }
        }
    }

    #[test]
    fn the_longest_slot_is_within_the_tables() {
        let bytes = vec![3; 1 << 24];
        assert_eq!(RangeChecksums::new(&bytes).of(5, 0..1 << 24), crc32c(5, &bytes));
    }

    #[test]
    fn a_seed_follows_from_the_checksum_and_the_bytes() {
        for count in [0, 1, 9, 300] {
            for seed in [0, 77, u32::MAX] {
                assert_eq!(seed_of(crc32c(seed, &noise(count)), &noise(count)), seed);
            }
        }
    }
}
