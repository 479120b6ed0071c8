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

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

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
        if is_caught("none", check, seed)? {
            return Err(format!("planted: {} fails without a bug", check.task()).into());
        }
    }
    let mut missed = Vec::new();
    for (Bug { name, .. }, check) in &bugs {
        let start = Instant::now();
        let caught = is_caught(name, *check, seed)?;
        let verdict = if caught { "caught" } else { "MISSED" };
        let (seconds, task) = (start.elapsed().as_secs_f64(), check.task());
        println!("planted: {verdict} by {task} in {seconds:>3.0} s: {name}");
        if !caught {
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

fn is_caught(bug: &str, check: Check, seed: u64) -> Result<bool, Failure> {
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
    command.env(SWITCH, bug).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(!command.status()?.success())
}

#[cfg(test)]
mod tests {
    use super::*;

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
