//! What a part found, what it could not run, and what that amounts to.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::{Failure, workspace};

/// A part that finds this much wrong need not go on.
const FAILURES_MAX: usize = 5;

/// What one part found.
#[derive(Debug)]
pub struct Report {
    part: &'static str,
    seed: u64,
    counts: BTreeMap<String, u64>,
    failures: Vec<String>,
    not_run: Vec<String>,
}

impl Report {
    /// Nothing yet.
    pub fn new(part: &'static str, seed: u64) -> Self {
        let (counts, failures, not_run) = Default::default();
        Self { part, seed, counts, failures, not_run }
    }

    /// One more of `what`.
    pub fn count(&mut self, what: &str) {
        self.add(what, 1);
    }

    /// `count` more of `what`.
    pub fn add(&mut self, what: &str, count: usize) {
        *self.counts.entry(what.to_owned()).or_default() += count as u64;
    }

    /// Writes down that `what` could not run, and why.
    pub fn skip(&mut self, what: &str, reason: &str) {
        self.not_run.push(format!("{what}: {reason}"));
    }

    /// Writes down what is wrong, and keeps the files of `folder` for whoever looks into it.
    pub fn fail(&mut self, problem: &str, seed: u64, folder: &Path) {
        let number = self.failures.len();
        let kept = workspace::root().join(format!("target/torture/{}-{seed}-{number}", self.part));
        let place = match keep(folder, &kept) {
            Ok(()) => format!("files: {}", kept.display()),
            Err(error) => format!("files could not be kept: {error}"),
        };
        let replay = format!("cargo xtask torture --seed {seed} {}", self.part);
        let failure = format!("{problem}\n    seed {seed}; replay: {replay}\n    {place}");
        eprintln!("torture: {}: {failure}", self.part);
        self.failures.push(failure);
    }

    /// Whether so much is wrong that it is not worth going on.
    pub fn is_hopeless(&self) -> bool {
        FAILURES_MAX <= self.failures.len()
    }

    /// Says what was found.
    pub fn print(&self, took: Duration) {
        let counts: Vec<String> =
            self.counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
        let seconds = took.as_secs_f64();
        println!(
            "{}: {} failures, {} in {seconds:.1} s",
            self.part,
            self.failures.len(),
            counts.join(", ")
        );
        for reason in &self.not_run {
            println!("{}: NOT RUN: {reason}", self.part);
        }
    }

    fn verdict(&self) -> String {
        let seed = self.seed;
        match (self.failures.len(), self.not_run.len(), self.counts.is_empty()) {
            (0, 0, _) => format!("{} passed", self.part),
            (0, _, true) => format!("{} NOT RUN", self.part),
            (0, _, false) => format!("{} passed but for what was NOT RUN", self.part),
            (count, ..) => format!("{} FAILED {count} times from seed {seed} on", self.part),
        }
    }
}

/// Copies a folder.
fn keep(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.file_type()? {
            kind if kind.is_dir() => keep(&entry.path(), &to)?,
            kind if kind.is_file() => drop(fs::copy(entry.path(), to)?),
            _ => {}
        }
    }
    Ok(())
}

/// Fails where a part found something, and, if `all_must_run`, where something could not run.
pub fn conclude(reports: &[Report], all_must_run: bool) -> Result<(), Failure> {
    let verdicts: Vec<String> = reports.iter().map(Report::verdict).collect();
    let summary = verdicts.join("; ");
    let has_failed = reports.iter().any(|report| !report.failures.is_empty());
    let is_partial = reports.iter().any(|report| !report.not_run.is_empty());
    if has_failed || (all_must_run && is_partial) {
        return Err(format!("torture: {summary}").into());
    }
    println!("torture: {summary}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_run_is_no_pass() {
        let mut report = Report::new("power", 1);
        report.skip("cuts", "mount: permission denied");
        assert_eq!(report.verdict(), "power NOT RUN");
        assert!(conclude(&[report], true).is_err());

        let mut report = Report::new("full", 1);
        report.count("cases");
        assert_eq!(report.verdict(), "full passed");
        report.skip("tmpfs", "not the superuser");
        assert!(report.verdict().contains("NOT RUN"));
        assert!(conclude(&[report], false).is_ok());
    }

    #[test]
    fn a_failure_fails_the_whole_and_keeps_its_files() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("s.zkv"), "data").unwrap();
        let mut report = Report::new("test", 77);
        report.fail("a key is lost", 77, folder.path());
        let kept = workspace::root().join("target/torture/test-77-0");
        assert_eq!(fs::read(kept.join("s.zkv")).unwrap(), b"data");
        fs::remove_dir_all(kept).unwrap();
        assert!(report.failures[0].contains("--seed 77 test"));
        assert!(conclude(&[report], false).is_err());
    }
}
