//! `export`: the same records come out, whole, in every format.

use std::collections::BTreeMap;
use std::fs;
#[cfg(unix)]
use std::io::Write as _;
#[cfg(unix)]
use std::path::Path;
#[cfg(unix)]
use std::process::{Command, Stdio};

use crate::{Folder, contents, sorted, zkv, zkv_with};
#[cfg(unix)]
use crate::{command, spawn};

/// Lines without order or pattern, some of them far from plain.
fn json_lines() -> String {
    let mut text = String::new();
    for number in 0..500u64 {
        let noise = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        text.push_str(&format!(
            "{{\"n\": {number},  \"id\" : \"key \\u00df {noise}\",\"v\":[{noise},null,\"\\n\"]}}\n"
        ));
    }
    text
}

#[test]
fn imported_json_lines_come_out_as_they_went_in() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    let lines = json_lines();
    let source = folder.write("a.jsonl", &lines);
    zkv(&["import", &store, &source, "--key", "id"]).check(0);
    let by_id = ["export", &store, "--format", "jsonl", "--key", "id"];
    assert_eq!(sorted(&zkv(&by_id).check(0)), sorted(&lines));
    let output = folder.text("out.jsonl");
    assert_eq!(zkv(&["export", &store, "--key", "id", "-o", &output]).check(0), "");
    let written = String::from_utf8(contents(&folder.path("out.jsonl"))).unwrap();
    assert_eq!(sorted(&written), sorted(&lines));
}

#[test]
fn an_imported_table_comes_out_as_it_went_in() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    let table: String = (0..500).map(|n| format!("key {n}\tvalue {n}\t\u{df}\n")).collect();
    zkv_with(&["import", &store, "-", "--format", "tsv"], table.as_bytes()).check(0);
    let found = zkv(&["export", &store, "--format", "tsv"]).check(0);
    let order = |text: &str| {
        let lines = text.split_inclusive('\n').map(str::to_owned);
        lines.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(order(&found), order(&table));
}

#[test]
fn an_imported_folder_comes_out_as_it_went_in() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    let large: Vec<u8> = (0..3_000_000u32).flat_map(|n| n.to_le_bytes()).collect();
    let files: BTreeMap<&str, Vec<u8>> = [
        ("a.txt", b"text".to_vec()),
        ("deep/er/b", vec![0, 255, b'\n']),
        ("deep/empty", Vec::new()),
        ("large", large),
    ]
    .into();
    for (name, bytes) in &files {
        folder.write(&format!("source/{name}"), bytes);
    }
    zkv(&["import", &store, &folder.text("source")]).check(0);
    zkv(&["export", &store, "--format", "files", "-o", &folder.text("copy")]).check(0);
    for (name, bytes) in &files {
        let copy = contents(&folder.path("copy").join(name));
        assert!(copy == *bytes, "{name}: {} bytes, expected {}", copy.len(), bytes.len());
    }
    zkv(&["export", &store, "--format", "files", "-o", &folder.text("copy")]).check(5);
}

#[test]
fn pairs_make_the_same_store_again() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    let source = folder.write("a.jsonl", json_lines());
    zkv(&["import", &store, &source, "--key", "id"]).check(0);
    zkv_with(&["set", &store, "bytes"], b"\xFF\n").check(0);
    let pairs = folder.text("pairs.jsonl");
    // What is a pair itself is one within a pair.
    let pair = r#"{"key":"k","value":"v"}"#;
    zkv(&["set", &store, "k", pair]).check(0);
    for format in [&["--format", "pairs"][..], &[]] {
        let copy = folder.text(&format!("copy-{}.zkv", format.len()));
        zkv(&[&["export", &*store, "-o", &pairs], format].concat()).check(0);
        zkv(&["import", &copy, &pairs]).check(0);
        let export = |store: &str| zkv(&[&["export", store], format].concat()).check(0);
        assert_eq!(export(&store).lines().count(), 502);
        assert_eq!(sorted(&export(&store)), sorted(&export(&copy)));
        assert_eq!(zkv(&["get", &copy, "k"]).check(0), pair);
    }
    let messages = zkv(&["import", &store, &source]).check_messages(5);
    assert!(messages.contains("a.jsonl:1: ") && messages.contains("--key"), "{messages}");
}

#[test]
fn json_lines_are_those_that_the_same_field_gives_back() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    let line = r#"{"id":"k","n":1}"#;
    // Pairs, other keys, other fields and other values would be other records.
    for (key, value) in [
        ("k", line),
        ("other", line),
        ("p", r#"{"key":"p","value":"v"}"#),
        ("n", r#"{"name":"n"}"#),
        ("two", "{\"id\":\"two\",\n\"n\":1}"),
        ("text", "text"),
    ] {
        zkv(&["set", &store, key, value]).check(0);
    }
    for format in [&["--format", "jsonl"][..], &[]] {
        let found = zkv(&[&["export", &*store, "--key", "id"], format].concat());
        assert!(found.messages.contains("5 records were left out"), "{found:?}");
        assert!(found.messages.contains("--format pairs"), "{found:?}");
        assert_eq!(found.check(5), format!("{line}\n"));
    }
    let messages = zkv(&["export", &store, "--format", "jsonl"]).check_messages(2);
    assert!(messages.contains("--key"), "{messages}");
    for format in ["tsv", "pairs"] {
        let export = ["export", &*store, "--format", format, "--key", "id"];
        let messages = zkv(&export).check_messages(2);
        assert!(
            messages.contains("--key names a field of JSON lines, and goes with"),
            "{messages}"
        );
        assert!(messages.contains("--format jsonl"), "{messages}");
    }
}

#[test]
fn pairs_hold_any_bytes() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    zkv(&["set", &store, "k", "{\"id\":\"another\"}"]).check(0);
    zkv_with(&["set", &store, "b"], b"\xFF\n").check(0);
    let lines = zkv(&["export", &store]).check(0);
    let expected = [
        "{\"key\":\"b\",\"value_base64\":\"/wo=\"}",
        "{\"key\":\"k\",\"value\":\"{\\\"id\\\":\\\"another\\\"}\"}",
    ];
    assert_eq!(sorted(&lines), expected);
}

#[test]
fn records_that_have_no_line_are_counted_and_left_out() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    zkv(&["set", &store, "plain", "value"]).check(0);
    zkv(&["set", &store, "a\tkey", "value"]).check(0);
    zkv(&["set", &store, "key", "two\nlines"]).check(0);
    let found = zkv(&["export", &store, "--format", "tsv"]);
    assert!(found.messages.contains("2 records were left out"), "{found:?}");
    assert!(found.messages.contains("--format pairs"), "{found:?}");
    assert_eq!(found.check(5), "plain\tvalue\n");
}

#[test]
fn what_an_import_would_take_for_a_line_end_has_no_line() {
    let folder = Folder::new();
    let (store, copy) = (folder.text("s.zkv"), folder.text("copy.zkv"));
    for (key, value) in [("k", "v\r"), ("l", "v\rw"), ("m\r", ""), ("id", "{\"id\":\"id\"}\r")] {
        zkv(&["set", &store, key, value]).check(0);
    }
    let found = zkv(&["export", &store, "--format", "tsv"]);
    assert!(found.messages.contains("2 records were left out"), "{found:?}");
    let text = found.check(5);
    assert_eq!(
        text.split('\n').collect::<std::collections::BTreeSet<_>>(),
        ["", "l\tv\rw", "m\r\t"].into()
    );
    let found = zkv(&["export", &store, "--key", "id"]);
    assert!(found.messages.contains("4 records were left out"), "{found:?}");
    found.check(5);
    // Pairs hold any of them.
    let pairs = folder.text("pairs.jsonl");
    zkv(&["export", &store, "-o", &pairs]).check(0);
    zkv(&["import", &copy, &pairs]).check(0);
    let export = |store: &str| zkv(&["export", store]).check(0);
    assert_eq!(sorted(&export(&copy)), sorted(&export(&store)));
}

#[test]
fn keys_that_lead_out_of_the_folder_are_left_out() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    for key in ["../escaped", "/tmp/zkv-escaped", "a/../../escaped", "good", "good/below", ""] {
        zkv(&["set", &store, key, "value"]).check(0);
    }
    let copy = folder.text("deep/copy");
    let messages = zkv(&["export", &store, "--format", "files", "-o", &copy]).check_messages(5);
    // `good` and `good/below` cannot both be files; the others have no place at all.
    assert!(messages.contains("5 records were left out"), "{messages}");
    assert!(!messages.contains("escaped"), "{messages}");
    assert!(!folder.path("deep/escaped").exists() && !folder.path("escaped").exists());
    assert_eq!(fs::read_dir(folder.path("deep/copy")).unwrap().count(), 1);
}

#[test]
fn the_store_is_not_exported_into_itself() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    zkv(&["set", &store, "k", "v"]).check(0);
    zkv(&["export", &store, "-o", &store]).check(2);
    zkv(&["get", &store, "k", "-o", &store]).check(2);
    zkv(&["export", &store, "--format", "files"]).check(2);
    assert_eq!(zkv(&["get", &store, "k"]).check(0), "v");
}

#[cfg(unix)]
#[test]
fn the_store_is_not_exported_into_itself_under_another_name() {
    let folder = Folder::new();
    let [store, link] = ["s.zkv", "link.zkv"].map(|name| folder.text(name));
    zkv(&["set", &store, "k", "v"]).check(0);
    fs::hard_link(&store, folder.path("hard")).unwrap();
    std::os::unix::fs::symlink("s.zkv", &link).unwrap();
    // The index of a link lies beside the link.
    zkv(&["set", &link, "l", "w"]).check(0);
    for output in ["hard", "link.zkv", "link.zkv.idx", "s.zkv.idx"] {
        zkv(&["export", &link, "-o", &folder.text(output)]).check(2);
    }
    assert_eq!(zkv(&["get", &store, "k"]).check(0), "v");
    assert_eq!(zkv(&["get", &link, "l"]).check(0), "w");
}

#[test]
fn a_file_in_a_folder_that_does_not_exist_is_refused_with_what_to_do() {
    let folder = Folder::new();
    let (store, output) = (folder.text("s.zkv"), folder.text("none/x"));
    zkv(&["set", &store, "k", "v"]).check(0);
    for command in [&["get", &store, "k"][..], &["export", &store]] {
        let messages = zkv(&[command, &["-o", &output]].concat()).check_messages(5);
        let reason = "x: the folder for it does not exist: make it first";
        assert!(messages.contains(reason), "{messages}");
    }
    assert!(!folder.path("none").exists());
}

#[test]
fn an_export_that_fails_leaves_what_was_there() {
    let folder = Folder::new();
    let (store, output) = (folder.text("s.zkv"), folder.write("out.tsv", "as before\n"));
    let table: String =
        (0..5_000).map(|n: u32| format!("{n}\t{}\n", n.wrapping_mul(2_654_435_761))).collect();
    zkv_with(&["import", &store, "-", "--format", "tsv"], table.as_bytes()).check(0);
    let mut bytes = contents(&folder.path("s.zkv"));
    let middle = bytes.len() / 2;
    bytes[middle..middle + 2000].fill(0xA5);
    fs::write(&store, bytes).unwrap();
    let names = || fs::read_dir(folder.path(".")).unwrap().count();
    let before = names();
    zkv(&["export", &store, "--format", "tsv", "-o", &output]).check(3);
    zkv(&["get", &store, "missing", "-o", &output]).check(1);
    assert_eq!(contents(&folder.path("out.tsv")), b"as before\n");
    zkv(&["export", &store, "--format", "tsv", "-o", &folder.text("new.tsv")]).check(3);
    assert_eq!(names(), before, "nothing is left behind");
}

#[test]
fn damaged_places_are_passed_over_where_that_is_asked_for() {
    const LINES: u64 = 5_000;
    let folder = Folder::new();
    let (store, output) = (folder.text("s.zkv"), folder.write("out.tsv", "as before\n"));
    let mut table: Vec<String> =
        (0..LINES).map(|n| format!("{n}\t{}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect();
    zkv_with(&["import", &store, "-", "--format", "tsv"], table.join("\n").as_bytes()).check(0);
    let mut bytes = contents(&folder.path("s.zkv"));
    let third = bytes.len() / 3;
    for place in [third, 2 * third] {
        bytes[place] ^= 1;
    }
    fs::write(&store, bytes).unwrap();
    table.sort_unstable();
    // Each block of a kilobyte or so that is damaged costs its records, and nothing else.
    let check = |text: &str| {
        let found = sorted(text);
        assert!(
            found.iter().all(|line| table.binary_search_by(|other| (**other).cmp(line)).is_ok())
        );
        assert!(table.len() - 500 < found.len() && found.len() < table.len(), "{}", found.len());
    };
    for (arguments, is_table) in [
        (&["export", &*store, "--format", "tsv"][..], true),
        (&["list", &store, "--value-type", "bytes"], true),
        (&["list", &store], false),
    ] {
        let messages = zkv(arguments).check_messages(3);
        assert_eq!(messages.lines().count(), 1, "{messages}");
        assert!(messages.ends_with("; --keep-going goes on behind it\n"), "{messages}");
        let found = zkv(&[arguments, &["--keep-going"]].concat());
        let told = found.messages.lines().filter(|line| line.contains("damaged at byte")).count();
        assert_eq!(told, 2, "{}", found.messages);
        let last = "zkv: 2 damaged places were passed over: what they held is missing\n";
        assert!(found.messages.ends_with(last), "{}", found.messages);
        let text = found.check(3);
        if is_table {
            check(&text);
        }
        assert!(text.lines().count() > table.len() - 500);
    }
    let export = ["export", &*store, "--format", "tsv", "-o", &output];
    zkv(&export).check(3);
    assert_eq!(contents(&folder.path("out.tsv")), b"as before\n");
    zkv(&[&export[..], &["--keep-going"]].concat()).check(3);
    check(&String::from_utf8(contents(&folder.path("out.tsv"))).unwrap());
    let files = folder.text("files");
    zkv(&["export", &store, "--format", "files", "-o", &files, "--keep-going"]).check(3);
    assert!(fs::read_dir(&files).unwrap().count() as u64 > LINES - 500);
}

#[cfg(unix)]
#[test]
fn what_takes_a_files_place_has_its_rights_and_its_links() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let (store, output) = (folder.text("s.zkv"), folder.write("out.tsv", "as before\n"));
    zkv(&["set", &store, "k", "v"]).check(0);
    fs::set_permissions(&output, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("out.tsv", folder.path("link")).unwrap();
    zkv(&["export", &store, "--format", "tsv", "-o", &folder.text("link")]).check(0);
    assert_eq!(contents(&folder.path("out.tsv")), b"k\tv\n");
    assert!(folder.path("link").is_symlink());
    assert_eq!(fs::metadata(&output).unwrap().permissions().mode() & 0o777, 0o640);
    fs::write(folder.path("plain"), "").unwrap();
    zkv(&["get", &store, "k", "-o", &folder.text("new")]).check(0);
    let mode = |name| fs::metadata(folder.path(name)).unwrap().permissions().mode();
    assert_eq!(mode("new"), mode("plain"));
    zkv(&["export", &store, "-o", "/dev/null"]).check(0);
    zkv(&["export", &store, "-o", &folder.text(".")]).check(5);
}

/// Runs the command as a shell does, with all of a file's earlier contents and what others write to it.
#[cfg(unix)]
fn run_beside_others(arguments: &[&str], file: &Path, stream: usize) -> Option<i32> {
    let mut shared = fs::File::create(file).unwrap();
    shared.write_all(b"header\n").unwrap();
    let mut zkv = command(arguments);
    zkv.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let copied = shared.try_clone().unwrap();
    let zkv = if stream == 1 { zkv.stdout(copied) } else { zkv.stderr(copied) };
    let code = spawn(zkv).wait().unwrap().code();
    shared.write_all(b"footer\n").unwrap();
    code
}

#[cfg(unix)]
#[test]
fn a_file_that_a_stream_writes_to_keeps_what_others_write_there() {
    let folder = Folder::new();
    let (store, file) = (folder.text("s.zkv"), folder.path("out"));
    zkv(&["set", &store, "k", "v\n"]).check(0);
    std::os::unix::fs::symlink("/dev/stdout", folder.path("link")).unwrap();
    let (link, own) = (folder.text("link"), folder.text("out"));
    let names = [
        ("/dev/stdout", 1),
        ("/dev/fd/1", 1),
        (link.as_str(), 1),
        (own.as_str(), 1),
        ("/dev/stderr", 2),
        ("-", 1),
    ];
    for (name, stream) in names {
        let exported = ["export", &store, "--format", "pairs", "-o", name];
        assert_eq!(run_beside_others(&exported, &file, stream), Some(0), "{name}");
        let expected: &[u8] = b"header\n{\"key\":\"k\",\"value\":\"v\\n\"}\nfooter\n";
        assert_eq!(contents(&file).escape_ascii().to_string(), expected.escape_ascii().to_string());
        assert_eq!(run_beside_others(&["get", &store, "k", "-o", name], &file, stream), Some(0));
        assert_eq!(contents(&file), b"header\nv\nfooter\n", "{name}");
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_is_open_under_another_number_is_not_replaced() {
    let folder = Folder::new();
    let (store, file) = (folder.text("s.zkv"), folder.write("log", "yesterday\n"));
    zkv(&["set", &store, "k", "v"]).check(0);
    let mut shell = Command::new("sh");
    let script = "exec \"$0\" get \"$1\" k -o /dev/fd/3 3>> \"$2\"";
    shell.args(["-c", script, env!("CARGO_BIN_EXE_zkv"), &store, &file]).stderr(Stdio::piped());
    let done = spawn(&mut shell).wait_with_output().unwrap();
    assert_eq!(contents(&folder.path("log")), b"yesterday\n");
    assert_eq!(done.status.code(), Some(2), "{done:?}");
    let piped = "{ \"$0\" get \"$1\" k -o /dev/fd/3 | cat; } 3>&1";
    let mut shell = Command::new("sh");
    shell.args(["-c", piped, env!("CARGO_BIN_EXE_zkv"), &store]).stdout(Stdio::piped());
    let done = spawn(&mut shell).wait_with_output().unwrap();
    assert_eq!(done.stdout, b"v", "{done:?}");
}
