//! How deep values nest: what is written can be read.

mod common;

use std::collections::BTreeMap;
use std::fmt::Debug;

use proptest::prelude::*;
use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::json;
use zkv_record::{Codec, DECODE_DEPTH_MAX, RecordError};

use common::page;

fn encoded<T: Serialize + ?Sized>(codec: Codec, value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec.encode(value, DECODE_DEPTH_MAX, &mut bytes).unwrap();
    bytes
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Newtype(u8);
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Unit;
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Through(Vec<Option<u8>>);
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Each {
    Unit,
    Newtype(Newtype),
    Tuple(u8, Option<u8>),
    Struct { inner: Option<Newtype> },
}
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is")]
enum Tagged {
    Empty,
    Struct { inner: Vec<u8> },
}
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u8),
    Many(Vec<Untagged>),
}

/// As `serde_bytes` has bytes.
#[derive(Debug, PartialEq)]
struct Blob(Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl<'de> Visitor<'de> for Bytes {
            type Value = Blob;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("bytes")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.to_vec()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Blob, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = access.next_element()? {
                    bytes.push(byte);
                }
                Ok(Blob(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

/// With each depth from 0 on, what is not written is what would not be read.
fn check_depth<T: Serialize + DeserializeOwned + PartialEq + Debug>(codec: Codec, value: &T) {
    let bytes = encoded(codec, value);
    for depth_max in 0..9 {
        let mut written = Vec::new();
        let too_deep = Err(RecordError::TooDeep { max: depth_max });
        match codec.encode(value, depth_max, &mut written) {
            Ok(()) => {
                assert_eq!(written, bytes);
                assert_eq!(codec.decode::<T>(&bytes, depth_max).as_ref(), Ok(value), "{depth_max}");
            }
            error => {
                assert_eq!(error, too_deep);
                assert_eq!(
                    codec.decode::<T>(&bytes, depth_max),
                    Err(error.unwrap_err()),
                    "{value:?}"
                );
            }
        }
    }
    assert_eq!(codec.decode::<T>(&bytes, 9).as_ref(), Ok(value));
}

#[test]
fn what_nests_too_deep_to_be_read_is_not_written() {
    for codec in [Codec::Postcard, Codec::Json] {
        check_depth(codec, &7u64);
        check_depth(codec, &"text".to_owned());
        check_depth(codec, &());
        check_depth(codec, &Unit);
        check_depth(codec, &Newtype(1));
        check_depth(codec, &None::<u8>);
        check_depth(codec, &Some(Newtype(1)));
        check_depth(codec, &(1u8, [2u16; 3], Some(3u32)));
        check_depth(codec, &vec![1u8, 2]);
        check_depth(codec, &(vec![1u8], Some(vec![2u8])));
        check_depth(codec, &vec![vec![1u8], vec![]]);
        check_depth(codec, &vec![vec![vec![1i64]]]);
        check_depth(codec, &Through(vec![Some(1), Some(2)]));
        check_depth(codec, &Blob(vec![1, 2]));
        check_depth(codec, &Some(Blob(vec![1, 2])));
        check_depth(codec, &BTreeMap::from([(1u8, vec![Some("a".to_owned())])]));
        check_depth(codec, &std::time::Duration::from_secs(3));
        check_depth(codec, &Ok::<Newtype, ()>(Newtype(1)));
        check_depth(codec, &vec![Each::Unit, Each::Newtype(Newtype(1))]);
    }
    check_depth(Codec::Postcard, &BTreeMap::from([(Through(vec![]).0.len(), page())]));
    check_depth(Codec::Postcard, &[Each::Tuple(1, Some(2))]);
    check_depth(Codec::Postcard, &[Each::Struct { inner: Some(Newtype(1)) }]);
    check_depth(Codec::Json, &json!({"a": [1, {"b": [null, "text", 1.5]}], "c": {}}));
    check_depth(Codec::Json, &vec![Tagged::Empty, Tagged::Struct { inner: vec![1] }]);
    check_depth(Codec::Json, &Untagged::Many(vec![Untagged::Many(vec![Untagged::Number(1)])]));
}

/// Variants with an external tag, which are read as such or as anything.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum External {
    Unit,
    Newtype(Box<External>),
    Tuple(Box<External>, u8),
    Struct { inner: Box<External> },
    List(Vec<External>),
    Maybe(Option<Box<External>>),
    By(BTreeMap<String, External>),
    Tagged(Box<ByTag>),
    Untagged(Box<ByContent>),
    Flat(Box<Flat>),
}
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is")]
enum ByTag {
    Of { external: External },
}
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum ByContent {
    Of(External),
}
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Flat {
    before: u8,
    #[serde(flatten)]
    rest: BTreeMap<String, External>,
}

fn nested(levels: &[u8]) -> External {
    levels.iter().fold(External::Unit, |inner, level| match level {
        0 => External::Newtype(Box::new(inner)),
        1 => External::Tuple(Box::new(inner), 1),
        2 => External::Struct { inner: Box::new(inner) },
        3 => External::List(vec![External::Unit, inner]),
        4 => External::Maybe(Some(Box::new(inner))),
        5 => External::By([("key".to_owned(), inner)].into()),
        6 => External::Tagged(Box::new(ByTag::Of { external: inner })),
        7 => External::Untagged(Box::new(ByContent::Of(inner))),
        _ => External::Flat(Box::new(Flat { before: 1, rest: [("a".to_owned(), inner)].into() })),
    })
}

proptest! {
    #[test]
    fn json_that_is_written_nests_no_deeper_than_is_read(
        levels in prop::collection::vec(0..9u8, 0..8),
        depth_max in 0..24u32,
    ) {
        let value = nested(&levels);
        let mut bytes = Vec::new();
        match Codec::Json.encode(&value, depth_max, &mut bytes) {
            Ok(()) => prop_assert_eq!(Codec::Json.decode(&bytes, depth_max), Ok(value)),
            error => prop_assert_eq!(error, Err(RecordError::TooDeep { max: depth_max })),
        }
    }
}

/// They were written with twice as many of them as are now.
#[test]
fn variants_that_were_written_as_one_level_are_still_read_as_one() {
    let value = nested(&[1, 2, 1, 2]);
    let bytes = encoded(Codec::Json, &value);
    assert_eq!(Codec::Json.decode(&bytes, 5), Ok(value));
}
