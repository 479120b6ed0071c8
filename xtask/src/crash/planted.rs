//! Whether the smoke runs would see it: builds with one bug each, of the kinds that they are there for.
//!
//! The sources are copied, and every bug of [`bugs::BUGS`], [`cleaning::CLEANING`], [`races::RACES`] and
//! [`models::MODELS`] is put into the copy, behind a switch. One build then runs with no bug, and once with
//! each. What `crash` runs is a count of cases, not a time, so that a machine that is busy catches what
//! others do.

mod bugs;
mod cleaning;
mod models;
mod races;

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Failure, report, workspace};
use bugs::{BUGS, Bug};
use cleaning::CLEANING;
use models::MODELS;
use races::RACES;

/// Names the bug that a run has.
const SWITCH: &str = "ZKV_PLANTED_BUG";

/// Runs the model checks, with the seeds of the tests.
const MODEL_CHECKS: [&str; 4] = ["test", "--release", "--quiet", "--package=zkv-model"];

/// What the copy of `zkv-io` is given.
const SWITCH_CODE: &str = r#"
/// Whether this run has the bug of this name.
#[doc(hidden)]
pub fn planted(name: &str) -> bool {
    static BUG: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    BUG.get_or_init(|| std::env::var("ZKV_PLANTED_BUG").ok()).as_deref() == Some(name)
}
"#;

/// Many times what the longest run takes on two cores.
const TIME_MAX: Duration = Duration::from_secs(3600);

/// What became of a run with a bug.
enum Verdict {
    /// By the failure that it printed first.
    Caught(String),
    Missed,
    Endless,
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caught(failure) => write!(formatter, "caught: {failure}"),
            Self::Missed => formatter.write_str("MISSED"),
            Self::Endless => formatter.write_str("MISSED, and ended, since it went on"),
        }
    }
}

/// What has to see a bug: the smoke run of a task, or the model checks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    Crash,
    Histories,
    Model,
}

impl Check {
    fn task(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Histories => "histories",
            Self::Model => "model",
        }
    }
}

/// Every bug, with what has to see it.
fn all_bugs() -> impl Iterator<Item = (&'static Bug, Check)> {
    let races = RACES.iter().map(|bug| (bug, Check::Histories));
    let models = MODELS.iter().map(|bug| (bug, Check::Model));
    let crash = BUGS.iter().chain(CLEANING).map(|bug| (bug, Check::Crash));
    crash.chain(races).chain(models)
}

/// Plants each bug whose name contains `part`, and fails where one is not caught, or where something is
/// caught without one.
pub fn run(seed: u64, part: &str) -> Result<(), Failure> {
    let bugs: Vec<_> = all_bugs().filter(|(bug, _)| bug.name.contains(part)).collect();
    if bugs.is_empty() {
        return Err(format!("planted: no bug's name contains {part:?}").into());
    }
    build()?;
    println!("planted: runs without a bug ...");
    for check in [Check::Crash, Check::Histories, Check::Model] {
        if bugs.iter().all(|(_, other)| *other != check) {
            continue;
        }
        match try_bug("none", check, seed)? {
            Verdict::Missed => {}
            other => {
                let task = check.task();
                return Err(format!("planted: {task} fails without a bug: {other}").into());
            }
        }
    }
    let mut missed = Vec::new();
    for (Bug { name, .. }, check) in &bugs {
        let start = Instant::now();
        let verdict = try_bug(name, *check, seed)?;
        let (seconds, task) = (start.elapsed().as_secs_f64(), check.task());
        println!("planted: {name}: by {task}, in {seconds:.0} s, {verdict}");
        if !matches!(verdict, Verdict::Caught(_)) {
            missed.push(format!("planted: {task} has not seen this bug: {name}"));
        }
    }
    let count = bugs.len();
    println!("planted: {} of {count} bugs caught", count - missed.len());
    report("planted", &missed)
}

/// Copies the sources, plants all bugs, and builds the tasks and the model checks.
fn build() -> Result<(), Failure> {
    let tree = tree();
    copy_sources(&tree)?;
    for (bug, _) in all_bugs() {
        plant(&tree, bug)?;
    }
    let switch = tree.join("crates/zkv-io/src/lib.rs");
    fs::write(&switch, fs::read_to_string(&switch)? + SWITCH_CODE)?;
    let tasks = ["build", "--release", "--quiet", "--package", "xtask"];
    for arguments in [&tasks[..], &[&MODEL_CHECKS[..], &["--no-run"]].concat()] {
        if !cargo_in_tree().args(arguments).status()?.success() {
            return Err("planted: the sources with the bugs do not build, see above".into());
        }
    }
    Ok(())
}

/// Where the copy lies, and beside it what is built of it.
fn tree() -> PathBuf {
    workspace::root().join("target/planted/tree")
}

fn cargo_in_tree() -> Command {
    let mut cargo = workspace::cargo();
    cargo.current_dir(tree()).env("CARGO_TARGET_DIR", tree().with_file_name("build"));
    // A bug may leave something unused.
    cargo.env("RUSTFLAGS", "--allow warnings");
    cargo
}

/// Copies what git knows of, or would.
fn copy_sources(tree: &Path) -> Result<(), Failure> {
    if tree.exists() {
        fs::remove_dir_all(tree)?;
    }
    let listed = Command::new("git")
        .current_dir(workspace::root())
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()?;
    for name in String::from_utf8(listed.stdout)?.split_terminator('\0') {
        let (from, to) = (workspace::root().join(name), tree.join(name));
        if from.is_file() {
            fs::create_dir_all(to.parent().unwrap_or(tree))?;
            fs::copy(from, to)?;
        }
    }
    Ok(())
}

fn plant(tree: &Path, bug: &Bug) -> Result<(), Failure> {
    let path = tree.join(bug.file);
    let text = fs::read_to_string(&path)?;
    if !stands_once(&text, bug) {
        let (name, file) = (bug.name, bug.file);
        let remedy = "bring xtask/src/crash/planted/ up to date";
        return Err(
            format!("planted: {file} has not once what the bug {name} replaces; {remedy}").into()
        );
    }
    let switch = if bug.file.starts_with("crates/zkv-io/") { "crate" } else { "zkv_io" };
    let condition = format!("{switch}::planted({:?})", bug.name);
    fs::write(path, text.replace(bug.right, &bug.wrong.replace("PLANTED", &condition)))?;
    Ok(())
}

fn stands_once(text: &str, bug: &Bug) -> bool {
    text.matches(bug.right).count() == 1
}

/// Runs what has to see `bug`. A run beyond [`TIME_MAX`] is ended, and has caught nothing: a machine may be
/// slow. Of the model checks, cargo alone is ended then.
fn try_bug(bug: &str, check: Check, seed: u64) -> Result<Verdict, Failure> {
    let task = || {
        let mut task = Command::new(tree().with_file_name("build").join("release/xtask"));
        task.args([check.task(), "smoke"]);
        task
    };
    let mut command = match check {
        Check::Crash => {
            let mut task = task();
            task.args(["--seed", &seed.to_string()]);
            task
        }
        Check::Histories => task(),
        Check::Model => {
            let mut cargo = cargo_in_tree();
            cargo.args(MODEL_CHECKS);
            cargo
        }
    };
    let path = tree().with_file_name("output");
    let output = File::create(&path)?;
    // Tests print their failures to the one, and tasks to the other.
    match check {
        Check::Model => command.stdout(output).stderr(Stdio::null()),
        Check::Crash | Check::Histories => command.stdout(Stdio::null()).stderr(output),
    };
    let (mut child, start) = (command.env(SWITCH, bug).spawn()?, Instant::now());
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(Verdict::Missed),
            Some(_) => break,
            None if start.elapsed() > TIME_MAX => {
                child.kill()?;
                child.wait()?;
                return Ok(Verdict::Endless);
            }
            None => thread::sleep(Duration::from_millis(20)),
        }
    }
    Ok(Verdict::Caught(first_failure(&String::from_utf8_lossy(&fs::read(&path)?))))
}

/// The first line that tells of a failure, and the next one where that ends with a colon, as a panic's does.
fn first_failure(output: &str) -> String {
    let mut lines = output.lines().map(str::trim).filter(|line| !line.is_empty());
    // Tests tell how many they are, which have failed, and by a dot each of the others.
    let is_progress = |line: &str| {
        let (is_head, is_name) = (line.starts_with("running "), line.ends_with("--- FAILED"));
        is_head || is_name || line.starts_with(['.', '-']) || line == "failures:"
    };
    match lines.find(|line| !is_progress(line)) {
        Some(first) if first.ends_with(':') => {
            format!("{first} {}", lines.next().unwrap_or_default())
        }
        first => first.unwrap_or("nothing was printed").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_told_of_tasks_and_of_tests() {
        let task = "\ncrash: a value of nobody\n  replay: cargo xtask crash --replay x\n";
        let panic = "thread '<unnamed>' (1) panicked at a.rs:1:2:\na value of nobody\n";
        let head = "\nrunning 7 tests\n.. 2/7\na_test --- FAILED\n\nfailures:\n\n---- a_test stdout ----\n\n";
        let tests = format!("{head}{panic}");
        assert_eq!(first_failure(task), "crash: a value of nobody");
        for output in [panic, &tests] {
            let told = "thread '<unnamed>' (1) panicked at a.rs:1:2: a value of nobody";
            assert_eq!(first_failure(output), told);
        }
        assert_eq!(first_failure(""), "nothing was printed");
    }

    #[test]
    fn every_bug_replaces_what_stands_once_in_the_sources() {
        for (bug, _) in all_bugs() {
            let text = fs::read_to_string(workspace::root().join(bug.file)).unwrap();
            assert!(stands_once(&text, bug), "{}: {}", bug.file, bug.name);
            assert!(bug.wrong.contains("PLANTED"), "{}", bug.name);
        }
    }

    #[test]
    fn a_bug_that_fits_nothing_or_two_places_is_found() {
        let bug = &BUGS[0];
        assert!(!stands_once("", bug));
        assert!(!stands_once(&bug.right.repeat(2), bug));
    }
}
