//! Kinds of errors, and which error is of which kind.

use std::io;

use zkv_index::IndexError;
use zkv_log::LogError;
use zkv_record::RecordError;

use super::{Error, is_without_room};

/// The kinds of errors, for who wants to act on them.
///
/// ```
/// use zkv::{ErrorKind, Options, Store};
///
/// # let directory = tempfile::tempdir()?;
/// # let (path, copy) = (directory.path().join("pages.zkv"), directory.path().join("copy.zkv"));
/// let store = Store::open(&path)?;
/// store.backup(&copy)?;
/// match store.backup(&copy) {
///     Err(error) if error.kind() == ErrorKind::AlreadyExists => {} // yesterday's copy is kept
///     Err(error) if error.kind() == ErrorKind::StorageFull => panic!("make room: {error}"),
///     copied => copied?,
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The system refused an operation. Where it is for want of room or of a permission, calls of which only this
    /// kind is told have the kind for that.
    Io,
    /// There is no such store, collection, file or folder.
    NotFound,
    /// Something else has the name of what is to be made: the target of a copy or of a salvage, or what has the
    /// name of the index file and is none.
    AlreadyExists,
    /// The system does not allow it, by the permissions of a file or folder, or of the file system.
    PermissionDenied,
    /// The disk or a quota is full, or a file is as long as the process or the file system allows. What was written
    /// before is kept; it goes on once there is room.
    StorageFull,
    /// A file is damaged, or is none of zkv's.
    Corrupt,
    /// A newer zkv wrote the store.
    UnsupportedVersion,
    /// A key or value is over its limit.
    Limit,
    /// The store is open elsewhere.
    Locked,
    /// The store is open read-only.
    ReadOnly,
    /// A value cannot be encoded or decoded as the type asked for.
    Encoding,
    /// A collection was made with other types.
    TypeMismatch,
    /// A transaction conflicts with another one.
    Conflict,
    /// The call makes no sense: an option out of range, a store that was closed, a collection of another
    /// one, or a key in another form.
    Misuse,
}

impl Error {
    /// The error's kind.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Locked { .. } => ErrorKind::Locked,
            Self::Data { cause, .. } => kind_of_log(cause),
            Self::Index { cause, .. } => kind_of_index(cause),
            Self::Record(cause) => kind_of_record(cause),
            Self::Disagreement { .. } => ErrorKind::Corrupt,
            Self::InvalidOption { .. }
            | Self::InvalidName { .. }
            | Self::OtherStore
            | Self::KeyWrittenOtherwise
            | Self::Closed
            | Self::Forked => ErrorKind::Misuse,
            Self::ReadOnly => ErrorKind::ReadOnly,
            Self::File { cause, .. } => kind_of_io(cause),
            Self::CleaningNeedsRoom { cause, .. } => cause.kind(),
            Self::Conflict => ErrorKind::Conflict,
            Self::TypeMismatch { .. } => ErrorKind::TypeMismatch,
            Self::AsksTheData { .. } | Self::ReadsOtherwise { .. } => ErrorKind::Encoding,
            Self::CollectionDropped
            | Self::NoCollection { .. }
            | Self::NoCollectionToRead { .. } => ErrorKind::NotFound,
            Self::TooManyCollections => ErrorKind::Limit,
            Self::Batch { cause, .. } => kind_of_io(cause),
            Self::Thread(_) | Self::Interrupted => ErrorKind::Io,
        }
    }
}

fn kind_of_log(error: &LogError) -> ErrorKind {
    match error {
        LogError::Io { cause, .. } => kind_of_io(cause),
        LogError::UnsupportedVersion { .. } | LogError::UnsupportedFeatures(_) => {
            ErrorKind::UnsupportedVersion
        }
        LogError::EntryTooLarge { .. } => ErrorKind::Limit,
        LogError::InvalidOption { .. } | LogError::CommitFailed => ErrorKind::Misuse,
        LogError::ReadOnly => ErrorKind::ReadOnly,
        LogError::SyncFailed { .. } | LogError::Zstd => ErrorKind::Io,
        _ => ErrorKind::Corrupt,
    }
}

fn kind_of_index(error: &IndexError) -> ErrorKind {
    match error {
        IndexError::Io(cause) => kind_of_io(cause),
        IndexError::UnsupportedVersion { .. } | IndexError::UnsupportedFeatures { .. } => {
            ErrorKind::UnsupportedVersion
        }
        IndexError::TooLarge { .. } => ErrorKind::Limit,
        // As where the store is opened beside such a file: nothing of it is damaged.
        IndexError::NotAnIndex => ErrorKind::AlreadyExists,
        _ => ErrorKind::Corrupt,
    }
}

fn kind_of_record(error: &RecordError) -> ErrorKind {
    match error {
        RecordError::Corrupt { .. } => ErrorKind::Corrupt,
        RecordError::UnsupportedFlags { .. } => ErrorKind::UnsupportedVersion,
        RecordError::KeyTooLong { .. }
        | RecordError::ValueTooLong { .. }
        | RecordError::TooDeep { .. }
        | RecordError::KeyTooDeep { .. }
        | RecordError::TooManyElements { .. } => ErrorKind::Limit,
        _ => ErrorKind::Encoding,
    }
}

fn kind_of_io(error: &io::Error) -> ErrorKind {
    match error.kind() {
        _ if is_without_room(error) => ErrorKind::StorageFull,
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ErrorKind::PermissionDenied
        }
        _ => ErrorKind::Io,
    }
}
