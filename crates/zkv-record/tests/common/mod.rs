//! A value with a bit of everything, and the encoding of others.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What [`zkv_record::encode`] makes of a value.
pub fn encoded<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    zkv_record::encode(value, &mut bytes).unwrap();
    bytes
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Kind {
    Empty,
    Named { name: String, tags: Vec<String> },
    Number(i64),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page {
    pub title: String,
    pub links: BTreeMap<String, u32>,
    pub kind: Option<Kind>,
    pub score: f64,
}

pub fn page() -> Page {
    Page {
        title: "a page".into(),
        links: [("home".into(), 1), ("away".into(), 300)].into(),
        kind: Some(Kind::Named { name: "x".into(), tags: vec!["y".into(), String::new()] }),
        score: 0.5,
    }
}
