//! Pipes, closed pipes, and processes that die.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use crate::{Folder, command, spawn, zkv, zkv_with};

#[test]
fn piped_output_holds_results_and_nothing_else() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    let table: String = (0..20_000).map(|n| format!("key {n}\tvalue {n}\n")).collect();
    let import = zkv_with(&["import", &store, "-", "--format", "tsv"], table.as_bytes());
    assert!(import.output.is_empty());
    // One line, without a bar, a colour or a carriage return.
    assert_eq!(import.messages.lines().count(), 1, "{import:?}");
    assert!(import.messages.starts_with("imported 20000 records of "), "{import:?}");
    let export = zkv(&["export", &store, "--format", "tsv"]);
    let rebuild = zkv(&["rebuild-index", &store]);
    for messages in [&import.messages, &export.messages, &rebuild.messages] {
        assert!(!messages.contains(['\r', '\u{1b}']), "{messages:?}");
    }
    assert_eq!(export.messages, "");
    assert_eq!(export.check(0).len(), table.len());
    assert_eq!(rebuild.messages, "");
    rebuild.check(0);
}

#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    let table: String = (0..100_000).map(|n| format!("key {n}\tvalue {n}\n")).collect();
    zkv_with(&["import", &store, "-", "--format", "tsv"], table.as_bytes()).check(0);
    let mut export = command(&["export", &store, "--format", "tsv"]);
    let mut child = spawn(export.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("key "));
    let mut messages = String::new();
    child.stderr.take().unwrap().read_to_string(&mut messages).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(messages, "");
}

#[test]
fn a_verdict_is_the_same_where_nobody_reads_the_report() {
    let folder = Folder::new();
    let (store, destination) = (folder.text("s.zkv"), folder.text("d.zkv"));
    zkv_with(&["import", &store, "-", "--format", "tsv"], b"key\tvalue\n").check(0);
    let mut bytes = fs::read(&store).unwrap();
    bytes[4096 + 256 + 9] ^= 1;
    fs::write(&store, bytes).unwrap();
    for arguments in [&["verify", &store][..], &["salvage", &store, &destination]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut child = spawn(command(arguments).stdout(writer).stderr(Stdio::null()));
        assert_eq!(child.wait().unwrap().code(), Some(3), "{arguments:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_command_whose_messages_cannot_be_written_ends_with_its_own_code() {
    let folder = Folder::new();
    let (store, source) = (folder.text("s.zkv"), folder.write("a.tsv", "key\tvalue\n"));
    for (arguments, code) in [(&["import", &store, &source][..], 0), (&["get", &store, "none"], 1)]
    {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut child = spawn(command(arguments).stderr(full));
        assert_eq!(child.wait().unwrap().code(), Some(code), "{arguments:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn help_that_cannot_be_written_is_a_failure_unless_nobody_reads_on() {
    for arguments in [&["--help"][..], &["--version"], &["import", "--help"]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut child = spawn(command(arguments).stdout(full).stderr(Stdio::null()));
        assert_eq!(child.wait().unwrap().code(), Some(5), "{arguments:?}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut child = spawn(command(arguments).stdout(writer).stderr(Stdio::null()));
        assert_eq!(child.wait().unwrap().code(), Some(0), "{arguments:?}");
    }
}

#[test]
fn a_command_waits_for_another_one_where_it_is_told_to() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    zkv(&["set", &store, "key", "value"]).check(0);
    let mut import = command(&["import", &store, "-", "--format", "tsv", "--wait", "600"]);
    let mut import = spawn(import.stdin(Stdio::piped()).stderr(Stdio::null()));
    // Those who look whether it has the store open have it themselves meanwhile.
    while zkv(&["get", &store, "key"]).code == Some(0) {}
    assert_eq!(zkv(&["get", &store, "key"]).code, Some(4));
    let commands: [&[&str]; 4] = [
        &["get", &store, "key"],
        &["set", &store, "other", "value"],
        &["verify", &store],
        &["salvage", &store, &folder.text("d.zkv")],
    ];
    let mut waiting: Vec<_> = commands
        .iter()
        .map(|arguments| {
            let mut command = command(arguments);
            command.args(["--wait", "600"]).stdout(Stdio::null()).stderr(Stdio::null());
            spawn(&mut command)
        })
        .collect();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(waiting.iter_mut().all(|child| child.try_wait().unwrap().is_none()));
    drop(import.stdin.take());
    assert!(import.wait().unwrap().success());
    for child in &mut waiting {
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
    zkv(&["get", &store, "other"]).check(0);
}

#[test]
fn an_atomic_import_that_cannot_be_kept_ends_at_once() {
    let folder = Folder::new();
    let arguments = ["import", &folder.text("s.zkv"), "-", "--format", "tsv", "--atomic"];
    let mut import = command(&arguments);
    for name in ["TMPDIR", "TMP", "TEMP"] {
        import.env(name, folder.path("none"));
    }
    let mut child = spawn(import.stdin(Stdio::piped()).stderr(Stdio::piped()));
    let mut input = child.stdin.take().unwrap();
    let line = format!("key\t{}\n", "value ".repeat(1000));
    // It goes on for ever, as far as the command knows.
    while input.write_all(line.as_bytes()).is_ok() {}
    let mut messages = String::new();
    child.stderr.take().unwrap().read_to_string(&mut messages).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5), "{messages}");
    assert!(messages.contains("temporary file in"), "{messages}");
}

/// A value that compresses badly, so that much is written soon.
fn value_of(number: u64) -> String {
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut value = String::new();
    for _ in 0..16 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        value.push_str(&format!("{state:016x}"));
    }
    value
}

#[test]
fn a_killed_import_leaves_a_store_that_opens_with_a_prefix_of_its_lines() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    let mut import = command(&["import", &store, "-", "--format", "tsv"]);
    let mut child = spawn(import.stdin(Stdio::piped()).stderr(Stdio::null()));
    let mut input = child.stdin.take().unwrap();
    let mut given = 0;
    // The pipe is short, so the import keeps pace; it is killed once some of it is in the file.
    while fs::metadata(&store).map_or(0, |found| found.len()) < 2 << 20 {
        assert!(given < 1_000_000, "nothing is ever written");
        for _ in 0..1000 {
            writeln!(input, "{given}\t{}", value_of(given)).unwrap();
            given += 1;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();

    let text = zkv(&["export", &store, "--format", "tsv"]).check(0);
    let found: BTreeMap<u64, &str> = text
        .lines()
        .map(|line| line.split_once('\t').unwrap())
        .map(|(key, value)| (key.parse().unwrap(), value))
        .collect();
    let count = found.len() as u64;
    assert!(0 < count && count <= given, "{count} of {given} records");
    for (number, value) in found {
        assert!(number < count, "record {number} without one before it");
        assert_eq!(value, value_of(number));
    }
    zkv(&["set", &store, "after", "the crash"]).check(0);
    assert_eq!(zkv(&["get", &store, "after"]).check(0), "the crash");
}

#[cfg(target_os = "linux")]
#[test]
fn where_no_thread_can_be_started_it_is_done_without() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    // Several pieces, which are packed together, by as many threads as there are cores.
    let value: String = (0..15_000).map(value_of).collect();
    let source = folder.write("a.tsv", format!("k\t{value}\n"));
    let mut import = command(&["import", &store, &source, "--durability", "flushed"]);
    // No address space has room for such a stack.
    import.env("RUST_MIN_STACK", (1u64 << 50).to_string());
    import.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let import = spawn(&mut import);
    let outcome = import.wait_with_output().unwrap();
    assert_eq!(outcome.status.code(), Some(0), "{outcome:?}");
    assert_eq!(zkv(&["get", &store, "k"]).check(0), value);
}

#[cfg(target_os = "linux")]
#[test]
fn where_memory_runs_out_it_aborts_or_fails_clearly() {
    let folder = Folder::new();
    // Enough to train a dictionary from, and a value in pieces.
    let mut table: String = (0..40).map(|n| format!("key {n}\t{}\n", value_of(n))).collect();
    table.push_str(&format!("large\t{}\n", (0..1100).map(value_of).collect::<String>()));
    let source = folder.write("a.tsv", table);
    let run = |kilobytes: u32, arguments: &[&str]| {
        let limit = format!("ulimit -v {kilobytes} && exec \"$0\" \"$@\"");
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &limit, env!("CARGO_BIN_EXE_zkv")]).args(arguments);
        // A backtrace takes memory, and waits for itself where there is none (std's `backtrace::lock`).
        shell.env("RUST_BACKTRACE", "0").stdin(Stdio::null());
        shell.stdout(Stdio::piped()).stderr(Stdio::piped());
        spawn(&mut shell).wait_with_output().unwrap()
    };
    // With less, it is not the program that fails, but whoever loads it.
    let mut sizes = (6_000..100_000).step_by(250);
    let loads = sizes.find(|kilobytes| run(*kilobytes, &["--version"]).status.success()).unwrap();
    let mut outcomes = Vec::new();
    for kilobytes in (loads + 1_000..loads + 18_000).step_by(250) {
        let store = folder.text(&format!("{kilobytes}.zkv"));
        let outcome = run(kilobytes, &["import", &store, &source]);
        let signal = std::os::unix::process::ExitStatusExt::signal(&outcome.status);
        // 6: SIGABRT.
        let is_clear = matches!(outcome.status.code(), Some(0 | 5)) || signal == Some(6);
        assert!(is_clear, "{kilobytes} KB: {outcome:?}");
        outcomes.push(outcome.status.success());
    }
    assert!(outcomes.contains(&true) && outcomes.contains(&false), "not the sizes that matter");
}

#[test]
fn an_atomic_import_that_is_killed_leaves_all_of_its_lines_or_none() {
    const LINES: usize = 30_000;
    let folder = Folder::new();
    let lines: String = (0..LINES).map(|n| format!("{n}\t{}\n", value_of(n as u64))).collect();
    let table = folder.write("lines.tsv", &lines);
    let mut seen = [0; 2];
    // As the file grows, the kill comes later and later; the last ones come too late.
    for step in 0..12 {
        let store = folder.text(&format!("{step}.zkv"));
        zkv(&["set", &store, "before", "1"]).check(0);
        let mut import = command(&["import", &store, &table, "--atomic"]);
        let mut child = spawn(import.stderr(Stdio::null()));
        let size = || fs::metadata(&store).map_or(0, |found| found.len());
        while size() < step * (700 << 10) && child.try_wait().unwrap().is_none() {}
        child.kill().unwrap();
        child.wait().unwrap();
        let text = zkv(&["export", &store, "--format", "tsv"]).check(0);
        let count = text.lines().filter(|line| *line != "before\t1").count();
        assert!(count == 0 || count == LINES, "{count} of {LINES} after step {step}");
        assert_eq!(text.lines().count(), count + 1);
        seen[usize::from(count > 0)] += 1;
    }
    assert!(seen[0] > 0 && seen[1] > 0, "killed too early or too late: {seen:?}");
}

#[test]
fn an_atomic_import_with_a_bad_line_changes_nothing() {
    let folder = Folder::new();
    let (store, lines) = (folder.text("s.zkv"), folder.write("lines.tsv", "a\t1\nno tab\n"));
    let import = ["import", &store, &lines];
    zkv(&["set", &store, "b", "0"]).check(0);
    zkv(&["del", &store, "b"]).check(0);
    zkv(&[&import[..], &["--atomic"]].concat()).check(5);
    assert_eq!(zkv(&["list", &store]).check(0), "");
    zkv(&import).check(5);
    assert_eq!(zkv(&["list", &store]).check(0), "a\n");
}
