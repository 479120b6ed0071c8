//! Whether a salvage would find anything, which is asked of one that cannot write.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zkv::{Error, FileStorage, LogError, OpenMode, Options, Storage, StorageFile};

use crate::store::{index_of, patient};

/// Whether something in the file at `path`, or the index file beside it, says that it is a store.
pub fn may_be(path: &Path) -> bool {
    let storage = ReadOnly { readable: [path.to_owned(), index_of(path)] };
    let options = patient(Options::new()).storage(Arc::new(storage));
    let mut destination = path.as_os_str().to_owned();
    destination.push(".salvaged");
    // Where it finds something, it fails for want of a place for that.
    let salvaged = zkv::salvage(path, PathBuf::from(destination), options, |_| {});
    !matches!(salvaged, Err(Error::Data { cause: LogError::NothingToSalvage, .. }))
}

/// The file system as if these files were all that is there, and nothing could be made.
#[derive(Debug)]
struct ReadOnly {
    readable: [PathBuf; 2],
}

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Storage for ReadOnly {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        if !self.readable.iter().any(|readable| readable == path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        match mode {
            OpenMode::ReadOnly => FileStorage.open(path, mode),
            _ => refused(),
        }
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        refused()
    }

    fn rename_new(&self, _: &Path, _: &Path) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn list(&self, _: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    /// No temporary file has a name without it.
    fn random(&self, _: &mut [u8]) -> io::Result<()> {
        refused()
    }
}
