//! Open files of the simulated disk.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use zkv_io::{FileMap, LockKind, StorageFile};

use crate::disk::SimDisk;
use crate::event::FileId;
use crate::fault::Call;

pub(crate) struct SimFile {
    disk: SimDisk,
    id: FileId,
    is_writable: bool,
    held: Mutex<Option<LockKind>>,
    holder: Arc<()>,
}

impl SimFile {
    pub(crate) fn new(disk: SimDisk, id: FileId, is_writable: bool, holder: Arc<()>) -> Self {
        Self { disk, id, is_writable, held: Mutex::new(None), holder }
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.is_writable { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }

    fn sync(&self) -> io::Result<()> {
        let (mut state, struck) = self.disk.call_struck(Call::Sync)?;
        state.sync(self.id, struck.as_ref())
    }
}

fn read(disk: &SimDisk, id: FileId, offset: u64, into: &mut [u8]) -> io::Result<()> {
    let mut state = disk.call(Call::Read)?;
    let file = state.file(id)?;
    file.check_readable(offset, into.len())?;
    let cache = &file.cache;
    let found = usize::try_from(offset)
        .ok()
        .and_then(|start| cache.get(start..start.checked_add(into.len())?))
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    into.copy_from_slice(found);
    Ok(())
}

impl StorageFile for SimFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        read(&self.disk, self.id, offset, into)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check_writable()?;
        let (mut state, struck) = self.disk.call_struck(Call::Change)?;
        let Some(fault) = struck else { return state.write(self.id, offset, bytes) };
        let arrived = fault.write.arrived(bytes.len());
        if arrived > 0 {
            state.write(self.id, offset, &bytes[..arrived])?;
        }
        Err(fault.error.into())
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.call(Call::Read)?;
        Ok(state.file(self.id)?.cache.len() as u64)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.check_writable()?;
        self.disk.call(Call::Change)?.set_len(self.id, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }

    fn try_lock(&self, kind: LockKind) -> io::Result<bool> {
        let mut state = self.disk.call(Call::Read)?;
        let locks = &mut state.file(self.id)?.locks;
        let is_free = match kind {
            LockKind::Shared => !locks.is_exclusive,
            LockKind::Exclusive => !locks.is_exclusive && locks.shared_count == 0,
        };
        if is_free {
            match kind {
                LockKind::Shared => locks.shared_count += 1,
                LockKind::Exclusive => locks.is_exclusive = true,
            }
            *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(kind);
        }
        Ok(is_free)
    }

    fn map(&self) -> io::Result<Arc<dyn FileMap>> {
        drop(self.disk.call(Call::Read)?);
        let holder = Arc::clone(&self.holder);
        Ok(Arc::new(SimMap { disk: self.disk.clone(), id: self.id, _holder: holder }))
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let Some(kind) = self.held.get_mut().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        let id = self.id;
        self.disk.release(|state| {
            let Ok(file) = state.file(id) else { return };
            match kind {
                LockKind::Shared => file.locks.shared_count -= 1,
                LockKind::Exclusive => file.locks.is_exclusive = false,
            }
        });
    }
}

struct SimMap {
    disk: SimDisk,
    id: FileId,
    _holder: Arc<()>,
}

impl FileMap for SimMap {
    fn copy_out(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        read(&self.disk, self.id, offset, into)
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("SimFile").field(&self.id).finish()
    }
}

impl fmt::Debug for SimMap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("SimMap").field(&self.id).finish()
    }
}
