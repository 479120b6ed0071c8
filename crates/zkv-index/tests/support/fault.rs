//! A storage in memory that counts what is done to it, writes it down, and fails on demand.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use zkv_io::{FileMap, LockKind, MemoryStorage, OpenMode, Storage, StorageFile};

/// Something that was done to an open file.
#[derive(Clone, Debug)]
pub enum Operation {
    Write(u64, Vec<u8>),
    SetLength(u64),
    Sync,
}

/// Fails the `n`th operation that changes something, or opens a file for that, and every one after it
/// if `for_ever`.
/// Its random bytes are always the same.
#[derive(Clone, Debug, Default)]
pub struct FaultStorage {
    pub memory: MemoryStorage,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    count: AtomicU64,
    /// 0: nothing fails.
    fail_at: AtomicU64,
    for_ever: AtomicU64,
    log: Mutex<Vec<Operation>>,
    random: AtomicU64,
}

impl FaultStorage {
    pub fn over(memory: MemoryStorage) -> Self {
        Self { memory, ..Self::default() }
    }

    pub fn fail_at(&self, number: u64, for_ever: bool) {
        self.state.count.store(0, Ordering::Relaxed);
        self.state.fail_at.store(number, Ordering::Relaxed);
        self.state.for_ever.store(u64::from(for_ever), Ordering::Relaxed);
    }

    /// Whether so many operations came that one has failed.
    pub fn has_struck(&self) -> bool {
        self.state.fail_at.load(Ordering::Relaxed) <= self.state.count.load(Ordering::Relaxed)
    }

    /// What was done since this was last asked.
    pub fn take_log(&self) -> Vec<Operation> {
        std::mem::take(&mut self.state.log.lock().unwrap())
    }
}

impl State {
    fn step(&self) -> io::Result<()> {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let fail_at = self.fail_at.load(Ordering::Relaxed);
        let fails = fail_at != 0
            && (count == fail_at || count > fail_at && self.for_ever.load(Ordering::Relaxed) == 1);
        if fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Storage for FaultStorage {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        if mode != OpenMode::ReadOnly {
            self.state.step()?;
        }
        let file = self.memory.open(path, mode)?;
        Ok(Arc::new(FaultFile { file, state: Arc::clone(&self.state) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state.step()?;
        self.memory.rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state.step()?;
        self.memory.rename_new(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        // Never fails: a disk that is full still removes.
        self.memory.remove(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        self.memory.list(directory)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.state.step()?;
        self.memory.sync_dir(directory)
    }

    fn random(&self, into: &mut [u8]) -> io::Result<()> {
        let number = self.state.random.fetch_add(1, Ordering::Relaxed);
        for (index, byte) in into.iter_mut().enumerate() {
            *byte = number.wrapping_mul(31).to_le_bytes()[0].wrapping_add(index.to_le_bytes()[0]);
        }
        Ok(())
    }
}

#[derive(Debug)]
struct FaultFile {
    file: Arc<dyn StorageFile>,
    state: Arc<State>,
}

impl FaultFile {
    fn log(&self, operation: Operation) {
        self.state.log.lock().unwrap().push(operation);
    }
}

impl StorageFile for FaultFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, into)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.state.step() {
            // A full disk takes what fits.
            let half = &bytes[..bytes.len() / 2];
            self.log(Operation::Write(offset, half.to_vec()));
            self.file.write_at(offset, half)?;
            return Err(error);
        }
        self.log(Operation::Write(offset, bytes.to_vec()));
        self.file.write_at(offset, bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.state.step()?;
        self.log(Operation::SetLength(bytes));
        self.file.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.state.step()?;
        self.log(Operation::Sync);
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn try_lock(&self, kind: LockKind) -> io::Result<bool> {
        self.file.try_lock(kind)
    }

    fn map(&self) -> io::Result<Arc<dyn FileMap>> {
        self.file.map()
    }
}
