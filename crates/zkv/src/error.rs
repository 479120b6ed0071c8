//! What can go wrong with a store.

mod kind;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use zkv_index::IndexError;
use zkv_log::LogError;
use zkv_record::RecordError;

use crate::open::index_path;

pub use kind::ErrorKind;

/// An error of the store. It never holds keys or values.
///
/// Its text says all of it, the cause included: `{error}` alone is enough. So it has no
/// [`source()`](std::error::Error::source), and whoever prints a whole chain of errors reads nothing twice. The cause
/// is a field of the variant.
///
/// Printed with `{:?}`, as by a `main` that returns it and by `unwrap`, it is its [`ErrorKind`] and its message.
///
/// ```
/// assert_eq!(format!("{:?}", zkv::Error::Closed), "Misuse: the store was closed");
///
/// // Where the data file is damaged.
/// fn damaged_at(error: &zkv::Error) -> Option<u64> {
///     match error {
///         zkv::Error::Data { cause: zkv::LogError::Corrupt { offset, .. }, .. } => Some(*offset),
///         _ => None,
///     }
/// }
/// # assert_eq!(damaged_at(&zkv::Error::Closed), None);
/// ```
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store is open elsewhere, in this process or another.
    #[error(
        "{} is open elsewhere: close the other handle or process first; in this process, collections, \
         snapshots, transactions and iterations are handles, too",
        path.display()
    )]
    Locked {
        /// The data file.
        path: PathBuf,
    },
    /// The data file could not be read or written, or is damaged.
    #[error("{}: {cause}", path.display())]
    Data {
        /// The data file.
        path: PathBuf,
        /// What happened.
        cause: LogError,
    },
    /// The index file could not be read or written. It can be derived from the data file at any
    /// time: `rebuild_index` does.
    #[error("{}: {cause}", path.display())]
    Index {
        /// The index file.
        path: PathBuf,
        /// What happened.
        cause: IndexError,
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
        value: i64,
        /// The range it must lie in.
        allowed: &'static str,
    },
    /// The store was opened to be read.
    #[error("the store is open read-only: open it with `Options::open` to write to it")]
    ReadOnly,
    /// The store was closed through another handle.
    #[error("the store was closed")]
    Closed,
    /// The process was forked since it opened the store, and this is the child, which shares the files and their
    /// lock with its parent.
    #[error("the store was opened before the process was forked; open it in the child")]
    Forked,
    /// What a transaction has read was written by another one since: begin it anew.
    #[error("what the transaction has read has changed; try it again")]
    Conflict,
    /// Another thread panicked while it wrote this commit together with others. Whether it has
    /// happened can be seen by reading.
    #[error("a thread that was writing this commit has panicked")]
    Interrupted,
    /// A batch that is too large for memory could not be kept in a temporary file.
    #[error("a batch's temporary file in {}: {cause}; `TMPDIR` may name another folder", folder.display())]
    Batch {
        /// The folder for temporary files.
        folder: PathBuf,
        /// What happened.
        cause: io::Error,
    },
    /// A collection was made with other types, or with another codec.
    #[error("{}", type_mismatch(name, what, found, asked))]
    TypeMismatch {
        /// The collection's name.
        name: String,
        /// Of what: `keys`, `values`, or `codec`.
        what: &'static str,
        /// What the store knows.
        found: String,
        /// What it was opened with.
        asked: String,
    },
    /// A type of a collection asks the data what it is, and postcard cannot tell: `serde_json::Value` and
    /// `RawValue`, enums that are untagged or have `#[serde(tag)]`, `#[serde(flatten)]`.
    #[error(
        "the type of the {what} asks the data what it is, as serde_json::Value and RawValue do, enums that are \
         untagged or have #[serde(tag)], and #[serde(flatten)]; postcard writes such {what} and cannot tell \
         them apart when it reads them: {remedy}"
    )]
    AsksTheData {
        /// Of what: `keys` or `values`.
        what: &'static str,
        /// What to do instead.
        remedy: &'static str,
    },
    /// A type of a collection reads something else than it writes: `#[serde(skip)]` on a variant before others,
    /// `skip_deserializing` or `skip_serializing` alone, `skip_serializing_if` in a tuple, in JSON a field with one
    /// name for writing and another for reading, or a `Serialize` and a `Deserialize` by hand that do not match.
    #[error(
        "the type of the {what} reads something else than it writes, or nothing, as with #[serde(skip)] on a \
         variant before others, skip_serializing or skip_deserializing alone, skip_serializing_if in a \
         tuple, and in JSON one name for writing and another for reading: {remedy}"
    )]
    ReadsOtherwise {
        /// Of what: `keys` or `values`.
        what: &'static str,
        /// What to do instead.
        remedy: &'static str,
    },
    /// A collection was dropped since it was opened.
    #[error("the collection was dropped: open it anew by its name")]
    CollectionDropped,
    /// A collection was used with a batch, snapshot or transaction of another store, or of the same one
    /// opened anew. Numbers of collections mean nothing there.
    #[error("the collection is of another store, or of an earlier opening: open it from this one")]
    OtherStore,
    /// A key was given as a type that the collection's keys borrow as, and that serde writes otherwise: an
    /// array of bytes as a slice, or a struct as one of its fields.
    #[error(
        "the key is written otherwise than the collection's type of keys: give it as that type"
    )]
    KeyWrittenOtherwise,
    /// There was no such collection at the moment of the snapshot or transaction.
    #[error(
        "there was no collection {} when the snapshot or transaction began: begin one now that there is",
        visible(name)
    )]
    NoCollection {
        /// The collection's name.
        name: String,
    },
    /// There is no such collection, and none is made where the store is only read.
    #[error(
        "there is no collection {}, and a store that is open read-only makes none: open it with \
         `Options::open`, or look at `Store::collections` for those there are",
        visible(name)
    )]
    NoCollectionToRead {
        /// The collection's name.
        name: String,
    },
    /// The name of a collection, or what one of its types is called, is empty or too long.
    #[error("the name of a collection or a type has {bytes} bytes, and must have 1 to {max}")]
    InvalidName {
        /// The name's length.
        bytes: usize,
        /// The longest possible.
        max: usize,
    },
    /// All four billion numbers for collections were used.
    #[error("the store has had as many collections as it can have; copy it with `backup_with`")]
    TooManyCollections,
    /// Another file or folder could not be used.
    #[error("{}: {cause}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// There is no room on the disk for what cleaning or compacting would write next. With so many bytes
    /// of it, it goes on where it stopped.
    #[error("cleaning needs {bytes} bytes of room on the disk ({cause})")]
    CleaningNeedsRoom {
        /// How many are enough for its next step: for what is moved, and for the index beside the
        /// present one.
        bytes: u64,
        /// What could not be written.
        cause: Box<Self>,
    },
    /// The flushing thread could not be started.
    #[error("could not start a thread: {0}")]
    Thread(io::Error),
}

/// The store's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Whether the index is to blame, which can be made anew.
    pub(crate) fn is_index_damage(&self) -> bool {
        match self {
            Self::Disagreement { .. } => true,
            Self::Index { cause, .. } => {
                matches!(cause, IndexError::Corrupt { .. } | IndexError::Mismatch)
            }
            _ => false,
        }
    }

    /// Whether a file could not grow, or be made.
    pub(crate) fn is_without_room(&self) -> bool {
        match self {
            Self::Data { cause: LogError::Io { cause, .. }, .. }
            | Self::Index { cause: IndexError::Io(cause), .. } => is_without_room(cause),
            _ => false,
        }
    }

    /// Where the data file is damaged, if that is what this says.
    pub(crate) fn damaged_data_offset(&self) -> Option<u64> {
        match self {
            Self::Data { cause: LogError::Corrupt { offset, .. }, .. } => Some(*offset),
            _ => None,
        }
    }

    pub(crate) fn data(path: &Path) -> impl FnOnce(LogError) -> Self + '_ {
        move |cause| match cause {
            LogError::InvalidOption { option, value, allowed } => {
                // The others are called here as they are there.
                let option = match option {
                    "write_buffer_bytes" => "disk_buffer_bytes",
                    "parallel_reads_max" => "max_parallel_reads",
                    option => option,
                };
                Self::InvalidOption { option, value, allowed }
            }
            LogError::ReadOnly => Self::ReadOnly,
            LogError::Locked => Self::Locked { path: path.to_owned() },
            cause => Self::Data { path: path.to_owned(), cause },
        }
    }

    pub(crate) fn index(path: &Path) -> impl FnOnce(IndexError) -> Self + '_ {
        move |cause| Self::Index { path: path.to_owned(), cause }
    }

    /// The same error, told of the store at `path` where it is of the one at `other`, or of its index file.
    pub(crate) fn told_of(mut self, path: &Path, other: &Path) -> Self {
        if let Self::Data { path: of, .. }
        | Self::Index { path: of, .. }
        | Self::File { path: of, .. } = &mut self
        {
            if *of == other {
                *of = path.to_owned();
            } else if *of == index_path(other) {
                *of = index_path(path);
            }
        }
        self
    }

    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |cause| Self::File { path: path.to_owned(), cause }
    }
}

/// By hand: what to do about an error is in its message, which a `main` that returns it would not print.
impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}: {self}", self.kind())
    }
}

/// Whether the disk, a quota or a size limit is full.
pub(crate) fn is_without_room(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Whether the process, or the system, has no more file handles or memory: that says nothing of the file.
pub(crate) fn is_exhausted(error: &io::Error) -> bool {
    // ENFILE and EMFILE of Unix systems, ERROR_TOO_MANY_OPEN_FILES of Windows.
    let codes: &[i32] = if cfg!(windows) { &[4] } else { &[23, 24] };
    let is_code = error.raw_os_error().is_some_and(|code| codes.contains(&code));
    is_code || error.kind() == io::ErrorKind::OutOfMemory
}

/// Whether a read of the log has found that what it was after is lost: damaged, or in a sector that the disk
/// cannot read. All else may pass, or says nothing of what is there.
pub(crate) fn is_lost(error: &LogError) -> bool {
    match error {
        LogError::Corrupt { .. } => true,
        LogError::Io { cause, .. } => zkv_io::is_lost(cause),
        _ => false,
    }
}

/// The text of [`Error::TypeMismatch`]: other types and another codec are mended otherwise.
fn type_mismatch(name: &str, what: &str, found: &str, asked: &str) -> String {
    let (name, found, asked) = (visible(name), visible(found), visible(asked));
    if what == "codec" {
        let is_known = ["Postcard", "Json"].contains(&&*found);
        let remedy = if is_known {
            format!("open it with `collection_with` and `CollectionOptions::codec(Codec::{found})`")
        } else {
            "open it with that version".to_owned()
        };
        return format!(
            "the values of the collection {name} have the codec {found}, and it was opened with {asked}: {remedy}"
        );
    }
    format!(
        "the collection {name} has {what} of the type {found}, and was opened with {asked}: open it with its \
         original types; to change them, read it with those and write a collection of another name; only if \
         the encoding is unchanged, pass the original name (`CollectionOptions`)"
    )
}

/// A name that somebody has given, for whoever reads the error on a terminal.
fn visible(name: &str) -> String {
    let mut visible = String::new();
    for character in name.chars() {
        match character {
            '"' | '\'' | '\\' => visible.push(character),
            _ => visible.extend(character.escape_debug()),
        }
    }
    visible
}

#[cfg(test)]
mod tests {
    use zkv_record::Codec;

    use super::*;

    #[test]
    fn what_a_main_that_fails_prints_is_the_kind_and_the_message() {
        let path = PathBuf::from("x");
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let full = Box::new(Error::File { path: path.clone(), cause: full });
        let refused = Codec::Json.decode::<u32>(br#""SECRET""#, 9).unwrap_err();
        let errors = [
            (Error::Locked { path: path.clone() }, "Locked: x is open elsewhere: close "),
            (
                Error::Data { path, cause: LogError::NotALog },
                "Corrupt: x: this is no zkv data file ",
            ),
            (Error::Closed, "Misuse: the store was closed"),
            (
                Error::CleaningNeedsRoom { bytes: 9, cause: full },
                "StorageFull: cleaning needs 9 bytes of room ",
            ),
            (refused.into(), "Encoding: the stored bytes are no value of the type asked for: "),
        ];
        for (error, start) in errors {
            let printed = format!("{error:?}");
            assert!(printed.starts_with(start), "{printed}");
            assert!(
                printed.ends_with(&error.to_string()) && !printed.contains("SECRET"),
                "{printed}"
            );
            assert_eq!(format!("{error:#?}"), printed);
        }
    }

    #[test]
    fn what_the_disk_cannot_read_is_lost_and_what_the_process_lacks_is_not() {
        let of = |cause| LogError::Io { action: "read", cause };
        let damaged = LogError::Corrupt { offset: 0, what: "a block" };
        let bad_sector = if cfg!(windows) { 23 } else { 5 };
        let lost = [io::Error::from_raw_os_error(bad_sector), io::Error::other("a bad sector")];
        assert!(is_lost(&damaged) && lost.into_iter().all(|error| is_lost(&of(error))));
        let no_handles = if cfg!(windows) { 4 } else { 24 };
        let passing = [
            io::ErrorKind::OutOfMemory.into(),
            io::ErrorKind::Interrupted.into(),
            io::ErrorKind::StorageFull.into(),
            io::Error::from_raw_os_error(no_handles),
        ];
        assert!(!passing.into_iter().any(|error| is_lost(&of(error))));
        assert!(!is_lost(&LogError::SyncFailed { cause: String::new() }));
    }
}
