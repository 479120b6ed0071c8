//! A segment of which nothing says whose it is.
//!
//! A checksum's seed is only 32 bits long, and follows from any block and its checksum. Where all
//! headers are lost, as of a store of one segment whose first pages were overwritten, the seed on
//! which several blocks agree is the segment's: chance brings two to agree once in 2^32. So it is where
//! the file's header is left, which names the first segment alone, and another one was begun since.

use std::collections::HashMap;

use zkv_io::StorageFile;

use crate::block::{BlockHeader, BlockKind, Seed};
use crate::header::Identity;
use crate::layout::{
    BLOCK_HEADER_BYTES, COMMIT_BLOCK_BYTES, FILE_HEADER_BYTES, SEGMENT_HEADER_BYTES,
    SLOT_BYTES_MAX, SLOT_BYTES_MIN,
};
use crate::position::Position;
use crate::segment::{Place, SegmentId};
use crate::walk::{CommitMark, commit_block_starts};

use super::checksums::seed_of_block;
use super::identity::Origin;
use super::image::Image;

/// The segment in the first slot, if its blocks agree on a seed. Where further ones are, nobody
/// knows, since nothing tells how long the slots are.
pub(super) fn first_segment(file: &dyn StorageFile, file_bytes: u64) -> Option<(Origin, Place)> {
    let image = Image::read(file, FILE_HEADER_BYTES, SLOT_BYTES_MAX, file_bytes);
    let agreed = agreed(&image.bytes).max_by_key(|agreed| agreed.count)?;
    // Longer than what there is, so that nothing is taken for a seal's place.
    let slot_bytes = (2 * image.end()).checked_next_power_of_two()?;
    let slot_bytes = slot_bytes.clamp(SLOT_BYTES_MIN, SLOT_BYTES_MAX);
    let identity = Identity { store_id: [0; 16], hash_key: [0; 32], slot_bytes };
    let id = SegmentId { sequence: 1, slot: 0, nonce: 0 };
    let place = Place { seed: agreed.seed, ..Place::new(&identity, id) };
    Some((Origin { identity, first_nonce: None }, place))
}

/// Blocks of a slot that agree on a seed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Agreed {
    pub seed: Seed,
    /// How many.
    count: u32,
    /// The number of their last commit.
    pub last_commit: u64,
    /// Up to where they say that the log was durable.
    pub proven: Position,
}

impl Agreed {
    fn new(seed: u32) -> Self {
        let seed = Seed::from_number(seed);
        Self { seed, count: 0, last_commit: 0, proven: Position::default() }
    }
}

/// The seeds with which two or more of the first block and all commit blocks are whole. A value that is a data
/// file itself, and blocks that stand in the wrong place, agree on seeds, too.
pub(super) fn agreed(image: &[u8]) -> impl Iterator<Item = Agreed> {
    let mut votes: HashMap<u32, Agreed> = HashMap::new();
    let mut vote = |offset: u32, bytes: u32| {
        let block = image.get(offset as usize..(offset + bytes) as usize)?;
        let (_, seed) = seed_of_block(block, offset)?;
        let agreed = votes.entry(seed).or_insert_with(|| Agreed::new(seed));
        agreed.count += 1;
        let kind = BlockHeader::decode(*block.first_chunk()?)?.tag.kind;
        if kind == BlockKind::Commit {
            let mark = CommitMark::decode(&block[BLOCK_HEADER_BYTES as usize..])?;
            agreed.last_commit = agreed.last_commit.max(mark.number);
            agreed.proven = agreed.proven.max(mark.synced_upto);
        }
        Some(())
    };
    let first = image.get(SEGMENT_HEADER_BYTES as usize..).and_then(|rest| rest.first_chunk());
    let first = first.and_then(|bytes: &[u8; BLOCK_HEADER_BYTES as usize]| {
        BlockHeader::decode(*bytes).map(|header| header.block_bytes())
    });
    first.and_then(|bytes| vote(SEGMENT_HEADER_BYTES, bytes));
    for start in commit_block_starts(image) {
        let offset = u32::try_from(start).ok().filter(|offset| *offset > SEGMENT_HEADER_BYTES);
        offset.and_then(|offset| vote(offset, COMMIT_BLOCK_BYTES));
    }
    votes.into_values().filter(|agreed| agreed.count >= 2)
}
