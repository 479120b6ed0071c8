//! What was done to the disk.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// A file, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub(crate) u64);

/// A change, or what has become of the changes before it. The disk writes one down for each call
/// that changes something.
#[derive(Clone, Debug)]
pub enum Event {
    /// Bytes were written.
    Write {
        /// The file.
        file: FileId,
        /// Where, in bytes from its start.
        offset: u64,
        /// What.
        bytes: Arc<[u8]>,
    },
    /// A file was cut or extended.
    SetLen {
        /// The file.
        file: FileId,
        /// Its new length.
        bytes: u64,
    },
    /// A sync succeeded: all changes of the file before it are durable.
    Synced {
        /// The file.
        file: FileId,
    },
    /// A sync failed: of the changes before it some are durable, and the others never will be, since
    /// the system takes them for written.
    Discarded {
        /// The file.
        file: FileId,
        /// Decides which of them are durable; `None`: not one.
        seed: Option<u64>,
    },
    /// A name was given to a file.
    Link {
        /// The name.
        path: PathBuf,
        /// The file.
        file: FileId,
    },
    /// A name was changed, in place of what had the new one.
    Rename {
        /// The old name.
        from: PathBuf,
        /// The new name.
        to: PathBuf,
        /// The file.
        file: FileId,
    },
    /// A name was taken away.
    Unlink {
        /// The name.
        path: PathBuf,
    },
    /// The changes of names in a directory are durable.
    DirectorySynced {
        /// The directory.
        directory: PathBuf,
    },
}

/// For who looks into a failure: what was done, without the bytes.
impl fmt::Display for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { file: FileId(file), offset, bytes } => {
                write!(formatter, "file {file}: write {} bytes at {offset}", bytes.len())
            }
            Self::SetLen { file: FileId(file), bytes } => {
                write!(formatter, "file {file}: set its length to {bytes}")
            }
            Self::Synced { file: FileId(file) } => write!(formatter, "file {file}: synced"),
            Self::Discarded { file: FileId(file), .. } => {
                write!(formatter, "file {file}: a sync failed")
            }
            Self::Link { path, file: FileId(file) } => {
                write!(formatter, "file {file}: named {}", path.display())
            }
            Self::Rename { from, to, .. } => {
                write!(formatter, "rename {} to {}", from.display(), to.display())
            }
            Self::Unlink { path } => write!(formatter, "unlink {}", path.display()),
            Self::DirectorySynced { directory } => {
                write!(formatter, "{}: synced", directory.display())
            }
        }
    }
}
