//! A store in memory whose disk does what a test says.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use zkv::Options;
use zkv_io::{MemoryStorage, OpenMode, Storage};
pub use zkv_sim::Act;
use zkv_sim::Watched;

pub const PATH: &str = "dir/store.zkv";
pub const INDEX: &str = "dir/store.zkv.idx";

/// A disk in memory that a test may refuse or hold up.
#[derive(Clone)]
pub struct FaultyStorage(Watched);

impl FaultyStorage {
    pub fn new(
        memory: &MemoryStorage,
        before: impl Fn(Act, &Path) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self(Watched::new(Arc::new(memory.clone()), before))
    }

    pub fn options(&self) -> Options {
        Options::new().storage(Arc::new(self.0.clone()))
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

/// A disk on which acts of this kind pass a gate.
pub fn disk_with_gate(memory: &MemoryStorage, held: Act) -> (FaultyStorage, Gate) {
    let gate = Gate::default();
    let passed = gate.clone();
    let storage = FaultyStorage::new(memory, move |act, _| {
        if act == held {
            passed.pass();
        }
        Ok(())
    });
    (storage, gate)
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
