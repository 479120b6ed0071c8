//! What stands behind the last whole commit: nothing, a tail that a crash has torn, or damage.

use std::collections::HashSet;

use crate::checkpoint::LogCheckpoint;
use crate::error::{LogError, Result};
use crate::layout::{SEGMENT_HEADER_BYTES, seal_offset};
use crate::position::Position;
use crate::seal::Seal;
use crate::segment::{Place, Segment, SegmentId};
use crate::walk::latest_proof;

use super::{Leftover, Recovery, read_header, slot_count};

impl Recovery<'_> {
    /// The walk has stopped at `stop`, with `rest` behind it, and perhaps a seal that leads nowhere.
    /// Whatever was synced has left proof in a later commit block, wherever that stands.
    pub(super) fn judge_end(
        &mut self,
        stop: u32,
        rest: &[u8],
        seal: Option<&Seal>,
    ) -> Result<Leftover> {
        let place = self.walked.place;
        let mut proof = self.proven.max(latest_proof(rest, stop, place.seed).unwrap_or_default());
        if let Some(seal) = seal {
            // Of the segment that should go on, header and first block may be lost, and later ones
            // not.
            proof = proof.max(self.proof_within(self.next_place(seal))?);
        }
        let mut leftover = Leftover::default();
        let members: HashSet<SegmentId> = self.member_ids().collect();
        for slot in 0..slot_count(self.open, self.file_bytes) {
            let Some(header) = read_header(self.open, slot) else { continue };
            let is_known = header.id() == place.id || members.contains(&header.id());
            if !is_known && header.sequence > self.end.position.sequence {
                let stray = Place::new(&self.open.identity, header.id());
                proof = proof.max(header.synced_upto).max(self.proof_within(stray)?);
                leftover.stray_slots.push(slot);
            }
        }
        let stopped_at = Position { sequence: place.id.sequence, offset: stop };
        if proof > self.end.position {
            return Err(LogError::corrupt(place.start, stopped_at, "a block that was durable"));
        }
        leftover.needs_wipe = self.end.position != stopped_at || rest.iter().any(|byte| *byte != 0);
        Ok(leftover)
    }

    fn proof_within(&self, place: Place) -> Result<Position> {
        let image = self.read_slot(place, SEGMENT_HEADER_BYTES)?;
        let seal =
            Segment::sealed(place, seal_offset(place.slot_bytes)).read_seal(&*self.open.file);
        let in_seal = seal.map(|seal| seal.synced_upto);
        Ok(latest_proof(&image, SEGMENT_HEADER_BYTES, place.seed).max(in_seal).unwrap_or_default())
    }

    /// A checkpoint that does not fit proves something all the same: if it is of this log's past,
    /// the log was durable up to its watermark. A log that ends before that with something behind
    /// its end is damaged there; one that ends cleanly is an older copy.
    pub(super) fn hold_against(
        &self,
        checkpoint: &LogCheckpoint,
        leftover: &Leftover,
    ) -> Result<()> {
        let end = self.end.position;
        let tail = if self.walked.place.id.sequence == end.sequence {
            Some(self.walked.place)
        } else {
            self.left_behind.as_ref().map(|left| left.place)
        };
        let is_its_past = tail
            .is_some_and(|tail| checkpoint.segments.iter().any(|segment| segment.id == tail.id));
        match tail {
            Some(tail) if is_its_past && end < checkpoint.watermark && leftover.needs_wipe => {
                let what = "a block that the index knows to be durable";
                Err(LogError::corrupt(tail.start, end, what))
            }
            _ => Ok(()),
        }
    }
}
