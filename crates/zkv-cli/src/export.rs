//! `zkv export`.

mod files;

use crate::arguments::{Export, ExportFormat};
use crate::failure::Failure;
use crate::json;
use crate::output::{self, Output};
use crate::progress::Progress;
use crate::store::{self, Keys};

/// Why a record has no line of its own.
const NO_LINE: &str = "a tab in the key or a line end; use --format jsonl or files";

/// Writes every record of a store, or of one of its collections. One is held in memory at a time.
pub fn run(arguments: &Export) -> Result<(), Failure> {
    let path = output::named_file(arguments.output.as_deref());
    let Some(folder) = path.filter(|_| arguments.format == ExportFormat::Files) else {
        return run_lines(arguments);
    };
    let store = store::open_to_read(&arguments.store)?;
    let keys = Keys::of(&store, arguments.collection.as_deref())?;
    files::export(&keys, folder, &mut progress(&keys, true))
}

fn run_lines(arguments: &Export) -> Result<(), Failure> {
    let line_into = match arguments.format {
        ExportFormat::Jsonl => json_line_into,
        ExportFormat::Pairs => pair_into,
        ExportFormat::Tsv => tsv_line_into,
        ExportFormat::Files => {
            return Err(Failure::Usage("--format files needs -o FOLDER".to_owned()));
        }
    };
    let store = store::open_to_read(&arguments.store)?;
    let keys = Keys::of(&store, arguments.collection.as_deref())?;
    let path = output::named_file(arguments.output.as_deref());
    let mut output = Output::open(path, &arguments.store)?;
    let mut progress = progress(&keys, !output::is_terminal(path));
    let mut left_out_count = 0;
    let mut line = Vec::new();
    for entry in keys.iter()? {
        let (key, value) = entry?;
        line.clear();
        if line_into(&key, &value, &mut line) {
            line.push(b'\n');
            output.write(&line)?;
        } else {
            left_out_count += 1;
        }
        progress.add_record();
    }
    output.finish()?;
    drop(progress);
    left_out(left_out_count, NO_LINE)
}

/// A bar, unless the records are printed where it would stand.
fn progress(keys: &Keys<'_>, is_apart: bool) -> Progress {
    if is_apart { Progress::of_records(keys.len()) } else { Progress::hidden() }
}

fn left_out(count: u64, problem: &'static str) -> Result<(), Failure> {
    if count == 0 { Ok(()) } else { Err(Failure::LeftOut { count, problem }) }
}

fn json_line_into(key: &[u8], value: &[u8], line: &mut Vec<u8>) -> bool {
    // What is a pair itself would be taken for the pair of another value.
    if json::holds_key(value, key) && json::unwrap(value).is_err() {
        line.extend_from_slice(value);
    } else {
        json::wrap_into(key, value, line);
    }
    true
}

fn pair_into(key: &[u8], value: &[u8], line: &mut Vec<u8>) -> bool {
    json::wrap_into(key, value, line);
    true
}

/// `false` where the line would not be read back as this record.
fn tsv_line_into(key: &[u8], value: &[u8], line: &mut Vec<u8>) -> bool {
    line.extend_from_slice(key);
    line.push(b'\t');
    line.extend_from_slice(value);
    memchr::memchr2(b'\t', b'\n', key).is_none() && memchr::memchr(b'\n', value).is_none()
}

#[cfg(test)]
mod tests {
    use super::tsv_line_into;

    #[test]
    fn a_record_has_a_tsv_line_where_it_can_be_read_back() {
        let cases: [(&[u8], &[u8], bool); 5] = [
            (b"k", b"v\tw", true),
            (b"", b"", true),
            (b"k\t", b"v", false),
            (b"k\n", b"v", false),
            (b"k", b"v\nw", false),
        ];
        for (key, value, expected) in cases {
            let mut line = Vec::new();
            assert_eq!(tsv_line_into(key, value, &mut line), expected, "{key:?} {value:?}");
        }
    }
}
