//! Which types a collection takes, and what they are told apart by.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zkv::{Codec, Collection, CollectionOptions, ErrorKind, Options, Store};
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
