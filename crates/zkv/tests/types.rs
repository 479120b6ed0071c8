//! Which types a collection takes, and what they are told apart by.

use std::borrow::{Borrow, Cow};
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};
use zkv::{Codec, Collection, CollectionOptions, Error, ErrorKind, Options, Store};
use zkv_io::MemoryStorage;

fn open() -> Store {
    Options::new().storage(Arc::new(MemoryStorage::new())).open("s.zkv").unwrap()
}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
#[serde(untagged)]
enum Meta {
    Number(u32),
    Text(String),
}

#[derive(Serialize, Deserialize)]
struct Document {
    id: u32,
    extra: Value,
}

#[derive(Serialize, Deserialize)]
enum Event {
    Click { x: u32 },
    Custom(Value),
}

/// What serde_json's `RawValue` reads and writes.
#[derive(Serialize, Deserialize)]
#[serde(rename = "$serde_json::private::RawValue")]
struct Raw(String);

#[test]
fn keys_that_ask_the_data_are_refused_with_any_codec() {
    fn check<K: Serialize + DeserializeOwned>() {
        let store = open();
        for codec in [Codec::Postcard, Codec::Json] {
            let options = CollectionOptions::new().codec(codec).key_type("a name");
            let refused = store.collection_with::<K, u32>("c", &options).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Encoding);
            let message = refused.to_string();
            assert!(message.contains("keys") && message.contains("another type"), "{message}");
        }
        assert!(store.collections().is_empty());
    }
    // `Number(0)` and `Text("")` are one byte, and the same.
    check::<Meta>();
    check::<(u32, Option<Meta>)>();
    check::<Value>();
    check::<(String, Value)>();
    check::<Vec<Raw>>();
}

#[test]
fn values_that_ask_the_data_are_refused_but_as_json() {
    fn check<V: Serialize + DeserializeOwned>() {
        let store = open();
        let refused = store.collection::<u32, V>("c").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Encoding);
        let message = refused.to_string();
        assert!(message.contains("values") && message.contains("Codec::Json"), "{message}");
        assert!(store.collections().is_empty());
        let json = CollectionOptions::new().codec(Codec::Json);
        store.collection_with::<u32, V>("c", &json).unwrap();
    }
    check::<Document>();
    check::<Vec<Value>>();
    check::<Option<Value>>();
    check::<BTreeMap<String, Value>>();
    check::<Event>();
    check::<(u8, Raw)>();
    let store = open();
    let json = CollectionOptions::new().codec(Codec::Json);
    let documents: Collection<u32, Document> = store.collection_with("d", &json).unwrap();
    documents.set(&1, &Document { id: 7, extra: json!({"a": [1]}) }).unwrap();
    assert_eq!(
        documents.get(&1).unwrap().map(|one| (one.id, one.extra)),
        Some((7, json!({"a": [1]})))
    );
}

#[derive(Serialize, Deserialize)]
#[allow(dead_code, reason = "it is only asked about")]
enum State {
    New,
    #[serde(skip)]
    Loading,
    Done(u8),
}

#[derive(Serialize, Deserialize)]
struct Cached {
    body: String,
    #[serde(skip_deserializing)]
    hits: u32,
}

#[test]
fn types_that_read_something_else_than_they_write_are_refused_but_where_json_has_names() {
    fn check<T: Serialize + DeserializeOwned>() {
        let store = open();
        let json = CollectionOptions::new().codec(Codec::Json).value_type("a name");
        let refusals = [
            ("values", store.collection::<u32, T>("c").unwrap_err()),
            ("keys", store.collection::<T, u32>("c").unwrap_err()),
            ("keys", store.collection_with::<T, T>("c", &json).unwrap_err()),
        ];
        for (what, refused) in refusals {
            assert_eq!(refused.kind(), ErrorKind::Encoding);
            let message = refused.to_string();
            let remedy = if what == "keys" { "another order" } else { "Codec::Json" };
            assert!(message.contains(what) && message.contains(remedy), "{message}");
        }
        assert!(store.collections().is_empty());
        store.collection_with::<u32, T>("c", &json).unwrap();
    }
    check::<State>();
    check::<Cached>();
    check::<Vec<(u8, Option<State>)>>();
    let store = open();
    let json = CollectionOptions::new().codec(Codec::Json);
    let states: Collection<u32, State> = store.collection_with("s", &json).unwrap();
    states.set(&1, &State::Done(7)).unwrap();
    assert!(matches!(states.get(&1), Ok(Some(State::Done(7)))));
}

/// Whether what is set under one key is got under the other.
fn is_one_key<A, B>(one: &A, other: &B) -> bool
where
    A: Serialize + ?Sized,
    B: Serialize + ?Sized,
{
    let store = open();
    store.set(one, &1u8).unwrap();
    store.set(other, &2u8).unwrap();
    let is_one = store.get(one).unwrap() == Some(2u8);
    assert_eq!(store.len(), if is_one { 1 } else { 2 });
    is_one
}

#[test]
fn keys_of_different_types_that_are_written_alike_are_one_but_in_collections() {
    assert!(is_one_key(&1u32, &1u64));
    assert!(is_one_key("ab", &b"ab"[..]));
    assert!(is_one_key(&1u64, &true));
    assert!(is_one_key(&Some(5u8), &(1u8, 5u8)));
    assert!(is_one_key(&7i32, &14u64) && !is_one_key(&7i32, &7u64));
    assert!(!is_one_key(&[1u8, 2, 3], &[1u8, 2, 3][..]));

    let store = open();
    let numbers: Collection<u64, u8> = store.collection("numbers").unwrap();
    let flags: Collection<bool, u8> = store.collection("flags").unwrap();
    numbers.set(&1, &1).unwrap();
    flags.set(&true, &2).unwrap();
    assert_eq!((numbers.get(&1).unwrap(), flags.get(&true).unwrap()), (Some(1), Some(2)));
}

/// Borrows as text, and is written as a number.
#[derive(Debug, PartialEq)]
struct Language(&'static str);

impl Borrow<str> for Language {
    fn borrow(&self) -> &str {
        self.0
    }
}

impl Serialize for Language {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(u8::from(self.0 == "de"))
    }
}

impl<'de> Deserialize<'de> for Language {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = u8::deserialize(deserializer)?;
        Ok(Self(if code == 1 { "de" } else { "en" }))
    }
}

/// Borrows as one of its fields.
#[derive(Serialize, Deserialize)]
struct Versioned {
    version: u8,
    name: String,
}

impl Borrow<str> for Versioned {
    fn borrow(&self) -> &str {
        &self.name
    }
}

/// Text that is written as it is borrowed.
#[derive(Serialize, Deserialize)]
struct Title(String);

impl Borrow<str> for Title {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// What bytes borrow as, if somebody says so.
#[derive(Serialize)]
struct Mark(u8);

impl Borrow<Mark> for Vec<u8> {
    fn borrow(&self) -> &Mark {
        &Mark(7)
    }
}

fn check_borrowed<K, Q>(key: &K, borrowed: &Q, is_taken: bool)
where
    K: Serialize + DeserializeOwned + Borrow<K> + Borrow<Q>,
    Q: Serialize + ?Sized,
{
    let store = open();
    let collection: Collection<K, u32> = store.collection("c").unwrap();
    collection.set::<K>(key, &1).unwrap();
    if is_taken {
        assert_eq!(collection.get(borrowed).unwrap(), Some(1));
        return;
    }
    for refused in [
        collection.get(borrowed).map(drop),
        collection.set(borrowed, &2),
        collection.delete(borrowed).map(drop),
    ] {
        assert!(matches!(refused, Err(Error::KeyWrittenOtherwise)), "{refused:?}");
    }
    assert_eq!((collection.len(), collection.get::<K>(key).unwrap()), (1, Some(1)));
}

#[test]
fn text_and_bytes_find_keys_that_are_written_alike_alone() {
    check_borrowed(&"key".to_owned(), "key", true);
    check_borrowed(&Box::<str>::from("key"), "key", true);
    check_borrowed::<Cow<'static, str>, str>(&"key".into(), "key", true);
    check_borrowed(&Title("key".into()), "key", true);
    check_borrowed(&vec![1u8, 2], &[1u8, 2][..], true);
    check_borrowed(&Language("de"), "de", false);
    check_borrowed(&Versioned { version: 1, name: "key".into() }, "key", false);
    check_borrowed(&vec![7u8], &Mark(7), false);
}

#[test]
fn what_could_not_be_read_again_is_not_set() {
    let store = open();
    let is_refused = |set: zkv::Result<()>| {
        assert_eq!(set.unwrap_err().kind(), ErrorKind::Limit);
    };
    let units: Collection<u32, Vec<()>> = store.collection("c").unwrap();
    units.set(&1, &vec![(); 60_000]).unwrap();
    assert_eq!(units.get(&1).unwrap().map(|units| units.len()), Some(60_000));
    is_refused(units.set(&1, &vec![(); 100_000]));
    is_refused(store.set("k", &vec![(); 100_000]));
    is_refused(store.set(&vec![(); 100_000], "v"));
    assert_eq!(units.get(&1).unwrap().map(|units| units.len()), Some(60_000));
}

#[test]
fn a_type_that_is_read_alike_opens_a_collection_by_the_name_that_it_has() {
    mod old {
        #[derive(serde::Serialize, serde::Deserialize)]
        pub struct Page {
            pub title: String,
        }
    }
    #[derive(Serialize, Deserialize)]
    struct Page {
        #[serde(alias = "Heading")]
        title: String,
    }
    #[derive(Serialize, Deserialize)]
    #[serde(rename = "Page")]
    struct Open {
        title: String,
        #[serde(flatten)]
        rest: BTreeMap<String, Value>,
    }
    let store = open();
    let json = CollectionOptions::new().codec(Codec::Json);
    for (name, options) in [("postcard", CollectionOptions::new()), ("json", json)] {
        let pages: Collection<u32, old::Page> = store.collection_with(name, &options).unwrap();
        pages.set(&1, &old::Page { title: "Home".into() }).unwrap();
        let known = store.collections().into_iter().find(|info| info.name == name).unwrap();
        let named = options.value_type(known.value_type);
        let pages: Collection<u32, Page> = store.collection_with(name, &named).unwrap();
        assert_eq!(pages.get(&1).unwrap().map(|page| page.title).as_deref(), Some("Home"));
    }
    let refused = store.collection::<u32, Page>("postcard").unwrap_err();
    assert!(refused.to_string().contains("CollectionOptions"), "{refused}");
    let json = CollectionOptions::new().codec(Codec::Json);
    let refused = store.collection_with::<u32, Open>("json", &json).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TypeMismatch);
    let named = json.value_type("Page");
    let pages: Collection<u32, Open> = store.collection_with("json", &named).unwrap();
    let page = pages.get(&1).unwrap().unwrap();
    assert_eq!((&*page.title, page.rest.len()), ("Home", 0));
}

#[test]
fn names_in_errors_are_no_commands_to_a_terminal() {
    let store = open();
    let name = "a\u{1b}[31m\nb";
    store.collection::<u32, u32>(name).unwrap();
    let options = CollectionOptions::new().value_type("\"v\"\u{7}");
    let message = store.collection_with::<u32, u32>(name, &options).unwrap_err().to_string();
    assert!(!message.contains(char::is_control), "{message:?}");
    assert!(message.contains("a\\u{1b}[31m\\nb") && message.contains("\"v\"\\u{7}"), "{message}");
}

/// A note as it was, and as it is with a field more.
#[derive(Serialize, Deserialize)]
#[serde(rename = "Note")]
struct OldNote {
    title: String,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
struct Note {
    title: String,
    #[serde(default)]
    seen: u32,
}

#[test]
fn what_get_returns_is_what_compare_and_set_expects_however_it_was_written() {
    let (store, json) = (open(), CollectionOptions::new().codec(Codec::Json));
    let old = store.collection_with::<u32, OldNote>("notes", &json).unwrap();
    old.set(&1, &OldNote { title: "a".into() }).unwrap();
    drop(old);
    let notes = store.collection_with::<u32, Note>("notes", &json).unwrap();
    let seen = notes.get(&1).unwrap().unwrap();
    let other = Note { title: "b".into(), seen: 0 };
    assert!(!notes.compare_and_set(&1, Some(&other), Some(&seen)).unwrap());
    assert!(!notes.compare_and_set(&1, None, Some(&other)).unwrap());
    assert!(notes.compare_and_set(&1, Some(&seen), Some(&other)).unwrap());
    assert_eq!(notes.get(&1).unwrap(), Some(other));

    // As somebody writes it by hand, and `zkv set` stores it.
    let themes = store.collection_with::<u32, Value>("themes", &json).unwrap();
    let raw = store.raw_collection("themes").unwrap();
    raw.set(&[1], br#"{"dark": true, "big" : 1}"#).unwrap();
    let seen = themes.get(&1).unwrap().unwrap();
    assert!(!themes.compare_and_set(&1, Some(&json!({"dark": true})), None).unwrap());
    assert!(themes.compare_and_set(&1, Some(&seen), None).unwrap());
    assert_eq!(themes.get(&1).unwrap(), None);
    assert!(!themes.compare_and_set(&1, Some(&seen), Some(&seen)).unwrap());

    // What is no value of the type is no other value, either.
    raw.set(&[1], b"{").unwrap();
    let refused = themes.compare_and_set(&1, Some(&seen), None).unwrap_err();
    assert_eq!(refused.kind(), themes.get(&1).unwrap_err().kind());
    assert!(!themes.compare_and_set(&1, None, Some(&seen)).unwrap());
}

#[test]
fn values_that_were_written_otherwise_are_compared_and_set_in_one_step() {
    let (store, json) = (open(), CollectionOptions::new().codec(Codec::Json));
    let notes = store.collection_with::<u32, Note>("notes", &json).unwrap();
    let raw = store.raw_collection("notes").unwrap();
    let count_up = || {
        for _ in 0..50 {
            let has_counted = (0..10_000).any(|_| {
                let old = notes.get(&1).unwrap().unwrap();
                let new = Note { seen: old.seen + 1, ..old.clone() };
                notes.compare_and_set(&1, Some(&old), Some(&new)).unwrap()
            });
            assert!(has_counted);
        }
    };
    raw.set(&[1], br#"{ "title": "a" }"#).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(count_up);
        }
    });
    assert_eq!(notes.get(&1).unwrap().unwrap().seen, 200);
}
