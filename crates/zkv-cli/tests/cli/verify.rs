//! `verify`: its report, and its exit codes.

use std::fs;

use serde_json::{Value, json};

use crate::{Folder, contents, filled, sorted, zkv};

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
    assert_eq!((&report["opens"], &report["error"]), (&true.into(), &Value::Null));
    assert_eq!(report["worst"], Value::Null);
    assert_eq!((&report["records"], &report["segments"]), (&1000.into(), &1.into()));
    assert_eq!(report["findings"], Value::Array(Vec::new()));
    assert_eq!((&report["findings_left_out"], &report["index"]), (&0.into(), &"compared".into()));
    assert_eq!(report["remedies"], Value::Array(Vec::new()));
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
    // That is all: whoever rebuilds the index of such a store may lose more.
    let advice = "to mend it: `zkv salvage STORE NEW` brings all that is left into a new store\n";
    assert!(text.ends_with(&format!("damaged\n{advice}")), "{text}");

    let text = zkv(&["verify", &store, "--json"]).check(3);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&report["sound"], &report["worst"]), (&false.into(), &"loss".into()));
    let findings = report["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 2, "{text}");
    // With the index, whose damage an opening finds, and without it, nothing leads past the block.
    let opens = zkv(&["stats", &store]).code == Some(0);
    assert_eq!(report["opens"], opens);
    assert_eq!((&findings[0]["file"], &findings[0]["offset"]), (&"index".into(), &640.into()));
    assert_eq!(findings[1]["severity"], "loss");
    assert_eq!(report["remedies"], json!(["salvage"]));
}

#[test]
fn a_damaged_index_alone_is_3_and_loses_nothing() {
    let folder = Folder::new();
    let store = filled(&folder);
    flip(&folder, "s.zkv.idx", 700);
    let found = zkv(&["verify", &store]);
    assert!(found.messages.contains("no record is lost"), "{found:?}");
    let text = found.check(3);
    let advice = "to mend it: `zkv rebuild-index STORE` writes the index file anew\n";
    assert!(text.ends_with(&format!("damaged\n{advice}")), "{text}");
    assert_eq!(remedies(&store), json!(["rebuild-index"]));
    zkv(&["rebuild-index", &store]).check(0);
    zkv(&["verify", &store]).check(0);
}

#[test]
fn a_foreign_file_with_the_name_of_the_index_is_mended_by_no_command() {
    let folder = Folder::new();
    let store = filled(&folder);
    let foreign = folder.write("s.zkv.idx", "precious");
    let text = zkv(&["verify", &store]).check(3);
    assert!(text.contains("until it is moved or renamed"), "{text}");
    assert!(!text.contains("to mend it"), "{text}");
    assert_eq!(remedies(&store), json!([]));
    fs::remove_file(foreign).unwrap();
    zkv(&["verify", &store]).check(0);
}

/// What `verify --json` advises.
fn remedies(store: &str) -> Value {
    let report: Value = serde_json::from_str(&zkv(&["verify", store, "--json"]).check(3)).unwrap();
    report["remedies"].clone()
}

const SLOT_BYTES: usize = 256 << 10;

/// A store of three segments at least.
fn filled_segments(folder: &Folder) -> String {
    let store = folder.text("s.zkv");
    let mut state = 1u64;
    let mut noise = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{:08x}", state >> 32)
    };
    let mut line = |n| format!("key {n}\t{}\n", (0..100).map(|_| noise()).collect::<String>());
    let table: String = (0..2000).map(&mut line).collect();
    let source = folder.write("a.tsv", table);
    zkv(&["import", &store, &source, "--slot-bytes", &SLOT_BYTES.to_string()]).check(0);
    store
}

#[test]
fn what_is_mendable_in_the_data_file_is_mended_by_a_compaction() {
    // The header of the third segment, the seal of the first one, and both beside the index.
    let (header, seal) = (
        (4096 + 2 * SLOT_BYTES + 20, "a segment's header"),
        (4096 + SLOT_BYTES - 200, "a segment's seal"),
    );
    for (places, damages_index) in
        [(&[header][..], false), (&[seal], false), (&[header, seal], true)]
    {
        let folder = Folder::new();
        let store = filled_segments(&folder);
        let before = zkv(&["export", &store]).check(0);
        for (offset, _) in places {
            flip(&folder, "s.zkv", *offset);
        }
        if damages_index {
            flip(&folder, "s.zkv.idx", 700);
        }
        let text = zkv(&["verify", &store]).check(3);
        for (_, what) in places {
            assert!(text.contains(what), "{text}");
        }
        let advice = "to mend it: `zkv compact STORE` writes anew what the data file holds, and loses no record\n";
        assert!(text.ends_with(advice), "{text}");
        // A compaction goes by the index.
        let expected =
            if damages_index { vec!["rebuild-index", "compact"] } else { vec!["compact"] };
        assert_eq!(remedies(&store), json!(expected));
        for remedy in expected {
            zkv(&[remedy, &store]).check(0);
        }
        assert!(zkv(&["verify", &store]).check(0).ends_with("sound\n"));
        assert_eq!(sorted(&zkv(&["export", &store]).check(0)), sorted(&before));
    }
}

#[test]
fn what_no_compaction_mends_is_salvaged() {
    let folder = Folder::new();
    let (store, rescued) = (filled(&folder), folder.text("new.zkv"));
    let before = zkv(&["export", &store]).check(0);
    flip(&folder, "s.zkv", 20);
    assert_eq!(remedies(&store), json!(["salvage"]));
    zkv(&["compact", &store]).check(0);
    zkv(&["verify", &store]).check(3);
    zkv(&["salvage", &store, &rescued]).check(0);
    zkv(&["verify", &rescued]).check(0);
    assert_eq!(sorted(&zkv(&["export", &rescued]).check(0)), sorted(&before));
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
    assert_eq!((&report["index"], &report["opens"]), (&"missing".into(), &false.into()));
    let text = zkv(&["verify", &store]).check(3);
    assert!(text.contains(&format!("\n{:<16}{:>16}\n", "opens", "no")), "{text}");
    assert_eq!(contents(&folder.path("s.zkv")), before);
}

#[test]
fn json_is_one_object_with_the_same_fields_whatever_fails() {
    let folder = Folder::new();
    let store = filled(&folder);
    let fields =
        |report: &Value| report.as_object().unwrap().keys().cloned().collect::<Vec<String>>();
    let report = |path: &str, code: i32| {
        let text = zkv(&["verify", path, "--json"]).check(code);
        assert_eq!(text.lines().count(), 1, "{text}");
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let sound = report(&store, 0);
    let check = |path: &str, code, sound_or_null: Value, remedies| {
        let found = report(path, code);
        assert_eq!(fields(&found), fields(&sound));
        assert_eq!((&found["sound"], &found["opens"]), (&sound_or_null, &sound_or_null));
        assert_eq!(found["remedies"], remedies);
        let error = found["error"].as_str().unwrap();
        let messages = zkv(&["verify", path]).check_messages(code);
        assert_eq!(messages, format!("zkv: {error}\n"));
    };
    check(&folder.text("missing.zkv"), 5, Value::Null, json!([]));
    let holder = zkv::Store::open(folder.path("s.zkv")).unwrap();
    check(&store, 4, Value::Null, json!([]));
    holder.close().unwrap();
    let other = folder.write("other", "x".repeat(10_000));
    check(&other, 3, false.into(), json!([]));
    // Salvage makes nothing of these.
    let noise: Vec<u8> =
        (0..50_000u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect();
    for nothing in [Vec::new(), vec![0; 50_000], noise] {
        let file = folder.write("nothing", nothing);
        check(&file, 3, false.into(), json!([]));
        assert_eq!(report(&file, 3)["worst"], Value::Null);
        zkv(&["salvage", &file, &folder.text("new.zkv")]).check(3);
    }
    // The file's header, and the first segment's.
    let mut bytes = contents(&folder.path("s.zkv"));
    bytes[..8192].fill(0);
    fs::write(&store, bytes).unwrap();
    check(&store, 3, false.into(), json!(["salvage"]));
    assert_eq!(report(&store, 3)["worst"], "loss");
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
