//! What a type asks for, as text.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroI8, NonZeroU32};
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::de::{DeserializeOwned, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use zkv_record::{Codec, SHAPE_BYTES_MAX, asks_the_data, outer_shape_of, shape_of};

/// Types that are only read, never used.
macro_rules! types {
    ($($item:item)*) => {$(
        #[derive(Deserialize)]
        #[allow(dead_code, reason = "only their shapes are looked at")]
        $item
    )*};
}

types! {
    struct Page { title: String, views: u64 }
    struct Nested { page: Page, other: Option<Page>, pages: Vec<Page> }
    struct Id(u32);
    struct Pair(u8, String);
    struct Marker;
    struct Empty {}
    struct Wrapper<T> { inner: T }
    enum Kind { A, B(u32), C(u8, String), D { x: u8 }, E(Page) }
    enum Single { A }
    enum Void {}
    struct Tree { children: Vec<Tree>, label: String }
    struct List { next: Option<Box<List>>, value: u8 }
    struct Endless { next: Box<Endless> }
    enum Expression {
        Sum(Box<Expression>, Box<Expression>),
        Block(Vec<Statement>),
        Number(i64),
        Last(Operator),
    }
    enum Statement { Return(Expression), If { condition: Expression, then: Box<Statement> }, None }
    enum Operator { Plus, Minus(Sign), Other(Sign) }
    enum Sign { Big, Small(Option<Sign2>) }
    enum Sign2 { One, Two(u8) }
    struct Refusing { date: Even, id: NonZeroU32, name: String, kind: Kind }
    #[serde(rename = "page")]
    struct Renamed {
        #[serde(rename = "my \"title\"")]
        title: String,
        #[serde(alias = "a", alias = "z")]
        named: u8,
        #[serde(skip)]
        skipped: u64,
        #[serde(default)]
        missing: u16,
    }
    #[serde(rename = "u8")]
    struct Disguised;
    #[serde(transparent)]
    struct Transparent { inner: Vec<u8> }
    #[serde(transparent)]
    struct Unnamed { inner: Vec<Unnamed> }
    struct Flattened { id: u64, #[serde(flatten)] rest: BTreeMap<String, Value> }
    #[serde(untagged)]
    enum Untagged { Number(u8), Text(String) }
    #[serde(tag = "type")]
    enum Tagged { Point { x: i8 } }
    #[serde(tag = "type", content = "content")]
    enum Adjacent { Number(u8), Text(String), Unit }
    struct Holder { untagged: Untagged, last: u8 }
    #[serde(tag = "type", content = "content")]
    enum Newtypes { Number(u8), Text(String) }
    enum Event { Click { x: u32 }, Custom(Value) }
    struct Thread { first: Option<Event>, answers: Vec<Thread> }
    #[serde(rename = "$serde_json::private::RawValue")]
    struct Raw(String);
    #[serde(rename = "$ref")]
    struct Reference { id: u32 }
}

/// Takes no plain value: text of even length would be one, but for what is read of it.
struct Even;

impl<'de> Deserialize<'de> for Even {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "even" { Ok(Self) } else { Err(D::Error::custom("odd")) }
    }
}

/// A struct that is read in a sequence only, as some write by hand.
struct InSequence;

impl<'de> Deserialize<'de> for InSequence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pair;
        impl<'de> Visitor<'de> for Pair {
            type Value = InSequence;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a pair")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<InSequence, A::Error> {
                access.next_element::<u8>()?.ok_or(A::Error::custom("short"))?;
                access.next_element::<String>()?.ok_or(A::Error::custom("short"))?;
                Ok(InSequence)
            }
        }
        deserializer.deserialize_struct("InSequence", &["a", "b"], Pair)
    }
}

struct Bytes;

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Bytes;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("bytes")
            }
            fn visit_bytes<E>(self, _: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes)
            }
        }
        deserializer.deserialize_byte_buf(Any)
    }
}

/// A map that reads all it is given, and so must be given an end.
struct Greedy;

impl<'de> Deserialize<'de> for Greedy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Greedy;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a map")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Greedy, A::Error> {
                while access.next_entry::<char, f32>()?.is_some() {}
                Ok(Greedy)
            }
        }
        deserializer.deserialize_map(Any)
    }
}

/// The shape of `T` where postcard reads it.
fn shape<T: DeserializeOwned>() -> String {
    shape_of::<T>(Codec::Postcard)
}

/// A row of the page, and what the code says.
macro_rules! rows {
    ($($type:ty => $shape:literal,)*) => {
        [$((stringify!($type), shape::<$type>(), $shape)),*]
    };
}

#[test]
fn types_have_the_shapes_of_the_page() {
    let rows = rows! {
        u64 => "u64",
        usize => "u64",
        String => "string",
        Vec<u8> => "[u8]",
        Option<u8> => "u8?",
        (u8, String) => "(u8, string)",
        [u8; 16] => "[u8; 16]",
        HashMap<String, u32> => "{string: u32}",
        () => "()",
        Value => "any",
        Page => "Page { title: string, views: u64 }",
        Nested => "Nested { page: Page { title: string, views: u64 }, other: Page?, pages: [Page] }",
        Id => "Id(u32)",
        Marker => "Marker",
        Kind => "Kind(A | B(u32) | C(u8, string) | D { x: u8 } | E(Page { title: string, views: u64 }))",
        Single => "Single(A |)",
        Tree => "Tree { children: [Tree], label: string }",
        Duration => "Duration { secs: u64, nanos: u32 }",
        IpAddr => "IpAddr(V4([u8; 4]) | V6([u8; 16]))",
    };
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/format/record.md");
    let page = std::fs::read_to_string(page).unwrap();
    for (name, shape, expected) in rows {
        assert_eq!(shape, expected, "{name}");
        let row = format!("| `{name}` | `{}` |", shape.replace('|', "\\|"));
        assert!(page.contains(&row), "docs/format/record.md has no row {row}");
    }
}

#[test]
fn every_kind_of_type_has_a_shape() {
    let rows = rows! {
        bool => "bool",
        i8 => "i8",
        i16 => "i16",
        i32 => "i32",
        i64 => "i64",
        isize => "i64",
        i128 => "i128",
        u8 => "u8",
        u16 => "u16",
        u32 => "u32",
        u128 => "u128",
        f32 => "f32",
        f64 => "f64",
        char => "char",
        Bytes => "bytes",
        Box<str> => "string",
        Cow<'static, str> => "string",
        Cell<f64> => "f64",
        Option<Option<u8>> => "u8??",
        Option<()> => "()?",
        Vec<Vec<Option<String>>> => "[[string?]]",
        BTreeMap<u8, BTreeSet<i8>> => "{u8: [i8]}",
        Greedy => "{char: f32}",
        (u8,) => "[u8; 1]",
        [String; 0] => "()",
        [[u8; 2]; 3] => "[[u8; 2]; 3]",
        (u8, u16, Vec<u8>, Vec<u8>) => "(u8, u16, [u8], [u8])",
        (Vec<u8>, Vec<u8>) => "[[u8]; 2]",
        Range<u8> => "Range { start: u8, end: u8 }",
        Result<u8, String> => "Result(Ok(u8) | Err(string))",
        SystemTime => "SystemTime { secs_since_epoch: u64, nanos_since_epoch: u32 }",
        NonZeroU32 => "u32",
        NonZeroI8 => "i8",
        Pair => "Pair(u8, string)",
        Empty => "Empty {}",
        Void => "Void(|)",
        InSequence => "InSequence { a: u8, b: string }",
        Disguised => "\"u8\"",
        Transparent => "[u8]",
        Renamed => "page { \"my \\\"title\\\"\": string, a: u8, missing: u16 }",
    };
    for (name, shape, expected) in rows {
        assert_eq!(shape, expected, "{name}");
    }
}

#[test]
fn a_type_of_another_argument_is_another_type_of_the_same_name() {
    let rows = rows! {
        Wrapper<Wrapper<u8>> => "Wrapper { inner: Wrapper#2 { inner: u8 } }",
        (Result<u8, String>, Result<String, u8>, Result<String, u8>) =>
            "(Result(Ok(u8) | Err(string)), Result#2(Ok(string) | Err(u8)), Result#2)",
        (Wrapper<u8>, Wrapper<u8>) => "[Wrapper { inner: u8 }; 2]",
    };
    for (name, shape, expected) in rows {
        assert_eq!(shape, expected, "{name}");
    }
}

#[test]
fn recursive_types_end_with_all_they_hold() {
    let rows = rows! {
        List => "List { next: List?, value: u8 }",
        // No value of this type can be made, so its field is all that there is.
        Endless => "Endless { next: Endless }",
        Expression => "Expression(Sum(Expression, Expression) \
            | Block([Statement(Return(Expression) \
            | If { condition: Expression, then: Statement } | None)]) \
            | Number(i64) \
            | Last(Operator(Plus | Minus(Sign(Big | Small(Sign2(One | Two(u8))?))) | Other(Sign))))",
        Vec<Option<Tree>> => "[Tree { children: [Tree], label: string }?]",
    };
    for (name, shape, expected) in rows {
        assert_eq!(shape, expected, "{name}");
    }
    // Without a name, only the depth ends it.
    let unnamed = shape::<Unnamed>();
    assert!(unnamed.starts_with("[[[[") && unnamed.len() < 300, "{unnamed}");
}

#[test]
fn what_refuses_plain_values_hides_nothing_else() {
    let rows = rows! {
        Even => "string",
        (Even, u8) => "(string, _)",
        (NonZeroU32, u8) => "(u32, u8)",
        Vec<Refusing> => "[Refusing { date: string, id: u32, name: string, kind: Kind(A | B(u32) \
            | C(u8, string) | D { x: u8 } | E(Page { title: string, views: u64 })) }]",
        Option<(Even, u8)> => "(string, _)?",
    };
    for (name, shape, expected) in rows {
        assert_eq!(shape, expected, "{name}");
    }
}

#[test]
fn what_asks_the_data_is_any() {
    let rows = rows! {
        Untagged => "any",
        Tagged => "any",
        Flattened => "{string: any}",
        Holder => "Holder { untagged: any, last: u8 }",
        Box<serde_json::value::Number> => "any",
        Vec<Value> => "[any]",
        Adjacent => "Adjacent { type: Adjacent#2(Number | Text | Unit), content: (u8 | string | any) }",
    };
    for (name, shape, expected) in rows {
        assert_eq!(shape, expected, "{name}");
    }
}

#[test]
fn what_asks_the_data_anywhere_is_found() {
    macro_rules! check {
        ($expected:literal: $($type:ty,)*) => {
            $(assert_eq!(asks_the_data::<$type>(), $expected, stringify!($type));)*
        };
    }
    check! { true:
        Untagged, Tagged, Flattened, Holder, Adjacent, Value, Raw, Event, Thread, (String, Value),
        Vec<Value>, Option<Value>, BTreeMap<String, Value>, BTreeMap<u8, (u8, Untagged)>,
        Option<Wrapper<Untagged>>, [Value; 3], (u32, Option<Untagged>), Box<[(u8, Raw)]>,
    }
    check! { false:
        u8, String, Vec<u8>, (u8, String), Page, Nested, Id, Pair, Marker, Empty, Kind, Single, Void, Tree,
        List, Endless, Expression, Refusing, Renamed, Disguised, Transparent, Unnamed, Newtypes, Even,
        InSequence, Bytes, Greedy, Reference, IpAddr, SocketAddr, Duration, SystemTime, NonZeroI8,
        Range<u8>, Cell<u8>, BTreeSet<String>, HashMap<String, Page>, Cow<'static, str>, Box<Path>,
        Result<u8, String>, std::ops::Bound<u8>, std::ffi::OsString, std::num::Wrapping<u8>,
    }
}

#[test]
fn types_are_asked_as_the_codec_asks_them() {
    assert_eq!(shape_of::<IpAddr>(Codec::Json), "string");
    assert_eq!(shape_of::<(SocketAddr, u8)>(Codec::Json), "(string, u8)");
    assert_eq!(shape_of::<Page>(Codec::Json), shape_of::<Page>(Codec::Postcard));
}

#[test]
fn types_that_differ_in_a_name_an_order_or_a_type_differ_in_shape() {
    mod other {
        use super::*;
        types! {
            struct Page { views: u64, title: String }
        }
        pub mod field {
            use super::*;
            types! {
                struct Page { title: String, seen: u64 }
            }
            pub fn shape() -> String {
                super::super::shape::<Page>()
            }
        }
        pub mod kind {
            use super::*;
            types! {
                struct Page { title: String, views: u32 }
            }
            pub fn shape() -> String {
                super::super::shape::<Page>()
            }
        }
        pub fn shape() -> String {
            super::shape::<Page>()
        }
    }
    let shapes = [
        shape::<Page>(),
        other::shape(),
        other::field::shape(),
        other::kind::shape(),
        shape::<Wrapper<Page>>(),
        shape::<Wrapper<Option<Page>>>(),
        shape::<Wrapper<Wrapper<Page>>>(),
        shape::<Vec<Page>>(),
        shape::<(Page,)>(),
        shape::<(Page, Page)>(),
        shape::<BTreeMap<Page2, Page>>(),
        shape::<Result<Page, ()>>(),
        shape::<Result<(), Page>>(),
    ];
    let unique: BTreeSet<&String> = shapes.iter().collect();
    assert_eq!(unique.len(), shapes.len(), "{shapes:#?}");
}

types! {
    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    struct Page2 { title: String }
}

#[test]
fn a_long_shape_is_cut_and_still_differs_by_its_end() {
    type Long<T> = Many<Many<Many<Many<T>>>>;
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape is looked at")]
    struct Many<T> {
        #[serde(
            rename = "a long name, with ünicode, that nobody would like to read, but may write"
        )]
        first: [Option<()>; 3],
        #[serde(
            rename = "another long name, with ünicode, that nobody would like to read, either"
        )]
        second: [Option<()>; 3],
        rest: Range<Vec<T>>,
    }
    let (one, other) = (shape::<Long<Long<u8>>>(), shape::<Long<Long<u16>>>());
    for long in [&one, &other] {
        assert!(
            long.len() <= SHAPE_BYTES_MAX && long.len() > SHAPE_BYTES_MAX - 4,
            "{}",
            long.len()
        );
    }
    let (start, digest) = one.split_once(".. blake3:").unwrap();
    assert_eq!(digest.len(), 32);
    assert!(other.starts_with(start) && one != other, "{other}");
    assert!(shape::<Many<u8>>().len() < SHAPE_BYTES_MAX && !shape::<Many<u8>>().contains("blake3"));
}

#[test]
fn the_outermost_shape_is_a_name_or_a_kind_of_json() {
    let rows = [
        (outer_shape_of::<Page>(Codec::Json), "Page"),
        (outer_shape_of::<Kind>(Codec::Json), "Kind"),
        (outer_shape_of::<Id>(Codec::Json), "Id"),
        (outer_shape_of::<Option<Page>>(Codec::Json), "Page?"),
        (outer_shape_of::<Option<Option<u8>>>(Codec::Json), "number??"),
        (outer_shape_of::<Value>(Codec::Json), "any"),
        (outer_shape_of::<Untagged>(Codec::Json), "any"),
        (outer_shape_of::<Flattened>(Codec::Json), "{string: any}"),
        (outer_shape_of::<HashMap<u8, Page>>(Codec::Json), "{string: any}"),
        (outer_shape_of::<Vec<Page>>(Codec::Json), "[any]"),
        (outer_shape_of::<(u8, Page)>(Codec::Json), "[any]"),
        (outer_shape_of::<Bytes>(Codec::Json), "[any]"),
        (outer_shape_of::<i128>(Codec::Json), "number"),
        (outer_shape_of::<f32>(Codec::Json), "number"),
        (outer_shape_of::<bool>(Codec::Json), "bool"),
        (outer_shape_of::<char>(Codec::Json), "string"),
        (outer_shape_of::<IpAddr>(Codec::Json), "string"),
        (outer_shape_of::<()>(Codec::Json), "null"),
        (outer_shape_of::<Renamed>(Codec::Json), "page"),
    ];
    for (shape, expected) in rows {
        assert_eq!(shape, expected);
    }
}

/// A large array that is read as bytes.
struct Large(#[allow(dead_code, reason = "it takes its room")] [u8; 16_384]);

impl<'de> Deserialize<'de> for Large {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<u8>::deserialize(deserializer).map(|_| Self([0; 16_384]))
    }
}

#[test]
fn types_without_a_name_that_hold_themselves_and_much_else_fit_a_threads_stack() {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Tree(#[allow(dead_code, reason = "only read")] Vec<(Tree, Large)>);
    let thread = std::thread::Builder::new().stack_size(2 << 20);
    let traced = thread.spawn(|| shape_of::<Tree>(Codec::Postcard)).unwrap();
    assert!(traced.join().unwrap().starts_with("[([(["));
}
