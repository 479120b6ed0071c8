//! Stores that are read without a memory map.

mod common;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zkv::{ErrorKind, Options, ReadMode};
use zkv_io::{FileMap, LockKind, MemoryStorage, OpenMode, Storage, StorageFile};

use common::faulty::{PATH, noise};
use common::{check, fill};

/// Files that cannot be mapped.
#[derive(Debug)]
struct Unmappable(MemoryStorage);

#[derive(Debug)]
struct UnmappableFile(Arc<dyn StorageFile>);

impl Storage for Unmappable {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(UnmappableFile(self.0.open(path, mode)?)))
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

impl StorageFile for UnmappableFile {
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
        Err(io::Error::other("this file cannot be mapped"))
    }
}

#[test]
fn nothing_is_read_through_a_map_where_the_mode_says_so() {
    let storage = Arc::new(Unmappable(MemoryStorage::new()));
    let options = Options::new().storage(storage).slot_bytes(256 << 10);
    let mapped = options.clone().open(PATH).unwrap_err();
    assert_eq!(mapped.kind(), ErrorKind::Io);

    let options = options.read_mode(ReadMode::Pread);
    let store = options.clone().open(PATH).unwrap();
    fill(&store, 0, 3000);
    store.close().unwrap();
    // The first index is written anew beside the file, the second over it.
    let store = options.clone().open(PATH).unwrap();
    check(&store, 3000);
    fill(&store, 3000, 3100);
    let long = noise(1, 300_000);
    store.set_bytes(b"long", &long).unwrap();
    store.rebuild_index().unwrap();
    assert!(store.get_bytes(b"long").unwrap().unwrap() == long);
    store.delete_bytes(b"long").unwrap();
    store.close().unwrap();
    check(&options.open_read_only(PATH).unwrap(), 3100);
}
