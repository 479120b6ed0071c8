//! Named, typed collections.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zkv::{
    Codec, Collection, CollectionOptions, Durability, Error, ErrorKind, Options, Store, WriteBatch,
};
use zkv_io::MemoryStorage;

use common::faulty::{INDEX, PATH, killed, noise, read_file, write_file};

const ALL: [Durability; 3] = [Durability::Buffered, Durability::Flushed, Durability::Synced];

fn open(storage: &MemoryStorage, durability: Durability) -> Store {
    let options = Options::new().storage(Arc::new(storage.clone())).durability(durability);
    options.memory_buffer_bytes(64 << 10).slot_bytes(256 << 10).open(PATH).unwrap()
}

fn all<K: Serialize + for<'a> Deserialize<'a> + Ord, V: Serialize + for<'a> Deserialize<'a>>(
    collection: &Collection<K, V>,
) -> BTreeMap<K, V> {
    let mut found = BTreeMap::new();
    for entry in collection.iter().unwrap() {
        let (key, value) = entry.unwrap();
        assert!(found.insert(key, value).is_none());
    }
    found
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
struct Page {
    title: String,
    links: Vec<u32>,
}

#[test]
fn collections_do_not_see_each_others_keys() {
    for durability in ALL {
        let storage = MemoryStorage::new();
        let store = open(&storage, durability);
        let pages: Collection<String, Page> = store.collection("pages").unwrap();
        let counts: Collection<String, u32> = store.collection("counts").unwrap();
        let page = Page { title: "Home".into(), links: vec![1, 2] };
        pages.set("/", &page).unwrap();
        counts.set("/", &7).unwrap();
        counts.set("/b", &8).unwrap();
        store.set("/", &9u64).unwrap();
        for _ in 0..2 {
            assert_eq!(pages.get("/").unwrap(), Some(page.clone()));
            assert_eq!((counts.get("/").unwrap(), counts.get("/c").unwrap()), (Some(7), None));
            assert_eq!(store.get::<_, u64>("/").unwrap(), Some(9));
            assert_eq!((pages.len(), counts.len(), store.len()), (1, 2, 1));
            assert_eq!(all(&counts), BTreeMap::from([("/".into(), 7), ("/b".into(), 8)]));
            assert_eq!(store.iter_bytes().count(), 1);
            store.rebuild_index().unwrap();
        }
        assert!(counts.delete("/").unwrap() && !counts.delete("/").unwrap());
        assert!(pages.contains("/").unwrap() && store.contains("/").unwrap());
        assert_eq!(counts.update("/b", |old| old.map(|old| old + 1)).unwrap(), Some(9));
        assert_eq!(counts.get_or_insert_with("/d", || 4).unwrap(), 4);
        assert!(counts.compare_and_set("/d", Some(&4), None).unwrap());
        assert_eq!(counts.remove("/b").unwrap(), Some(9));
        assert!(counts.is_empty());
        assert_eq!(store.stats().unwrap().keys, 2);
    }
}

#[test]
fn collections_are_found_again_however_the_index_was_lost() {
    for loses_index in [false, true] {
        let storage = MemoryStorage::new();
        let store = open(&storage, Durability::Buffered);
        let mut model = BTreeMap::new();
        let pages: Collection<u32, Vec<u8>> = store.collection("pages").unwrap();
        for number in 0..2000 {
            pages.set(&(number % 700), &noise(number.into(), 90)).unwrap();
            model.insert(number % 700, noise(number.into(), 90));
        }
        pages.set(&9999, &noise(3, 700_000)).unwrap();
        model.insert(9999, noise(3, 700_000));
        store.close().unwrap();
        let storage = killed(&storage);
        if loses_index {
            zkv_io::Storage::remove(&storage, INDEX.as_ref()).unwrap();
        }
        let store = open(&storage, Durability::Buffered);
        let infos = store.collections();
        assert_eq!((infos.len(), &*infos[0].name, infos[0].keys), (1, "pages", 701));
        assert_eq!((&*infos[0].key_type, infos[0].codec), ("u32", Some(Codec::Postcard)));
        let raw: usize = model.values().map(|value| value.len()).sum();
        assert!(infos[0].raw_bytes >= raw as u64 && infos[0].live_bytes > 0);
        let pages: Collection<u32, Vec<u8>> = store.collection("pages").unwrap();
        assert_eq!(all(&pages), model);
        assert!(store.verify(|_| {}).unwrap().findings.is_empty());
    }
}

#[test]
fn another_type_or_codec_is_refused() {
    let storage = MemoryStorage::new();
    let store = open(&storage, Durability::Buffered);
    let _: Collection<String, Page> = store.collection("pages").unwrap();
    let named = CollectionOptions::new().value_type("page v1");
    let json = CollectionOptions::new().codec(Codec::Json);
    let refused = [
        store.collection::<u32, Page>("pages").map(drop).unwrap_err(),
        store.collection::<String, u32>("pages").map(drop).unwrap_err(),
        store.collection_with::<String, Page>("pages", &named).map(drop).unwrap_err(),
        store.collection_with::<String, Page>("pages", &json).map(drop).unwrap_err(),
    ];
    for (error, what) in refused.iter().zip(["keys", "values", "values", "codec"]) {
        assert_eq!(error.kind(), ErrorKind::TypeMismatch);
        assert!(error.to_string().contains(what), "{error}");
    }
    // Another codec is no other type.
    assert!(refused[0].to_string().contains("original types"), "{}", refused[0]);
    let text = refused[3].to_string();
    assert!(text.contains("codec(Codec::Postcard)") && !text.contains("type"), "{text}");
    store.close().unwrap();
    let store = open(&storage, Durability::Buffered);
    assert!(store.collection::<String, Page>("pages").is_ok());
    assert!(store.collection::<String, u32>("pages").is_err());
    for name in ["", &"n".repeat(256)] {
        let refused = store.collection::<u32, u32>(name).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Misuse);
    }
}

#[test]
fn a_type_whose_name_is_too_long_makes_no_collection() {
    let storage = MemoryStorage::new();
    let store = open(&storage, Durability::Buffered);
    for bytes in [1025, 2 << 20] {
        let long = "t".repeat(bytes);
        for options in
            [CollectionOptions::new().key_type(&*long), CollectionOptions::new().value_type(&*long)]
        {
            let refused = store.collection_with::<u32, u32>("pages", &options).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Misuse);
        }
    }
    assert!(store.collections().is_empty());
    let options = CollectionOptions::new().value_type("t".repeat(1024));
    let pages: Collection<u32, u32> = store.collection_with("pages", &options).unwrap();
    pages.set(&1, &2).unwrap();
    assert_eq!((store.collections().len(), pages.get(&1).unwrap()), (1, Some(2)));
}

#[test]
fn keys_that_wait_in_buffers_are_counted_in_every_collection() {
    let storage = MemoryStorage::new();
    let store = open(&storage, Durability::Buffered);
    let pages: Collection<u32, u32> = store.collection("pages").unwrap();
    for key in 0..5 {
        pages.set(&key, &key).unwrap();
    }
    store.set(&0u32, &0u32).unwrap();
    for _ in 0..2 {
        assert_eq!(store.stats().unwrap().keys, 6);
        store.flush().unwrap();
    }
}

#[test]
fn a_json_collection_holds_what_postcard_cannot_read() {
    let storage = MemoryStorage::new();
    let store = open(&storage, Durability::Buffered);
    let options = CollectionOptions::new().codec(Codec::Json);
    let pages: Collection<u32, Value> = store.collection_with("pages", &options).unwrap();
    let page = json!({"title": "Home", "links": [1, null, {"a": 2.5}]});
    pages.set(&1, &page).unwrap();
    assert_eq!(pages.get(&1).unwrap(), Some(page.clone()));
    assert_eq!(all(&pages), BTreeMap::from([(1, page)]));
    let raw = store.raw_collection("pages").unwrap();
    let mut bytes = raw.get(&[1]).unwrap().unwrap();
    bytes.push(b' ');
    raw.set(&[1], &bytes).unwrap();
    assert_eq!(pages.get(&1).unwrap_err().kind(), ErrorKind::Encoding, "trailing bytes");
}

#[test]
fn clearing_and_dropping_take_one_mark_and_end_what_was_there() {
    for durability in ALL {
        let storage = MemoryStorage::new();
        let store = open(&storage, durability);
        let pages: Collection<u32, Vec<u8>> = store.collection("pages").unwrap();
        let other: Collection<u32, u32> = store.collection("other").unwrap();
        for number in 0..500 {
            pages.set(&number, &noise(number.into(), 100)).unwrap();
        }
        pages.set(&1000, &noise(1, 700_000)).unwrap();
        other.set(&1, &1).unwrap();
        let (snapshot, same) = (store.snapshot(), pages.clone());
        let before = store.stats().unwrap().data_file_bytes;
        pages.clear().unwrap();
        assert!(store.stats().unwrap().data_file_bytes - before < 8192);
        assert_eq!((pages.len(), same.len(), other.len()), (0, 0, 1));
        assert!(pages.get(&1).unwrap().is_none() && all(&same).is_empty());
        assert_eq!(pages.at(&snapshot).unwrap().len(), 501);
        assert_eq!(pages.at(&snapshot).unwrap().iter().count(), 501);
        assert_eq!(pages.at(&snapshot).unwrap().get(&3).unwrap(), Some(noise(3, 100)));
        same.set(&3, &vec![3]).unwrap();
        store.flush().unwrap();
        assert_eq!(all(&pages), BTreeMap::from([(3, vec![3])]));
        // Keys of four bytes at most, a value, and the catalog.
        assert!(store.stats().unwrap().raw_bytes < 200, "{:?}", store.stats());
        drop(snapshot);
        store.rebuild_index().unwrap();
        assert_eq!((pages.len(), other.len()), (1, 1));
        assert!(store.verify(|_| {}).unwrap().findings.is_empty());

        assert!(store.drop_collection("pages").unwrap());
        assert!(!store.drop_collection("pages").unwrap());
        assert_eq!(pages.get(&3).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(same.set(&3, &vec![]).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(same.clear().unwrap_err().kind(), ErrorKind::NotFound);
        let again: Collection<String, u32> = store.collection("pages").unwrap();
        assert_eq!((again.len(), store.collections().len()), (0, 2));
        again.set("3", &3).unwrap();
        store.close().unwrap();
        drop((pages, same, other, again));
        let store = open(&storage, durability);
        let again: Collection<String, u32> = store.collection("pages").unwrap();
        assert_eq!(again.get("3").unwrap(), Some(3));
        assert!(store.verify(|_| {}).unwrap().findings.is_empty());
    }
}

#[test]
fn batches_and_transactions_span_collections() {
    for durability in ALL {
        let storage = MemoryStorage::new();
        let store = open(&storage, durability);
        let a: Collection<u32, u32> = store.collection("a").unwrap();
        let b: Collection<String, u32> = store.collection("b").unwrap();
        let mut batch = WriteBatch::new();
        batch.set_in(&a, &1, &10).set_in(&b, "x", &20).set("own", &30u32).delete_in(&a, &2);
        store.write(batch).unwrap();
        let moved = store.transaction(|tx| {
            let from = a.within(tx)?.get(&1)?.unwrap_or(0);
            a.within(tx)?.delete(&1)?;
            let sum = from + b.within(tx)?.get("x")?.unwrap_or(0);
            b.within(tx)?.set("x", &sum)?;
            tx.set("own", &sum)?;
            Ok(b.within(tx)?.iter().count())
        });
        assert_eq!(moved.unwrap(), 1);
        assert_eq!((a.get(&1).unwrap(), b.get("x").unwrap()), (None, Some(30)));
        assert_eq!(store.get::<_, u32>("own").unwrap(), Some(30));

        // A batch made before a clear lands in what is there then; a transaction has seen otherwise.
        let mut batch = WriteBatch::new();
        batch.set_in(&a, &5, &50);
        let tx = store.begin().unwrap();
        a.within(&tx).unwrap().set(&6, &60).unwrap();
        a.clear().unwrap();
        store.write(batch).unwrap();
        assert!(matches!(tx.commit(), Err(Error::Conflict)));
        assert_eq!(all(&a), BTreeMap::from([(5, 50)]));
    }
}

#[test]
fn writes_beside_a_clear_are_before_or_after_it() {
    for durability in ALL {
        let storage = MemoryStorage::new();
        let store = open(&storage, durability);
        let pages: Collection<u32, u32> = store.collection("pages").unwrap();
        for round in 0..20 {
            thread::scope(|scope| {
                let writing = scope.spawn(|| {
                    for number in 0..200 {
                        pages.set(&number, &round).unwrap();
                        assert!(pages.contains(&number).is_ok());
                    }
                });
                while !writing.is_finished() {
                    pages.clear().unwrap();
                }
            });
            // What is left is what was written behind the last clear: an end of it.
            let left = all(&pages);
            let first = 200 - u32::try_from(left.len()).unwrap();
            assert!(left.keys().copied().eq(first..200), "{left:?}");
            assert_eq!(pages.len(), left.len() as u64);
        }
        let report = store.verify(|_| {}).unwrap();
        assert!(report.is_sound(), "{durability:?}: {:?}", report.findings);
    }
}

#[test]
fn reading_many_keys_waits_for_nobody_who_clears_the_collection() {
    let store = open(&MemoryStorage::new(), Durability::Buffered);
    let collection: Collection<u32, u32> = store.collection("c").unwrap();
    let keys: Vec<u32> = (0..200_000).collect();
    let (has_read, is_read) = std::sync::mpsc::channel();
    let reader = collection.clone();
    thread::spawn(move || {
        let values = reader.get_many(&keys.iter().collect::<Vec<_>>()).unwrap();
        has_read.send(values.iter().flatten().count()).unwrap();
    });
    let start = Instant::now();
    let found = loop {
        collection.clear().unwrap();
        collection.set(&7, &7).unwrap();
        if let Ok(found) = is_read.try_recv() {
            break found;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "it waits");
    };
    assert!(found <= 1);
}

#[test]
fn a_store_that_is_only_read_makes_no_collections() {
    let storage = MemoryStorage::new();
    let store = open(&storage, Durability::Synced);
    let pages: Collection<u32, u32> = store.collection("pages").unwrap();
    pages.set(&1, &1).unwrap();
    drop((store, pages));
    let options = Options::new().storage(Arc::new(storage.clone()));
    let store = options.open_read_only(PATH).unwrap();
    let pages: Collection<u32, u32> = store.collection("pages").unwrap();
    assert_eq!(pages.get(&1).unwrap(), Some(1));
    assert_eq!(pages.set(&1, &1).unwrap_err().kind(), ErrorKind::ReadOnly);
    let missing = store.collection::<u32, u32>("missing").unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert_eq!(store.drop_collection("pages").unwrap_err().kind(), ErrorKind::ReadOnly);
}

#[test]
fn copies_and_what_is_salvaged_have_the_collections_and_not_what_was_cleared() {
    let storage = MemoryStorage::new();
    let store = open(&storage, Durability::Buffered);
    let pages: Collection<u32, Vec<u8>> = store.collection("pages").unwrap();
    let gone: Collection<u32, u32> = store.collection("gone").unwrap();
    for number in 0..50 {
        pages.set(&number, &noise(1, 100)).unwrap();
        gone.set(&number, &1).unwrap();
    }
    pages.clear().unwrap();
    store.drop_collection("gone").unwrap();
    let mut model = BTreeMap::new();
    for number in 0..30 {
        pages.set(&number, &noise(number.into(), 100)).unwrap();
        model.insert(number, noise(number.into(), 100));
    }
    pages.set(&77, &noise(7, 700_000)).unwrap();
    model.insert(77, noise(7, 700_000));
    store.set("own", &1u32).unwrap();
    let options = || Options::new().storage(Arc::new(storage.clone())).slot_bytes(256 << 10);
    store.backup("dir/backup.zkv").unwrap();
    store.backup_with("dir/with.zkv", options()).unwrap();
    store.close().unwrap();
    drop((pages, gone));
    let report = zkv::salvage(PATH, "dir/salvaged.zkv", options(), |_| {}).unwrap();
    assert_eq!((report.keys, report.recovered_collections), (32, 0));
    assert!(report.is_complete());
    for copy in ["dir/backup.zkv", "dir/with.zkv", "dir/salvaged.zkv"] {
        let store = options().open(copy).unwrap();
        assert_eq!((store.len(), store.collections().len()), (1, 1), "{copy}");
        let pages: Collection<u32, Vec<u8>> = store.collection("pages").unwrap();
        assert_eq!((all(&pages), pages.len()), (model.clone(), 31), "{copy}");
        let new: Collection<u32, u32> = store.collection("new").unwrap();
        assert_eq!(new.iter().unwrap().count(), 0);
        assert!(store.verify(|_| {}).unwrap().findings.is_empty(), "{copy}");
    }
}

#[test]
fn a_collection_that_has_lost_its_name_is_salvaged_under_one_that_nothing_has() {
    let storage = MemoryStorage::new();
    let store = open(&storage, Durability::Buffered);
    // The second collection gets the number 17.
    let taken: Collection<u32, u32> = store.collection("recovered-17").unwrap();
    let pages: Collection<u32, u32> = store.collection("pages").unwrap();
    taken.set(&1, &1).unwrap();
    pages.set(&2, &2).unwrap();
    pages.set(&3, &3).unwrap();
    store.close().unwrap();
    drop((taken, pages));
    let mut bytes = read_file(&storage, PATH);
    let names: Vec<usize> =
        (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"pages")).collect();
    assert!(!names.is_empty(), "no block holds the name as it is");
    for name in names {
        bytes[name] ^= 1;
    }
    write_file(&storage, PATH, &bytes);
    // It knows the name.
    zkv_io::Storage::remove(&storage, INDEX.as_ref()).unwrap();
    let options = Options::new().storage(Arc::new(storage.clone())).slot_bytes(256 << 10);
    let report = zkv::salvage(PATH, "dir/salvaged.zkv", options.clone(), |_| {}).unwrap();
    assert_eq!((report.keys, report.recovered_collections, report.lost_blocks), (3, 1, 1));
    let store = options.open("dir/salvaged.zkv").unwrap();
    let keys: Vec<(String, u64)> =
        store.collections().into_iter().map(|info| (info.name, info.keys)).collect();
    assert_eq!(keys, [("recovered-17".into(), 1), ("recovered-17+".into(), 2)]);
    let recovered = store.raw_collection("recovered-17+").unwrap();
    assert_eq!(recovered.get(&[3]).unwrap(), Some(vec![3]));
}

#[test]
fn a_collection_of_another_store_is_refused() {
    let one = open(&MemoryStorage::new(), Durability::Buffered);
    let two = open(&MemoryStorage::new(), Durability::Buffered);
    let titles: Collection<u32, String> = one.collection("titles").unwrap();
    // The same number in the other store, and the same name in a third one.
    let counts: Collection<u32, u64> = two.collection("counts").unwrap();
    let three = open(&MemoryStorage::new(), Durability::Buffered);
    let namesake: Collection<u32, u64> = three.collection("titles").unwrap();
    let is_refused = |done: zkv::Result<()>| {
        let error = done.unwrap_err();
        assert!(matches!(error, Error::OtherStore), "{error}");
        assert_eq!(error.kind(), ErrorKind::Misuse);
    };
    let text = "a title".to_owned();
    for (store, is_large) in [(&two, false), (&two, true), (&three, false)] {
        let mut batch = WriteBatch::new();
        batch.set_in(&titles, &1, &text);
        if is_large {
            batch.set_bytes(b"large", &noise(1, 300 << 10));
        }
        is_refused(store.write(batch));
        let mut batch = WriteBatch::new();
        batch.delete_in(&titles, &1);
        is_refused(store.write(batch));
        is_refused(store.transaction(|tx| titles.within(tx)?.set(&1, &text)));
        is_refused(titles.at(&store.snapshot()).map(drop));
        assert_eq!((store.len(), counts.len(), namesake.len()), (0, 0, 0));
    }
    // So is one that was opened anew since a batch was gathered.
    let storage = MemoryStorage::new();
    let mut batch = WriteBatch::new();
    {
        let store = open(&storage, Durability::Buffered);
        let titles: Collection<u32, String> = store.collection("titles").unwrap();
        batch.set_in(&titles, &1, &text);
    }
    is_refused(open(&storage, Durability::Buffered).write(batch));
}

#[test]
fn a_batch_writes_to_a_collection_without_its_types() {
    let store = open(&MemoryStorage::new(), Durability::Buffered);
    let _titles: Collection<u32, String> = store.collection("titles").unwrap();
    let titles = store.raw_collection("titles").unwrap();
    titles.set(b"gone", b"1").unwrap();
    store.set_bytes(b"gone", b"the store's own").unwrap();
    let mut batch = WriteBatch::new();
    batch.set_bytes_in(&titles, b"new", b"2").delete_bytes_in(&titles, b"gone");
    store.write(batch).unwrap();
    assert_eq!(titles.get(b"new").unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!((titles.get(b"gone").unwrap(), titles.len()), (None, 1));
    assert_eq!(store.get_bytes(b"gone").unwrap().as_deref(), Some(&b"the store's own"[..]));
}

#[test]
fn a_collection_made_anew_with_other_types_is_not_read_as_what_it_was() {
    let store = open(&MemoryStorage::new(), Durability::Buffered);
    let old: Collection<u32, u32> = store.collection("c").unwrap();
    old.set(&1, &7).unwrap();
    let (snapshot, early) = (store.snapshot(), store.begin().unwrap());
    store.drop_collection("c").unwrap();
    let new: Collection<u32, i32> = store.collection("c").unwrap();
    new.set(&1, &5).unwrap();
    assert_eq!(old.at(&snapshot).unwrap().get(&1).unwrap(), Some(7));
    let (later, transaction) = (store.snapshot(), store.begin().unwrap());
    assert_eq!(new.at(&later).unwrap().get(&1).unwrap(), Some(5));
    let errors = [
        new.at(&snapshot).unwrap_err(),
        new.within(&early).unwrap_err(),
        old.at(&later).unwrap_err(),
    ];
    assert_eq!(errors.map(|error| error.kind()), [ErrorKind::TypeMismatch; 3]);
    assert_eq!(old.within(&transaction).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_handle_of_a_dropped_collection_does_not_write_to_the_one_made_anew() {
    let store = open(&MemoryStorage::new(), Durability::Buffered);
    let old: Collection<u32, u32> = store.collection("c").unwrap();
    store.drop_collection("c").unwrap();
    let new: Collection<u32, u32> = store.collection("c").unwrap();
    new.set(&1, &5).unwrap();
    let transaction = store.begin().unwrap();
    assert_eq!(old.within(&transaction).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(new.within(&transaction).unwrap().get(&1).unwrap(), Some(5));
    transaction.commit().unwrap();
}
