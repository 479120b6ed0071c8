//! Space that overwritten and deleted records take comes back.

#[path = "../common/mod.rs"]
mod common;
mod compaction;
mod loose;
mod unclosed;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use zkv::{Cleaning, CompactProgress, ErrorKind, Options, Store, WriteBatch, verify};
use zkv_io::{MemoryStorage, OpenMode, Storage};
use zkv_log::{Access, LogOptions, OpenFile};

use common::in_time;

const PATH: &str = "store.zkv";
const SLOT: u32 = 256 << 10;

fn options(storage: &MemoryStorage) -> Options {
    Options::new().storage(Arc::new(storage.clone())).slot_bytes(SLOT).memory_buffer_bytes(64 << 10)
}

fn open(storage: &MemoryStorage) -> Store {
    options(storage).open(PATH).unwrap()
}

/// A value that hardly compresses.
fn value(seed: u64) -> Vec<u8> {
    noise(seed, 400)
}

fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn check(store: &Store, expected: &HashMap<Vec<u8>, Vec<u8>>) {
    assert_eq!(store.len(), expected.len() as u64);
    for (key, value) in expected {
        assert_eq!(store.get_bytes(key).unwrap().as_ref(), Some(value));
    }
    let all: HashMap<Vec<u8>, Vec<u8>> = store.iter_bytes().map(Result::unwrap).collect();
    assert!(all == *expected, "the iteration yields something else");
}

#[test]
fn a_store_that_is_overwritten_over_and_over_stays_near_the_size_of_what_it_holds() {
    let storage = MemoryStorage::new();
    let store = open(&storage);
    let mut random = fastrand::Rng::with_seed(1);
    let mut expected = HashMap::new();
    for number in 0..60_000u64 {
        let key = random.u32(..8_000).to_be_bytes().to_vec();
        store.set_bytes(&key, &value(number)).unwrap();
        expected.insert(key, value(number));
    }
    store.flush().unwrap();
    let is_clean = || {
        let stats = store.stats().unwrap();
        stats.data_file_bytes <= stats.live_bytes * 3 / 2 + 2 * u64::from(SLOT)
    };
    wait_until("the file stays too long", is_clean);
    let stats = store.stats().unwrap();
    assert!(stats.cleaning.segments > 50, "{stats:?}");
    assert!(stats.write_amplification() < 4.0, "{stats:?}");
    check(&store, &expected);
    store.close().unwrap();
    for use_index_file in [true, false] {
        let store = options(&storage).use_index_file(use_index_file).open(PATH).unwrap();
        check(&store, &expected);
        store.close().unwrap();
    }
    let report = verify(PATH, options(&storage), |_| {}).unwrap();
    assert!(report.is_sound(), "{report:?}");
}

#[test]
fn batches_of_many_buffers_wait_for_the_cleaning_as_their_records_would() {
    let storage = MemoryStorage::new();
    let store = open(&storage);
    let mut random = fastrand::Rng::with_seed(2);
    let batches = (0..24).map(|_| {
        let mut batch = WriteBatch::new();
        for _ in 0..12_500 {
            batch.set_bytes(&random.u32(..20_000).to_be_bytes(), &value(random.u64(..)));
        }
        batch
    });
    let batches: Vec<_> = batches.collect();
    let mut longest = 0;
    for batch in batches {
        store.write(batch).unwrap();
        longest = longest.max(file_bytes(&store));
    }
    let live = store.stats().unwrap().live_bytes;
    // Half as much as is live may be dead, and a batch of less than five megabytes has been written since.
    assert!(longest < live * 17 / 8, "{longest} bytes for {live}");
}

#[test]
fn programs_that_open_a_store_write_once_and_close_it_give_space_back() {
    let storage = MemoryStorage::new();
    let mut largest = 0;
    for number in 0..200 {
        let store = open(&storage);
        store.set_bytes(b"key", &noise(number, 30_000)).unwrap();
        store.set_bytes(&number.to_be_bytes(), b"small").unwrap();
        largest = file_bytes(&store).max(largest);
        store.close().unwrap();
    }
    // 6 MB were written.
    assert!(largest < 8 * u64::from(SLOT), "{largest} bytes");
    let store = open(&storage);
    assert_eq!(store.get_bytes(b"key").unwrap().unwrap(), noise(199, 30_000));
    assert_eq!(store.len(), 201);
}

#[test]
fn a_queue_of_which_each_session_is_short_stays_small() {
    const SESSION: u64 = 1_500;
    let storage = MemoryStorage::new();
    let key = |number: u64| format!("a somewhat longer key of the queue {number:012}");
    let mut largest = 0;
    for session in 0..40 {
        let store = open(&storage);
        let mut batch = WriteBatch::new();
        for number in session * SESSION..(session + 1) * SESSION {
            batch.set_bytes(key(number).as_bytes(), &value(number));
            if let Some(done) = number.checked_sub(SESSION) {
                batch.delete_bytes(key(done).as_bytes());
            }
        }
        store.write(batch).unwrap();
        largest = file_bytes(&store).max(largest);
        store.close().unwrap();
    }
    // What lives takes four slots; 25 MB were written.
    assert!(largest < 16 * u64::from(SLOT), "{largest} bytes");
    assert_eq!(open(&storage).len(), SESSION);
}

fn no_progress(_: CompactProgress) {}

fn file_bytes(store: &Store) -> u64 {
    store.stats().unwrap().data_file_bytes
}

fn fill(store: &Store, keys: std::ops::Range<u64>) -> HashMap<Vec<u8>, Vec<u8>> {
    let entries = keys.map(|key| (key.to_be_bytes().to_vec(), value(key)));
    let entries: HashMap<Vec<u8>, Vec<u8>> = entries.collect();
    for (key, value) in &entries {
        store.set_bytes(key, value).unwrap();
    }
    entries
}

#[test]
fn a_store_of_which_all_is_deleted_becomes_small_by_itself_and_by_compaction() {
    for is_automatic in [true, false] {
        let storage = MemoryStorage::new();
        let cleaning = if is_automatic { Cleaning::default() } else { Cleaning::Off };
        let store = options(&storage).cleaning(cleaning).open(PATH).unwrap();
        for key in fill(&store, 0..8_000).into_keys() {
            assert!(store.delete_bytes(&key).unwrap());
        }
        store.flush().unwrap();
        if !is_automatic {
            assert!(file_bytes(&store) > 2 << 20);
            store.compact(no_progress).unwrap();
        }
        wait_until("the file stays too long", || file_bytes(&store) < 64 << 10);
        assert_eq!((store.len(), store.iter_bytes().count()), (0, 0));
        store.close().unwrap();
        let store = options(&storage).use_index_file(false).open(PATH).unwrap();
        assert_eq!((store.len(), store.iter_bytes().count()), (0, 0));
    }
}

#[test]
fn a_segment_of_which_all_is_dead_is_given_back_although_it_is_not_full() {
    let storage = MemoryStorage::new();
    let store = options(&storage).cleaning(Cleaning::Off).open(PATH).unwrap();
    for count in [500, 50] {
        let written = fill(&store, 0..count);
        store.clean().unwrap();
        for key in written.into_keys() {
            assert!(store.delete_bytes(&key).unwrap());
        }
        store.flush().unwrap();
        assert_eq!(store.stats().unwrap().segments, 1);
        assert!(file_bytes(&store) > count * 400);
        store.clean().unwrap();
        // What is not worth a sync stays, also however often somebody cleans.
        let is_given_back = file_bytes(&store) <= 8 << 10;
        assert_eq!(is_given_back, count * 400 > u64::from(SLOT) / 8, "{count}");
        let before = (file_bytes(&store), store.stats().unwrap().written_bytes);
        store.clean().unwrap();
        assert_eq!((file_bytes(&store), store.stats().unwrap().written_bytes), before);
    }
    assert_eq!((store.len(), store.iter_bytes().count()), (0, 0));
    store.close().unwrap();
    assert!(verify(PATH, options(&storage), |_| {}).unwrap().is_sound());
}

#[test]
fn a_store_that_deletes_for_ever_does_not_pile_up_marks() {
    let storage = MemoryStorage::new();
    let store = open(&storage);
    let kept = fill(&store, 1_000_000..1_002_000);
    for round in 0..60u64 {
        for key in fill(&store, round * 500..round * 500 + 500).into_keys() {
            store.delete_bytes(&key).unwrap();
        }
        store.clean().unwrap();
    }
    let stats = store.stats().unwrap();
    assert!(stats.cleaning.marks_dropped > 20_000, "{stats:?}");
    assert!(stats.data_file_bytes <= stats.live_bytes * 3 / 2 + 3 * u64::from(SLOT), "{stats:?}");
    check(&store, &kept);
    store.close().unwrap();
    check(&options(&storage).use_index_file(false).open(PATH).unwrap(), &kept);
}

#[test]
fn what_a_dropped_collection_held_comes_back() {
    let storage = MemoryStorage::new();
    let store = options(&storage).cleaning(Cleaning::Off).open(PATH).unwrap();
    let kept = fill(&store, 0..500);
    let pages = store.collection::<u64, Vec<u8>>("pages").unwrap();
    for number in 0..6_000 {
        pages.set(&number, &value(number)).unwrap();
    }
    drop(pages);
    store.drop_collection("pages").unwrap();
    store.clean().unwrap();
    assert!(file_bytes(&store) < 1 << 20, "{:?}", store.stats());
    check(&store, &kept);
    store.close().unwrap();
    let report = verify(PATH, options(&storage), |_| {}).unwrap();
    assert!(report.is_sound(), "{report:?}");
    check(&open(&storage), &kept);
}

#[test]
fn long_values_move_whole() {
    let storage = MemoryStorage::new();
    let store = options(&storage).cleaning(Cleaning::Off).open(PATH).unwrap();
    let long = |seed: u64| noise(seed, 300_000);
    for number in 0..20u64 {
        store.set_bytes(&(number % 4).to_be_bytes(), &long(number)).unwrap();
    }
    store.delete_bytes(&0u64.to_be_bytes()).unwrap();
    store.compact(no_progress).unwrap();
    let expected: HashMap<Vec<u8>, Vec<u8>> =
        (17..20u64).map(|number| ((number % 4).to_be_bytes().to_vec(), long(number))).collect();
    check(&store, &expected);
    assert!(file_bytes(&store) < 5 * u64::from(SLOT), "{}", file_bytes(&store));
    store.close().unwrap();
    check(&options(&storage).use_index_file(false).open(PATH).unwrap(), &expected);
}

#[test]
fn what_has_a_block_of_its_own_moves_as_it_was_compressed_until_it_is_compacted() {
    let storage = MemoryStorage::new();
    // Words that any level finds, and level 9 finds more of.
    let text = |seed: u64| {
        let mut random = fastrand::Rng::with_seed(seed);
        let words =
            (0..400).map(|_| format!("{:x} ", random.u32(..64).wrapping_mul(2_654_435_761)));
        words.collect::<String>().into_bytes()
    };
    let store = options(&storage).compression_level(-5).cleaning(Cleaning::Off).open(PATH).unwrap();
    for number in 0..2_000u64 {
        store.set_bytes(&number.to_be_bytes(), &text(number)).unwrap();
    }
    let before = store.stats().unwrap();
    let mut expected = HashMap::new();
    for number in 0..2_000u64 {
        match number % 3 {
            0 => drop(expected.insert(number.to_be_bytes().to_vec(), text(number))),
            _ => assert!(store.delete_bytes(&number.to_be_bytes()).unwrap()),
        }
    }
    store.close().unwrap();
    let better = options(&storage).compression_level(9).cleaning(Cleaning::Off);
    let store = better.clone().open(PATH).unwrap();
    store.clean().unwrap();
    let cleaned = store.stats().unwrap();
    assert!(cleaned.cleaning.moved_records > 400, "{cleaned:?}");
    let (third, moved) = (before.live_bytes / 3, cleaned.live_bytes);
    assert!(moved > third * 9 / 10, "{moved} of {third}");
    check(&store, &expected);
    store.compact(no_progress).unwrap();
    let compacted = store.stats().unwrap().live_bytes;
    assert!(compacted < moved * 9 / 10, "{compacted} of {moved}");
    check(&store, &expected);
    store.close().unwrap();
    check(&better.use_index_file(false).open(PATH).unwrap(), &expected);
}

#[test]
fn of_a_dropped_value_that_is_half_gone_nothing_is_said_to_be_missing() {
    let storage = MemoryStorage::new();
    let store = options(&storage).cleaning(Cleaning::Off).open(PATH).unwrap();
    let pages = store.collection::<u64, Vec<u8>>("pages").unwrap();
    pages.set(&1, &noise(1, 300_000)).unwrap();
    drop(pages);
    // What stands behind the value's end keeps that segment.
    let kept = fill(&store, 0..400);
    store.drop_collection("pages").unwrap();
    store.clean().unwrap();
    assert_eq!(store.stats().unwrap().cleaning.segments, 1);
    assert_eq!(store.verify(|_| {}).unwrap().findings, []);
    store.close().unwrap();
    assert_eq!(verify(PATH, options(&storage), |_| {}).unwrap().findings, []);
    check(&open(&storage), &kept);
}

#[test]
fn of_a_key_that_was_deleted_over_and_over_one_mark_moves() {
    let storage = MemoryStorage::new();
    let store = options(&storage).cleaning(Cleaning::Off).open(PATH).unwrap();
    // What is alive in front keeps all marks needed.
    let mut kept = fill(&store, 1_000_000..1_000_700);
    for round in 0..3 {
        store.set_bytes(b"key", b"value").unwrap();
        store.flush().unwrap();
        assert!(store.delete_bytes(b"key").unwrap());
        // So that no two marks stand in one cell.
        kept.extend(fill(&store, round..round + 10));
        store.flush().unwrap();
    }
    for _ in 0..4 {
        kept.extend(fill(&store, 0..700));
    }
    store.clean().unwrap();
    let cleaning = store.stats().unwrap().cleaning;
    assert!(cleaning.segments > 1 && cleaning.marks_dropped == 2, "{cleaning:?}");
    assert_eq!(store.verify(|_| {}).unwrap().findings, []);
    store.close().unwrap();
    for use_index_file in [true, false] {
        check(&options(&storage).use_index_file(use_index_file).open(PATH).unwrap(), &kept);
    }
}

#[test]
fn a_segment_that_cannot_be_read_is_left_alone() {
    let storage = MemoryStorage::new();
    let store = options(&storage).cleaning(Cleaning::Off).open(PATH).unwrap();
    fill(&store, 0..6_000);
    store.close().unwrap();
    let file = storage.open(Path::new(PATH), OpenMode::ReadWrite).unwrap();
    file.write_at(4096 + u64::from(SLOT) / 2, &[0; 64]).unwrap();
    drop(file);
    let store = open(&storage);
    for key in 0..6_000u64 {
        // Some of them lie in the damaged block.
        let _ = store.delete_bytes(&key.to_be_bytes());
    }
    fill(&store, 10_000..14_000);
    assert_eq!(store.compact(no_progress).unwrap_err().kind(), ErrorKind::Corrupt);
    store.clean().unwrap();
    assert!(store.stats().unwrap().cleaning.segments > 3);
    let report = store.verify(|_| {}).unwrap();
    assert_eq!(report.worst, Some(zkv::Severity::Loss), "the damage is there to be found");
}

#[test]
fn a_damaged_index_does_not_keep_a_store_from_being_cleaned() {
    let storage = MemoryStorage::new();
    // Nothing but what is tested writes the buffer.
    let options = || {
        let options = options(&storage).cleaning(Cleaning::Off);
        options.flush_interval(Duration::from_secs(3600))
    };
    let mut expected = fill(&options().open(PATH).unwrap(), 0..6_000);
    for is_compaction in [false, true] {
        let store = options().open(PATH).unwrap();
        let index = storage.open(Path::new("store.zkv.idx"), OpenMode::ReadWrite).unwrap();
        index
            .write_at(4096, &vec![0x55; usize::try_from(index.len().unwrap()).unwrap() / 2])
            .unwrap();
        expected.extend(fill(&store, 5_990..6_010));
        in_time(
            &store,
            move |store| {
                if is_compaction { store.compact(no_progress) } else { store.clean() }
            },
        );
        check(&store, &expected);
        store.close().unwrap();
    }
}

#[test]
fn a_backup_of_a_store_that_was_cleaned_opens_without_its_index() {
    let storage = MemoryStorage::new();
    let store = open(&storage);
    let mut expected = fill(&store, 0..3000);
    for round in 0..12u64 {
        for number in (0..3000u64).filter(|number| number % 3 == round % 3) {
            let key = number.to_be_bytes().to_vec();
            let value = value(round << 32 | number);
            store.set_bytes(&key, &value).unwrap();
            expected.insert(key, value);
        }
        store.clean().unwrap();
        let path = format!("copy-{round}.zkv");
        store.backup(&path).unwrap();
        // As where the backup was killed before it had copied the index.
        storage.remove(Path::new(&format!("{path}.idx"))).unwrap();
        let copy = options(&storage).open_read_only(&path);
        check(&copy.unwrap_or_else(|error| panic!("round {round}: {error}")), &expected);
    }
}

/// Whoever only reads cannot rebase the log, whose last segment may lead into one that was freed.
#[test]
fn a_backup_by_a_reader_of_a_store_that_was_cleaned_opens_without_its_index() {
    let storage = MemoryStorage::new();
    let store = options(&storage).cleaning(Cleaning::Off).open(PATH).unwrap();
    let mut expected = HashMap::new();
    for round in 0..30u64 {
        for number in 0..100u64 {
            let (key, value) = (number.to_be_bytes().to_vec(), value(round << 32 | number));
            store.set_bytes(&key, &value).unwrap();
            expected.insert(key, value);
        }
        store.flush().unwrap();
    }
    store.close().unwrap();
    free_full_segments(&storage);
    for use_index_file in [true, false] {
        let options = || options(&storage).use_index_file(use_index_file);
        let path = format!("copy-{use_index_file}.zkv");
        options().open_read_only(PATH).unwrap().backup(&path).unwrap();
        check(&options().open_read_only(&path).unwrap(), &expected);
        check(&options().open(&path).unwrap(), &expected);
    }
}

/// As a cleaning does that is killed behind it. Nothing in those segments is in use.
fn free_full_segments(storage: &MemoryStorage) {
    storage.remove(Path::new(&format!("{PATH}.idx"))).unwrap();
    let (shared, options) = (Arc::new(storage.clone()), LogOptions::default());
    let file = OpenFile::open(shared, Path::new(PATH), Access::ReadWrite, options).unwrap();
    let mut writer = file.recover(None).unwrap().writer.unwrap();
    let segments = writer.log().view().segments();
    let full = segments.iter().filter(|segment| segment.is_sealed).map(|segment| segment.slot);
    let freed = writer.free(&full.collect::<Vec<u32>>()).unwrap();
    writer.log().sync(freed.end).unwrap();
    writer.close().unwrap();
}
