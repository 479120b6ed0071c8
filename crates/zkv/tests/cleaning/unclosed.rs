//! Programs that never close their store, and end before the cleaning thread has looked.

use std::io;

use zkv::Durability;
use zkv_sim::{Act, Watched};

use super::*;

/// What a program leaves behind that ends here: its files as they are now.
fn left_behind(storage: &MemoryStorage) -> MemoryStorage {
    let left = MemoryStorage::new();
    for path in [PATH, "store.zkv.idx"].map(Path::new) {
        let Ok(file) = storage.open(path, OpenMode::ReadOnly) else { continue };
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_at(0, &mut bytes).unwrap();
        left.open(path, OpenMode::CreateNew).unwrap().write_at(0, &bytes).unwrap();
    }
    left
}

/// The longest that the file is where each program writes as `write` does, a value of 30,000 bytes, and ends.
fn longest_of(durability: Durability, write: impl Fn(&Store, &[u8], &[u8])) -> u64 {
    let (mut storage, mut longest) = (MemoryStorage::new(), 0);
    for number in 0..200u64 {
        let store = options(&storage).durability(durability).open(PATH).unwrap();
        write(&store, &(number % 10).to_be_bytes(), &noise(number, 30_000));
        longest = file_bytes(&store).max(longest);
        storage = left_behind(&storage);
    }
    let store = open(&storage);
    let expected = (190..200u64)
        .map(|number| ((number % 10).to_be_bytes().to_vec(), noise(number, 30_000)))
        .collect();
    check(&store, &expected);
    store.close().unwrap();
    assert!(verify(PATH, options(&storage), |_| {}).unwrap().is_sound());
    longest
}

#[test]
fn programs_that_never_close_their_store_give_space_back() {
    let set = |store: &Store, key: &[u8], value: &[u8]| store.set_bytes(key, value).unwrap();
    let flushed = |store: &Store, key: &[u8], value: &[u8]| {
        set(store, key, value);
        store.flush().unwrap();
    };
    let synced = |store: &Store, key: &[u8], value: &[u8]| {
        set(store, key, value);
        store.sync().unwrap();
    };
    let in_batch = |store: &Store, key: &[u8], value: &[u8]| {
        let mut batch = WriteBatch::new();
        batch.set_bytes(key, value);
        store.write_with(batch, Durability::Flushed).unwrap();
    };
    let in_transaction = |store: &Store, key: &[u8], value: &[u8]| {
        let mut transaction = store.begin().unwrap();
        transaction.set_bytes(key, value).unwrap();
        transaction.commit_with(Durability::Synced).unwrap();
    };
    let lengths = [
        longest_of(Durability::Buffered, flushed),
        longest_of(Durability::Buffered, synced),
        longest_of(Durability::Flushed, set),
        longest_of(Durability::Synced, set),
        longest_of(Durability::Buffered, in_batch),
        longest_of(Durability::Buffered, in_transaction),
    ];
    // 6 MB were written of each, and 300 KB live.
    assert!(lengths.iter().all(|bytes| *bytes < 8 * u64::from(SLOT)), "{lengths:?}");
}

/// A store of which so much is dead that writes wait for the cleaning.
fn behind() -> MemoryStorage {
    let storage = MemoryStorage::new();
    let store = options(&storage).cleaning(Cleaning::Off).open(PATH).unwrap();
    for number in 0..200u64 {
        store.set_bytes(&(number % 10).to_be_bytes(), &noise(number, 30_000)).unwrap();
    }
    store.close().unwrap();
    storage
}

#[test]
fn a_store_that_is_not_to_be_cleaned_is_not() {
    let storage = behind();
    let store = options(&storage).cleaning(Cleaning::Off).open(PATH).unwrap();
    store.set_bytes(b"first", b"").unwrap();
    store.sync().unwrap();
    assert_eq!(store.stats().unwrap().cleaning, zkv::CleaningStats::default());
}

#[test]
fn a_write_does_not_fail_where_the_cleaning_behind_it_does() {
    let storage = Watched::new(Arc::new(behind()), |act, path| {
        let is_index = path.to_string_lossy().contains(".idx");
        match act == Act::Write && is_index {
            true => Err(io::Error::other("no index file")),
            false => Ok(()),
        }
    });
    let options = Options::new().storage(Arc::new(storage)).memory_buffer_bytes(64 << 10);
    let store = options.open(PATH).unwrap();
    store.set_bytes(b"first", b"1").unwrap();
    store.flush().unwrap();
    assert!(store.stats().unwrap().cleaning.segments > 0);
    store.set_bytes(b"second", b"2").unwrap();
    store.sync().unwrap();
    assert_eq!(store.get_bytes(b"first").unwrap().unwrap(), b"1");
}
