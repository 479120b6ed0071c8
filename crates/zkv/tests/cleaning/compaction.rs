//! [`Store::compact`]: what it leaves, and what others see meanwhile.

use zkv::CompactOptions;

use super::*;

#[test]
fn compaction_leaves_little_more_than_what_is_live() {
    let storage = MemoryStorage::new();
    let store = options(&storage).cleaning(Cleaning::Off).open(PATH).unwrap();
    let mut expected = fill(&store, 0..20_000);
    let gone: Vec<Vec<u8>> = expected.keys().filter(|key| key[7] % 10 != 0).cloned().collect();
    for key in gone {
        store.delete_bytes(&key).unwrap();
        expected.remove(&key);
    }
    let before = file_bytes(&store);
    let mut most = before;
    store.compact(|_| most = most.max(file_bytes(&store))).unwrap();
    let stats = store.stats().unwrap();
    assert!(stats.data_file_bytes <= stats.live_bytes * 11 / 10 + u64::from(SLOT), "{stats:?}");
    assert!(most <= before + 2 * u64::from(SLOT), "{most} from {before}");
    check(&store, &expected);
    // Once more changes nothing.
    store.compact(no_progress).unwrap();
    assert!(file_bytes(&store) <= stats.data_file_bytes + 4096);
    check(&store, &expected);
    store.close().unwrap();
    for use_index_file in [true, false] {
        let store = options(&storage).use_index_file(use_index_file).open(PATH).unwrap();
        check(&store, &expected);
    }
    let report = verify(PATH, options(&storage), |_| {}).unwrap();
    assert!(report.is_sound(), "{report:?}");
}

#[test]
fn a_compacted_store_ends_with_the_segment_that_is_not_full() {
    // A slot has room for 620 records or so.
    for count in [666, 839, 980, 1351, 1692] {
        let storage = MemoryStorage::new();
        let store = options(&storage).cleaning(Cleaning::Off).open(PATH).unwrap();
        for round in 0..2 {
            for number in 0..count {
                store.set_bytes(&u64::to_be_bytes(number), &value(number + round)).unwrap();
            }
            store.clean().unwrap();
        }
        store.compact(no_progress).unwrap();
        let stats = store.stats().unwrap();
        let beyond = stats.data_file_bytes - stats.live_bytes;
        assert!(beyond < u64::from(SLOT) / 8, "{count}: {beyond} bytes beyond what is live");
        assert_eq!(store.len(), count);
    }
}

#[test]
fn the_index_of_a_compacted_store_is_not_made_anew() {
    let storage = MemoryStorage::new();
    let store = open(&storage);
    for number in 0..4_000u64 {
        store.set_bytes(&number.to_be_bytes(), &value(number)).unwrap();
    }
    store.compact(no_progress).unwrap();
    store.close().unwrap();
    let index = || {
        let path = Path::new("store.zkv.idx");
        let file = storage.open(path, OpenMode::ReadOnly).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_at(0, &mut bytes).unwrap();
        bytes
    };
    let before = index();
    let store = open(&storage);
    assert_eq!(store.len(), 4_000);
    store.close().unwrap();
    assert!(index() == before);
}

#[test]
fn a_snapshot_reads_its_state_across_a_compaction_and_its_slots_come_back() {
    let storage = MemoryStorage::new();
    let store = options(&storage).cleaning(Cleaning::Off).open(PATH).unwrap();
    let old = fill(&store, 0..6_000);
    let snapshot = store.snapshot();
    for key in old.keys() {
        store.set_bytes(key, b"new").unwrap();
    }
    let iteration = snapshot.iter_bytes();
    store.compact(no_progress).unwrap();
    let held = file_bytes(&store);
    assert!(held > 2 << 20, "the snapshot's segments are there");
    for (key, value) in &old {
        assert_eq!(snapshot.get_bytes(key).unwrap().as_ref(), Some(value));
    }
    let seen: HashMap<Vec<u8>, Vec<u8>> = iteration.map(Result::unwrap).collect();
    assert!(seen == old);
    drop(snapshot);
    store.compact(no_progress).unwrap();
    assert!(file_bytes(&store) < 1 << 20, "{}", file_bytes(&store));
    assert_eq!(store.get_bytes(old.keys().next().unwrap()).unwrap().unwrap(), b"new");
}

#[test]
fn only_a_store_that_can_be_written_is_compacted() {
    let storage = MemoryStorage::new();
    open(&storage).close().unwrap();
    let store = options(&storage).open_read_only(PATH).unwrap();
    assert_eq!(store.compact(no_progress).unwrap_err().kind(), ErrorKind::ReadOnly);
    assert_eq!(store.clean().unwrap_err().kind(), ErrorKind::ReadOnly);
    drop(store);
    let store = open(&storage);
    let wrong = CompactOptions::default().compression_level(99);
    assert_eq!(store.compact_with(&wrong, no_progress).unwrap_err().kind(), ErrorKind::Misuse);
    store.clone().close().unwrap();
    assert_eq!(store.compact(no_progress).unwrap_err().kind(), ErrorKind::Misuse);
}
