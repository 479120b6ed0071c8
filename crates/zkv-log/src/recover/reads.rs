//! What recovery reads. Whatever it cannot read it goes on without, as without what is damaged; which is
//! right of a sector that is lost, and wrong where there was no memory for a read.

use std::io;
use std::sync::{Arc, PoisonError};

use zkv_io::{FileMap, LockKind, StorageFile, is_lost};

use crate::sync::{Mutex, MutexGuard};

/// A file that notes the first read which fails though what it was after may be there.
#[derive(Debug)]
pub(super) struct Reads {
    file: Arc<dyn StorageFile>,
    failed: Mutex<Option<io::Error>>,
}

impl Reads {
    pub(super) fn of(file: &Arc<dyn StorageFile>) -> Self {
        Self { file: Arc::clone(file), failed: Mutex::new(None) }
    }

    /// Fails as that read did.
    pub(super) fn check(&self) -> io::Result<()> {
        self.first_failed().take().map_or(Ok(()), Err)
    }

    fn first_failed(&self) -> MutexGuard<'_, Option<io::Error>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StorageFile for Reads {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, into).map_err(|error| {
            if is_lost(&error) {
                return error;
            }
            let kind = error.kind();
            self.first_failed().get_or_insert(error);
            kind.into()
        })
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
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn try_lock(&self, kind: LockKind) -> io::Result<bool> {
        self.file.try_lock(kind)
    }

    fn map(&self) -> io::Result<Arc<dyn FileMap>> {
        self.file.map()
    }
}
