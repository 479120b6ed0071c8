//! `verify`: its report, and its exit codes.

use std::fs;

use serde_json::Value;

use crate::{Folder, contents, zkv};

fn filled(folder: &Folder) -> String {
    let store = folder.text("s.zkv");
    let table: String = (0..1000).map(|n| format!("key {n}\tthe value of number {n}\n")).collect();
    let source = folder.write("a.tsv", table);
    zkv(&["import", &store, &source]).check(0);
    store
}

/// Flips a bit of the store's file whose name ends like this.
fn flip(folder: &Folder, name: &str, offset: usize) {
    let mut bytes = contents(&folder.path(name));
    bytes[offset] ^= 1;
    fs::write(folder.path(name), bytes).unwrap();
}

#[test]
fn a_sound_store_is_0_with_every_figure() {
    let folder = Folder::new();
    let store = filled(&folder);
    let text = zkv(&["verify", &store, "--json"]).check(0);
    assert_eq!(text.lines().count(), 1);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["sound"], true);
    assert_eq!(report["worst"], Value::Null);
    assert_eq!((&report["records"], &report["segments"]), (&1000.into(), &1.into()));
    assert_eq!(report["findings"], Value::Array(Vec::new()));
    assert_eq!((&report["findings_left_out"], &report["index"]), (&0.into(), &"compared".into()));
    for name in ["blocks", "index_buckets", "bytes"] {
        assert!(report[name].as_u64().unwrap() > 0, "{name} in {text}");
    }
    let text = zkv(&["verify", &store]).check(0);
    assert!(text.ends_with("sound\n"), "{text}");
}

#[test]
fn a_damaged_store_is_3_and_every_place_is_named() {
    let folder = Folder::new();
    let store = filled(&folder);
    flip(&folder, "s.zkv", 4096 + 3000);
    flip(&folder, "s.zkv.idx", 700);
    let found = zkv(&["verify", &store]);
    assert!(found.messages.contains("records are lost"), "{found:?}");
    let text = found.check(3);
    assert!(text.starts_with("mendable  index            640  a bucket"), "{text}");
    assert!(text.lines().nth(1).unwrap().starts_with("loss      data "), "{text}");
    assert!(text.ends_with("damaged\n"), "{text}");

    let text = zkv(&["verify", &store, "--json"]).check(3);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&report["sound"], &report["worst"]), (&false.into(), &"loss".into()));
    let findings = report["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 2, "{text}");
    assert_eq!((&findings[0]["file"], &findings[0]["offset"]), (&"index".into(), &640.into()));
    assert_eq!(findings[1]["severity"], "loss");
}

#[test]
fn a_damaged_index_alone_is_3_and_loses_nothing() {
    let folder = Folder::new();
    let store = filled(&folder);
    flip(&folder, "s.zkv.idx", 700);
    let messages = zkv(&["verify", &store]).check_messages(3);
    assert!(messages.contains("no record is lost"), "{messages}");
    zkv(&["rebuild-index", &store]).check(0);
    zkv(&["verify", &store]).check(0);
}

#[test]
fn a_store_that_does_not_open_is_3_with_a_report() {
    let folder = Folder::new();
    let store = filled(&folder);
    fs::remove_file(folder.path("s.zkv.idx")).unwrap();
    flip(&folder, "s.zkv", 4096 + 3000);
    zkv(&["get", &store, "key 1"]).check(3);
    let before = contents(&folder.path("s.zkv"));
    let text = zkv(&["verify", &store, "--json"]).check(3);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert!(report["records"].as_u64().unwrap() > 900, "{text}");
    assert_eq!(report["index"], "missing");
    assert_eq!(contents(&folder.path("s.zkv")), before);
}

#[test]
fn a_locked_store_is_4_a_missing_one_5_and_another_file_3() {
    let folder = Folder::new();
    let store = filled(&folder);
    let holder = zkv::Store::open(folder.path("s.zkv")).unwrap();
    assert_eq!(zkv(&["verify", &store]).check(4), "");
    holder.close().unwrap();
    zkv(&["verify", &folder.text("missing.zkv")]).check(5);
    let other = folder.write("other", "x".repeat(10_000));
    assert_eq!(zkv(&["verify", &other]).check(3), "");
}
