//! Records from lines.

use std::io;

use crate::failure::Failure;
use crate::import::Sink;
use crate::import::lines::{LINE_BYTES_MAX, Lines};
use crate::import::source::{Input, Split};
use crate::json;

/// What some programs on Windows write first.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Imports every line of `input` behind the first `skip_lines`.
pub fn import(
    input: &Input,
    split: &Split,
    skip_lines: u64,
    sink: &mut Sink<'_>,
) -> Result<(), Failure> {
    let name = input.name();
    let bytes_max = match split {
        // A byte is six characters at the most, in JSON or in Base64.
        Split::InPair => LINE_BYTES_MAX.saturating_mul(6),
        Split::AtTab | Split::InField(_) => LINE_BYTES_MAX,
    };
    let mut lines = Lines::new(input.open()?, bytes_max);
    let mut key = Vec::new();
    let mut first_empty = None;
    for number in 1.. {
        let line = match lines.next_line() {
            Ok(Some(line)) => line,
            Ok(None) => break,
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                let problem = format!("the line is longer than {bytes_max} bytes");
                return Err(Failure::Line { name, number, problem });
            }
            Err(error) => return Err(Failure::File { name, error }),
        };
        let refused = |problem| Failure::Line { name: name.clone(), number, problem };
        let input_bytes = line.len() + 1;
        if number <= skip_lines {
            sink.skip_line(input_bytes);
            continue;
        }
        // Files from Windows end each line with one. An export writes no line that ends so.
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            // Many files end with one. Anywhere else it is no record.
            first_empty.get_or_insert(number);
            continue;
        }
        if let Some(number) = first_empty {
            return Err(Failure::Line { name, number, problem: "the line is empty".to_owned() });
        }
        if number == 1 && *split != Split::AtTab && line.starts_with(BYTE_ORDER_MARK) {
            return Err(refused("a byte order mark stands before the JSON; it must go".to_owned()));
        }
        match split {
            Split::AtTab => {
                let (key, value) = split_at_tab(line).map_err(refused)?;
                sink.put(key, value, input_bytes, refused)?;
            }
            Split::InField(field) => {
                json::key_of(line, field, &mut key).map_err(refused)?;
                sink.put(&key, line, input_bytes, refused)?;
            }
            Split::InPair => {
                let (key, value) = json::unwrap(line).map_err(refused)?;
                sink.put(&key, &value, input_bytes, refused)?;
            }
        }
    }
    Ok(())
}

/// The key before the first tab, and all that stands behind it.
fn split_at_tab(line: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let tab = memchr::memchr(b'\t', line).ok_or("there is no tab behind a key")?;
    Ok((&line[..tab], &line[tab + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::acknowledge::Acknowledgements;
    use crate::progress::Progress;
    use crate::store::Keys;
    use crate::types::Form;

    #[test]
    fn skipped_lines_count_as_progress() {
        let folder = tempfile::tempdir().unwrap();
        let table = folder.path().join("a.tsv");
        std::fs::write(&table, "a header\n".repeat(50_000)).unwrap();
        let store = zkv::Store::open(folder.path().join("s.zkv")).unwrap();
        let mut sink = Sink {
            store: &store,
            keys: Keys::Own(&store),
            forms: (Form::Bytes, Form::Bytes),
            acknowledgements: Acknowledgements::none(),
            progress: Progress::undrawn(),
            record_count: 0,
            bytes: 0,
            skipped_lines: 0,
            batch: None,
        };
        import(&Input::File(table), &Split::AtTab, 50_000, &mut sink).unwrap();
        assert_eq!(sink.skipped_lines, 50_000);
        // The bar moves in steps of 64 KiB.
        assert!(sink.progress.shown() > 380_000, "{} of 450000", sink.progress.shown());
    }

    #[test]
    fn the_first_tab_ends_the_key() {
        assert_eq!(split_at_tab(b"k\tv\tw"), Ok((&b"k"[..], &b"v\tw"[..])));
        assert_eq!(split_at_tab(b"\t"), Ok((&b""[..], &b""[..])));
        assert_eq!(split_at_tab(b"k"), Err("there is no tab behind a key".to_owned()));
    }
}
