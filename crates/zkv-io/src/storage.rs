//! The seam: all that zkv asks of a file system.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How [`Storage::open`] opens a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, never written.
    ReadOnly,
    /// An existing file, read and written.
    ReadWrite,
    /// A file that must not exist yet; its permissions follow the process's umask.
    CreateNew,
    /// As [`OpenMode::CreateNew`], for its owner only: on Unix, with mode 0600, and real files have no name
    /// from then on.
    CreatePrivate,
}

/// Which lock [`StorageFile::try_lock`] takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Held by any number of readers at once.
    Shared,
    /// Held by one handle alone.
    Exclusive,
}

/// A file system, as far as zkv uses one.
///
/// Errors are those of the system; a missing file is [`io::ErrorKind::NotFound`] and an existing
/// one, where none may be, [`io::ErrorKind::AlreadyExists`].
pub trait Storage: Debug + Send + Sync {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>>;

    /// `path` as it names the same file wherever the process goes; as it is, where the system does not
    /// tell where that is now.
    fn absolute(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }

    /// Renames `from` to `to`, replacing what is there. Durable after [`Storage::sync_dir`]. Who could not read
    /// the file that was there cannot read the other one either. Where the system does not replace a file that
    /// is open, a crash may leave none of the name `to`.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Renames `from` to `to`, which must not exist. Durable after [`Storage::sync_dir`].
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] where `to` exists; `from` then stays.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// As [`Storage::rename`], where what is at `to` is an empty file: its owner and permissions, as far as the
    /// system lets them be given, are those of the file that takes its place.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] where the system tells that `to` is a link; and as [`Storage::rename`].
    fn replace_empty(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.rename(from, to)
    }

    /// Lets nobody read the file at `path` who may not read the one at `of`, where there is one.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn keep_private(&self, path: &Path, of: &Path) -> io::Result<()> {
        let _ = (path, of);
        Ok(())
    }

    /// Removes the file at `path`. Durable after [`Storage::sync_dir`].
    ///
    /// # Errors
    /// Whatever the system reports.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Lists the files directly in `directory`.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>>;

    /// Makes the names in `directory` durable.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn sync_dir(&self, directory: &Path) -> io::Result<()>;

    /// Fills `into` with random bytes: store ids, keys and nonces. It is part of the seam so that a
    /// simulation can be replayed.
    ///
    /// # Errors
    /// Where the system has no source of randomness.
    fn random(&self, into: &mut [u8]) -> io::Result<()>;
}

/// One open file.
#[expect(clippy::len_without_is_empty, reason = "nobody asks whether a file is empty")]
pub trait StorageFile: Debug + Send + Sync {
    /// Reads `into.len()` bytes from `offset`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] where the file is shorter.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`; a file that is shorter grows, and the gap reads as zeros.
    ///
    /// # Errors
    /// Whatever the system reports; then any part of `bytes` may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// The file's length in bytes.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn len(&self) -> io::Result<u64>;

    /// Cuts or extends the file to `bytes`. Nobody may be reading what is cut off.
    ///
    /// # Errors
    /// Whatever the system reports; Windows refuses to cut a file that another process has mapped.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Makes written bytes, and the length needed to read them, durable.
    ///
    /// # Errors
    /// Whatever the system reports. After an error nothing is known of earlier writes, and a later
    /// success proves nothing (Rebello et al., ATC 2020).
    fn sync_data(&self) -> io::Result<()>;

    /// As [`StorageFile::sync_data`], with all of the file's metadata.
    ///
    /// # Errors
    /// As [`StorageFile::sync_data`].
    fn sync_all(&self) -> io::Result<()>;

    /// Tries to lock the file until this handle is dropped; `false` where another handle, of this
    /// or another process, holds a lock that excludes it.
    ///
    /// # Errors
    /// Where the file system has no locks.
    fn try_lock(&self, kind: LockKind) -> io::Result<bool>;

    /// A map of the file that follows its growth. Files that cannot be mapped may give what reads them:
    /// [`FileMap::copy_out`] is as [`StorageFile::read_at`].
    ///
    /// # Errors
    /// Whatever the system reports.
    fn map(&self) -> io::Result<Arc<dyn FileMap>>;
}

/// Read access through a memory map. Mapped bytes can change under the reader, so no mapped slice
/// leaves this trait: callers check and decode their own copy.
pub trait FileMap: Debug + Send + Sync {
    /// Copies `into.len()` bytes from `offset`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] where the file is shorter.
    fn copy_out(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Tells the processor that `bytes` from `offset` on will be copied soon. It changes nothing.
    fn prefetch(&self, _offset: u64, _bytes: u32) {}
}
