//! Walking the blocks of a segment one after another, each held against its checksum.

use zkv_io::crc32c;

use crate::block::{BlockHeader, BlockKind, Seed, Tag, is_whole};
use crate::layout::{BLOCK_HEADER_BYTES, DICTIONARIES_MAX, DICTIONARY_FIELD_BYTES};

/// The seeds of a segment's blocks: without a dictionary, and with each of those met so far.
#[derive(Clone, Debug)]
pub(crate) struct Seeds {
    pub base: Seed,
    pub by_dictionary: [Option<Seed>; DICTIONARIES_MAX],
}

impl Seeds {
    pub(crate) fn new(base: Seed) -> Self {
        Self { base, by_dictionary: [None; DICTIONARIES_MAX] }
    }

    /// The seed of a block with this tag; `None` where it names a dictionary not met yet.
    pub(crate) fn of(&self, tag: Tag) -> Option<Seed> {
        match tag.kind {
            BlockKind::EntriesRaw | BlockKind::EntriesZstd if tag.number > 0 => {
                self.by_dictionary[usize::from(tag.number) - 1]
            }
            _ => Some(self.base),
        }
    }

    /// Makes the blocks that need this dictionary known, where the block holds one.
    pub(crate) fn learn(&mut self, block: &Block<'_>) {
        if block.tag.kind == BlockKind::Dictionary
            && let Some(digest) = block.payload.first_chunk::<DICTIONARY_FIELD_BYTES>()
            && (1..=DICTIONARIES_MAX).contains(&usize::from(block.tag.number))
        {
            self.by_dictionary[usize::from(block.tag.number) - 1] =
                Some(self.base.with_dictionary(digest));
        }
    }
}

/// A block found whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block<'a> {
    /// Bytes from the segment's start.
    pub offset: u32,
    pub tag: Tag,
    pub checksum: u32,
    pub payload: &'a [u8],
}

impl Block<'_> {
    pub(crate) fn end(&self) -> u32 {
        // A payload's length has 24 bits.
        self.offset + BLOCK_HEADER_BYTES + u32::try_from(self.payload.len()).unwrap_or(0)
    }
}

/// Goes from block to block until something is none.
#[derive(Clone, Debug)]
pub(crate) struct BlockWalk<'a> {
    bytes: &'a [u8],
    /// The offset within the segment at which `bytes` starts.
    first_offset: u32,
    offset: u32,
    seeds: Seeds,
}

impl<'a> BlockWalk<'a> {
    /// Walks `bytes`, which stand at `offset` of their segment.
    pub(crate) fn new(bytes: &'a [u8], offset: u32, seeds: Seeds) -> Self {
        Self { bytes, first_offset: offset, offset, seeds }
    }

    /// Where the next block starts, or where the walk stopped.
    pub(crate) fn offset(&self) -> u32 {
        self.offset
    }

    /// The bytes from [`BlockWalk::offset`] on.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get((self.offset - self.first_offset) as usize..).unwrap_or(&[])
    }
}

impl<'a> Iterator for BlockWalk<'a> {
    type Item = Block<'a>;

    fn next(&mut self) -> Option<Block<'a>> {
        let block = block_at(self.rest(), self.offset, &self.seeds)?;
        self.seeds.learn(&block);
        self.offset = block.end();
        Some(block)
    }
}

/// The block that `bytes`, which stand at `offset` of their segment, start with, if it is whole.
pub(crate) fn block_at<'a>(bytes: &'a [u8], offset: u32, seeds: &Seeds) -> Option<Block<'a>> {
    let header = BlockHeader::decode(*bytes.first_chunk()?)?;
    let block = bytes.get(..header.block_bytes() as usize)?;
    if !is_whole(block, seeds.of(header.tag)?, offset) {
        return None;
    }
    let payload = &block[BLOCK_HEADER_BYTES as usize..];
    Some(Block { offset, tag: header.tag, checksum: header.checksum, payload })
}

/// A checksum of the checksums of all blocks of a segment so far. It makes the last commit of two
/// logs differ where anything before it in its segment does: copies of a file that went different
/// ways have segments of one name, and may have commits of one length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain(pub u32);

impl Chain {
    /// The chain behind a block with this checksum.
    pub(crate) fn and(self, block_checksum: u32) -> Self {
        Self(crc32c(self.0, &block_checksum.to_le_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::put_block;
    use crate::segment::SegmentId;

    fn seed() -> Seed {
        Seed::of_segment(&[1; 16], SegmentId { sequence: 9, slot: 2, nonce: 3 })
    }

    fn segment() -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, payload) in [(BlockKind::EntriesRaw, b"\x01one"), (BlockKind::RollCall, b"many")]
        {
            let offset = 256 + u32::try_from(bytes.len()).unwrap();
            put_block(&mut bytes, seed(), offset, Tag { kind, number: 0 }, &[payload]);
        }
        bytes
    }

    #[test]
    fn a_walk_stops_at_the_first_bad_block() {
        let bytes = segment();
        let walk = |bytes: &[u8]| BlockWalk::new(bytes, 256, Seeds::new(seed())).count();
        assert_eq!(walk(&bytes), 2);
        for end in 0..bytes.len() {
            assert_eq!(walk(&bytes[..end]), usize::from(end >= 12), "cut at {end}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(walk(&flipped), usize::from(bit >= 12 * 8), "bit {bit}");
        }
    }
}
