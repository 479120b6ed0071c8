//! `zkv verify`.

use std::borrow::Cow;

use serde::Serialize;
use zkv::{IndexState, Options, Severity, StoreFile, VerifyReport};

use crate::arguments::Verify;
use crate::failure::Failure;
use crate::output::print_report;
use crate::progress::Progress;
use crate::store::patient;

/// Bytes of the data file's header, which is written once: a compaction leaves it as it is.
const FILE_HEADER_BYTES: u64 = 4096;

/// What `--json` prints, in this order.
#[derive(Serialize)]
struct Report {
    sound: bool,
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
    let verified = zkv::verify(&arguments.store, &patient(Options::new()), |at| {
        progress.set(at.bytes_done, at.bytes_total);
    });
    // The bar goes before anything is said.
    drop(progress);
    let verified = verified?;
    let report = Report::of(&verified);
    let text = if arguments.json { report.json() } else { report.text() };
    print_report(&text, &arguments.store)?;
    if verified.is_sound() {
        return Ok(());
    }
    Err(Failure::Damaged { is_lost: verified.worst == Some(Severity::Loss) })
}

impl Report {
    fn of(report: &VerifyReport) -> Self {
        let finding = |finding: &zkv::Finding| Finding {
            file: name_of_file(finding.file),
            offset: finding.offset,
            severity: name_of_severity(finding.severity),
            what: finding.what.clone(),
        };
        Self {
            sound: report.is_sound(),
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
        text.push_str(&format!("{:<16}{:>16}\n", "store", self.verdict()));
        for remedy in &self.remedies {
            text.push_str(&format!("to mend it: {}\n", remedy.advice()));
        }
        text
    }

    fn verdict(&self) -> &'static str {
        if self.sound { "sound" } else { "damaged" }
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
    // First: a compaction goes by the index.
    if damage().any(|found| found.is_of_index) {
        remedies.push(Remedy::RebuildIndex);
    }
    if damage().any(|found| !found.is_of_index) {
        remedies.push(Remedy::Compact);
    }
    remedies
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
