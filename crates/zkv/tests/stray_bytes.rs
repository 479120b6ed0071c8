//! Bytes of a data file that are not where they belong, or not of the time: another store's data file as a
//! value, pages in the place of others, pages as they were before.

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use zkv::{Cleaning, ErrorKind, SalvageReport, Store};
use zkv_io::{MemoryStorage, Storage};

use common::faulty::{INDEX, PATH, killed, noise, options, read_file, write_file};

const SLOT: u32 = 256 << 10;
/// Where the first slot starts.
const FIRST: usize = 4096;
const SALVAGED: &str = "dir/salvaged.zkv";

fn open(memory: &MemoryStorage) -> Store {
    options(memory).cleaning(Cleaning::Off).slot_bytes(SLOT).open(PATH).unwrap()
}

/// Each in a commit of its own.
fn fill(store: &Store, count: u32, seed: u64) {
    for number in 0..count {
        let value = noise(u64::from(number) + seed, 300);
        store.set_bytes(&number.to_le_bytes(), &value).unwrap();
        store.flush().unwrap();
    }
}

/// The data file of a store of many synced commits, whose only segment is the third one. It does not compress,
/// so that it stands in the log of another store as it is.
fn data_file() -> Vec<u8> {
    let memory = MemoryStorage::new();
    let store = open(&memory);
    for round in 0..3 {
        store.set_bytes(b"key", &noise(round, 5000)).unwrap();
        if round < 2 {
            store.compact(|_| ()).unwrap();
        }
    }
    for number in 0..40 {
        store.set_bytes(&[number], &noise(u64::from(number) + 1000, 5000)).unwrap();
        store.sync().unwrap();
    }
    store.close().unwrap();
    let bytes = read_file(&memory, PATH);
    assert!(200_000 < bytes.len() && bytes.len() < FIRST + SLOT as usize);
    bytes
}

/// Salvages the file of `bytes`, beside the index file of `memory`, if there is one.
fn salvage(memory: &MemoryStorage, bytes: &[u8]) -> (SalvageReport, Store) {
    write_file(memory, PATH, bytes);
    let report = zkv::salvage(PATH, SALVAGED, options(memory), |_| ()).unwrap();
    (report, options(memory).open(SALVAGED).unwrap())
}

#[test]
fn salvage_brings_nothing_out_of_a_data_file_that_is_a_value() {
    let file = data_file();
    for count in 0..8 {
        for with_index in [true, false] {
            let memory = MemoryStorage::new();
            let store = open(&memory);
            for number in 0..count {
                store.set_bytes(format!("room {number}").as_bytes(), &noise(5, 5001)).unwrap();
            }
            store.set_bytes(b"file", &file[FIRST..FIRST + 200_000]).unwrap();
            store.set_bytes(b"key", b"value").unwrap();
            store.close().unwrap();
            if !with_index {
                memory.remove(Path::new(INDEX)).unwrap();
            }
            let mut bytes = read_file(&memory, PATH);
            assert!(
                bytes.windows(64).any(|window| *window == file[100_000..100_064]),
                "compressed"
            );
            // In the header of the only segment.
            bytes[FIRST + 20] ^= 1;
            let (_, store) = salvage(&memory, &bytes);
            let keys = store.iter_bytes().map(|pair| pair.unwrap().0.to_vec());
            let keys: BTreeSet<Vec<u8>> = keys.collect();
            let names = (0..count).map(|number| format!("room {number}").into_bytes());
            let own = names.chain([b"file".to_vec(), b"key".to_vec()]).collect();
            assert_eq!(keys, own, "{count} before, index {with_index}");
        }
    }
}

/// Of what was not synced all has arrived but for the first pages of the segment that was begun, with the seal
/// that names it or without.
#[test]
fn a_power_cut_beside_a_data_file_that_is_a_value_is_no_damage() {
    let file = data_file();
    let second = FIRST + SLOT as usize;
    let mut cuts = 0;
    for room in (0..240_000).step_by(8_000) {
        let memory = MemoryStorage::new();
        let store = open(&memory);
        store.set_bytes(b"key", b"value").unwrap();
        store.set_bytes(b"room", &noise(5, room)).unwrap();
        store.sync().unwrap();
        store.set_bytes(b"file", &file).unwrap();
        store.flush().unwrap();
        let bytes = read_file(&killed(&memory), PATH);
        for (before, behind) in [(0, 4096), (0, 3 * 4096), (4096, 4096)] {
            let mut bytes = bytes.clone();
            if bytes.len() <= second + behind {
                continue;
            }
            bytes[second - before..second + behind].fill(0);
            let cut = MemoryStorage::new();
            write_file(&cut, PATH, &bytes);
            let what = format!("room {room}, lost {before} and {behind}");
            let store = options(&cut).open(PATH).expect(&what);
            assert_eq!(store.get_bytes(b"key").unwrap().unwrap(), b"value", "{what}");
            assert_eq!(store.len(), 2, "{what}");
            cuts += 1;
        }
    }
    assert!(cuts > 50);
}

/// The disk has written the log's last pages in the place of the first ones: at such a distance, their blocks
/// agree on another seed.
#[test]
fn blocks_in_the_wrong_place_do_not_hide_those_in_theirs_from_salvage() {
    for (count, moved) in [(200, 4096), (200, 8192), (190, 4096), (190, 8192)] {
        let memory = MemoryStorage::new();
        let store = open(&memory);
        fill(&store, count, 0);
        store.sync().unwrap();
        store.set_bytes(b"one more", b"value").unwrap();
        store.sync().unwrap();
        store.close().unwrap();
        memory.remove(Path::new(INDEX)).unwrap();
        let mut bytes = read_file(&memory, PATH);
        let end = bytes.len();
        bytes.copy_within(end - moved.., FIRST);
        bytes[end - moved..].fill(0);
        let (report, _) = salvage(&memory, &bytes);
        assert!(!report.is_complete() && report.keys > 140, "{count}, {moved}: {report:?}");
    }
}

/// What becomes of a store whose data file has `bytes`, an older store's in part: it is refused, and salvage brings
/// what is left of the newer one.
fn check_refused(memory: &MemoryStorage, bytes: &[u8], with_index: bool, keys_min: u64) {
    let index = read_file(memory, INDEX);
    let damaged = MemoryStorage::new();
    write_file(&damaged, PATH, bytes);
    if with_index {
        write_file(&damaged, INDEX, &index);
    }
    let what = format!("{keys_min} keys, index {with_index}");
    assert!(!zkv::verify(PATH, options(&damaged), |_| ()).unwrap().is_sound(), "{what}");
    let opened = options(&damaged).open(PATH);
    let error = opened.map(|store| store.len()).expect_err(&what);
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}");
    let (report, _) = salvage(&damaged, bytes);
    assert!(!report.is_complete() && report.keys > keys_min, "{what}: {report:?}");
}

/// A store of `count` keys that was compacted, so that its segment lies in the first slot again, and killed behind
/// 200 more; and its data file with the first `bytes` of that slot as they were before: the disk has lost a write.
fn with_an_older_start(count: u32, bytes: usize, is_closed: bool) -> (MemoryStorage, Vec<u8>) {
    let memory = MemoryStorage::new();
    let store = open(&memory);
    fill(&store, count, 0);
    store.close().unwrap();
    let older = read_file(&memory, PATH);
    let store = open(&memory);
    store.compact(|_| ()).unwrap();
    fill(&store, 200, 1000);
    let memory = if is_closed {
        store.close().unwrap();
        memory
    } else {
        killed(&memory)
    };
    let mut damaged = read_file(&memory, PATH);
    assert!(damaged.len() < FIRST + SLOT as usize);
    damaged[FIRST..][..bytes].copy_from_slice(&older[FIRST..][..bytes]);
    (memory, damaged)
}

#[test]
fn an_older_first_page_does_not_bring_an_older_store_back() {
    for bytes in [512, 4096, 8192] {
        let (memory, damaged) = with_an_older_start(20, bytes, true);
        for with_index in [true, false] {
            check_refused(&memory, &damaged, with_index, 150);
        }
    }
}

/// Nothing was synced since, so that no commit says what was.
#[test]
fn an_older_first_page_is_damage_where_an_index_knows_what_stood_there() {
    for bytes in [512, 4096] {
        let (memory, damaged) = with_an_older_start(5, bytes, false);
        check_refused(&memory, &damaged, true, 100);
    }
}
