//! `import`: what becomes a record, and what ends the import.

use std::fs;
use std::path::Path;
#[cfg(unix)]
use std::process::Stdio;

use crate::{Folder, sorted, zkv, zkv_with};
#[cfg(unix)]
use crate::{command, contents, spawn};

#[test]
fn a_table_gives_keys_and_the_rest_of_their_lines() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    let source = folder.write("a.tsv", "name\tsummary\nk\tv\tw\nk2\t\nlast\tno line end");
    assert_eq!(zkv(&["import", &store, &source]).check(0), "");
    assert_eq!(zkv(&["get", &store, "name"]).check(0), "summary");
    assert_eq!(zkv(&["get", &store, "k"]).check(0), "v\tw");
    assert_eq!(zkv(&["get", &store, "k2"]).check(0), "");
    assert_eq!(zkv(&["get", &store, "last"]).check(0), "no line end");
}

#[test]
fn json_lines_give_a_field_and_the_whole_line() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    let line = r#"{"x": [1, {"id": 9}], "id": "a\u0062"}"#;
    let source = folder.write("a.jsonl", format!("{line}\n{{\"id\":12}}\n"));
    zkv(&["import", &store, &source, "--key", "id"]).check(0);
    assert_eq!(zkv(&["get", &store, "ab"]).check(0), line);
    assert_eq!(zkv(&["get", &store, "12"]).check(0), "{\"id\":12}");
}

#[test]
fn a_folder_gives_paths_and_contents() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    folder.write("source/a.txt", "first");
    folder.write("source/deep/er/b", b"\x00\xFF");
    folder.write("source/empty", "");
    zkv(&["import", &store, &folder.text("source")]).check(0);
    let keys = zkv(&["list", &store]).check(0);
    assert_eq!(sorted(&keys), ["a.txt", "deep/er/b", "empty"]);
    assert_eq!(zkv(&["get", &store, "deep/er/b"]).output, b"\x00\xFF");
    assert_eq!(zkv(&["get", &store, "empty"]).check(0), "");
}

#[test]
fn a_carriage_return_at_the_end_is_of_the_line_end() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    let table =
        folder.write("a.tsv", "crlf\tv\r\nlf\tv\ntwo\tv\r\r\nin\tv\rw\r\nempty\t\r\nlast\tv\r");
    zkv(&["import", &store, &table]).check(0);
    let lines = folder.write("a.jsonl", "{\"id\":\"j\"}\r\n{\"id\":\"k\"} \n");
    zkv(&["import", &store, &lines, "--key", "id"]).check(0);
    let pairs = folder.write("b.jsonl", "{\"key\":\"pair\",\"value\":\"v\\r\"}\r\n");
    zkv(&["import", &store, &pairs]).check(0);
    for (key, expected) in [
        ("crlf", "v"),
        ("lf", "v"),
        ("two", "v\r"),
        ("in", "v\rw"),
        ("empty", ""),
        ("last", "v"),
        ("j", "{\"id\":\"j\"}"),
        ("k", "{\"id\":\"k\"} "),
        ("pair", "v\r"),
    ] {
        assert_eq!(zkv(&["get", &store, key]).check(0), expected, "{key}");
    }
}

#[test]
fn an_empty_last_line_with_a_carriage_return_is_none() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    let table = folder.write("a.tsv", "k\tv\r\n\r\n");
    zkv(&["import", &store, &table]).check(0);
    let lines = folder.write("a.jsonl", "{\"id\":\"l\"}\r\n\r\n");
    zkv(&["import", &store, &lines, "--key", "id"]).check(0);
    assert_eq!(sorted(&zkv(&["list", &store]).check(0)), ["k", "l"]);
}

#[test]
fn lines_at_the_start_of_each_source_are_skipped_and_counted() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    // Headers need be no records.
    let table = folder.write("a.tsv", "\u{feff}name\r\n\r\nk\tv\r\n");
    let short = folder.write("b.tsv", "name\n");
    let import = |arguments: &[&str]| zkv(&[&["import", &*store], arguments].concat());
    let messages = import(&[&table, &short, "--skip-lines", "2"]).check_messages(0);
    assert!(messages.starts_with("imported 1 record of 2 bytes in "), "{messages}");
    assert!(messages.ends_with(" s; 3 lines were skipped\n"), "{messages}");
    let lines = folder.write("a.jsonl", "\u{feff}# a comment\n{\"id\":\"l\"}\nno JSON\n");
    let messages = import(&[&lines, "--key", "id", "--skip-lines", "1"]).check_messages(5);
    assert!(messages.contains("imported 1 record of 11 bytes in "), "{messages}");
    assert!(messages.contains(" s; 1 line was skipped\n"), "{messages}");
    // Lines are counted from the file's start.
    assert!(messages.contains("a.jsonl:3: no JSON object"), "{messages}");
    assert_eq!(sorted(&zkv(&["list", &store]).check(0)), ["k", "l"]);
    let messages = import(&[&table, "--format", "files", "--skip-lines", "1"]).check_messages(2);
    assert!(messages.contains("--skip-lines is for tsv and jsonl"), "{messages}");
    assert!(!import(&[&short]).check_messages(5).contains("skipped"));
}

#[test]
fn a_single_file_is_a_record_under_its_name() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    let source = folder.write("deep/a.tsv", "k\tv\n");
    zkv(&["import", &store, &source, "--format", "files"]).check(0);
    assert_eq!(zkv(&["get", &store, "a.tsv"]).check(0), "k\tv\n");
}

#[test]
fn a_name_that_tells_no_format_is_met_with_the_formats_that_there_are() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    let photo = folder.write("photo", b"\xFF");
    let messages = zkv(&["import", &store, &photo]).check_messages(2);
    assert!(messages.contains("--format files stores the file itself"), "{messages}");
    let messages = zkv(&["import", &store, "-"]).check_messages(2);
    assert!(messages.contains("use --format tsv or jsonl"), "{messages}");
    assert!(!folder.path("s.zkv").exists());
}

#[test]
fn the_store_in_the_imported_folder_is_left_out() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    folder.write("a", "1");
    let root = folder.0.path().to_str().unwrap();
    // Twice: the second time, the store and its index file are there from the start.
    for _ in 0..2 {
        zkv(&["import", &store, root]).check(0);
        assert_eq!(zkv(&["list", &store]).check(0), "a\n");
    }
    #[cfg(unix)]
    {
        // Under another name, too.
        let link = folder.text("link.zkv");
        std::os::unix::fs::symlink("s.zkv", &link).unwrap();
        zkv(&["set", &link, "b", "2"]).check(0);
        zkv(&["import", &link, root]).check(0);
        assert_eq!(zkv(&["list", &link]).check(0).lines().count(), 2);
        // Nor is the index beside the link a record of the store that the link leads to.
        assert!(folder.path("link.zkv.idx").is_file());
        zkv(&["import", &store, root]).check(0);
        assert_eq!(zkv(&["list", &store]).check(0).lines().count(), 2);
    }
}

#[cfg(unix)]
#[test]
fn links_are_not_followed() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    folder.write("source/a", "1");
    folder.write("elsewhere/secret", "2");
    std::os::unix::fs::symlink(folder.path("elsewhere"), folder.path("source/link")).unwrap();
    std::os::unix::fs::symlink("a", folder.path("source/b")).unwrap();
    let messages = zkv(&["import", &store, &folder.text("source")]).check_messages(0);
    assert!(
        messages.contains("skipped 2 links, special files or files of the store"),
        "{messages}"
    );
    assert_eq!(zkv(&["list", &store]).check(0), "a\n");
}

#[test]
fn standard_input_and_several_sources_are_read_in_order() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    let first = folder.write("a.tsv", "k\tfirst\nonly\tfile\n");
    zkv_with(&["import", &store, &first, "-", "--format", "tsv"], b"k\tsecond\n").check(0);
    assert_eq!(zkv(&["get", &store, "k"]).check(0), "second");
    assert_eq!(zkv(&["get", &store, "only"]).check(0), "file");
}

#[test]
fn a_bad_line_is_named_and_what_came_before_it_stands() {
    let cases = [
        ("a.tsv", "k1\tv\nk2\tv\nno tab\nk4\tv\n", "a.tsv:3: there is no tab behind a key"),
        ("b.tsv", "k1\tv\nk2\tv\n\nk4\tv\n", "b.tsv:3: the line is empty"),
        ("a.jsonl", "{\"id\":\"k1\"}\n{\"id\":\"k2\"}\n{\"id\"\n", "a.jsonl:3: no JSON object"),
        (
            "b.jsonl",
            "{\"id\":\"k1\"}\n{\"id\":\"k2\"}\n{}\n",
            "b.jsonl:3: there is no field \"id\"",
        ),
    ];
    for (name, text, expected) in cases {
        let folder = Folder::new();
        let store = folder.text("s.zkv");
        let source = folder.write(name, text);
        let later = folder.write("later.tsv", "later\tv\n");
        let key: &[&str] = if name.ends_with("jsonl") { &["--key", "id"] } else { &[] };
        let arguments = [&["import", &store, &source, &later], key].concat();
        let messages = zkv(&arguments).check_messages(5);
        assert!(messages.contains(expected), "{messages}");
        assert!(messages.contains("imported 2 records"), "{messages}");
        assert_eq!(sorted(&zkv(&["list", &store]).check(0)), ["k1", "k2"], "{name}");
    }
}

#[test]
fn a_key_over_the_limit_is_named_by_its_line() {
    let folder = Folder::new();
    let source = folder.write("a.tsv", format!("k\tv\n{}\tv\n", "x".repeat(65_537)));
    for (how, expected) in [(&[][..], Some("k\n")), (&["--atomic"][..], None)] {
        let store = folder.text(&format!("{}.zkv", how.len()));
        let messages = zkv(&[&["import", &store, &source], how].concat()).check_messages(5);
        assert!(messages.contains("a.tsv:2: ") && messages.contains("65536"), "{messages}");
        assert!(!messages.contains("xxx"), "{messages}");
        match expected {
            Some(expected) => assert_eq!(zkv(&["list", &store]).check(0), expected),
            None => assert!(cfg!(not(unix)) || !Path::new(&store).exists()),
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_unreadable_file_ends_the_import() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    let good = folder.write("good", "1");
    // Its first page is never mapped, so reading it fails, for the superuser too.
    let unreadable = "/proc/self/mem";
    let sources = ["import", &store, "--format", "files", &good, unreadable, &good];
    let messages = zkv(&sources).check_messages(5);
    assert!(messages.contains("zkv: /proc/self/mem: "), "{messages}");
    assert!(messages.contains("imported 1 record of 5 bytes"), "{messages}");
    assert_eq!(zkv(&["list", &store]).check(0), "good\n");
}

#[test]
fn wrong_usage_creates_no_store() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    let text = folder.write("a.txt", "k\tv\n");
    let root = folder.0.path().to_str().unwrap();
    let cases: [&[&str]; 5] = [
        &["import", &store],
        &["import", &store, &text],
        &["import", &store, "-"],
        &["import", &store, "-", "--format", "files"],
        &["import", &store, root, "--format", "tsv"],
    ];
    for arguments in cases {
        zkv(arguments).check(2);
    }
    zkv(&["import", &store, &folder.text("missing.tsv")]).check(5);
    assert!(!folder.path("s.zkv").exists());
}

// Elsewhere the store stays: no number tells its file from another one under its name.
#[cfg(unix)]
#[test]
fn an_import_that_fails_leaves_no_store_that_it_has_made_for_nothing() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    let bad = folder.write("a.tsv", "no tab\n");
    let late = folder.write("b.tsv", "k\tv\nno tab\n");
    let names = || fs::read_dir(folder.path(".")).unwrap().count();
    for arguments in [&[&*bad][..], &[&bad, "--atomic"], &[&late, "--atomic"]] {
        let messages = zkv(&[&["import", &*store], arguments].concat()).check_messages(5);
        assert!(messages.contains("nothing was imported: "), "{messages}");
        assert_eq!(names(), 2, "a file is left behind {arguments:?}");
    }
    // What was there before, empty or not, stays.
    let empty = folder.write("empty.tsv", "");
    zkv(&["import", &store, &empty]).check(0);
    zkv(&["import", &store, &bad]).check(5);
    assert_eq!(zkv(&["list", &store]).check(0), "");
    // So does what came before a bad line.
    let other = folder.text("t.zkv");
    zkv(&["import", &other, &late]).check(5);
    assert_eq!(zkv(&["list", &other]).check(0), "k\n");
}

#[cfg(unix)]
#[test]
fn an_import_that_fails_leaves_another_store_that_took_the_name_of_its_own() {
    use std::io::Write;
    let folder = Folder::new();
    let (store, moved) = (folder.text("s.zkv"), folder.text("old.zkv"));
    let mut import = command(&["import", &store, "-", "--format", "tsv"]);
    import.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut import = spawn(&mut import);
    // Once it waits for its input it has the store open, and knows which file that is.
    let mut input = import.stdin.take().unwrap();
    input.write_all(&vec![b'\n'; 2 << 20]).unwrap();
    fs::rename(&store, &moved).unwrap();
    zkv(&["set", &store, "key", "value"]).check(0);
    zkv(&["rebuild-index", &store]).check(0);
    let index = contents(&folder.path("s.zkv.idx"));
    input.write_all(b"bad\n").unwrap();
    drop(input);
    let outcome = import.wait_with_output().unwrap();
    assert_eq!(outcome.status.code(), Some(5), "{outcome:?}");
    assert!(!String::from_utf8_lossy(&outcome.stderr).contains("is removed"), "{outcome:?}");
    assert_eq!(zkv(&["get", &store, "key"]).check(0), "value");
    assert_eq!(contents(&folder.path("s.zkv.idx")), index);
    assert_eq!(zkv(&["list", &moved]).check(0), "");
}

#[cfg(unix)]
#[test]
fn an_import_that_is_undone_leaves_what_has_the_name_of_its_index_file() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    let bad = folder.write("a.tsv", "no tab\n");
    // That of a store whose data file is elsewhere now.
    zkv(&["set", &store, "key", "value"]).check(0);
    zkv(&["rebuild-index", &store]).check(0);
    fs::rename(&store, folder.path("moved")).unwrap();
    let index = contents(&folder.path("s.zkv.idx"));
    zkv(&["import", &store, &bad]).check(5);
    assert!(!folder.path("s.zkv").exists());
    assert_eq!(contents(&folder.path("s.zkv.idx")), index);
    // One that cannot be replaced is nobody's concern where the store goes.
    fs::create_dir(folder.path("d.zkv.idx")).unwrap();
    let messages = zkv(&["import", &folder.text("d.zkv"), &bad]).check_messages(5);
    assert!(messages.contains("is removed") && !messages.contains("index"), "{messages}");
}

#[test]
fn empty_lines_at_the_end_are_passed_over() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    zkv_with(&["import", &store, "-", "--format", "tsv"], b"a\t1\nb\t2\n\n\n").check(0);
    let lines = b"{\"id\":\"c\"}\n\n";
    zkv_with(&["import", &store, "-", "--format", "jsonl", "--key", "id"], lines).check(0);
    assert_eq!(sorted(&zkv(&["list", &store]).check(0)), ["a", "b", "c"]);
}

#[test]
fn the_store_is_not_imported_into_itself() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    zkv(&["set", &store, "k", "v"]).check(0);
    for source in ["s.zkv", "s.zkv.idx"] {
        let source = folder.text(source);
        zkv(&["import", &store, &source, "--format", "files"]).check(2);
    }
    assert_eq!(zkv(&["list", &store]).check(0), "k\n");
}

#[test]
fn pairs_are_stored_as_they_are_and_take_no_types() {
    let folder = Folder::new();
    let (store, copy) = (folder.text("s.zkv"), folder.text("copy.zkv"));
    zkv(&["set", &store, "k", "v", "--key-type", "str"]).check(0);
    let pairs = folder.text("pairs.jsonl");
    zkv(&["export", &store, "--format", "pairs", "-o", &pairs]).check(0);
    for types in [["--key-type", "str"], ["--value-type", "u64"]] {
        let messages = zkv(&[&["import", &*copy, &pairs], &types[..]].concat()).check_messages(2);
        assert!(messages.contains("pairs hold what is stored"), "{messages}");
    }
    assert!(!folder.path("copy.zkv").exists());
    zkv(&["import", &copy, &pairs, "--key-type", "bytes"]).check(0);
    assert_eq!(zkv(&["get", &copy, "k", "--key-type", "str"]).check(0), "v");
}

#[test]
fn a_byte_order_mark_before_json_lines_is_named() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    let source = folder.write("a.jsonl", "\u{feff}{\"id\":\"k\"}\n");
    for key in [&["--key", "id"][..], &[]] {
        let messages = zkv(&[&["import", &*store, &source], key].concat()).check_messages(5);
        assert!(
            messages.contains("a.jsonl:1: ") && messages.contains("byte order mark"),
            "{messages}"
        );
    }
}
