//! Typed keys and values.

mod common;

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::{Deserialize, Serialize, Serializer};
use zkv_record::{DECODE_DEPTH_MAX, RecordError, decode, decode_within, encode, encode_within};

use common::{Kind, Page, encoded, page};

#[test]
fn values_round_trip_behind_what_the_buffer_holds() {
    let mut bytes = b"before".to_vec();
    encode(&page(), &mut bytes).unwrap();
    assert_eq!(&bytes[..6], b"before");
    assert_eq!(decode::<Page>(&bytes[6..]), Ok(page()));
}

#[test]
fn encodings_are_those_of_the_postcard_specification() {
    assert_eq!(encoded("key"), b"\x03key");
    assert_eq!(encoded(&300u64), [0xAC, 0x02]);
    assert_eq!(encoded(&-1i64), [0x01]);
    assert_eq!(encoded(&(1u8, true)), [1, 1]);
    assert_eq!(encoded(&Some(7u8)), [1, 7]);
    assert_eq!(encoded(&Kind::Number(1)), [2, 2]);
    assert_eq!(encoded(&Kind::Empty), [0]);
}

#[test]
fn every_truncation_is_an_error_and_so_is_every_addition() {
    let mut bytes = encoded(&page());
    for end in 0..bytes.len() {
        assert!(matches!(decode::<Page>(&bytes[..end]), Err(RecordError::Decode(_))));
    }
    bytes.extend_from_slice(b"more");
    assert_eq!(decode::<Page>(&bytes), Err(RecordError::TrailingBytes { bytes: 4 }));
}

#[test]
fn every_flipped_bit_gives_an_error_or_a_stable_value() {
    let mut bytes = encoded(&page());
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(found) = decode::<Page>(&bytes) {
            // Not compared as values: a flipped exponent may make a NaN.
            assert_eq!(encoded(&decode::<Page>(&encoded(&found)).unwrap()), encoded(&found));
        }
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn a_pair_is_not_read_as_its_first_half() {
    let bytes = encoded(&("first", 2u8));
    assert_eq!(decode::<String>(&bytes), Err(RecordError::TrailingBytes { bytes: 1 }));
}

#[test]
fn a_value_that_fails_to_serialise_leaves_the_buffer_as_it_was() {
    struct Failing;
    impl Serialize for Failing {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("refused"))
        }
    }
    let mut bytes = b"before".to_vec();
    let failed = encode(&("written first", Failing), &mut bytes);
    assert!(matches!(failed, Err(RecordError::Encode(_))));
    assert_eq!(bytes, b"before");
}

#[test]
fn what_needs_a_self_describing_format_is_refused_by_name() {
    #[derive(Debug, Deserialize)]
    #[serde(untagged)]
    #[allow(dead_code, reason = "only decoding is tried")]
    enum Untagged {
        Number(u8),
    }
    let error = decode::<Untagged>(&[1]).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("the stored bytes are no value of the type asked for: "), "{text}");
    assert!(text.contains("not self-describing"), "{text}");
}

#[test]
fn a_field_that_is_left_out_is_refused_since_the_next_one_would_be_read_in_its_place() {
    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Item {
        #[serde(skip_serializing_if = "Vec::is_empty", default)]
        tags: Vec<u8>,
        rows: Vec<Vec<u8>>,
        #[serde(skip)]
        never: u8,
    }
    let whole = Item { tags: vec![1], ..Item::default() };
    assert_eq!(decode::<Item>(&encoded(&whole)), Ok(whole));
    let mut bytes = b"before".to_vec();
    let error = encode(&(1, Item::default()), &mut bytes).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("skip_serializing_if") && text.contains("JSON"), "{text}");
    assert_eq!(bytes, b"before");
}

#[test]
fn a_flattened_map_is_refused_with_what_to_use_instead() {
    #[derive(Serialize)]
    struct Flattened {
        #[serde(flatten)]
        rest: BTreeMap<String, u8>,
    }
    let flattened = Flattened { rest: BTreeMap::from([("a".into(), 1)]) };
    let error = encode(&flattened, &mut Vec::new()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("flatten") && text.contains("JSON"), "{text}");
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf,
    Node(Box<Tree>),
    Branch(Vec<Tree>),
    Named { inner: Option<Box<Tree>> },
}

/// A tree of `levels` levels.
fn tree(levels: u32) -> Tree {
    (1..levels).fold(Tree::Leaf, |inner, _| Tree::Node(Box::new(inner)))
}

#[test]
fn a_value_as_deep_as_the_limit_is_written_and_read_and_one_level_more_is_refused() {
    let deepest = encoded(&tree(DECODE_DEPTH_MAX));
    assert_eq!(decode::<Tree>(&deepest), Ok(tree(DECODE_DEPTH_MAX)));
    let (mut deeper, too_deep) =
        (b"before".to_vec(), RecordError::TooDeep { max: DECODE_DEPTH_MAX });
    let written = encode(&tree(DECODE_DEPTH_MAX + 1), &mut deeper);
    assert_eq!((written, &deeper[..]), (Err(too_deep.clone()), &b"before"[..]));
    deeper.clear();
    let levels = encode_within(&tree(DECODE_DEPTH_MAX + 1), u32::MAX, &mut deeper);
    assert_eq!(levels, Ok(DECODE_DEPTH_MAX + 1));
    assert_eq!(decode::<Tree>(&deeper), Err(too_deep));
    assert_eq!(decode_within::<Tree>(&deeper, DECODE_DEPTH_MAX + 1), Ok(tree(129)));
    let message = RecordError::TooDeep { max: 128 }.to_string();
    assert!(message.contains("Options::max_decode_depth"), "{message}");
}

#[test]
fn a_megabyte_that_nests_a_recursive_type_overflows_no_stack() {
    // Each byte is one level: `Node`, a branch of one, a name that is there.
    for level in [&[1u8][..], &[2, 1], &[3, 1]] {
        let forged = level.repeat(1 << 19);
        assert!(matches!(decode::<Tree>(&forged), Err(RecordError::TooDeep { .. })));
    }
    // Broad is not deep.
    let broad = Tree::Branch((0..100_000).map(|_| tree(2)).collect());
    assert!(decode::<Tree>(&encoded(&broad)) == Ok(broad));
}

#[test]
fn elements_that_take_no_bytes_are_counted_over_all_sequences() {
    let forged = [0xFF, 0xFF, 0xFF, 0xFF, 0x0F];
    let max = forged.len() + 65_536;
    assert_eq!(decode::<Vec<()>>(&forged), Err(RecordError::TooManyElements { max }));
    assert_eq!(decode::<Vec<()>>(&encoded(&vec![(); 60_000])), Ok(vec![(); 60_000]));
    // A thousand thousands, which nobody can write.
    let many = [0xE8, 0x07].repeat(1001);
    assert!(matches!(decode::<Vec<Vec<()>>>(&many), Err(RecordError::TooManyElements { .. })));
    let map = decode::<BTreeMap<(), ()>>(&forged);
    assert_eq!(map, Err(RecordError::TooManyElements { max }));
}

#[test]
fn what_has_too_many_elements_to_be_read_is_not_written() {
    fn check<T: Serialize + serde::de::DeserializeOwned + PartialEq>(value: &T, expected: bool) {
        let mut bytes = vec![7];
        let written = encode(value, &mut bytes);
        if expected {
            assert_eq!(written, Ok(()));
            assert!(decode::<T>(&bytes[1..]).as_ref() == Ok(value));
        } else {
            assert!(matches!(written, Err(RecordError::TooManyElements { .. })), "{written:?}");
            assert_eq!(bytes, [7]);
        }
    }
    // Three bytes of length, and as many elements more.
    check(&vec![(); 65_539], true);
    check(&vec![(); 65_540], false);
    check(&(vec![(); 65_536], vec![0u8; 1000]), true);
    check(&(vec![(); 65_541], vec![0u8; 1000]), true);
    check(&(vec![(); 65_542], vec![0u8; 1000]), false);
    check(&(vec![(); 65_542], vec![0u16; 1000]), false);
    check(&(vec![(); 65_542], vec![0u8; 1000], 0u8), true);
    check(&vec![vec![(); 1000]; 1000], false);
    check(&vec![vec![(); 60]; 1000], true);
    check(&vec![BTreeMap::from([((), ())]); 100_000], false);
    check(&vec![BTreeMap::from([((), 1u8)]); 100_000], true);
    check(&Some(vec![[(); 30]; 60_000]), true);
    check(&vec![1u8; 1 << 20], true);
    let mut bytes = Vec::new();
    let max = 3 + 65_536;
    assert_eq!(encode(&vec![(); 70_000], &mut bytes), Err(RecordError::TooManyElements { max }));
}

#[test]
fn fields_that_take_no_bytes_are_the_types_own_business() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Marked {
        number: u8,
        marks: ((), (), [(); 9]),
    }
    let marked = vec![Marked { number: 1, marks: ((), (), [(); 9]) }; 200_000];
    assert!(decode::<Vec<Marked>>(&encoded(&marked)) == Ok(marked));
}

proptest! {
    #[test]
    fn random_values_round_trip(
        title in any::<String>(),
        links in prop::collection::btree_map(any::<String>(), any::<u32>(), 0..8),
        number in any::<i64>(),
        score in -1e300..1e300f64,
    ) {
        let page = Page { title, links, kind: Some(Kind::Number(number)), score };
        prop_assert_eq!(decode::<Page>(&encoded(&page)), Ok(page));
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = decode::<Page>(&bytes);
        let _ = decode::<Vec<Option<String>>>(&bytes);
        let _ = decode::<BTreeMap<u64, Kind>>(&bytes);
        let _ = decode::<Tree>(&bytes);
    }
}
