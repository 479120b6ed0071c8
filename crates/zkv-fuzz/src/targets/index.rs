//! An index file beside a whole data file that it belongs to.

use std::path::Path;

use zkv_index::{Candidates, Checkpoint, KeyHash};

use super::data::{DATA, INDEX, options, read, reopen, use_store};
use crate::corpus::INDEXED_STORE;
use crate::storage::SeededStorage;

pub(crate) fn run(input: &[u8]) {
    let files = [(Path::new(DATA), INDEXED_STORE), (Path::new(INDEX), input)];
    let storage = SeededStorage::new(2, files);
    read_index(&storage, input);
    if let Ok(store) = options(&storage).open_read_only(DATA) {
        read(&store);
    }
    if let Ok(store) = options(&storage).open(DATA) {
        use_store(&store);
        reopen(store, &storage);
    }
}

/// The index alone: the facade asks it for fewer things than it offers.
fn read_index(storage: &SeededStorage, input: &[u8]) {
    let store_id = input.get(16..32).and_then(|id| id.try_into().ok()).unwrap_or_default();
    let Ok(checkpoint) = Checkpoint::open(storage, Path::new(INDEX), store_id, false) else {
        return;
    };
    let _ = checkpoint.verify();
    for kind in 0..6 {
        let _ = checkpoint.section(kind);
    }
    let mut candidates = Candidates::new();
    for number in 0..64u128 {
        let _ = checkpoint.candidates(KeyHash(number << 122 | number), &mut candidates);
    }
}
