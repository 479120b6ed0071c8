//! What the store does with files that are damaged, forged, or of a newer version.

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use serde::{Deserialize, Deserializer};
use zkv::{Cleaning, Durability, ErrorKind, Options, Severity, Store, WriteBatch};
use zkv_io::{MemoryStorage, OpenMode, Storage};
use zkv_log::{Access, LogOptions, LogWriter, OpenFile};
use zkv_record::{Head, Kind, Record};
use zkv_sim::{Cut, Growth, PowerCut, SimDisk};

use common::faulty::{INDEX, PATH, killed, noise, options, read_file, write_file};

fn open(memory: &MemoryStorage) -> Store {
    options(memory).open(PATH).unwrap()
}

fn log_writer(memory: &MemoryStorage) -> LogWriter {
    let storage = Arc::new(memory.clone());
    let options = LogOptions::default();
    let file = OpenFile::open(storage, Path::new(PATH), Access::ReadWrite, options).unwrap();
    file.recover(None).unwrap().writer.unwrap()
}

/// A closed store with two keys, the first of them in a block of its own.
fn closed_with_key_and_other() -> MemoryStorage {
    let memory = MemoryStorage::new();
    let store = open(&memory);
    store.set_bytes(b"key", b"first").unwrap();
    store.flush().unwrap();
    store.set_bytes(b"other", &noise(3, 2000)).unwrap();
    store.close().unwrap();
    memory
}

fn check_overwritten(store: &Store) {
    assert_eq!(store.get_bytes(b"key").unwrap().unwrap(), b"second");
    assert_eq!(store.len(), 2);
}

#[test]
fn what_overwrites_a_damaged_record_is_read() {
    let memory = closed_with_key_and_other();
    let mut bytes = read_file(&memory, PATH);
    bytes[FIRST_BLOCK + 9] ^= 1;
    write_file(&memory, PATH, &bytes);

    let store = open(&memory);
    assert_eq!(store.get_bytes(b"key").unwrap_err().kind(), ErrorKind::Corrupt);
    store.set_bytes(b"key", b"second").unwrap();
    check_overwritten(&store);
    store.flush().unwrap();
    check_overwritten(&store);
    let after_a_kill = open(&killed(&memory));
    check_overwritten(&after_a_kill);
    store.close().unwrap();
    // Enough of a change that the tables of the index are merged.
    let store = open(&memory);
    check_overwritten(&store);
    for number in 0..5000u64 {
        store.set_bytes(&number.to_le_bytes(), b"value").unwrap();
    }
    store.close().unwrap();
    let store = open(&memory);
    assert_eq!(store.get_bytes(b"key").unwrap().unwrap(), b"second");
    assert_eq!(store.len(), 5002);
}

/// Where the first commit's block starts.
const FIRST_BLOCK: usize = 4096 + 256;

/// Flips a bit of the byte at `offset` in the data file of an open store.
fn flip(memory: &MemoryStorage, offset: usize) {
    let file = memory.open(Path::new(PATH), OpenMode::ReadWrite).unwrap();
    let (mut byte, offset) = ([0], offset as u64);
    file.read_at(offset, &mut byte).unwrap();
    file.write_at(offset, &[byte[0] ^ 1]).unwrap();
}

/// Some sectors can be read again: the disk has tried harder, or somebody has repaired the file.
#[test]
fn what_was_damaged_when_it_was_overwritten_stays_so_once_it_can_be_read_again() {
    for is_replayed in [false, true] {
        let mut memory = closed_with_key_and_other();
        let mut store = open(&memory);
        flip(&memory, FIRST_BLOCK + 9);
        store.set_bytes(b"key", b"second").unwrap();
        store.flush().unwrap();
        if is_replayed {
            memory = killed(&memory);
            store = open(&memory);
        }
        flip(&memory, FIRST_BLOCK + 9);
        for _ in 0..2 {
            let mut found: Vec<_> = store.iter_bytes().map(Result::unwrap).collect();
            found.retain(|(key, _)| key == b"key");
            assert_eq!(found, [(b"key".to_vec(), b"second".to_vec())], "{is_replayed}");
            store.close().unwrap();
            store = open(&memory);
        }
    }
}

#[test]
fn a_batch_that_deletes_a_damaged_record_leaves_a_mark() {
    let memory = MemoryStorage::new();
    let store = open(&memory);
    for value in [b"first!", b"second"] {
        store.set_bytes(b"key", value).unwrap();
        store.flush().unwrap();
        store.set_bytes(b"other", &noise(3, 2000)).unwrap();
        store.flush().unwrap();
    }
    let bytes = read_file(&memory, PATH);
    flip(&memory, bytes.windows(6).position(|bytes| bytes == b"second").unwrap());
    assert_eq!(store.get_bytes(b"key").unwrap_err().kind(), ErrorKind::Corrupt);
    store.close().unwrap();

    let store = open(&memory);
    let mut batch = WriteBatch::new();
    batch.delete_bytes(b"key");
    store.write_with(batch, Durability::Flushed).unwrap();
    // The place may be another key's, and stays in the index.
    assert_eq!(store.get_bytes(b"key").unwrap_err().kind(), ErrorKind::Corrupt);
    store.close().unwrap();
    let salvaged = Path::new("dir/salvaged.zkv");
    zkv::salvage(PATH, salvaged, options(&memory), |_| ()).unwrap();
    let store = options(&memory).open(salvaged).unwrap();
    assert_eq!(store.get_bytes(b"key").unwrap(), None);
    assert_eq!(store.get_bytes(b"other").unwrap().unwrap(), noise(3, 2000));
}

#[test]
fn what_was_deleted_stays_so_beside_a_damaged_seal_and_a_damaged_block() {
    const SLOT: usize = 256 << 10;
    let memory = MemoryStorage::new();
    let key = |number: u64| format!("key {number}").into_bytes();
    let store = options(&memory).slot_bytes(256 << 10).open(PATH).unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    for number in 0..20_000u64 {
        let words: Vec<_> = (0..12).map(|_| format!("word{:x}", random.u64(..50) * 999)).collect();
        store.set_bytes(&key(number), words.join(" ").as_bytes()).unwrap();
    }
    store.close().unwrap();
    // Behind the index file: whoever opens the store looks up what was deleted.
    let options = options(&memory).durability(Durability::Flushed).cleaning(Cleaning::Off);
    let store = options.open(PATH).unwrap();
    for number in (0..20_000).step_by(20) {
        store.delete_bytes(&key(number)).unwrap();
    }
    let memory = killed(&memory);
    flip(&memory, 4096 + 2 * SLOT - 100);
    flip(&memory, 4096 + SLOT + 60_000);
    let yielded: BTreeSet<_> = open(&memory).iter_bytes().flatten().map(|(key, _)| key).collect();
    assert!(yielded.len() > 18_800, "{}", yielded.len());
    let are_back = (0..20_000).step_by(20).filter(|number| yielded.contains(&key(*number))).count();
    assert_eq!(are_back, 0);
}

#[test]
fn keys_are_counted_alike_by_who_wrote_them_and_who_opens_the_store() {
    let memory = closed_with_key_and_other();
    flip(&memory, FIRST_BLOCK + 9);
    let store = options(&memory).durability(Durability::Flushed).open(PATH).unwrap();
    let mut batch = WriteBatch::new();
    batch.delete_bytes(b"key");
    store.write(batch).unwrap();
    store.set_bytes(b"key", b"second").unwrap();
    check_overwritten(&store);
    check_overwritten(&open(&killed(&memory)));
    store.close().unwrap();
    check_overwritten(&open(&memory));
}

#[test]
fn a_damaged_block_brings_no_older_value_of_its_cell_back() {
    let memory = MemoryStorage::new();
    let store = open(&memory);
    for value in [b"first!", b"second"] {
        store.set_bytes(b"key", value).unwrap();
        store.flush().unwrap();
    }
    let bytes = read_file(&memory, PATH);
    let second = bytes.windows(6).position(|bytes| bytes == b"second").unwrap();
    assert!(second - FIRST_BLOCK < 256, "both blocks start in one cell");
    flip(&memory, second);
    assert_eq!(store.get_bytes(b"key").unwrap_err().kind(), ErrorKind::Corrupt);
    let found: Vec<_> = store.iter_bytes().collect();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].as_ref().unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn a_damaged_index_is_mended_for_every_way_to_read() {
    const KEYS: u64 = 200;
    let memory = MemoryStorage::new();
    let store = open(&memory);
    for number in 0..KEYS {
        store.set_bytes(&number.to_le_bytes(), b"value").unwrap();
    }
    let large = noise(5, 3 << 20);
    store.set_bytes(b"large", &large).unwrap();
    store.close().unwrap();
    let index = read_file(&memory, INDEX);
    for offset in (512..index.len()).step_by(64) {
        let damaged = || {
            let copy = killed(&memory);
            let mut bytes = index.clone();
            bytes[offset] ^= 1;
            write_file(&copy, INDEX, &bytes);
            open(&copy)
        };
        let store = damaged();
        let count = store.iter_bytes().map(Result::unwrap).count() as u64;
        assert_eq!(count, KEYS + 1, "byte {offset}");
        assert_eq!(damaged().get_bytes(b"large").unwrap().unwrap(), large, "byte {offset}");
        let store = damaged();
        for number in KEYS / 2..KEYS * 2 {
            store.set_bytes(&number.to_le_bytes(), b"newer").unwrap();
        }
        assert_eq!(store.len(), KEYS * 2 + 1, "byte {offset}");
        let store = damaged();
        let other = store.clone();
        store.close().unwrap();
        for number in 0..KEYS {
            assert!(other.contains_bytes(&number.to_le_bytes()).unwrap(), "byte {offset}");
        }
    }
}

/// Damages the first half of the index file, in which its table lies, so that nearly every lookup meets it.
fn damage_index(memory: &MemoryStorage) {
    let mut bytes = read_file(memory, INDEX);
    let half = bytes.len() / 2;
    bytes[512..half].iter_mut().step_by(64).for_each(|byte| *byte ^= 1);
    let file = memory.open(Path::new(INDEX), OpenMode::ReadWrite).unwrap();
    file.write_at(0, &bytes).unwrap();
}

fn filled_beside_a_damaged_index() -> (MemoryStorage, Store) {
    let memory = MemoryStorage::new();
    let store = open(&memory);
    for number in 0..5000u64 {
        store.set_bytes(&number.to_le_bytes(), b"value").unwrap();
    }
    store.close().unwrap();
    damage_index(&memory);
    let store = open(&memory);
    (memory, store)
}

#[test]
fn many_threads_that_meet_a_damaged_index_have_it_mended_once() {
    const THREADS: usize = 40;
    let (memory, store) = filled_beside_a_damaged_index();
    // More often than a store mends its index, were each to do it.
    for _ in 0..2 {
        let barrier = Barrier::new(THREADS);
        thread::scope(|scope| {
            for number in 0..THREADS {
                let (store, barrier) = (&store, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    let key = (number as u64).to_le_bytes();
                    assert_eq!(store.get_bytes(&key).unwrap().unwrap(), b"value");
                });
            }
        });
        damage_index(&memory);
    }
}

#[test]
fn what_meets_a_damaged_index_and_writes_nothing_mends_the_store() {
    type Look = fn(&Store, &[u8]);
    let looks: [Look; 4] = [
        |store, key| assert!(!store.delete_bytes(key).unwrap()),
        |store, key| assert_eq!(store.begin().unwrap().get_bytes(key).unwrap(), None),
        |store, key| assert_eq!(store.snapshot().get_bytes(key).unwrap(), None),
        |store, _| assert_eq!(store.iter_bytes().map(Result::unwrap).count(), 5000),
    ];
    for look in looks {
        let (_, store) = filled_beside_a_damaged_index();
        store.set_bytes(&7u64.to_le_bytes(), b"new").unwrap();
        // More often than a store mends its index.
        for number in 10_000..10_040u64 {
            look(&store, &number.to_le_bytes());
        }
        store.flush().unwrap();
        store.close().unwrap();
    }
}

#[test]
fn heads_that_name_the_same_pieces_can_be_replaced() {
    let memory = MemoryStorage::new();
    zkv_log::create(&memory, Path::new(PATH), &LogOptions::default()).unwrap();
    let head = Head { value_id: [7; 16], value_bytes: 2 << 20, piece_bytes: 1 << 20 }.encode();
    let record = |key| {
        let mut bytes = Vec::new();
        Record { kind: Kind::Head, ..Record::put(key, &head) }.encode_into(&mut bytes);
        bytes
    };
    let mut log = log_writer(&memory);
    log.append(&[&record(b"a"), &record(b"b")]).unwrap();
    log.close().unwrap();
    drop(log);
    let store = open(&memory);
    store.set_bytes(b"a", b"1").unwrap();
    store.set_bytes(b"b", b"2").unwrap();
    store.flush().unwrap();
    assert_eq!(store.get_bytes(b"a").unwrap().unwrap(), b"1");
    assert_eq!(store.get_bytes(b"b").unwrap().unwrap(), b"2");
    store.close().unwrap();
    assert_eq!(open(&memory).iter_bytes().map(Result::unwrap).count(), 2);
}

#[test]
fn entries_that_are_no_records_are_not_passed_over() {
    let newer_flags: &[u8] = &[0x80, 1, b'k', b'v'];
    let no_record: &[u8] = &[0, 9, b'k'];
    for (entry, kind) in
        [(newer_flags, ErrorKind::UnsupportedVersion), (no_record, ErrorKind::Corrupt)]
    {
        let memory = MemoryStorage::new();
        let store = open(&memory);
        store.set_bytes(b"key", b"value").unwrap();
        store.close().unwrap();
        let mut log = log_writer(&memory);
        log.append(&[entry]).unwrap();
        log.close().unwrap();
        drop(log);
        for with_index in [true, false] {
            let open = |read_only: bool| {
                let options = options(&memory).use_index_file(with_index);
                if read_only { options.open_read_only(PATH) } else { options.open(PATH) }
            };
            assert_eq!(open(true).unwrap_err().kind(), kind);
            let error = open(false).unwrap_err();
            assert_eq!(error.kind(), kind);
            // The first slot starts behind the file's header.
            let is_placed = kind != ErrorKind::Corrupt || !error.to_string().contains("byte 0:");
            assert!(is_placed, "{error}");
        }
    }
}

/// The page was durable before the file had its name: where zeros stand there, or the file ends before it, all
/// that it had is lost. What is written into a store that was opened as an empty one would be lost, too, since
/// the header that names its segment is not there.
#[test]
fn a_store_that_has_lost_its_only_page_is_not_taken_for_an_empty_one() {
    for is_compacted in [false, true] {
        let memory = MemoryStorage::new();
        let store = open(&memory);
        store.set_bytes(b"key", b"value").unwrap();
        store.sync().unwrap();
        if is_compacted {
            store.compact(|_| ()).unwrap();
        }
        store.close().unwrap();
        let (whole, index) = (read_file(&memory, PATH), read_file(&memory, INDEX));
        assert_eq!(whole.len(), 8192);
        for bytes_left in [4096, 5000, 8192] {
            let mut bytes = whole.clone();
            bytes[4096..].fill(0);
            bytes.truncate(bytes_left);
            for with_index in [true, false] {
                let damaged = MemoryStorage::new();
                write_file(&damaged, PATH, &bytes);
                if with_index {
                    write_file(&damaged, INDEX, &index);
                }
                let what = format!("{is_compacted}, {bytes_left} bytes, {with_index}");
                assert!(
                    !zkv::verify(PATH, options(&damaged), |_| ()).unwrap().is_sound(),
                    "{what}"
                );
                let opened = options(&damaged).open(PATH);
                let error = opened.map(|store| store.len()).expect_err(&what);
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}");
                let report = zkv::salvage(PATH, "dir/new.zkv", options(&damaged), |_| ()).unwrap();
                assert!(report.keys == 0 && !report.is_complete(), "{what}: {report:?}");
            }
        }
    }
}

/// A process is killed behind a cleaning: the log alone is read through what that has freed, until a header names a
/// newer roll call.
#[test]
fn what_an_opening_without_the_index_needs_of_freed_segments_is_looked_at() {
    const SLOT_BYTES: u32 = 256 << 10;
    const SLOT: usize = SLOT_BYTES as usize;
    let disk = SimDisk::recording(1);
    let settings = |disk: SimDisk| {
        let options = Options::new().storage(Arc::new(disk)).slot_bytes(SLOT_BYTES);
        options.durability(Durability::Synced).cleaning(Cleaning::Off)
    };
    let store = settings(disk.clone()).open(PATH).unwrap();
    for number in 0..15 {
        store.set_bytes(format!("kept {number}").as_bytes(), &noise(number, 20_000)).unwrap();
    }
    store.set_bytes(b"long", &noise(60, 600_000)).unwrap();
    store.set_bytes(b"end", &noise(61, 1000)).unwrap();
    store.delete_bytes(b"long").unwrap();
    let begun = disk.event_count();
    store.clean().unwrap();
    let (mut cut, mut told) = (PowerCut::new(), 0);
    for (number, event) in disk.events(0).iter().enumerate() {
        cut.follow(event);
        if number < begun {
            continue;
        }
        let kept = vec![true; cut.pending().len()];
        let image = cut.image(&Cut { kept, tear: None, growth: Growth::AsWritten });
        let bytes = image.get(Path::new(PATH)).unwrap().to_vec();
        for slot in 0..(bytes.len() - 4096) / SLOT {
            let (mut damaged, mut image) = (bytes.clone(), image.clone());
            damaged[4096 + slot * SLOT + 1000] ^= 1;
            image.insert(PATH, damaged);
            let there = || settings(SimDisk::from_image(&image, 1));
            let report = zkv::verify(PATH, there(), |_| ()).unwrap();
            if report.worst == Some(Severity::Mendable) {
                let store = there().open(PATH).unwrap();
                assert!(store.iter_bytes().all(|pair| pair.is_ok()), "{number}, slot {slot}");
                told += 1;
            }
            image.remove(Path::new(INDEX));
            let opened = settings(SimDisk::from_image(&image, 1)).open(PATH);
            assert!(opened.is_ok() || !report.is_sound(), "{number}, slot {slot}: {report:?}");
        }
    }
    assert!(0 < told, "nothing was told");
}

#[test]
fn a_value_may_read_from_the_store_while_it_is_decoded() {
    static STORE: Mutex<Option<Store>> = Mutex::new(None);

    #[derive(Debug)]
    struct Sum(u32);

    impl<'de> Deserialize<'de> for Sum {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let own = u32::deserialize(deserializer)?;
            let store = STORE.lock().unwrap().clone().unwrap();
            Ok(Self(own + store.get::<_, u32>("b").unwrap().unwrap()))
        }
    }

    let memory = MemoryStorage::new();
    let store = options(&memory).max_parallel_reads(1).open(PATH).unwrap();
    store.set("a", &1u32).unwrap();
    store.set("b", &2u32).unwrap();
    store.flush().unwrap();
    *STORE.lock().unwrap() = Some(store.clone());
    let reading = thread::spawn(move || store.get::<_, Sum>("a").unwrap().unwrap().0);
    assert_eq!(reading.join().unwrap(), 3);
    *STORE.lock().unwrap() = None;
}
