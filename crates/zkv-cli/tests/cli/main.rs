//! The command as its users run it: arguments in, output and exit code out.

mod acknowledge;
mod collections;
mod exit_codes;
mod export;
mod import;
mod keys;
mod left_out;
mod processes;
mod salvage;
mod verify;
mod whole_store;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

/// A folder of its own for each test.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, contents).unwrap();
        self.text(name)
    }
}

/// What a run of the command left behind.
#[derive(Debug)]
struct Outcome {
    code: Option<i32>,
    output: Vec<u8>,
    messages: String,
}

impl Outcome {
    /// Holds the exit code against `code`, and gives the output as text.
    #[track_caller]
    fn check(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        String::from_utf8(self.output).unwrap()
    }

    /// As [`check`](Outcome::check), and gives the messages.
    #[track_caller]
    fn check_messages(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        self.messages
    }
}

/// A store of a thousand records, in one segment.
fn filled(folder: &Folder) -> String {
    let store = folder.text("s.zkv");
    let table: String = (0..1000).map(|n| format!("key {n}\tthe value of number {n}\n")).collect();
    let source = folder.write("a.tsv", table);
    zkv(&["import", &store, &source]).check(0);
    store
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zkv"));
    command.args(arguments);
    command
}

/// Starts a process, one at a time. Until it executes, it holds all that this process has open, the
/// locks of other tests' stores among it: where two were started at once, one could find the other's.
fn spawn(command: &mut Command) -> Child {
    static GATE: Mutex<()> = Mutex::new(());
    let _gate = GATE.lock().unwrap_or_else(PoisonError::into_inner);
    command.spawn().unwrap()
}

/// Runs `zkv` with no input.
fn zkv(arguments: &[&str]) -> Outcome {
    zkv_with(arguments, b"")
}

/// Runs `zkv` with `input` on its standard input.
fn zkv_with(arguments: &[&str], input: &[u8]) -> Outcome {
    let mut command = command(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn(&mut command);
    let mut standard_input = child.stdin.take().unwrap();
    let found = std::thread::scope(|scope| {
        // A command that fails early reads no input: a closed pipe is no failure of the test.
        scope.spawn(move || standard_input.write_all(input).is_ok());
        child.wait_with_output().unwrap()
    });
    Outcome {
        code: found.status.code(),
        output: found.stdout,
        messages: String::from_utf8(found.stderr).unwrap(),
    }
}

/// A store with two keys in a collection of titles, which is still open, and its path.
fn store_with_titles(folder: &Folder) -> (String, zkv::Store) {
    let path = folder.text("s.zkv");
    let store = zkv::Store::open(&path).unwrap();
    let titles: zkv::Collection<u64, String> = store.collection("titles").unwrap();
    titles.set(&7, &"Home".to_owned()).unwrap();
    titles.set(&8, &"News".to_owned()).unwrap();
    (path, store)
}

/// The lines of `text` in their order by bytes: exports have none of their own.
fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

fn contents(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}
