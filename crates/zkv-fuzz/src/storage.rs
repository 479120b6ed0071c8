//! Files in memory, with random numbers that a seed repeats.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use zkv_io::{MemoryStorage, OpenMode, Storage, StorageFile};

use crate::random::Random;

/// As [`MemoryStorage`], but the same each time.
#[derive(Clone, Debug)]
pub(crate) struct SeededStorage {
    files: MemoryStorage,
    random: Arc<Mutex<Random>>,
}

impl SeededStorage {
    /// A file system that holds `files`.
    pub(crate) fn new<'a>(
        seed: u64,
        files: impl IntoIterator<Item = (&'a Path, &'a [u8])>,
    ) -> Self {
        let storage = MemoryStorage::new();
        for (path, bytes) in files {
            let file = storage.open(path, OpenMode::CreateNew).expect("each path is new");
            file.write_at(0, bytes).expect("memory takes it");
        }
        Self { files: storage, random: Arc::new(Mutex::new(Random::new(seed))) }
    }

    /// The bytes of the file at `path`, as they are now; `None` where there is none.
    pub(crate) fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let file = self.files.open(path, OpenMode::ReadOnly).ok()?;
        let mut bytes = vec![0; usize::try_from(file.len().ok()?).ok()?];
        file.read_at(0, &mut bytes).ok()?;
        Some(bytes)
    }
}

impl Storage for SeededStorage {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        self.files.open(path, mode)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.files.rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.files.rename_new(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.files.remove(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        self.files.list(directory)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.files.sync_dir(directory)
    }

    fn random(&self, into: &mut [u8]) -> io::Result<()> {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        into.fill_with(|| random.byte());
        Ok(())
    }
}
