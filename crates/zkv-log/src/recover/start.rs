//! Where recovery starts: at a checkpoint's watermark, at a roll call, or at the log's beginning.

use zkv_io::StorageFile;

use crate::block::BlockKind;
use crate::checkpoint::LogCheckpoint;
use crate::error::{LogError, Result};
use crate::header::SegmentHeader;
use crate::layout::{CELL_BYTES, COMMIT_BLOCK_BYTES, FILE_HEADER_BYTES, seal_offset};
use crate::open::OpenFile;
use crate::position::Position;
use crate::segment::{ContentsBuilder, Place, Segment, SegmentId};
use crate::walk::{BlockWalk, Seeds};

use super::{CommitEnd, Recovery, decode_members, read_header, slot_count};

impl<'a> Recovery<'a> {
    pub(super) fn from_checkpoint(open: &'a OpenFile, bytes: &[u8]) -> Result<Self> {
        let slot_bytes = open.identity.slot_bytes;
        let checkpoint =
            LogCheckpoint::decode(bytes, slot_bytes).ok_or(LogError::CheckpointMismatch)?;
        let (tail, full) = checkpoint.segments.split_last().ok_or(LogError::CheckpointMismatch)?;
        let place = Place::new(&open.identity, tail.id);
        let mut recovery = Self::new(open, place)?;
        recovery.check_watermark(place, &checkpoint)?;
        for segment in full {
            let place = Place::new(&open.identity, segment.id);
            recovery.add_member(Segment::sealed(place, segment.data_end));
        }
        recovery.walked.offset = checkpoint.watermark.offset;
        recovery.walked.block_count = checkpoint.block_count;
        recovery.walked.contents = ContentsBuilder::resume(
            slot_bytes,
            checkpoint.dictionary_offsets,
            &checkpoint.cells,
            // The last block is the commit's.
            (checkpoint.watermark.offset - COMMIT_BLOCK_BYTES) / CELL_BYTES,
        );
        recovery.end = CommitEnd {
            position: checkpoint.watermark,
            number: checkpoint.last_commit,
            checksum: checkpoint.watermark_checksum,
            is_end_mark: false,
            block_count: checkpoint.block_count,
            last_cell: recovery.walked.contents.last_cell(),
        };
        recovery.proven = checkpoint.watermark;
        recovery.roll_call.durable = checkpoint.roll_call;
        recovery.replay_from = checkpoint.watermark;
        Ok(recovery)
    }

    /// The watermark is the end of a commit: the same commit must end there now.
    fn check_watermark(&self, place: Place, checkpoint: &LogCheckpoint) -> Result<()> {
        let offset = checkpoint.watermark.offset.checked_sub(COMMIT_BLOCK_BYTES);
        let offset = offset.ok_or(LogError::CheckpointMismatch)?;
        let mut block = [0; COMMIT_BLOCK_BYTES as usize];
        let read = self.open.file.read_at(place.start + u64::from(offset), &mut block);
        let mut walk = BlockWalk::new(&block, offset, Seeds::new(place.seed));
        match (read, walk.next()) {
            (Ok(()), Some(found)) if found.checksum == checkpoint.watermark_checksum => Ok(()),
            _ => Err(LogError::CheckpointMismatch),
        }
    }

    /// Starts at the newest roll call that a segment's header names, or at the log's beginning.
    pub(super) fn from_log(open: &'a OpenFile) -> Result<Self> {
        let file_bytes = open.file.len().map_err(LogError::io("measure"))?;
        let mut headers: Vec<SegmentHeader> =
            (0..slot_count(open, file_bytes)).filter_map(|slot| read_header(open, slot)).collect();
        headers.sort_by_key(|header| std::cmp::Reverse(header.sequence));
        // Any durable roll call will do; the newest is the shortest way.
        for header in &headers {
            if header.roll_call.sequence == 0 {
                break;
            }
            if let Some(recovery) = Self::from_roll_call(open, &headers, header.roll_call)? {
                return Ok(recovery);
            }
        }
        let first = headers.iter().find(|header| header.sequence == 1).map(SegmentHeader::id);
        let by_file_header =
            open.first_nonce.map(|nonce| SegmentId { sequence: 1, slot: 0, nonce });
        match first.or(by_file_header) {
            Some(id) if headers.iter().all(|header| header.roll_call.sequence == 0) => {
                Self::new(open, Place::new(&open.identity, id))
            }
            _ => {
                Err(LogError::Corrupt { offset: FILE_HEADER_BYTES, what: "no roll call is whole" })
            }
        }
    }

    /// `None` where the roll call is not whole.
    fn from_roll_call(
        open: &'a OpenFile,
        headers: &[SegmentHeader],
        roll_call: Position,
    ) -> Result<Option<Self>> {
        let mut holders = headers.iter().filter(|header| header.sequence == roll_call.sequence);
        let found = holders.find_map(|header| {
            let place = Place::new(&open.identity, header.id());
            Some((place, read_roll_call(&*open.file, place, roll_call.offset)?))
        });
        let Some((place, members)) = found else { return Ok(None) };
        let mut recovery = Self::new(open, place)?;
        recovery.roll_call.durable = roll_call;
        for id in members {
            if id.sequence < roll_call.sequence {
                let place = Place::new(&open.identity, id);
                let full = Segment::sealed(place, seal_offset(place.slot_bytes));
                let damaged = || full.damaged(seal_offset(place.slot_bytes), "a segment's seal");
                let seal = full.read_seal(&*open.file).ok_or_else(damaged)?;
                recovery.add_member(Segment::sealed(place, seal.data_end));
            }
        }
        Ok(Some(recovery))
    }
}

fn read_roll_call(file: &dyn StorageFile, place: Place, offset: u32) -> Option<Vec<SegmentId>> {
    let left = place.slot_bytes.checked_sub(offset)?;
    let available = file.len().ok()?.checked_sub(place.start + u64::from(offset))?;
    let mut bytes = vec![0; usize::try_from(available.min(u64::from(left))).ok()?];
    file.read_at(place.start + u64::from(offset), &mut bytes).ok()?;
    let block = BlockWalk::new(&bytes, offset, Seeds::new(place.seed)).next()?;
    (block.tag.kind == BlockKind::RollCall).then(|| decode_members(block.payload).collect())
}
