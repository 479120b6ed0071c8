//! Decoding typed values. The first byte of an input chooses the type.
//!
//! postcard takes more than one form of a number, so that what is encoded again may differ from the
//! input; but decoded again, it is the same.

use std::collections::{BTreeMap, HashMap};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zkv_record::{decode, encode};

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

pub(crate) fn run(input: &[u8]) {
    let Some((choice, bytes)) = input.split_first() else { return };
    match choice % 8 {
        0 => check::<Tree>(bytes),
        1 => check::<List>(bytes),
        2 => check::<Page>(bytes),
        3 => check::<Vec<()>>(bytes),
        4 => check::<Vec<Vec<()>>>(bytes),
        5 => check::<BTreeMap<(), Vec<Tree>>>(bytes),
        6 => check::<Vec<(Option<()>, String)>>(bytes),
        // Its order is not that of the bytes, so only that it decodes is looked at.
        _ => drop(decode::<HashMap<Vec<u8>, ()>>(bytes)),
    }
}

fn check<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(value) = decode::<T>(bytes) else { return };
    let mut first = Vec::new();
    encode(&value, &mut first).expect("what was decoded can be encoded");
    let again: T = decode(&first).expect("what was encoded can be decoded");
    let mut second = Vec::new();
    encode(&again, &mut second).expect("what was decoded can be encoded");
    assert_eq!(first, second);
}
