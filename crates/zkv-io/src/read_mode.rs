//! Reading with or without a memory map.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::storage::{FileMap, LockKind, OpenMode, Storage, StorageFile};

/// How files are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReadMode {
    /// Through a memory map: no system call a read. A file that another program cuts while it is
    /// open, or a sector that the disk cannot read, ends the process: the system raises `SIGBUS`,
    /// since a map has no other way to report it.
    #[default]
    Map,
    /// With one system call a read or more (`pread` on Unix), each of which can fail as any call
    /// can: whatever happens to the file is an error of that read.
    Pread,
}

impl ReadMode {
    /// What reads `file` in this mode.
    ///
    /// # Errors
    /// Whatever the system reports.
    pub fn reader_of(self, file: &Arc<dyn StorageFile>) -> io::Result<Arc<dyn FileMap>> {
        match self {
            Self::Map => file.map(),
            Self::Pread => Ok(unmapped(file)),
        }
    }

    /// `storage`, whose files are read in this mode.
    #[must_use]
    pub fn storage(self, storage: &Arc<dyn Storage>) -> Arc<dyn Storage> {
        match self {
            Self::Map => Arc::clone(storage),
            Self::Pread => Arc::new(UnmappedStorage(Arc::clone(storage))),
        }
    }
}

/// What reads `file` in [`ReadMode::Pread`].
pub fn unmapped(file: &Arc<dyn StorageFile>) -> Arc<dyn FileMap> {
    Arc::new(Unmapped(Arc::clone(file)))
}

/// A file whose map is none: each copy is a read of its own.
#[derive(Debug)]
struct Unmapped(Arc<dyn StorageFile>);

impl FileMap for Unmapped {
    fn copy_out(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, into)
    }
}

#[derive(Debug)]
struct UnmappedStorage(Arc<dyn Storage>);

impl Storage for UnmappedStorage {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(UnmappedFile(self.0.open(path, mode)?)))
    }

    fn absolute(&self, path: &Path) -> PathBuf {
        self.0.absolute(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename_new(from, to)
    }

    fn replace_empty(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.replace_empty(from, to)
    }

    fn keep_private(&self, path: &Path, of: &Path) -> io::Result<()> {
        self.0.keep_private(path, of)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        self.0.list(directory)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.0.sync_dir(directory)
    }

    fn random(&self, into: &mut [u8]) -> io::Result<()> {
        self.0.random(into)
    }
}

#[derive(Debug)]
struct UnmappedFile(Arc<dyn StorageFile>);

impl StorageFile for UnmappedFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, into)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn try_lock(&self, kind: LockKind) -> io::Result<bool> {
        self.0.try_lock(kind)
    }

    fn map(&self) -> io::Result<Arc<dyn FileMap>> {
        Ok(unmapped(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FileStorage;

    #[test]
    fn both_modes_read_the_same_and_follow_a_file_that_grows() {
        let directory = tempfile::tempdir().unwrap();
        for (name, mode) in [("mapped", ReadMode::Map), ("read", ReadMode::Pread)] {
            let storage = mode.storage(&(Arc::new(FileStorage) as Arc<dyn Storage>));
            let file = storage.open(&directory.path().join(name), OpenMode::CreateNew).unwrap();
            file.write_at(0, b"abc").unwrap();
            for reader in [file.map().unwrap(), mode.reader_of(&file).unwrap()] {
                let mut bytes = [0; 2];
                reader.copy_out(1, &mut bytes).unwrap();
                assert_eq!(&bytes, b"bc");
                let error = reader.copy_out(7, &mut bytes).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                file.write_at(3, b"defghi").unwrap();
                reader.copy_out(7, &mut bytes).unwrap();
                assert_eq!(&bytes, b"hi");
                file.set_len(3).unwrap();
            }
        }
    }

    #[test]
    fn a_file_cut_by_another_program_is_an_error_without_a_map() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let storage = ReadMode::Pread.storage(&(Arc::new(FileStorage) as Arc<dyn Storage>));
        let file = storage.open(&path, OpenMode::CreateNew).unwrap();
        file.write_at(0, &[7; 9000]).unwrap();
        let reader = file.map().unwrap();
        let mut bytes = [0; 100];
        reader.copy_out(8000, &mut bytes).unwrap();
        FileStorage.open(&path, OpenMode::ReadWrite).unwrap().set_len(0).unwrap();
        let error = reader.copy_out(8000, &mut bytes).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
