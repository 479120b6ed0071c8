//! Named collections, which programs make and the command reads.

use crate::{Folder, sorted, zkv};

fn store_with_collections(folder: &Folder) -> String {
    let path = folder.text("s.zkv");
    let store = zkv::Store::open(&path).unwrap();
    let titles: zkv::Collection<u64, String> = store.collection("titles").unwrap();
    titles.set(&7, &"Home".to_owned()).unwrap();
    titles.set(&8, &"News".to_owned()).unwrap();
    store.set("own", "value").unwrap();
    store.close().unwrap();
    path
}

#[test]
fn keys_of_a_collection_are_read_and_changed_by_its_name() {
    let folder = Folder::new();
    let store = store_with_collections(&folder);
    let of = ["--collection", "titles", "--key-type", "u64", "--value-type", "str"];
    let run =
        |command: &str, arguments: &[&str]| zkv(&[&[command, &store], arguments, &of].concat());
    assert_eq!(run("get", &["7"]).check(0), "Home\n");
    run("set", &["9", "Blog"]).check(0);
    run("del", &["7"]).check(0);
    run("del", &["7"]).check(1);
    assert_eq!(sorted(&run("list", &[]).check(0)), ["8\tNews", "9\tBlog"]);
    // The store's own keys are others.
    assert_eq!(zkv(&["list", &store, "--key-type", "str"]).check(0), "own\n");
    zkv(&["get", &store, "7", "--key-type", "u64"]).check(1);
}

#[test]
fn a_collection_is_exported_by_its_name() {
    let folder = Folder::new();
    let path = folder.text("s.zkv");
    let store = zkv::Store::open(&path).unwrap();
    let pages: zkv::Collection<Vec<u8>, Vec<u8>> = store.collection("pages").unwrap();
    pages.set(&b"home".to_vec(), &b"Welcome".to_vec()).unwrap();
    store.set_bytes(b"own", b"value").unwrap();
    let raw = store.raw_collection("pages").unwrap().iter().unwrap();
    let raw: Vec<(Vec<u8>, Vec<u8>)> = raw.collect::<Result<_, _>>().unwrap();
    let [(key, value)] = &raw[..] else { panic!("{raw:?}") };
    drop(pages);
    store.close().unwrap();
    let of = ["--collection", "pages"];
    let export = |rest: &[&str]| zkv(&[&["export", &*path], rest, &of].concat()).check(0);
    let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).unwrap();
    assert_eq!(export(&["--format", "tsv"]), format!("{}\t{}\n", text(key), text(value)));
    let line: serde_json::Value = serde_json::from_str(&export(&[])).unwrap();
    assert_eq!((&line["key"], &line["value"]), (&text(key).into(), &text(value).into()));
    let output = folder.text("files");
    export(&["--format", "files", "-o", &output]);
    let files: Vec<_> = std::fs::read_dir(&output).unwrap().collect();
    assert_eq!(files.len(), 1);
}

#[test]
fn what_a_collections_programs_could_not_read_is_neither_set_nor_imported() {
    let folder = Folder::new();
    let store = store_with_collections(&folder);
    let set = |rest: &[&str]| {
        zkv(&[&["set", &*store, "8", "Notes", "--collection", "titles"], rest].concat())
    };
    let messages = set(&[]).check_messages(2);
    assert!(messages.contains("give --key-type u64"), "{messages}");
    let messages = set(&["--key-type", "u64", "--value-type", "bytes"]).check_messages(2);
    assert!(messages.contains("give --value-type str"), "{messages}");
    let source = folder.write("a.tsv", "8\tNotes\n");
    let import = |source: &str| zkv(&["import", &store, source, "--collection", "titles"]);
    let messages = import(&source).check_messages(2);
    assert!(messages.contains("give --key-type u64"), "{messages}");
    let of = ["--collection", "titles", "--key-type", "u64", "--value-type", "str"];
    let list = || zkv(&[&["list", &*store], &of[..]].concat()).check(0);
    let before = list();
    assert_eq!(before.lines().count(), 2);
    // What was exported are the bytes of its types.
    let pairs = folder.text("pairs.jsonl");
    let export = ["export", &*store, "--collection", "titles", "--format", "pairs", "-o", &pairs];
    zkv(&export).check(0);
    import(&pairs).check(0);
    assert_eq!(sorted(&list()), sorted(&before));
    set(&["--key-type", "u64", "--value-type", "str"]).check(0);
}

#[test]
fn a_collection_that_is_not_there_is_named_as_such() {
    let folder = Folder::new();
    let store = store_with_collections(&folder);
    for command in
        [["list"].as_slice(), &["get", "1"], &["set", "1", "2"], &["del", "1"], &["export"]]
    {
        let (name, rest) = command.split_first().unwrap();
        let messages =
            zkv(&[&[name, &*store], rest, &["--collection", "none"]].concat()).check_messages(2);
        assert!(messages.contains("no collection none"), "{messages}");
    }
}

#[test]
fn stats_tell_of_each_collection() {
    let folder = Folder::new();
    let store = store_with_collections(&folder);
    let text = zkv(&["stats", &store]).check(0);
    assert!(text.contains("collection titles: 2 keys of u64, values of string, "), "{text}");
    let text = zkv(&["stats", &store, "--json"]).check(0);
    let stats: serde_json::Value = serde_json::from_str(&text).unwrap();
    let titles = &stats["collections"][0];
    assert_eq!((&titles["name"], &titles["keys"]), (&"titles".into(), &2.into()));
    assert_eq!((&titles["codec"], &titles["key_type"]), (&"postcard".into(), &"u64".into()));
    assert_eq!(stats["keys"], 3);
}

#[test]
fn records_are_imported_into_a_collection_with_its_types() {
    let folder = Folder::new();
    let store = store_with_collections(&folder);
    let source = folder.write("a.tsv", "8\tNotes\n10\tAbout\n");
    let of = ["--collection", "titles", "--key-type", "u64", "--value-type", "str"];
    let import = |source: &str, rest: &[&str]| {
        zkv(&[&["import", &store, source, "--format", "tsv"], &of[..], rest].concat())
    };
    let list = || zkv(&[&["list", &*store], &of[..]].concat()).check(0);
    import(&source, &[]).check(0);
    assert_eq!(sorted(&list()), ["10\tAbout", "7\tHome", "8\tNotes"]);
    let more = folder.write("more.tsv", "11\tTerms\n12\tImprint\n");
    import(&more, &["--atomic"]).check(0);
    assert_eq!(list().lines().count(), 5);
    // A program reads them, and the store's own keys are others.
    {
        let store = zkv::Store::open(&store).unwrap();
        let titles: zkv::Collection<u64, String> = store.collection("titles").unwrap();
        assert_eq!(titles.get(&11).unwrap().as_deref(), Some("Terms"));
        assert_eq!(store.len(), 1);
    }
    let bad = folder.write("bad.tsv", "13\tJobs\nno number\tText\n");
    let messages = import(&bad, &[]).check_messages(5);
    assert!(messages.contains("bad.tsv:2: the key: "), "{messages}");
    assert!(!messages.contains("no number"), "{messages}");
    assert_eq!(list().lines().count(), 6, "what came before stands");
}

#[test]
fn importing_into_no_collection_changes_nothing() {
    let folder = Folder::new();
    let store = store_with_collections(&folder);
    let source = folder.write("a.tsv", "k\tv\n");
    let import = |store: &str| zkv(&["import", store, &source, "--collection", "none"]);
    assert!(import(&store).check_messages(2).contains("no collection none"));
    let missing = folder.text("missing.zkv");
    import(&missing).check(5);
    zkv(&["set", &missing, "k", "v", "--collection", "none"]).check(5);
    assert!(!folder.path("missing.zkv").exists());
}
