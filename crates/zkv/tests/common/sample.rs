//! A small store with something of everything: several segments, a dictionary, blocks of every
//! kind, overwritten and deleted records, values in pieces, a clean end.

use std::collections::BTreeMap;

use zkv::{Options, Store};
use zkv_io::MemoryStorage;

use super::faulty::{PATH, noise, options};

pub struct Sample {
    pub memory: MemoryStorage,
    /// What it holds.
    pub model: BTreeMap<Vec<u8>, Vec<u8>>,
}

pub const SLOT_BYTES: u32 = 256 << 10;

pub fn sample_options(memory: &MemoryStorage) -> Options {
    options(memory).slot_bytes(SLOT_BYTES)
}

/// A text that compresses, and better with a dictionary.
pub fn text(number: u64) -> Vec<u8> {
    let words = ["segment", "block", "record", "value", "checkpoint", "dictionary", "commit"];
    let mut text = format!("{{\"number\":{number},\"title\":\"About number {number}\",\"body\":\"");
    for at in 0..30 {
        let word = words[noise(number * 31 + at, 1)[0] as usize % words.len()];
        text.push_str(word);
        text.push(' ');
    }
    text.push_str("\",\"tags\":[\"one\",\"two\"]}");
    text.into_bytes()
}

pub fn sample() -> Sample {
    let memory = MemoryStorage::new();
    let store = sample_options(&memory).open(PATH).unwrap();
    let mut model = BTreeMap::new();
    let mut set = |store: &Store, key: &str, value: Vec<u8>| {
        store.set_bytes(key.as_bytes(), &value).unwrap();
        model.insert(key.as_bytes().to_vec(), value);
    };
    for number in 0..1600 {
        set(&store, &format!("text {number}"), text(number));
    }
    store.flush().unwrap();
    for number in 0..20 {
        set(&store, &format!("noise {number}"), noise(number, 9000));
    }
    set(&store, "long", noise(77, 150_000));
    set(&store, "long and gone", noise(78, 140_000));
    store.flush().unwrap();
    for number in 0..60 {
        set(&store, &format!("text {}", number * 7), text(number + 5000));
    }
    set(&store, "", b"an empty key".to_vec());
    for key in ["long and gone", "noise 3", "text 1"] {
        assert!(store.delete_bytes(key.as_bytes()).unwrap());
        model.remove(key.as_bytes());
    }
    let stats = store.stats().unwrap();
    assert!(stats.dictionaries > 0 && stats.segments > 2, "{stats:?}");
    store.close().unwrap();
    Sample { memory, model }
}
