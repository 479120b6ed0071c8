//! Dictionaries: named by their digest, prepared once, shared by every segment that uses them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use zstd_safe::DDict;

use crate::segment::SegmentId;

/// The BLAKE3 digest of a dictionary's bytes: its name.
pub(crate) type DictionaryDigest = [u8; 32];

/// Where the log has a dictionary.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DictionaryPlace {
    pub segment: SegmentId,
    pub number: u8,
}

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

    /// Its own bytes, zstd's copy of them, and the tables that zstd makes of any dictionary.
    fn memory_bytes(&self) -> usize {
        const TABLES_BYTES: usize = 32 << 10;
        2 * self.bytes.len() + TABLES_BYTES
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

/// What the kept dictionaries may take. A log has a handful of up to 112 KiB; a forged one may have
/// fifteen different ones in each segment, of 256 KiB each.
const KEPT_BYTES_MAX: usize = 32 << 20;

/// The dictionaries in use, so that each exists once however many segments repeat it. Those that
/// were not asked for in the longest time make room for others; they are read again on demand.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    by_digest: HashMap<DictionaryDigest, KeptDictionary>,
    bytes: usize,
    /// Counts the questions, to tell which dictionary was asked for last.
    clock: u64,
}

#[derive(Debug)]
struct KeptDictionary {
    dictionary: Arc<Dictionary>,
    asked_at: u64,
}

impl Interner {
    pub(crate) fn get(&self, digest: &DictionaryDigest) -> Option<Arc<Dictionary>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(digest)
    }

    pub(crate) fn intern(&self, dictionary: Dictionary) -> Arc<Dictionary> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept.get(dictionary.digest());
        known.unwrap_or_else(|| kept.insert(dictionary))
    }
}

impl Kept {
    fn get(&mut self, digest: &DictionaryDigest) -> Option<Arc<Dictionary>> {
        self.clock += 1;
        let kept = self.by_digest.get_mut(digest)?;
        kept.asked_at = self.clock;
        Some(Arc::clone(&kept.dictionary))
    }

    fn insert(&mut self, dictionary: Dictionary) -> Arc<Dictionary> {
        self.bytes += dictionary.memory_bytes();
        while self.bytes > KEPT_BYTES_MAX && self.drop_oldest() {}
        let (digest, dictionary) = (*dictionary.digest(), Arc::new(dictionary));
        let kept = KeptDictionary { dictionary: Arc::clone(&dictionary), asked_at: self.clock };
        self.by_digest.insert(digest, kept);
        dictionary
    }

    fn drop_oldest(&mut self) -> bool {
        let oldest = self.by_digest.iter().min_by_key(|(_, kept)| kept.asked_at);
        let Some(digest) = oldest.map(|(digest, _)| *digest) else { return false };
        let dropped = self.by_digest.remove(&digest);
        self.bytes -= dropped.map_or(0, |kept| kept.dictionary.memory_bytes());
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Dictionary, Interner, KEPT_BYTES_MAX};

    fn dictionary(number: u32) -> Dictionary {
        let mut bytes = vec![7; 256 << 10];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        Dictionary::new(bytes).unwrap()
    }

    #[test]
    fn a_dictionary_exists_once() {
        let interner = Interner::default();
        let first = interner.intern(dictionary(1));
        assert!(Arc::ptr_eq(&first, &interner.intern(dictionary(1))));
        assert!(Arc::ptr_eq(&first, &interner.get(first.digest()).unwrap()));
    }

    #[test]
    fn dictionaries_without_end_take_bounded_memory_and_the_one_in_use_stays() {
        let interner = Interner::default();
        let used = *interner.intern(dictionary(0)).digest();
        for number in 1..200 {
            interner.intern(dictionary(number));
            assert!(interner.get(&used).is_some(), "behind {number}");
        }
        let kept = interner.kept.lock().unwrap();
        let bytes: usize = kept.by_digest.values().map(|kept| kept.dictionary.memory_bytes()).sum();
        assert_eq!(bytes, kept.bytes);
        assert!((KEPT_BYTES_MAX / 2..=KEPT_BYTES_MAX).contains(&bytes), "{bytes}");
    }

    #[test]
    fn bytes_that_only_look_like_a_dictionary_are_refused() {
        // zstd's dictionary magic number (RFC 8878, section 5), and no tables behind it.
        let bytes = [0xEC30_A437_u32.to_le_bytes().to_vec(), vec![0xFF; 100]].concat();
        assert!(Dictionary::new(bytes).is_none());
    }
}
