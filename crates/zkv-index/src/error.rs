//! What can go wrong with an index file.

use std::io;

/// Why an index file could not be read or written.
///
/// The index is derivable: where it is damaged, missing or foreign, the remedy is to rebuild it
/// from the log. Its text says all of it, what the system said included, so it has no `source()`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The system failed. Nothing that could be opened before was lost.
    #[error("the index file could not be read or written: {0}")]
    Io(io::Error),
    /// There is no index file.
    #[error("there is no index file; rebuild it from the log")]
    Missing,
    /// Another file has the index file's name.
    #[error(
        "what has the name of the index file is none: move or rename it, or give the store another name"
    )]
    NotAnIndex,
    /// Bytes of the file are not what was written.
    #[error("the index file is damaged at offset {offset}: {what}; rebuild it from the log")]
    Corrupt {
        /// Where, in bytes from the file's start.
        offset: u64,
        /// Which rule of the format is broken.
        what: &'static str,
    },
    /// The file belongs to another store.
    #[error("the index file belongs to another store; rebuild it from the log")]
    Foreign {
        /// The id of the store that was asked for.
        expected: [u8; 16],
        /// The id that the file carries.
        found: [u8; 16],
    },
    /// The file is of another version of the format.
    #[error("the index file has format version {found}; this build reads version {supported}")]
    UnsupportedVersion {
        /// The file's version.
        found: u32,
        /// The version that this build reads.
        supported: u32,
    },
    /// The file uses parts of the format that this build does not know.
    #[error("the index file needs features {found:#x}; this build knows {supported:#x}")]
    UnsupportedFeatures {
        /// The feature bits that the file requires.
        found: u64,
        /// The feature bits that this build knows.
        supported: u64,
    },
    /// Something is larger than the format can hold.
    #[error("{what}: {found} is over the limit of {max}")]
    TooLarge {
        /// What is too large, with its unit.
        what: &'static str,
        /// How large it is.
        found: u64,
        /// How large it may be.
        max: u64,
    },
    /// The changes replace an entry that the checkpoint beneath them does not hold: they were made
    /// over another one.
    #[error("the changes do not fit the checkpoint beneath them; rebuild the index from the log")]
    Mismatch,
}

/// By hand: what thiserror makes of `#[from]` is a `source()`, which the text has already.
impl From<io::Error> for IndexError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl IndexError {
    pub(crate) fn corrupt(offset: u64, what: &'static str) -> Self {
        Self::Corrupt { offset, what }
    }

    /// Fails where `found` is over `max`.
    pub(crate) fn check_limit(what: &'static str, found: u64, max: u64) -> Result<(), Self> {
        if found <= max { Ok(()) } else { Err(Self::TooLarge { what, found, max }) }
    }
}
