//! The real file system with a disk whose syncs take their time: what waits for them shows.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use zkv_io::{FileMap, FileStorage, LockKind, OpenMode, Storage, StorageFile};

#[derive(Debug)]
pub struct SlowSync(Duration);

impl SlowSync {
    /// Each sync takes `delay` longer.
    pub fn new(delay: Duration) -> Self {
        Self(delay)
    }
}

impl Storage for SlowSync {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(SlowFile { file: FileStorage.open(path, mode)?, delay: self.0 }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        FileStorage.rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        FileStorage.rename_new(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        FileStorage.remove(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        FileStorage.list(directory)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        FileStorage.sync_dir(directory)
    }

    fn random(&self, into: &mut [u8]) -> io::Result<()> {
        FileStorage.random(into)
    }
}

#[derive(Debug)]
struct SlowFile {
    file: Arc<dyn StorageFile>,
    delay: Duration,
}

impl StorageFile for SlowFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, into)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        std::thread::sleep(self.delay);
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        std::thread::sleep(self.delay);
        self.file.sync_all()
    }

    fn try_lock(&self, kind: LockKind) -> io::Result<bool> {
        self.file.try_lock(kind)
    }

    fn map(&self) -> io::Result<Arc<dyn FileMap>> {
        self.file.map()
    }
}
