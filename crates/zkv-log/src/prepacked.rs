//! Entries that have blocks of their own, as those stand in the log: whoever moves them need not compress them again.

use crate::block::BlockKind;
use crate::dictionary::{Dictionary, DictionaryDigest};

/// An entry that has a block of its own, as it was packed.
#[derive(Clone, Debug)]
pub struct Prepacked {
    pub(crate) payload: Vec<u8>,
    pub(crate) kind: BlockKind,
    pub(crate) dictionary: Option<DictionaryDigest>,
}

impl Prepacked {
    /// The memory that it takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.payload.len() + size_of::<Self>()
    }

    /// Whether it was packed as it would be with `dictionary`, be it at another level.
    pub(crate) fn is_as_with(&self, dictionary: Option<&Dictionary>) -> bool {
        self.dictionary.as_ref() == dictionary.map(Dictionary::digest)
    }
}
