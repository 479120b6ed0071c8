//! What the types promise to whoever uses them, by the names of this crate alone.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zkv::{FileMap, LockKind, MemoryStorage, OpenMode, Options, Storage, StorageFile};

/// Storage of somebody's own, whose files cannot be mapped.
#[derive(Debug)]
struct Own(MemoryStorage);

#[derive(Debug)]
struct OwnFile(Arc<dyn StorageFile>);

/// Reads without a map.
#[derive(Debug)]
struct Unmapped(Arc<dyn StorageFile>);

impl Storage for Own {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(OwnFile(self.0.open(path, mode)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename_new(from, to)
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

impl StorageFile for OwnFile {
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
        Ok(Arc::new(Unmapped(Arc::clone(&self.0))))
    }
}

impl FileMap for Unmapped {
    fn copy_out(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, into)
    }
}

#[test]
fn a_store_lies_in_storage_of_somebodys_own() {
    let options = Options::new().storage(Arc::new(Own(MemoryStorage::new())));
    let store = options.clone().open("s.zkv").unwrap();
    store.set("a", &1u32).unwrap();
    store.close().unwrap();
    assert_eq!(options.open_read_only("s.zkv").unwrap().get("a").unwrap(), Some(1u32));
}
