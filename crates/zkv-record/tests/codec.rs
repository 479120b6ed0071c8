//! Typed values in each codec, and what JSON adds.

mod common;

use std::collections::BTreeMap;
use std::fmt::Debug;

use proptest::prelude::*;
use serde::de::{DeserializeOwned, Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};
use zkv_record::{Codec, DECODE_DEPTH_MAX, RecordError};

use common::{Kind, Page, page};

const CODECS: [Codec; 2] = [Codec::Postcard, Codec::Json];

fn encoded<T: Serialize + ?Sized>(codec: Codec, value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec.encode(value, DECODE_DEPTH_MAX, &mut bytes).unwrap();
    bytes
}

fn decode<T: DeserializeOwned>(codec: Codec, bytes: &[u8]) -> Result<T, RecordError> {
    codec.decode(bytes, DECODE_DEPTH_MAX)
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, RecordError> {
    decode(Codec::Json, text.as_bytes())
}

#[test]
fn codes_never_change() {
    assert_eq!((Codec::Postcard.code(), Codec::Json.code()), (0, 1));
    for code in 0..=255 {
        let codec = Codec::from_code(code);
        assert_eq!(codec.map(Codec::code), (code < 2).then_some(code));
    }
    assert_eq!(Codec::default(), Codec::Postcard);
}

#[test]
fn values_round_trip_behind_what_the_buffer_holds() {
    for codec in CODECS {
        let mut bytes = b"before".to_vec();
        codec.encode(&page(), DECODE_DEPTH_MAX, &mut bytes).unwrap();
        assert_eq!(&bytes[..6], b"before");
        assert_eq!(decode::<Page>(codec, &bytes[6..]), Ok(page()), "{codec:?}");
    }
}

#[test]
fn postcard_is_what_the_functions_of_its_own_write_and_read() {
    let mut bytes = Vec::new();
    zkv_record::encode(&page(), &mut bytes).unwrap();
    assert_eq!(encoded(Codec::Postcard, &page()), bytes);
    assert_eq!(decode(Codec::Postcard, &bytes), zkv_record::decode::<Page>(&bytes));
}

#[test]
fn json_is_written_without_white_space() {
    let text = r#"{"title":"a page","links":{"away":300,"home":1},"kind":{"Named":{"name":"x","tags":["y",""]}},"score":0.5}"#;
    assert_eq!(encoded(Codec::Json, &page()), text.as_bytes());
}

#[test]
fn every_truncation_is_an_error_and_so_is_every_addition() {
    for codec in CODECS {
        let mut bytes = encoded(codec, &page());
        for end in 0..bytes.len() {
            let cut = decode::<Page>(codec, &bytes[..end]);
            assert!(matches!(cut, Err(RecordError::Decode(_))), "{codec:?} {end}: {cut:?}");
        }
        for more in ["4", " ", "\n\t ", " {}", "]", "\0\0"] {
            bytes.extend_from_slice(more.as_bytes());
            let trailing = RecordError::TrailingBytes { bytes: more.len() };
            assert_eq!(decode::<Page>(codec, &bytes), Err(trailing), "{codec:?} {more:?}");
            bytes.truncate(bytes.len() - more.len());
        }
    }
    for text in ["1 ", "1x", "null\n", "\"\" "] {
        assert_eq!(from_json::<Value>(text), Err(RecordError::TrailingBytes { bytes: 1 }));
    }
}

#[test]
fn every_flipped_bit_of_json_gives_an_error_or_a_stable_value() {
    let mut bytes = encoded(Codec::Json, &page());
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(found) = decode::<Page>(Codec::Json, &bytes) {
            assert_eq!(decode(Codec::Json, &encoded(Codec::Json, &found)), Ok(found));
        }
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn what_needs_a_self_describing_format_round_trips_as_json() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Flattened {
        id: u64,
        #[serde(flatten)]
        rest: BTreeMap<String, Value>,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Number(u8),
        Text(String),
        Both { number: u8, text: String },
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "type")]
    enum Tagged {
        Point { x: i8 },
    }
    fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
        let bytes = encoded(Codec::Json, value);
        assert_eq!(decode::<T>(Codec::Json, &bytes).as_ref(), Ok(value));
        let postcard = decode::<T>(Codec::Postcard, b"\x01\x01\x01").unwrap_err();
        let why = postcard.to_string();
        assert!(why.contains("not self-describing"), "{why}");
    }
    check(&json!({ "a": [1, -2, 0.1, null, true, "text"], "b": { "": [] } }));
    check(&Flattened { id: 1, rest: [("x".into(), json!([1]))].into() });
    check(&vec![
        Untagged::Number(7),
        Untagged::Text("x".into()),
        Untagged::Both { number: 1, text: String::new() },
    ]);
    check(&Tagged::Point { x: -1 });
}

#[test]
fn fields_of_json_come_and_go() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Later {
        title: String,
        #[serde(default)]
        views: u32,
    }
    let bytes = encoded(Codec::Json, &page());
    assert_eq!(decode(Codec::Json, &bytes), Ok(Later { title: "a page".into(), views: 0 }));
}

#[test]
fn what_json_cannot_tell_is_as_documented() {
    assert_eq!(encoded(Codec::Json, &Some(None::<u8>)), b"null");
    for number in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut bytes = b"before".to_vec();
        let failed =
            Codec::Json.encode(&vec![Some(f64::from(number))], DECODE_DEPTH_MAX, &mut bytes);
        assert!(failed.unwrap_err().to_string().contains("NaN"));
        assert!(Codec::Json.encode(&number, DECODE_DEPTH_MAX, &mut bytes).is_err());
        assert_eq!(bytes, b"before");
        assert!(!encoded(Codec::Postcard, &number).is_empty());
    }
    let failed = Codec::Json
        .encode(&BTreeMap::from([((1, 2), 3)]), DECODE_DEPTH_MAX, &mut Vec::new())
        .unwrap_err();
    assert!(failed.to_string().contains("key"), "{failed:?}");
    let numbers = BTreeMap::from([(300u64, -1i8)]);
    assert_eq!(decode(Codec::Json, &encoded(Codec::Json, &numbers)), Ok(numbers));
}

#[test]
fn a_value_that_fails_to_serialise_leaves_the_buffer_as_it_was() {
    struct Failing;
    impl Serialize for Failing {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(S::Error::custom("refused"))
        }
    }
    for codec in CODECS {
        let mut bytes = b"before".to_vec();
        let failed = codec.encode(&("written first", Failing), DECODE_DEPTH_MAX, &mut bytes);
        assert!(matches!(failed, Err(RecordError::Encode(_))));
        assert_eq!(bytes, b"before");
    }
}

/// Quotes what it is given, in both directions.
#[derive(Debug)]
struct Talkative;

impl Serialize for Talkative {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(S::Error::custom("invalid value: canary"))
    }
}

impl<'de> Deserialize<'de> for Talkative {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Err(D::Error::custom(format!("bad {text}")))
    }
}

#[test]
fn errors_quote_nothing_of_the_value() {
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only decoding is tried")]
    struct Strict {
        number: u8,
    }
    fn check(error: &RecordError, kind: &str) {
        let why = error.to_string();
        for text in [why.clone(), format!("{error:?}")] {
            assert!(!text.contains("canary") && !text.contains("98765"), "{text}");
        }
        assert!(why.contains(kind), "{why} is no {kind}");
    }
    fn refused<T: DeserializeOwned + Debug>(text: &str, kind: &str) {
        check(&from_json::<T>(text).unwrap_err(), kind);
    }
    refused::<u32>(r#""canary""#, "invalid type at line 1, column 8");
    refused::<u8>("98765", "invalid value at line 1, column 5");
    refused::<(u8, u8)>("[1]", "invalid length");
    refused::<Kind>(r#""canary""#, "unknown variant");
    refused::<Strict>(r#"{"number":1,"canary":2}"#, "unknown field");
    refused::<Strict>(r#"{"number":"canary"}"#, "invalid type");
    refused::<Strict>("{\n\"number\": 1, \"number\": 2}", "duplicate field at line 2");
    refused::<Strict>("{}", "missing field");
    refused::<Talkative>(r#""canary""#, "refused by the type's `Deserialize`");
    refused::<Page>("canary", "no JSON at line 1, column 1");
    refused::<Page>(r#""canary"#, "");
    refused::<Value>(r#"["canary"#, "the JSON ends too early");
    check(
        &Codec::Json.encode(&Talkative, DECODE_DEPTH_MAX, &mut Vec::new()).unwrap_err(),
        "`Serialize` failed",
    );
    check(&Codec::Postcard.encode(&Talkative, DECODE_DEPTH_MAX, &mut Vec::new()).unwrap_err(), "");
    check(&decode::<Talkative>(Codec::Postcard, b"\x06canary").unwrap_err(), "");
}

#[test]
fn what_is_no_utf_8_is_refused_with_its_place_also_where_it_is_ignored() {
    for bytes in [&b"{\"title\":\"\xFF\"}"[..], b"{\"other\":\"\xC3(\"}"] {
        let error = decode::<BTreeMap<String, IgnoredAny>>(Codec::Json, bytes).unwrap_err();
        assert!(error.to_string().ends_with("no UTF-8 at byte 10"), "{error}");
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf,
    Node(Box<Tree>),
    Branch(Vec<Tree>),
    Named { inner: Option<Box<Tree>> },
}

/// `levels` arrays, one in another.
fn arrays(levels: usize) -> Vec<u8> {
    ["[".repeat(levels), "]".repeat(levels)].concat().into_bytes()
}

#[test]
fn the_depth_means_the_same_in_both_codecs_and_for_any_value() {
    let tree = |levels| (1..levels).fold(Tree::Leaf, |inner, _| Tree::Node(Box::new(inner)));
    for codec in CODECS {
        for max in [1, 2, 127, 128, 129, 300] {
            let mut deeper = Vec::new();
            let refused = codec.encode(&tree(max + 1), max, &mut deeper);
            assert_eq!(refused, Err(RecordError::TooDeep { max }));
            codec.encode(&tree(max + 1), max + 1, &mut deeper).unwrap();
            assert_eq!(codec.decode::<Tree>(&deeper, max), Err(RecordError::TooDeep { max }));
            assert_eq!(codec.decode::<Tree>(&deeper, max + 1), Ok(tree(max + 1)));
        }
    }
    for max in [1, 128, 129, 300] {
        let deeper = arrays(max as usize + 1);
        assert_eq!(Codec::Json.decode::<Value>(&deeper, max), Err(RecordError::TooDeep { max }));
        let deepest: Value = Codec::Json.decode(&arrays(max as usize), max).unwrap();
        let mut again = Vec::new();
        Codec::Json.encode(&deepest, max, &mut again).unwrap();
        assert_eq!(again, arrays(max as usize));
    }
    // Broad is not deep, whatever it is made of.
    let broad = Value::from_iter((0..1000).map(|_| json!([{ "a": [1] }, {}, null])));
    assert_eq!(Codec::Json.decode(&encoded(Codec::Json, &broad), 4), Ok(broad));
}

#[test]
fn json_that_nests_a_megabyte_deep_overflows_no_stack() {
    /// Reads bytes, and takes arrays of arrays for some.
    #[derive(Debug)]
    struct Nested;
    impl<'de> Deserialize<'de> for Nested {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Bytes;
            impl<'de> Visitor<'de> for Bytes {
                type Value = Nested;
                fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    formatter.write_str("bytes")
                }
                fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Nested, A::Error> {
                    while access.next_element::<Nested>()?.is_some() {}
                    Ok(Nested)
                }
            }
            deserializer.deserialize_bytes(Bytes)
        }
    }
    #[derive(Debug, Deserialize)]
    #[serde(untagged)]
    #[allow(dead_code, reason = "only decoding is tried")]
    enum Untagged {
        Deep(Box<Untagged>),
        List(Vec<Untagged>),
    }
    fn check<T: DeserializeOwned + Debug>(level: &str) {
        let deep = decode::<T>(Codec::Json, level.repeat(1 << 19).as_bytes()).unwrap_err();
        assert_eq!(deep, RecordError::TooDeep { max: DECODE_DEPTH_MAX }, "{level}");
    }
    check::<Value>("[");
    check::<Value>(r#"{"":"#);
    check::<Tree>(r#"{"Node":"#);
    check::<Tree>(r#"{"Branch":["#);
    check::<Tree>(r#"{"Named":{"inner":"#);
    check::<Vec<BTreeMap<String, Value>>>(r#"[{"":"#);
    check::<Untagged>("[");
    check::<Nested>("[");
    // What a type ignores takes no stack, and is read to its end.
    assert!(decode::<IgnoredAny>(Codec::Json, &arrays(1 << 19)).is_ok());
}

proptest! {
    #[test]
    fn random_values_round_trip(
        title in any::<String>(),
        links in prop::collection::btree_map(any::<String>(), any::<u32>(), 0..8),
        number in any::<i64>(),
        // Any bits: a float has to come back to its last one.
        score in any::<u64>().prop_map(f64::from_bits).prop_filter("", |score| score.is_finite()),
    ) {
        let page = Page { title, links, kind: Some(Kind::Number(number)), score };
        for codec in CODECS {
            prop_assert_eq!(decode::<Page>(codec, &encoded(codec, &page)), Ok(page.clone()));
        }
    }

    #[test]
    fn random_text_never_panics(text in r#"[\[\]{}",:0-9a-z\\.\-e \n]{0,48}"#) {
        let _ = from_json::<Page>(&text);
        let _ = from_json::<Value>(&text);
        let _ = from_json::<Tree>(&text);
        let _ = from_json::<Vec<Option<u8>>>(&text);
    }
}
