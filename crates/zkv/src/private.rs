//! Where the index file lies: nobody may read it who may not read the data file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zkv_io::{OpenMode, Storage, StorageFile};

/// A storage whose new files are kept, before anything is written to them, from whoever may not read the data file:
/// an index tells names of collections, and parts of the keys' hashes.
#[derive(Debug)]
pub(crate) struct PrivateStorage {
    storage: Arc<dyn Storage>,
    data: PathBuf,
}

impl PrivateStorage {
    pub(crate) fn new(storage: Arc<dyn Storage>, data: &Path) -> Self {
        Self { storage, data: data.to_owned() }
    }
}

impl Storage for PrivateStorage {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        self.storage.open(path, mode)
    }

    fn absolute(&self, path: &Path) -> PathBuf {
        self.storage.absolute(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.storage.rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.storage.rename_new(from, to)
    }

    fn keep_private(&self, path: &Path, of: &Path) -> io::Result<()> {
        self.storage.keep_private(path, &self.data)?;
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
