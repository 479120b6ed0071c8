//! `stats`, `backup`, `compact` and `rebuild-index`.

use crate::{Folder, contents, filled, sorted, zkv, zkv_with};

#[test]
fn stats_are_one_json_object_with_every_figure() {
    let folder = Folder::new();
    let store = filled(&folder);
    let text = zkv(&["stats", &store, "--json"]).check(0);
    assert_eq!(text.lines().count(), 1);
    let stats: serde_json::Value = serde_json::from_str(&text).unwrap();
    let raw: usize = (0..1000)
        .map(|n| format!("key {n}").len() + format!("the value of number {n}").len())
        .sum();
    assert_eq!(stats["keys"], 1000);
    assert_eq!(stats["raw_bytes"], raw);
    assert_eq!(stats["data_file_bytes"], contents(&folder.path("s.zkv")).len());
    let names = [
        "index_file_bytes",
        "live_bytes",
        "dead_bytes",
        "free_bytes",
        "segments",
        "dictionaries",
        "ratio",
    ];
    for name in names {
        assert!(stats[name].is_number(), "{name} in {text}");
    }
}

#[test]
fn stats_are_a_table_for_people() {
    let folder = Folder::new();
    let store = filled(&folder);
    let text = zkv(&["stats", &store]).check(0);
    let mut lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(lines.next().unwrap(), ["keys", "1000"]);
    assert!(text.contains("ratio"));
}

#[test]
fn a_backup_holds_the_same_and_replaces_nothing() {
    let folder = Folder::new();
    let store = filled(&folder);
    let copy = folder.text("copy.zkv");
    zkv(&["backup", &store, &copy]).check(0);
    let export = |store: &str| zkv(&["export", store, "--format", "tsv"]).check(0);
    assert_eq!(sorted(&export(&copy)), sorted(&export(&store)));
    zkv(&["set", &copy, "key 1", "changed"]).check(0);
    assert_ne!(zkv(&["backup", &store, &copy]).code, Some(0));
    assert_eq!(zkv(&["get", &copy, "key 1"]).check(0), "changed");
    let messages = zkv(&["backup", &store, &folder.text("no/copy.zkv")]).check_messages(5);
    let reason = "copy.zkv: the folder for it does not exist: make it first";
    assert!(messages.contains(reason), "{messages}");
    assert!(!folder.path("no").exists());
}

#[test]
fn a_compacted_store_is_smaller_and_holds_the_same() {
    let folder = Folder::new();
    let store = filled(&folder);
    let table: String = (0..1000).map(|n| format!("key {n}\tanother value of {n}\n")).collect();
    let source = folder.write("b.tsv", table);
    zkv(&["import", &store, &source]).check(0);
    let export = || zkv(&["export", &store, "--format", "tsv"]).check(0);
    let (before, bytes_before) = (export(), contents(&folder.path("s.zkv")).len());
    let told = zkv(&["compact", &store, "--level", "9"]).check(0);
    assert_eq!(sorted(&export()), sorted(&before));
    let bytes_after = contents(&folder.path("s.zkv")).len();
    assert!(bytes_after < bytes_before, "{bytes_before} to {bytes_after}: {told}");
    assert!(told.contains("bytes before"), "{told}");
    zkv(&["compact", &store, "--level", "99"]).check(2);
    zkv(&["compact", &folder.text("none.zkv")]).check(5);
}

#[test]
fn settings_decide_how_much_room_the_same_records_take() {
    let folder = Folder::new();
    let table: String = (0..5000).map(|n| format!("key {n}\tsome value of {n}\n")).collect();
    let source = folder.write("a.tsv", &table);
    let bytes_with = |settings: &str| {
        let store = folder.text(settings);
        zkv(&["import", &store, &source, "--settings", settings]).check(0);
        assert_eq!(sorted(&zkv(&["export", &store, "--format", "tsv"]).check(0)), sorted(&table));
        contents(&folder.path(settings)).len()
    };
    let [fast, balanced, small] = ["fast", "balanced", "small"].map(bytes_with);
    assert!(small < balanced && balanced < fast, "{small} {balanced} {fast}");
    // What a compaction is told counts for all that it writes.
    let store = folder.text("fast");
    zkv(&["compact", &store, "--settings", "small"]).check(0);
    assert_eq!(sorted(&zkv(&["export", &store, "--format", "tsv"]).check(0)), sorted(&table));
    assert!(contents(&folder.path("fast")).len() < balanced);
}

#[test]
fn a_rebuilt_index_gives_the_same_answers() {
    let folder = Folder::new();
    let store = filled(&folder);
    let export = || zkv(&["export", &store, "--format", "tsv"]).check(0);
    let before = export();
    zkv(&["rebuild-index", &store]).check(0);
    assert_eq!(sorted(&export()), sorted(&before));
    assert_eq!(zkv(&["get", &store, "key 500"]).check(0), "the value of number 500");
}

#[test]
fn a_long_store_without_an_index_file_is_told_what_writes_it() {
    let folder = Folder::new();
    let path = folder.text("s.zkv");
    let mut state = 1u64;
    let mut noise = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_le_bytes()
    };
    let long: Vec<u8> = (0..17 << 17).flat_map(|_| noise()).collect();
    let store = zkv::Store::open(&path).unwrap();
    store.set_bytes(b"long", &long).unwrap();
    store.set_bytes(b"key", b"value").unwrap();
    store.close().unwrap();
    let commands: [&[&str]; 5] = [
        &["get", &path, "key"],
        &["list", &path],
        &["stats", &path],
        &["export", &path, "-o", &folder.text("out")],
        &["backup", &path, &folder.text("copy.zkv")],
    ];
    assert_eq!(zkv(commands[0]).check_messages(0), "");
    for command in commands {
        remove_index(&path);
        let messages = zkv(command).check_messages(0);
        assert_eq!(messages.lines().count(), 1, "{messages}");
        assert!(messages.contains("`zkv rebuild-index STORE` writes it"), "{messages}");
        assert!(!folder.path("s.zkv.idx").exists());
    }
    zkv(&["rebuild-index", &path]).check(0);
    assert_eq!(zkv(commands[0]).check_messages(0), "");
    // Nobody waits for a store without keys.
    zkv(&["del", &path, "long", "key"]).check(0);
    remove_index(&path);
    assert_eq!(zkv(&["list", &path]).check_messages(0), "");
}

fn remove_index(store: &str) {
    let _ = std::fs::remove_file(format!("{store}.idx"));
}

#[test]
fn a_short_store_needs_no_index_file() {
    let folder = Folder::new();
    let store = filled(&folder);
    remove_index(&store);
    let found = zkv(&["get", &store, "key 500"]);
    assert_eq!(found.messages, "");
    assert_eq!(found.check(0), "the value of number 500");
}

/// Runs the command with so many KiB of memory.
#[cfg(target_os = "linux")]
fn zkv_within(kib: u32, arguments: &[&str]) -> std::process::Output {
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "ulimit -d \"$1\" && shift && exec \"$0\" \"$@\""]);
    shell.arg(env!("CARGO_BIN_EXE_zkv")).arg(kib.to_string()).args(arguments);
    shell.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    crate::spawn(&mut shell).wait_with_output().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn a_long_value_takes_no_memory_to_list_its_key() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    zkv(&["set", &store, "small", "value"]).check(0);
    zkv_with(&["set", &store, "long"], &vec![0xFF; 64 << 20]).check(0);
    let listed = zkv_within(48 << 10, &["list", &store, "--prefix", "small"]);
    assert_eq!(
        (listed.status.code(), &listed.stdout[..]),
        (Some(0), &b"small\n"[..]),
        "{listed:?}"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_long_value_takes_memory_once_to_get_and_to_export() {
    let folder = Folder::new();
    let (store, again) = (folder.text("s.zkv"), folder.text("again.zkv"));
    // No UTF-8, so that it is exported as Base64.
    let long = vec![0xFF; 64 << 20];
    zkv_with(&["set", &store, "long"], &long).check(0);
    let exported = zkv_within(200 << 10, &["export", &store, "-o", &folder.text("out.jsonl")]);
    assert_eq!(exported.status.code(), Some(0), "{exported:?}");
    zkv(&["import", &again, &folder.text("out.jsonl")]).check(0);
    let got = zkv_within(150 << 10, &["get", &again, "long", "-o", &folder.text("got")]);
    assert_eq!(got.status.code(), Some(0), "{got:?}");
    assert!(contents(&folder.path("got")) == long, "another value");
}
