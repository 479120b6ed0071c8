//! What cleaning does with a record or a mark of whose key a newer place cannot be read: moved, it would stand behind
//! that, and take its place.

mod common;

use std::sync::Arc;

use zkv::{Cleaning, Options, ReadMode, Store};
use zkv_io::MemoryStorage;

use common::bad_sectors::{BadSectors, SECTOR};
use common::faulty::{PATH, noise, options, read_file, write_file};

const SLOT: u32 = 256 << 10;
const KEY: &[u8] = b"the key";

fn key(number: u64) -> Vec<u8> {
    format!("key {number}").into_bytes()
}

fn plain(memory: &MemoryStorage) -> Options {
    options(memory).slot_bytes(SLOT).cleaning(Cleaning::Off).cache_bytes(0)
}

fn fill(store: &Store, keys: std::ops::Range<u64>) {
    for number in keys {
        store.set_bytes(&key(number), &noise(number, 600)).unwrap();
    }
    store.flush().unwrap();
}

/// Leaves the segments that hold them with little that is live.
fn delete(store: &Store, keys: std::ops::Range<u64>) {
    for number in keys {
        store.delete_bytes(&key(number)).unwrap();
    }
    store.flush().unwrap();
}

/// The store on a disk that cannot read the sector in the middle of where `value` stands.
fn beside(memory: &MemoryStorage, value: &[u8]) -> Store {
    let bytes = read_file(memory, PATH);
    let at = bytes.windows(value.len()).position(|window| window == value).unwrap();
    let sector = (at + value.len() / 2) as u64 / SECTOR;
    let storage = Arc::new(BadSectors::new(memory, PATH, &[sector]));
    let options = Options::new().storage(storage).read_mode(ReadMode::Pread);
    options.cache_bytes(0).cleaning(Cleaning::Off).open(PATH).unwrap()
}

#[test]
fn a_mark_is_not_moved_behind_a_value_that_cannot_be_read() {
    let memory = MemoryStorage::new();
    let newer = noise(777, 3_000);
    let store = plain(&memory).open(PATH).unwrap();
    store.set_bytes(KEY, b"first").unwrap();
    store.flush().unwrap();
    fill(&store, 0..430);
    assert!(store.delete_bytes(KEY).unwrap());
    store.flush().unwrap();
    fill(&store, 10_000..10_900);
    // A block of its own, which is stored as it is.
    store.set_bytes(KEY, &newer).unwrap();
    store.flush().unwrap();
    fill(&store, 20_000..20_900);
    delete(&store, 10_000..10_900);
    store.close().unwrap();

    let store = beside(&memory, &newer);
    assert!(store.get_bytes(KEY).is_err());
    store.clean().unwrap();
    // The other segments are cleaned.
    assert!(store.stats().unwrap().cleaning.segments > 0);
    store.close().unwrap();
    // The sector can be read again.
    let store = plain(&memory).open(PATH).unwrap();
    assert_eq!(store.get_bytes(KEY).unwrap(), Some(newer.clone()));
    store.rebuild_index().unwrap();
    assert_eq!(store.get_bytes(KEY).unwrap(), Some(newer));
}

#[test]
fn an_older_value_is_not_moved_behind_one_that_cannot_be_read() {
    let memory = MemoryStorage::new();
    let (older, newer) = (noise(111, 3_000), noise(222, 3_100));
    let store = plain(&memory).open(PATH).unwrap();
    store.set_bytes(KEY, &older).unwrap();
    store.flush().unwrap();
    fill(&store, 0..900);
    store.close().unwrap();
    // What is overwritten now cannot be told from another key's, so that the index goes on to lead there.
    let store = beside(&memory, &older);
    // A block of its own, which is stored as it is.
    store.set_bytes(KEY, &newer).unwrap();
    store.flush().unwrap();
    fill(&store, 1_000..2_300);
    for number in (0..900).filter(|number| number % 10 > 0) {
        let _ = store.delete_bytes(&key(number));
    }
    store.close().unwrap();

    let store = beside(&memory, &newer);
    store.clean().unwrap();
    assert!(store.get_bytes(KEY).is_err());
    let is_older = |record: zkv::Result<(Vec<u8>, Vec<u8>)>| record.is_ok_and(|one| one.0 == KEY);
    assert!(!store.iter_bytes().any(is_older));
    store.close().unwrap();
    let store = plain(&memory).open(PATH).unwrap();
    assert_eq!(store.get_bytes(KEY).unwrap(), Some(newer));
}

/// One block with the name of a collection that was dropped before, and made again, cost all of it.
#[test]
fn a_collection_whose_name_is_damaged_is_not_dropped_by_the_cleaning() {
    let memory = MemoryStorage::new();
    let store = plain(&memory).open(PATH).unwrap();
    drop(store.collection::<u64, u64>("c").unwrap());
    fill(&store, 0..430);
    assert!(store.drop_collection("c").unwrap());
    fill(&store, 10_000..10_900);
    let before = read_file(&memory, PATH);
    let collection = store.collection::<u64, u64>("c").unwrap();
    let bytes = read_file(&memory, PATH);
    let is_new = |at: &usize| before.get(*at) != Some(&bytes[*at]) && bytes[*at] != 0;
    let name = (0..bytes.len()).find(is_new).unwrap();
    for number in 0..50 {
        collection.set(&number, &number).unwrap();
    }
    drop(collection);
    fill(&store, 20_000..20_900);
    delete(&store, 10_000..10_900);
    store.close().unwrap();
    let mut bytes = read_file(&memory, PATH);
    bytes[name + 12] ^= 1;
    write_file(&memory, PATH, &bytes);

    let store = plain(&memory).open(PATH).unwrap();
    assert_eq!(store.verify(|_| {}).unwrap().findings.len(), 1);
    for round in 0..3 {
        fill(&store, 30_000 + round..30_900 + round);
        store.clean().unwrap();
    }
    assert!(store.stats().unwrap().cleaning.segments > 0);
    store.close().unwrap();
    let store = plain(&memory).open(PATH).unwrap();
    let collection = store.collection::<u64, u64>("c").unwrap();
    for number in 0..50 {
        assert_eq!(collection.get(&number).unwrap(), Some(number));
    }
}
