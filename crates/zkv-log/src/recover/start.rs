//! Where recovery starts: at a checkpoint's watermark, at a roll call, or at the log's beginning.

use std::collections::HashSet;

use zkv_io::StorageFile;

use crate::block::{BlockHeader, BlockKind, is_whole};
use crate::checkpoint::LogCheckpoint;
use crate::error::{LogError, Result};
use crate::header::SegmentHeader;
use crate::layout::{BLOCK_HEADER_BYTES, CELL_BYTES, COMMIT_BLOCK_BYTES, FILE_HEADER_BYTES};
use crate::open::OpenFile;
use crate::position::{FIRST_END, Position};
use crate::segment::{ContentsBuilder, Place, Segment, SegmentId};
use crate::walk::{BlockWalk, Seeds};

use super::{CommitEnd, Leftover, Recovery, WalkedSegment};

/// How many of the roll calls that headers name are tried, the newest first. Each may cost a slot's
/// bytes to read, and a forged file may name another one in each header.
const ROLL_CALLS_TRIED_MAX: usize = 64;
/// How many segments of one sequence number are looked at for a roll call: the log's own, and those
/// that crashes have left.
const ROLL_CALL_HOLDERS_MAX: usize = 8;

impl<'a> Recovery<'a> {
    pub(super) fn from_checkpoint(open: &'a OpenFile, checkpoint: &LogCheckpoint) -> Result<Self> {
        let (tail, full) = checkpoint.segments.split_last().ok_or(LogError::CheckpointMismatch)?;
        let place = Place::new(&open.identity, tail.id);
        let mut recovery = Self::new(open, place)?;
        recovery.check_watermark(place, checkpoint)?;
        let mut known_slots = HashSet::from([tail.id.slot]);
        for segment in full {
            if !known_slots.insert(segment.id.slot) {
                return Err(LogError::CheckpointMismatch);
            }
            let place = Place::new(&open.identity, segment.id);
            recovery.add_member(Segment::sealed(place, segment.data_end));
        }
        recovery.walked.offset = checkpoint.watermark.offset;
        recovery.walked.block_count = checkpoint.block_count;
        recovery.walked.chain = checkpoint.chain;
        recovery.walked.contents = ContentsBuilder::resume(
            open.identity.slot_bytes,
            &checkpoint.dictionaries,
            &checkpoint.cells,
            // The last block is the commit's.
            (checkpoint.watermark.offset - COMMIT_BLOCK_BYTES) / CELL_BYTES,
        );
        recovery.end = CommitEnd {
            position: checkpoint.watermark,
            number: checkpoint.last_commit,
            checksum: checkpoint.watermark_checksum,
            is_closed: false,
            block_count: checkpoint.block_count,
            chain: checkpoint.chain,
            last_cell: recovery.walked.contents.last_cell(),
        };
        recovery.proven = checkpoint.watermark;
        recovery.roll_call.durable = checkpoint.roll_call;
        recovery.replay_from = Some(checkpoint.watermark);
        Ok(recovery)
    }

    /// The watermark is the end of a commit: the same commit must end there now. It may still be
    /// found in a slot that another segment has begun to fill.
    fn check_watermark(&self, place: Place, checkpoint: &LogCheckpoint) -> Result<()> {
        let first = self.open.slots().header_at_start(place.id.slot);
        if first.is_some_and(|header| header.id() != place.id) {
            return Err(LogError::CheckpointMismatch);
        }
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

    /// Walks to the log's end from the newest roll call that a segment's header names, or from the
    /// log's beginning.
    pub(super) fn follow_log(open: &'a OpenFile) -> Result<(Self, Leftover)> {
        let file_bytes = open.file.len().map_err(LogError::io("measure"))?;
        let slots = 0..open.identity.slot_count(file_bytes);
        let headers: Vec<SegmentHeader> =
            slots.filter_map(|slot| open.slots().header(slot)).collect();
        // From an older one, the way may lead through slots that are used again.
        let mut roll_calls: Vec<Position> = headers.iter().map(|header| header.roll_call).collect();
        roll_calls.retain(|roll_call| roll_call.sequence > 0);
        roll_calls.sort_by_key(|roll_call| std::cmp::Reverse(*roll_call));
        roll_calls.dedup();
        for roll_call in roll_calls.into_iter().take(ROLL_CALLS_TRIED_MAX) {
            let Some(mut recovery) = Self::from_roll_call(open, &headers, roll_call)? else {
                continue;
            };
            let leftover = recovery.follow()?;
            // One with which its segment opens is named before its commit is whole.
            if recovery.start_roll_call.is_none() {
                return Ok((recovery, leftover));
            }
        }
        let first = headers.iter().find(|header| header.sequence == 1).map(SegmentHeader::id);
        let by_file_header =
            open.first_nonce.map(|nonce| SegmentId { sequence: 1, slot: 0, nonce });
        match first.or(by_file_header) {
            // A base whose roll call is not whole yet has freed nothing.
            Some(id)
                if headers
                    .iter()
                    .all(|header| header.roll_call.sequence == 0 || header.is_base()) =>
            {
                let mut recovery = Self::new(open, Place::new(&open.identity, id))?;
                let leftover = recovery.follow()?;
                recovery.check_beginning(&leftover)?;
                Ok((recovery, leftover))
            }
            _ => {
                Err(LogError::Corrupt { offset: FILE_HEADER_BYTES, what: "no roll call is whole" })
            }
        }
    }

    /// The first segment's header was durable before the file had its name. Where that is not whole, and
    /// nothing of the segment is found, what stands there was begun later, by a writer that knew a roll call;
    /// and where zeros stand there, or the file ends before it, whatever the page had is lost. A damaged header
    /// with nothing behind it is that of an empty log.
    fn check_beginning(&self, leftover: &Leftover) -> Result<()> {
        let WalkedSegment { place, offset, .. } = &self.walked;
        let stands_at = Position { sequence: place.id.sequence, offset: *offset };
        let slots = self.open.slots();
        let first = slots.header_at_start(place.id.slot);
        let is_there = FIRST_END < stands_at || first.is_some_and(|first| first.id() == place.id);
        let is_lost = slots.is_header_zero(place.id.slot)?;
        match is_there || !(leftover.needs_wipe || is_lost) {
            true => Ok(()),
            false => {
                let what = "the header of the segment in the first slot";
                Err(LogError::Corrupt { offset: place.start, what })
            }
        }
    }

    /// `None` where the roll call is not whole.
    fn from_roll_call(
        open: &'a OpenFile,
        headers: &[SegmentHeader],
        roll_call: Position,
    ) -> Result<Option<Self>> {
        let mut holders: Vec<&SegmentHeader> =
            headers.iter().filter(|header| header.sequence == roll_call.sequence).collect();
        // A segment that a power cut has made a stray may still have its header, and a base its number:
        // the base came later.
        holders.sort_by_key(|header| !header.is_base());
        let place = holders.into_iter().take(ROLL_CALL_HOLDERS_MAX).find_map(|header| {
            let place = Place::new(&open.identity, header.id());
            is_roll_call(&*open.file, place, roll_call.offset).then_some(place)
        });
        let Some(place) = place else { return Ok(None) };
        let mut recovery = Self::new(open, place)?;
        recovery.roll_call.durable = roll_call;
        recovery.start_roll_call = Some(roll_call);
        Ok(Some(recovery))
    }
}

/// Whether a whole roll call block stands at `offset`.
fn is_roll_call(file: &dyn StorageFile, place: Place, offset: u32) -> bool {
    let mut header = [0; BLOCK_HEADER_BYTES as usize];
    let start = place.start + u64::from(offset);
    if offset >= place.slot_bytes || file.read_at(start, &mut header).is_err() {
        return false;
    }
    let Some(header) = BlockHeader::decode(header) else { return false };
    let mut bytes = vec![0; header.block_bytes() as usize];
    header.block_bytes() <= place.slot_bytes
        && header.tag.kind == BlockKind::RollCall
        && file.read_at(start, &mut bytes).is_ok()
        && is_whole(&bytes, place.seed, offset)
}
