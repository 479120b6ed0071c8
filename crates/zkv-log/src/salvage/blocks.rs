//! The blocks of one segment that are whole, and what lies between them.

use std::ops::Range;

use crate::block::{BlockHeader, BlockKind, END_MARK, Seed, Tag, is_whole};
use crate::codec::content_bytes;
use crate::dictionary::DictionaryDigest;
use crate::layout::{
    BLOCK_HEADER_BYTES, COMMIT_BYTES, DICTIONARIES_MAX, DICTIONARY_BYTES_MAX,
    DICTIONARY_FIELD_BYTES, MEMBER_BYTES, SEGMENT_HEADER_BYTES, SLOT_BYTES_MAX,
};
use crate::walk::{Chain, CommitMark};

use super::checksums::RangeChecksums;

/// A dictionary that a segment has lost is looked for among this many others, so that a file made
/// for it cannot make salvage try thousands at each block.
const DIGESTS_TRIED_MAX: usize = 64;

/// A stretch of a segment.
#[derive(Clone, Debug)]
pub(super) enum Part {
    Block(FoundBlock),
    /// No whole block starts in it.
    Hole(Range<u32>),
}

/// A block found whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct FoundBlock {
    pub offset: u32,
    /// With its header.
    pub bytes: u32,
    pub tag: Tag,
    /// The dictionary that it needs.
    pub dictionary: Option<DictionaryDigest>,
}

impl FoundBlock {
    pub(super) fn end(&self) -> u32 {
        self.offset + self.bytes
    }

    pub(super) fn payload<'a>(&self, image: &'a [u8]) -> &'a [u8] {
        &image[(self.offset + BLOCK_HEADER_BYTES) as usize..self.end() as usize]
    }
}

/// Goes through a slot's bytes, block by block, and byte by byte behind what is none.
pub(super) struct BlockSearch<'a> {
    image: &'a [u8],
    base: Seed,
    /// The dictionaries of the whole log, for numbers whose own block is lost.
    digests: &'a [DictionaryDigest],
    by_number: [Option<DictionaryDigest>; DICTIONARIES_MAX],
    /// Made when the first hole is met.
    checksums: Option<RangeChecksums>,
}

impl<'a> BlockSearch<'a> {
    /// A search of `image`, a slot from its start up to where its blocks end at the latest.
    pub(super) fn new(image: &'a [u8], base: Seed, digests: &'a [DictionaryDigest]) -> Self {
        let digests = &digests[..digests.len().min(DIGESTS_TRIED_MAX)];
        let by_number = [None; DICTIONARIES_MAX];
        Self { image, base, digests, by_number, checksums: None }
    }

    /// All parts, in their order.
    ///
    /// A commit block that does not fit the blocks before it is none, as far as those are known.
    pub(super) fn parts(mut self) -> Vec<Part> {
        let mut parts = Vec::new();
        // Unknown behind the first hole.
        let mut chain = Some(Chain::default());
        let end = u32::try_from(self.image.len()).unwrap_or(u32::MAX);
        let mut offset = SEGMENT_HEADER_BYTES;
        while offset < end {
            let Some((block, checksum)) = self.block_at(offset) else {
                let next = self.next_block(offset + 1).unwrap_or(end);
                parts.push(Part::Hole(offset..next));
                (offset, chain) = (next, None);
                continue;
            };
            offset = block.end();
            let is_stray = block.tag.kind == BlockKind::Commit
                && chain.is_some_and(|chain| !self.fits(&block, chain));
            if is_stray {
                parts.push(Part::Hole(block.offset..offset));
                chain = None;
                continue;
            }
            chain = chain.map(|chain| chain.and(checksum));
            self.learn(&block);
            parts.push(Part::Block(block));
        }
        parts
    }

    fn fits(&self, commit: &FoundBlock, chain: Chain) -> bool {
        CommitMark::decode(commit.payload(self.image)).is_some_and(|mark| mark.chain == chain)
    }

    fn learn(&mut self, block: &FoundBlock) {
        let Some(number) = usize::from(block.tag.number).checked_sub(1) else { return };
        let digest = match block.tag.kind {
            BlockKind::Dictionary => block.payload(self.image).first_chunk().copied(),
            // What one block was found to need is what all of that number need.
            _ => block.dictionary,
        };
        if let (Some(known), Some(digest)) = (self.by_number.get_mut(number), digest) {
            *known = Some(digest);
        }
    }

    /// The block that starts at `offset`, if it is whole, and its checksum.
    fn block_at(&self, offset: u32) -> Option<(FoundBlock, u32)> {
        let rest = self.image.get(offset as usize..)?;
        let header = BlockHeader::decode(*rest.first_chunk()?)?;
        let bytes = rest.get(..header.block_bytes() as usize)?;
        let summed = offset as usize + 4..offset as usize + bytes.len();
        let found = |seed: Seed| match &self.checksums {
            Some(sums) => sums.of(seed.checksum(offset, &[]), summed.clone()) == header.checksum,
            None => is_whole(bytes, seed, offset),
        };
        self.identify(offset, &header, found).map(|block| (block, header.checksum))
    }

    /// The start of the first whole block from `from` on.
    fn next_block(&mut self, from: u32) -> Option<u32> {
        let image = self.image;
        let end = u32::try_from(image.len()).ok()?;
        for offset in from..end.saturating_sub(BLOCK_HEADER_BYTES - 1) {
            let at = offset as usize;
            // Most of a file that is no block is zeros.
            if image[at + 4] == 0 {
                continue;
            }
            let Some(header) = BlockHeader::decode(*image[at..].first_chunk()?) else { continue };
            let block_end = at + header.block_bytes() as usize;
            let payload = image.get(at + BLOCK_HEADER_BYTES as usize..block_end);
            if !payload.is_some_and(|payload| is_plausible(header.tag, payload)) {
                continue;
            }
            let checksums = self.checksums.take().unwrap_or_else(|| RangeChecksums::new(image));
            let found = |seed: Seed| {
                let start = seed.checksum(offset, &[]);
                checksums.of(start, at + 4..block_end) == header.checksum
            };
            let is_block = self.identify(offset, &header, found).is_some();
            self.checksums = Some(checksums);
            if is_block {
                return Some(offset);
            }
        }
        None
    }

    /// Finds the seed with which a block `is_whole`, where one is known.
    fn identify(
        &self,
        offset: u32,
        header: &BlockHeader,
        is_whole: impl Fn(Seed) -> bool,
    ) -> Option<FoundBlock> {
        let (tag, bytes) = (header.tag, header.block_bytes());
        let with = |dictionary| FoundBlock { offset, bytes, tag, dictionary };
        let with_entries = matches!(tag.kind, BlockKind::EntriesRaw | BlockKind::EntriesZstd);
        if !with_entries || tag.number == 0 {
            return is_whole(self.base).then(|| with(None));
        }
        let known = self.by_number[usize::from(tag.number) - 1].as_ref();
        let digests = known.map_or(self.digests, std::slice::from_ref);
        let digest = digests.iter().find(|digest| is_whole(self.base.with_dictionary(digest)));
        digest.map(|digest| with(Some(*digest)))
    }
}

/// Whether a block of this tag may have this payload, as far as a look at its start tells. One in
/// 2^32 candidates passes the checksum by chance; this leaves few of them.
fn is_plausible(tag: Tag, payload: &[u8]) -> bool {
    let is_frame = |frame: &[u8], bytes_max: usize| {
        content_bytes(frame).is_some_and(|bytes| bytes <= bytes_max as u64)
    };
    match tag.kind {
        // The first byte is of the count, which is not 0.
        BlockKind::EntriesRaw => tag.number == 0 && payload.first().is_some_and(|byte| *byte != 0),
        BlockKind::EntriesZstd => is_frame(payload, SLOT_BYTES_MAX as usize),
        BlockKind::Dictionary => {
            let frame = payload.get(DICTIONARY_FIELD_BYTES..);
            tag.number > 0 && frame.is_some_and(|frame| is_frame(frame, DICTIONARY_BYTES_MAX))
        }
        BlockKind::RollCall | BlockKind::Retire => {
            tag.number == 0 && payload.len().is_multiple_of(MEMBER_BYTES)
        }
        BlockKind::Commit => tag.number <= END_MARK && payload.len() == COMMIT_BYTES,
        // It has a place of its own.
        BlockKind::Seal => false,
    }
}
