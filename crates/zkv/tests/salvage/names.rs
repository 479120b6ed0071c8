//! Collections whose names are lost.

use zkv::{Codec, CollectionOptions};

use super::*;

/// Of the first block in the log, which names the first collection.
const NAME: usize = 4096 + 256 + 20;

/// A closed store whose first record names a collection.
fn named() -> MemoryStorage {
    let memory = MemoryStorage::new();
    let store = small(&memory).open(PATH).unwrap();
    let as_json = CollectionOptions::new().codec(Codec::Json);
    let pages: zkv::Collection<u32, Vec<Option<u32>>> =
        store.collection_with("pages", &as_json).unwrap();
    store.sync().unwrap();
    (0..1000).for_each(|number| pages.set(&number, &vec![Some(number), None]).unwrap());
    drop(pages);
    store.close().unwrap();
    memory
}

fn salvaged(memory: &MemoryStorage) -> (SalvageReport, Store) {
    let report = zkv::salvage(PATH, DESTINATION, small(memory), |_| {}).unwrap();
    (report, options(memory).open_read_only(DESTINATION).unwrap())
}

fn damage(memory: &MemoryStorage, at: usize) {
    let mut bytes = read_file(memory, PATH);
    bytes[at] ^= 1;
    write_file(memory, PATH, &bytes);
}

#[test]
fn a_collection_whose_name_is_lost_has_that_of_the_index_and_its_types() {
    let memory = named();
    damage(&memory, NAME);
    let (report, store) = salvaged(&memory);
    assert_eq!((report.keys, report.lost_blocks, report.recovered_collections), (1000, 1, 0));
    let as_json = CollectionOptions::new().codec(Codec::Json);
    let pages: zkv::Collection<u32, Vec<Option<u32>>> =
        store.collection_with("pages", &as_json).unwrap();
    assert!((0..1000).all(|number| pages.get(&number).unwrap() == Some(vec![Some(number), None])));
}

#[test]
fn without_an_index_it_has_a_name_that_tells_so() {
    let memory = named();
    memory.remove(Path::new(INDEX)).unwrap();
    damage(&memory, NAME);
    let (report, store) = salvaged(&memory);
    assert_eq!((report.keys, report.recovered_collections), (1000, 1));
    let collections = store.collections();
    assert_eq!((&*collections[0].name, collections[0].keys), ("recovered-16", 1000));
    assert_eq!(&*collections[0].value_type, "unknown");
}

#[test]
fn an_index_of_another_store_names_nothing() {
    let memory = named();
    let other = MemoryStorage::new();
    let store = small(&other).open(PATH).unwrap();
    let others: zkv::Collection<u32, u32> = store.collection("others").unwrap();
    others.set(&1, &1).unwrap();
    drop(others);
    store.close().unwrap();
    write_file(&memory, INDEX, &read_file(&other, INDEX));
    damage(&memory, NAME);
    assert_eq!(salvaged(&memory).0.recovered_collections, 1);
}

#[test]
fn a_collection_that_was_dropped_behind_the_index_does_not_come_back_under_its_name() {
    let memory = named();
    let index = read_file(&memory, INDEX);
    let store = small(&memory).open(PATH).unwrap();
    store.drop_collection("pages").unwrap();
    for number in 0..2000 {
        store.set_bytes(&key(number), &value(number, 0)).unwrap();
    }
    store.close().unwrap();
    write_file(&memory, INDEX, &index);
    damage(&memory, NAME);
    let (report, store) = salvaged(&memory);
    assert_eq!((report.lost_blocks, report.recovered_collections), (1, 1));
    assert_eq!(store.collections()[0].name, "recovered-16");
}

#[test]
fn an_index_of_a_copy_that_went_another_way_names_nothing() {
    let common = MemoryStorage::new();
    small(&common).open(PATH).unwrap().close().unwrap();
    let (memory, other) = (killed(&common), killed(&common));
    for (memory, name, count) in [(&memory, "ours", 2000), (&other, "theirs", 1000)] {
        let store = small(memory).open(PATH).unwrap();
        let numbers: zkv::Collection<u32, u32> = store.collection(name).unwrap();
        store.sync().unwrap();
        (0..count).for_each(|number| numbers.set(&number, &number).unwrap());
        drop(numbers);
        store.close().unwrap();
    }
    write_file(&memory, INDEX, &read_file(&other, INDEX));
    let bytes = read_file(&memory, PATH);
    damage(&memory, bytes.windows(4).position(|bytes| bytes == b"ours").unwrap());
    let (report, store) = salvaged(&memory);
    assert_eq!((report.keys, report.recovered_collections), (2000, 1));
    assert_eq!(store.collections()[0].name, "recovered-16");
}
