//! Decoding typed values. The first byte of an input chooses the type and the codec.
//!
//! postcard takes more than one form of a number, and JSON has white space, so that what is encoded
//! again may differ from the input; but decoded again, it is the same.

use std::collections::{BTreeMap, HashMap};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zkv_record::{Codec, DECODE_DEPTH_MAX, RecordError, decode};

#[derive(Serialize, Deserialize)]
enum Tree {
    Leaf,
    Number(i64),
    Node(Box<Tree>),
    Branch(Vec<Tree>),
    Named { name: String, inner: Option<Box<Tree>> },
    Pair(Box<Tree>, Box<Tree>),
}

#[derive(Serialize, Deserialize)]
struct List {
    value: (),
    next: Option<Box<List>>,
}

#[derive(Serialize, Deserialize)]
struct Page {
    title: String,
    links: BTreeMap<String, Vec<u32>>,
    marks: Vec<()>,
    score: (f64, f32, char, u128, i16),
    is_new: Option<bool>,
}

/// Whatever JSON holds, but for numbers with a point.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Any {
    Null(()),
    Bool(bool),
    Number(i64),
    Text(String),
    List(Vec<Any>),
    Map(BTreeMap<String, Any>),
}

pub(crate) fn run(input: &[u8]) {
    let Some((choice, bytes)) = input.split_first() else { return };
    match choice % 12 {
        0 => check::<Tree>(Codec::Postcard, bytes),
        1 => check::<List>(Codec::Postcard, bytes),
        2 => check::<Page>(Codec::Postcard, bytes),
        3 => check::<Vec<()>>(Codec::Postcard, bytes),
        4 => check::<Vec<Vec<()>>>(Codec::Postcard, bytes),
        5 => check::<BTreeMap<(), Vec<Tree>>>(Codec::Postcard, bytes),
        6 => check::<Vec<(Option<()>, String)>>(Codec::Postcard, bytes),
        // Its order is not that of the bytes, so only that it decodes is looked at.
        7 => drop(decode::<HashMap<Vec<u8>, ()>>(bytes)),
        8 => check::<Tree>(Codec::Json, bytes),
        9 => check::<List>(Codec::Json, bytes),
        10 => check::<Any>(Codec::Json, bytes),
        // Its `f32` may turn out infinite, which JSON cannot write.
        _ => drop(read::<Page>(Codec::Json, bytes)),
    }
}

fn read<T: DeserializeOwned>(codec: Codec, bytes: &[u8]) -> Result<T, RecordError> {
    codec.decode(bytes, DECODE_DEPTH_MAX)
}

fn check<T: Serialize + DeserializeOwned>(codec: Codec, bytes: &[u8]) {
    let Ok(value) = read::<T>(codec, bytes) else { return };
    let mut first = Vec::new();
    match codec.encode(&value, DECODE_DEPTH_MAX, &mut first) {
        // Longer forms of numbers than are written have made room for more elements.
        Err(RecordError::TooManyElements { .. }) => return,
        encoded => encoded.expect("what was decoded can be encoded"),
    }
    let again: T = read(codec, &first).expect("what was encoded can be decoded");
    let mut second = Vec::new();
    codec.encode(&again, DECODE_DEPTH_MAX, &mut second).expect("what was decoded can be encoded");
    assert_eq!(first, second);
}
