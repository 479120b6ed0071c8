//! Two keys whose hashes begin alike, in one cell of the log: the index holds one entry for each,
//! and they are equal. This is one pair in 2^36, so stores are given such keys on purpose here.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use zkv_io::{MemoryStorage, OpenMode, Storage};

use crate::error::{ErrorKind, Result};
use crate::options::Options;
use crate::read::view::Places;
use crate::store::Store;

/// Keys in pairs that an index file cannot tell apart.
fn pairs(store: &Store) -> Vec<[Vec<u8>; 2]> {
    let keys = &store.shared().keys;
    let mut by_prefix: HashMap<u128, Vec<u8>> = HashMap::new();
    let mut pairs = Vec::new();
    for number in 0u32..900_000 {
        let key = number.to_le_bytes().to_vec();
        let prefix = keys.hash(0, &key).0 >> (128 - zkv_index::HASH_BITS);
        if let Some(other) = by_prefix.insert(prefix, key.clone()) {
            pairs.push([other, key]);
        }
    }
    pairs
}

fn open(storage: &MemoryStorage) -> Store {
    Options::new().storage(Arc::new(storage.clone())).open("store.zkv").unwrap()
}

fn new_store() -> (MemoryStorage, Store, Vec<[Vec<u8>; 2]>) {
    loop {
        // A store without pairs is unlikely: another secret makes other pairs.
        let storage = MemoryStorage::new();
        let store = open(&storage);
        let pairs = pairs(&store);
        if !pairs.is_empty() {
            return (storage, store, pairs);
        }
    }
}

const OTHERS: usize = 500;

/// Moves the log's end to another cell.
fn add_others(store: &Store) {
    for number in 0..OTHERS as u64 {
        store.set_bytes(&[b"other", &number.to_le_bytes()[..]].concat(), &[7; 30]).unwrap();
    }
    store.flush().unwrap();
}

fn reopened(store: Store, storage: &MemoryStorage) -> Store {
    store.close().unwrap();
    open(storage)
}

#[test]
fn a_deleted_key_stays_deleted_where_its_twin_lives() {
    let (storage, mut store, pairs) = new_store();
    for [first, second] in &pairs {
        store.set_bytes(first, b"first").unwrap();
        store.set_bytes(second, b"second").unwrap();
    }
    store.flush().unwrap();
    add_others(&store);
    store = reopened(store, &storage);
    for [first, _] in &pairs {
        assert!(store.delete_bytes(first).unwrap());
    }
    for _ in 0..2 {
        for [first, second] in &pairs {
            assert_eq!(store.get_bytes(first).unwrap(), None);
            assert_eq!(store.get_bytes(second).unwrap().unwrap(), b"second");
        }
        store = reopened(store, &storage);
    }
    assert_eq!(store.iter_bytes().count(), OTHERS + pairs.len());
    assert_eq!(store.len(), (OTHERS + pairs.len()) as u64);
}

#[test]
fn a_deleted_key_stays_deleted_wherever_the_index_has_it_and_its_twin() {
    // Whether an index file is written between the two, and behind both: what it has not, runs have.
    for (between, behind) in [(false, false), (false, true), (true, false), (true, true)] {
        for deleted in [0, 1] {
            let (storage, mut store, pairs) = new_store();
            let pair = &pairs[0];
            store.set_bytes(&pair[0], b"v").unwrap();
            store.flush().unwrap();
            if between {
                store = reopened(store, &storage);
            }
            store.set_bytes(&pair[1], b"v").unwrap();
            store.flush().unwrap();
            let [first, second] = [0, 1].map(|one| {
                let hash = store.shared().keys.hash(0, &pair[one]);
                let places = store.shared().view.load().committed.places(hash).unwrap();
                let Places::One { location, .. } = places else { panic!("{one} is not there") };
                location
            });
            assert_eq!(first, second, "they stand in one cell");
            add_others(&store);
            if behind {
                store = reopened(store, &storage);
            }
            assert!(store.delete_bytes(&pair[deleted]).unwrap());
            for _ in 0..2 {
                store = reopened(store, &storage);
                assert_eq!(store.get_bytes(&pair[deleted]).unwrap(), None);
                assert_eq!(store.get_bytes(&pair[1 - deleted]).unwrap().unwrap(), b"v");
                assert_eq!(store.len(), OTHERS as u64 + 1);
            }
        }
    }
}

#[test]
fn an_overwritten_key_stays_overwritten_where_its_twin_lives() {
    let (storage, mut store, pairs) = new_store();
    for round in 0u8..4 {
        for [first, second] in &pairs {
            let value = [b"first", &[round][..]].concat();
            store.set_bytes(first, &value).unwrap();
            if round == 0 {
                store.set_bytes(second, b"second").unwrap();
            }
        }
        store.flush().unwrap();
        add_others(&store);
        store = reopened(store, &storage);
        for [first, second] in &pairs {
            let value = [b"first", &[round][..]].concat();
            assert_eq!(store.get_bytes(first).unwrap().unwrap(), value);
            assert_eq!(store.get_bytes(second).unwrap().unwrap(), b"second");
        }
        assert_eq!(store.iter_bytes().count(), OTHERS + 2 * pairs.len());
        assert_eq!(store.len(), (OTHERS + 2 * pairs.len()) as u64);
    }
}

#[test]
fn twins_may_both_go_in_one_commit() {
    let (storage, mut store, pairs) = new_store();
    for [first, second] in &pairs {
        store.set_bytes(first, b"first").unwrap();
        store.set_bytes(second, b"second").unwrap();
    }
    store.flush().unwrap();
    add_others(&store);
    store = reopened(store, &storage);
    for [first, second] in &pairs {
        assert!(store.delete_bytes(second).unwrap());
        store.set_bytes(first, b"again").unwrap();
    }
    for _ in 0..2 {
        for [first, second] in &pairs {
            assert_eq!(store.get_bytes(first).unwrap().unwrap(), b"again");
            assert_eq!(store.get_bytes(second).unwrap(), None);
        }
        assert_eq!(store.iter_bytes().count(), OTHERS + pairs.len());
        assert_eq!(store.len(), (OTHERS + pairs.len()) as u64);
        store = reopened(store, &storage);
    }
}

/// A store in which the mark of a deleted key, the second of a pair, stands in the cell of its live twin.
fn mark_beside_twin() -> (MemoryStorage, Store, Vec<[Vec<u8>; 2]>) {
    let (storage, mut store, pairs) = new_store();
    for [_, second] in &pairs {
        store.set_bytes(second, b"second").unwrap();
    }
    store.flush().unwrap();
    add_others(&store);
    store = reopened(store, &storage);
    for [first, second] in &pairs {
        assert!(store.delete_bytes(second).unwrap());
        store.set_bytes(first, b"first").unwrap();
    }
    add_others(&store);
    store = reopened(store, &storage);
    for [first, second] in &pairs {
        assert_eq!(store.get_bytes(first).unwrap().unwrap(), b"first");
        assert_eq!(store.get_bytes(second).unwrap(), None);
    }
    assert_eq!(store.len(), (OTHERS + pairs.len()) as u64);
    (storage, store, pairs)
}

#[test]
fn a_key_that_is_set_again_counts_where_its_mark_stands_beside_its_twin() {
    let (_storage, store, pairs) = mark_beside_twin();
    store.set_bytes(&pairs[0][1], b"again").unwrap();
    store.flush().unwrap();
    assert_eq!(store.len(), (OTHERS + pairs.len() + 1) as u64);
}

#[test]
fn the_twin_of_a_key_that_is_set_again_stays_where_the_mark_stands_beside_it() {
    let (storage, mut store, pairs) = mark_beside_twin();
    for [_, second] in &pairs {
        store.set_bytes(second, b"again").unwrap();
    }
    store.flush().unwrap();
    for _ in 0..3 {
        add_others(&store);
        for [first, second] in &pairs {
            assert_eq!(store.get_bytes(first).unwrap().as_deref(), Some(&b"first"[..]));
            assert_eq!(store.get_bytes(second).unwrap().as_deref(), Some(&b"again"[..]));
        }
        store = reopened(store, &storage);
    }
}

#[test]
fn the_twin_of_a_key_that_is_deleted_again_stays() {
    let (storage, mut store, pairs) = mark_beside_twin();
    for [_, second] in &pairs {
        let mut batch = crate::WriteBatch::new();
        batch.delete_bytes(second);
        store.write(batch).unwrap();
    }
    store.flush().unwrap();
    for _ in 0..3 {
        for [first, second] in &pairs {
            assert_eq!(store.get_bytes(first).unwrap().as_deref(), Some(&b"first"[..]));
            assert_eq!(store.get_bytes(second).unwrap(), None);
        }
        assert_eq!(store.len(), (OTHERS + pairs.len()) as u64);
        add_others(&store);
        store = reopened(store, &storage);
    }
}

#[test]
fn cleaning_keeps_a_mark_that_stands_beside_its_live_twin() {
    let (storage, mut store, pairs) = loop {
        let storage = MemoryStorage::new();
        let options = Options::new().storage(Arc::new(storage.clone())).slot_bytes(256 << 10);
        let store = options.cleaning(crate::Cleaning::Off).open("store.zkv").unwrap();
        let pairs = pairs(&store);
        if !pairs.is_empty() {
            break (storage, store, pairs);
        }
    };
    let open = |with| {
        let options = Options::new().storage(Arc::new(storage.clone())).use_index_file(with);
        options.cleaning(crate::Cleaning::Off).open("store.zkv").unwrap()
    };
    let fill = |store: &Store, from: u64| {
        for number in from..from + 100 {
            let mut noise = vec![0; 4_000];
            fastrand::Rng::with_seed(number).fill(&mut noise);
            store.set_bytes(&[b"fill", &number.to_le_bytes()[..]].concat(), &noise).unwrap();
        }
        store.flush().unwrap();
    };
    for [_, second] in &pairs {
        store.set_bytes(second, b"second").unwrap();
    }
    store.flush().unwrap();
    fill(&store, 0);
    store.close().unwrap();
    store = open(true);
    for [first, second] in &pairs {
        assert!(store.delete_bytes(second).unwrap());
        store.set_bytes(first, b"first").unwrap();
    }
    store.flush().unwrap();
    fill(&store, 1000);
    fill(&store, 2000);
    store.close().unwrap();
    store = open(true);
    let shared = store.shared();
    let mut full = shared.view.load().committed.log.segments();
    full.retain(|segment| segment.is_sealed);
    full.drain(..1);
    shared.move_all(full).unwrap();
    shared.checkpoint(&mut shared.writer().unwrap()).unwrap();
    for [_, second] in &pairs {
        assert_eq!(store.get_bytes(second).unwrap(), None);
    }
    store.close().unwrap();
    store = open(false);
    for [first, second] in &pairs {
        assert_eq!(store.get_bytes(first).unwrap().as_deref(), Some(&b"first"[..]));
        assert_eq!(store.get_bytes(second).unwrap(), None);
    }
}

/// What lies in the damaged place may be the other key's, and be newer: a lookup cannot tell. Nothing of the
/// other segment is superseded, so an iteration can.
#[test]
fn a_damaged_record_hides_its_older_twin_from_lookups_and_not_from_iterations() {
    let (storage, mut store, pairs) = new_store();
    let mut noise = vec![0; 4_000];
    fastrand::Rng::with_seed(1).fill(&mut noise);
    let [first, second] = &pairs[0];
    store.set_bytes(first, b"first").unwrap();
    store.flush().unwrap();
    add_others(&store);
    store.set_bytes(second, &noise).unwrap();
    store.flush().unwrap();
    store = reopened(store, &storage);
    assert_eq!(store.get_bytes(first).unwrap().as_deref(), Some(&b"first"[..]));
    store.close().unwrap();

    let file = storage.open(Path::new("store.zkv"), OpenMode::ReadWrite).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    let at = bytes.windows(64).position(|window| window == &noise[..64]).unwrap();
    file.write_at(at as u64, &[!bytes[at]]).unwrap();
    let store = open(&storage);
    for key in [first, second] {
        assert_eq!(store.get_bytes(key).unwrap_err().kind(), ErrorKind::Corrupt);
    }
    let (found, errors): (Vec<_>, Vec<_>) = store.iter_bytes().partition(Result::is_ok);
    assert_eq!(errors.len(), 1);
    let of_twins = |entry: &Result<_>| matches!(entry, Ok((key, _)) if pairs[0].contains(key));
    let of_twins: Vec<_> = found.into_iter().filter(of_twins).map(Result::unwrap).collect();
    assert_eq!(of_twins, [(first.clone(), b"first".to_vec())]);
}
