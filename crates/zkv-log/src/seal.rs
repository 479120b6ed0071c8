//! The seal: the last block of a full segment, at a fixed place, so that opening follows a chain of
//! seals instead of scanning, and a reader finds blocks by cell.

use zkv_io::Cursor;

use crate::block::{BlockHeader, BlockKind, Seed, Tag, is_whole, put_block};
use crate::header::{SegmentHeader, put_position, take_position};
use crate::layout::{
    BLOCK_HEADER_BYTES, CELL_BYTES, DICTIONARIES_MAX, SEAL_FIELD_BYTES, SEGMENT_HEADER_FIELD_BYTES,
    seal_offset,
};
use crate::position::Position;
use crate::segment::Place;

/// What a seal says of its segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seal {
    pub data_end: u32,
    pub block_count: u32,
    pub last_commit: u64,
    pub synced_upto: Position,
    /// The segment that goes on.
    pub next_slot: u32,
    pub next_nonce: u64,
    /// BLAKE3 of the segment's bytes up to `data_end`.
    pub digest: [u8; 32],
    /// Where the dictionaries' blocks stand; 0 where there is none of that number.
    pub dictionary_offsets: [u32; DICTIONARIES_MAX],
    /// The segment's header again.
    pub header: SegmentHeader,
    /// For each cell, where in it the first block starts that starts in it.
    pub cells: Vec<u8>,
}

impl Seal {
    /// The whole block, for the place where a seal stands.
    pub(crate) fn encode_block(&self, seed: Seed) -> Vec<u8> {
        let mut payload = Vec::with_capacity(SEAL_FIELD_BYTES + self.cells.len());
        payload.extend(self.header.sequence.to_le_bytes());
        payload.extend(self.header.nonce.to_le_bytes());
        payload.extend(self.data_end.to_le_bytes());
        payload.extend(self.block_count.to_le_bytes());
        payload.extend(self.last_commit.to_le_bytes());
        put_position(&mut payload, self.synced_upto);
        payload.extend(self.next_slot.to_le_bytes());
        payload.extend(self.next_nonce.to_le_bytes());
        payload.extend(self.digest);
        for offset in self.dictionary_offsets {
            payload.extend(offset.to_le_bytes());
        }
        payload.extend(self.header.encode());
        payload.extend(&self.cells);
        let mut block = Vec::with_capacity(payload.len() + BLOCK_HEADER_BYTES as usize);
        let tag = Tag { kind: BlockKind::Seal, number: 0 };
        put_block(&mut block, seed, seal_offset(self.header.identity.slot_bytes), tag, &[&payload]);
        block
    }

    /// Decodes the block at a seal's place; `None` where no seal of this segment stands there.
    ///
    /// The checksum is of 32 bits, so whoever chooses nonces can make it fit several segments. That
    /// the seal names its own keeps a forged chain of seals from leading anywhere twice.
    pub(crate) fn decode_block(block: &[u8], place: &Place) -> Option<Self> {
        let header = BlockHeader::decode(*block.first_chunk()?)?;
        let offset = seal_offset(place.slot_bytes);
        if header.tag.kind != BlockKind::Seal || !is_whole(block, place.seed, offset) {
            return None;
        }
        let mut cursor = Cursor::new(&block[BLOCK_HEADER_BYTES as usize..]);
        let seal = Self::decode(&mut cursor)?;
        let cells = seal.cells.len() == (place.slot_bytes / CELL_BYTES) as usize;
        (cells && seal.data_end <= offset && seal.header.id() == place.id).then_some(seal)
    }

    fn decode(cursor: &mut Cursor<'_>) -> Option<Self> {
        let (sequence, nonce) = (cursor.u64().ok()?, cursor.u64().ok()?);
        let (data_end, block_count) = (cursor.u32().ok()?, cursor.u32().ok()?);
        let last_commit = cursor.u64().ok()?;
        let synced_upto = take_position(cursor).ok()?;
        let (next_slot, next_nonce) = (cursor.u32().ok()?, cursor.u64().ok()?);
        let digest = cursor.array().ok()?;
        let mut dictionary_offsets = [0; DICTIONARIES_MAX];
        for offset in &mut dictionary_offsets {
            *offset = cursor.u32().ok()?;
        }
        let header = SegmentHeader::decode(cursor.bytes(SEGMENT_HEADER_FIELD_BYTES).ok()?).ok()?;
        let cells = cursor.rest().to_vec();
        (header.sequence == sequence && header.nonce == nonce).then_some(Self {
            data_end,
            block_count,
            last_commit,
            synced_upto,
            next_slot,
            next_nonce,
            digest,
            dictionary_offsets,
            header,
            cells,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::Identity;
    use crate::layout::SLOT_BYTES_MIN;
    use crate::segment::SegmentId;

    #[test]
    fn a_seal_round_trips_and_every_flipped_bit_is_found() {
        let identity =
            Identity { store_id: [1; 16], hash_key: [2; 32], slot_bytes: SLOT_BYTES_MIN };
        let seal = Seal {
            data_end: 5000,
            block_count: 12,
            last_commit: 3,
            synced_upto: Position { sequence: 4, offset: 9 },
            next_slot: 8,
            next_nonce: 11,
            digest: [6; 32],
            dictionary_offsets: std::array::from_fn(|number| u32::try_from(number).unwrap() * 300),
            header: SegmentHeader {
                identity,
                sequence: 4,
                slot: 7,
                nonce: 10,
                roll_call: Position::default(),
                synced_upto: Position::default(),
            },
            cells: (0..=255).collect(),
        };
        let id = SegmentId { sequence: 4, slot: 7, nonce: 10 };
        let place = Place::new(&seal.header.identity, id);
        let block = seal.encode_block(place.seed);
        let decode = |block: &[u8]| Seal::decode_block(block, &place);
        assert_eq!(decode(&block), Some(seal));
        for bit in 0..block.len() * 8 {
            let mut flipped = block.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped), None, "bit {bit}");
        }
        for end in 0..block.len() {
            assert_eq!(decode(&block[..end]), None);
        }
        // Another segment that the checksum fits: its nonce was chosen so.
        let other = Place { id: SegmentId { sequence: 5, ..id }, ..place };
        assert_eq!(Seal::decode_block(&block, &other), None);
    }
}
