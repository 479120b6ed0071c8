//! A data file without an index: opened to be read and to be written, and used.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use zkv::{Cleaning, Options, Store};
use zkv_io::Storage;

use crate::storage::SeededStorage;

pub(crate) const DATA: &str = "store.zkv";
pub(crate) const INDEX: &str = "store.zkv.idx";

/// What one input is read for at most: frames of a few bytes may hold megabytes.
const ENTRIES_READ_MAX: usize = 500;
const BYTES_READ_MAX: usize = 8 << 20;

pub(crate) fn run(input: &[u8]) {
    let storage = SeededStorage::new(1, [(Path::new(DATA), input)]);
    if let Ok(store) = options(&storage).open_read_only(DATA) {
        read(&store);
    }
    if let Ok(store) = options(&storage).open(DATA) {
        use_store(&store);
        reopen(store, &storage);
    }
}

/// Options that make a run repeatable and short.
pub(crate) fn options(storage: &(impl Storage + Clone + 'static)) -> Options {
    Options::new()
        .storage(Arc::new(storage.clone()))
        .create(false)
        .compression_level(1)
        .memory_buffer_bytes(64 << 10)
        .flush_interval(Duration::from_secs(3600))
        .cleaning(Cleaning::Off)
        .max_value_bytes(1 << 20)
}

/// Reads what is there, and returns some of the keys.
pub(crate) fn read(store: &Store) -> Vec<Vec<u8>> {
    let (mut keys, mut bytes) = (Vec::new(), 0);
    for entry in store.iter_bytes().take(ENTRIES_READ_MAX) {
        if let Ok((key, value)) = entry {
            bytes += key.len() + value.len();
            keys.push(key);
        }
        if bytes > BYTES_READ_MAX {
            break;
        }
    }
    keys.truncate(50);
    for key in &keys {
        let _ = store.get_bytes(key);
        let _ = store.contains_bytes(key);
    }
    for known in crate::corpus::KNOWN_KEYS {
        let _ = store.get_bytes(known);
    }
    let _ = store.get::<_, String>(&7u32);
    let _ = (store.len(), store.stats());
    keys
}

/// Reads, overwrites, deletes, adds and rebuilds.
pub(crate) fn use_store(store: &Store) {
    let keys = read(store);
    for (number, key) in keys.iter().enumerate().take(12) {
        let _ = match number % 3 {
            0 => store.set_bytes(key, b"overwritten"),
            1 => store.delete_bytes(key).map(drop),
            _ => store.flush(),
        };
    }
    for known in crate::corpus::KNOWN_KEYS {
        let _ = store.set_bytes(known, b"overwritten");
    }
    let _ = store.set_bytes(b"new", &[7; 300]);
    let _ = store.flush();
    let _ = store.set_bytes(b"long", &vec![8; 100_000]);
    let _ = store.sync();
    read(store);
    use_at_one_moment(store, &keys);
    use_collections(store);
    let _ = (store.clean(), store.backup("backup.zkv"), store.compact(|_| {}));
    read(store);
    let _ = store.rebuild_index();
    let _ = store.get_bytes(b"new");
}

/// Reads several keys at once, through a snapshot, and in a transaction that writes.
fn use_at_one_moment(store: &Store, keys: &[Vec<u8>]) {
    let snapshot = store.snapshot();
    let _ = (store.get_many_bytes(keys), snapshot.get_many_bytes(keys));
    let Ok(mut transaction) = store.begin() else { return };
    for key in keys.iter().take(4) {
        let _ = transaction.get_bytes(key);
        let _ = transaction.set_bytes(key, b"in a transaction");
    }
    let _ = transaction.commit();
    let _ = snapshot.iter_bytes().take(ENTRIES_READ_MAX).count();
}

/// Goes through the collections, writes to them, and drops one.
fn use_collections(store: &Store) {
    for (number, info) in store.collections().iter().take(8).enumerate() {
        let Some(collection) = store.raw_collection(&info.name) else { continue };
        let Ok(records) = collection.iter() else { continue };
        let keys: Vec<Vec<u8>> = records.take(20).flatten().map(|(key, _)| key).collect();
        for key in keys.iter().take(4) {
            let _ = (collection.get(key), collection.set(key, b"overwritten"));
            let _ = collection.delete(key);
        }
        let _ = collection.set(b"new", &[7; 300]);
        if number == 0 {
            let _ = store.drop_collection(&info.name);
        }
    }
    let made = store.collection::<u32, u32>("made");
    let _ = made.and_then(|made| made.set(&7, &8));
    let _ = store.flush();
}

/// Closes the store, and opens it from what it left behind.
pub(crate) fn reopen(store: Store, storage: &SeededStorage) {
    let closed = store.close();
    let reopened = options(storage).open(DATA);
    if let Ok(store) = reopened {
        // What was written now is whole, whatever stood there before.
        if closed.is_ok() {
            let _ = store.get_bytes(b"new");
        }
        read(&store);
    }
}
