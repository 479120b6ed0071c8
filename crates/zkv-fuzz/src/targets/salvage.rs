//! Bringing what is left of forged files into a new store, which is then whole.

use super::data::{DATA, options};
use crate::pair;
use crate::storage::SeededStorage;

const RESCUED: &str = "rescued.zkv";

pub(crate) fn run(input: &[u8]) {
    let storage = pair::storage(5, input);
    let new = new_options(&storage);
    let Ok(report) = zkv::salvage(DATA, RESCUED, new.clone(), |_| {}) else { return };
    let found = zkv::verify(RESCUED, new.clone(), |_| {}).expect("a new store can be verified");
    assert!(found.is_sound(), "{found:?}");
    let store = new.open_read_only(RESCUED).expect("a new store opens");
    let stats = store.stats().expect("a new store can be measured");
    assert_eq!(stats.keys, report.keys);
}

fn new_options(storage: &SeededStorage) -> zkv::Options {
    options(storage).create(true).slot_bytes(256 << 10)
}
