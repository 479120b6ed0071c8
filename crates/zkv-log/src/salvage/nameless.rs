//! A segment of which nothing says whose it is.
//!
//! A checksum's seed is only 32 bits long, and follows from any block and its checksum. Where all
//! headers are lost, as of a store of one segment whose first pages were overwritten, the seed on
//! which several blocks agree is the segment's: chance brings two to agree once in 2^32.

use std::collections::HashMap;

use zkv_io::StorageFile;

use crate::block::{BlockHeader, Seed};
use crate::header::Identity;
use crate::layout::{
    BLOCK_HEADER_BYTES, COMMIT_BLOCK_BYTES, FILE_HEADER_BYTES, SEGMENT_HEADER_BYTES,
    SLOT_BYTES_MAX, SLOT_BYTES_MIN,
};
use crate::mark::commit_block_starts;
use crate::segment::{Place, SegmentId};

use super::checksums::seed_of_block;
use super::identity::Origin;
use crate::image::Image;

/// The segment in the first slot, if its blocks agree on a seed. Where further ones are, nobody
/// knows, since nothing tells how long the slots are.
pub(super) fn first_segment(file: &dyn StorageFile, file_bytes: u64) -> Option<(Origin, Place)> {
    let image = Image::read(file, FILE_HEADER_BYTES, SLOT_BYTES_MAX, file_bytes);
    let seed = seed_of_most(&image.bytes)?;
    // Longer than what there is, so that nothing is taken for a seal's place.
    let slot_bytes = (2 * image.end()).checked_next_power_of_two()?;
    let slot_bytes = slot_bytes.clamp(SLOT_BYTES_MIN, SLOT_BYTES_MAX);
    let identity = Identity { store_id: [0; 16], hash_key: [0; 32], slot_bytes };
    let id = SegmentId { sequence: 1, slot: 0, nonce: 0 };
    let place = Place { seed, ..Place::new(&identity, id) };
    Some((Origin { identity, first_nonce: None }, place))
}

/// The seed with which most of the first block and all commit blocks are whole, if at least two are.
fn seed_of_most(image: &[u8]) -> Option<Seed> {
    let mut votes: HashMap<u32, u32> = HashMap::new();
    let mut vote = |offset: u32, bytes: u32| {
        let block = image.get(offset as usize..(offset + bytes) as usize)?;
        *votes.entry(seed_of_block(block, offset)?).or_default() += 1;
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
    let agreed = votes.into_iter().filter(|(_, count)| *count >= 2);
    agreed.max_by_key(|(_, count)| *count).map(|(seed, _)| Seed::from_number(seed))
}
