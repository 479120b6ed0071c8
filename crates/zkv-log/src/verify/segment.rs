//! One segment: its header, its blocks, its seal, and what they say of each other.

use std::sync::Arc;

use crate::block::{BlockHeader, BlockKind};
use crate::dictionary::Dictionary;
use crate::header::SegmentHeader;
use crate::image::Image;
use crate::layout::{
    BLOCK_HEADER_BYTES, CELL_BYTES, DICTIONARIES_MAX, SEGMENT_HEADER_BYTES,
    SEGMENT_HEADER_FIELD_BYTES, seal_offset,
};
use crate::position::Position;
use crate::resync::Resync;
use crate::seal::Seal;
use crate::segment::ContentsBuilder;
use crate::walk::{Block, Chain, Seeds};

use super::run::Run;
use super::{End, Member, Severity};

/// A segment that is being checked.
pub(super) struct SegmentCheck<'a, 'run> {
    pub run: &'a mut Run<'run>,
    pub member: Member,
    pub seeds: Seeds,
    pub contents: ContentsBuilder,
    /// By number, those that are whole.
    pub dictionaries: [Option<Arc<Dictionary>>; DICTIONARIES_MAX],
    pub block_count: u32,
    /// `None` behind a damaged block, up to the next commit.
    pub chain: Option<Chain>,
    /// Not all blocks are known.
    pub is_damaged: bool,
    /// The header is not what was written.
    is_header_damaged: bool,
    resync: Resync,
}

impl<'a, 'run> SegmentCheck<'a, 'run> {
    pub(super) fn new(run: &'a mut Run<'run>, member: Member) -> Self {
        Self {
            run,
            member,
            seeds: Seeds::new(member.place.seed),
            contents: ContentsBuilder::new(member.place.slot_bytes),
            dictionaries: Default::default(),
            block_count: 0,
            chain: Some(Chain::default()),
            is_damaged: false,
            is_header_damaged: false,
            resync: Resync::new(member.place.slot_bytes),
        }
    }

    /// Where in the file `offset` of this segment is.
    pub(super) fn at(&self, offset: u32) -> u64 {
        self.member.place.start + u64::from(offset)
    }

    pub(super) fn position(&self, offset: u32) -> Position {
        Position { sequence: self.member.place.id.sequence, offset }
    }

    pub(super) fn finding(&mut self, offset: u32, what: &'static str, severity: Severity) {
        self.run.finding(self.at(offset), what, severity);
    }

    /// Blocks are lost, and with them what only all of them tell.
    fn lost(&mut self, offset: u32, what: &'static str) {
        self.is_damaged = true;
        self.chain = None;
        self.run.last_commit = None;
        self.run.pending.is_damaged = true;
        self.run.damaged.insert(self.member.place.id.sequence);
        self.finding(offset, what, Severity::Loss);
    }

    fn header_damaged(&mut self, offset: u32, what: &'static str) {
        self.is_header_damaged = true;
        self.finding(offset, what, Severity::Mendable);
    }

    /// Checks it all, and returns how many bytes were read.
    pub(super) fn all(mut self) -> u64 {
        let verifier = self.run.verifier;
        let place = self.member.place;
        let is_live_tail = matches!(self.member.end, End::Tail(_)) && verifier.is_live;
        let upto = match self.member.end {
            End::Tail(end) if is_live_tail => end,
            _ => place.slot_bytes,
        };
        // What failed for another reason the verifier's file has noted.
        let Image { bytes: image, unreadable, .. } =
            Image::read(&*verifier.file, place.start, upto, verifier.file_bytes);
        for run in unreadable {
            let what = "bytes that the disk cannot read";
            match run.start < self.blocks_end() {
                true => self.lost(run.start, what),
                // Behind the blocks stand zeros, and what the seal repeats.
                false => self.finding(run.start, what, Severity::Mendable),
            }
        }
        let header = self.check_header(&image);
        let seal = self.seal_of(&image);
        let end = self.walk(&image, seal.as_ref());
        match self.member.end {
            End::Sealed(_) => self.check_seal(&image, seal.as_ref(), end, header.as_ref()),
            End::Tail(_) if !is_live_tail => self.check_behind(&image, end),
            End::Unknown if !self.is_last() => {
                let offset = seal_offset(place.slot_bytes);
                self.finding(offset, "a segment's seal", Severity::Mendable);
            }
            End::Tail(_) | End::Unknown => {}
        }
        image.len() as u64
    }

    fn is_last(&self) -> bool {
        let last = self.run.verifier.members.keys().next_back();
        last == Some(&self.member.place.id.sequence)
    }

    fn check_header(&mut self, image: &[u8]) -> Option<SegmentHeader> {
        let place = self.member.place;
        let header = SegmentHeader::decode(image).ok().filter(|header| {
            header.id() == place.id
                && header.identity == self.run.verifier.identity
                && header.encode()[..] == image[..SEGMENT_HEADER_FIELD_BYTES]
        });
        match &header {
            Some(header) => {
                let start = self.position(0);
                let is_later = header.roll_call > start && !header.is_base();
                if header.synced_upto > start || is_later {
                    self.finding(0, "a segment's header tells of later segments", Severity::Loss);
                }
                if header.roll_call.sequence > 0 {
                    self.run.named_roll_calls.push((place.start, header.roll_call));
                }
            }
            None => self.header_damaged(0, "a segment's header"),
        }
        let cell = &image[..image.len().min(SEGMENT_HEADER_BYTES as usize)];
        let padding = cell.get(SEGMENT_HEADER_FIELD_BYTES..).unwrap_or(&[]);
        if let Some(at) = padding.iter().position(|byte| *byte != 0) {
            // Below a cell's 256 bytes.
            let at = u32::try_from(SEGMENT_HEADER_FIELD_BYTES + at).unwrap_or(0);
            self.header_damaged(at, "the zeros behind a segment's header");
        }
        header
    }

    fn seal_of(&self, image: &[u8]) -> Option<Seal> {
        let place = self.member.place;
        let block = image.get(seal_offset(place.slot_bytes) as usize..)?;
        Seal::decode_block(block, &place)
    }

    /// Checks all blocks, and returns where they end.
    fn walk(&mut self, image: &[u8], seal: Option<&Seal>) -> u32 {
        let limit = self.blocks_end();
        let blocks = &image[..image.len().min(limit as usize)];
        if blocks.len() < limit as usize && self.member.end != End::Unknown {
            let end = u32::try_from(blocks.len()).unwrap_or(limit);
            self.lost(end, "the file ends within a segment");
        }
        let mut offset = SEGMENT_HEADER_BYTES;
        while (offset as usize) < blocks.len() {
            match self.resync.block_at(blocks, offset, &self.seeds) {
                Some(block) => {
                    self.note(&block);
                    offset = block.end();
                }
                None => match self.pass_damage(blocks, offset, seal) {
                    Some(next) => offset = next,
                    None => return offset,
                },
            }
        }
        offset
    }

    /// Where blocks end, or may end.
    fn blocks_end(&self) -> u32 {
        match self.member.end {
            End::Sealed(end) | End::Tail(end) => end,
            End::Unknown => seal_offset(self.member.place.slot_bytes),
        }
    }

    fn note(&mut self, block: &Block<'_>) {
        self.run.counts.blocks += 1;
        self.seeds.learn(block);
        self.contents.note(block);
        self.check_block(block);
        self.block_count += 1;
        self.chain = self.chain.map(|chain| chain.and(block.checksum));
        self.hold_checkpoint_against(block);
    }

    /// Reports the damaged block at `offset`, and returns where the next whole one starts; `None`
    /// where there is none.
    fn pass_damage(&mut self, blocks: &[u8], offset: u32, seal: Option<&Seal>) -> Option<u32> {
        self.learn_damaged(blocks, offset);
        let cells = seal.map_or(&[][..], |seal| &seal.cells);
        let starts = (0..).zip(cells).map(|(cell, within)| cell * CELL_BYTES + u32::from(*within));
        let next = self.resync.next_block(blocks, offset, &self.seeds, starts);
        if next.is_some() || self.member.end != End::Unknown {
            self.lost(offset, "a block");
        } else if blocks[offset as usize..].iter().any(|byte| *byte != 0) {
            self.lost(offset, "what is no block, and may have been one");
        }
        next
    }

    /// A dictionary's block that is damaged most likely still names it: the blocks that need it can
    /// then be told from others.
    fn learn_damaged(&mut self, blocks: &[u8], offset: u32) {
        let bytes = &blocks[offset as usize..];
        let Some(header) = bytes.first_chunk().and_then(|header| BlockHeader::decode(*header))
        else {
            return;
        };
        let number = usize::from(header.tag.number).wrapping_sub(1);
        let is_known = self.seeds.by_dictionary.get(number).is_none_or(Option::is_some);
        if header.tag.kind == BlockKind::Dictionary && !is_known {
            let payload = &bytes[BLOCK_HEADER_BYTES as usize..];
            let (tag, checksum) = (header.tag, header.checksum);
            self.seeds.learn(&Block { offset, tag, checksum, payload });
        }
    }

    fn check_seal(
        &mut self,
        image: &[u8],
        seal: Option<&Seal>,
        end: u32,
        header: Option<&SegmentHeader>,
    ) {
        let place = self.member.place;
        let offset = seal_offset(place.slot_bytes);
        let Some(seal) = seal else {
            let what = "a segment's seal";
            return self.finding(offset, what, Severity::Mendable);
        };
        self.run.counts.blocks += 1;
        let next = self.run.verifier.members.get(&place.id.sequence.saturating_add(1));
        let is_next = |next: &Member| {
            (next.place.id.slot, next.place.id.nonce) == (seal.next_slot, seal.next_nonce)
        };
        let mut is_right = next.is_none_or(is_next)
            && self.member.end == End::Sealed(seal.data_end)
            && header.is_none_or(|header| *header == seal.header)
            && seal.header.id() == place.id
            && seal.header.identity == self.run.verifier.identity
            && seal.synced_upto <= self.position(seal.data_end)
            && self.run.last_commit.is_none_or(|number| number == seal.last_commit);
        if !self.is_damaged {
            is_right &= end == seal.data_end
                && seal.block_count == self.block_count
                && seal.dictionary_offsets == self.contents.dictionary_offsets
                && seal.cells == self.contents.cells;
        }
        if !is_right {
            self.finding(offset, "a seal does not fit its segment", Severity::Mendable);
        }
        let sealed = image.get(..seal.data_end as usize).unwrap_or(image);
        // Where anything else was found, that is why.
        let is_explained = self.is_damaged || self.is_header_damaged;
        if !is_explained && *blake3::hash(sealed).as_bytes() != seal.digest {
            self.finding(offset, "a segment does not match its digest", Severity::Mendable);
        }
    }

    /// Holds what an index keeps of the log against the log, where its watermark is.
    fn hold_checkpoint_against(&mut self, block: &Block<'_>) {
        let Some(checkpoint) = &self.run.verifier.checkpoint else { return };
        if checkpoint.watermark != self.position(block.end()) || self.is_damaged {
            return;
        }
        let digests = self.contents.dictionary_digests.iter().flatten();
        let offsets = self.contents.dictionary_offsets.iter().filter(|offset| **offset != 0);
        let dictionaries = digests.zip(offsets);
        let known = checkpoint.dictionaries.iter().map(|known| (&known.digest, &known.offset));
        let cells = self.contents.cells.iter().take(checkpoint.cells.len());
        let is_right = self.chain == Some(checkpoint.chain)
            && checkpoint.block_count == self.block_count
            && self.run.last_commit.is_none_or(|number| number == checkpoint.last_commit)
            && dictionaries.eq(known)
            && cells.eq(&checkpoint.cells)
            && checkpoint.segments.iter().all(|segment| {
                let member = self.run.verifier.members.get(&segment.id.sequence);
                let is_tail = segment.id.sequence == checkpoint.watermark.sequence;
                // One that is not there was freed since.
                is_tail || member.is_none_or(|member| member.end == End::Sealed(segment.data_end))
            });
        self.run.counts.is_checkpoint_right = Some(is_right);
    }
}
