//! Each exit code that `--help` documents.

use std::fs;

use crate::{Folder, zkv};

#[test]
fn help_documents_every_code() {
    for arguments in [&["--help"][..], &["-h"][..]] {
        let text = zkv(arguments).check(0);
        for code in 0..=5 {
            assert!(text.contains(&format!("\n  {code}  ")), "{code} in {text}");
        }
    }
}

#[test]
fn a_missing_key_is_1_and_is_not_named() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    zkv(&["set", &store, "key", "value"]).check(0);
    let found = zkv(&["get", &store, "missing"]);
    assert_eq!(found.messages, "zkv: the key was not found\n");
    assert_eq!(found.check(1), "");
}

#[test]
fn wrong_usage_is_2() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    zkv(&["set", &store, "key", "value"]).check(0);
    let cases: [&[&str]; 8] = [
        &[],
        &["unknown"],
        &["get", &store],
        &["get", &store, "key", "--key-type", "u64"],
        &["get", &store, "key", "--value-type", "u32"],
        &["get", &store, "key", "--value-type", "str"],
        &["set", &store, "key", "-1", "--value-type", "u64"],
        &["list", &store, "--prefix", "1", "--key-type", "u64"],
    ];
    for arguments in cases {
        let found = zkv(arguments);
        assert!(!found.messages.is_empty(), "{arguments:?}");
        assert_eq!(found.check(2), "", "{arguments:?}");
    }
    assert_eq!(zkv(&["get", &store, "key"]).check(0), "value");
}

/// Windows takes no argument as long.
#[cfg(not(windows))]
#[test]
fn a_key_that_is_too_long_is_2() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    // A text takes a length in front of it, which counts.
    for (bytes, types) in [(65_537, &[][..]), (65_536, &["--key-type", "str"])] {
        let found = zkv(&[&["set", &*store, &"x".repeat(bytes), "value"], types].concat());
        assert!(found.messages.contains("exceeds the limit of 65536"), "{found:?}");
        assert_eq!(found.check(2), "");
        assert!(!folder.path("s.zkv").exists(), "made for nothing");
    }
}

#[test]
fn an_unknown_level_is_2() {
    let folder = Folder::new();
    let source = folder.write("a.tsv", "k\tv\n");
    let store = folder.text("s.zkv");
    let import =
        |option, value| zkv(&["import", &*store, &source, option, value]).check_messages(2);
    let messages = import("--level", "99");
    assert!(messages.starts_with("zkv: --level is 99, and must be from -7 to 22"), "{messages}");
    let messages = import("--slot-bytes", "99");
    assert!(messages.starts_with("zkv: --slot-bytes is 99, and must be"), "{messages}");
    assert!(!folder.path("s.zkv").exists());
}

#[test]
fn an_index_that_cannot_be_written_is_said_and_is_0() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    fs::create_dir_all(folder.path("s.zkv.idx/in-the-way")).unwrap();
    let source = folder.write("a.tsv", "k\tv\n");
    for arguments in
        [&["set", &store, "key", "value"][..], &["import", &store, &source], &["del", &store, "k"]]
    {
        let found = zkv(arguments);
        assert!(found.messages.contains("nothing that is stored is lost"), "{}", found.messages);
        found.check(0);
    }
    assert_eq!(zkv(&["get", &store, "key"]).check(0), "value");
    zkv(&["rebuild-index", &store]).check(5);
}

#[test]
fn a_damaged_store_is_3() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    zkv(&["set", &store, "key", "value"]).check(0);
    let length = fs::metadata(&store).unwrap().len();
    fs::write(&store, vec![0xA5; usize::try_from(length).unwrap()]).unwrap();
    for arguments in [&["get", &store, "key"][..], &["list", &store][..], &["stats", &store][..]] {
        let found = zkv(arguments);
        assert!(found.messages.starts_with("zkv: "), "{found:?}");
        assert_eq!(found.check(3), "", "{arguments:?}");
    }
}

#[test]
fn a_store_that_is_open_elsewhere_is_4() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    let holder = zkv::Store::open(folder.path("s.zkv")).unwrap();
    let source = folder.write("a.tsv", "k\tv\n");
    let cases: [&[&str]; 4] = [
        &["set", &store, "key", "value"],
        &["get", &store, "key"],
        &["import", &store, &source],
        &["rebuild-index", &store],
    ];
    for arguments in cases {
        let messages = zkv(arguments).check_messages(4);
        assert!(messages.contains("s.zkv is open in another process"), "{messages}");
        assert!(messages.contains("--wait") && !messages.contains("handle"), "{messages}");
    }
    let start = std::time::Instant::now();
    zkv(&["get", &store, "key", "--wait", "0.25"]).check(4);
    let waited = start.elapsed().as_millis();
    assert!((250..100_000).contains(&waited), "{waited} ms");
    let messages = zkv(&["get", &store, "key", "--wait", "a while"]).check_messages(2);
    assert!(messages.contains("number of seconds from 0 to 4294967295"), "{messages}");
    holder.close().unwrap();
    zkv(&["set", &store, "key", "value"]).check(0);
}

#[test]
fn a_missing_store_is_5_and_is_not_created() {
    let folder = Folder::new();
    let store = folder.text("missing.zkv");
    let source = folder.write("a.tsv", "k\tv\n");
    let cases: [&[&str]; 9] = [
        &["get", &store, "key"],
        &["set", &store, "key", "value", "--no-create"],
        &["import", &store, &source, "--no-create"],
        &["del", &store, "key"],
        &["list", &store],
        &["stats", &store],
        &["export", &store],
        &["backup", &store, &folder.text("copy.zkv")],
        &["rebuild-index", &store],
    ];
    for arguments in cases {
        let found = zkv(arguments);
        assert!(found.messages.contains("missing.zkv"), "{found:?}");
        found.check(5);
    }
    assert_eq!(fs::read_dir(folder.0.path()).unwrap().count(), 1);
    let message = |arguments: &[&str]| zkv(arguments).check_messages(5);
    let [get, set, import, ..] = cases;
    assert_eq!(message(set), message(get));
    assert_eq!(message(import), message(get));
}

#[test]
fn a_store_that_exists_is_written_without_being_created() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    zkv(&["set", &store, "key", "value"]).check(0);
    let source = folder.write("a.tsv", "k\tv\n");
    zkv(&["set", &store, "key", "other", "--no-create"]).check(0);
    zkv(&["import", &store, &source, "--no-create"]).check(0);
    assert_eq!(zkv(&["get", &store, "key"]).check(0), "other");
    assert_eq!(zkv(&["get", &store, "k"]).check(0), "v");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_5() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    zkv(&["set", &store, "key", "value"]).check(0);
    for arguments in [&["get", &store, "key", "-o"][..], &["export", &store, "-o"][..]] {
        let messages = zkv(&[arguments, &["/dev/full"]].concat()).check_messages(5);
        assert!(messages.contains("/dev/full"), "{messages}");
    }
}
