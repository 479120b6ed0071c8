//! `zkv salvage`.

mod doubtful;

use serde_json::{Map, Value, json};
use zkv::{LostRange, Options, SalvageEvent, SalvageReport};

use crate::arguments::Salvage;
use crate::failure::Failure;
use crate::output::{print_report, say};
use crate::progress::Progress;
use crate::store::patient;
use doubtful::Doubtful;

/// How many lost ranges the table shows; JSON has all that the report has.
const RANGES_SHOWN: usize = 10;

/// Brings what is left of a damaged store into a new one.
pub fn run(arguments: &Salvage) -> Result<(), Failure> {
    let mut doubtful = Doubtful::open(arguments)?;
    let progress = Progress::of_bytes(Some(0));
    let options = patient(Options::new());
    let report =
        zkv::salvage(&arguments.store, &arguments.destination, options, |event| match event {
            SalvageEvent::Progress { done_bytes, total_bytes, .. } => {
                progress.set(done_bytes, total_bytes);
            }
            event => doubtful.take(&event),
        });
    drop(progress);
    let report = report?;
    let listed = doubtful.finish(&arguments.destination);
    let text = if arguments.json { json(&report) } else { table(&report) };
    print_report(&text, &arguments.store)?;
    let incomplete = (!report.is_complete()).then_some(Failure::Incomplete { keys: report.keys });
    // The new store stands, also where what is doubtful in it could not be listed.
    if let (Err(_), Some(incomplete)) = (&listed, &incomplete) {
        say(format_args!("zkv: {incomplete}"));
    }
    listed?;
    incomplete.map_or(Ok(()), Err)
}

/// The figures of a report, with the names that JSON gives them and the table.
fn figures(report: &SalvageReport) -> [(&'static str, &'static str, u64); 16] {
    [
        ("keys", "keys brought", report.keys),
        ("bytes", "bytes of them", report.bytes),
        ("segments", "segments read", report.segments),
        ("missing_segments", "segments missing", report.missing_segments),
        ("lost_headers", "headers lost", report.lost_headers),
        ("lost_seals", "seals lost", report.lost_seals),
        ("lost_blocks", "blocks lost", report.lost_blocks),
        ("lost_bytes", "bytes of them", report.lost_bytes),
        ("incomplete_commits", "commits incomplete", report.incomplete_commits),
        ("keys_of_incomplete_commits", "keys of them", report.keys_of_incomplete_commits),
        ("possibly_superseded", "keys possibly superseded", report.possibly_superseded),
        ("incomplete_values", "values incomplete", report.incomplete_values),
        ("incomplete_value_bytes", "bytes of them", report.incomplete_value_bytes),
        ("unknown_entries", "entries unknown", report.unknown_entries),
        ("uncommitted_records", "records uncommitted", report.uncommitted_records),
        ("recovered_collections", "collections without names", report.recovered_collections),
    ]
}

fn json(report: &SalvageReport) -> String {
    let range = |range: &LostRange| json!({ "offset": range.offset, "bytes": range.bytes });
    let ranges: Vec<Value> = report.lost_ranges.iter().map(range).collect();
    let mut object = Map::new();
    object.insert("complete".to_owned(), report.is_complete().into());
    for (name, _, figure) in figures(report) {
        object.insert(name.to_owned(), figure.into());
    }
    object.insert("lost_ranges".to_owned(), ranges.into());
    format!("{}\n", Value::from(object))
}

fn table(report: &SalvageReport) -> String {
    let rows =
        figures(report).into_iter().filter(|(name, _, figure)| *name == "keys" || *figure > 0);
    let mut text: String =
        rows.map(|(_, label, figure)| format!("{label:<26}{figure:>16}\n")).collect();
    for range in report.lost_ranges.iter().take(RANGES_SHOWN) {
        text.push_str(&format!("lost: {} bytes at byte {}\n", range.bytes, range.offset));
    }
    let more = report.lost_ranges.len().saturating_sub(RANGES_SHOWN);
    if more > 0 {
        text.push_str(&format!("lost: {more} more ranges, listed by --json\n"));
    }
    text
}
