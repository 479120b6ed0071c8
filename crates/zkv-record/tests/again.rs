//! Which types read what they write.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroI8, NonZeroU32};
use std::ops::{Bound, Range};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zkv_record::{Codec, decode, encode, reads_what_it_writes};

macro_rules! types {
    ($($item:item)*) => {$(
        #[derive(Serialize, Deserialize, Debug, PartialEq)]
        #[allow(dead_code, reason = "some are only asked about")]
        $item
    )*};
}

types! {
    enum SkippedVariant { A, #[serde(skip)] B, C(u8) }
    enum NotReadVariant { #[serde(skip_deserializing)] A, B { x: u8 }, C { x: u8 } }
    enum SkippedLast { A, B(u8), #[serde(skip)] C }
    struct NotRead { a: u8, #[serde(skip_deserializing)] b: u8, c: u8 }
    struct NotWritten { a: u8, #[serde(skip_serializing)] b: u8, c: u8 }
    struct Skipped { a: u8, #[serde(skip)] b: u8, c: u8 }
    struct LeftOut(u8, #[serde(skip_serializing_if = "Option::is_none")] Option<u8>, u8);
    struct Holder { before: String, list: Vec<(u8, Option<SkippedVariant>)> }
    struct Aliased { #[serde(alias = "title")] name: String, kind: Kind, by_kind: BTreeMap<u8, Kind> }
    #[derive(Clone, PartialOrd, Ord, Eq, Hash)]
    enum Kind { A, #[serde(alias = "b", alias = "bb")] B(u32), C(u8, String), D { x: u8 }, #[serde(other)] E }
    struct Tree { children: Vec<Tree>, label: Option<Box<Tree>>, kind: Kind }
    struct Marker;
    #[derive(Eq, Hash)]
    struct Id(NonZeroU32);
    struct Either { of: Result<u8, String>, bound: Bound<u8>, not_a_number: f64 }
    struct Strange { #[serde(serialize_with = "as_text::serialize")] number: u32 }
    struct Symmetric { #[serde(with = "as_text")] number: u32 }
    #[serde(untagged)]
    enum Untagged { Number(u32), Text(String) }
    #[serde(tag = "type")]
    enum Tagged { A { x: u8 }, #[serde(skip)] B, C { y: u8 } }
    struct ByName { #[serde(flatten)] rest: HashMap<String, u8> }
}

mod as_text {
    use super::*;

    pub fn serialize<S: Serializer>(number: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&number.to_string())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! check {
    ($codec:ident $expected:literal: $($type:ty,)*) => {
        $(assert_eq!(
            reads_what_it_writes::<$type>(Codec::$codec), $expected, stringify!($type)
        );)*
    };
}

#[test]
fn what_postcard_reads_as_something_else_or_not_at_all_is_found() {
    check! { Postcard false:
        SkippedVariant, NotReadVariant, NotRead, NotWritten, LeftOut, Holder, Strange,
        Option<SkippedVariant>, BTreeMap<u8, SkippedVariant>, (String, [NotRead; 2]), (u8, LeftOut), Vec<Vec<NotRead>>,
    }
}

#[test]
fn what_reads_as_it_was_written_is_left_alone() {
    check! { Postcard true:
        u8, i128, u128, f32, char, bool, (), String, Vec<u8>, (u8, String), [u16; 30], Option<Option<u8>>,
        SkippedLast, Skipped, Aliased, Kind, Tree, Marker, Id, Either, Symmetric,
        IpAddr, SocketAddr, Duration, SystemTime, NonZeroI8, Range<u8>, Cell<u8>, PathBuf, Box<str>,
        BTreeSet<String>, HashSet<Id>, HashMap<String, Tree>, Cow<'static, str>, std::ffi::OsString,
        std::ffi::CString, std::num::Wrapping<u8>, std::cmp::Reverse<Kind>, Box<[Kind]>, Bound<Kind>,
    }
}

#[test]
fn json_goes_by_names() {
    check! { Json true:
        SkippedVariant, NotReadVariant, NotRead, Skipped, SkippedLast, Holder, Aliased, Kind, Tree, Marker, Id,
        Either, Untagged, Tagged, ByName, serde_json::Value, HashMap<u32, Kind>, Option<Option<u8>>, IpAddr,
    }
    check! { Json false: Strange, NotWritten, LeftOut, }
}

/// What is said of them is so.
#[test]
fn those_that_are_found_come_back_as_something_else_or_not_at_all() {
    fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
        let mut bytes = Vec::new();
        encode(value, &mut bytes).unwrap();
        assert!(decode::<T>(&bytes).ok().is_none_or(|again| again != *value), "{value:?}");
    }
    check(&SkippedVariant::C(7));
    check(&NotReadVariant::B { x: 1 });
    check(&NotRead { a: 1, b: 2, c: 3 });
    check(&NotWritten { a: 1, b: 2, c: 3 });
    check(&LeftOut(1, None, 3));
}
