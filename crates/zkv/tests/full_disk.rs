//! Space comes back on a disk that is full: files cannot grow, and what is within their length can be
//! written.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use zkv::{Cleaning, Error, ErrorKind, IndexState, Options, Store, WriteBatch, salvage, verify};
use zkv_io::Storage;
use zkv_sim::{Act, Image, SimDisk, Watched};

const PATH: &str = "store.zkv";
const SLOT: u32 = 256 << 10;

type Expected = BTreeMap<u64, Vec<u8>>;

fn options(disk: &SimDisk) -> Options {
    let options = Options::new().storage(Arc::new(disk.clone())).slot_bytes(SLOT);
    options.memory_buffer_bytes(64 << 10).cleaning(Cleaning::Off)
}

fn value(seed: u64) -> Vec<u8> {
    noise(seed, 400)
}

/// What hardly compresses.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    fastrand::Rng::with_seed(seed).fill(&mut noise);
    noise
}

/// 8,000 records in thirteen segments.
fn filled(disk: &SimDisk) -> (Store, Expected) {
    let store = options(disk).open(PATH).unwrap();
    let expected: Expected = (0..8_000).map(|key| (key, value(key))).collect();
    for (key, value) in &expected {
        store.set_bytes(&key.to_be_bytes(), value).unwrap();
    }
    store.flush().unwrap();
    (store, expected)
}

fn delete(store: &Store, expected: &mut Expected, is_gone: impl Fn(u64) -> bool) {
    let gone: Vec<u64> = expected.keys().copied().filter(|key| is_gone(*key)).collect();
    for key in gone {
        store.delete_bytes(&key.to_be_bytes()).unwrap();
        expected.remove(&key);
    }
    store.flush().unwrap();
}

fn fill_up(disk: &SimDisk) {
    disk.set_capacity(Some(disk.used_bytes()));
}

fn file_bytes(store: &Store) -> u64 {
    store.stats().unwrap().data_file_bytes
}

fn check(store: &Store, expected: &Expected) {
    assert_eq!(store.len(), expected.len() as u64);
    for (key, value) in expected {
        assert_eq!(store.get_bytes(&key.to_be_bytes()).unwrap().as_ref(), Some(value));
    }
    assert_eq!(store.verify(|_| {}).unwrap().findings, []);
}

/// As it is, opened again, and without its index.
fn check_on(store: Store, disk: &SimDisk, expected: &Expected) {
    check(&store, expected);
    store.close().unwrap();
    check(&options(disk).open(PATH).unwrap(), expected);
    check(&options(disk).use_index_file(false).open(PATH).unwrap(), expected);
    let report = verify(PATH, options(disk), |_| {}).unwrap();
    assert!(report.is_sound(), "{report:?}");
}

#[test]
fn free_slots_are_room_enough_on_a_full_disk() {
    let disk = SimDisk::from_image(&Image::new(), 1);
    let (store, mut expected) = filled(&disk);
    delete(&store, &mut expected, |key| key % 3 == 0);
    store.clean().unwrap();
    // What is written next would have gone there.
    assert!(store.stats().unwrap().free_bytes >= u64::from(SLOT));
    delete(&store, &mut expected, |key| key % 3 == 1);
    fill_up(&disk);
    let before = file_bytes(&store);
    store.clean().unwrap();
    assert!(file_bytes(&store) + u64::from(SLOT) <= before, "{} of {before}", file_bytes(&store));
    check(&store, &expected);
    disk.set_capacity(None);
    check_on(store, &disk, &expected);
}

#[test]
fn segments_without_anything_in_them_are_freed_on_a_full_disk() {
    for use_index_file in [true, false] {
        let disk = SimDisk::from_image(&Image::new(), 1);
        let (store, mut expected) = filled(&disk);
        store.close().unwrap();
        let store = options(&disk).use_index_file(use_index_file).open(PATH).unwrap();
        delete(&store, &mut expected, |key| (700..5_000).contains(&key));
        // Room for what says that they are free, and for no index beside the present one.
        disk.set_capacity(Some(disk.used_bytes() + 8192));
        let before = store.stats().unwrap();
        // What waits in a buffer finds no room, and does not stand in the way.
        store.set_bytes(&u64::MAX.to_be_bytes(), &noise(1, 20_000)).unwrap();
        expected.insert(u64::MAX, noise(1, 20_000));
        // What else there is to clean would lengthen the file, since its last segment is not full.
        let error = store.clean().unwrap_err();
        let Error::CleaningNeedsRoom { bytes, .. } = error else { panic!("{error}") };
        assert!(bytes < 2 * u64::from(SLOT), "{bytes}");
        let after = store.stats().unwrap();
        assert!(before.segments >= after.segments + 4, "{before:?} {after:?}");
        assert!(after.free_bytes >= 4 * u64::from(SLOT), "{after:?}");
        // The store's own index file does not lead there, should the process die now.
        let killed = SimDisk::from_image(&disk.image(), 1);
        let report = verify(PATH, options(&killed), |_| {}).unwrap();
        let state = if use_index_file { IndexState::Missing } else { IndexState::SetAside };
        assert_eq!(report.index, state, "{report:?}");
        disk.set_capacity(None);
        check_on(store, &disk, &expected);
    }
}

#[test]
fn where_cleaning_finds_no_room_it_says_how_much_is_enough_and_goes_on_with_it() {
    let ways: [fn(&Store) -> zkv::Result<()>; 2] = [Store::clean, |store| store.compact(|_| ())];
    for clean in ways {
        let disk = SimDisk::from_image(&Image::new(), 1);
        let (store, mut expected) = filled(&disk);
        delete(&store, &mut expected, |key| key % 5 < 3);
        // Without the room that was made ahead.
        store.close().unwrap();
        let store = options(&disk).open(PATH).unwrap();
        fill_up(&disk);
        let before = store.stats().unwrap().segments;
        let error = clean(&store).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        let Error::CleaningNeedsRoom { bytes, .. } = &error else { panic!("{error}") };
        let bytes = *bytes;
        assert!(error.to_string().contains(&format!("needs {bytes} bytes of room")), "{error}");
        assert!(bytes <= 4 * u64::from(SLOT), "{bytes}");
        check(&store, &expected);
        // A good deal less is too little.
        disk.set_capacity(Some(disk.used_bytes() + bytes / 16));
        assert!(clean(&store).is_err());
        check(&store, &expected);
        disk.set_capacity(Some(disk.used_bytes() + bytes));
        clean(&store).unwrap();
        let after = store.stats().unwrap().segments;
        assert!(after * 4 <= before * 3, "{after} of {before}");
        for key in 0..100 {
            store.set_bytes(&u64::to_be_bytes(key), &value(key + 1_000_000)).unwrap();
            expected.insert(key, value(key + 1_000_000));
        }
        store.flush().unwrap();
        disk.set_capacity(None);
        check_on(store, &disk, &expected);
    }
}

#[test]
fn cleaning_in_closing_takes_no_room_from_what_waits_in_buffers() {
    for room in (0..50u64).map(|number| number * 10_000) {
        let disk = SimDisk::from_image(&Image::new(), 1);
        let store = options(&disk).open(PATH).unwrap();
        for key in 0..400u64 {
            store.set_bytes(&key.to_be_bytes(), &noise(key, 4_000)).unwrap();
        }
        for key in (0..400u64).filter(|key| !key.is_multiple_of(5)) {
            store.set_bytes(&key.to_be_bytes(), &noise(key, 4)).unwrap();
        }
        store.close().unwrap();
        // What is kept where nothing is cleaned is kept where something is.
        let close = |cleaning| {
            let disk = SimDisk::from_image(&disk.image(), 1);
            disk.set_capacity(Some(disk.used_bytes() + room));
            let store = options(&disk).cleaning(cleaning).open(PATH).unwrap();
            store.set_bytes(b"new", &noise(9, 40_000)).unwrap();
            let _ = store.close();
            let store = options(&disk).open(PATH).unwrap();
            (store.contains_bytes(b"new").unwrap(), store.len())
        };
        assert_eq!(close(Cleaning::default()), close(Cleaning::Off), "{room} bytes of room");
    }
}

#[test]
fn a_batch_that_is_refused_takes_no_room_behind_it() {
    let disk = SimDisk::from_image(&Image::new(), 1);
    let store = options(&disk).open(PATH).unwrap();
    store.set_bytes(b"first", &noise(1, 400)).unwrap();
    store.sync().unwrap();
    let (before, used) = (file_bytes(&store), disk.used_bytes());
    disk.set_capacity(Some(used + 20 * u64::from(SLOT)));
    let mut batch = WriteBatch::new();
    for key in 0..8_000u64 {
        batch.set_bytes(&key.to_be_bytes(), &noise(key, 1_000));
    }
    assert_eq!(store.write(batch).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!((file_bytes(&store), disk.used_bytes()), (before, used));
    store.set_bytes(b"second", &noise(2, 400)).unwrap();
    store.sync().unwrap();
    let expected = [("first", 1), ("second", 2)];
    let check = |store: &Store| {
        assert_eq!(store.len(), 2);
        for (key, seed) in expected {
            assert_eq!(store.get_bytes(key.as_bytes()).unwrap(), Some(noise(seed, 400)));
        }
    };
    check(&store);
    store.close().unwrap();
    check(&options(&disk).open(PATH).unwrap());
}

/// More records than a rebuild of the index holds in memory.
#[test]
fn without_an_index_and_without_room_for_another_one_all_is_still_read() {
    const KEYS: u64 = 720_000;
    let disk = SimDisk::from_image(&Image::new(), 1);
    let store = options(&disk).open(PATH).unwrap();
    for key in 0..KEYS {
        store.set_bytes(&key.to_be_bytes(), &key.to_be_bytes()).unwrap();
    }
    store.close().unwrap();
    disk.remove(Path::new("store.zkv.idx")).unwrap();
    fill_up(&disk);
    let get = |store: &Store, key: u64| store.get_bytes(&key.to_be_bytes()).unwrap();
    let check = |store: Store| {
        assert_eq!(store.len(), KEYS);
        for key in (0..KEYS).step_by(1000) {
            assert_eq!(get(&store, key), Some(key.to_be_bytes().to_vec()));
        }
        assert_eq!(get(&store, KEYS), None);
        store
    };
    check(options(&disk).open_read_only(PATH).unwrap());
    let store = check(options(&disk).open(PATH).unwrap());
    // Its slot has room for a few more.
    assert!(store.delete_bytes(&7u64.to_be_bytes()).unwrap());
    disk.set_capacity(None);
    store.close().unwrap();
    let store = options(&disk).open_read_only(PATH).unwrap();
    assert_eq!((store.len(), get(&store, 7)), (KEYS - 1, None));
}

#[test]
fn a_backup_to_another_disk_needs_no_room_on_the_stores_own() {
    const COPY: &str = "other/copy.zkv";
    for is_cleaned in [false, true] {
        let disk = SimDisk::from_image(&Image::new(), 1);
        let (store, mut expected) = filled(&disk);
        store.close().unwrap();
        let is_full = Arc::new(AtomicBool::new(false));
        let of_disk = Arc::clone(&is_full);
        let storage = Watched::new(Arc::new(disk.clone()), move |act, path| {
            let is_refused = act == Act::Write && !path.starts_with("other");
            match is_refused && of_disk.load(Ordering::Relaxed) {
                true => Err(std::io::ErrorKind::StorageFull.into()),
                false => Ok(()),
            }
        });
        let store = options(&disk).storage(Arc::new(storage)).open(PATH).unwrap();
        if is_cleaned {
            delete(&store, &mut expected, |key| key < 3_000);
            store.clean().unwrap();
        }
        // Behind the index file.
        delete(&store, &mut expected, |key| key > 7_000);
        is_full.store(true, Ordering::Relaxed);
        store.backup(COPY).unwrap();
        check(&store, &expected);
        for use_index_file in [true, false] {
            let copy = options(&disk).use_index_file(use_index_file).open_read_only(COPY).unwrap();
            check(&copy, &expected);
        }
        assert!(verify(COPY, options(&disk), |_| {}).unwrap().is_sound());
    }
}

#[test]
fn a_copy_for_which_there_is_no_room_is_told_of_by_its_own_name_and_leaves_nothing() {
    const COPY: &str = "copy.zkv";
    let disk = SimDisk::from_image(&Image::new(), 1);
    let (store, _) = filled(&disk);
    store.close().unwrap();
    // The index file of the copy, or both files, have no room.
    for room in [0, disk.used_bytes() - 20_000] {
        disk.set_capacity(Some(disk.used_bytes() + room));
        let store = options(&disk).open_read_only(PATH).unwrap();
        let backed_up = store.backup_with(COPY, options(&disk)).unwrap_err();
        let salvaged = salvage(PATH, COPY, options(&disk), |_| {}).unwrap_err();
        for error in [backed_up, salvaged] {
            assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
            let text = error.to_string();
            assert!(
                ["copy.zkv: ", "copy.zkv.idx: "].iter().any(|name| text.starts_with(name)),
                "{text}"
            );
        }
        drop(store);
        let names = disk.list(zkv_io::parent_directory(Path::new(PATH))).unwrap();
        assert_eq!(names.len(), 2, "{names:?}");
    }
}
