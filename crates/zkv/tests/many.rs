//! Reading many keys at once: the same answers as one after another, all of one moment.

mod common;

use std::collections::BTreeMap;

use zkv::{Collection, Error, ErrorKind, Options, Store};
use zkv_io::MemoryStorage;

use common::faulty::{INDEX, PATH, killed, noise, options, read_file, write_file};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn key(number: u64) -> Vec<u8> {
    format!("key {number}").into_bytes()
}

/// All keys that there may be, some of them twice, in no order.
fn asked() -> Vec<Vec<u8>> {
    (0..1500).map(|number| key(number * 7919 % 700)).collect()
}

fn check(store: &Store, model: &Model) {
    let keys = asked();
    let expected: Vec<_> = keys.iter().map(|key| model.get(key).cloned()).collect();
    let snapshot = store.snapshot();
    for _ in 0..2 {
        assert!(store.get_many_bytes(&keys).unwrap() == expected);
        assert!(snapshot.get_many_bytes(&keys).unwrap() == expected);
    }
    for (key, expected) in keys.iter().zip(&expected).take(300) {
        let key = std::slice::from_ref(key);
        assert!(store.get_many_bytes(key).unwrap() == std::slice::from_ref(expected));
    }
    assert_eq!(store.get_many_bytes::<&[u8]>(&[]).unwrap(), [] as [Option<Vec<u8>>; 0]);
}

fn write(store: &Store, model: &mut Model, numbers: impl Iterator<Item = u64>, round: u64) {
    for number in numbers {
        let (key, length) = (key(number), usize::try_from(number % 150).unwrap());
        if number % 11 == round {
            assert_eq!(store.delete_bytes(&key).unwrap(), model.remove(&key).is_some());
        } else {
            let value = [&round.to_be_bytes()[..], &noise(number, length)].concat();
            store.set_bytes(&key, &value).unwrap();
            model.insert(key, value);
        }
    }
}

fn check_all_states(options: &Options) {
    let mut store = options.clone().open(PATH).unwrap();
    let mut model = Model::new();
    check(&store, &model);
    for round in 0..4 {
        write(&store, &mut model, (0..600).filter(|number| number % 4 >= round), round);
        check(&store, &model);
        store.flush().unwrap();
        check(&store, &model);
        // Small commits, several of one key to a cell.
        for _ in 0..20 {
            write(&store, &mut model, (0..10).map(|number| number * 3), round);
            store.flush().unwrap();
        }
        check(&store, &model);
        let large = noise(round, (3 << 20) + 5);
        store.set_bytes(&key(650), &large).unwrap();
        model.insert(key(650), large);
        if round % 2 == 1 {
            store.close().unwrap();
            store = options.clone().open(PATH).unwrap();
            check(&store, &model);
        }
    }
    store.compact(|_| {}).unwrap();
    check(&store, &model);
}

#[test]
fn many_answers_are_those_of_single_gets_in_every_state() {
    for cache_bytes in [0, 200_000] {
        let memory = MemoryStorage::new();
        check_all_states(&options(&memory).cache_bytes(cache_bytes).slot_bytes(256 << 10));
    }
}

#[test]
fn typed_values_come_in_the_order_of_their_keys() {
    let store = options(&MemoryStorage::new()).open(PATH).unwrap();
    let named: Collection<String, u32> = store.collection("named").unwrap();
    for number in [1u32, 2, 3] {
        store.set(&number, &(number * 10)).unwrap();
        named.set(&number.to_string(), &number).unwrap();
    }
    let snapshot = store.snapshot();
    store.set(&1u32, &0u32).unwrap();
    named.set("1", &0).unwrap();
    let keys = [3u32, 9, 1];
    assert_eq!(store.get_many(&keys).unwrap(), [Some(30u32), None, Some(0)]);
    assert_eq!(snapshot.get_many(&keys).unwrap(), [Some(30u32), None, Some(10)]);
    assert_eq!(named.get_many(&["3", "9", "1"]).unwrap(), [Some(3), None, Some(0)]);
    let then = named.at(&snapshot).unwrap();
    assert_eq!(then.get_many(&["1", "9"]).unwrap(), [Some(1), None]);
    let raw = store.raw_collection("named").unwrap();
    assert_eq!(raw.get_many(&[b"\x013", b"\x014"]).unwrap(), [Some(vec![3]), None]);
    let error = store.get_many::<_, String>(&keys).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Encoding);
    store.drop_collection("named").unwrap();
    assert_eq!(named.get_many(&["3"]).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_transaction_sees_its_own_writes_and_conflicts_with_what_it_has_read() {
    let store = options(&MemoryStorage::new()).open(PATH).unwrap();
    let named: Collection<u32, u32> = store.collection("named").unwrap();
    for number in 0..4u32 {
        store.set(&number, &number).unwrap();
        named.set(&number, &number).unwrap();
    }
    for (written, conflicts) in [(0u32, true), (7, true), (1, false), (3, false)] {
        let mut tx = store.begin().unwrap();
        tx.set(&1u32, &10u32).unwrap();
        assert_eq!(tx.get_many(&[7u32, 1, 0]).unwrap(), [None, Some(10u32), Some(0)]);
        store.set(&written, &5u32).unwrap();
        assert_eq!(matches!(tx.commit(), Err(Error::Conflict)), conflicts, "{written}");
        store.delete(&7u32).unwrap();
        store.set(&0u32, &0u32).unwrap();
    }
    let tx = store.begin().unwrap();
    named.within(&tx).unwrap().set(&9, &9).unwrap();
    let read = named.within(&tx).unwrap().get_many(&[&9, &3, &8]).unwrap();
    assert_eq!(read, [Some(9), Some(3), None]);
    named.set(&3, &0).unwrap();
    assert!(matches!(tx.commit(), Err(Error::Conflict)));
}

#[test]
fn damage_fails_all_of_them_and_a_damaged_index_none() {
    let memory = MemoryStorage::new();
    let store = options(&memory).open(PATH).unwrap();
    let mut model = Model::new();
    write(&store, &mut model, 0..600, 20);
    store.close().unwrap();
    for (path, offset) in [(INDEX, 700), (PATH, 9000)] {
        let copy = killed(&memory);
        let mut bytes = read_file(&copy, path);
        bytes[offset] ^= 1;
        write_file(&copy, path, &bytes);
        let store = options(&copy).open(PATH).unwrap();
        if path == INDEX {
            check(&store, &model);
        } else {
            assert_eq!(store.get_many_bytes(&asked()).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }
}
