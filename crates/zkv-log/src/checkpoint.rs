//! What an index checkpoint keeps of the log, so that opening need not read it again.
//!
//! It is valid only for the log's state at its watermark or later, which recovery checks.

use std::collections::HashSet;

use zkv_io::Cursor;

use crate::dictionary::DictionaryDigest;
use crate::layout::{
    BLOCK_HEADER_BYTES, CELL_BYTES, COMMIT_BLOCK_BYTES, DICTIONARIES_MAX, NUMBER_MAX,
    SEGMENT_HEADER_BYTES, seal_offset,
};
use crate::position::Position;
use crate::segment::SegmentId;
use crate::walk::Chain;

/// The log at its watermark, the end of a commit that is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogCheckpoint {
    pub last_commit: u64,
    /// In the last of `segments`.
    pub watermark: Position,
    /// The checksum of the commit block that ends at the watermark.
    pub watermark_checksum: u32,
    pub roll_call: Position,
    /// The blocks of the last segment, and its dictionaries.
    pub block_count: u32,
    /// The chain behind the watermark's commit.
    pub chain: Chain,
    pub dictionaries: Vec<CheckpointDictionary>,
    /// In the order of their sequence numbers; all but the last are sealed.
    pub segments: Vec<CheckpointSegment>,
    /// The last segment's cell table up to the watermark.
    pub cells: Vec<u8>,
}

/// A dictionary of the last segment: its name is kept, so that recovery need not read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointDictionary {
    pub offset: u32,
    pub digest: DictionaryDigest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointSegment {
    pub id: SegmentId,
    pub data_end: u32,
}

impl LogCheckpoint {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut into = Vec::new();
        into.extend(self.last_commit.to_le_bytes());
        into.extend(self.watermark.sequence.to_le_bytes());
        into.extend(self.watermark.offset.to_le_bytes());
        into.extend(self.watermark_checksum.to_le_bytes());
        into.extend(self.roll_call.sequence.to_le_bytes());
        into.extend(self.roll_call.offset.to_le_bytes());
        into.extend(self.block_count.to_le_bytes());
        into.extend(self.chain.0.to_le_bytes());
        let mut offsets = [0; DICTIONARIES_MAX];
        for (place, dictionary) in offsets.iter_mut().zip(&self.dictionaries) {
            *place = dictionary.offset;
        }
        for offset in offsets {
            into.extend(offset.to_le_bytes());
        }
        // Slots are numbered with 32 bits.
        into.extend(u32::try_from(self.segments.len()).unwrap_or(u32::MAX).to_le_bytes());
        for segment in &self.segments {
            into.extend(segment.id.sequence.to_le_bytes());
            into.extend(segment.id.slot.to_le_bytes());
            into.extend(segment.id.nonce.to_le_bytes());
            into.extend(segment.data_end.to_le_bytes());
        }
        for dictionary in &self.dictionaries {
            into.extend(dictionary.digest);
        }
        into.extend(&self.cells);
        into
    }

    /// `None` where the bytes hold no checkpoint that could be true of a log with such slots.
    pub(crate) fn decode(bytes: &[u8], slot_bytes: u32) -> Option<Self> {
        let cursor = &mut Cursor::new(bytes);
        let last_commit = cursor.u64().ok()?;
        let watermark = take_position(cursor)?;
        let watermark_checksum = cursor.u32().ok()?;
        let roll_call = take_position(cursor)?;
        let (block_count, chain) = (cursor.u32().ok()?, Chain(cursor.u32().ok()?));
        let mut dictionary_offsets = [0; DICTIONARIES_MAX];
        for offset in &mut dictionary_offsets {
            *offset = cursor.u32().ok()?;
        }
        let segment_count = cursor.u32().ok()?;
        let mut segments: Vec<CheckpointSegment> = Vec::new();
        let mut slots = HashSet::new();
        for _ in 0..segment_count {
            let segment = CheckpointSegment::take(cursor)?;
            let ascending =
                segments.last().is_none_or(|last| last.id.sequence < segment.id.sequence);
            if !ascending || segment.data_end > slot_bytes || !slots.insert(segment.id.slot) {
                return None;
            }
            segments.push(segment);
        }
        let mut dictionaries = Vec::new();
        for offset in dictionary_offsets.into_iter().take_while(|offset| *offset != 0) {
            dictionaries.push(CheckpointDictionary { offset, digest: cursor.array().ok()? });
        }
        let last = segments.last()?;
        let blocks = SEGMENT_HEADER_BYTES + COMMIT_BLOCK_BYTES..=seal_offset(slot_bytes);
        let cells = cursor.rest().to_vec();
        let complete = blocks.contains(&watermark.offset)
            && last_commit < NUMBER_MAX
            && watermark.sequence < NUMBER_MAX
            && block_count <= slot_bytes / BLOCK_HEADER_BYTES
            && dictionaries.iter().all(|dictionary| dictionary.offset < watermark.offset)
            && last.id.sequence == watermark.sequence
            && last.data_end == watermark.offset
            && cells.len() == watermark.offset.div_ceil(CELL_BYTES) as usize;
        complete.then_some(Self {
            last_commit,
            watermark,
            watermark_checksum,
            roll_call,
            block_count,
            chain,
            dictionaries,
            segments,
            cells,
        })
    }
}

impl CheckpointSegment {
    fn take(cursor: &mut Cursor<'_>) -> Option<Self> {
        let (sequence, slot) = (cursor.u64().ok()?, cursor.u32().ok()?);
        let id = SegmentId { sequence, slot, nonce: cursor.u64().ok()? };
        Some(Self { id, data_end: cursor.u32().ok()? })
    }
}

fn take_position(cursor: &mut Cursor<'_>) -> Option<Position> {
    crate::header::take_position(cursor).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_round_trips_and_no_truncation_decodes() {
        let segment = |slot: u32, data_end| CheckpointSegment {
            id: SegmentId { sequence: slot.into(), slot, nonce: 9 },
            data_end,
        };
        let checkpoint = LogCheckpoint {
            last_commit: 12,
            watermark: Position { sequence: 7, offset: 600 },
            watermark_checksum: 77,
            roll_call: Position { sequence: 7, offset: 300 },
            block_count: 8,
            chain: Chain(5),
            dictionaries: vec![CheckpointDictionary { offset: 300, digest: [6; 32] }],
            segments: vec![segment(2, 65_000), segment(7, 600)],
            cells: vec![1, 2, 3],
        };
        let bytes = checkpoint.encode();
        assert_eq!(LogCheckpoint::decode(&bytes, 1 << 16).as_ref(), Some(&checkpoint));
        for end in 0..bytes.len() {
            assert_eq!(LogCheckpoint::decode(&bytes[..end], 1 << 16), None);
        }
        let mut twice = checkpoint;
        twice.segments[0].id.slot = twice.segments[1].id.slot;
        assert_eq!(LogCheckpoint::decode(&twice.encode(), 1 << 16), None, "a slot has one segment");
    }
}
