//! Values that were read lately: kept within their bound, and never older than what was written.

mod common;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use zkv::{Cleaning, ErrorKind, Options, Store};
use zkv_io::MemoryStorage;

use common::faulty::{Act, FaultyStorage, PATH, noise, options, read_file};

const CACHE_BYTES: usize = 1 << 20;

fn cached(memory: &MemoryStorage) -> Options {
    options(memory).cache_bytes(CACHE_BYTES)
}

fn key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// Fills the cell in which the log ends.
fn add_others(store: &Store) {
    store.set_bytes(b"other", &noise(1, 700)).unwrap();
    store.flush().unwrap();
}

#[test]
fn what_was_read_is_not_read_again_and_what_was_not_is() {
    for cache_bytes in [0, CACHE_BYTES] {
        let memory = MemoryStorage::new();
        let store = cached(&memory).open(PATH).unwrap();
        for number in 0..100 {
            store.set_bytes(&key(number), &noise(number, 400)).unwrap();
        }
        store.close().unwrap();
        let store = options(&memory).cache_bytes(cache_bytes).open_read_only(PATH).unwrap();
        assert_eq!(store.stats().unwrap().cached_bytes, 0);
        for number in 0..50 {
            assert_eq!(store.get_bytes(&key(number)).unwrap().unwrap(), noise(number, 400));
        }
        assert_eq!(store.stats().unwrap().cached_bytes > 50 * 400, cache_bytes > 0);
        let snapshot = store.snapshot();
        // From now on, no block is whole.
        let mut bytes = read_file(&memory, PATH);
        bytes[4096 + 256..].iter_mut().for_each(|byte| *byte ^= 1);
        write_over(&memory, &bytes);
        for number in 0..50 {
            for found in [store.get_bytes(&key(number)), snapshot.get_bytes(&key(number))] {
                match cache_bytes {
                    0 => assert_eq!(found.unwrap_err().kind(), ErrorKind::Corrupt),
                    _ => assert_eq!(found.unwrap().unwrap(), noise(number, 400)),
                }
            }
        }
        for number in 60..100 {
            assert!(store.get_bytes(&key(number)).is_err(), "{number}");
        }
    }
}

/// In place: the file is open.
fn write_over(memory: &MemoryStorage, bytes: &[u8]) {
    use zkv_io::{OpenMode, Storage};
    let file = memory.open(std::path::Path::new(PATH), OpenMode::ReadWrite).unwrap();
    file.write_at(0, bytes).unwrap();
}

#[test]
fn it_takes_no_more_than_it_may() {
    let memory = MemoryStorage::new();
    let store = cached(&memory).open(PATH).unwrap();
    const KEYS: u64 = 20_000;
    for number in 0..KEYS {
        let length = usize::try_from(10 + number % 200).unwrap();
        store.set_bytes(&key(number), &noise(number, length)).unwrap();
    }
    store.set_bytes(b"long", &noise(1, CACHE_BYTES / 32)).unwrap();
    store.flush().unwrap();
    add_others(&store);
    let mut most = 0;
    for number in 0..KEYS {
        store.get_bytes(&key(number)).unwrap().unwrap();
        most = most.max(store.stats().unwrap().cached_bytes);
    }
    assert!((CACHE_BYTES as u64 / 2..=CACHE_BYTES as u64).contains(&most), "{most}");
    let before = store.stats().unwrap().cached_bytes;
    assert_eq!(store.get_bytes(b"long").unwrap().unwrap().len(), CACHE_BYTES / 32);
    assert_eq!(store.stats().unwrap().cached_bytes, before, "a value that would drop many");
}

/// Several commits of one key start their blocks in one cell: its place does not change.
#[test]
fn a_value_that_is_overwritten_in_its_cell_is_not_found_again() {
    let memory = MemoryStorage::new();
    let store = cached(&memory).open(PATH).unwrap();
    let mut snapshots = Vec::new();
    for round in 0..200u64 {
        store.set_bytes(b"key", &key(round)).unwrap();
        store.flush().unwrap();
        assert_eq!(store.get_bytes(b"key").unwrap().unwrap(), key(round));
        snapshots.push(store.snapshot());
    }
    add_others(&store);
    for _ in 0..2 {
        assert_eq!(store.get_bytes(b"key").unwrap().unwrap(), key(199));
        for (round, snapshot) in (0..).zip(&snapshots) {
            assert_eq!(snapshot.get_bytes(b"key").unwrap().unwrap(), key(round));
        }
    }
    store.delete_bytes(b"key").unwrap();
    assert_eq!(store.get_bytes(b"key").unwrap(), None);
    store.flush().unwrap();
    assert_eq!(store.get_bytes(b"key").unwrap(), None);
    assert_eq!(snapshots[7].get_bytes(b"key").unwrap().unwrap(), key(7));
}

/// What the index file leads to is found without asking it, for as long as it has the last word.
#[test]
fn a_value_is_found_by_its_key_alone_until_something_is_written() {
    let memory = MemoryStorage::new();
    let values = |round: u64| (0..40).map(move |number| noise(1000 * round + number, 300));
    let store = cached(&memory).open(PATH).unwrap();
    for (number, value) in (0..).zip(values(0)) {
        store.set_bytes(&key(number), &value).unwrap();
    }
    store.close().unwrap();

    let store = cached(&memory).open(PATH).unwrap();
    let check = |round: u64, snapshots: &[zkv::Snapshot]| {
        let some: Vec<_> = (0..40).filter(|number| number % 2 == 0).map(key).collect();
        store.get_many_bytes(&some).unwrap();
        for (number, value) in (0..).zip(values(round)) {
            let expected = (number % 7 != 6 || round == 0).then_some(value);
            // The first look may be into the index, the second one need not.
            for _ in 0..2 {
                assert_eq!(store.get_bytes(&key(number)).unwrap(), expected, "{round} {number}");
            }
        }
        for (round, snapshot) in (0..).zip(snapshots) {
            for (number, value) in (0..).zip(values(round)).filter(|(number, _)| number % 7 != 6) {
                assert_eq!(snapshot.get_bytes(&key(number)).unwrap().unwrap(), value);
            }
        }
    };
    check(0, &[]);
    let mut snapshots = vec![store.snapshot()];
    for round in 1..4 {
        for (number, value) in (0..).zip(values(round)) {
            match number % 7 {
                6 => drop(store.delete_bytes(&key(number)).unwrap()),
                _ => store.set_bytes(&key(number), &value).unwrap(),
            }
        }
        check(round, &snapshots);
        store.flush().unwrap();
        add_others(&store);
        check(round, &snapshots);
        // Each of them makes a checkpoint.
        match round {
            1 => store.rebuild_index().unwrap(),
            2 => store.compact(|_| {}).unwrap(),
            _ => store.backup(format!("{round}.zkv")).unwrap(),
        }
        check(round, &snapshots);
        snapshots.push(store.snapshot());
    }
}

#[test]
fn a_full_cache_takes_in_what_is_asked_for_again() {
    const KEYS: u64 = 10_000;
    let memory = MemoryStorage::new();
    let store = cached(&memory).open(PATH).unwrap();
    for number in 0..KEYS {
        store.set_bytes(&key(number), &noise(number, 400)).unwrap();
    }
    store.close().unwrap();
    let store = cached(&memory).open_read_only(PATH).unwrap();
    for number in 0..KEYS {
        store.get_bytes(&key(number)).unwrap().unwrap();
    }
    // Full of others by now.
    let often = 7000..7100u64;
    for number in often.clone().chain(often.clone()) {
        store.get_bytes(&key(number)).unwrap().unwrap();
    }
    let mut bytes = read_file(&memory, PATH);
    bytes[4096 + 256..].iter_mut().for_each(|byte| *byte ^= 1);
    write_over(&memory, &bytes);
    let found = often.filter(|number| store.get_bytes(&key(*number)).is_ok()).count();
    assert!(found > 60, "{found} of 100");
}

#[test]
fn no_reader_sees_an_older_value_than_before() {
    const KEYS: u64 = 50;
    let memory = MemoryStorage::new();
    let options = cached(&memory).slot_bytes(256 << 10).memory_buffer_bytes(64 << 10);
    let store = options.open(PATH).unwrap();
    let (written, is_done) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut seen = BTreeMap::new();
                while !is_done.load(Ordering::Acquire) {
                    for number in 0..KEYS {
                        let least = written.load(Ordering::Acquire).saturating_sub(1);
                        let Some(found) = store.get_bytes(&key(number)).unwrap() else { continue };
                        let round = u64::from_be_bytes(found[..8].try_into().unwrap());
                        let before = seen.insert(number, round).unwrap_or(0);
                        assert!(round >= least.max(before), "key {number}");
                    }
                }
            });
        }
        for round in 1..=400u64 {
            for number in 0..KEYS {
                let value = [&key(round)[..], &noise(number * round, 300)].concat();
                store.set_bytes(&key(number), &value).unwrap();
            }
            if round % 3 == 0 {
                store.flush().unwrap();
            }
            written.store(round, Ordering::Release);
        }
        is_done.store(true, Ordering::Release);
    });
    store.compact(|_| {}).unwrap();
    for number in 0..KEYS {
        let found = store.get_bytes(&key(number)).unwrap().unwrap();
        assert_eq!(found[..8], key(400));
    }
}

/// Reads what has come to lie in the cell in which the log ends, which a checkpoint leads to already.
fn check_that_a_snapshot_stays(store: &Store, read: impl Fn(&Store) -> Vec<u8>) {
    let (snapshot, transaction) = (store.snapshot(), store.begin().unwrap());
    store.set_bytes(b"key", b"second").unwrap();
    store.flush().unwrap();
    add_others(store);
    assert_eq!(read(store), b"second");
    assert_eq!(snapshot.get_bytes(b"key").unwrap().unwrap(), b"first");
    assert_eq!(snapshot.get_many_bytes(&[b"key"]).unwrap(), [Some(b"first".to_vec())]);
    assert_eq!(transaction.get_bytes(b"key").unwrap().unwrap(), b"first");
}

#[test]
fn a_snapshot_stays_where_a_later_value_comes_to_lie_in_the_same_place() {
    let get: fn(&Store) -> Vec<u8> = |store| store.get_bytes(b"key").unwrap().unwrap();
    let get_many: fn(&Store) -> Vec<u8> =
        |store| store.get_many_bytes(&[b"key"]).unwrap().remove(0).unwrap();
    for (pad, read) in (0..256).flat_map(|pad| [(pad, get), (pad, get_many)]) {
        for is_opened_anew in [false, true] {
            let memory = MemoryStorage::new();
            let store = cached(&memory).open(PATH).unwrap();
            store.set_bytes(b"pad", &noise(1, pad)).unwrap();
            store.flush().unwrap();
            store.set_bytes(b"key", b"first").unwrap();
            store.flush().unwrap();
            store.rebuild_index().unwrap();
            if is_opened_anew {
                store.close().unwrap();
                check_that_a_snapshot_stays(&cached(&memory).open(PATH).unwrap(), read);
            } else {
                check_that_a_snapshot_stays(&store, read);
            }
        }
    }
}

#[test]
fn what_lies_in_a_slot_that_was_freed_without_an_index_file_is_not_taken_for_what_lay_there() {
    let is_full = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&is_full);
    let disk = FaultyStorage::new(&MemoryStorage::new(), move |act, path| {
        let is_index = path.to_string_lossy().contains(".idx");
        let fails = act == Act::Write && is_index && switch.load(Ordering::SeqCst);
        if fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    });
    let options = || disk.options().slot_bytes(256 << 10).memory_buffer_bytes(64 << 10);
    let open = || options().cleaning(Cleaning::Off).cache_bytes(16 << 20).open(PATH).unwrap();
    let (all, overwritten) = (0..8_000, 700..5_000);
    let value = |round: u64, number: u64| noise(round << 32 | number, 400);
    let store = open();
    for number in all.clone() {
        store.set_bytes(&key(number), &value(0, number)).unwrap();
    }
    store.close().unwrap();
    let store = open();
    all.clone().for_each(|number| drop(store.get_bytes(&key(number)).unwrap()));
    is_full.store(true, Ordering::SeqCst);
    // Now and then, one comes to lie where it lay at first: about five of each thousand rounds of a key.
    for round in 1..6 {
        for number in overwritten.clone() {
            store.delete_bytes(&key(number)).unwrap();
        }
        store.flush().unwrap();
        store.clean().unwrap();
        let mut numbers: Vec<u64> = overwritten.clone().collect();
        fastrand::Rng::with_seed(round).shuffle(&mut numbers);
        for number in numbers {
            store.set_bytes(&key(number), &value(round, number)).unwrap();
        }
        store.flush().unwrap();
        for number in all.clone() {
            let round = if overwritten.contains(&number) { round } else { 0 };
            let found = store.get_bytes(&key(number)).unwrap().unwrap();
            assert!(found == value(round, number), "key {number}");
        }
    }
}

#[test]
fn a_long_value_drops_none_where_there_is_room() {
    const KEYS: u64 = 30_000;
    let memory = MemoryStorage::new();
    let open = || options(&memory).cache_bytes(32 << 20).open(PATH).unwrap();
    let store = open();
    for number in 0..KEYS {
        store.set_bytes(&key(number), &noise(number, 400)).unwrap();
    }
    let long = noise(1, 460_000);
    (0..16).for_each(|number| store.set_bytes(&key(KEYS + number), &long).unwrap());
    store.close().unwrap();
    let store = open();
    for number in 0..KEYS + 16 {
        store.get_bytes(&key(number)).unwrap().unwrap();
    }
    // No block is whole: what is read is what is kept.
    let mut bytes = read_file(&memory, PATH);
    bytes[4096 + 256..].iter_mut().for_each(|byte| *byte ^= 1);
    write_over(&memory, &bytes);
    for number in 0..KEYS {
        assert!(store.get_bytes(&key(number)).is_ok(), "{number}");
    }
}
