//! What the store does when the disk refuses: nothing acknowledged is lost, and reading goes on.

mod common;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use zkv::{Cleaning, Durability, ErrorKind, Options, Store, WriteBatch, verify};
use zkv_io::{MemoryStorage, Storage, replace_atomically};
use zkv_sim::{Calls, Fault, Image, PowerCut, SimDisk, SyncFailure, WriteFailure};

use common::faulty::{
    Act, FaultyStorage, INDEX, PATH, disk_with_gate, disk_with_switch, killed, noise, options,
};

/// Everything in the store; no key may come twice.
fn contents(store: &Store) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in store.iter_bytes() {
        let (key, value) = entry.unwrap();
        assert_eq!(found.insert(key, value), None);
    }
    found
}

fn record(key: &[u8], value: &[u8]) -> (Vec<u8>, Vec<u8>) {
    (key.to_vec(), value.to_vec())
}

#[test]
fn a_write_during_close_is_refused_or_kept() {
    let memory = MemoryStorage::new();
    let (storage, gate) = disk_with_gate(&memory, Act::Sync);
    let store = storage.options().open(PATH).unwrap();
    store.set_bytes(b"a", b"1").unwrap();
    let other = store.clone();
    gate.close();
    let closing = thread::spawn(move || store.close());
    gate.wait_for_somebody();
    let written = other.set_bytes(b"b", b"2");
    gate.open();
    closing.join().unwrap().unwrap();
    drop(other);
    let store = options(&memory).open(PATH).unwrap();
    assert_eq!(store.contains_bytes(b"b").unwrap(), written.is_ok());
    assert_eq!(written.unwrap_err().kind(), ErrorKind::Misuse);
}

#[test]
fn a_close_that_cannot_write_can_be_tried_again() {
    let memory = MemoryStorage::new();
    let (storage, is_full) = disk_with_switch(&memory);
    let store = storage.options().open(PATH).unwrap();
    store.set_bytes(b"a", b"1").unwrap();
    is_full.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        assert_eq!(store.clone().close().unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(store.get_bytes(b"a").unwrap().unwrap(), b"1");
    }
    is_full.store(false, Ordering::SeqCst);
    store.set_bytes(b"b", b"2").unwrap();
    store.flush().unwrap();
    let other = store.clone();
    store.close().unwrap();
    assert_eq!(other.flush().unwrap_err().kind(), ErrorKind::Misuse);
    other.close().unwrap();
    let store = options(&memory).open(PATH).unwrap();
    assert_eq!(contents(&store), BTreeMap::from([record(b"a", b"1"), record(b"b", b"2")]));
}

#[test]
fn nothing_is_acknowledged_after_a_failed_sync() {
    let memory = MemoryStorage::new();
    let fails = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&fails);
    let storage = FaultyStorage::new(&memory, move |act, _| {
        let refuses = act == Act::Sync && switch.load(Ordering::SeqCst);
        if refuses { Err(io::Error::other("EIO")) } else { Ok(()) }
    });
    let store = storage.options().open(PATH).unwrap();
    store.set_bytes(b"a", b"1").unwrap();
    fails.store(true, Ordering::SeqCst);
    assert_eq!(store.sync().unwrap_err().kind(), ErrorKind::Io);
    fails.store(false, Ordering::SeqCst);
    assert_eq!(store.set_bytes(b"b", b"2").unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(store.delete_bytes(b"a").unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(contents(&store), BTreeMap::from([record(b"a", b"1")]));
}

#[test]
fn iteration_reads_what_cannot_be_written() {
    let memory = MemoryStorage::new();
    let (storage, is_full) = disk_with_switch(&memory);
    let interval = Duration::from_secs(3600);
    let store = storage.options().flush_interval(interval).open(PATH).unwrap();
    for key in [b"a", b"b", b"c"] {
        store.set_bytes(key, b"old").unwrap();
    }
    store.flush().unwrap();
    is_full.store(true, Ordering::SeqCst);
    store.set_bytes(b"a", b"newer").unwrap();
    store.flush().unwrap_err();
    store.set_bytes(b"a", b"newest").unwrap();
    store.set_bytes(b"d", b"new").unwrap();
    assert!(store.delete_bytes(b"b").unwrap());
    let expected =
        BTreeMap::from([record(b"a", b"newest"), record(b"c", b"old"), record(b"d", b"new")]);
    let iteration = store.iter_bytes();
    store.set_bytes(b"e", b"later").unwrap();
    assert_eq!(iteration.map(Result::unwrap).collect::<BTreeMap<_, _>>(), expected);
    assert!(store.delete_bytes(b"e").unwrap());
    is_full.store(false, Ordering::SeqCst);
    assert_eq!(contents(&store), expected);
    let other = store.clone();
    store.close().unwrap();
    assert_eq!(contents(&other), expected);
}

#[test]
fn buffers_do_not_pile_up_on_a_full_disk() {
    let memory = MemoryStorage::new();
    let (storage, is_full) = disk_with_switch(&memory);
    let interval = Duration::from_secs(3600);
    let small = storage.options().memory_buffer_bytes(64 << 10).flush_interval(interval);
    let store = small.open(PATH).unwrap();
    is_full.store(true, Ordering::SeqCst);
    let mut written = 0u64;
    while store.set_bytes(&written.to_le_bytes(), &[7; 1024]).is_ok() {
        written += 1;
        assert!(written < 5 * 64, "five buffers would be full");
        store.flush().unwrap_err();
        assert_eq!(store.iter_bytes().map(Result::unwrap).count() as u64, written);
    }
    is_full.store(false, Ordering::SeqCst);
    assert_eq!(contents(&store).len() as u64, written);
    store.close().unwrap();
    assert_eq!(contents(&options(&memory).open(PATH).unwrap()).len() as u64, written);
}

#[test]
fn a_failing_checkpoint_is_not_attempted_at_each_commit() {
    let memory = MemoryStorage::new();
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    let storage = FaultyStorage::new(&memory, move |_, path| {
        if path.to_str().unwrap().contains(".idx") {
            counted.fetch_add(1, Ordering::SeqCst);
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    });
    let store = storage.options().durability(Durability::Flushed).open(PATH).unwrap();
    store.set_bytes(b"large", &noise(1, 65 << 20)).unwrap();
    let before = attempts.load(Ordering::SeqCst);
    assert!(before > 0);
    for number in 0..10u64 {
        store.set_bytes(&number.to_le_bytes(), b"small").unwrap();
    }
    assert_eq!(attempts.load(Ordering::SeqCst), before);
    assert_eq!(store.close().unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(options(&memory).open(PATH).unwrap().len(), 11);
}

#[test]
fn what_an_opening_replays_counts_towards_the_next_checkpoint() {
    let memory = MemoryStorage::new();
    let first = options(&memory).durability(Durability::Flushed).open(PATH).unwrap();
    first.set_bytes(b"small", b"value").unwrap();
    first.clone().close().unwrap();
    drop(first);
    let first = options(&memory).durability(Durability::Flushed).open(PATH).unwrap();
    let has_index = |memory: &MemoryStorage| {
        memory.list(Path::new("dir")).unwrap().iter().any(|path| path == Path::new(INDEX))
    };
    assert!(has_index(&memory));
    first.set_bytes(b"large", &noise(1, 40 << 20)).unwrap();
    let rest = killed(&memory);
    let checkpoint = common::faulty::read_file(&rest, INDEX);
    let second = options(&rest).durability(Durability::Flushed).open(PATH).unwrap();
    second.set_bytes(b"larger", &noise(2, 30 << 20)).unwrap();
    assert_ne!(common::faulty::read_file(&rest, INDEX), checkpoint);
}

#[test]
fn a_store_without_an_index_opens_on_a_full_disk() {
    let memory = MemoryStorage::new();
    let store = options(&memory).open(PATH).unwrap();
    store.set_bytes(b"a", b"1").unwrap();
    store.set_bytes(b"large", &noise(1, 2 << 20)).unwrap();
    store.close().unwrap();
    memory.remove(Path::new(INDEX)).unwrap();
    let (storage, is_full) = disk_with_switch(&memory);
    is_full.store(true, Ordering::SeqCst);
    let store = storage.options().open(PATH).unwrap();
    let mut expected = BTreeMap::from([record(b"a", b"1"), record(b"large", &noise(1, 2 << 20))]);
    assert_eq!(contents(&store), expected);
    is_full.store(false, Ordering::SeqCst);
    store.set_bytes(b"b", b"2").unwrap();
    expected.extend([record(b"b", b"2")]);
    assert_eq!((contents(&store), store.len()), (expected.clone(), 3));
    store.close().unwrap();
    let store = options(&memory).open_read_only(PATH).unwrap();
    assert_eq!((contents(&store), store.len()), (expected, 3));
    assert!(store.stats().unwrap().index_file_bytes > 0);
}

#[test]
fn a_key_is_counted_once_that_is_overwritten_while_a_large_value_of_it_is_written() {
    let memory = MemoryStorage::new();
    let (storage, gate) = disk_with_gate(&memory, Act::Write);
    let interval = Duration::from_secs(3600);
    let store = storage.options().flush_interval(interval).open(PATH).unwrap();
    store.set_bytes(b"other", b"1").unwrap();
    store.flush().unwrap();
    gate.close();
    let large = store.clone();
    let writing = thread::spawn(move || large.set_bytes(b"key", &noise(1, 2 << 20)));
    gate.wait_for_somebody();
    // Others are not kept from writing; whoever writes to the same key comes after.
    store.set_bytes(b"another", b"2").unwrap();
    assert_eq!((store.get_bytes(b"key").unwrap(), store.len()), (None, 2));
    let small = store.clone();
    let overwriting = thread::spawn(move || small.set_bytes(b"key", b"small"));
    gate.open();
    writing.join().unwrap().unwrap();
    overwriting.join().unwrap().unwrap();
    let found = store.get_bytes(b"key").unwrap().unwrap();
    assert!(found == b"small" || found == noise(1, 2 << 20));
    for _ in 0..2 {
        assert_eq!(store.len(), 3);
        store.flush().unwrap();
    }
    assert_eq!(contents(&store).len(), 3);
}

#[test]
fn what_was_seen_before_an_acknowledged_commit_survives_with_it() {
    let memory = MemoryStorage::new();
    let (storage, gate) = disk_with_gate(&memory, Act::Write);
    let interval = Duration::from_secs(3600);
    let store = storage.options().flush_interval(interval).open(PATH).unwrap();
    gate.close();
    let mut batch = WriteBatch::new();
    batch.set_bytes(b"second", b"2");
    let of_batch = store.clone();
    let writing = thread::spawn(move || of_batch.write_with(batch, Durability::Flushed));
    gate.wait_for_somebody();
    store.set_bytes(b"first", b"1").unwrap();
    assert_eq!(contents(&store), BTreeMap::from([record(b"first", b"1")]));
    gate.open();
    writing.join().unwrap().unwrap();
    let found = contents(&options(&killed(&memory)).open(PATH).unwrap());
    assert_eq!(found, BTreeMap::from([record(b"first", b"1"), record(b"second", b"2")]));
}

#[test]
fn a_read_that_fails_while_a_store_is_opened_spoils_no_count() {
    let disk = SimDisk::from_image(&Image::new(), 1);
    let options = |disk: &SimDisk| {
        Options::new().storage(Arc::new(disk.clone())).durability(Durability::Flushed)
    };
    let store = options(&disk).open(PATH).unwrap();
    store.set_bytes(b"a", &[1; 100]).unwrap();
    store.sync().unwrap();
    store.rebuild_index().unwrap();
    // Behind the index file: replayed by whoever opens the store.
    for bytes in [200, 300, 400] {
        store.set_bytes(b"a", &vec![2; bytes]).unwrap();
    }
    let image = disk.kill().image();
    drop(store);
    for number in 1.. {
        let disk = SimDisk::from_image(&image, 1);
        let (calls, error) = (Calls::Reads, io::ErrorKind::Other);
        let (write, sync) = (WriteFailure::Nothing, SyncFailure::CacheNew);
        disk.set_fault(Some(Fault { calls, number, lasts: false, error, write, sync }));
        let opened = options(&disk).open(PATH);
        if disk.counted_calls() < number {
            break;
        }
        if let Ok(store) = opened {
            assert_eq!(store.stats().unwrap().raw_bytes, 1 + 400, "the read {number}");
        }
    }
}

/// The files of a store that a backup was put in the place of, and the index of what came behind the
/// backup. The log of the backup ends with a value of so many bytes.
fn restored_beside_later_index(options: impl Fn(&SimDisk) -> Options, bytes: usize) -> Image {
    let disk = SimDisk::from_image(&Image::new(), 1);
    let store = options(&disk).open(PATH).unwrap();
    store.set_bytes(b"a", &noise(1, bytes)).unwrap();
    store.backup("dir/backup.zkv").unwrap();
    // So many that closing does not leave them to the next opening.
    for number in 0..100u8 {
        store.set_bytes(&[number], &noise(2, 900)).unwrap();
    }
    store.close().unwrap();
    let image = disk.image();
    let backup = image.get(Path::new("dir/backup.zkv")).unwrap();
    replace_atomically(&disk, Path::new(PATH), |file| file.write_at(0, backup)).unwrap();
    disk.image()
}

/// Shows `check` each store that a power cut may leave of what was done on `disk`, which began with `image`.
fn open_what_cuts_leave(image: &Image, disk: &SimDisk, check: impl Fn(&Store, &str)) {
    let (mut cut, mut random) = (PowerCut::from_image(image), fastrand::Rng::with_seed(1));
    for event in disk.events(0) {
        let is_new = cut.follow(&event);
        for way in cut.cuts(is_new, 40, &mut random) {
            let what = format!("{event}, {way:?}");
            let left = Arc::new(SimDisk::from_image(&cut.image(&way), 3));
            let opened = Options::new().storage(left).open(PATH);
            check(&opened.unwrap_or_else(|error| panic!("{what}: {error}")), &what);
        }
    }
}

#[test]
fn a_power_cut_while_a_backup_is_opened_beside_a_later_index_loses_nothing() {
    let options = |disk: &SimDisk| Options::new().storage(Arc::new(disk.clone()));
    // What opening appends crosses the border of a sector behind one of these values, and is torn.
    for bytes in (0..512).step_by(40) {
        let image = restored_beside_later_index(options, bytes);
        let disk = SimDisk::recording_from(&image, 2);
        drop(options(&disk).open(PATH).unwrap());
        open_what_cuts_leave(&image, &disk, |store, what| {
            let expected = record(b"a", &noise(1, bytes));
            assert_eq!(contents(store), [expected].into(), "{what}");
        });
    }
}

#[test]
fn a_later_index_that_was_not_used_for_once_calls_no_torn_write_damage() {
    let options = |disk: &SimDisk| Options::new().storage(Arc::new(disk.clone()));
    let image = restored_beside_later_index(options, 100);
    let disk = SimDisk::recording_from(&image, 2);
    let store = options(&disk).use_index_file(false).open(PATH).unwrap();
    store.set_bytes(b"c", &noise(3, 9_000)).unwrap();
    store.flush().unwrap();
    drop(store);
    open_what_cuts_leave(&image, &disk, |store, what| {
        assert_eq!(store.get_bytes(b"a").unwrap(), Some(noise(1, 100)), "{what}");
    });
}

#[test]
fn a_backup_that_fails_leaves_nothing_and_may_be_tried_again() {
    const COPY: &str = "dir/backup.zkv";
    let mut left_count = 0;
    for number in 1..100 {
        let disk = SimDisk::from_image(&Image::new(), 1);
        let store = Options::new().storage(Arc::new(disk.clone())).open(PATH).unwrap();
        store.set_bytes(b"a", b"1").unwrap();
        store.sync().unwrap();
        // Without room in its own folder, a backup goes on.
        let (calls, error) = (Calls::Changes, io::ErrorKind::Other);
        let (write, sync) = (WriteFailure::Half, SyncFailure::CacheNew);
        disk.set_fault(Some(Fault { calls, number, lasts: false, error, write, sync }));
        let backed_up = store.backup(COPY);
        disk.set_fault(None);
        if backed_up.is_ok() {
            assert!(number > 5, "a backup takes several calls");
            assert!(left_count <= 1, "only where the folder cannot be synced");
            assert_eq!(store.backup(COPY).unwrap_err().kind(), ErrorKind::AlreadyExists);
            return;
        }
        let left = disk.list(Path::new("dir")).unwrap();
        let is_copy = |path: &&PathBuf| path.to_string_lossy().starts_with(COPY);
        match left.iter().filter(is_copy).count() {
            0 => {}
            // It is whole, with its index, and may be gone behind a power cut.
            2 => {
                left_count += 1;
                let copy = Options::new().storage(Arc::new(disk.clone())).open_read_only(COPY);
                assert_eq!(copy.unwrap().get_bytes(b"a").unwrap().unwrap(), b"1");
                continue;
            }
            _ => panic!("behind call {number}: {left:?}"),
        }
        // Where a sync of its own file has failed, the store refuses.
        if store.sync().is_ok() {
            store.backup(COPY).unwrap();
        }
    }
    panic!("a backup takes no hundred calls");
}

#[test]
fn what_the_sync_of_the_making_has_lost_without_a_word_is_written_again() {
    // By the seed, it loses one page, the other, both or none.
    for seed in 1..=8 {
        let disk = SimDisk::recording(seed);
        let options = || Options::new().storage(Arc::new(disk.clone()));
        let (write, sync) = (WriteFailure::Half, SyncFailure::ToldLate);
        let (calls, error) = (Calls::Syncs, io::ErrorKind::Other);
        disk.set_fault(Some(Fault { calls, number: 1, lasts: false, error, write, sync }));
        let store = options().open(PATH).unwrap();
        store.set_bytes(b"a", b"1").unwrap();
        store.flush().unwrap();
        // It is told of now.
        assert!(store.sync().is_err());
        drop(store);
        let store = options().open(PATH).unwrap();
        store.set_bytes(b"b", b"2").unwrap();
        store.sync().unwrap();
        let mut cut = PowerCut::new();
        for event in disk.events(0) {
            cut.follow(&event);
        }
        for way in cut.cuts(false, 40, &mut fastrand::Rng::with_seed(1)) {
            let left = SimDisk::from_image(&cut.image(&way), 1);
            let left = Options::new().storage(Arc::new(left));
            let report = verify(PATH, left.clone(), |_| {}).unwrap();
            assert_eq!(report.findings, [], "{seed}, {way:?}");
            let left = left.open(PATH).unwrap();
            let written = [record(b"a", b"1"), record(b"b", b"2")];
            assert_eq!(contents(&left), written.into(), "{seed}, {way:?}");
        }
    }
}

#[test]
fn what_is_synced_survives_where_making_the_store_has_failed_before() {
    for number in 1.. {
        let disk = SimDisk::recording(1);
        let options = || Options::new().storage(Arc::new(disk.clone()));
        let (calls, error) = (Calls::Changes, io::ErrorKind::Other);
        let (write, sync) = (WriteFailure::Half, SyncFailure::CacheNew);
        disk.set_fault(Some(Fault { calls, number, lasts: false, error, write, sync }));
        let has_failed = options().open(PATH).is_err();
        disk.set_fault(None);
        let store = options().durability(Durability::Synced).open(PATH).unwrap();
        store.set_bytes(b"a", b"1").unwrap();
        let mut cut = PowerCut::new();
        for event in disk.events(0) {
            cut.follow(&event);
        }
        for way in cut.cuts(false, 40, &mut fastrand::Rng::with_seed(1)) {
            let left = SimDisk::from_image(&cut.image(&way), 1);
            let left = Options::new().storage(Arc::new(left)).create(false).open(PATH);
            let left = left.unwrap_or_else(|error| panic!("the call {number}, {way:?}: {error}"));
            assert_eq!(contents(&left), [record(b"a", b"1")].into(), "the call {number}, {way:?}");
        }
        if !has_failed {
            assert!(number > 3, "making a store takes several calls");
            break;
        }
    }
}

#[test]
fn an_index_that_is_made_anew_between_moving_and_freeing_leads_into_no_freed_segment() {
    let options = |disk: &SimDisk| {
        let options = Options::new().storage(Arc::new(disk.clone()));
        options.slot_bytes(256 << 10).cleaning(Cleaning::Off)
    };
    let disk = SimDisk::from_image(&Image::new(), 1);
    let store = options(&disk).open(PATH).unwrap();
    let dropped = store.collection::<u64, Vec<u8>>("dropped").unwrap();
    for number in 0..20 {
        dropped.set(&number, &noise(number, 40_000)).unwrap();
        store.set_bytes(&number.to_be_bytes(), &noise(number, 4_000)).unwrap();
    }
    drop(dropped);
    store.drop_collection("dropped").unwrap();
    store.close().unwrap();
    let image = disk.image();
    let mut failed = 0;
    for number in 1.. {
        let disk = SimDisk::from_image(&image, 1);
        let store = options(&disk).open(PATH).unwrap();
        let (calls, error) = (Calls::Changes, io::ErrorKind::StorageFull);
        let (write, sync) = (WriteFailure::Half, SyncFailure::CacheNew);
        disk.set_fault(Some(Fault { calls, number, lasts: false, error, write, sync }));
        failed += usize::from(store.clean().is_err());
        if disk.counted_calls() < number {
            break;
        }
        disk.set_fault(None);
        // Where a sync has failed, it refuses.
        if store.rebuild_index().is_err() {
            continue;
        }
        let unfinished = store.verify(|_| {}).unwrap();
        assert_eq!(unfinished.findings, [], "the call {number}");
        store.clean().unwrap();
        let verified = store.verify(|_| {}).unwrap();
        assert_eq!(verified.findings, [], "the call {number}, cleaned");
    }
    assert!(failed > 10, "{failed}");
}
