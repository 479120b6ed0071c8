//! Stores that are read without a memory map.

mod common;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use zkv::{Cleaning, ErrorKind, Options, ReadMode};
use zkv_io::MemoryStorage;
use zkv_sim::{Act, Watched};

use common::bad_sectors::{BadSectors, SECTOR};
use common::faulty::{INDEX, PATH, noise, options, read_file};
use common::{check, fill};

#[test]
fn nothing_is_read_through_a_map_where_the_mode_says_so() {
    let storage = Arc::new(Watched::new(Arc::new(MemoryStorage::new()), |act, _| match act {
        Act::Map => Err(io::Error::other("this file cannot be mapped")),
        _ => Ok(()),
    }));
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

#[test]
fn what_is_superseded_is_read_block_by_block() {
    const KEYS: u64 = 5_000;
    let reads = Arc::new(AtomicU64::new(0));
    let of_disk = Arc::clone(&reads);
    let storage = Watched::new(Arc::new(MemoryStorage::new()), move |act, path| {
        if matches!(act, Act::Read { .. }) && path.ends_with("store.zkv") {
            of_disk.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    });
    let options = Options::new().storage(Arc::new(storage)).cleaning(Cleaning::Off);
    let options = options.read_mode(ReadMode::Pread).flush_interval(Duration::from_secs(3600));
    let store = options.open(PATH).unwrap();
    for what in ["made", "overwritten"] {
        let before = reads.load(Ordering::Relaxed);
        for key in 0..KEYS {
            store.set_bytes(&key.to_be_bytes(), what.as_bytes()).unwrap();
        }
        store.flush().unwrap();
        let count = reads.load(Ordering::Relaxed) - before;
        // A block of a kilobyte holds dozens, and its cell has a place in a table, too.
        assert!(count < KEYS / 5, "{what}: {count} reads");
        store.rebuild_index().unwrap();
    }
    assert_eq!(store.len(), KEYS);
}

#[test]
fn an_index_that_the_disk_cannot_read_is_made_anew() {
    let memory = MemoryStorage::new();
    let store = options(&memory).open(PATH).unwrap();
    fill(&store, 0, 20_000);
    store.close().unwrap();
    let sectors = read_file(&memory, INDEX).len() as u64 / SECTOR;
    let storage = BadSectors::new(&memory, INDEX, &[sectors / 3]);
    let bad = Options::new().storage(Arc::new(storage)).read_mode(ReadMode::Pread);
    let store = bad.open(PATH).unwrap();
    check(&store, 20_000);
    store.close().unwrap();
    check(&options(&memory).open(PATH).unwrap(), 20_000);
}

/// On Windows the index file is read without a map.
#[cfg(not(windows))]
#[test]
fn an_index_is_not_made_anew_where_the_system_has_no_memory_left_to_open_it() {
    let memory = MemoryStorage::new();
    let store = options(&memory).open(PATH).unwrap();
    fill(&store, 0, 1_000);
    store.close().unwrap();
    let index = read_file(&memory, INDEX);
    let storage = Watched::new(Arc::new(memory.clone()), |act, path| {
        let is_refused = act == Act::Map && path.ends_with("store.zkv.idx");
        if is_refused { Err(io::ErrorKind::OutOfMemory.into()) } else { Ok(()) }
    });
    let error = Options::new().storage(Arc::new(storage)).open(PATH).unwrap_err();
    assert!(matches!(error, zkv::Error::Index { .. }), "{error}");
    assert!(read_file(&memory, INDEX) == index);
    check(&options(&memory).open(PATH).unwrap(), 1_000);
}
