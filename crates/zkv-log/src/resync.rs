//! Finding the next whole block behind a damaged one.

use crate::block::{BlockHeader, BlockKind, END_MARK, Tag};
use crate::layout::{BLOCK_HEADER_BYTES, COMMIT_BLOCK_BYTES, COMMIT_BYTES};
use crate::walk::{Block, Seeds, block_at};

/// How often each byte of a slot is summed up, as a whole, in search of blocks, before only commit blocks are
/// searched: a tenth of a second for a slot of 16 MiB. Bytes that look like headers of long blocks could
/// otherwise take hours; and where every slot is full of them, what each may take must be in proportion.
const SUMMED_TIMES_MAX: u64 = 64;

/// Finds whole blocks of one segment behind damaged ones.
pub(crate) struct Resync {
    /// What may still be summed up.
    left_bytes: u64,
}

impl Resync {
    /// For a segment in a slot of so many bytes.
    pub(crate) fn new(slot_bytes: u32) -> Self {
        Self { left_bytes: SUMMED_TIMES_MAX * u64::from(slot_bytes) }
    }

    /// The whole block at `offset`. One that is not whole is summed up for nothing; once that was done too
    /// often, only blocks as short as a commit's are looked at.
    pub(crate) fn block_at<'a>(
        &mut self,
        blocks: &'a [u8],
        offset: u32,
        seeds: &Seeds,
    ) -> Option<Block<'a>> {
        let header = header_at(blocks, offset)?;
        if self.left_bytes == 0 && header.block_bytes() > COMMIT_BLOCK_BYTES {
            return None;
        }
        let block = block_at(&blocks[offset as usize..], offset, seeds);
        if block.is_none() {
            let summed = (blocks.len() as u64 - u64::from(offset)).min(header.block_bytes().into());
            self.left_bytes = self.left_bytes.saturating_sub(summed);
        }
        block
    }

    /// Finds the first whole block behind the one at `damaged`, of a segment of which `blocks` is all
    /// up to the end of its blocks. `starts` are places where blocks are known to start, in order, from
    /// the segment's seal. `damaged` may be behind everything, as a forged header has it: nothing is there.
    pub(crate) fn next_block(
        &mut self,
        blocks: &[u8],
        damaged: u32,
        seeds: &Seeds,
        starts: impl Iterator<Item = u32>,
    ) -> Option<u32> {
        if blocks.len() <= damaged as usize {
            return None;
        }
        if self.left_bytes == 0 {
            return search_commit(blocks, damaged + 1, seeds);
        }
        // Most often the header is whole, and says where the next block is.
        let by_length = header_at(blocks, damaged).map(|header| end_of(damaged, header));
        let behind = starts.skip_while(|start| *start <= damaged);
        let mut told = by_length.into_iter().chain(behind);
        told.find(|offset| self.is_block(blocks, *offset, seeds))
            .or_else(|| self.search(blocks, damaged, seeds))
    }

    fn is_block(&mut self, blocks: &[u8], offset: u32, seeds: &Seeds) -> bool {
        let Some(header) = header_at(blocks, offset) else { return false };
        if self.left_bytes == 0 || blocks.len() < end_of(offset, header) as usize {
            return false;
        }
        self.left_bytes = self.left_bytes.saturating_sub(header.block_bytes().into());
        block_at(&blocks[offset as usize..], offset, seeds).is_some()
    }

    /// Tries every byte.
    fn search(&mut self, blocks: &[u8], damaged: u32, seeds: &Seeds) -> Option<u32> {
        let blocks_end = u32::try_from(blocks.len()).ok()?;
        for offset in damaged + 1..blocks_end.saturating_sub(BLOCK_HEADER_BYTES) {
            if self.left_bytes == 0 {
                return search_commit(blocks, offset, seeds);
            }
            let Some(header) = header_at(blocks, offset) else { continue };
            let end = end_of(offset, header);
            // Another block, or nothing, stands behind a block.
            let is_plausible = end <= blocks_end
                && (header_at(blocks, end).is_some() || is_nothing(&blocks[end as usize..]));
            if is_plausible && self.is_block(blocks, offset, seeds) {
                return Some(offset);
            }
        }
        None
    }
}

fn header_at(blocks: &[u8], offset: u32) -> Option<BlockHeader> {
    let bytes = blocks.get(offset as usize..)?;
    BlockHeader::decode(*bytes.first_chunk()?)
}

fn end_of(offset: u32, header: BlockHeader) -> u32 {
    offset.saturating_add(header.block_bytes())
}

fn is_nothing(bytes: &[u8]) -> bool {
    bytes.iter().take(BLOCK_HEADER_BYTES as usize).all(|byte| *byte == 0)
}

/// Tries every place from `from` on that looks like a commit block, in one pass over what is before the
/// first that is one.
fn search_commit(blocks: &[u8], from: u32, seeds: &Seeds) -> Option<u32> {
    /// From a block's start to its payload's length.
    const LENGTH_OFFSET: usize = 5;
    let tags = [0, END_MARK].map(|number| Tag { kind: BlockKind::Commit, number }.encode());
    let [l0, l1, l2, ..] = COMMIT_BYTES.to_le_bytes();
    let rest = blocks.get(from as usize..)?;
    memchr::memmem::find_iter(rest, &[l0, l1, l2]).find_map(|at| {
        let start = at.checked_sub(LENGTH_OFFSET)?;
        let offset = from + u32::try_from(start).ok()?;
        let is_commit = tags.contains(&rest[start + LENGTH_OFFSET - 1]);
        (is_commit && block_at(&rest[start..], offset, seeds).is_some()).then_some(offset)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Seed, put_block};
    use crate::header::Identity;
    use crate::layout::SLOT_BYTES_MAX;
    use crate::mark::CommitMark;
    use crate::position::Position;
    use crate::segment::{Place, SegmentId};
    use crate::walk::Chain;

    const ENTRIES: Tag = Tag { kind: BlockKind::EntriesRaw, number: 0 };

    fn place() -> Place {
        let identity = Identity { store_id: [1; 16], hash_key: [2; 32], slot_bytes: 64 << 10 };
        Place::new(&identity, SegmentId { sequence: 9, slot: 2, nonce: 3 })
    }

    fn seed() -> Seed {
        place().seed
    }

    /// Three blocks and a commit behind 256 bytes, and where each starts.
    fn blocks() -> (Vec<u8>, Vec<u32>) {
        let (mut bytes, mut starts) = (vec![0; 256], Vec::new());
        for payload in [&[7; 300][..], &[8; 40], &[9; 2000]] {
            let offset = u32::try_from(bytes.len()).unwrap();
            starts.push(offset);
            put_block(&mut bytes, seed(), offset, ENTRIES, &[payload]);
        }
        let offset = u32::try_from(bytes.len()).unwrap();
        starts.push(offset);
        let mark = CommitMark { number: 1, synced_upto: Position::default(), chain: Chain(0) };
        mark.put(&mut bytes, &place(), offset, false);
        (bytes, starts)
    }

    #[test]
    fn the_block_behind_a_damaged_one_is_found_whichever_byte_is_damaged() {
        let (bytes, starts) = blocks();
        for pair in starts.windows(2) {
            for at in pair[0]..pair[1] {
                let mut damaged = bytes.clone();
                damaged[at as usize] ^= 0x10;
                let seeds = Seeds::new(seed());
                let mut resync = Resync::new(SLOT_BYTES_MAX);
                let found = resync.next_block(&damaged, pair[0], &seeds, std::iter::empty());
                assert_eq!(found, Some(pair[1]), "byte {at}");
            }
        }
    }

    #[test]
    fn known_starts_lead_over_damage_and_wrong_ones_do_not_mislead() {
        let (mut bytes, starts) = blocks();
        bytes[starts[0] as usize + 4..starts[1] as usize + 12].fill(0xFF);
        let known = [starts[0], starts[1], starts[1] + 3, starts[2]];
        let seeds = Seeds::new(seed());
        let mut resync = Resync::new(SLOT_BYTES_MAX);
        let found = resync.next_block(&bytes, starts[0], &seeds, known.into_iter());
        assert_eq!(found, Some(starts[2]));
    }

    #[test]
    fn nothing_is_found_behind_the_last_block() {
        let (mut bytes, starts) = blocks();
        bytes.extend([0; 500]);
        let seeds = Seeds::new(seed());
        for behind in [starts[3], u32::try_from(bytes.len()).unwrap(), u32::MAX] {
            let mut resync = Resync::new(SLOT_BYTES_MAX);
            assert_eq!(resync.next_block(&bytes, behind, &seeds, std::iter::empty()), None);
            let mut spent = Resync { left_bytes: 0 };
            assert_eq!(spent.next_block(&bytes, behind, &seeds, std::iter::empty()), None);
        }
    }

    #[test]
    fn bytes_that_all_look_like_headers_of_long_blocks_do_not_hold_the_search_up() {
        let mut bytes = vec![0x11; 2 << 20];
        let offset = u32::try_from(bytes.len()).unwrap();
        let mark = CommitMark { number: 1, synced_upto: Position::default(), chain: Chain(0) };
        mark.put(&mut bytes, &place(), offset, false);
        bytes.extend(vec![0x11; 2 << 20]);
        assert_eq!(search_commit(&bytes, 256, &Seeds::new(seed())), Some(offset));
        let seeds = Seeds::new(seed());
        let mut resync = Resync::new(SLOT_BYTES_MAX);
        assert_eq!(resync.next_block(&bytes, 256, &seeds, std::iter::empty()), Some(offset));
        // Nothing is left for the next damaged block, and it takes no time.
        assert_eq!(resync.left_bytes, 0);
        assert_eq!(resync.next_block(&bytes, 512, &seeds, std::iter::empty()), Some(offset));
    }

    #[test]
    fn what_a_search_sums_up_is_in_proportion_to_its_slot() {
        let slot_bytes = 64 << 10;
        // Raw entries of 16 KiB, at every fourth byte.
        let bytes: Vec<u8> = [1, 0, 0x40, 0].into_iter().cycle().take(slot_bytes).collect();
        let mut resync = Resync::new(u32::try_from(slot_bytes).unwrap());
        let before = resync.left_bytes;
        assert_eq!(resync.next_block(&bytes, 256, &Seeds::new(seed()), std::iter::empty()), None);
        let summed = before - resync.left_bytes;
        assert!(summed <= 64 * slot_bytes as u64, "{summed}");
    }

    #[test]
    fn headers_of_long_blocks_before_whole_ones_are_summed_up_no_longer_than_others() {
        let mut bytes = vec![0; 256];
        let mut commits = Vec::new();
        for _ in 0..1000 {
            let long = (100_000u32 - u32::try_from(bytes.len()).unwrap()).to_le_bytes();
            bytes.extend([0, 0, 0, 0, ENTRIES.encode(), long[0], long[1], long[2]]);
            let offset = u32::try_from(bytes.len()).unwrap();
            let mark = CommitMark { number: 1, synced_upto: Position::default(), chain: Chain(0) };
            mark.put(&mut bytes, &place(), offset, false);
            commits.push(offset);
        }
        bytes.resize(100_008, 0);
        let (seeds, mut found, mut offset) = (Seeds::new(seed()), Vec::new(), 256);
        let mut resync = Resync { left_bytes: 10 * 100_000 };
        while let Some(at) = match resync.block_at(&bytes, offset, &seeds) {
            Some(block) => Some(block.offset),
            None => resync.next_block(&bytes, offset, &seeds, std::iter::empty()),
        } {
            found.push(at);
            offset = at + COMMIT_BLOCK_BYTES;
        }
        assert_eq!(found, commits);
        assert_eq!(resync.left_bytes, 0);
    }
}
