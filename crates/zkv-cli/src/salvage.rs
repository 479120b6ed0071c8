//! `zkv salvage`.

mod doubtful;

use std::path::Path;

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
    let report = report.map_err(|error| of_destination(error, &arguments.destination))?;
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

/// `error`, of the new store where it names the temporary file that was to become that, and is gone: a full disk
/// is the new store's.
fn of_destination(error: zkv::Error, destination: &Path) -> zkv::Error {
    match error {
        zkv::Error::Data { path, source } if is_temporary(&path, destination) => {
            zkv::Error::Data { path: destination.to_owned(), source }
        }
        zkv::Error::Index { path, source } if is_temporary(&path, destination) => {
            zkv::Error::Index { path: destination.to_owned(), source }
        }
        zkv::Error::File { path, source } if is_temporary(&path, destination) => {
            zkv::Error::File { path: destination.to_owned(), source }
        }
        error => error,
    }
}

/// Whether `path` is a temporary file, or an index of one, beside `destination`.
fn is_temporary(path: &Path, destination: &Path) -> bool {
    let Some(own) = destination.file_name() else { return false };
    let ending = path
        .file_name()
        .and_then(|name| name.as_encoded_bytes().strip_prefix(own.as_encoded_bytes()));
    let has_mark = |ending: &[u8]| memchr::memmem::find(ending, b".zkv-tmp").is_some();
    path.parent() == destination.parent() && ending.is_some_and(has_mark)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_file_is_called_by_the_new_stores_name() {
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let cases = [
            ("a/new.zkv.0123456789abcdef.zkv-tmp", "a/new.zkv"),
            ("a/new.zkv.0123456789abcdef.zkv-tmp.idx", "a/new.zkv"),
            ("a/new.zkv.idx", "a/new.zkv.idx"),
            ("a/new.zkv", "a/new.zkv"),
            ("a/old.zkv", "a/old.zkv"),
            ("new.zkv.01.zkv-tmp", "new.zkv.01.zkv-tmp"),
        ];
        for (path, expected) in cases {
            let error = zkv::Error::File { path: path.into(), source: full() };
            let zkv::Error::File { path, source } = of_destination(error, Path::new("a/new.zkv"))
            else {
                panic!("another kind of error");
            };
            assert_eq!((path.as_path(), source.kind()), (Path::new(expected), full().kind()));
        }
    }
}
