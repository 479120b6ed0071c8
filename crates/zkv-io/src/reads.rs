//! Reading on where reads fail, and knowing afterwards whether what was not read is lost.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::lost::is_lost;
use crate::storage::{FileMap, LockKind, StorageFile};

/// A file that notes the first read which fails though what it was after may be there.
///
/// Who looks for damage goes on without what cannot be read, as without what is damaged; which is right of a sector
/// that is lost, and wrong where there was no memory for a read. Such a one reads through this, and asks
/// [`Reads::check`] before it says what it has found.
///
/// ```
/// use std::path::Path;
/// use std::sync::Arc;
/// use zkv_io::{MemoryStorage, OpenMode, Reads, Storage, StorageFile};
///
/// let file = MemoryStorage::new().open(Path::new("a"), OpenMode::CreateNew)?;
/// let reads = Reads::of(&file);
/// // Behind the end of the file is nothing, for certain.
/// assert!(reads.read_at(0, &mut [0]).is_err());
/// reads.check()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Reads {
    file: Arc<dyn StorageFile>,
    failed: Mutex<Option<io::Error>>,
}

impl Reads {
    /// Of `file`.
    #[must_use]
    pub fn of(file: &Arc<dyn StorageFile>) -> Self {
        Self { file: Arc::clone(file), failed: Mutex::new(None) }
    }

    /// Whether a read has failed though what it was after may be there.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.first_failed().is_some()
    }

    /// Fails as the first such read did, and goes on to do so.
    ///
    /// # Errors
    /// That of the read.
    pub fn check(&self) -> io::Result<()> {
        self.first_failed().as_ref().map_or(Ok(()), |error| Err(again(error)))
    }

    fn first_failed(&self) -> MutexGuard<'_, Option<io::Error>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, error: io::Error) -> io::Error {
        if is_lost(&error) {
            return error;
        }
        let noted = again(&error);
        self.first_failed().get_or_insert(error);
        noted
    }
}

/// The same once more, without what a storage of somebody's own says to it.
fn again(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

impl StorageFile for Reads {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, into).map_err(|error| self.note(error))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    /// Who cannot measure a file takes it for empty.
    fn len(&self) -> io::Result<u64> {
        self.file.len().map_err(|error| self.note(error))
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn try_lock(&self, kind: LockKind) -> io::Result<bool> {
        self.file.try_lock(kind)
    }

    /// What is read through the map is not noted.
    fn map(&self) -> io::Result<Arc<dyn FileMap>> {
        self.file.map()
    }
}
