//! `Vec<u8>` is written and read at once, and as if it were not.

mod common;

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zkv_record::{
    Codec, DECODE_DEPTH_MAX, ELEMENTS_WITHOUT_BYTES_MAX, RecordError, decode, decode_within,
};

use common::encoded;

/// A byte that serde does not take for one: a `Vec` of them is read element by element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
struct Byte(u8);

/// A field of bytes, with others around it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Archived<B> {
    url: String,
    body: Vec<B>,
    copies: Vec<Option<Vec<B>>>,
}

/// Bytes wherever serde lets them be.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Anywhere<B: Ord> {
    Newtype(Vec<B>),
    Tuple(u8, Vec<B>),
    Struct { before: u16, bytes: Vec<B> },
    Boxed(Box<[B]>),
    Map(BTreeMap<Vec<B>, Vec<B>>),
    Nested(Wrapper<B>, Pair<B>, (Vec<B>, [Vec<B>; 2])),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Wrapper<B>(Vec<B>);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Pair<B>(Option<Vec<B>>, Vec<B>);

/// One value of each kind, of these bytes.
fn anywhere<B: Ord + Copy>(bytes: &[B]) -> Vec<Anywhere<B>> {
    let bytes = || bytes.to_vec();
    vec![
        Anywhere::Newtype(bytes()),
        Anywhere::Tuple(1, bytes()),
        Anywhere::Struct { before: 300, bytes: bytes() },
        Anywhere::Boxed(bytes().into()),
        Anywhere::Map([(bytes(), bytes()), (vec![], bytes())].into()),
        Anywhere::Nested(
            Wrapper(bytes()),
            Pair(Some(bytes()), bytes()),
            (bytes(), [bytes(), vec![]]),
        ),
    ]
}

/// Holds one codec's encodings of `bytes` against those of the same elements, one by one.
fn compare<T, U>(codec: Codec, bytes: &T, one_by_one: &U)
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
    U: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let (mut first, mut second) = (Vec::new(), Vec::new());
    codec.encode(bytes, DECODE_DEPTH_MAX, &mut first).unwrap();
    codec.encode(one_by_one, DECODE_DEPTH_MAX, &mut second).unwrap();
    assert_eq!(first, second);
    assert_eq!(&codec.decode::<T>(&first, DECODE_DEPTH_MAX).unwrap(), bytes);
    assert_eq!(&codec.decode::<U>(&first, DECODE_DEPTH_MAX).unwrap(), one_by_one);
}

#[test]
fn slices_are_written_as_what_they_are_slices_of() {
    let bytes = [7u8, 8, 9];
    assert_eq!(encoded(&bytes[1..]), [2, 8, 9]);
    assert_eq!(encoded(&&bytes[..]), encoded(&bytes.to_vec()));
    // An array has no length.
    assert_eq!(encoded(&bytes), bytes);
}

#[test]
fn bytes_are_read_as_other_sequences_are_within_the_same_limits() {
    let archived = Archived { url: "u".into(), body: vec![0, 255, 7], copies: vec![Some(vec![1])] };
    let bytes = encoded(&archived);
    assert_eq!(bytes, [1, b'u', 3, 0, 255, 7, 1, 1, 1, 1]);
    assert_eq!(decode::<Archived<u8>>(&bytes), Ok(archived));
    for end in 0..bytes.len() {
        let cut = &bytes[..end];
        assert!(matches!(decode::<Archived<u8>>(cut), Err(RecordError::Decode(_))));
        assert!(matches!(decode::<Archived<Byte>>(cut), Err(RecordError::Decode(_))));
    }
    // More bytes than there are, and than fit memory.
    let forged = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 1];
    assert!(matches!(decode::<Vec<u8>>(&forged), Err(RecordError::Decode(_))));
    assert_eq!(decode::<Vec<u8>>(&[1, 2, 3]), Err(RecordError::TrailingBytes { bytes: 1 }));
    assert_eq!(decode_within::<Vec<u8>>(&[0], 0), Err(RecordError::TooDeep { max: 0 }));
    assert_eq!(decode_within::<Vec<u8>>(&[0], 1), Ok(vec![]));
    let nested = encoded(&vec![vec![vec![1u8]]]);
    assert_eq!(decode_within::<Vec<Vec<Vec<u8>>>>(&nested, 3), Ok(vec![vec![vec![1]]]));
    let error = decode_within::<Vec<Vec<Vec<u8>>>>(&nested, 2);
    assert_eq!(error, Err(RecordError::TooDeep { max: 2 }));
}

#[test]
fn bytes_are_counted_as_elements() {
    // Behind a thousand bytes, 66,000 elements: so many are not written.
    let bytes = [encoded(&vec![0u8; 1000]), vec![0xD0, 0x83, 0x04]].concat();
    let max = bytes.len() + ELEMENTS_WITHOUT_BYTES_MAX;
    let too_many = RecordError::TooManyElements { max };
    assert_eq!(decode::<(Vec<Byte>, Vec<()>)>(&bytes).unwrap_err(), too_many);
    assert_eq!(decode::<(Vec<u8>, Vec<()>)>(&bytes).unwrap_err(), too_many);
}

#[test]
fn bytes_that_a_type_makes_of_something_else_are_left_to_it() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Parsed {
        #[serde(serialize_with = "as_texts", deserialize_with = "of_texts")]
        bytes: Vec<u8>,
    }
    fn as_texts<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(bytes.iter().map(u8::to_string))
    }
    fn of_texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Vec<u8>;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("numbers as text")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut texts: A) -> Result<Vec<u8>, A::Error> {
                let mut bytes = Vec::new();
                while let Some(text) = texts.next_element::<String>()? {
                    bytes.push(text.parse().map_err(serde::de::Error::custom)?);
                }
                Ok(bytes)
            }
        }
        deserializer.deserialize_seq(Texts)
    }
    let parsed = Parsed { bytes: vec![1, 20, 255] };
    let bytes = encoded(&parsed);
    assert_eq!(bytes, b"\x03\x011\x0220\x03255");
    assert_eq!(decode::<Parsed>(&bytes), Ok(parsed));
}

proptest! {
    #[test]
    fn bytes_decode_as_their_elements_do_one_by_one(
        bytes in prop::collection::vec(prop_oneof![0..6u8, any::<u8>()], 0..24),
        depth_max in 0..5u32,
    ) {
        let at_once = decode_within::<Archived<u8>>(&bytes, depth_max);
        let one_by_one = decode_within::<Archived<Byte>>(&bytes, depth_max);
        let encoded_at_once = at_once.map(|value| encoded(&value));
        prop_assert_eq!(encoded_at_once, one_by_one.map(|value| encoded(&value)));
    }

    #[test]
    fn bytes_are_encoded_as_their_elements_are_one_by_one(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let one_by_one: Vec<Byte> = bytes.iter().copied().map(Byte).collect();
        compare(Codec::Postcard, &anywhere(&bytes), &anywhere(&one_by_one));
        for (value, other) in anywhere(&bytes).iter().zip(&anywhere(&one_by_one)) {
            // JSON has no maps of bytes.
            if !matches!(value, Anywhere::Map(_)) {
                compare(Codec::Json, value, other);
            }
        }
    }
}
