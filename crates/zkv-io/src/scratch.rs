//! A temporary file that is gone when it is dropped.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::atomic::temporary_path;
use crate::storage::{OpenMode, Storage, StorageFile};

/// A private file for what does not fit into memory.
#[derive(Debug)]
pub struct Scratch {
    storage: Arc<dyn Storage>,
    path: PathBuf,
    /// Present until the drop: Windows removes no open file.
    file: Option<Arc<dyn StorageFile>>,
}

impl Scratch {
    /// Creates a file beside `path`, under a temporary name, that only its owner may read.
    ///
    /// # Errors
    /// Whatever the system reports.
    pub fn create(storage: Arc<dyn Storage>, path: &Path) -> io::Result<Self> {
        let path = temporary_path(&*storage, path)?;
        let file = storage.open(&path, OpenMode::CreatePrivate)?;
        Ok(Self { storage, path, file: Some(file) })
    }

    /// The file, empty at first.
    ///
    /// # Errors
    /// None but for one that is being dropped.
    pub fn file(&self) -> io::Result<&dyn StorageFile> {
        self.file.as_deref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.file = None;
        // Unix has taken its name when it was made. Elsewhere, what stays beside a store is removed, like every
        // temporary file, when that is opened next.
        drop(self.storage.remove(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_storage::MemoryStorage;

    #[test]
    fn the_file_goes_with_its_value() {
        let storage = MemoryStorage::new();
        let scratch = Scratch::create(Arc::new(storage.clone()), Path::new("a/b")).unwrap();
        scratch.file().unwrap().write_at(0, b"1").unwrap();
        assert_eq!(storage.list(Path::new("a")).unwrap().len(), 1);
        drop(scratch);
        assert!(storage.list(Path::new("a")).unwrap().is_empty());
    }
}
