//! The dictionaries of a segment: each is read when a block that needs it first is.

use std::io;
use std::sync::Arc;

use zkv_io::StorageFile;

use super::Segment;
use crate::block::{BlockKind, Seed};
use crate::codec::Decoder;
use crate::dictionary::{Dictionary, DictionaryDigest, Interner};
use crate::error::{LogError, Result};
use crate::layout::{
    BLOCK_HEADER_BYTES, DICTIONARIES_MAX, DICTIONARY_BYTES_MAX, DICTIONARY_FIELD_BYTES,
    SEGMENT_HEADER_BYTES,
};
use crate::walk::{Block, BlockWalk, Seeds};

/// The name of a dictionary, and the seed of the blocks that need it.
#[derive(Clone, Debug)]
pub(crate) struct SegmentDictionary {
    pub digest: DictionaryDigest,
    pub seed: Seed,
    /// Only where this process has put it into the segment. Those that were read are the interner's
    /// to keep, since a forged file may have any number of them.
    pinned: Option<Arc<Dictionary>>,
}

impl Segment {
    /// Makes `dictionary` the segment's dictionary of this number, from 1.
    pub(crate) fn set_dictionary(&self, number: u8, dictionary: Arc<Dictionary>) {
        let digest = *dictionary.digest();
        let seed = self.place.seed.with_dictionary(&digest);
        let named = Box::new(SegmentDictionary { digest, seed, pinned: Some(dictionary) });
        let set = self.dictionaries[usize::from(number) - 1].set(named);
        debug_assert!(set.is_ok(), "a number is given once, and an aborted commit's anew");
    }

    /// The name of the dictionary of this number, from 1, read when it is first asked for.
    #[inline]
    pub(crate) fn dictionary_name(
        &self,
        file: &dyn StorageFile,
        interner: &Interner,
        number: u8,
    ) -> Result<&SegmentDictionary> {
        let place = &self.dictionaries[usize::from(number).wrapping_sub(1) % DICTIONARIES_MAX];
        match place.get() {
            Some(found) => Ok(found),
            None => {
                let digest = *self.load_dictionary(file, interner, number)?.digest();
                let seed = self.place.seed.with_dictionary(&digest);
                Ok(place.get_or_init(|| Box::new(SegmentDictionary { digest, seed, pinned: None })))
            }
        }
    }

    /// The dictionary of this number, from 1, prepared.
    #[cold]
    pub(crate) fn dictionary(
        &self,
        file: &dyn StorageFile,
        interner: &Interner,
        number: u8,
    ) -> Result<Arc<Dictionary>> {
        let named = self.dictionary_name(file, interner, number)?;
        if let Some(kept) = named.pinned.clone().or_else(|| interner.get(&named.digest)) {
            return Ok(kept);
        }
        let loaded = self.load_dictionary(file, interner, number)?;
        // Its block may have changed since it was named.
        let is_same = *loaded.digest() == named.digest;
        is_same.then_some(loaded).ok_or_else(|| self.damaged(0, "a dictionary"))
    }

    #[cold]
    fn load_dictionary(
        &self,
        file: &dyn StorageFile,
        interner: &Interner,
        number: u8,
    ) -> Result<Arc<Dictionary>> {
        let index = usize::from(number) - 1;
        let (offsets, may_lack) = self.dictionary_offsets(file, |found| found[index] == 0)?;
        let offset = offsets[index];
        if offset == 0 && may_lack {
            let cause = io::Error::other("a page that may hold a dictionary cannot be read");
            return Err(LogError::Io { action: "read", cause });
        }
        let block = self.read_dictionary_block(file, offset, number)?;
        let damaged = || self.damaged(offset, "a dictionary");
        let (digest, frame) = block.split_first_chunk().ok_or_else(damaged)?;
        if let Some(dictionary) = interner.get(digest) {
            return Ok(dictionary);
        }
        let mut decoder = Decoder::new();
        decoder.decompress_frame(frame, None, DICTIONARY_BYTES_MAX).ok_or_else(damaged)?;
        let bytes = std::mem::take(&mut decoder.payload);
        let dictionary = Dictionary::new(bytes).ok_or_else(damaged)?;
        if dictionary.digest() != digest {
            return Err(damaged());
        }
        Ok(interner.intern(dictionary))
    }

    /// The payload of the dictionary block at `offset`.
    fn read_dictionary_block(
        &self,
        file: &dyn StorageFile,
        offset: u32,
        number: u8,
    ) -> Result<Vec<u8>> {
        let damaged = || self.damaged(offset, "a dictionary");
        if !(SEGMENT_HEADER_BYTES..self.end()).contains(&offset) {
            return Err(damaged());
        }
        let longest = DICTIONARY_BYTES_MAX + DICTIONARY_FIELD_BYTES;
        let left = (self.end() - offset) as usize;
        let mut bytes = vec![0; left.min(longest + BLOCK_HEADER_BYTES as usize)];
        file.read_at(self.place.start + u64::from(offset), &mut bytes)
            .map_err(self.unread(offset))?;
        let block = BlockWalk::new(&bytes, offset, Seeds::new(self.place.seed)).next();
        match block {
            Some(Block { tag, payload, .. })
                if tag.kind == BlockKind::Dictionary && tag.number == number =>
            {
                Ok(payload.to_vec())
            }
            _ => Err(damaged()),
        }
    }

    /// The digests of the segment's dictionaries.
    pub(crate) fn dictionary_digests(
        &self,
        file: &dyn StorageFile,
    ) -> Result<Vec<DictionaryDigest>> {
        let mut digests = Vec::new();
        let (offsets, _) = self.dictionary_offsets(file, |found| found.contains(&0))?;
        for (number, offset) in (1..).zip(offsets) {
            let place = &self.dictionaries[usize::from(number) - 1];
            if let Some(found) = place.get() {
                digests.push(found.digest);
                continue;
            }
            if offset != 0 {
                let block = self.read_dictionary_block(file, offset, number)?;
                digests.extend(block.first_chunk::<DICTIONARY_FIELD_BYTES>().copied());
            }
        }
        Ok(digests)
    }
}
