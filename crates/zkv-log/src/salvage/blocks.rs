//! The blocks of one segment that are whole, and what lies between them.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::ops::Range;

use crate::block::{BlockHeader, BlockKind, END_MARK, Seed, Tag, is_whole};
use crate::codec::content_bytes;
use crate::dictionary::DictionaryDigest;
use crate::layout::{
    BLOCK_HEADER_BYTES, COMMIT_BYTES, DICTIONARIES_MAX, DICTIONARY_BYTES_MAX,
    DICTIONARY_FIELD_BYTES, MEMBER_BYTES, SEGMENT_HEADER_BYTES, SLOT_BYTES_MAX,
};
use crate::mark::CommitMark;
use crate::walk::Chain;

use super::checksums::{RangeChecksums, seed_of};

/// A stretch of a segment.
#[derive(Clone, Debug)]
pub(super) enum Part {
    Block(FoundBlock),
    /// No whole block starts in it.
    Hole(Range<u32>),
}

impl Part {
    pub(super) fn block(&self) -> Option<&FoundBlock> {
        match self {
            Self::Block(block) => Some(block),
            Self::Hole(_) => None,
        }
    }
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
    /// By the seed of a block that needs it, so that a file made for it cannot make salvage try
    /// thousands at each byte. Made when the first is looked for.
    by_seed: OnceCell<HashMap<Seed, &'a DictionaryDigest>>,
    by_number: [Option<DictionaryDigest>; DICTIONARIES_MAX],
    /// Made when the first hole is met.
    checksums: Option<RangeChecksums>,
}

impl<'a> BlockSearch<'a> {
    /// A search of `image`, a slot from its start up to where its blocks end at the latest.
    pub(super) fn new(image: &'a [u8], base: Seed, digests: &'a [DictionaryDigest]) -> Self {
        let (by_seed, by_number) = (OnceCell::new(), [None; DICTIONARIES_MAX]);
        Self { image, base, digests, by_seed, by_number, checksums: None }
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
        let is_seeded = |seed: Seed| match &self.checksums {
            Some(sums) => sums.of(seed.checksum(offset, &[]), summed.clone()) == header.checksum,
            None => is_whole(bytes, seed, offset),
        };
        let tag = header.tag;
        let with_entries = matches!(tag.kind, BlockKind::EntriesRaw | BlockKind::EntriesZstd);
        let number = usize::from(tag.number).checked_sub(1).filter(|_| with_entries);
        let dictionary = match number {
            None if is_seeded(self.base) => None,
            None => return None,
            Some(number) => Some(match self.by_number[number] {
                Some(known) if is_seeded(self.base.with_dictionary(&known)) => known,
                Some(_) => return None,
                None => {
                    let start = match &self.checksums {
                        Some(sums) => sums.seed_of(header.checksum, summed),
                        None => seed_of(header.checksum, &bytes[4..]),
                    };
                    let seed = Seed::from_number(seed_of(start, &offset.to_le_bytes()));
                    **self.by_seed().get(&seed)?
                }
            }),
        };
        let found = FoundBlock { offset, bytes: header.block_bytes(), tag, dictionary };
        Some((found, header.checksum))
    }

    fn by_seed(&self) -> &HashMap<Seed, &'a DictionaryDigest> {
        let seeded = |digest| (self.base.with_dictionary(digest), digest);
        self.by_seed.get_or_init(|| self.digests.iter().map(seeded).collect())
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
            self.checksums.get_or_insert_with(|| RangeChecksums::new(image));
            if self.block_at(offset).is_some() {
                return Some(offset);
            }
        }
        None
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::put_block;

    fn digests(count: u32) -> Vec<DictionaryDigest> {
        (0..count).map(|number| *blake3::hash(&number.to_le_bytes()).as_bytes()).collect()
    }

    fn needed(image: &[u8], base: Seed, digests: &[DictionaryDigest]) -> Vec<DictionaryDigest> {
        let parts = BlockSearch::new(image, base, digests).parts().into_iter();
        let dictionary = |part| match part {
            Part::Block(block) => block.dictionary,
            Part::Hole(_) => None,
        };
        parts.filter_map(dictionary).collect()
    }

    #[test]
    fn a_lost_dictionary_is_known_among_any_number_of_others() {
        let (base, digests) = (Seed::from_number(7), digests(1000));
        let tag = |number| Tag { kind: BlockKind::EntriesZstd, number };
        // A frame of one segment that says how long its content is.
        let payload = [0x20, 9, 1, 2, 3];
        for hole in [0, 20] {
            let mut image = vec![0; SEGMENT_HEADER_BYTES as usize + hole];
            for (number, digest) in [(1, &digests[999]), (2, &digests[64]), (1, &digests[999])] {
                let offset = u32::try_from(image.len()).unwrap();
                put_block(
                    &mut image,
                    base.with_dictionary(digest),
                    offset,
                    tag(number),
                    &[&payload],
                );
            }
            assert_eq!(needed(&image, base, &digests), [digests[999], digests[64], digests[999]]);
            assert!(needed(&image, base, &digests[65..999]).is_empty());
        }
    }

    #[test]
    fn what_may_need_any_of_thousands_of_dictionaries_is_searched_in_one_step_a_place() {
        let digests = digests(20_000);
        let image = [0x22, 0, 0x10, 0].repeat(1 << 18);
        // Of as many combinations, one or the other fits by chance. Trying each at each byte would take hours.
        assert!(needed(&image, Seed::from_number(7), &digests).len() < 10);
    }
}
