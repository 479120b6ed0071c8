//! The dictionaries of a damaged log: each is repeated in many segments, and one whole copy is enough.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use zkv_io::StorageFile;

use crate::block::{BlockKind, is_whole};
use crate::codec::Decoder;
use crate::dictionary::{Dictionary, DictionaryDigest};
use crate::layout::{
    BLOCK_HEADER_BYTES, DICTIONARY_BYTES_MAX, DICTIONARY_FIELD_BYTES, SLOT_BYTES_MAX,
};

use super::survey::DictionaryPlace;

/// Dictionaries that are kept prepared. A log has few; a file made for it may name millions.
const DICTIONARIES_KEPT: usize = 32;

/// The dictionaries of the log, wherever a copy of one is whole.
pub(super) struct Dictionaries {
    places: BTreeMap<DictionaryDigest, Vec<DictionaryPlace>>,
    prepared: HashMap<DictionaryDigest, Arc<Dictionary>>,
    decoder: Decoder,
}

impl Dictionaries {
    pub(super) fn new(places: BTreeMap<DictionaryDigest, Vec<DictionaryPlace>>) -> Self {
        Self { places, prepared: HashMap::new(), decoder: Decoder::new() }
    }

    /// Puts the entries of a block with this payload into `decoder.payload`; `None` where they cannot
    /// be decompressed.
    pub(super) fn decode(
        &mut self,
        file: &dyn StorageFile,
        decoder: &mut Decoder,
        kind: BlockKind,
        dictionary: Option<&DictionaryDigest>,
        payload: &[u8],
    ) -> Option<()> {
        if kind == BlockKind::EntriesRaw {
            decoder.payload.clear();
            decoder.payload.extend_from_slice(payload);
            return Some(());
        }
        let dictionary = match dictionary {
            Some(digest) => Some(self.get(file, digest)?),
            None => None,
        };
        decoder.decompress_frame(payload, dictionary.as_deref(), SLOT_BYTES_MAX as usize)
    }

    fn get(
        &mut self,
        file: &dyn StorageFile,
        digest: &DictionaryDigest,
    ) -> Option<Arc<Dictionary>> {
        if let Some(dictionary) = self.prepared.get(digest) {
            return Some(Arc::clone(dictionary));
        }
        let places = self.places.get(digest)?;
        let decoder = &mut self.decoder;
        let loaded = places.iter().find_map(|place| load(file, decoder, place, digest))?;
        if self.prepared.len() == DICTIONARIES_KEPT {
            self.prepared.clear();
        }
        let loaded = Arc::new(loaded);
        self.prepared.insert(*digest, Arc::clone(&loaded));
        Some(loaded)
    }
}

fn load(
    file: &dyn StorageFile,
    decoder: &mut Decoder,
    at: &DictionaryPlace,
    digest: &DictionaryDigest,
) -> Option<Dictionary> {
    let mut block = vec![0; at.bytes as usize];
    file.read_at(at.place.start + u64::from(at.offset), &mut block).ok()?;
    if !is_whole(&block, at.place.seed, at.offset) {
        return None;
    }
    let frame = block.get(BLOCK_HEADER_BYTES as usize + DICTIONARY_FIELD_BYTES..)?;
    decoder.decompress_frame(frame, None, DICTIONARY_BYTES_MAX)?;
    let dictionary = Dictionary::new(std::mem::take(&mut decoder.payload))?;
    (dictionary.digest() == digest).then_some(dictionary)
}
