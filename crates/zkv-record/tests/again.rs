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
    struct Balanced { #[serde(skip_deserializing)] a: String, b: String, #[serde(skip_serializing)] c: String }
    struct BalancedTuple(#[serde(skip_deserializing)] u8, u8, #[serde(skip_serializing)] u8);
    struct BalancedOption { #[serde(skip_deserializing)] a: u8, b: Option<f32>, #[serde(skip_serializing)] c: Option<u8> }
    enum BalancedVariant { A, B(#[serde(skip_deserializing)] i64, i64, #[serde(skip_serializing)] i64) }
    struct Renamed { #[serde(rename(serialize = "out", deserialize = "in"))] name: Option<String> }
    #[derive(Default)]
    #[serde(default, rename_all(serialize = "camelCase"))]
    struct RenamedAll { first_name: u8, flag: bool }
    struct RenamedAlike { #[serde(rename(serialize = "out", deserialize = "in"), alias = "out")] name: Option<String> }
    struct WrittenOnly { #[serde(skip_deserializing, default = "now")] at: SystemTime, name: String }
    struct ReadOnly { name: String, #[serde(skip_serializing)] password: Option<String> }
    struct MaybeLeftOut { #[serde(default, skip_serializing_if = "Vec::is_empty")] list: Vec<u8>, name: String }
    #[derive(Clone)]
    #[serde(from = "Versions", into = "Versions")]
    struct Migrated { a: u8, b: u8 }
    #[derive(Clone)]
    enum Versions { V1 { a: u8 }, V2 { b: u8, a: u8 } }
    #[derive(Clone)]
    #[serde(from = "u32", into = "u32")]
    struct Rounded(u32);
    #[derive(Clone)]
    #[serde(try_from = "u32", into = "u32")]
    struct Hundreds(u32);
    struct Digested { #[serde(deserialize_with = "digested")] digest: u32 }
    #[derive(Clone)]
    #[serde(from = "Vec<u32>", into = "HashSet<u32>")]
    struct Unordered(Vec<u32>);
    struct Counted { #[serde(deserialize_with = "one_more")] revision: u32, name: String }
}

fn now() -> SystemTime {
    SystemTime::now()
}

fn digested<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    u32::deserialize(deserializer).map(|number| number.wrapping_mul(0x9E37_79B9))
}

fn one_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    u32::deserialize(deserializer).map(|number| number + 1)
}

macro_rules! into {
    ($($from:ty => $into:ty: $pattern:pat => $value:expr;)*) => {$(
        impl From<$from> for $into {
            fn from($pattern: $from) -> Self {
                $value
            }
        }
    )*};
}

into! {
    Versions => Migrated: versions => match versions {
        Versions::V1 { a } => Self { a, b: 0 },
        Versions::V2 { a, b } => Self { a, b },
    };
    Migrated => Versions: Migrated { a, b } => match b {
        0 => Self::V1 { a },
        _ => Self::V2 { a, b },
    };
    u32 => Rounded: number => Self(number / 10 * 10);
    Rounded => u32: Rounded(number) => number;
    Hundreds => u32: Hundreds(number) => number;
    // Several of one, so that a set of them has any order.
    Vec<u32> => Unordered: list => Self(match list.as_slice() {
        [one] => (*one..one + 10).collect(),
        _ => list,
    });
    Unordered => HashSet<u32>: Unordered(list) => list.into_iter().collect();
}

impl TryFrom<u32> for Hundreds {
    type Error = &'static str;

    fn try_from(number: u32) -> Result<Self, &'static str> {
        if matches!(number, 100 | 200) { Ok(Self(number)) } else { Err("no hundreds") }
    }
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
fn as_many_fields_that_are_not_read_as_are_not_written_are_found() {
    check! { Postcard false: Balanced, BalancedTuple, BalancedOption, BalancedVariant, Vec<Balanced>, (u8, Balanced), }
    check! { Json true: BalancedOption, }
}

#[test]
fn a_name_for_writing_and_another_one_for_reading_is_found() {
    check! { Json false: Renamed, RenamedAll, Vec<Renamed>, BTreeMap<String, RenamedAll>, Option<Renamed>, }
    check! { Postcard true: Renamed, RenamedAll, }
    check! { Json true: RenamedAlike, }
}

#[test]
fn what_a_type_makes_of_a_value_once_is_its_own_affair() {
    check! { Json true:
        WrittenOnly, ReadOnly, MaybeLeftOut, Migrated, Rounded, Hundreds, Digested, Unordered, Counted,
    }
    check! { Postcard true: Migrated, Rounded, Hundreds, Digested, Unordered, Counted, }
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
    check(&Balanced { a: "a".into(), b: "b".into(), c: "c".into() });
    check(&BalancedTuple(1, 2, 3));
}
