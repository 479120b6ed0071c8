//! `zkv verify`.

mod salvageable;

use std::borrow::Cow;
use std::path::Path;

use serde::Serialize;
use zkv::{ErrorKind, IndexState, Options, ReadMode, Severity, StoreFile, VerifyReport};

use crate::arguments::Verify;
use crate::failure::{Failure, store_problem};
use crate::output::print_report;
use crate::progress::Progress;
use crate::store::patient;

/// Bytes of the data file's header, which is written once: a compaction leaves it as it is.
const FILE_HEADER_BYTES: u64 = 4096;

/// What `--json` prints, in this order.
#[derive(Serialize)]
struct Report {
    /// Nothing is known of a store that could not be verified, but where that is damaged beyond it.
    sound: Option<bool>,
    /// Whether it opens to be read.
    opens: Option<bool>,
    worst: Option<&'static str>,
    index: &'static str,
    segments: u64,
    blocks: u64,
    records: u64,
    index_buckets: u64,
    bytes: u64,
    findings: Vec<Finding>,
    findings_left_out: u64,
    /// What mends it, to be run in this order.
    remedies: Vec<Remedy>,
    /// Why it could not be verified.
    error: Option<String>,
}

/// A command that mends a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Remedy {
    RebuildIndex,
    Compact,
    Salvage,
}

#[derive(Serialize)]
struct Finding {
    file: &'static str,
    offset: u64,
    severity: &'static str,
    what: Cow<'static, str>,
}

/// Reads a whole store and prints what is wrong with it.
pub fn run(arguments: &Verify) -> Result<(), Failure> {
    let progress = Progress::of_bytes(Some(0));
    let verified = zkv::verify(&arguments.store, patient(Options::new()), |at| {
        progress.set(at.bytes_done, at.bytes_total);
    });
    // The bar goes before anything is said.
    drop(progress);
    let verified = match verified {
        Ok(verified) => verified,
        Err(error) => {
            if arguments.json {
                print_report(&Report::without(&error, &arguments.store).json(), &arguments.store)?;
            }
            return Err(error.into());
        }
    };
    let opens = if verified.is_sound() { Some(true) } else { opens(&arguments.store) };
    let report = Report::of(&verified, opens);
    let text = if arguments.json { report.json() } else { report.text() };
    print_report(&text, &arguments.store)?;
    if verified.is_sound() {
        return Ok(());
    }
    Err(Failure::Damaged { is_lost: verified.worst == Some(Severity::Loss) })
}

/// Whether a damaged store opens, which depends on its index, too; `None` where that cannot be told.
fn opens(store: &Path) -> Option<bool> {
    // What the disk cannot read is an error then, as it was a finding.
    let options = patient(Options::new()).read_mode(ReadMode::Pread);
    match options.open_read_only(store) {
        Ok(_) => Some(true),
        Err(error) if error.kind() == ErrorKind::Corrupt => Some(false),
        Err(_) => None,
    }
}

impl Report {
    fn of(report: &VerifyReport, opens: Option<bool>) -> Self {
        let finding = |finding: &zkv::Finding| Finding {
            file: name_of_file(finding.file),
            offset: finding.offset,
            severity: name_of_severity(finding.severity),
            what: finding.what.clone(),
        };
        Self {
            sound: Some(report.is_sound()),
            opens,
            worst: report.worst.map(name_of_severity),
            index: name_of_state(report.index),
            segments: report.segments,
            blocks: report.blocks,
            records: report.records,
            index_buckets: report.index_buckets,
            bytes: report.bytes,
            findings: report.findings.iter().map(finding).collect(),
            findings_left_out: report.findings_left_out,
            remedies: remedies(report),
            error: None,
        }
    }

    /// That of the file at `path`, which could not be verified.
    fn without(error: &zkv::Error, path: &Path) -> Self {
        let is_damaged = error.kind() == ErrorKind::Corrupt;
        let is_store = is_damaged && salvageable::may_be(path);
        Self {
            sound: is_damaged.then_some(false),
            opens: is_damaged.then_some(false),
            worst: is_store.then(|| name_of_severity(Severity::Loss)),
            index: name_of_state(IndexState::NotCompared),
            segments: 0,
            blocks: 0,
            records: 0,
            index_buckets: 0,
            bytes: 0,
            findings: Vec::new(),
            findings_left_out: 0,
            remedies: if is_store { vec![Remedy::Salvage] } else { Vec::new() },
            error: Some(store_problem(error)),
        }
    }

    fn json(&self) -> String {
        let mut text = serde_json::to_string(self).expect("a report is always JSON");
        text.push('\n');
        text
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for Finding { file, offset, severity, what } in &self.findings {
            text.push_str(&format!("{severity:<8}  {file:<5} {offset:>14}  {what}\n"));
        }
        if self.findings_left_out > 0 {
            text.push_str(&format!("and {} more\n", self.findings_left_out));
        }
        let rows = [
            ("segments", self.segments),
            ("blocks", self.blocks),
            ("records", self.records),
            ("index buckets", self.index_buckets),
            ("bytes read", self.bytes),
        ];
        for (name, value) in rows {
            text.push_str(&format!("{name:<16}{value:>16}\n"));
        }
        text.push_str(&format!("{:<16}{:>16}\n", "index", self.index));
        let opens = match self.opens {
            Some(true) => "yes",
            Some(false) => "no",
            None => "unknown",
        };
        text.push_str(&format!("{:<16}{opens:>16}\n", "opens"));
        text.push_str(&format!("{:<16}{:>16}\n", "store", self.verdict()));
        for remedy in &self.remedies {
            text.push_str(&format!("to mend it: {}\n", remedy.advice()));
        }
        text
    }

    fn verdict(&self) -> &'static str {
        if self.sound == Some(true) { "sound" } else { "damaged" }
    }
}

impl Remedy {
    fn advice(self) -> &'static str {
        match self {
            Self::RebuildIndex => "`zkv rebuild-index STORE` writes the index file anew",
            Self::Compact => {
                "`zkv compact STORE` writes anew what the data file holds, and loses no record"
            }
            Self::Salvage => "`zkv salvage STORE NEW` brings all that is left into a new store",
        }
    }
}

/// What mends all that was found.
fn remedies(report: &VerifyReport) -> Vec<Remedy> {
    let damage = || report.findings.iter().filter(|found| found.severity != Severity::Notice);
    let is_of_header =
        |found: &zkv::Finding| found.file == StoreFile::Data && found.offset < FILE_HEADER_BYTES;
    // The other ones refuse what is lost, and the index file may be all that still tells of it.
    if report.worst == Some(Severity::Loss) || damage().any(is_of_header) {
        return vec![Remedy::Salvage];
    }
    let mut remedies = Vec::new();
    // First: a compaction goes by the index. No command touches a foreign file: the finding says what to do.
    if damage().any(|found| found.is_of_index) && !has_foreign_index(report) {
        remedies.push(Remedy::RebuildIndex);
    }
    if damage().any(|found| !found.is_of_index) {
        remedies.push(Remedy::Compact);
    }
    remedies
}

/// Whether what has the index's name is no index file at all. Of one that is set aside for anything else, there is
/// a notice, too.
fn has_foreign_index(report: &VerifyReport) -> bool {
    let mut of_index = report.findings.iter().filter(|found| found.file == StoreFile::Index);
    let is_damage = of_index.next().is_some_and(|found| found.severity != Severity::Notice);
    report.index == IndexState::SetAside && is_damage && of_index.next().is_none()
}

fn name_of_file(file: StoreFile) -> &'static str {
    match file {
        StoreFile::Index => "index",
        _ => "data",
    }
}

fn name_of_severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Notice => "notice",
        Severity::Mendable => "mendable",
        _ => "loss",
    }
}

fn name_of_state(state: IndexState) -> &'static str {
    match state {
        IndexState::Missing => "missing",
        IndexState::SetAside => "set aside",
        IndexState::Compared => "compared",
        _ => "not compared",
    }
}
