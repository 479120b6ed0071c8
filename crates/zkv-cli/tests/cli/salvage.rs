//! `salvage`.

use std::fs;

use crate::{Folder, contents, sorted, zkv};

fn filled(folder: &Folder) -> String {
    let store = folder.text("s.zkv");
    let table: String = (0..2000).map(|n| format!("key {n}\tthe value of number {n}\n")).collect();
    let source = folder.write("a.tsv", table);
    zkv(&["import", &store, &source]).check(0);
    store
}

fn export(store: &str) -> String {
    zkv(&["export", store, "--format", "tsv"]).check(0)
}

fn damage(folder: &Folder, change: impl FnOnce(&mut Vec<u8>)) {
    let path = folder.path("s.zkv");
    let mut bytes = contents(&path);
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_store_without_headers_comes_whole() {
    let folder = Folder::new();
    let (store, rescued) = (filled(&folder), folder.text("new.zkv"));
    let before = export(&store);
    damage(&folder, |bytes| bytes[..4096 + 256].fill(0));
    assert_eq!(zkv(&["export", &store]).code, Some(3));
    let damaged = contents(&folder.path("s.zkv"));
    let table = zkv(&["salvage", &store, &rescued]).check(0);
    let rows: Vec<Vec<&str>> =
        table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["keys", "brought", "2000"]);
    assert!(rows.contains(&vec!["headers", "lost", "2"]), "{table}");
    assert_eq!(sorted(&export(&rescued)), sorted(&before));
    assert_eq!(contents(&folder.path("s.zkv")), damaged);
}

#[test]
fn a_lost_block_gives_exit_code_3_and_a_report_that_names_no_key() {
    let folder = Folder::new();
    let (store, rescued) = (filled(&folder), folder.text("new.zkv"));
    let before = export(&store);
    damage(&folder, |bytes| bytes[8000] ^= 1);
    let run = zkv(&["salvage", &store, &rescued, "--json"]);
    assert!(!run.messages.contains("key "), "{}", run.messages);
    assert!(run.messages.contains("records and not all"), "{}", run.messages);
    let text = run.check(3);
    assert_eq!(text.lines().count(), 1);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let after = export(&rescued);
    assert_eq!(report["complete"], false);
    assert_eq!(report["keys"], after.lines().count());
    assert_eq!(report["lost_blocks"], 1);
    let range = &report["lost_ranges"][0];
    let start = range["offset"].as_u64().unwrap();
    assert!((start..start + range["bytes"].as_u64().unwrap()).contains(&8000), "{text}");
    let lines = sorted(&before);
    assert!(after.lines().all(|line| lines.binary_search(&line).is_ok()));
    assert!(lines.len() > after.lines().count());
}

#[test]
fn an_existing_file_is_not_replaced_and_no_store_leaves_nothing() {
    let folder = Folder::new();
    let store = filled(&folder);
    let other = folder.write("other", "something else");
    zkv(&["salvage", &store, &other]).check_messages(5);
    assert_eq!(contents(&folder.path("other")), b"something else");
    zkv(&["salvage", &other, &folder.text("new.zkv")]).check_messages(3);
    zkv(&["salvage", &folder.text("absent"), &folder.text("new.zkv")]).check_messages(5);
    let mut names: Vec<_> =
        fs::read_dir(folder.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["a.tsv", "other", "s.zkv", "s.zkv.idx"]);
}

/// The lines of a list of doubtful keys.
fn events(folder: &Folder, name: &str) -> Vec<serde_json::Value> {
    let text = String::from_utf8(contents(&folder.path(name))).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn keys_that_may_be_superseded_are_listed_where_that_is_asked_for() {
    let folder = Folder::new();
    let (store, rescued, list) = (filled(&folder), folder.text("new.zkv"), folder.text("list"));
    damage(&folder, |bytes| bytes[8000] ^= 1);
    let run = zkv(&["salvage", &store, &rescued, "--json", "--doubtful", &list]);
    assert!(!run.messages.contains("key "), "{}", run.messages);
    let report: serde_json::Value = serde_json::from_str(&run.check(3)).unwrap();
    let events = events(&folder, "list");
    assert_eq!(report["possibly_superseded"], events.len());
    assert!(!events.is_empty());
    for event in events {
        assert_eq!(event["event"], "possibly-superseded");
        zkv(&["get", &rescued, event["key"].as_str().unwrap()]).check(0);
    }
}

#[test]
fn values_that_have_lost_a_piece_are_listed_by_their_keys() {
    let folder = Folder::new();
    let (path, list) = (folder.text("s.zkv"), folder.text("list"));
    let mut state = 1u64;
    let mut noise = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    // Longer than what stands in one record.
    let long: Vec<u8> = (0..3 << 20).map(|_| noise()).collect();
    let store = zkv::Store::open(&path).unwrap();
    store.set_bytes(b"long \xFF", &long).unwrap();
    store.close().unwrap();
    zkv(&["salvage", &path, &folder.text("whole.zkv"), "--doubtful", &list]).check(0);
    assert_eq!(contents(&folder.path("list")), b"");
    damage(&folder, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    let run = zkv(&["salvage", &path, &folder.text("new.zkv"), "--json", "--doubtful", &list]);
    let report: serde_json::Value = serde_json::from_str(&run.check(3)).unwrap();
    assert_eq!(report["incomplete_values"], 1);
    let expected = serde_json::json!({ "event": "incomplete-value", "key_base64": "bG9uZyD/" });
    assert_eq!(events(&folder, "list"), [expected]);
}

#[test]
fn a_list_of_doubtful_keys_is_a_file_of_its_own() {
    let folder = Folder::new();
    let (store, rescued) = (filled(&folder), folder.text("new.zkv"));
    let index = format!("{rescued}.idx");
    let before = contents(&folder.path("s.zkv"));
    for name in ["-", &store, &rescued, &index] {
        let run = zkv(&["salvage", &store, &rescued, "--doubtful", name]);
        assert!(!run.messages.is_empty());
        assert_eq!(run.check(2), "", "{name}");
        assert!(!folder.path("new.zkv").exists(), "{name}");
    }
    let messages = zkv(&["salvage", &store, &rescued, "--doubtful", &folder.text("none/list")])
        .check_messages(5);
    assert!(messages.contains("list: the folder for it does not exist"), "{messages}");
    // A salvage that fails leaves no list, and an older one alone.
    let list = folder.write("list", "as before");
    zkv(&["salvage", &folder.text("absent"), &rescued, "--doubtful", &list]).check_messages(5);
    assert_eq!(contents(&folder.path("list")), b"as before");
    assert_eq!(contents(&folder.path("s.zkv")), before);
}
