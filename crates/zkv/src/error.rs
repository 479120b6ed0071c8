//! What can go wrong with a store.

use std::io;
use std::path::{Path, PathBuf};

use zkv_index::IndexError;
use zkv_log::LogError;
use zkv_record::RecordError;

/// An error of the store. It never holds keys or values.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store is open elsewhere, in this process or another.
    #[error("{} is open elsewhere: close the other handle or process first", path.display())]
    Locked {
        /// The data file.
        path: PathBuf,
    },
    /// The data file could not be read or written, or is damaged.
    #[error("{}: {source}", path.display())]
    Data {
        /// The data file.
        path: PathBuf,
        /// What happened.
        source: LogError,
    },
    /// The index file could not be read or written. It can be derived from the data file at any
    /// time: `rebuild_index` does.
    #[error("{}: {source}", path.display())]
    Index {
        /// The index file.
        path: PathBuf,
        /// What happened.
        source: IndexError,
    },
    /// A key or value is over its limit, or is none of the type asked for.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Index and log disagree about a key.
    #[error("{}: the index names a place that does not hold its key; rebuild the index", path.display())]
    Disagreement {
        /// The data file.
        path: PathBuf,
    },
    /// An option is out of its range.
    #[error("{option} is {value}, and must be {allowed}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// The value given.
        value: u64,
        /// The range it must lie in.
        allowed: &'static str,
    },
    /// The store was opened to be read.
    #[error("the store is open read-only")]
    ReadOnly,
    /// The store was closed through another handle.
    #[error("the store was closed")]
    Closed,
    /// Another file or folder could not be used.
    #[error("{}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The flushing thread could not be started.
    #[error("could not start a thread: {0}")]
    Thread(io::Error),
}

/// The kinds of errors, for who wants to act on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The system refused an operation.
    Io,
    /// There is no such store.
    NotFound,
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
    /// The call makes no sense: an option out of range, or a store that was closed.
    Misuse,
}

/// The store's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The error's kind.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Locked { .. } => ErrorKind::Locked,
            Self::Data { source, .. } => kind_of_log(source),
            Self::Index { source, .. } => kind_of_index(source),
            Self::Record(source) => kind_of_record(source),
            Self::Disagreement { .. } => ErrorKind::Corrupt,
            Self::InvalidOption { .. } | Self::Closed => ErrorKind::Misuse,
            Self::ReadOnly => ErrorKind::ReadOnly,
            Self::File { source, .. } => kind_of_io(source),
            Self::Thread(_) => ErrorKind::Io,
        }
    }

    /// Whether the index is to blame, which can be made anew.
    pub(crate) fn is_index_damage(&self) -> bool {
        match self {
            Self::Disagreement { .. } => true,
            Self::Index { source, .. } => {
                matches!(source, IndexError::Corrupt { .. } | IndexError::Mismatch)
            }
            _ => false,
        }
    }

    pub(crate) fn data(path: &Path) -> impl FnOnce(LogError) -> Self + '_ {
        move |source| match source {
            LogError::InvalidOption { option, value, allowed } => {
                Self::InvalidOption { option, value, allowed }
            }
            LogError::ReadOnly => Self::ReadOnly,
            LogError::Locked => Self::Locked { path: path.to_owned() },
            source => Self::Data { path: path.to_owned(), source },
        }
    }

    pub(crate) fn index(path: &Path) -> impl FnOnce(IndexError) -> Self + '_ {
        move |source| Self::Index { path: path.to_owned(), source }
    }

    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::File { path: path.to_owned(), source }
    }
}

fn kind_of_log(error: &LogError) -> ErrorKind {
    match error {
        LogError::Io { source, .. } => kind_of_io(source),
        LogError::UnsupportedVersion { .. } | LogError::UnsupportedFeatures(_) => {
            ErrorKind::UnsupportedVersion
        }
        LogError::EntryTooLarge { .. } => ErrorKind::Limit,
        LogError::InvalidOption { .. } => ErrorKind::Misuse,
        LogError::ReadOnly => ErrorKind::ReadOnly,
        LogError::SyncFailed | LogError::Zstd => ErrorKind::Io,
        _ => ErrorKind::Corrupt,
    }
}

fn kind_of_index(error: &IndexError) -> ErrorKind {
    match error {
        IndexError::Io(source) => kind_of_io(source),
        IndexError::UnsupportedVersion { .. } | IndexError::UnsupportedFeatures { .. } => {
            ErrorKind::UnsupportedVersion
        }
        IndexError::TooLarge { .. } => ErrorKind::Limit,
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
        | RecordError::TooManyElements { .. } => ErrorKind::Limit,
        _ => ErrorKind::Encoding,
    }
}

fn kind_of_io(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::Io,
    }
}
