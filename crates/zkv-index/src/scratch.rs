//! A temporary file that is gone when it is dropped.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zkv_io::{OpenMode, Storage, StorageFile, temporary_path};

/// What does not fit into memory while an index is built.
#[derive(Debug)]
pub(crate) struct Scratch {
    storage: Arc<dyn Storage>,
    path: PathBuf,
    /// Present until the drop: Windows removes no open file.
    file: Option<Arc<dyn StorageFile>>,
}

impl Scratch {
    /// Creates a private file beside `path`.
    pub(crate) fn create(storage: Arc<dyn Storage>, path: &Path) -> io::Result<Self> {
        let path = temporary_path(&*storage, path)?;
        let file = storage.open(&path, OpenMode::CreatePrivate)?;
        Ok(Self { storage, path, file: Some(file) })
    }

    pub(crate) fn file(&self) -> io::Result<&dyn StorageFile> {
        self.file.as_deref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.file = None;
        // What stays is removed, like every temporary file, when the store is opened next.
        drop(self.storage.remove(&self.path));
    }
}
