//! A small store with something of everything: several segments, a dictionary, blocks of every
//! kind, overwritten and deleted records, values in pieces, a clean end.

use std::collections::BTreeMap;

use zkv::{Cleaning, Options, Store};
use zkv_io::MemoryStorage;

use super::faulty::{PATH, noise, options};

pub struct Sample {
    pub memory: MemoryStorage,
    /// What it holds.
    pub model: BTreeMap<Vec<u8>, Vec<u8>>,
}

pub const SLOT_BYTES: u32 = 256 << 10;

pub fn sample_options(memory: &MemoryStorage) -> Options {
    // What is dead stays where it was put.
    options(memory).slot_bytes(SLOT_BYTES).cleaning(Cleaning::Off)
}

/// A text that compresses, and better with a dictionary.
pub fn text(number: u64) -> Vec<u8> {
    text_of(number, 30)
}

fn text_of(number: u64, word_count: u64) -> Vec<u8> {
    let words = ["segment", "block", "record", "value", "checkpoint", "dictionary", "commit"];
    let mut text = format!("{{\"number\":{number},\"title\":\"About number {number}\",\"body\":\"");
    for at in 0..word_count {
        let word = words[noise(number * (word_count + 1) + at, 1)[0] as usize % words.len()];
        text.push_str(word);
        text.push(' ');
    }
    text.push_str("\",\"tags\":[\"one\",\"two\"]}");
    text.into_bytes()
}

/// How much of each kind a sample has.
struct Shape {
    texts: u64,
    words_per_text: u64,
    overwritten: u64,
    noises: u64,
    noise_bytes: usize,
    long_bytes: usize,
    segments: u64,
}

pub fn sample() -> Sample {
    fill(&Shape {
        texts: 1600,
        words_per_text: 30,
        overwritten: 60,
        noises: 20,
        noise_bytes: 9000,
        long_bytes: 150_000,
        segments: 3,
    })
}

/// The same in little more than 256 KiB and with few records, for those who read all of it again and
/// again. Its texts are long, since no dictionary is trained before there are 256 KiB.
pub fn small_sample() -> Sample {
    fill(&Shape {
        texts: 70,
        words_per_text: 500,
        overwritten: 8,
        noises: 4,
        noise_bytes: 25_000,
        long_bytes: 70_000,
        segments: 2,
    })
}

fn fill(shape: &Shape) -> Sample {
    let memory = MemoryStorage::new();
    let store = sample_options(&memory).open(PATH).unwrap();
    let mut model = BTreeMap::new();
    let mut set = |store: &Store, key: &str, value: Vec<u8>| {
        store.set_bytes(key.as_bytes(), &value).unwrap();
        model.insert(key.as_bytes().to_vec(), value);
    };
    let words = shape.words_per_text;
    for number in 0..shape.texts {
        set(&store, &format!("text {number}"), text_of(number, words));
    }
    store.flush().unwrap();
    for number in 0..shape.noises {
        set(&store, &format!("noise {number}"), noise(number, shape.noise_bytes));
    }
    set(&store, "long", noise(77, shape.long_bytes));
    set(&store, "long and gone", noise(78, shape.long_bytes));
    store.flush().unwrap();
    for number in 0..shape.overwritten {
        set(&store, &format!("text {}", number * 7), text_of(number + 5000, words));
    }
    set(&store, "", b"an empty key".to_vec());
    for key in ["long and gone", "noise 3", "text 1"] {
        assert!(store.delete_bytes(key.as_bytes()).unwrap());
        model.remove(key.as_bytes());
    }
    let stats = store.stats().unwrap();
    assert!(stats.dictionaries > 0 && stats.segments >= shape.segments, "{stats:?}");
    store.close().unwrap();
    Sample { memory, model }
}
