//! A log in memory, in slots of 64 KiB, and what is done with it everywhere.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::Path;
use std::sync::Arc;

use zkv_io::{MemoryStorage, OpenMode, Storage};
use zkv_log::{Access, Log, LogOptions, LogWriter, OpenFile, Recovered, Result, create};

pub const PATH: &str = "log";
pub const SLOT: u32 = 64 << 10;

pub fn options() -> LogOptions {
    LogOptions { slot_bytes: SLOT, ..LogOptions::default() }
}

pub fn new_log() -> (MemoryStorage, LogWriter) {
    let storage = MemoryStorage::new();
    create(&storage, Path::new(PATH), &options()).unwrap();
    let writer = open(&storage);
    (storage, writer)
}

pub fn open_file(storage: &MemoryStorage, access: Access) -> Result<OpenFile> {
    OpenFile::open(Arc::new(storage.clone()), Path::new(PATH), access, options())
}

pub fn try_open(storage: &MemoryStorage, checkpoint: Option<&[u8]>) -> Result<Recovered> {
    open_file(storage, Access::ReadWrite)?.recover(checkpoint)
}

pub fn open(storage: &MemoryStorage) -> LogWriter {
    try_open(storage, None).unwrap().writer.unwrap()
}

pub fn bytes_of(storage: &MemoryStorage) -> Vec<u8> {
    let file = storage.open(Path::new(PATH), OpenMode::ReadOnly).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

pub fn storage_of(bytes: &[u8]) -> MemoryStorage {
    let storage = MemoryStorage::new();
    let file = storage.open(Path::new(PATH), OpenMode::CreateNew).unwrap();
    file.write_at(0, bytes).unwrap();
    storage
}

/// Frees all that the log has, so that its last segment lies in the first slot, and cuts the others off.
pub fn compact(writer: &mut LogWriter) {
    free_all(writer);
    writer.cut().unwrap();
    assert_eq!(slots(&writer.log()), [(0, 3)]);
}

/// Frees all segments but one, which is begun for that; the second time, those that the first one's roll call needs.
pub fn free_all(writer: &mut LogWriter) {
    for _ in 0..2 {
        writer.rebase().unwrap();
        let segments = writer.log().view().segments();
        let full = segments.iter().filter(|segment| segment.is_sealed);
        let freed = writer.free(&full.map(|segment| segment.slot).collect::<Vec<_>>()).unwrap();
        writer.log().sync(freed.end).unwrap();
    }
}

/// Bytes that do not compress, so that entries fill slots.
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    fastrand::Rng::with_seed(seed).fill(&mut noise);
    noise
}

/// Slots and sequence numbers of the log's segments.
pub fn slots(log: &Log) -> Vec<(u32, u64)> {
    log.view().segments().iter().map(|segment| (segment.slot, segment.sequence)).collect()
}

/// All entries, in the order of the log.
pub fn all(log: &Log) -> Vec<Vec<u8>> {
    let view = log.view();
    let mut found = Vec::new();
    for segment in view.segments() {
        let mut scan = view.scan(segment.slot, None).unwrap();
        while let Some(block) = scan.next_block().unwrap() {
            found.extend(block.entries().unwrap().map(|entry| entry.unwrap().to_vec()));
        }
    }
    found
}
