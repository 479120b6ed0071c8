//! Finding the log's end, and what belongs to the log.
//!
//! The newest roll call, or an index checkpoint, names the segments; from there on recovery follows
//! the chain of seals, block by block, to the last whole commit. Behind it there is either nothing,
//! or what a crash has torn, or damage; the last is told from the rest by proof, found anywhere
//! behind the bad place, that the log was durable beyond it.

mod finish;
mod start;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use zkv_io::Cursor;

use crate::block::{BlockKind, END_MARK};
use crate::dictionary::Interner;
use crate::error::{LogError, Result};
use crate::header::SegmentHeader;
use crate::layout::{
    CELL_BYTES, FILE_HEADER_BYTES, MEMBER_BYTES, SEGMENT_HEADER_BYTES, SEGMENT_HEADER_FIELD_BYTES,
    seal_offset,
};
use crate::open::{OpenFile, Recovered};
use crate::position::Position;
use crate::seal::Seal;
use crate::segment::{ContentsBuilder, Place, Segment, SegmentId};
use crate::walk::{Block, BlockWalk, CommitMark, Seeds, latest_proof};
use crate::writer::RollCallPlace;

/// Where recovery starts, and what it has found so far.
struct Recovery<'a> {
    open: &'a OpenFile,
    interner: Interner,
    file_bytes: u64,
    /// All segments of the log but the one that is being walked.
    members: BTreeMap<u64, Arc<Segment>>,
    walked: WalkedSegment,
    /// The segment in which the last whole commit ends, once the walk has left it.
    left_behind: Option<WalkedSegment>,
    end: CommitEnd,
    /// Up to where something proves that the log was durable.
    proven: Position,
    roll_call: RollCallPlace,
    replay_from: Position,
}

/// The segment being walked.
struct WalkedSegment {
    place: Place,
    contents: ContentsBuilder,
    block_count: u32,
    /// Where the walk goes on.
    offset: u32,
}

/// The last whole commit.
#[derive(Clone, Copy, Default)]
struct CommitEnd {
    position: Position,
    number: u64,
    checksum: u32,
    is_end_mark: bool,
    /// Of the segment in which it ends.
    block_count: u32,
    last_cell: u32,
}

/// What stands behind the last whole commit.
#[derive(Default)]
struct Leftover {
    needs_wipe: bool,
    stray_slots: Vec<u32>,
}

pub(crate) fn recover(open: &OpenFile, checkpoint: Option<&[u8]>) -> Result<Recovered> {
    let mut recovery = match checkpoint {
        Some(bytes) => Recovery::from_checkpoint(open, bytes)?,
        None => Recovery::from_log(open)?,
    };
    let leftover = recovery.follow()?;
    recovery.finish(leftover)
}

impl<'a> Recovery<'a> {
    fn new(open: &'a OpenFile, start: Place) -> Result<Self> {
        let file_bytes = open.file.len().map_err(LogError::io("measure"))?;
        Ok(Self {
            open,
            interner: Interner::default(),
            file_bytes,
            members: BTreeMap::new(),
            walked: WalkedSegment::new(start),
            left_behind: None,
            end: CommitEnd {
                position: Position { sequence: start.id.sequence, offset: SEGMENT_HEADER_BYTES },
                ..CommitEnd::default()
            },
            // The file was synced with this much before it got its name.
            proven: Position { sequence: 1, offset: SEGMENT_HEADER_BYTES },
            roll_call: RollCallPlace::default(),
            replay_from: Position::default(),
        })
    }

    fn add_member(&mut self, segment: Segment) {
        self.members.insert(segment.id().sequence, Arc::new(segment));
    }

    /// Walks to the log's end, segment after segment.
    fn follow(&mut self) -> Result<Leftover> {
        loop {
            let image = self.read_slot(self.walked.place, self.walked.offset)?;
            let start = self.walked.offset;
            let stop = self.walk_segment(&image, start)?;
            let seal = self.seal_behind(&image, start);
            if let Some(seal) = &seal {
                self.proven = self.proven.max(seal.synced_upto);
            }
            let rest = image.get((stop - start) as usize..).unwrap_or(&[]);
            match seal {
                Some(seal) if seal.data_end == stop && self.goes_on(&seal) => self.next(&seal),
                _ => return self.judge_end(stop, rest),
            }
        }
    }

    fn walk_segment(&mut self, image: &[u8], start: u32) -> Result<u32> {
        let place = self.walked.place;
        let offsets = &self.walked.contents.dictionary_offsets;
        let known = Segment::growing(place, start, &[]);
        known.set_contents(*offsets);
        let seeds = known.seeds(&*self.open.file, &self.interner, offsets)?;
        let blocks_end = (seal_offset(place.slot_bytes) - start) as usize;
        let mut walk = BlockWalk::new(&image[..blocks_end.min(image.len())], start, seeds);
        let mut roll_call = None;
        let mut retired = Vec::new();
        for block in walk.by_ref() {
            self.walked.contents.note(&block);
            self.walked.block_count += 1;
            let position = Position { sequence: place.id.sequence, offset: block.offset };
            match block.tag.kind {
                BlockKind::RollCall => roll_call = Some(position),
                BlockKind::Retire => retired.extend(decode_members(block.payload)),
                BlockKind::Commit => {
                    self.note_commit(&block)?;
                    if let Some(place) = roll_call.take() {
                        self.roll_call.written = Some((place, self.end.position));
                    }
                    for id in retired.drain(..) {
                        self.members.remove(&id.sequence);
                    }
                }
                _ => {}
            }
        }
        self.walked.offset = walk.offset();
        Ok(walk.offset())
    }

    fn note_commit(&mut self, block: &Block<'_>) -> Result<()> {
        let place = self.walked.place;
        let damaged = || LogError::corrupt(place.start, self.end.position, "a commit block");
        let mark = CommitMark::decode(block.payload).ok_or_else(damaged)?;
        let position = Position { sequence: place.id.sequence, offset: block.end() };
        let is_end_mark = block.tag.number == END_MARK;
        self.end = CommitEnd {
            position,
            number: mark.number,
            checksum: block.checksum,
            is_end_mark,
            block_count: self.walked.block_count,
            last_cell: block.offset / CELL_BYTES,
        };
        self.left_behind = None;
        self.proven = self.proven.max(mark.synced_upto);
        if is_end_mark && mark.synced_upto.offset == block.offset {
            // It says that all before it is durable, and it holds nothing itself.
            self.proven = self.proven.max(position);
        }
        Ok(())
    }

    fn seal_behind(&self, image: &[u8], start: u32) -> Option<Seal> {
        let place = self.walked.place;
        let block = image.get((seal_offset(place.slot_bytes).checked_sub(start)?) as usize..)?;
        Seal::decode_block(block, place.slot_bytes, place.seed)
    }

    /// Whether the segment that `seal` names was begun: its header is whole, or, where that was
    /// lost, its first block.
    fn goes_on(&self, seal: &Seal) -> bool {
        let place = self.next_place(seal);
        if read_header(self.open, place.id.slot).is_some_and(|header| header.id() == place.id) {
            return true;
        }
        let image = self.read_slot(place, SEGMENT_HEADER_BYTES).unwrap_or_default();
        BlockWalk::new(&image, SEGMENT_HEADER_BYTES, Seeds::new(place.seed)).next().is_some()
    }

    fn next_place(&self, seal: &Seal) -> Place {
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

    /// The walk has stopped at `stop`, with `rest` behind it: is that the log's end, a tail that a
    /// crash has torn, or damage?
    fn judge_end(&mut self, stop: u32, rest: &[u8]) -> Result<Leftover> {
        let place = self.walked.place;
        let mut proof = self.proven.max(latest_proof(rest, stop, place.seed).unwrap_or_default());
        let mut leftover = Leftover::default();
        let members = self.member_slots();
        for slot in 0..slot_count(self.open, self.file_bytes) {
            if slot == place.id.slot || members.contains(&slot) {
                continue;
            }
            let Some(header) = read_header(self.open, slot) else { continue };
            if header.sequence > self.end.position.sequence {
                let stray = Place::new(&self.open.identity, header.id());
                let image = self.read_slot(stray, SEGMENT_HEADER_BYTES)?;
                let found = latest_proof(&image, SEGMENT_HEADER_BYTES, stray.seed);
                proof = proof.max(header.synced_upto).max(found.unwrap_or_default());
                leftover.stray_slots.push(slot);
            }
        }
        if proof > self.end.position {
            let position = Position { sequence: place.id.sequence, offset: stop };
            return Err(LogError::corrupt(place.start, position, "a block that was durable"));
        }
        let uncommitted =
            self.end.position != Position { sequence: place.id.sequence, offset: stop };
        leftover.needs_wipe = uncommitted || rest.iter().any(|byte| *byte != 0);
        Ok(leftover)
    }

    fn member_slots(&self) -> HashSet<u32> {
        self.members.values().map(|segment| segment.id().slot).collect()
    }

    /// All that the file holds of a slot from `from` on.
    fn read_slot(&self, place: Place, from: u32) -> Result<Vec<u8>> {
        let slot_end = place.start + u64::from(place.slot_bytes);
        let start = place.start + u64::from(from);
        let bytes = slot_end.min(self.file_bytes).saturating_sub(start);
        let mut image = vec![0; usize::try_from(bytes).unwrap_or(0)];
        self.open.file.read_at(start, &mut image).map_err(LogError::io("read"))?;
        Ok(image)
    }
}

impl WalkedSegment {
    fn new(place: Place) -> Self {
        let contents = ContentsBuilder::new(place.slot_bytes);
        Self { place, contents, block_count: 0, offset: SEGMENT_HEADER_BYTES }
    }
}

/// The slots that the file has room for, the last of them perhaps in part.
fn slot_count(open: &OpenFile, file_bytes: u64) -> u32 {
    let slots = file_bytes.saturating_sub(FILE_HEADER_BYTES);
    u32::try_from(slots.div_ceil(u64::from(open.identity.slot_bytes))).unwrap_or(u32::MAX)
}

/// The header in `slot`, where it is whole and of this log.
fn read_header(open: &OpenFile, slot: u32) -> Option<SegmentHeader> {
    let mut bytes = [0; SEGMENT_HEADER_FIELD_BYTES];
    open.file.read_at(open.identity.slot_start(slot), &mut bytes).ok()?;
    let header = SegmentHeader::decode(&bytes).ok()?;
    (header.identity == open.identity && header.slot == slot && header.sequence > 0)
        .then_some(header)
}

fn decode_members(payload: &[u8]) -> impl Iterator<Item = SegmentId> + '_ {
    payload.chunks_exact(MEMBER_BYTES).filter_map(|member| {
        let mut cursor = Cursor::new(member);
        let slot = cursor.u32().ok()?;
        Some(SegmentId { slot, sequence: cursor.u64().ok()?, nonce: cursor.u64().ok()? })
    })
}
