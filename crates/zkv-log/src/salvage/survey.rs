//! The first pass: which segments the slots hold, and what they say of the log.
//!
//! Who they are is told by their headers, the copies of those in seals, the seals before them, the
//! file header, roll calls, an index checkpoint, and their commits; the checksums of their blocks prove it.

mod unnamed;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use zkv_io::StorageFile;

use crate::block::{BlockHeader, BlockKind};
use crate::checkpoint::LogCheckpoint;
use crate::commit::MEMBERS_PER_BLOCK;
use crate::dictionary::DictionaryDigest;
use crate::header::{Identity, SegmentHeader};
use crate::layout::{
    SEGMENT_HEADER_BYTES, SEGMENT_HEADER_FIELD_BYTES, seal_block_bytes, seal_offset,
};
use crate::mark::CommitMark;
use crate::position::Position;
use crate::recover::decode_members;
use crate::seal::Seal;
use crate::segment::{Place, SegmentId};
use crate::slots::Slots;

use super::blocks::{BlockSearch, FoundBlock, Part};
use super::checksums::seed_of;
use super::identity::{Origin, headers_in};
use super::past::contradicts;
use crate::image::Image;

/// Ids that only other segments name, of which a slot is searched for blocks. Each search takes as
/// long as reading the slot some times over; more than one is rare.
const SEARCHES_A_SLOT: usize = 4;
/// The newest roll call says all; others only where its segment turns out to be of another copy.
const ROLL_CALLS_KEPT: usize = 8;

/// What was found of one segment.
#[derive(Debug)]
pub(super) struct Seen {
    pub place: Place,
    pub has_header: bool,
    pub seal: Option<SealFacts>,
    pub has_blocks: bool,
    /// Where the first of its blocks stands.
    pub first_block: Option<u32>,
    /// Something else than its blocks stands where they should.
    pub is_broken: bool,
    /// Where the last whole commit in it ends.
    pub commits_end: Option<u32>,
    /// Up to where something in it says that the log was durable.
    pub proven: Position,
    pub retired: Vec<(u32, SegmentId)>,
}

/// What a whole seal says.
#[derive(Clone, Copy, Debug)]
pub(super) struct SealFacts {
    pub data_end: u32,
    pub block_count: u32,
    pub next: SegmentId,
}

/// The segments of the log at one moment.
#[derive(Clone, Debug)]
pub(super) struct RollCall {
    /// The segment in which it stands.
    pub holder: SegmentId,
    pub listed: Vec<SegmentId>,
}

/// A whole dictionary block.
#[derive(Clone, Copy, Debug)]
pub(super) struct DictionaryPlace {
    pub place: Place,
    pub offset: u32,
    pub bytes: u32,
}

/// What is known of a file's segments.
pub(super) struct Survey<'a> {
    file: &'a dyn StorageFile,
    file_bytes: u64,
    pub identity: Identity,
    /// What an index file knows, unless something that is found contradicts it.
    pub index: Option<&'a LogCheckpoint>,
    /// By slot, the ids that something names, the newest first.
    named: BTreeMap<u32, BTreeSet<Reverse<SegmentId>>>,
    /// Slots of which a name is new.
    due: BTreeSet<u32>,
    headers: HashMap<SegmentId, SegmentHeader>,
    searched: HashSet<SegmentId>,
    /// Those that are there for certain, since their commits were found.
    by_commits: HashSet<SegmentId>,
    /// How many ids of a slot were looked for without a sign that they are there.
    search_counts: HashMap<u32, usize>,
    /// The newest segment of each slot, or several of one number: an attempt that was given up may have
    /// left its header, or another copy of the file its blocks.
    pub seen: BTreeMap<u32, Vec<Seen>>,
    /// The newest ones that are whole, with their commits.
    pub roll_calls: BTreeMap<Position, RollCall>,
    pub dictionaries: BTreeMap<DictionaryDigest, Vec<DictionaryPlace>>,
}

impl Seen {
    fn is_there(&self) -> bool {
        self.has_header || self.has_blocks || self.seal.is_some()
    }
}

impl<'a> Survey<'a> {
    pub(super) fn new(
        file: &'a dyn StorageFile,
        file_bytes: u64,
        origin: &Origin,
        index: Option<&'a LogCheckpoint>,
    ) -> Self {
        let mut survey = Self {
            file,
            file_bytes,
            identity: origin.identity.clone(),
            index,
            named: BTreeMap::new(),
            due: BTreeSet::new(),
            headers: HashMap::new(),
            searched: HashSet::new(),
            by_commits: HashSet::new(),
            search_counts: HashMap::new(),
            seen: BTreeMap::new(),
            roll_calls: BTreeMap::new(),
            dictionaries: BTreeMap::new(),
        };
        let first = origin.first_nonce.map(|nonce| SegmentId { sequence: 1, slot: 0, nonce });
        first.into_iter().for_each(|id| survey.name(id));
        for segment in index.iter().flat_map(|index| &index.segments) {
            survey.name(segment.id);
        }
        for slot in 0..survey.slot_count() {
            for header in headers_in(file, slot, survey.identity.slot_bytes) {
                if header.identity == survey.identity {
                    survey.name(header.id());
                    survey.headers.entry(header.id()).or_insert(header);
                }
            }
        }
        survey
    }

    pub(super) fn slot_count(&self) -> u32 {
        self.identity.slot_count(self.file_bytes)
    }

    fn name(&mut self, id: SegmentId) {
        let exists = id.sequence > 0 && id.slot < self.slot_count();
        if exists && self.named.entry(id.slot).or_default().insert(Reverse(id)) {
            self.due.insert(id.slot);
        }
    }

    /// Whether a segment that is named starts where its slot should.
    pub(super) fn finds_any_first_block(&self) -> bool {
        let mut ids = self.named.values().flatten();
        ids.any(|Reverse(id)| {
            let place = Place::new(&self.identity, *id);
            let image = Image::read(self.file, place.start, place.slot_bytes, self.file_bytes);
            first_block_sum(&image.bytes) == Some(sum_of_first_block(place))
        })
    }

    /// Adds a segment of which the seed alone is known.
    pub(super) fn add_nameless(&mut self, place: Place) {
        let image = Image::read(self.file, place.start, place.slot_bytes, self.file_bytes);
        let seen = self.search(place, &image);
        self.keep(seen);
        // They list it by its name.
        self.roll_calls.clear();
    }

    /// Searches the slots until nothing names a segment that was not looked for.
    pub(super) fn run(&mut self, progress: &mut dyn FnMut(u64)) {
        let mut read = HashSet::new();
        while let Some(slot) = self.due.pop_first() {
            self.search_slot(slot);
            if read.insert(slot) {
                progress(u64::from(self.identity.slot_bytes));
            }
        }
    }

    /// Finds the newest segment of those that `slot` may hold. Older ones were retired: a slot is
    /// used again only once that is durable.
    fn search_slot(&mut self, slot: u32) {
        let start = self.identity.slot_start(slot);
        let image = Image::read(self.file, start, self.identity.slot_bytes, self.file_bytes);
        let ids: Vec<SegmentId> = self.named[&slot].iter().map(|Reverse(id)| *id).collect();
        let limit = image.end().min(seal_offset(self.identity.slot_bytes)) as usize;
        // One sum for all ids, and one id for the sum: a file made for it may name thousands.
        let first_block = first_block_sum(&image.bytes[..limit]);
        let begins = |id: &&SegmentId| {
            first_block == Some(sum_of_first_block(Place::new(&self.identity, **id)))
        };
        let begun = first_block.and_then(|_| ids.iter().find(begins)).copied();
        for id in ids {
            if self.newest_in(slot) > id.sequence {
                break;
            }
            if !self.searched.insert(id) {
                continue;
            }
            let is_certain = self.headers.contains_key(&id) || self.by_commits.contains(&id);
            if !is_certain && begun != Some(id) {
                let search_count = self.search_counts.entry(slot).or_default();
                if *search_count == SEARCHES_A_SLOT {
                    continue;
                }
                *search_count += 1;
            }
            let seen = self.search(Place::new(&self.identity, id), &image);
            if seen.is_there() {
                self.keep(seen);
            }
        }
    }

    /// The highest number of the segments found in `slot`, or 0.
    fn newest_in(&self, slot: u32) -> u64 {
        let seen = self.seen.get(&slot).and_then(|seen| seen.first());
        seen.map_or(0, |seen| seen.place.id.sequence)
    }

    fn keep(&mut self, seen: Seen) {
        let id = seen.place.id;
        let kept = self.seen.entry(id.slot).or_default();
        kept.retain(|other| other.place.id.sequence >= id.sequence);
        kept.push(seen);
    }

    /// Whether a crash came before `id`, which a seal names, was begun: its header is the first that is
    /// written, and the slot still has that of an older segment. Where the file ends before the slot, or
    /// zeros stand there, it may have been lost as well.
    pub(super) fn was_never_begun(&self, id: SegmentId) -> bool {
        let mut bytes = [0; SEGMENT_HEADER_FIELD_BYTES];
        let read = self.file.read_at(self.identity.slot_start(id.slot), &mut bytes);
        let header = read.ok().and_then(|()| SegmentHeader::decode(&bytes).ok());
        header.is_some_and(|header| {
            header.is_of(&self.identity, id.slot) && header.sequence < id.sequence
        })
    }

    /// Whether the disk cannot read the start of the slot of `id`, of which nothing was found.
    pub(super) fn is_unread(&self, id: SegmentId) -> bool {
        Slots::new(self.file, &self.identity).decode_start(id.slot).is_err()
    }

    /// Whether something stands where the seal of an unsealed segment should be, other than zeros and the whole
    /// seal of an earlier one.
    pub(super) fn has_something_for_a_seal(&self, place: Place) -> bool {
        let image = self.read_seal(place);
        let is_of_an_earlier_one = |header: SegmentHeader| {
            let earlier = Place::new(&self.identity, header.id());
            earlier.id != place.id && Seal::decode_block(&image.bytes, &earlier).is_some()
        };
        let mut headers = headers_in(self.file, place.id.slot, place.slot_bytes);
        !image.is_zero(0..image.end()) && !headers.any(is_of_an_earlier_one)
    }

    /// What stands where the seal of a segment should be.
    fn read_seal(&self, place: Place) -> Image {
        let start = place.start + u64::from(seal_offset(place.slot_bytes));
        Image::read(self.file, start, seal_block_bytes(place.slot_bytes), self.file_bytes)
    }

    /// Looks for the blocks and the seal of one segment.
    fn search(&mut self, place: Place, image: &Image) -> Seen {
        let header = self.headers.get(&place.id);
        let first = self.first_header(place, image);
        let mut seen = Seen {
            place,
            has_header: first.is_some_and(|first| header == Some(&first)),
            seal: None,
            has_blocks: false,
            first_block: None,
            is_broken: false,
            commits_end: None,
            proven: header.map_or(Position::default(), |header| header.synced_upto),
            retired: Vec::new(),
        };
        self.look_at_seal(&mut seen, image);
        let digests: Vec<DictionaryDigest> = self.dictionaries.keys().copied().collect();
        let limit = image.end().min(seal_offset(place.slot_bytes)) as usize;
        let parts = BlockSearch::new(&image.bytes[..limit], place.seed, &digests).parts();
        for block in parts.iter().filter_map(Part::block) {
            seen.has_blocks = true;
            seen.first_block.get_or_insert(block.offset);
            self.look_at_block(&mut seen, block, block.payload(&image.bytes));
        }
        let end = seen.seal.map_or(limit, |seal| seal.data_end as usize);
        seen.is_broken = parts.iter().any(|part| match part {
            Part::Hole(range) => (range.start as usize) < end && !image.is_zero(range.clone()),
            Part::Block(_) => false,
        });
        let is_of_its_past =
            |index: &&LogCheckpoint| !contradicts(index, place.id, seen.seal, &parts, &image.bytes);
        self.index = self.index.filter(is_of_its_past);
        if let Some((offset, listed)) = newest_roll_call(&parts, place.id, &image.bytes) {
            let position = Position { sequence: place.id.sequence, offset };
            self.roll_calls.insert(position, RollCall { holder: place.id, listed });
            if self.roll_calls.len() > ROLL_CALLS_KEPT {
                self.roll_calls.pop_first();
            }
        }
        seen
    }

    /// The header with which the slot of `place`, which is `image`, begins.
    fn first_header(&self, place: Place, image: &Image) -> Option<SegmentHeader> {
        match image.is_unreadable(0..SEGMENT_HEADER_BYTES) {
            // Where a sector beside it is bad, some systems give the rest of the page.
            true => Slots::new(self.file, &self.identity).header_at_start(place.id.slot),
            false => SegmentHeader::decode(&image.bytes).ok(),
        }
    }

    fn look_at_seal(&mut self, seen: &mut Seen, image: &Image) {
        let place = seen.place;
        let start = seal_offset(place.slot_bytes);
        let decode = |block: &[u8]| Seal::decode_block(block, &place);
        let mut seal = image.bytes.get(start as usize..).and_then(decode);
        if seal.is_none() && image.is_unreadable(start..image.end()) {
            // Where a sector beside it is bad, some systems give the rest of the page.
            seal = decode(&self.read_seal(place).bytes);
        }
        let Some(seal) = seal else { return };
        let next = SegmentId {
            sequence: place.id.sequence.saturating_add(1),
            slot: seal.next_slot,
            nonce: seal.next_nonce,
        };
        seen.proven = seen.proven.max(seal.synced_upto);
        seen.seal =
            Some(SealFacts { data_end: seal.data_end, block_count: seal.block_count, next });
        self.name(next);
    }

    fn look_at_block(&mut self, seen: &mut Seen, block: &FoundBlock, payload: &[u8]) {
        match block.tag.kind {
            BlockKind::Dictionary => {
                if let Some(digest) = payload.first_chunk() {
                    let (place, offset, bytes) = (seen.place, block.offset, block.bytes);
                    let places = self.dictionaries.entry(*digest).or_default();
                    places.push(DictionaryPlace { place, offset, bytes });
                }
            }
            BlockKind::RollCall => decode_members(payload).for_each(|id| self.name(id)),
            BlockKind::Retire => {
                seen.retired.extend(decode_members(payload).map(|id| (block.offset, id)));
            }
            BlockKind::Commit => {
                if let Some(mark) = CommitMark::decode(payload) {
                    seen.commits_end = Some(block.end());
                    seen.proven = seen.proven.max(mark.synced_upto);
                }
            }
            _ => {}
        }
    }
}

/// What the checksum of the first block of `image`, the start of a slot, was begun with, if it is whole and needs
/// no dictionary.
fn first_block_sum(image: &[u8]) -> Option<u32> {
    let rest = image.get(SEGMENT_HEADER_BYTES as usize..)?;
    let header = BlockHeader::decode(*rest.first_chunk()?)?;
    let bytes = rest.get(..header.block_bytes() as usize)?;
    let with_entries = matches!(header.tag.kind, BlockKind::EntriesRaw | BlockKind::EntriesZstd);
    (!with_entries || header.tag.number == 0).then(|| seed_of(header.checksum, &bytes[4..]))
}

/// What that is where the segment at `place` has begun there.
fn sum_of_first_block(place: Place) -> u32 {
    place.seed.checksum(SEGMENT_HEADER_BYTES, &[])
}

/// The last roll call all of whose blocks are there, with its commit: what it does not list was no
/// part of the log.
fn newest_roll_call(
    parts: &[Part],
    holder: SegmentId,
    image: &[u8],
) -> Option<(u32, Vec<SegmentId>)> {
    let mut newest = None;
    // Of the commit that is being read, where its roll call starts and what it lists so far.
    let mut current: Option<(u32, Vec<SegmentId>)> = None;
    // Whether all of that commit is there. A roll call of several blocks may have begun in the
    // segment before.
    let mut is_whole = holder.sequence <= MEMBERS_PER_BLOCK as u64;
    for part in parts {
        match part {
            Part::Hole(_) => is_whole = false,
            Part::Block(block) if block.tag.kind == BlockKind::RollCall => {
                let (_, listed) = current.get_or_insert((block.offset, Vec::new()));
                listed.extend(decode_members(block.payload(image)));
            }
            Part::Block(block) if block.tag.kind == BlockKind::Commit => {
                newest = current.take().filter(|_| is_whole).or(newest);
                is_whole = true;
            }
            Part::Block(_) => {}
        }
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Seed, Tag, put_block};
    use crate::layout::MEMBER_BYTES;

    /// Blocks of `kinds`, each with as many members as said, and their parts.
    fn parts(kinds: &[Option<(BlockKind, usize)>]) -> (Vec<u8>, Vec<Part>) {
        let mut image = vec![0; 256];
        let parts = kinds.iter().map(|kind| {
            let offset = u32::try_from(image.len()).unwrap();
            let Some((kind, members)) = *kind else { return Part::Hole(offset..offset) };
            let tag = Tag { kind, number: 0 };
            let payload = vec![1; members * MEMBER_BYTES];
            put_block(&mut image, Seed::from_number(1), offset, tag, &[&payload]);
            let bytes = u32::try_from(image.len()).unwrap() - offset;
            Part::Block(FoundBlock { offset, bytes, tag, dictionary: None })
        });
        let parts = parts.collect();
        (image, parts)
    }

    #[test]
    fn only_a_roll_call_all_of_whose_commit_is_there_tells_the_members() {
        const CALL: Option<(BlockKind, usize)> = Some((BlockKind::RollCall, 3));
        const END: Option<(BlockKind, usize)> = Some((BlockKind::Commit, 0));
        let early = SegmentId { sequence: 7, slot: 0, nonce: 0 };
        let late = SegmentId { sequence: 7000, ..early };
        let cases: [(&[_], SegmentId, Option<usize>); 8] = [
            (&[CALL, END], early, Some(3)),
            (&[CALL, CALL, END], early, Some(6)),
            (&[CALL, END, CALL, CALL], early, Some(3)),
            (&[CALL, None, CALL, END], early, None),
            (&[CALL, END, None, CALL, END], early, Some(3)),
            (&[None, END, CALL, END], early, Some(3)),
            // Blocks of it may stand in the segment before.
            (&[CALL, END], late, None),
            (&[END, CALL, CALL, END], late, Some(6)),
        ];
        for (kinds, holder, expected) in cases {
            let (image, parts) = parts(kinds);
            let found = newest_roll_call(&parts, holder, &image);
            assert_eq!(found.map(|(_, listed)| listed.len()), expected, "{kinds:?}");
        }
    }
}
