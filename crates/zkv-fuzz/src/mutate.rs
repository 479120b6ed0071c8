//! Changing bytes the way that finds what decoders overlook.

use std::ops::Range;

use crate::random::Random;

/// The longest input: a few segments of the smallest slot.
pub const INPUT_BYTES_MAX: usize = 512 << 10;

/// Numbers at the edges of types and limits.
const EDGES: &[u64] = &[
    0,
    1,
    2,
    7,
    8,
    15,
    16,
    127,
    128,
    255,
    256,
    4095,
    4096,
    32_767,
    32_768,
    65_535,
    65_536,
    1 << 20,
    (1 << 20) + 1,
    (1 << 24) - 1,
    1 << 24,
    1 << 28,
    (1 << 31) - 1,
    1 << 31,
    u32::MAX as u64 - 1,
    u32::MAX as u64,
    1 << 47,
    (1 << 63) - 1,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

/// Changes `input` in one to eight places. Half of them lie in `parts`, and `other` is another input
/// of the same kind, to take bytes from.
pub fn mutate(input: &mut Vec<u8>, parts: &[Range<usize>], other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(4) * random.below(3) {
        let part = if random.below(2) == 0 && !parts.is_empty() {
            parts[random.below(parts.len())].clone()
        } else {
            0..input.len()
        };
        let part = part.start.min(input.len())..part.end.min(input.len());
        mutate_once(input, &part, parts, other, random);
    }
    input.truncate(INPUT_BYTES_MAX);
}

fn mutate_once(
    input: &mut Vec<u8>,
    part: &Range<usize>,
    parts: &[Range<usize>],
    other: &[u8],
    random: &mut Random,
) {
    // The heads of blocks and headers decide more than their bodies.
    let length = if random.below(2) == 0 { part.len().min(64) } else { part.len() };
    let at = part.start + random.below(length);
    match random.below(14) {
        0..=2 => flip_bit(input, at, random),
        3 => set(input, at, &[random.byte()]),
        4..=6 => set_number(input, at, random),
        7 => add(input, at, random),
        8 => {
            let count = random.below(part.len().min(256) + 1);
            input.drain(at.min(input.len())..(at + count).min(input.len()));
        }
        9 => {
            let bytes: Vec<u8> = (0..=random.below(32)).map(|_| random.byte()).collect();
            let at = at.min(input.len());
            input.splice(at..at, bytes);
        }
        10 if random.below(4) == 0 => input.truncate(at),
        10 => input.resize(input.len() + random.below(300), 0),
        11 => {
            let taken = take(other, random);
            set(input, at, taken);
        }
        // A block in another one's place, or once more.
        _ => move_part(input, part, parts, random),
    }
}

fn flip_bit(input: &mut [u8], at: usize, random: &mut Random) {
    if let Some(byte) = input.get_mut(at) {
        *byte ^= 1 << random.below(8);
    }
}

fn set(input: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(rest) = input.get_mut(at..) {
        let count = rest.len().min(bytes.len());
        rest[..count].copy_from_slice(&bytes[..count]);
    }
}

fn set_number(input: &mut [u8], at: usize, random: &mut Random) {
    let number = EDGES[random.below(EDGES.len())].to_le_bytes();
    set(input, at, &number[..[1, 2, 3, 4, 8][random.below(5)]]);
}

/// One more or less, or a little.
fn add(input: &mut [u8], at: usize, random: &mut Random) {
    let Some(bytes) = input.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<4>) else { return };
    let change = random.below(17).wrapping_sub(8).to_le_bytes();
    let change = u32::from_le_bytes([change[0], change[1], change[2], change[3]]);
    *bytes = u32::from_le_bytes(*bytes).wrapping_add(change).to_le_bytes();
}

fn take<'a>(from: &'a [u8], random: &mut Random) -> &'a [u8] {
    let start = random.below(from.len());
    let end = start + random.below((from.len() - start).min(4096) + 1);
    &from[start..end]
}

fn move_part(
    input: &mut Vec<u8>,
    part: &Range<usize>,
    parts: &[Range<usize>],
    random: &mut Random,
) {
    let bytes = input[part.clone()].to_vec();
    let Some(place) = parts.get(random.below(parts.len())) else { return };
    let place = place.start.min(input.len())..place.end.min(input.len());
    match random.below(3) {
        0 => set(input, place.start, &bytes),
        1 => {
            let there = input[place.clone()].to_vec();
            set(input, place.start, &bytes);
            set(input, part.start, &there);
        }
        _ => {
            input.splice(place.start..place.start, bytes);
        }
    }
}
