//! What stands behind the last whole commit: nothing, a tail that a crash has torn, or damage.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use crate::block::BlockHeader;
use crate::checkpoint::LogCheckpoint;
use crate::error::{LogError, Result};
use crate::header::SegmentHeader;
use crate::image::Image;
use crate::layout::{BLOCK_HEADER_BYTES, SEGMENT_HEADER_BYTES, seal_offset};
use crate::mark::{commits_in, latest_proof};
use crate::position::Position;
use crate::seal::Seal;
use crate::segment::{Place, Segment, SegmentId};
use crate::slots::header_copy_in;

use super::{Leftover, Recovery};

/// How many slots of each [`Start`] are read for proof. Damage leaves one of them or two; a commit that was given
/// up, segments that were freed, or a file made for it, may leave thousands.
const DOUBTFUL_TRIED_MAX: usize = 4;

/// A slot that does not begin as the segment there does, as far as that is known.
struct Doubtful {
    slot: u32,
    start: Start,
    /// Whether no segment of the log fills it.
    is_free: bool,
}

impl Doubtful {
    /// Whether a crash may have left something there of which no header tells.
    fn may_hide_a_stray(&self) -> bool {
        // A slot is used again once its new header is durable.
        self.is_free && self.start != Start::Older
    }
}

/// What a slot begins with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// Nothing that is the header of a segment in its place.
    NoHeader,
    /// The header of a segment from before the log's end, which is no part of the log any longer.
    Older,
    /// Zeros up to where the blocks start, as where a commit was given up.
    Wiped,
}

impl Recovery<'_> {
    /// The walk has stopped, within `image`, which begins at `first` of its segment, and perhaps with a seal behind
    /// it that leads nowhere. Whatever was synced has left proof in a later commit block, wherever that stands.
    pub(super) fn judge_end(
        &mut self,
        image: &Image,
        first: u32,
        seal: Option<&Seal>,
    ) -> Result<Leftover> {
        let (place, stop) = (self.walked.place, self.walked.offset);
        if seal.is_none_or(|seal| seal.data_end != stop) {
            check_is_read(image, first, stop, place)?;
        }
        let rest = image.bytes.get((stop - first) as usize..).unwrap_or(&[]);
        // What older segments of the slot have left proves nothing, since it was durable before this one was
        // begun. A later one is there where the slot's first pages have gone back to what they were before it.
        let behind = latest_proof(rest, stop, &self.open.identity, place.id.slot);
        let mut proof = self.proven.max(behind.unwrap_or_default());
        if let Some(seal) = seal {
            // Of the segment that should go on, header and first block may be lost, and later ones
            // not.
            proof = proof.max(self.proof_within(self.next_place(seal))?);
        }
        let mut leftover = Leftover::default();
        proof = proof.max(self.proof_in_slots(&mut leftover)?);
        let stopped_at = Position { sequence: place.id.sequence, offset: stop };
        if proof > self.end.position {
            return Err(LogError::corrupt(place.start, stopped_at, "a block that was durable"));
        }
        let may_go_on = !leftover.stray_slots.is_empty()
            || leftover.has_hidden_strays
            || leftover.unread_start.is_some();
        if seal.is_none() && may_go_on && self.is_seal_unreadable(image, first) {
            // It may lead to what seems to be a stray, or to what cannot be read.
            let what = "a segment's seal, which the disk cannot read";
            return Err(LogError::corrupt(place.start, stopped_at, what));
        }
        // A full segment that leads nowhere may be one from before a base, whose slots were cut off since.
        let leads_nowhere = seal.is_some_and(|seal| seal.data_end == stop);
        if let Some(slot) = leftover.unread_start.filter(|_| leads_nowhere) {
            let offset = self.open.identity.slot_start(slot);
            let what = "a slot's start, which the disk cannot read";
            return Err(LogError::Corrupt { offset, what });
        }
        leftover.needs_wipe =
            self.end.position != stopped_at || !image.is_zero(stop - first..image.end());
        Ok(leftover)
    }

    /// Whether the disk has failed to give the seal of the segment that is walked, or the end of it.
    fn is_seal_unreadable(&self, image: &Image, first: u32) -> bool {
        let slot_bytes = self.walked.place.slot_bytes;
        let seal = seal_offset(slot_bytes).saturating_sub(first);
        image.is_unreadable(seal..slot_bytes.saturating_sub(first))
    }

    /// What the slots hold but for the segments of the log. Notes in which of them strays are, or may be.
    fn proof_in_slots(&self, leftover: &mut Leftover) -> Result<Position> {
        let (slots, last) = (self.open.slots(), self.end.position.sequence);
        let ids = || self.member_ids().chain([self.walked.place.id]);
        let known: HashSet<SegmentId> = ids().collect();
        let filled: HashMap<u32, SegmentId> = ids().map(|id| (id.slot, id)).collect();
        let (mut proof, mut doubtful) = (Position::default(), Vec::new());
        for slot in 0..self.slot_count() {
            let start = slots.decode_start(slot);
            if start.is_err() && !filled.contains_key(&slot) {
                leftover.unread_start.get_or_insert(slot);
            }
            let first = start.ok().flatten().filter(|one| one.is_of(&self.open.identity, slot));
            let first_id = first.as_ref().map(SegmentHeader::id);
            let doubt = self.doubt(slot, first_id, filled.get(&slot).copied());
            let may_hide_a_stray = doubt.as_ref().is_some_and(Doubtful::may_hide_a_stray);
            doubtful.extend(doubt);
            let header = first.or_else(|| slots.header(slot));
            match header.filter(|one| last < one.sequence && !known.contains(&one.id())) {
                Some(header) => {
                    let stray = Place::new(&self.open.identity, header.id());
                    proof = proof.max(header.synced_upto).max(self.proof_within(stray)?);
                    leftover.stray_slots.push(slot);
                }
                None if may_hide_a_stray => leftover.headerless_slots.push(slot),
                None => {}
            }
        }
        Ok(proof.max(self.proof_without_headers(doubtful, leftover)))
    }

    /// What is in doubt of a slot that begins with the header of `first` and is filled by the segment `fills`.
    fn doubt(
        &self,
        slot: u32,
        first: Option<SegmentId>,
        fills: Option<SegmentId>,
    ) -> Option<Doubtful> {
        let is_later = |id: SegmentId| self.end.position.sequence < id.sequence;
        if first.is_some_and(|id| fills == Some(id) || is_later(id)) {
            return None;
        }
        let start = match (first, fills) {
            (Some(_), None) => Start::Older,
            (None, _) if self.open.slots().was_wiped(slot) => Start::Wiped,
            _ => Start::NoHeader,
        };
        Some(Doubtful { slot, start, is_free: fills.is_none() })
    }

    /// What stands in `slots`, of which no header says that a segment goes on there. It may, where its first page
    /// is lost, or has gone back to what it was before, and the seal that leads to it, which is the page before.
    /// Notes whether one of them hides a stray.
    fn proof_without_headers(&self, mut slots: Vec<Doubtful>, leftover: &mut Leftover) -> Position {
        let (file, identity) = (&*self.open.file, &self.open.identity);
        let walked = self.walked.place.id.slot;
        // A seal and the page behind it may be lost with one write. Else the file grows at its end.
        let is_next = |slot: &Doubtful| Some(slot.slot) == walked.checked_add(1);
        slots.sort_by_key(|slot| (!is_next(slot), Reverse(slot.slot)));
        // Where an index spares reading the log, no slot that was freed is read in place of that, but the one
        // that such a write leaves. How full the segment before it is does not matter: a base may have ended it.
        let is_worth_it = |slot: &&Doubtful| {
            slot.start != Start::Older || self.replay_from.is_none() || is_next(slot)
        };
        let of = |start: Start| {
            slots.iter().filter(move |slot| slot.start == start).take(DOUBTFUL_TRIED_MAX)
        };
        let tried = [Start::NoHeader, Start::Older, Start::Wiped].into_iter().flat_map(of);
        let proofs = tried.filter(is_worth_it).filter_map(|slot| {
            let start = identity.slot_start(slot.slot);
            let image = Image::read(file, start, identity.slot_bytes, self.file_bytes);
            let named =
                header_copy_in(&image.bytes, identity, slot.slot).map(|header| header.sequence);
            let (mut proof, mut newest) = (None, named);
            for commit in commits_in(&image.bytes, 0, identity, slot.slot) {
                (proof, newest) =
                    (proof.max(Some(commit.synced_upto)), newest.max(Some(commit.id.sequence)));
            }
            leftover.has_hidden_strays |=
                slot.may_hide_a_stray() && Some(self.end.position.sequence) < newest;
            proof
        });
        proofs.max().unwrap_or_default()
    }

    fn proof_within(&self, place: Place) -> Result<Position> {
        let Image { bytes: image, .. } = self.read_slot(place, SEGMENT_HEADER_BYTES);
        let seal =
            Segment::sealed(place, seal_offset(place.slot_bytes)).read_seal(&*self.open.file)?;
        let in_seal = seal.map(|seal| seal.synced_upto);
        let found = latest_proof(&image, SEGMENT_HEADER_BYTES, &self.open.identity, place.id.slot);
        Ok(found.max(in_seal).unwrap_or_default())
    }

    /// A checkpoint that does not fit proves something all the same: if it is of this log's past,
    /// the log was durable up to its watermark. A log that ends before that with something behind
    /// its end is damaged there; one that ends cleanly is an older copy. And what it knows to be durable is no
    /// part of an older copy: if any of that stands here, what led there is lost.
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
        if end < checkpoint.watermark && self.has_later_of(checkpoint) {
            let what = "a segment that the index knows to be durable";
            return Err(LogError::corrupt(self.walked.place.start, end, what));
        }
        match tail {
            Some(tail) if is_its_past && end < checkpoint.watermark && leftover.needs_wipe => {
                let what = "a block that the index knows to be durable";
                Err(LogError::corrupt(tail.start, end, what))
            }
            _ => Ok(()),
        }
    }

    /// Whether a commit of a segment stands here that `checkpoint` has and the log has not, behind its end.
    fn has_later_of(&self, checkpoint: &LogCheckpoint) -> bool {
        let end = self.end.position.sequence.max(self.walked.place.id.sequence);
        let slots = self.slot_count();
        let later = checkpoint.segments.iter().map(|segment| segment.id);
        for id in later.filter(|id| end < id.sequence && id.slot < slots) {
            let place = Place::new(&self.open.identity, id);
            let Image { bytes, .. } = self.read_slot(place, SEGMENT_HEADER_BYTES);
            let mut commits =
                commits_in(&bytes, SEGMENT_HEADER_BYTES, &self.open.identity, id.slot);
            if commits.any(|commit| commit.id == id) {
                return true;
            }
        }
        false
    }
}

/// Where the disk cannot read the block that may stand at `offset` of a segment, of which `image` has what stands
/// from `first` on, nothing says whether the log ends there.
pub(crate) fn check_is_read(image: &Image, first: u32, offset: u32, place: Place) -> Result<()> {
    let at = offset - first;
    let header = image.bytes.get(at as usize..).and_then(|rest| rest.first_chunk());
    let header = header.and_then(|bytes| BlockHeader::decode(*bytes));
    let room = seal_offset(place.slot_bytes).saturating_sub(offset);
    // What is longer is no block of this segment.
    let block_bytes = header.map(|header| header.block_bytes()).filter(|bytes| *bytes <= room);
    let block_bytes = block_bytes.unwrap_or(BLOCK_HEADER_BYTES);
    match image.is_unreadable(at..at.saturating_add(block_bytes)) {
        true => {
            let stopped_at = Position { sequence: place.id.sequence, offset };
            Err(LogError::corrupt(place.start, stopped_at, "bytes that the disk cannot read"))
        }
        false => Ok(()),
    }
}
