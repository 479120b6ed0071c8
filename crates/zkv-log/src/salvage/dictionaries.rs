//! The dictionaries of a damaged log: each is repeated in many segments, and one whole copy is enough.

use std::collections::{BTreeMap, HashMap};
use std::io;
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
        let loaded = self.load(file, digest)?;
        if self.prepared.len() == DICTIONARIES_KEPT {
            self.prepared.clear();
        }
        let loaded = Arc::new(loaded);
        self.prepared.insert(*digest, Arc::clone(&loaded));
        Some(loaded)
    }

    /// Reads the first copy that is whole. Those before it that are not are never looked at again: a file made
    /// for it may have thousands of them, and as many blocks that ask.
    fn load(&mut self, file: &dyn StorageFile, digest: &DictionaryDigest) -> Option<Dictionary> {
        let mut places = self.places.remove(digest)?.into_iter();
        let (mut kept, mut found) = (Vec::new(), None);
        for place in places.by_ref() {
            found = load_at(file, &mut self.decoder, &place, digest).unwrap_or_else(|_| {
                // The disk may be in a better mood next time.
                kept.push(place);
                None
            });
            if found.is_some() {
                kept.push(place);
                break;
            }
        }
        kept.extend(places);
        self.places.insert(*digest, kept);
        found
    }
}

/// `None` where what stands there is not that dictionary.
fn load_at(
    file: &dyn StorageFile,
    decoder: &mut Decoder,
    at: &DictionaryPlace,
    digest: &DictionaryDigest,
) -> io::Result<Option<Dictionary>> {
    let mut block = vec![0; at.bytes as usize];
    file.read_at(at.place.start + u64::from(at.offset), &mut block)?;
    let frame = block.get(BLOCK_HEADER_BYTES as usize + DICTIONARY_FIELD_BYTES..);
    let frame = frame.filter(|_| is_whole(&block, at.place.seed, at.offset));
    let decoded =
        frame.and_then(|frame| decoder.decompress_frame(frame, None, DICTIONARY_BYTES_MAX));
    let dictionary = decoded.and_then(|()| Dictionary::new(std::mem::take(&mut decoder.payload)));
    Ok(dictionary.filter(|dictionary| dictionary.digest() == digest))
}

#[cfg(test)]
mod tests {
    use zkv_io::{MemoryStorage, OpenMode, Storage};

    use super::*;
    use crate::block::{Tag, put_block};
    use crate::codec::Encoder;
    use crate::header::Identity;
    use crate::segment::{Place, SegmentId};

    #[test]
    fn a_copy_that_is_not_what_it_says_is_looked_at_once() {
        let identity = Identity { store_id: [1; 16], hash_key: [0; 32], slot_bytes: 64 << 10 };
        let place = Place::new(&identity, SegmentId { sequence: 1, slot: 0, nonce: 1 });
        let dictionary =
            Dictionary::new(b"some text that is its own dictionary".repeat(9)).unwrap();
        let mut encoder = Encoder::new(3);
        let (mut bytes, mut places) = (Vec::new(), Vec::new());
        for content in [b"something else".as_slice(), dictionary.bytes(), b"and yet another"] {
            let frame = encoder.frame(content, None).unwrap().to_vec();
            let offset = u32::try_from(bytes.len()).unwrap();
            let tag = Tag { kind: BlockKind::Dictionary, number: 1 };
            put_block(&mut bytes, place.seed, offset, tag, &[dictionary.digest(), &frame]);
            let block_bytes = u32::try_from(bytes.len()).unwrap() - offset;
            places.push(DictionaryPlace { place, offset, bytes: block_bytes });
        }
        let storage = MemoryStorage::new();
        let file = storage.open("log".as_ref(), OpenMode::CreateNew).unwrap();
        file.write_at(place.start, &bytes).unwrap();
        let (digest, other) = (*dictionary.digest(), [9; 32]);
        let places = BTreeMap::from([(digest, places.clone()), (other, places)]);
        let mut dictionaries = Dictionaries::new(places);
        assert_eq!(dictionaries.get(&*file, &digest).unwrap().digest(), &digest);
        let offsets: Vec<u32> =
            dictionaries.places[&digest].iter().map(|place| place.offset).collect();
        assert_eq!(offsets.len(), 2, "the first was not it, the last was not looked at");
        assert!(dictionaries.get(&*file, &other).is_none());
        assert!(dictionaries.places[&other].is_empty());
    }
}
