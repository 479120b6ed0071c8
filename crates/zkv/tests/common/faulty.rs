//! A store in memory whose disk does what a test says.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use zkv::Options;
use zkv_io::{FileMap, LockKind, MemoryStorage, OpenMode, Storage, StorageFile};

pub const PATH: &str = "dir/store.zkv";
pub const INDEX: &str = "dir/store.zkv.idx";

/// What is about to be done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Write,
    Sync,
}

type Before = dyn Fn(Act, &Path) -> io::Result<()> + Send + Sync;

/// Asks a closure before each write and sync, which may refuse it or wait.
#[derive(Clone)]
pub struct FaultyStorage {
    memory: MemoryStorage,
    before: Arc<Before>,
}

impl FaultyStorage {
    pub fn new(
        memory: &MemoryStorage,
        before: impl Fn(Act, &Path) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self { memory: memory.clone(), before: Arc::new(before) }
    }

    pub fn options(&self) -> Options {
        Options::new().storage(Arc::new(self.clone()))
    }
}

/// A disk that is full while the switch is set.
pub fn disk_with_switch(memory: &MemoryStorage) -> (FaultyStorage, Arc<AtomicBool>) {
    let is_full = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&is_full);
    let storage = FaultyStorage::new(memory, move |act, _| {
        let fails = act == Act::Write && switch.load(Ordering::SeqCst);
        if fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    });
    (storage, is_full)
}

/// A gate that holds up whoever comes to it once it is closed.
#[derive(Clone, Default)]
pub struct Gate {
    is_closed: Arc<AtomicBool>,
    is_reached: Arc<AtomicBool>,
}

impl Gate {
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
    }

    pub fn open(&self) {
        self.is_closed.store(false, Ordering::SeqCst);
    }

    pub fn pass(&self) {
        while self.is_closed.load(Ordering::SeqCst) {
            self.is_reached.store(true, Ordering::SeqCst);
            std::thread::yield_now();
        }
    }

    pub fn wait_for_somebody(&self) {
        while !self.is_reached.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
    }
}

pub fn options(memory: &MemoryStorage) -> Options {
    Options::new().storage(Arc::new(memory.clone()))
}

pub fn read_file(memory: &MemoryStorage, path: &str) -> Vec<u8> {
    let file = memory.open(Path::new(path), OpenMode::ReadOnly).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

pub fn write_file(memory: &MemoryStorage, path: &str, bytes: &[u8]) {
    let _ = memory.remove(Path::new(path));
    memory.open(Path::new(path), OpenMode::CreateNew).unwrap().write_at(0, bytes).unwrap();
}

/// What another process would find if this one were killed now.
pub fn killed(memory: &MemoryStorage) -> MemoryStorage {
    let copy = MemoryStorage::new();
    for path in memory.list(Path::new("dir")).unwrap() {
        let path = path.to_str().unwrap();
        write_file(&copy, path, &read_file(memory, path));
    }
    copy
}

/// Bytes that do not compress.
pub fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}

impl Storage for FaultyStorage {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.memory.open(path, mode)?;
        Ok(Arc::new(FaultyFile { file, path: path.to_owned(), before: Arc::clone(&self.before) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
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

impl std::fmt::Debug for FaultyStorage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("FaultyStorage")
    }
}

struct FaultyFile {
    file: Arc<dyn StorageFile>,
    path: PathBuf,
    before: Arc<Before>,
}

impl StorageFile for FaultyFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, into)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        (self.before)(Act::Write, &self.path)?;
        self.file.write_at(offset, bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        (self.before)(Act::Sync, &self.path)?;
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        (self.before)(Act::Sync, &self.path)?;
        self.file.sync_all()
    }

    fn try_lock(&self, kind: LockKind) -> io::Result<bool> {
        self.file.try_lock(kind)
    }

    fn map(&self) -> io::Result<Arc<dyn FileMap>> {
        self.file.map()
    }
}

impl std::fmt::Debug for FaultyFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("FaultyFile").field("path", &self.path).finish_non_exhaustive()
    }
}
