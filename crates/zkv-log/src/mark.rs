//! What a commit block says, and commit blocks wherever they stand.
//!
//! A commit names its segment, and is signed: so one that is found tells whose it is, where the headers and seals
//! that should are lost, and no value can pass for one. Its checksum alone could not: a CRC is linear, so that any
//! 32 bits are right for some segment, and whoever supplies values can make them agree.

use zkv_io::Cursor;

use crate::block::{BlockKind, END_MARK, Seed, Tag, is_whole, put_block};
use crate::header::{Identity, put_position, take_position};
use crate::layout::{BLOCK_HEADER_BYTES, COMMIT_BLOCK_BYTES, COMMIT_BYTES, NUMBER_MAX};
use crate::position::Position;
use crate::segment::{Place, SegmentId};
use crate::walk::Chain;

/// One in 2^64 forged ones passes.
const SIGNATURE_BYTES: usize = 8;

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

/// A commit block that was found by its signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SignedCommit {
    /// The segment that it was written for.
    pub id: SegmentId,
    /// Where it stands there.
    pub offset: u32,
    pub synced_upto: Position,
}

impl CommitMark {
    /// Appends the commit block that will stand at `offset` of the segment at `place`.
    pub(crate) fn put(self, into: &mut Vec<u8>, place: &Place, offset: u32, is_end_mark: bool) {
        let mut payload = Vec::with_capacity(COMMIT_BYTES);
        payload.extend(self.number.to_le_bytes());
        payload.extend(place.id.sequence.to_le_bytes());
        payload.extend(place.id.nonce.to_le_bytes());
        put_position(&mut payload, self.synced_upto);
        payload.extend(self.chain.0.to_le_bytes());
        payload.extend([0; SIGNATURE_BYTES]);
        sign(&mut payload, &place.store_id, place.id.slot, offset);
        let number = if is_end_mark { END_MARK } else { 0 };
        put_block(into, place.seed, offset, Tag { kind: BlockKind::Commit, number }, &[&payload]);
    }

    /// What the payload of a whole commit block says: its checksum has bound it to its segment.
    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(payload);
        let number = cursor.u64().ok()?;
        let _segment: [u8; 16] = cursor.array().ok()?;
        let synced_upto = take_position(&mut cursor).ok()?;
        let chain = Chain(cursor.u32().ok()?);
        let _signature: [u8; SIGNATURE_BYTES] = cursor.array().ok()?;
        cursor.finish().ok()?;
        (number < NUMBER_MAX).then_some(Self { number, synced_upto, chain })
    }
}

/// The segment for which the payload of a commit block at `offset` of a slot was signed; `None` where it was not,
/// or by another store, or for another place.
pub(crate) fn signed_segment(
    payload: &[u8],
    store_id: &[u8; 16],
    slot: u32,
    offset: u32,
) -> Option<SegmentId> {
    let id = named_segment(payload, slot)?;
    let (fields, found) = payload.split_last_chunk::<SIGNATURE_BYTES>()?;
    (*found == signature(store_id, slot, offset, fields)).then_some(id)
}

/// The segment of `slot` that the payload of a commit block names, signed or not.
fn named_segment(payload: &[u8], slot: u32) -> Option<SegmentId> {
    let mut cursor = Cursor::new(payload);
    cursor.u64().ok()?;
    let id = SegmentId { sequence: cursor.u64().ok()?, slot, nonce: cursor.u64().ok()? };
    (1..NUMBER_MAX).contains(&id.sequence).then_some(id)
}

/// Signs the payload of a commit block that will stand at `offset` of `slot`.
pub(crate) fn sign(payload: &mut [u8], store_id: &[u8; 16], slot: u32, offset: u32) {
    if let Some((fields, into)) = payload.split_last_chunk_mut::<SIGNATURE_BYTES>() {
        *into = signature(store_id, slot, offset, fields);
    }
}

/// Nobody knows a store's id who has not read its files.
fn signature(store_id: &[u8; 16], slot: u32, offset: u32, fields: &[u8]) -> [u8; SIGNATURE_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(store_id).update(&slot.to_le_bytes()).update(&offset.to_le_bytes());
    let hash = hasher.update(fields).finalize();
    hash.as_bytes().first_chunk().copied().unwrap_or_default()
}

/// The whole commit blocks of the log with this identity in `bytes`, which stand at `offset` of `slot`, whichever
/// segment they were written for, and whatever is lost around them.
pub(crate) fn commits_in<'a>(
    bytes: &'a [u8],
    offset: u32,
    identity: &'a Identity,
    slot: u32,
) -> impl Iterator<Item = SignedCommit> + 'a {
    commit_block_starts(bytes).filter_map(move |start| {
        let block = bytes.get(start..start + COMMIT_BLOCK_BYTES as usize)?;
        let offset = offset + u32::try_from(start).ok()?;
        let payload = &block[BLOCK_HEADER_BYTES as usize..];
        let mark = CommitMark::decode(payload)?;
        let id = named_segment(payload, slot)?;
        // The checksum first: bytes that look like commits may fill a file, and a signature takes three times as long.
        let seed = Seed::of_segment(&identity.store_id, id);
        let is_ours = is_whole(block, seed, offset)
            && signed_segment(payload, &identity.store_id, slot, offset).is_some();
        is_ours.then_some(SignedCommit { id, offset, synced_upto: mark.synced_upto })
    })
}

/// The latest place that one of [`commits_in`] proves durable.
///
/// This is how a torn tail is told from damage: behind a bad block, whatever was synced has proof.
pub(crate) fn latest_proof(
    bytes: &[u8],
    offset: u32,
    identity: &Identity,
    slot: u32,
) -> Option<Position> {
    commits_in(bytes, offset, identity, slot).map(|commit| commit.synced_upto).max()
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

    const ID: SegmentId = SegmentId { sequence: 9, slot: 2, nonce: 3 };
    const MARK: CommitMark = CommitMark {
        number: 4,
        synced_upto: Position { sequence: 2, offset: 99 },
        chain: Chain(7),
    };

    fn identity(store: u8) -> Identity {
        Identity { store_id: [store; 16], hash_key: [2; 32], slot_bytes: 64 << 10 }
    }

    /// A commit at 300, behind what is no block.
    fn bytes() -> Vec<u8> {
        let mut bytes = vec![6; 44];
        MARK.put(&mut bytes, &Place::new(&identity(1), ID), 300, false);
        bytes.extend([6; 60]);
        bytes
    }

    #[test]
    fn a_commit_is_found_wherever_it_stands_and_says_whose_it_is() {
        let found: Vec<SignedCommit> = commits_in(&bytes(), 256, &identity(1), 2).collect();
        assert_eq!(found, [SignedCommit { id: ID, offset: 300, synced_upto: MARK.synced_upto }]);
        assert_eq!(latest_proof(&bytes(), 256, &identity(1), 2), Some(MARK.synced_upto));
        let block = &bytes()[44..44 + COMMIT_BLOCK_BYTES as usize];
        let decoded = CommitMark::decode(&block[BLOCK_HEADER_BYTES as usize..]);
        assert_eq!(decoded, Some(MARK));
    }

    #[test]
    fn a_commit_that_was_moved_or_is_another_stores_is_none() {
        for offset in (0..256).chain(257..600) {
            assert_eq!(latest_proof(&bytes(), offset, &identity(1), 2), None, "{offset}");
        }
        assert_eq!(latest_proof(&bytes(), 256, &identity(1), 3), None);
        assert_eq!(latest_proof(&bytes(), 256, &identity(2), 2), None);
    }

    #[test]
    fn a_flip_makes_a_commit_none_whether_its_checksum_is_right_or_not() {
        let seed = Place::new(&identity(1), ID).seed;
        for bit in 44 * 8..(44 + COMMIT_BLOCK_BYTES as usize) * 8 {
            let mut flipped = bytes();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(latest_proof(&flipped, 256, &identity(1), 2), None, "bit {bit}");
            if bit < 52 * 8 {
                continue;
            }
            let block = &mut flipped[44..44 + COMMIT_BLOCK_BYTES as usize];
            let checksum = seed.checksum(300, &block[4..]);
            block[..4].copy_from_slice(&checksum.to_le_bytes());
            assert_eq!(latest_proof(&flipped, 256, &identity(1), 2), None, "bit {bit}, forged");
        }
    }

    #[test]
    fn a_commit_of_a_segment_without_a_number_is_none() {
        for (sequence, is_one) in
            [(0, false), (1, true), (NUMBER_MAX - 1, true), (NUMBER_MAX, false)]
        {
            let mut bytes = vec![6; 44];
            let id = SegmentId { sequence, ..ID };
            MARK.put(&mut bytes, &Place::new(&identity(1), id), 300, false);
            assert_eq!(latest_proof(&bytes, 256, &identity(1), 2).is_some(), is_one, "{sequence}");
        }
    }

    /// Whatever the seed, some checksum is right; and a file that is a value has them all.
    #[test]
    fn a_commit_without_a_signature_is_none() {
        let mut payload = bytes()[52..44 + COMMIT_BLOCK_BYTES as usize].to_vec();
        payload[COMMIT_BYTES - SIGNATURE_BYTES..].fill(0);
        assert_eq!(signed_segment(&payload, &[1; 16], 2, 300), None);
        assert_eq!(signed_segment(&payload[1..], &[1; 16], 2, 300), None);
        assert_eq!(signed_segment(&[], &[1; 16], 2, 300), None);
    }
}
