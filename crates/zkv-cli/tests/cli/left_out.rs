//! What `export` and `list` leave out is said, and costs nobody the file that was there.

use std::fs;

use crate::{Folder, contents, store_with_titles, zkv};

/// A store with a key of its own, two collections with keys, and one without.
fn store_with_collections(folder: &Folder) -> String {
    let (path, store) = store_with_titles(folder);
    store.collection::<u8, u8>("small").unwrap().set(&1, &2).unwrap();
    store.collection::<u8, u8>("empty").unwrap();
    store.set_bytes(b"own", b"value").unwrap();
    store.close().unwrap();
    path
}

const UNNAMED: &str =
    "3 keys in 2 collections were left out: --collection NAME takes one, `zkv stats` names them";

#[test]
fn a_list_tells_of_the_collections_that_it_leaves_out() {
    let folder = Folder::new();
    let store = store_with_collections(&folder);
    let found = zkv(&["list", &store]);
    assert_eq!(found.messages, format!("zkv: {UNNAMED}\n"));
    assert_eq!(found.check(0), "own\n");
    let found = zkv(&["list", &store, "--collection", "small", "--key-type", "u64"]);
    assert_eq!(found.check_messages(0), "");
}

#[test]
fn an_export_tells_of_the_collections_that_it_leaves_out() {
    let folder = Folder::new();
    let store = store_with_collections(&folder);
    for format in ["pairs", "tsv"] {
        let found = zkv(&["export", &store, "--format", format]);
        assert_eq!(found.messages, format!("zkv: {UNNAMED}\n"));
        assert!(found.check(5).contains("own"));
    }
    let files = folder.text("files");
    let messages = zkv(&["export", &store, "--format", "files", "-o", &files]).check_messages(5);
    assert_eq!(messages, format!("zkv: {UNNAMED}\n"));
    assert_eq!(contents(&folder.path("files/own")), b"value");
    // Both kinds of what is left out are told.
    let messages = zkv(&["export", &store, "--key", "id"]).check_messages(5);
    assert!(messages.contains("1 record was left out: "), "{messages}");
    assert!(messages.contains(UNNAMED), "{messages}");
    let found = zkv(&["export", &store, "--collection", "small"]);
    assert_eq!(found.check_messages(0), "");
}

#[test]
fn collections_without_keys_are_not_worth_a_word() {
    let folder = Folder::new();
    let path = folder.text("s.zkv");
    let store = zkv::Store::open(&path).unwrap();
    store.collection::<u8, u8>("empty").unwrap();
    store.set_bytes(b"own", b"value").unwrap();
    store.close().unwrap();
    assert_eq!(zkv(&["list", &path]).check_messages(0), "");
    assert_eq!(zkv(&["export", &path]).check_messages(0), "");
}

#[test]
fn an_export_that_leaves_everything_out_leaves_the_file_as_it_was() {
    let folder = Folder::new();
    let (store, output) = (folder.text("s.zkv"), folder.write("out.jsonl", "as before\n"));
    zkv(&["set", &store, "k", "no JSON"]).check(0);
    let export =
        |output: &str| zkv(&["export", &*store, "--key", "id", "-o", output]).check_messages(5);
    let messages = export(&output);
    assert!(messages.contains("1 record was left out: "), "{messages}");
    assert!(messages.contains("out.jsonl: nothing was written"), "{messages}");
    assert_eq!(contents(&folder.path("out.jsonl")), b"as before\n");
    export(&folder.text("new.jsonl"));
    assert!(!folder.path("new.jsonl").exists());
    // What can be written takes its place.
    zkv(&["set", &store, "l", r#"{"id":"l"}"#]).check(0);
    export(&output);
    assert_eq!(contents(&folder.path("out.jsonl")), b"{\"id\":\"l\"}\n");
    // So does nothing, where there is nothing.
    zkv(&["del", &store, "k", "l"]).check(0);
    zkv(&["export", &store, "-o", &output]).check(0);
    assert_eq!(contents(&folder.path("out.jsonl")), b"");
}

#[test]
fn a_store_of_collections_alone_leaves_the_file_as_it_was() {
    let folder = Folder::new();
    let store = store_with_collections(&folder);
    zkv(&["del", &store, "own"]).check(0);
    let output = folder.write("out.jsonl", "as before\n");
    zkv(&["export", &store, "-o", &output]).check(5);
    assert_eq!(contents(&folder.path("out.jsonl")), b"as before\n");
    assert_eq!(fs::read_dir(folder.path(".")).unwrap().count(), 3, "nothing is left behind");
}

#[test]
fn json_lines_of_a_collection_have_the_keys_that_its_programs_have() {
    let folder = Folder::new();
    let path = folder.text("s.zkv");
    let store = zkv::Store::open(&path).unwrap();
    let json = zkv::CollectionOptions::new().codec(zkv::Codec::Json);
    let page = |id: serde_json::Value| serde_json::json!({ "id": id, "text": "Welcome" });
    let crawl = store.collection_with::<String, serde_json::Value>("crawl", &json).unwrap();
    crawl.set("https://a.example/", &page("https://a.example/".into())).unwrap();
    let numbers = store.collection_with::<u32, serde_json::Value>("numbers", &json).unwrap();
    numbers.set(&300, &page(300.into())).unwrap();
    numbers.set(&301, &page("302".into())).unwrap();
    let texts = store.collection::<Vec<u8>, String>("texts").unwrap();
    texts.set(&b"k".to_vec(), &r#"{"id":"k"}"#.to_owned()).unwrap();
    let tuples = store.collection_with::<(u8, String), serde_json::Value>("tuples", &json).unwrap();
    tuples.set(&(1, "a".to_owned()), &page(1.into())).unwrap();
    drop((crawl, numbers, texts, tuples));
    store.close().unwrap();
    let export =
        |name| zkv(&["export", &*path, "--collection", name, "--format", "jsonl", "--key", "id"]);
    let text = export("crawl").check(0);
    assert_eq!(text, "{\"id\":\"https://a.example/\",\"text\":\"Welcome\"}\n");
    let found = export("numbers");
    assert!(found.messages.contains("1 record was left out: the value is no"), "{found:?}");
    assert_eq!(found.check(5), "{\"id\":300,\"text\":\"Welcome\"}\n");
    assert_eq!(export("texts").check(0), "{\"id\":\"k\"}\n");
    let found = export("tuples");
    let reason = "1 record was left out: the command cannot read the type of the collection's keys";
    assert!(found.messages.contains(reason), "{found:?}");
    assert_eq!(found.check(5), "");
    // What came out of it goes back in.
    let lines = folder.write("crawl.jsonl", text);
    let of = ["--collection", "crawl", "--key", "id"];
    zkv(&["del", &path, "https://a.example/", "--collection", "crawl"]).check(0);
    zkv(&[&["import", &*path, &lines], &of[..]].concat()).check(0);
    assert_eq!(export("crawl").check(0).lines().count(), 1);
}
