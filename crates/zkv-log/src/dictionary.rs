//! Dictionaries: named by their digest, prepared once, shared by every segment that uses them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use zstd_safe::DDict;

/// The BLAKE3 digest of a dictionary's bytes: its name.
pub(crate) type DictionaryDigest = [u8; 32];

/// A dictionary, ready for use.
pub(crate) struct Dictionary {
    digest: DictionaryDigest,
    bytes: Vec<u8>,
    for_reading: DDict<'static>,
}

impl Dictionary {
    /// `None` where zstd takes the bytes for no dictionary.
    pub(crate) fn new(bytes: Vec<u8>) -> Option<Self> {
        let digest = *blake3::hash(&bytes).as_bytes();
        let for_reading = DDict::try_create(&bytes)?;
        Some(Self { digest, bytes, for_reading })
    }

    pub(crate) fn digest(&self) -> &DictionaryDigest {
        &self.digest
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn for_reading(&self) -> &DDict<'static> {
        &self.for_reading
    }
}

impl fmt::Debug for Dictionary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Dictionary")
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// The dictionaries in use, so that each exists once however many segments repeat it.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    by_digest: Mutex<HashMap<DictionaryDigest, Arc<Dictionary>>>,
}

impl Interner {
    pub(crate) fn get(&self, digest: &DictionaryDigest) -> Option<Arc<Dictionary>> {
        self.by_digest.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    pub(crate) fn intern(&self, dictionary: Dictionary) -> Arc<Dictionary> {
        let mut by_digest = self.by_digest.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = *dictionary.digest();
        Arc::clone(by_digest.entry(digest).or_insert_with(|| Arc::new(dictionary)))
    }
}

#[cfg(test)]
mod tests {
    use super::Dictionary;

    #[test]
    fn bytes_that_only_look_like_a_dictionary_are_refused() {
        // zstd's dictionary magic number (RFC 8878, section 5), and no tables behind it.
        let bytes = [0xEC30_A437_u32.to_le_bytes().to_vec(), vec![0xFF; 100]].concat();
        assert!(Dictionary::new(bytes).is_none());
    }
}
