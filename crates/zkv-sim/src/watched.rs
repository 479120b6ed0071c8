//! Any storage, with somebody who is asked before it does something.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zkv_io::{FileMap, LockKind, OpenMode, Storage, StorageFile};

/// What is about to be done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Bytes are read, though not through a map.
    Read {
        /// Where they start in the file.
        offset: u64,
        /// How many they are.
        bytes: usize,
    },
    /// Bytes are written.
    Write,
    /// They are made durable.
    Sync,
    /// The file is mapped.
    Map,
    /// The file is cut, or made longer, to so many bytes.
    SetLen(u64),
    /// The file is kept from those who may not read the one in whose place it will be.
    KeepPrivate,
}

type Before = dyn Fn(Act, &Path) -> io::Result<()> + Send + Sync;

/// Asks a closure before each of these acts, which may refuse it, or take its time.
///
/// ```
/// use std::{io, path::Path, sync::Arc};
/// use zkv_io::{MemoryStorage, OpenMode, Storage};
/// use zkv_sim::{Act, Watched};
///
/// let storage = Watched::new(Arc::new(MemoryStorage::new()), |act, _| match act {
///     Act::Write => Err(io::ErrorKind::StorageFull.into()),
///     _ => Ok(()),
/// });
/// let file = storage.open(Path::new("a"), OpenMode::CreateNew)?;
/// assert_eq!(file.write_at(0, b"1").unwrap_err().kind(), io::ErrorKind::StorageFull);
/// file.sync_data()?;
/// # Ok::<(), io::Error>(())
/// ```
#[derive(Clone)]
pub struct Watched {
    storage: Arc<dyn Storage>,
    before: Arc<Before>,
}

struct WatchedFile {
    file: Arc<dyn StorageFile>,
    path: PathBuf,
    before: Arc<Before>,
}

impl Watched {
    /// `storage`, whose files ask `before`.
    pub fn new(
        storage: Arc<dyn Storage>,
        before: impl Fn(Act, &Path) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self { storage, before: Arc::new(before) }
    }
}

impl Storage for Watched {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.storage.open(path, mode)?;
        Ok(Arc::new(WatchedFile { file, path: path.to_owned(), before: Arc::clone(&self.before) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.storage.rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.storage.rename_new(from, to)
    }

    fn keep_private(&self, path: &Path, of: &Path) -> io::Result<()> {
        (self.before)(Act::KeepPrivate, path)?;
        self.storage.keep_private(path, of)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.storage.remove(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        self.storage.list(directory)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.storage.sync_dir(directory)
    }

    fn random(&self, into: &mut [u8]) -> io::Result<()> {
        self.storage.random(into)
    }
}

impl StorageFile for WatchedFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        (self.before)(Act::Read { offset, bytes: into.len() }, &self.path)?;
        self.file.read_at(offset, into)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        (self.before)(Act::Write, &self.path)?;
        self.file.write_at(offset, bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        (self.before)(Act::SetLen(bytes), &self.path)?;
        self.file.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        (self.before)(Act::Sync, &self.path)?;
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        (self.before)(Act::Sync, &self.path)?;
        self.file.sync_all()
    }

    fn try_lock(&self, kind: LockKind) -> io::Result<bool> {
        self.file.try_lock(kind)
    }

    fn map(&self) -> io::Result<Arc<dyn FileMap>> {
        (self.before)(Act::Map, &self.path)?;
        self.file.map()
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Watched").field(&self.storage).finish()
    }
}

impl fmt::Debug for WatchedFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("WatchedFile").field(&self.file).finish()
    }
}
