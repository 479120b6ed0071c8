//! Which segments there are to read: those of the recovered log, or, where it cannot be recovered,
//! whatever headers, seals, roll calls and the index's checkpoint tell of.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use zkv_io::{Reads, StorageFile};

use crate::block::BlockKind;
use crate::checkpoint::LogCheckpoint;
use crate::error::LogError;
use crate::header::{Identity, SegmentHeader};
use crate::image::Image;
use crate::layout::{COMMIT_BLOCK_BYTES, FILE_HEADER_BYTES, SEGMENT_HEADER_BYTES, seal_offset};
use crate::log::LogView;
use crate::open::OpenFile;
use crate::position::Position;
use crate::recover::{decode_members, recover};
use crate::resync::Resync;
use crate::segment::{Place, Segment, SegmentId};
use crate::walk::{Seeds, block_at};

use super::{End, LogFinding, LogVerifier, Member, Severity};

pub(super) fn of_file(open: &OpenFile, checkpoint: Option<&[u8]>) -> LogVerifier {
    let decoded = decode(checkpoint, &open.identity);
    let headless = open.is_headless.then_some(HEADLESS);
    let reads = Arc::new(Reads::of(&open.file));
    let open = &OpenFile { file: Arc::clone(&reads) as _, ..open.clone() };
    // Not as one that shall write: somebody may have the log open to be written.
    match recover(open, checkpoint) {
        Ok(recovered) => {
            let verifier = recovered.log.view().verifier(checkpoint, false);
            LogVerifier { file: reads, findings: headless.into_iter().collect(), ..verifier }
        }
        Err(error) => {
            let found = Search::new(open, decoded.as_ref()).members();
            let mut findings: Vec<_> = headless.into_iter().chain([refusal(&error)]).collect();
            findings.extend(found.missing);
            LogVerifier::new(reads, &open.identity, found.members, decoded, false, findings)
        }
    }
}

fn decode(checkpoint: Option<&[u8]>, identity: &Identity) -> Option<LogCheckpoint> {
    LogCheckpoint::decode(checkpoint?, identity.slot_bytes)
}

/// Any other header says whose file it is, too, and opening looks for none.
const HEADLESS: LogFinding = LogFinding {
    offset: 0,
    what: "the file's header and the one in the first slot, so the store does not open",
    severity: Severity::Loss,
};

/// Why the store does not open.
fn refusal(error: &LogError) -> LogFinding {
    let offset = match error {
        LogError::Corrupt { offset, .. } => *offset,
        _ => 0,
    };
    let what = "the log's end cannot be told, so the store does not open";
    LogFinding { offset, what, severity: Severity::Loss }
}

impl LogView {
    /// Prepares for reading all that this view sees; with `is_live`, somebody may be writing behind
    /// it. See [`OpenFile::verifier`].
    #[must_use]
    pub fn verifier(&self, checkpoint: Option<&[u8]>, is_live: bool) -> LogVerifier {
        let segments = self.segments.by_slot.iter().flatten();
        let members = segments.filter_map(|segment| {
            let end = self.end_of(segment);
            let is_full = segment.is_sealed() && end == segment.end();
            let end = if is_full { End::Sealed(end) } else { End::Tail(end) };
            let member = Member { place: segment.place, end };
            (end != End::Tail(0)).then_some((segment.id().sequence, member))
        });
        let identity = self.identity();
        let checkpoint = decode(checkpoint, identity);
        let file = Arc::new(Reads::of(&self.shared.file));
        let members = members.collect();
        let held = Arc::clone(&self.segments);
        let findings = Vec::new();
        let verifier = LogVerifier::new(file, identity, members, checkpoint, is_live, findings);
        LogVerifier { held, ..verifier }
    }
}

impl LogVerifier {
    fn new(
        file: Arc<Reads>,
        identity: &Identity,
        members: BTreeMap<u64, Member>,
        checkpoint: Option<LogCheckpoint>,
        is_live: bool,
        findings: Vec<LogFinding>,
    ) -> Self {
        // Of a file that cannot be measured, each segment will say that it is not there.
        let file_bytes = file.len().unwrap_or(0);
        let checkpoint = checkpoint.filter(|checkpoint| fits(&*file, &members, checkpoint));
        let identity = identity.clone();
        let held = Arc::default();
        Self { file, identity, members, held, checkpoint, is_live, file_bytes, findings }
    }
}

/// Whether `checkpoint` is of this log's past. Segments of its that are not there were freed since, or
/// are missed by others, too.
fn fits(
    file: &dyn StorageFile,
    members: &BTreeMap<u64, Member>,
    checkpoint: &LogCheckpoint,
) -> bool {
    let contradicts = |id: SegmentId| {
        members.get(&id.sequence).is_some_and(|member: &Member| member.place.id != id)
    };
    if checkpoint.segments.iter().any(|segment| contradicts(segment.id)) {
        return false;
    }
    let Some(tail) = members.get(&checkpoint.watermark.sequence) else { return false };
    let mut block = [0; COMMIT_BLOCK_BYTES as usize];
    // `LogCheckpoint::decode` has found room for a commit before the watermark.
    let offset = checkpoint.watermark.offset - COMMIT_BLOCK_BYTES;
    let read = file.read_at(tail.place.start + u64::from(offset), &mut block);
    let found = block_at(&block, offset, &Seeds::new(tail.place.seed));
    let checksum = found.map(|block| block.checksum);
    read.is_ok() && checksum == Some(checkpoint.watermark_checksum)
}

/// The segments of a log that could not be recovered.
struct Found {
    members: BTreeMap<u64, Member>,
    missing: Vec<LogFinding>,
}

struct Search<'a> {
    open: &'a OpenFile,
    checkpoint: Option<&'a LogCheckpoint>,
    file_bytes: u64,
    headers: Vec<SegmentHeader>,
    /// By sequence.
    ids: BTreeMap<u64, SegmentId>,
    retired: BTreeSet<SegmentId>,
}

impl<'a> Search<'a> {
    fn new(open: &'a OpenFile, checkpoint: Option<&'a LogCheckpoint>) -> Self {
        let file_bytes = open.file.len().unwrap_or(0);
        let slots = 0..open.identity.slot_count(file_bytes);
        let headers: Vec<SegmentHeader> =
            slots.filter_map(|slot| open.slots().header(slot)).collect();
        let ids = headers.iter().map(|header| (header.sequence, header.id())).collect();
        Self { open, checkpoint, file_bytes, headers, ids, retired: BTreeSet::new() }
    }

    fn members(mut self) -> Found {
        self.add_unheaded();
        self.keep_called();
        let missing = self.missing();
        let members = self.ids.values().map(|id| (id.sequence, self.member(*id))).collect();
        Found { members, missing }
    }

    fn place(&self, id: SegmentId) -> Place {
        Place::new(&self.open.identity, id)
    }

    /// Adds segments whose headers are lost, which others tell of.
    fn add_unheaded(&mut self) {
        let told = self.checkpoint.into_iter().flat_map(|checkpoint| &checkpoint.segments);
        let told: Vec<SegmentId> = told.map(|segment| segment.id).collect();
        let first = self.open.first_nonce.map(|nonce| SegmentId { sequence: 1, slot: 0, nonce });
        for id in told.into_iter().chain(first) {
            self.add(id);
        }
        let mut sequences: Vec<u64> = self.ids.keys().copied().collect();
        while let Some(sequence) = sequences.pop() {
            // One that was found meanwhile may have taken this one's slot.
            let Some(id) = self.ids.get(&sequence).copied() else { continue };
            let seal = Segment::sealed(self.place(id), 0).read_seal(&*self.open.file);
            let Ok(Some(seal)) = seal else { continue };
            let Some(sequence) = sequence.checked_add(1) else { continue };
            let next = SegmentId { sequence, slot: seal.next_slot, nonce: seal.next_nonce };
            if self.add(next) {
                sequences.push(sequence);
            }
        }
    }

    /// Adds a segment that holds blocks, where its slot has no later one: what an earlier one has
    /// left in a slot that is in use again, such as its seal, tells of it still.
    fn add(&mut self, id: SegmentId) -> bool {
        let slots = self.open.identity.slot_count(self.file_bytes);
        let other = self.ids.values().find(|known| known.slot == id.slot).copied();
        let is_later = other.is_some_and(|other| other.sequence >= id.sequence);
        if id.slot >= slots || self.ids.contains_key(&id.sequence) || is_later {
            return false;
        }
        let holds_blocks = self.blocks(id, SEGMENT_HEADER_BYTES).next().is_some();
        if holds_blocks {
            self.ids.retain(|_, known| known.slot != id.slot);
            self.ids.insert(id.sequence, id);
        }
        holds_blocks
    }

    /// Leaves only what the newest roll call names, and what came behind it and was not retired.
    fn keep_called(&mut self) {
        let newest = self.headers.iter().map(|header| header.roll_call).max().unwrap_or_default();
        let Some(holder) = self.ids.get(&newest.sequence).copied() else { return };
        let calls = self.blocks(holder, newest.offset);
        let calls = calls.take_while(|(kind, _)| *kind == BlockKind::RollCall);
        let called: Vec<SegmentId> = calls.flat_map(|(_, payload)| members_in(&payload)).collect();
        if called.is_empty() {
            return;
        }
        self.ids.retain(|sequence, _| *sequence >= newest.sequence);
        for id in self.ids.values() {
            let blocks = self.blocks(*id, SEGMENT_HEADER_BYTES);
            let retires = blocks.filter(|(kind, _)| *kind == BlockKind::Retire);
            let retired = retires.flat_map(|(_, payload)| members_in(&payload));
            self.retired.extend(retired.collect::<Vec<_>>());
        }
        // A roll call has one segment of each slot; a file made for it may name one slot thousands of times,
        // each of which would be read.
        let mut slots = HashSet::new();
        for id in called.into_iter().filter(|id| slots.insert(id.slot)) {
            self.ids.entry(id.sequence).or_insert(id);
        }
        self.ids.retain(|_, id| !self.retired.contains(id));
    }

    /// The whole blocks of a segment from `from` on: kind and payload.
    fn blocks(
        &self,
        id: SegmentId,
        from: u32,
    ) -> impl Iterator<Item = (BlockKind, Vec<u8>)> + use<> {
        let place = self.place(id);
        let blocks_end = seal_offset(place.slot_bytes);
        let Image { bytes: image, .. } =
            Image::read(&*self.open.file, place.start, blocks_end, self.file_bytes);
        let (mut offset, mut seeds) = (from, Seeds::new(place.seed));
        let mut resync = Resync::new(place.slot_bytes);
        std::iter::from_fn(move || {
            if resync.block_at(&image, offset, &seeds).is_none() {
                offset = resync.next_block(&image, offset, &seeds, std::iter::empty())?;
            }
            let block = block_at(image.get(offset as usize..)?, offset, &seeds)?;
            seeds.learn(&block);
            offset = block.end();
            Some((block.tag.kind, block.payload.to_vec()))
        })
    }

    fn member(&self, id: SegmentId) -> Member {
        let place = self.place(id);
        // What cannot be read is found as such where the segment is read.
        let seal = Segment::sealed(place, 0).read_seal(&*self.open.file).unwrap_or_default();
        let known = self.checkpoint.and_then(|checkpoint| {
            let full = checkpoint.segments.split_last()?.1;
            full.iter().find(|segment| segment.id == id)
        });
        let end = match (seal, known) {
            (Some(seal), _) => End::Sealed(seal.data_end),
            (None, Some(known)) => End::Sealed(known.data_end),
            (None, None) => End::Unknown,
        };
        Member { place, end }
    }

    /// Numbers that are missing behind the newest roll call: those before it may have been freed.
    fn missing(&self) -> Vec<LogFinding> {
        let newest = self.headers.iter().map(|header| header.roll_call).max();
        let start = newest.map_or(0, |roll_call: Position| roll_call.sequence);
        let behind: Vec<SegmentId> = self.ids.range(start..).map(|(_, id)| *id).collect();
        let retired: BTreeSet<u64> = self.retired.iter().map(|id| id.sequence).collect();
        let gaps = behind.windows(2).filter(|pair| {
            let between = pair[0].sequence + 1..pair[1].sequence;
            (retired.range(between.clone()).count() as u64) < between.end - between.start
        });
        let after_gaps = gaps.map(|pair| self.open.identity.slot_start(pair[1].slot));
        let none = self.ids.is_empty().then_some(FILE_HEADER_BYTES);
        let what = "a segment before this place is missing";
        let finding = |offset| LogFinding { offset, what, severity: Severity::Loss };
        after_gaps.chain(none).map(finding).collect()
    }
}

fn members_in(payload: &[u8]) -> Vec<SegmentId> {
    decode_members(payload).collect()
}
