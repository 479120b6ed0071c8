//! One block: a header of eight bytes and a payload, bound to its place by its checksum.

use zkv_io::crc32c;

use crate::layout::BLOCK_HEADER_BYTES;
use crate::segment::SegmentId;

/// What a block holds. The numbers are those of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockKind {
    /// Entries, as they are.
    EntriesRaw = 1,
    /// Entries, as a zstd frame without its magic number.
    EntriesZstd = 2,
    /// A dictionary for the blocks behind it.
    Dictionary = 3,
    /// The segments that belong to the log.
    RollCall = 4,
    /// Segments that no longer belong to it.
    Retire = 5,
    /// The end of a commit.
    Commit = 6,
    /// The end of a segment.
    Seal = 7,
}

/// The kind, and four bits whose meaning it decides: a dictionary's number, or the end mark's flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    pub kind: BlockKind,
    pub number: u8,
}

/// The `number` of a commit block that stands for a clean end: all before it is durable.
pub(crate) const END_MARK: u8 = 1;

impl Tag {
    pub(crate) fn encode(self) -> u8 {
        self.kind as u8 | self.number << 4
    }

    fn decode(byte: u8) -> Option<Self> {
        let kind = match byte & 0xF {
            1 => BlockKind::EntriesRaw,
            2 => BlockKind::EntriesZstd,
            3 => BlockKind::Dictionary,
            4 => BlockKind::RollCall,
            5 => BlockKind::Retire,
            6 => BlockKind::Commit,
            7 => BlockKind::Seal,
            _ => return None,
        };
        Some(Self { kind, number: byte >> 4 })
    }
}

/// A block's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    pub checksum: u32,
    pub tag: Tag,
    pub payload_bytes: u32,
}

impl BlockHeader {
    /// `None` where no block starts: behind the log's end, or where bytes were damaged.
    #[inline]
    pub(crate) fn decode(bytes: [u8; BLOCK_HEADER_BYTES as usize]) -> Option<Self> {
        let [c0, c1, c2, c3, tag, l0, l1, l2] = bytes;
        Some(Self {
            checksum: u32::from_le_bytes([c0, c1, c2, c3]),
            tag: Tag::decode(tag)?,
            payload_bytes: u32::from_le_bytes([l0, l1, l2, 0]),
        })
    }

    pub(crate) fn block_bytes(&self) -> u32 {
        BLOCK_HEADER_BYTES + self.payload_bytes
    }
}

/// What a block's checksum is seeded with, before its offset: its store, its segment, and the
/// dictionary that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Seed(u32);

impl Seed {
    /// The seed of the blocks of one segment of one store, without a dictionary.
    pub(crate) fn of_segment(store_id: &[u8; 16], id: SegmentId) -> Self {
        let mut seed = crc32c(0, store_id);
        seed = crc32c(seed, &id.sequence.to_le_bytes());
        seed = crc32c(seed, &id.slot.to_le_bytes());
        Self(crc32c(seed, &id.nonce.to_le_bytes()))
    }

    /// The seed of a segment of which nothing else is known.
    pub(crate) fn from_number(number: u32) -> Self {
        Self(number)
    }

    pub(crate) fn with_dictionary(self, digest: &[u8; 32]) -> Self {
        Self(crc32c(self.0, digest))
    }

    /// The checksum of the block at `offset` whose bytes, from the tag on, are `tagged`.
    #[inline]
    pub(crate) fn checksum(self, offset: u32, tagged: &[u8]) -> u32 {
        crc32c(crc32c(self.0, &offset.to_le_bytes()), tagged)
    }
}

/// Appends a block that will stand at `offset` of its segment. The payload is below 2^24 bytes: a
/// slot is not longer.
pub(crate) fn put_block(into: &mut Vec<u8>, seed: Seed, offset: u32, tag: Tag, payload: &[&[u8]]) {
    let start = into.len();
    let payload_bytes: usize = payload.iter().map(|part| part.len()).sum();
    let [l0, l1, l2, ..] = payload_bytes.to_le_bytes();
    into.extend([0, 0, 0, 0, tag.encode(), l0, l1, l2]);
    for part in payload {
        into.extend_from_slice(part);
    }
    let checksum = seed.checksum(offset, &into[start + 4..]);
    into[start..start + 4].copy_from_slice(&checksum.to_le_bytes());
}

/// Whether `block`, header and payload, is whole and stands where it was written.
#[inline]
pub(crate) fn is_whole(block: &[u8], seed: Seed, offset: u32) -> bool {
    match block.split_first_chunk::<4>() {
        Some((checksum, tagged)) => u32::from_le_bytes(*checksum) == seed.checksum(offset, tagged),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed_of(sequence: u64) -> Seed {
        Seed::of_segment(&[1; 16], SegmentId { sequence, slot: 2, nonce: 3 })
    }

    fn block(seed: Seed) -> Vec<u8> {
        let mut bytes = Vec::new();
        let tag = Tag { kind: BlockKind::EntriesRaw, number: 3 };
        put_block(&mut bytes, seed, 4096, tag, &[b"pay", b"load"]);
        bytes
    }

    #[test]
    fn a_block_is_whole_only_at_its_place_in_its_segment_with_its_dictionary() {
        let seed = seed_of(7);
        let bytes = block(seed);
        let header = BlockHeader::decode(*bytes.first_chunk().unwrap()).unwrap();
        assert_eq!(header.tag, Tag { kind: BlockKind::EntriesRaw, number: 3 });
        assert_eq!(header.block_bytes() as usize, bytes.len());
        assert!(is_whole(&bytes, seed, 4096));
        assert!(!is_whole(&bytes, seed, 4097));
        assert!(!is_whole(&bytes, seed_of(8), 4096));
        assert!(!is_whole(&bytes, seed.with_dictionary(&[0; 32]), 4096));
    }

    #[test]
    fn every_flip_of_one_or_two_bits_and_every_truncation_is_found() {
        let seed = seed_of(7);
        let bytes = block(seed);
        let bits = bytes.len() * 8;
        for first in 0..bits {
            for second in first..bits {
                let mut flipped = bytes.clone();
                flipped[first / 8] ^= 1 << (first % 8);
                if first != second {
                    flipped[second / 8] ^= 1 << (second % 8);
                }
                assert!(!is_whole(&flipped, seed, 4096), "bits {first} and {second}");
            }
        }
        for end in 0..bytes.len() {
            assert!(!is_whole(&bytes[..end], seed, 4096));
        }
    }

    #[test]
    fn zeros_are_no_block() {
        assert_eq!(BlockHeader::decode([0; 8]), None);
    }
}
