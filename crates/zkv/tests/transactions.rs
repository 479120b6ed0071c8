//! Transactions, snapshots and batches, one after another and side by side.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use zkv::{Collection, Durability, Error, ErrorKind, Options, Store, Transaction, WriteBatch};
use zkv_io::MemoryStorage;

use common::faulty::{PATH, killed, noise, options};

const ALL: [Durability; 3] = [Durability::Buffered, Durability::Flushed, Durability::Synced];

fn open(storage: &MemoryStorage, durability: Durability) -> Store {
    let options = Options::new().storage(Arc::new(storage.clone())).durability(durability);
    options.memory_buffer_bytes(64 << 10).slot_bytes(256 << 10).open(PATH).unwrap()
}

fn new_store(durability: Durability) -> Store {
    open(&MemoryStorage::new(), durability)
}

fn contents(
    entries: impl Iterator<Item = zkv::Result<(Vec<u8>, Vec<u8>)>>,
) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in entries {
        let (key, value) = entry.unwrap();
        assert_eq!(found.insert(key, value), None);
    }
    found
}

#[test]
fn a_transaction_sees_its_own_writes_and_nobody_else_does_before_it_commits() {
    for durability in ALL {
        let store = new_store(durability);
        store.set("kept", &1u32).unwrap();
        store.set("gone", &2u32).unwrap();
        let mut tx = store.begin().unwrap();
        tx.set("new", &3u32).unwrap();
        tx.set("kept", &4u32).unwrap();
        assert!(tx.delete("gone").unwrap() && !tx.delete("gone").unwrap());
        assert_eq!(tx.get::<_, u32>("new").unwrap(), Some(3));
        assert_eq!(tx.get::<_, u32>("kept").unwrap(), Some(4));
        assert!(!tx.contains("gone").unwrap());
        assert_eq!(contents(tx.iter_bytes()).len(), 2);
        assert_eq!((store.len(), store.get::<_, u32>("kept").unwrap()), (2, Some(1)));
        tx.commit().unwrap();
        assert_eq!((store.len(), store.get::<_, u32>("kept").unwrap()), (2, Some(4)));
        assert!(!store.contains("gone").unwrap() && store.contains("new").unwrap());
    }
}

#[test]
fn what_is_dropped_fails_or_panics_has_not_happened() {
    let store = new_store(Durability::Buffered);
    let mut tx = store.begin().unwrap();
    tx.set("a", &1u32).unwrap();
    drop(tx);
    let failed = store.transaction(|tx| {
        tx.set("a", &1u32)?;
        Err::<(), _>(Error::ReadOnly)
    });
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::ReadOnly);
    let failed = store.try_transaction(|tx| {
        tx.set("a", &1u32)?;
        Err::<(), Box<dyn std::error::Error>>("an error of its own".into())
    });
    assert_eq!(failed.unwrap_err().to_string(), "an error of its own");
    let other = store.clone();
    let panicked = thread::spawn(move || {
        other.transaction::<()>(|tx| {
            tx.set("a", &1u32)?;
            panic!("on purpose")
        })
    });
    assert!(panicked.join().is_err());
    assert_eq!(store.len(), 0);
    store.set("a", &2u32).unwrap();
    assert_eq!(store.len(), 1);
}

#[test]
fn a_transaction_conflicts_with_whoever_writes_what_it_has_read() {
    for durability in ALL {
        let store = new_store(durability);
        store.set("a", &1u32).unwrap();
        let writers: [&dyn Fn(); 4] = [
            &|| store.set("a", &2u32).unwrap(),
            &|| assert!(store.delete("a").unwrap()),
            &|| {
                let mut batch = WriteBatch::new();
                batch.set("b", &1u32).set("a", &3u32);
                store.write(batch).unwrap();
            },
            &|| {
                store.transaction(|tx| tx.set("a", &9u32)).unwrap();
            },
        ];
        for write in writers {
            for checkpoint in [false, true] {
                store.set("a", &1u32).unwrap();
                let mut tx = store.begin().unwrap();
                assert_eq!(tx.get::<_, u32>("a").unwrap(), Some(1));
                tx.set("mine", &1u32).unwrap();
                write();
                if checkpoint {
                    store.rebuild_index().unwrap();
                }
                assert!(matches!(tx.commit(), Err(Error::Conflict)));
                assert!(!store.contains("mine").unwrap());
            }
        }
    }
}

#[test]
fn what_a_transaction_has_not_read_does_not_concern_it() {
    for durability in ALL {
        let store = new_store(durability);
        store.set("a", &1u32).unwrap();
        let mut tx = store.begin().unwrap();
        assert!(tx.contains("a").unwrap());
        tx.set("mine", &1u32).unwrap();
        store.set("mine", &2u32).unwrap();
        store.set("b", &2u32).unwrap();
        tx.commit().unwrap();
        assert_eq!(store.get::<_, u32>("mine").unwrap(), Some(1), "blind writes do not conflict");
    }
}

#[test]
fn a_transaction_that_read_all_keys_conflicts_with_a_new_one() {
    for durability in ALL {
        let store = new_store(durability);
        let mut tx = store.begin().unwrap();
        assert_eq!(tx.iter_bytes().count(), 0);
        tx.set("mine", &1u32).unwrap();
        store.set("phantom", &2u32).unwrap();
        assert!(matches!(tx.commit(), Err(Error::Conflict)));
        // One that only reads has seen what was, and may say so.
        let tx = store.begin().unwrap();
        assert_eq!(tx.iter_bytes().count(), 1);
        store.set("another", &2u32).unwrap();
        tx.commit().unwrap();
    }
}

#[test]
fn transactions_of_several_threads_lose_nothing() {
    const THREADS: u32 = 4;
    const EACH: u32 = 300;
    for durability in ALL {
        let store = new_store(durability);
        let retries = AtomicU32::new(0);
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (store, retries) = (&store, &retries);
                scope.spawn(move || {
                    for number in 0..EACH {
                        store
                            .transaction(|tx| {
                                retries.fetch_add(1, Ordering::Relaxed);
                                let count: u32 = tx.get("count")?.unwrap_or(0);
                                tx.set("count", &(count + 1))?;
                                tx.set(&(thread, number), &count)
                            })
                            .unwrap();
                        store
                            .update("second", |old: Option<u32>| Some(old.unwrap_or(0) + 1))
                            .unwrap();
                    }
                });
            }
        });
        assert_eq!(store.get::<_, u32>("count").unwrap(), Some(THREADS * EACH));
        assert_eq!(store.get::<_, u32>("second").unwrap(), Some(THREADS * EACH));
        assert_eq!(store.len(), u64::from(THREADS * EACH) + 2);
        assert!(retries.into_inner() >= THREADS * EACH);
    }
}

#[test]
fn a_snapshot_stays_as_it_was() {
    for durability in ALL {
        let storage = MemoryStorage::new();
        let store = open(&storage, durability);
        let mut model = BTreeMap::new();
        for number in 0..300u32 {
            let (key, value) = (number.to_le_bytes().to_vec(), noise(number.into(), 100));
            store.set_bytes(&key, &value).unwrap();
            model.insert(key, value);
        }
        store.set_bytes(b"large", &noise(7, 700_000)).unwrap();
        model.insert(b"large".to_vec(), noise(7, 700_000));
        let snapshot = store.snapshot();
        assert_eq!(store.stats().unwrap().snapshots, 1);
        for round in 0..20u64 {
            for number in 0..400u32 {
                let key = number.to_le_bytes();
                if (u64::from(number) + round).is_multiple_of(3) {
                    store.delete_bytes(&key).unwrap();
                } else {
                    store.set_bytes(&key, &noise(round, 200)).unwrap();
                }
            }
            store.set_bytes(b"large", b"small").unwrap();
            match round % 4 {
                0 => store.flush().unwrap(),
                1 => store.sync().unwrap(),
                2 => store.rebuild_index().unwrap(),
                _ => {}
            }
        }
        assert_eq!(snapshot.len(), model.len() as u64);
        assert_eq!(contents(snapshot.iter_bytes()), model);
        for (key, value) in &model {
            assert_eq!(snapshot.get_bytes(key).unwrap().as_ref(), Some(value));
        }
        assert!(!snapshot.contains_bytes(&399u32.to_le_bytes()).unwrap());
        assert_eq!(store.get_bytes(b"large").unwrap().unwrap(), b"small");
        drop(snapshot);
        assert_eq!(store.stats().unwrap().snapshots, 0);
    }
}

#[test]
fn a_batch_is_seen_whole_or_not_at_all() {
    const KEYS: u32 = 40;
    for durability in ALL {
        let store = new_store(durability);
        thread::scope(|scope| {
            let writing = scope.spawn(|| {
                for round in 0u32..200 {
                    let mut batch = WriteBatch::new();
                    for key in 0..KEYS {
                        batch.set(&key, &round);
                    }
                    store.write(batch).unwrap();
                }
            });
            while !writing.is_finished() {
                let snapshot = store.snapshot();
                let all: Vec<Option<u32>> =
                    (0..KEYS).map(|key| snapshot.get(&key).unwrap()).collect();
                assert!(all.iter().all(|value| *value == all[0]), "{all:?}");
                // Without a snapshot, too: what comes later is never older.
                let first: Option<u32> = store.get(&0u32).unwrap();
                let last: Option<u32> = store.get(&(KEYS - 1)).unwrap();
                assert!(first <= last);
                let iterated = snapshot.iter_bytes().count() as u64;
                assert_eq!(iterated, if all[0].is_some() { u64::from(KEYS) } else { 0 });
            }
        });
        assert_eq!(store.len(), u64::from(KEYS));
    }
}

#[test]
fn a_batch_larger_than_memory_and_slots_is_one_commit() {
    const KEYS: u32 = 30_000;
    for durability in [Durability::Buffered, Durability::Synced] {
        let storage = MemoryStorage::new();
        let store = open(&storage, durability);
        let mut batch = WriteBatch::new();
        let mut model = BTreeMap::new();
        for number in 0..2 * KEYS {
            let key = (number % KEYS).to_le_bytes();
            if number >= KEYS && number.is_multiple_of(5) {
                batch.delete_bytes(&key);
                model.remove(&key[..]);
            } else {
                let value = noise(number.into(), 120);
                batch.set_bytes(&key, &value);
                model.insert(key.to_vec(), value);
            }
        }
        batch.set_bytes(b"large", &noise(1, 900_000));
        model.insert(b"large".to_vec(), noise(1, 900_000));
        let before = store.snapshot();
        store.write(batch).unwrap();
        assert_eq!((before.len(), store.len()), (0, model.len() as u64));
        assert_eq!(contents(store.iter_bytes()), model);
        // A snapshot keeps the files open, and so locked.
        drop(before);
        store.close().unwrap();
        let store = open(&storage, durability);
        assert_eq!(contents(store.iter_bytes()), model);
        store.rebuild_index().unwrap();
        assert_eq!(contents(store.iter_bytes()), model);
        assert!(store.verify(|_| {}).unwrap().findings.is_empty());
    }
}

#[test]
fn a_batch_that_cannot_be_encoded_writes_nothing() {
    let store = new_store(Durability::Buffered);
    let mut batch = WriteBatch::new();
    batch.set("a", &1u32).set("b", &NotEncodable).set("c", &2u32);
    assert_eq!(store.write(batch).unwrap_err().kind(), ErrorKind::Encoding);
    let mut batch = WriteBatch::new();
    batch.set("a", &1u32).set_bytes(&[0; 70_000], b"");
    assert_eq!(store.write(batch).unwrap_err().kind(), ErrorKind::Limit);
    assert_eq!(store.len(), 0);
    store.write(WriteBatch::new()).unwrap();
}

struct NotEncodable;

impl serde::Serialize for NotEncodable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("on purpose"))
    }
}

#[test]
fn nothing_is_written_to_a_store_that_was_closed_through_another_handle() {
    for durability in ALL {
        let store = new_store(durability);
        let other = store.clone();
        store.set("a", &1u32).unwrap();
        let mut tx = store.begin().unwrap();
        tx.set("b", &1u32).unwrap();
        let snapshot = store.snapshot();
        other.close().unwrap();
        let mut batch = WriteBatch::new();
        batch.set("b", &1u32);
        let refused = [
            store.set("b", &1u32),
            store.delete("a").map(drop),
            store.delete("none").map(drop),
            store.update("a", |old: Option<u32>| old).map(drop),
            store.write(batch),
            tx.commit(),
            store.begin().map(drop),
        ];
        for refused in refused {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Misuse);
        }
        assert_eq!(store.get::<_, u32>("a").unwrap(), Some(1));
        assert_eq!((store.len(), snapshot.len()), (1, 1));
    }
}

#[test]
fn a_commit_may_be_more_durable_than_its_store() {
    let storage = MemoryStorage::new();
    let store = open(&storage, Durability::Buffered);
    store.set("before", &1u32).unwrap();
    let mut batch = WriteBatch::new();
    batch.set("batch", &1u32);
    store.write_with(batch, Durability::Synced).unwrap();
    store.set("between", &1u32).unwrap();
    let mut tx = store.begin().unwrap();
    tx.set("tx", &1u32).unwrap();
    tx.commit_with(Durability::Flushed).unwrap();
    store.set("after", &1u32).unwrap();
    // What a kill leaves: the lock is still held, so a copy.
    let copy = killed(&storage);
    let found = open(&copy, Durability::Buffered);
    for key in ["before", "batch", "between", "tx"] {
        assert!(found.contains(key).unwrap(), "{key}");
    }
    assert!(!found.contains("after").unwrap());
}

#[test]
fn a_snapshot_of_an_opened_store_does_not_see_what_is_written_into_its_last_cell() {
    for durability in ALL {
        let storage = MemoryStorage::new();
        let store = open(&storage, durability);
        store.set_bytes(b"set", b"old").unwrap();
        store.set_bytes(b"deleted", b"old").unwrap();
        store.close().unwrap();
        let store = open(&storage, durability);
        let (counted, read) = (store.snapshot(), store.snapshot());
        // Short blocks: they stand in the cell of 256 bytes in which those before them end.
        store.set_bytes(b"set", b"new").unwrap();
        store.delete_bytes(b"deleted").unwrap();
        store.flush().unwrap();
        for key in [&b"set"[..], b"deleted"] {
            assert_eq!(read.get_bytes(key).unwrap().as_deref(), Some(&b"old"[..]));
        }
        assert_eq!(contents(read.iter_bytes()).len(), 2);
        assert_eq!(counted.len(), 2);
    }
}

#[test]
fn a_commit_without_writes_makes_what_was_written_before_as_durable_as_it_asks_for() {
    let storage = MemoryStorage::new();
    let hour = Duration::from_secs(3600);
    let options = Options::new().storage(Arc::new(storage.clone())).flush_interval(hour);
    let store = options.open(PATH).unwrap();
    let is_there = |key: &str| {
        let store = open(&killed(&storage), Durability::Buffered);
        store.get::<_, u32>(key).unwrap().is_some()
    };
    store.set("a", &1).unwrap();
    store.begin().unwrap().commit().unwrap();
    store.write(WriteBatch::new()).unwrap();
    assert!(!is_there("a"));
    store.begin().unwrap().commit_with(Durability::Flushed).unwrap();
    assert!(is_there("a"));
    store.set("b", &1).unwrap();
    store.write_with(WriteBatch::new(), Durability::Synced).unwrap();
    assert!(is_there("b"));
}

#[test]
fn what_is_printed_to_debug_holds_no_keys_and_no_values_and_is_short() {
    // As text, and as the numbers that bytes are printed as.
    const KEY: &[u8] = b"SECRETKEY";
    const VALUE: &[u8] = b"SECRETVALUE";
    let is_secret = |text: &str| text.contains("SECRET") || text.contains("83, 69, 67, 82");
    assert!(is_secret(&format!("{KEY:?}")));
    let memory = MemoryStorage::new();
    let store = options(&memory).open(PATH).unwrap();
    for number in 0..10_000u32 {
        store.set_bytes(&[KEY, &number.to_le_bytes()].concat(), VALUE).unwrap();
    }
    store.flush().unwrap();
    store.set_bytes(KEY, VALUE).unwrap();
    let collection = store.collection::<String, String>("pages").unwrap();
    collection.set("SECRETKEY", &"SECRETVALUE".to_owned()).unwrap();
    let mut batch = WriteBatch::new();
    batch.set_bytes(KEY, VALUE).set_in(&collection, "SECRETKEY", &"SECRETVALUE".to_owned());
    let mut transaction = store.begin().unwrap();
    transaction.set_bytes(KEY, VALUE).unwrap();
    let mut iter = transaction.iter_bytes();
    iter.next().unwrap().unwrap();
    let snapshot = store.snapshot();
    let mut below = snapshot.iter_bytes();
    below.next().unwrap().unwrap();
    let raw = store.raw_collection("pages").unwrap();
    let printed = [
        format!("{store:?}"),
        format!("{collection:?} {raw:?} {:?}", collection.iter().unwrap()),
        format!("{batch:?}"),
        format!("{iter:?} {below:?}"),
        format!("{:?}", collection.within(&transaction).unwrap()),
        format!("{snapshot:?} {:?}", collection.at(&snapshot).unwrap()),
    ];
    for text in printed {
        assert!(!is_secret(&text) && text.len() < 400, "{text}");
    }
}

#[test]
fn a_collection_that_was_not_there_is_something_that_was_read() {
    let store = new_store(Durability::Buffered);
    let mut tx = store.begin().unwrap();
    let pages = store.collection::<String, String>("pages").unwrap();
    let missing = pages.within(&tx).unwrap_err();
    assert!(matches!(missing, Error::NoCollection { .. }));
    assert!(missing.to_string().contains("no collection pages when"), "{missing}");
    tx.set_bytes(b"there are no pages", b"").unwrap();
    assert!(matches!(tx.commit(), Err(Error::Conflict)));
}

#[test]
fn collections_within_a_transaction_are_used_side_by_side_and_read_through_a_shared_reference() {
    let store = new_store(Durability::Buffered);
    let drafts: Collection<u32, String> = store.collection("drafts").unwrap();
    let pages: Collection<u32, String> = store.collection("pages").unwrap();
    let count = |tx: &Transaction| -> Result<usize, Error> {
        Ok(drafts.within(tx)?.keys().count() + pages.within(tx)?.keys().count())
    };
    drafts.set(&1, &"Home".to_owned()).unwrap();
    let mut tx = store.begin().unwrap();
    let (mut from, mut to) = (drafts.within(&tx).unwrap(), pages.within(&tx).unwrap());
    let before = to.iter();
    let page = from.remove(&1).unwrap().unwrap();
    to.set(&1, &page).unwrap();
    to.set(&2, &page).unwrap();
    // Each sees what the transaction has written, whichever way; an iteration what there was when it began.
    assert_eq!((before.count(), to.iter().count(), from.get(&1).unwrap()), (0, 2, None));
    assert_eq!(pages.within(&tx).unwrap().get(&2).unwrap().as_deref(), Some("Home"));
    assert_eq!(count(&tx).unwrap(), 2);
    tx.set("moved", &1u32).unwrap();
    tx.commit().unwrap();
    assert_eq!((drafts.len(), pages.len(), store.len()), (0, 2, 1));
    // What is read through either counts for conflicts.
    let mut tx = store.begin().unwrap();
    assert_eq!(count(&tx).unwrap(), 2);
    tx.set("count", &2u32).unwrap();
    pages.delete(&1).unwrap();
    assert!(matches!(tx.commit(), Err(Error::Conflict)));
}
