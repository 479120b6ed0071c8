//! What can go wrong with a log.

use std::io;

use crate::position::Position;

/// An error of the log. It never holds what an entry holds.
///
/// Its text says all of it, what the system said included, so it has no `source()`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The system refused an operation.
    #[error("could not {action} the data file: {cause}")]
    Io {
        /// What was being done, as a verb.
        action: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// The file is empty: nothing was ever written to it, or all of it is lost.
    #[error("the data file is empty: {remedy}")]
    Empty {
        /// What to do.
        remedy: &'static str,
    },
    /// The file is not a zkv data file.
    #[error(
        "this is no zkv data file (its first {} bytes are wrong, or missing); only if it was one, `zkv salvage` \
         may find some of it",
        crate::layout::FILE_HEADER_BYTES
    )]
    NotALog,
    /// Nothing says whose file it is, so that nothing can be salvaged.
    #[error("nothing in this file is of a zkv data file: not one header in it is whole")]
    NothingToSalvage,
    /// The file is damaged.
    #[error("the data file is damaged at byte {offset}: {what}; `zkv salvage` recovers the rest")]
    Corrupt {
        /// Where in the file, in bytes from its start.
        offset: u64,
        /// Which part does not hold together.
        what: &'static str,
    },
    /// A newer zkv wrote the file.
    #[error(
        "the data file has format version {found}, and this zkv reads up to {supported}: use a newer zkv"
    )]
    UnsupportedVersion {
        /// The file's format version.
        found: u16,
        /// The newest version that can be read.
        supported: u16,
    },
    /// The file uses features that this version does not know.
    #[error(
        "the data file uses features that this zkv does not know (bits {0:#x}): use a newer zkv"
    )]
    UnsupportedFeatures(u32),
    /// Another handle has the log open.
    #[error("the store is open elsewhere: close the other handle or process first")]
    Locked,
    /// An entry does not fit a slot.
    #[error("an entry of {bytes} bytes is over the limit of {max} for this log's slots")]
    EntryTooLarge {
        /// The entry's length.
        bytes: usize,
        /// The longest entry that a slot can hold.
        max: usize,
    },
    /// An option is out of its range.
    #[error("{option} is {value}, and must be {allowed}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// The value given.
        value: i64,
        /// The range it must lie in.
        allowed: &'static str,
    },
    /// An earlier sync failed, so that nothing is known of what is on the disk.
    #[error("a sync failed earlier: reopen the store to write again ({cause})")]
    SyncFailed {
        /// What the system said then, which may have been told to nobody.
        cause: String,
    },
    /// A part of the commit could not be appended, so that it cannot be whole.
    #[error("a part of this commit could not be written: nothing of it is kept, begin it anew")]
    CommitFailed,
    /// The checkpoint given to recovery is not one of this log's past.
    #[error("the checkpoint does not belong to this log's present state")]
    CheckpointMismatch,
    /// zstd could not compress, for want of memory.
    #[error("zstd could not compress a dictionary: memory has run out")]
    Zstd,
    /// The log was opened to be read.
    #[error("the store is open read-only")]
    ReadOnly,
}

impl LogError {
    pub(crate) fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::Io { action, cause }
    }

    /// Damage at `position` of the segment whose slot starts at byte `slot_start` of the file.
    pub(crate) fn corrupt(slot_start: u64, position: Position, what: &'static str) -> Self {
        Self::Corrupt { offset: slot_start + u64::from(position.offset), what }
    }
}

/// The log's result.
pub type Result<T, E = LogError> = std::result::Result<T, E>;
