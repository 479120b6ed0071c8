//! A disk that cannot read all of a file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use zkv_io::{FileMap, LockKind, MemoryStorage, OpenMode, Storage, StorageFile};

/// A file of which some bytes cannot be read, until another one takes its name. No file can be mapped.
#[derive(Clone, Debug)]
pub struct BadSectors {
    memory: MemoryStorage,
    path: PathBuf,
    sectors: Arc<Mutex<Vec<u64>>>,
    /// What the system says of a read of them.
    kind: io::ErrorKind,
}

impl BadSectors {
    pub fn new(memory: &MemoryStorage, path: &str, sectors: &[u64]) -> Self {
        Self::of_kind(memory, path, sectors, io::ErrorKind::Other)
    }

    pub fn of_kind(
        memory: &MemoryStorage,
        path: &str,
        sectors: &[u64],
        kind: io::ErrorKind,
    ) -> Self {
        let sectors = Arc::new(Mutex::new(sectors.to_vec()));
        Self { memory: memory.clone(), path: path.into(), sectors, kind }
    }
}

#[derive(Debug)]
struct BadFile(Arc<dyn StorageFile>, Vec<u64>, io::ErrorKind);

pub const SECTOR: u64 = 4096;

impl Storage for BadSectors {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let is_bad = path == self.path;
        let sectors = if is_bad { self.sectors.lock().unwrap().clone() } else { Vec::new() };
        Ok(Arc::new(BadFile(self.memory.open(path, mode)?, sectors, self.kind)))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if to == self.path {
            self.sectors.lock().unwrap().clear();
        }
        self.memory.rename(from, to)
    }
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.memory.rename_new(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.memory.remove(path)
    }
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        self.memory.list(directory)
    }
    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.memory.sync_dir(directory)
    }
    fn random(&self, into: &mut [u8]) -> io::Result<()> {
        self.memory.random(into)
    }
}

impl StorageFile for BadFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let end = offset + into.len() as u64;
        let is_bad = |sector: &u64| *sector * SECTOR < end && offset < (*sector + 1) * SECTOR;
        if self.1.iter().any(is_bad) {
            return Err(io::Error::new(self.2, "the sector is bad"));
        }
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
        panic!("nothing is mapped here")
    }
}
