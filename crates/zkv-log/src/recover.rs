//! Finding the log's end, and what belongs to the log.
//!
//! The newest roll call, or an index checkpoint, names the segments; from there on recovery follows
//! the chain of seals, block by block, to the last whole commit. Behind it there is either nothing,
//! or what a crash has torn, or damage; the last is told from the rest by proof, found anywhere
//! behind the bad place, that the log was durable beyond it.

mod finish;
#[cfg(test)]
mod hostile;
mod judge;
mod start;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use zkv_io::{Cursor, Reads};

use crate::block::{BlockKind, END_MARK};
use crate::checkpoint::LogCheckpoint;
use crate::dictionary::Interner;
use crate::error::{LogError, Result};
use crate::image::Image;
use crate::layout::{CELL_BYTES, MEMBER_BYTES, SEGMENT_HEADER_BYTES, seal_offset};
use crate::mark::CommitMark;
use crate::open::{OpenFile, Recovered};
use crate::position::{FIRST_END, Position};
use crate::seal::Seal;
use crate::segment::{ContentsBuilder, Place, Segment, SegmentId};
use crate::walk::{Block, BlockWalk, Chain, Seeds};
use crate::writer::RollCallPlace;

pub(crate) use judge::check_is_read;

/// Where recovery starts, and what it has found so far.
struct Recovery<'a> {
    open: &'a OpenFile,
    interner: Interner,
    file_bytes: u64,
    /// All segments of the log but the one that is being walked, and those only listed.
    members: BTreeMap<u64, Arc<Segment>>,
    /// What the roll call lists: it is read from these segments' seals, once it is known which of
    /// them were retired later.
    listed: BTreeMap<u64, SegmentId>,
    /// What was walked and is retired since.
    retired: Vec<Arc<Segment>>,
    /// The roll call that recovery starts with, until its commit is reached.
    start_roll_call: Option<Position>,
    walked: WalkedSegment,
    /// What the commit that is being walked holds so far.
    pending: PendingCommit,
    /// The segment in which the last whole commit ends, once the walk has left it.
    left_behind: Option<WalkedSegment>,
    end: CommitEnd,
    /// Up to where something proves that the log was durable.
    proven: Position,
    roll_call: RollCallPlace,
    replay_from: Option<Position>,
}

/// The segment being walked.
struct WalkedSegment {
    place: Place,
    contents: ContentsBuilder,
    block_count: u32,
    chain: Chain,
    /// Where the walk goes on.
    offset: u32,
}

/// Blocks that count once their commit does.
#[derive(Default)]
struct PendingCommit {
    roll_call: Option<Position>,
    listed: Vec<SegmentId>,
    retired: Vec<SegmentId>,
}

/// The last whole commit.
#[derive(Clone, Copy, Default)]
struct CommitEnd {
    position: Position,
    number: u64,
    checksum: u32,
    /// The log was closed here: nothing that counts is unproven.
    is_closed: bool,
    /// Of the segment in which it ends.
    block_count: u32,
    chain: Chain,
    last_cell: u32,
}

/// What stands behind the last whole commit.
#[derive(Default)]
struct Leftover {
    needs_wipe: bool,
    stray_slots: Vec<u32>,
    /// Slots that no segment fills and that begin with no header: what a crash has left there may be hidden.
    headerless_slots: Vec<u32>,
    /// Whether one of those that were read holds something of a segment behind the log's end.
    has_hidden_strays: bool,
    /// A slot that no segment fills and of which the disk cannot read the start.
    unread_start: Option<u32>,
}

pub(crate) fn recover(open: &OpenFile, checkpoint: Option<&[u8]>) -> Result<Recovered> {
    let reads = Arc::new(Reads::of(&open.file));
    let watched = OpenFile { file: Arc::clone(&reads) as _, ..open.clone() };
    let found = find_end(&watched, checkpoint);
    // Of what could not be read this time, nothing is known: neither that it is damaged nor that it is not there.
    reads.check().map_err(LogError::io("read"))?;
    let (recovery, leftover) = found?;
    Recovery { open, ..recovery }.finish(leftover)
}

fn find_end<'a>(open: &'a OpenFile, checkpoint: Option<&[u8]>) -> Result<(Recovery<'a>, Leftover)> {
    let Some(bytes) = checkpoint else { return Recovery::follow_log(open) };
    let checkpoint = LogCheckpoint::decode(bytes, open.identity.slot_bytes);
    let from_checkpoint = || {
        let checkpoint = checkpoint.as_ref().ok_or(LogError::CheckpointMismatch)?;
        let mut recovery = Recovery::from_checkpoint(open, checkpoint)?;
        let leftover = recovery.follow()?;
        recovery.check_slots()?;
        Ok((recovery, leftover))
    };
    match from_checkpoint() {
        // An old checkpoint may lead into segments that are gone by now.
        Err(LogError::CheckpointMismatch | LogError::Corrupt { .. }) => {
            let (recovery, leftover) = Recovery::follow_log(open)?;
            if let Some(checkpoint) = &checkpoint {
                recovery.hold_against(checkpoint, &leftover)?;
            }
            Ok((recovery, leftover))
        }
        found => found,
    }
}

impl<'a> Recovery<'a> {
    fn new(open: &'a OpenFile, start: Place) -> Result<Self> {
        let file_bytes = open.file.len().map_err(LogError::io("measure"))?;
        Ok(Self {
            open,
            interner: Interner::default(),
            file_bytes,
            members: BTreeMap::new(),
            listed: BTreeMap::new(),
            retired: Vec::new(),
            start_roll_call: None,
            walked: WalkedSegment::new(start),
            pending: PendingCommit::default(),
            left_behind: None,
            end: CommitEnd {
                position: Position { sequence: start.id.sequence, offset: SEGMENT_HEADER_BYTES },
                ..CommitEnd::default()
            },
            proven: FIRST_END,
            roll_call: RollCallPlace::default(),
            replay_from: None,
        })
    }

    fn add_member(&mut self, segment: Segment) {
        self.members.insert(segment.id().sequence, Arc::new(segment));
    }

    /// Walks to the log's end, segment after segment.
    fn follow(&mut self) -> Result<Leftover> {
        let leftover = loop {
            let start = self.walked.offset;
            let image = self.read_slot(self.walked.place, start);
            let stop = self.walk_segment(&image.bytes, start)?;
            let seal = self.seal_behind(&image.bytes, start);
            if let Some(seal) = &seal {
                self.proven = self.proven.max(seal.synced_upto);
            }
            match seal {
                Some(seal) if seal.data_end == stop && self.goes_on(&seal)? => self.next(&seal),
                seal => break self.judge_end(&image, start, seal.as_ref())?,
            }
        };
        self.read_listed()?;
        Ok(leftover)
    }

    /// Of the segments that a checkpoint names, some may be cut off the file's end by now: these were
    /// freed before that.
    fn check_slots(&self) -> Result<()> {
        let slots = self.slot_count();
        match self.member_ids().any(|id| id.slot >= slots) {
            true => Err(LogError::CheckpointMismatch),
            false => Ok(()),
        }
    }

    /// The segments of the roll call are full, and those that were not retired must be whole.
    fn read_listed(&mut self) -> Result<()> {
        let slots = self.slot_count();
        for id in std::mem::take(&mut self.listed).into_values() {
            let place = Place::new(&self.open.identity, id);
            if id.slot >= slots {
                let what = "a segment is missing";
                return Err(LogError::Corrupt { offset: place.start, what });
            }
            let offset = seal_offset(place.slot_bytes);
            let full = Segment::sealed(place, offset);
            let seal = full.read_seal(&*self.open.file)?;
            let seal = seal.ok_or_else(|| full.damaged(offset, "a segment's seal"))?;
            self.add_member(Segment::sealed(place, seal.data_end));
        }
        Ok(())
    }

    fn walk_segment(&mut self, image: &[u8], start: u32) -> Result<u32> {
        let place = self.walked.place;
        let seeds = self.walked.contents.seeds(place.seed);
        let blocks_end = seal_offset(place.slot_bytes).saturating_sub(start) as usize;
        let mut walk = BlockWalk::new(&image[..blocks_end.min(image.len())], start, seeds);
        for block in walk.by_ref() {
            let position = Position { sequence: place.id.sequence, offset: block.offset };
            match block.tag.kind {
                BlockKind::RollCall => {
                    self.pending.roll_call.get_or_insert(position);
                    if self.start_roll_call.is_some_and(|start| start <= position) {
                        self.pending.listed.extend(decode_members(block.payload));
                    }
                }
                BlockKind::Retire => self.pending.retired.extend(decode_members(block.payload)),
                BlockKind::Commit if !self.note_commit(&block) => {
                    // A commit that does not belong to what stands before it is none.
                    self.walked.offset = block.offset;
                    return Ok(block.offset);
                }
                _ => {}
            }
            self.walked.note(&block);
            if block.tag.kind == BlockKind::Commit {
                self.end.block_count = self.walked.block_count;
                self.end.chain = self.walked.chain;
                self.apply_pending()?;
            }
        }
        self.walked.offset = walk.offset();
        Ok(walk.offset())
    }

    /// Takes a commit block for the log's end so far; `false` where it does not fit what is before.
    fn note_commit(&mut self, block: &Block<'_>) -> bool {
        let Some(mark) = CommitMark::decode(block.payload) else { return false };
        if mark.chain != self.walked.chain {
            return false;
        }
        let sequence = self.walked.place.id.sequence;
        let start = Position { sequence, offset: block.offset };
        self.end = CommitEnd {
            position: Position { sequence, offset: block.end() },
            number: mark.number,
            checksum: block.checksum,
            is_closed: block.tag.number == END_MARK && mark.synced_upto == start,
            last_cell: block.offset / CELL_BYTES,
            ..CommitEnd::default()
        };
        self.left_behind = None;
        self.proven = self.proven.max(mark.synced_upto);
        true
    }

    fn apply_pending(&mut self) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        if let Some(place) = pending.roll_call {
            self.roll_call.written = vec![(place, self.end.position)];
        }
        if let Some(start) = self.start_roll_call
            && start < self.end.position
        {
            self.start_roll_call = None;
            let mut listed_slots = HashSet::new();
            for id in pending.listed.into_iter().filter(|id| id.sequence < start.sequence) {
                let offset = self.open.identity.slot_start(id.slot);
                if !listed_slots.insert(id.slot) {
                    return Err(LogError::Corrupt { offset, what: "a slot of two segments" });
                }
                if !self.members.contains_key(&id.sequence) {
                    self.listed.insert(id.sequence, id);
                }
            }
        }
        for id in pending.retired {
            self.retired.extend(self.members.remove(&id.sequence));
            self.listed.remove(&id.sequence);
        }
        Ok(())
    }

    fn seal_behind(&self, image: &[u8], start: u32) -> Option<Seal> {
        let place = self.walked.place;
        let block = image.get((seal_offset(place.slot_bytes).checked_sub(start)?) as usize..)?;
        Seal::decode_block(block, &place)
    }

    /// Whether the segment that `seal` names was begun: its header is whole, or, where that was
    /// lost, its first block or the copy in its seal. A slot with another header has been used again
    /// since; with another seal alone it has not: that of the segment before stands there until this one
    /// is full.
    fn goes_on(&self, seal: &Seal) -> Result<bool> {
        let place = self.next_place(seal);
        let slots = self.open.slots();
        if let Some(header) = slots.header_at_start(place.id.slot) {
            return Ok(header.id() == place.id);
        }
        let image = self.read_slot(place, SEGMENT_HEADER_BYTES);
        let mut walk = BlockWalk::new(&image.bytes, SEGMENT_HEADER_BYTES, Seeds::new(place.seed));
        let is_begun = walk.next().is_some()
            || slots.header(place.id.slot).is_some_and(|header| header.id() == place.id);
        if !is_begun {
            check_is_read(&image, SEGMENT_HEADER_BYTES, SEGMENT_HEADER_BYTES, place)?;
        }
        Ok(is_begun)
    }

    fn next_place(&self, seal: &Seal) -> Place {
        // Below `NUMBER_MAX`, as all that headers and checkpoints name.
        let sequence = self.walked.place.id.sequence + 1;
        let id = SegmentId { sequence, slot: seal.next_slot, nonce: seal.next_nonce };
        Place::new(&self.open.identity, id)
    }

    fn next(&mut self, seal: &Seal) {
        let next = WalkedSegment::new(self.next_place(seal));
        let left = std::mem::replace(&mut self.walked, next);
        self.add_member(Segment::sealed(left.place, seal.data_end));
        if left.place.id.sequence == self.end.position.sequence {
            self.left_behind = Some(left);
        }
    }

    /// The segments of the log, as far as they are known.
    fn member_ids(&self) -> impl Iterator<Item = SegmentId> + '_ {
        let members = self.members.values().map(|segment| segment.id());
        members.chain(self.listed.values().copied())
    }

    fn slot_count(&self) -> u32 {
        self.open.identity.slot_count(self.file_bytes)
    }

    /// All that the file holds of a slot from `from` on, as far as the disk gives it.
    fn read_slot(&self, place: Place, from: u32) -> Image {
        let (start, bytes_max) =
            (place.start + u64::from(from), place.slot_bytes.saturating_sub(from));
        Image::read(&*self.open.file, start, bytes_max, self.file_bytes)
    }
}

impl WalkedSegment {
    fn new(place: Place) -> Self {
        let contents = ContentsBuilder::new(place.slot_bytes);
        let chain = Chain::default();
        Self { place, contents, block_count: 0, chain, offset: SEGMENT_HEADER_BYTES }
    }

    fn note(&mut self, block: &Block<'_>) {
        self.contents.note(block);
        self.block_count += 1;
        self.chain = self.chain.and(block.checksum);
    }
}

pub(crate) fn decode_members(payload: &[u8]) -> impl Iterator<Item = SegmentId> + '_ {
    payload.as_chunks::<MEMBER_BYTES>().0.iter().filter_map(|member| {
        let mut cursor = Cursor::new(member);
        let slot = cursor.u32().ok()?;
        Some(SegmentId { slot, sequence: cursor.u64().ok()?, nonce: cursor.u64().ok()? })
    })
}
