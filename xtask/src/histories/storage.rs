//! A disk in memory that lets others run while it writes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::yield_now;

use zkv_io::{FileMap, LockKind, MemoryStorage, OpenMode, Storage, StorageFile};

/// Gives way before each write and sync: commits that are on their way to the log meet others.
#[derive(Clone, Debug, Default)]
pub struct YieldingStorage(MemoryStorage);

#[derive(Debug)]
struct YieldingFile(Arc<dyn StorageFile>);

impl Storage for YieldingStorage {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(YieldingFile(self.0.open(path, mode)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename_new(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        self.0.list(directory)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.0.sync_dir(directory)
    }

    fn random(&self, into: &mut [u8]) -> io::Result<()> {
        self.0.random(into)
    }
}

impl StorageFile for YieldingFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, into)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        yield_now();
        self.0.write_at(offset, bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        yield_now();
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        yield_now();
        self.0.sync_all()
    }

    fn try_lock(&self, kind: LockKind) -> io::Result<bool> {
        self.0.try_lock(kind)
    }

    fn map(&self) -> io::Result<Arc<dyn FileMap>> {
        self.0.map()
    }
}
