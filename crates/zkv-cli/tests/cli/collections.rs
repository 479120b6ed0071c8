//! Named collections, which programs make and the command reads.

use crate::{Folder, sorted, store_with_titles, zkv};

fn store_with_collections(folder: &Folder) -> String {
    let (path, store) = store_with_titles(folder);
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
    assert_eq!(export(&["--format", "tsv"]), "home\tWelcome\n");
    let line: serde_json::Value = serde_json::from_str(&export(&[])).unwrap();
    assert_eq!((&line["key"], &line["value"]), (&text(key).into(), &text(value).into()));
    let output = folder.text("files");
    export(&["--format", "files", "-o", &output]);
    assert_eq!(std::fs::read(folder.path("files").join("home")).unwrap(), b"Welcome");
}

#[test]
fn what_is_exported_from_a_collection_is_what_an_import_into_it_takes() {
    for format in ["tsv", "files"] {
        let folder = Folder::new();
        let from = store_of_many_types(&folder);
        let types = [
            ("numbers", ["u64", "u64"]),
            ("small", ["u64", "i64"]),
            ("blobs", ["str", "bytes"]),
            ("hashes", ["bytes", "i64"]),
            ("json", ["u64", "bytes"]),
        ];
        for (name, types) in types {
            let pairs = |store: &str| zkv(&["export", store, "--collection", name]).check(0);
            let (before, output) = (pairs(&from), folder.text(name));
            let of = ["--collection", name, "--format", format, "-o", &output];
            zkv(&[&["export", &*from], &of[..]].concat()).check(0);
            let opened = zkv::Store::open(&from).unwrap();
            opened.raw_collection(name).unwrap().clear().unwrap();
            opened.close().unwrap();
            assert_eq!(pairs(&from), "");
            in_collection(&from, name, types, &["import", &output, "--format", format]).check(0);
            assert_eq!(pairs(&from), before, "{name} as {format}");
        }
    }
}

#[test]
fn what_a_collections_programs_could_not_read_is_neither_set_nor_imported() {
    let folder = Folder::new();
    let store = store_with_collections(&folder);
    let with = |start: &[&str], rest: &[&str]| {
        zkv(&[start, &["--collection", "titles"][..], rest].concat())
    };
    let set = |rest: &[&str]| with(&["set", &*store, "8", "Notes"], rest);
    let messages = set(&["--key-type", "bytes"]).check_messages(2);
    assert!(messages.contains("give --key-type u64"), "{messages}");
    let messages = set(&["--key-type", "u64", "--value-type", "bytes"]).check_messages(2);
    assert!(messages.contains("give --value-type str"), "{messages}");
    let source = folder.write("a.tsv", "8\tNotes\n");
    let import = |source: &str, rest: &[&str]| with(&["import", &store, source], rest);
    let messages = import(&source, &["--key-type", "str"]).check_messages(2);
    assert!(messages.contains("give --key-type u64"), "{messages}");
    let of = ["--collection", "titles", "--key-type", "u64", "--value-type", "str"];
    let list = || zkv(&[&["list", &*store], &of[..]].concat()).check(0);
    let before = list();
    assert_eq!(before.lines().count(), 2);
    // What was exported are the bytes of its types.
    let pairs = folder.text("pairs.jsonl");
    let export = ["export", &*store, "--collection", "titles", "--format", "pairs", "-o", &pairs];
    zkv(&export).check(0);
    import(&pairs, &[]).check(0);
    assert_eq!(sorted(&list()), sorted(&before));
    set(&["--key-type", "u64", "--value-type", "str"]).check(0);
}

#[test]
fn a_collections_own_types_need_not_be_given() {
    let folder = Folder::new();
    let store = store_of_many_types(&folder);
    let run = |name: &str, command: &[&str]| {
        let (command, rest) = command.split_first().unwrap();
        zkv(&[&[command, &*store], rest, &["--collection", name, "--wait", "10"]].concat())
    };
    assert_eq!(run("numbers", &["get", "5"]).check(0), "7\n");
    assert_eq!(run("numbers", &["list"]).check(0), "5\n");
    run("small", &["set", "255", "-5"]).check(0);
    assert_eq!(
        sorted(&run("small", &["list", "--value-type", "i64"]).check(0)),
        ["200\t-300", "255\t-5"]
    );
    run("small", &["del", "200"]).check(0);
    run("blobs", &["set", "b", "text"]).check(0);
    assert_eq!(run("blobs", &["get", "b"]).check(0), "text");
    assert_eq!(run("blobs", &["list", "--prefix", "b"]).check(0), "b\n");
    assert_eq!(run("json", &["get", "1"]).check(0), "\"x\"");
    let table = folder.write("a.tsv", "6\t300\n");
    run("numbers", &["import", &table]).check(0);
    assert_eq!(run("numbers", &["get", "6"]).check(0), "300\n");
    // One of them may be given, and what does not fit is refused as it is with both.
    assert_eq!(run("numbers", &["get", "6", "--key-type", "u64"]).check(0), "300\n");
    for (name, command, problem) in [
        ("numbers", ["set", "6", "-1"].as_slice(), "the value: no u32"),
        ("numbers", &["set", "x", "1"], "the key: no u32"),
        ("numbers", &["list", "--prefix", "6"], "--prefix is for keys of type bytes and str"),
        ("flags", &["set", "1", "1"], "cannot encode the type of the collection's values"),
    ] {
        let messages = run(name, command).check_messages(2);
        assert!(messages.contains(problem), "{name} {command:?}: {messages}");
    }
    // Of a type that the command does not know, the stored bytes are shown.
    assert_eq!(run("flags", &["get", "1"]).check(0), "\u{1}");
    assert_eq!(run("tuples", &["list"]).check(0), "\u{1}\u{1}a\n");
    // The store's own keys have no type: they are bytes.
    zkv(&["set", &store, "k", "v", "--wait", "10"]).check(0);
    assert_eq!(zkv(&["get", &store, "k", "--wait", "10"]).check(0), "v");
}

/// A store with collections of many types, each with one record.
fn store_of_many_types(folder: &Folder) -> String {
    let path = folder.text("many.zkv");
    let store = zkv::Store::open(&path).unwrap();
    let json = zkv::CollectionOptions::new().codec(zkv::Codec::Json);
    store.collection::<u32, u32>("numbers").unwrap().set(&5, &7).unwrap();
    store.collection::<u8, i16>("small").unwrap().set(&200, &-300).unwrap();
    store.collection::<String, Vec<u8>>("blobs").unwrap().set("a", &b"hello".to_vec()).unwrap();
    store.collection::<[u8; 4], i8>("hashes").unwrap().set(b"abcd", &-1).unwrap();
    store.collection_with::<u16, String>("json", &json).unwrap().set(&1, &"x".to_owned()).unwrap();
    store.collection::<i32, bool>("flags").unwrap().set(&1, &true).unwrap();
    store.collection::<(u8, String), u64>("tuples").unwrap().set(&(1, "a".into()), &1).unwrap();
    store.close().unwrap();
    path
}

fn in_collection(store: &str, name: &str, types: [&str; 2], command: &[&str]) -> crate::Outcome {
    let (command, rest) = command.split_first().unwrap();
    // A process that another test has just started may still hold what this one had open.
    let of =
        ["--collection", name, "--key-type", types[0], "--value-type", types[1], "--wait", "10"];
    zkv(&[&[command, store], rest, &of].concat())
}

#[test]
fn what_is_set_in_a_collection_is_what_its_programs_read() {
    let folder = Folder::new();
    let store = store_of_many_types(&folder);
    let set = |name: &str, types: [&str; 2], key: &str, value: &str| {
        in_collection(&store, name, types, &["set", key, value])
    };
    set("numbers", ["u64", "u64"], "6", "300").check(0);
    set("small", ["u64", "i64"], "255", "-5").check(0);
    set("blobs", ["str", "bytes"], "b", "text").check(0);
    set("hashes", ["bytes", "i64"], "wxyz", "-128").check(0);
    set("json", ["u64", "bytes"], "2", " \"y\"\n").check(0);
    for (name, types, key, value, problem) in [
        ("numbers", ["u64", "u64"], "4294967296", "1", "the key: no u32"),
        ("numbers", ["u64", "u64"], "1", "-1", "the value: no u32"),
        ("small", ["u64", "i64"], "256", "1", "the key: no u8"),
        ("small", ["u64", "i64"], "1", "40000", "the value: no i16"),
        ("hashes", ["bytes", "i64"], "abc", "1", "the key: not 4 bytes"),
        ("hashes", ["bytes", "i64"], "abcd", "128", "the value: no i8"),
        ("json", ["u64", "bytes"], "2", "y", "the value: no JSON"),
        ("json", ["u64", "str"], "2", "\"y\"", "give --value-type bytes"),
        ("numbers", ["bytes", "u64"], "5", "1", "give --key-type u64"),
        ("blobs", ["str", "str"], "a", "1", "give --value-type bytes"),
        (
            "flags",
            ["i64", "bytes"],
            "1",
            "\u{1}",
            "cannot encode the type of the collection's values",
        ),
        ("tuples", ["bytes", "u64"], "a", "1", "cannot encode the type of the collection's keys"),
    ] {
        let messages = set(name, types, key, value).check_messages(2);
        assert!(messages.contains(problem), "{name}: {messages}");
    }
    let source = folder.write("a.tsv", "7\t9\n4294967296\t9\n");
    let import = |name, types| in_collection(&store, name, types, &["import", &source]);
    assert!(
        import("numbers", ["u64", "u64"]).check_messages(5).contains("a.tsv:2: the key: no u32")
    );
    assert!(import("flags", ["i64", "bytes"]).check_messages(2).contains("cannot encode the type"));
    let program = zkv::Store::open(&store).unwrap();
    let json = zkv::CollectionOptions::new().codec(zkv::Codec::Json);
    fn all<K, V>(collection: zkv::Result<zkv::Collection<K, V>>) -> Vec<(K, V)>
    where
        K: serde::Serialize + serde::de::DeserializeOwned + Ord,
        V: serde::Serialize + serde::de::DeserializeOwned,
    {
        let mut all: Vec<_> = collection.unwrap().iter().unwrap().map(|one| one.unwrap()).collect();
        all.sort_by(|one, other| one.0.cmp(&other.0));
        all
    }
    assert_eq!(all(program.collection::<u32, u32>("numbers")), [(5, 7), (6, 300), (7, 9)]);
    assert_eq!(all(program.collection::<u8, i16>("small")), [(200, -300), (255, -5)]);
    let blobs = [("a".to_owned(), b"hello".to_vec()), ("b".to_owned(), b"text".to_vec())];
    assert_eq!(all(program.collection::<String, Vec<u8>>("blobs")), blobs);
    assert_eq!(
        all(program.collection::<[u8; 4], i8>("hashes")),
        [(*b"abcd", -1), (*b"wxyz", -128)]
    );
    let texts = all(program.collection_with::<u16, String>("json", &json));
    assert_eq!(texts, [(1, "x".to_owned()), (2, "y".to_owned())]);
    assert_eq!(all(program.collection::<i32, bool>("flags")), [(1, true)]);
}

#[test]
fn what_is_read_of_a_collection_is_of_its_types() {
    let folder = Folder::new();
    let store = store_of_many_types(&folder);
    let run = |name, types, command: &[&str]| in_collection(&store, name, types, command);
    assert_eq!(run("numbers", ["u64", "u64"], &["get", "5"]).check(0), "7\n");
    assert_eq!(run("small", ["u64", "i64"], &["list"]).check(0), "200\t-300\n");
    assert_eq!(run("blobs", ["str", "bytes"], &["get", "a"]).check(0), "hello");
    assert_eq!(run("hashes", ["bytes", "i64"], &["list"]).check(0), "abcd\t-1\n");
    assert_eq!(run("json", ["u64", "bytes"], &["get", "1"]).check(0), "\"x\"");
    // Of other types, the stored bytes are shown.
    assert_eq!(run("flags", ["i64", "bytes"], &["get", "1"]).check(0), "\u{1}");
    assert_eq!(run("tuples", ["bytes", "u64"], &["list"]).check(0), "\u{1}\u{1}a\t1\n");
    run("tuples", ["bytes", "u64"], &["get", "\u{1}\u{1}a"]).check(0);
    for (name, types, command, problem) in [
        ("numbers", ["str", "u64"], ["get", "5"].as_slice(), "give --key-type u64"),
        ("numbers", ["u64", "bytes"], &["get", "5"], "give --value-type u64"),
        ("numbers", ["u64", "bytes"], &["list"], "give --value-type u64"),
        ("numbers", ["bytes", "u64"], &["list"], "give --key-type u64"),
        ("numbers", ["i64", "u64"], &["del", "5"], "give --key-type u64"),
        ("numbers", ["u64", "u64"], &["get", "4294967296"], "no u32"),
        ("numbers", ["u64", "u64"], &["del", "4294967296"], "no u32"),
    ] {
        let messages = run(name, types, command).check_messages(2);
        assert!(messages.contains(problem), "{name} {command:?}: {messages}");
    }
    run("numbers", ["u64", "u64"], &["del", "5"]).check(0);
}

#[test]
fn names_and_types_of_collections_do_not_reach_the_terminal_as_they_are() {
    let folder = Folder::new();
    let path = folder.text("s.zkv");
    let store = zkv::Store::open(&path).unwrap();
    let options = zkv::CollectionOptions::new().value_type("v\u{1b}[1m\n\"quoted\"");
    let name = "a\u{1b}[31m\nkeys \u{202e}";
    store.collection_with::<u8, u8>(name, &options).unwrap();
    store.close().unwrap();
    let text = zkv(&["stats", &path]).check(0);
    let expected = "collection a\\u{1b}[31m\\nkeys \\u{202e}: 0 keys of u8, \
        values of v\\u{1b}[1m\\n\"quoted\", 0 bytes\n";
    assert!(text.ends_with(expected), "{text:?}");
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
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["keys", "3"]);
    assert_eq!(rows[1], ["of", "these", "in", "collections", "2"]);
    let text = zkv(&["stats", &store, "--json"]).check(0);
    let stats: serde_json::Value = serde_json::from_str(&text).unwrap();
    let titles = &stats["collections"][0];
    assert_eq!((&titles["name"], &titles["keys"]), (&"titles".into(), &2.into()));
    assert_eq!((&titles["codec"], &titles["key_type"]), (&"postcard".into(), &"u64".into()));
    assert_eq!((&stats["keys"], &stats["keys_in_collections"]), (&3.into(), &2.into()));
    // The rest are those that a list shows.
    assert_eq!(zkv(&["list", &store]).check(0).lines().count(), 1);
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
    for found in [import(&missing), zkv(&["set", &missing, "k", "v", "--collection", "none"])] {
        let messages = found.check_messages(5);
        assert!(messages.contains("missing.zkv: there is no store here"), "{messages}");
        assert!(messages.contains("programs make them"), "{messages}");
    }
    assert!(!folder.path("missing.zkv").exists());
}
