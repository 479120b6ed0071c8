//! A file system in memory, for tests, tools and stores that need no disk. It loses nothing and
//! never fails: it is not a simulation of a disk.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::atomic::parent_directory;
use crate::storage::{FileMap, LockKind, OpenMode, Storage, StorageFile};

/// Files that live as long as the last clone of this value.
#[derive(Clone, Default)]
pub struct MemoryStorage {
    files: Arc<Mutex<BTreeMap<PathBuf, Arc<Contents>>>>,
}

#[derive(Default)]
struct Contents {
    bytes: RwLock<Vec<u8>>,
    locks: Mutex<Locks>,
}

#[derive(Debug, Default)]
struct Locks {
    shared_count: usize,
    exclusive: bool,
}

impl fmt::Debug for MemoryStorage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not what the files hold.
        formatter.debug_tuple("MemoryStorage").field(&self.files().keys()).finish()
    }
}

impl fmt::Debug for Contents {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes.read().unwrap_or_else(PoisonError::into_inner).len();
        formatter.debug_struct("Contents").field("bytes", &bytes).finish_non_exhaustive()
    }
}

impl MemoryStorage {
    /// An empty file system.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn files(&self) -> std::sync::MutexGuard<'_, BTreeMap<PathBuf, Arc<Contents>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for MemoryStorage {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let mut files = self.files();
        let contents = match mode {
            OpenMode::ReadOnly | OpenMode::ReadWrite => {
                Arc::clone(files.get(path).ok_or(io::ErrorKind::NotFound)?)
            }
            OpenMode::CreateNew | OpenMode::CreatePrivate => {
                if files.contains_key(path) {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                let contents = Arc::new(Contents::default());
                files.insert(path.to_owned(), Arc::clone(&contents));
                contents
            }
        };
        let writable = mode != OpenMode::ReadOnly;
        Ok(Arc::new(MemoryFile { contents, writable, held: Mutex::new(None) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.files();
        let contents = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), contents);
        Ok(())
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.files();
        if files.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let contents = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), contents);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.files().remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let files = self.files();
        Ok(files.keys().filter(|path| parent_directory(path) == directory).cloned().collect())
    }

    fn sync_dir(&self, _directory: &Path) -> io::Result<()> {
        Ok(())
    }

    fn random(&self, into: &mut [u8]) -> io::Result<()> {
        getrandom::fill(into).map_err(io::Error::other)
    }
}

#[derive(Debug)]
struct MemoryFile {
    contents: Arc<Contents>,
    writable: bool,
    held: Mutex<Option<LockKind>>,
}

impl Contents {
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes.read().unwrap_or_else(PoisonError::into_inner);
        let found = usize::try_from(offset)
            .ok()
            .and_then(|start| bytes.get(start..start.checked_add(into.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(found);
        Ok(())
    }
}

impl MemoryFile {
    fn change(&self, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        change(&mut self.contents.bytes.write().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }
}

impl StorageFile for MemoryFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.contents.read(offset, into)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let end = start.checked_add(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        self.change(|contents| {
            if contents.len() < end {
                contents.resize(end, 0);
            }
            contents[start..end].copy_from_slice(bytes);
        })
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.contents.bytes.read().unwrap_or_else(PoisonError::into_inner).len() as u64)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let bytes = usize::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.change(|contents| contents.resize(bytes, 0))
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }

    fn try_lock(&self, kind: LockKind) -> io::Result<bool> {
        let mut locks = self.contents.locks.lock().unwrap_or_else(PoisonError::into_inner);
        let free = match kind {
            LockKind::Shared => !locks.exclusive,
            LockKind::Exclusive => !locks.exclusive && locks.shared_count == 0,
        };
        if free {
            match kind {
                LockKind::Shared => locks.shared_count += 1,
                LockKind::Exclusive => locks.exclusive = true,
            }
            *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(kind);
        }
        Ok(free)
    }

    fn map(&self) -> io::Result<Arc<dyn FileMap>> {
        Ok(Arc::new(MemoryMap(Arc::clone(&self.contents))))
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        let held = self.held.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let mut locks = self.contents.locks.lock().unwrap_or_else(PoisonError::into_inner);
        match held {
            Some(LockKind::Shared) => locks.shared_count -= 1,
            Some(LockKind::Exclusive) => locks.exclusive = false,
            None => {}
        }
    }
}

#[derive(Debug)]
struct MemoryMap(Arc<Contents>);

impl FileMap for MemoryMap {
    fn copy_out(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_grows_and_its_gap_reads_as_zeros() {
        let storage = MemoryStorage::new();
        let file = storage.open(Path::new("a"), OpenMode::CreateNew).unwrap();
        file.write_at(2, b"x").unwrap();
        let mut bytes = [9; 3];
        file.read_at(0, &mut bytes).unwrap();
        assert_eq!(bytes, [0, 0, b'x']);
        assert!(file.read_at(1, &mut bytes).is_err());
        assert!(file.map().unwrap().copy_out(u64::MAX, &mut bytes).is_err());
    }

    #[test]
    fn what_files_hold_is_never_printed() {
        let storage = MemoryStorage::new();
        let file = storage.open(Path::new("a"), OpenMode::CreateNew).unwrap();
        file.write_at(0, &[77; 3]).unwrap();
        assert!(!format!("{storage:?} {file:?} {:?}", file.map().unwrap()).contains("77"));
    }

    #[test]
    fn locks_exclude_and_end_with_their_handle() {
        let storage = MemoryStorage::new();
        let first = storage.open(Path::new("a"), OpenMode::CreateNew).unwrap();
        let second = storage.open(Path::new("a"), OpenMode::ReadOnly).unwrap();
        assert!(first.try_lock(LockKind::Shared).unwrap());
        assert!(!second.try_lock(LockKind::Exclusive).unwrap());
        drop(first);
        assert!(second.try_lock(LockKind::Exclusive).unwrap());
        assert!(second.write_at(0, b"x").is_err());
    }
}
