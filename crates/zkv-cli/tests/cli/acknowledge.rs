//! `import --acknowledge`: who pipes records in learns which of them are safe.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use crate::{Folder, command, spawn, zkv, zkv_with};

const LEVELS: [&str; 3] = ["buffered", "flushed", "synced"];

#[test]
fn records_are_acknowledged_every_so_often_and_at_the_end() {
    let table = b"a\t1\nb\t2\nc\t3\na\t4\ne\t5\n";
    for level in LEVELS {
        for (interval, expected) in [("1", "1\n2\n3\n4\n5\n"), ("2", "2\n4\n5\n"), ("5", "5\n")] {
            let folder = Folder::new();
            let store = folder.text("s.zkv");
            let arguments = ["import", &store, "-", "--format", "tsv"];
            let asked = ["--durability", level, "--acknowledge", interval];
            let found = zkv_with(&[&arguments[..], &asked].concat(), table).check(0);
            assert_eq!(found, expected, "{level} {interval}");
        }
    }
}

#[test]
fn what_was_acknowledged_outlives_the_process() {
    for level in LEVELS {
        let folder = Folder::new();
        let store = folder.text("s.zkv");
        let arguments = ["import", &store, "-", "--format", "tsv", "--acknowledge", "1"];
        let mut import = command(&[&arguments[..], &["--durability", level]].concat());
        import.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = spawn(&mut import);
        let mut input = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        for number in 1..4 {
            // The input goes on: it is not its end that makes it safe.
            writeln!(input, "key {number}\tvalue {number}").unwrap();
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            assert_eq!(line, format!("{number}\n"), "{level}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(zkv(&["get", &store, "key 3"]).check(0), "value 3", "{level}");
        let stats = zkv(&["stats", &store, "--json"]).check(0);
        assert!(stats.starts_with("{\"keys\":3,"), "{level}: {stats}");
    }
}

#[test]
fn what_came_before_a_bad_line_is_acknowledged() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    let arguments = ["import", &store, "-", "--format", "tsv", "--acknowledge", "100"];
    let outcome = zkv_with(&arguments, b"a\t1\nb\t2\nno tab\nc\t3\n");
    assert!(outcome.messages.contains("standard input:3: "), "{outcome:?}");
    assert_eq!(outcome.check(5), "2\n");
}

#[test]
fn nothing_is_acknowledged_where_nothing_was_stored() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    let arguments = ["import", &store, "-", "--format", "tsv", "--acknowledge", "1"];
    assert_eq!(zkv(&arguments).check(0), "");
    zkv(&[&arguments[..6], &["0"]].concat()).check(2);
}

#[test]
fn acknowledgements_that_nobody_can_read_end_the_import() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    let source = folder.write("a.tsv", "a\t1\nb\t2\n");
    // The reading end is closed before the process can write.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut import = command(&["import", &store, &source, "--acknowledge", "1"]);
    let mut child = spawn(import.stdout(writer).stderr(Stdio::null()));
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert_eq!(zkv(&["get", &store, "a"]).check(0), "1");
}

#[test]
fn the_segments_of_a_new_store_have_the_length_asked_for() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    let source = folder.write("a.tsv", "a\t1\n");
    zkv(&["import", &store, &source, "--slot-bytes", "1000"]).check(2);
    assert!(!folder.path("s.zkv").exists());
    let import = |bytes| {
        let messages = zkv(&["import", &store, &source, "--slot-bytes", bytes]).check_messages(0);
        let header = std::fs::read(&store).unwrap();
        assert_eq!(header[64..68], 262_144u32.to_le_bytes());
        messages
    };
    let messages = import("262144");
    assert!(!messages.contains("--slot-bytes"), "{messages}");
    let messages = import("524288");
    assert!(messages.starts_with("zkv: --slot-bytes is for new stores: "), "{messages}");
    assert_eq!(messages.lines().count(), 2, "{messages}");
}
