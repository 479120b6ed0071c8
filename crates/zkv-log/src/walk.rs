//! Walking the blocks of a segment one after another, each held against its checksum.

use zkv_io::{Cursor, crc32c};

use crate::block::{BlockHeader, BlockKind, END_MARK, Seed, Tag, is_whole, put_block};
use crate::header::{put_position, take_position};
use crate::layout::{
    BLOCK_HEADER_BYTES, COMMIT_BLOCK_BYTES, COMMIT_BYTES, DICTIONARIES_MAX, DICTIONARY_FIELD_BYTES,
    NUMBER_MAX,
};
use crate::position::Position;

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

/// What a commit block says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommitMark {
    /// Commits count from 1.
    pub number: u64,
    /// Up to where the log was proven durable when the commit was written.
    pub synced_upto: Position,
    /// What stands before it in its segment.
    pub chain: Chain,
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

impl CommitMark {
    pub(crate) fn put(self, into: &mut Vec<u8>, seed: Seed, offset: u32, is_end_mark: bool) {
        let mut payload = Vec::with_capacity(COMMIT_BYTES);
        payload.extend(self.number.to_le_bytes());
        put_position(&mut payload, self.synced_upto);
        payload.extend(self.chain.0.to_le_bytes());
        let number = if is_end_mark { END_MARK } else { 0 };
        put_block(into, seed, offset, Tag { kind: BlockKind::Commit, number }, &[&payload]);
    }

    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(payload);
        let number = cursor.u64().ok()?;
        let synced_upto = take_position(&mut cursor).ok()?;
        let chain = Chain(cursor.u32().ok()?);
        cursor.finish().ok()?;
        (number < NUMBER_MAX).then_some(Self { number, synced_upto, chain })
    }
}

/// Searches `bytes`, which stand at `offset` of their segment, for commit blocks that are whole,
/// wherever they start, and returns the latest place that one of them proves durable.
///
/// This is how a torn tail is told from damage: behind a bad block, whatever was synced has proof.
pub(crate) fn latest_proof(bytes: &[u8], offset: u32, base: Seed) -> Option<Position> {
    let proofs = commit_block_starts(bytes).filter_map(|start| {
        let block = bytes.get(start..start + COMMIT_BLOCK_BYTES as usize)?;
        let block_offset = offset + u32::try_from(start).ok()?;
        is_whole(block, base, block_offset).then_some(())?;
        Some(CommitMark::decode(&block[BLOCK_HEADER_BYTES as usize..])?.synced_upto)
    });
    proofs.max()
}

/// Where commit blocks may start in `bytes`, by their tags and lengths alone.
pub(crate) fn commit_block_starts(bytes: &[u8]) -> impl Iterator<Item = usize> + '_ {
    // The bytes behind a commit block's checksum: its tag, of which there are two, and its length.
    let [l0, l1, l2, ..] = COMMIT_BYTES.to_le_bytes();
    [0, END_MARK].into_iter().flat_map(move |number| {
        let tag = Tag { kind: BlockKind::Commit, number }.encode();
        let needle = [tag, l0, l1, l2];
        let found: Vec<usize> = memchr::memmem::find_iter(bytes, &needle).collect();
        found.into_iter().filter_map(|at| at.checked_sub(4))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::SegmentId;

    fn seed_of(sequence: u64) -> Seed {
        Seed::of_segment(&[1; 16], SegmentId { sequence, slot: 2, nonce: 3 })
    }

    fn segment() -> Vec<u8> {
        let seed = seed_of(9);
        let mut bytes = Vec::new();
        let entries = Tag { kind: BlockKind::EntriesRaw, number: 0 };
        put_block(&mut bytes, seed, 256, entries, &[b"\x01one"]);
        let offset = 256 + u32::try_from(bytes.len()).unwrap();
        let synced_upto = Position { sequence: 2, offset: 99 };
        let mark = CommitMark { number: 4, synced_upto, chain: Chain(7) };
        mark.put(&mut bytes, seed, offset, false);
        bytes
    }

    #[test]
    fn a_walk_stops_at_the_first_bad_block() {
        let bytes = segment();
        let walk = |bytes: &[u8]| BlockWalk::new(bytes, 256, Seeds::new(seed_of(9))).count();
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

    #[test]
    fn proof_is_found_behind_a_bad_block_and_only_where_it_was_written() {
        let mut bytes = segment();
        bytes[9] ^= 1;
        let found = Some(Position { sequence: 2, offset: 99 });
        assert_eq!(latest_proof(&bytes, 256, seed_of(9)), found);
        assert_eq!(latest_proof(&bytes, 257, seed_of(9)), None);
        assert_eq!(latest_proof(&bytes, 256, seed_of(10)), None);
    }
}
