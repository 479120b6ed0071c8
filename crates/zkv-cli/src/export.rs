//! `zkv export`.

mod files;

use std::borrow::Cow;
use std::path::Path;

use crate::arguments::{Export, ExportFormat};
use crate::damage::DamagedPlaces;
use crate::failure::Failure;
use crate::json;
use crate::output::{self, Output, say};
use crate::progress::Progress;
use crate::store::{self, Access, Keys, Part};
use crate::types::Form;

/// Why a record has no line of its own.
const NO_LINE: &str = "a line end, a carriage return at the end, or a tab in the key does not fit into a \
                       line; use --format pairs";

/// Why a value is no JSON line that gives its record.
const NO_JSON_LINE: &str =
    "the value is no JSON object on one line with the key in this field; use --format pairs";

/// Why no key can be held against a field.
const UNKNOWN_KEYS: &str =
    "the command cannot read the type of the collection's keys; use --format pairs";

/// A key and a value as a person has them.
type Plain<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

/// How keys and values are stored.
#[derive(Clone, Copy)]
struct Forms {
    key: Form,
    value: Form,
    /// Of keys of a type that the command does not know, there is nothing to hold a field against.
    is_key_known: bool,
}

/// Writes every record of a store, or of one of its collections. One is held in memory at a time.
pub fn run(arguments: &Export) -> Result<(), Failure> {
    let format = format(arguments)?;
    let collection = arguments.collection.as_deref();
    let store = store::open_to_read(&arguments.store)?;
    let keys = Keys::of(&store, collection)?;
    let collections = store::collections_left_out(&store, collection);
    let form = |part| store::form_of(&store, collection, part, None, Access::Read);
    let is_key_known = store::known_form(&store, collection, Part::Key).is_some();
    let forms = Forms { key: form(Part::Key)?, value: form(Part::Value)?, is_key_known };
    let mut damaged = DamagedPlaces::new(arguments.keep_going);
    let left_out = match format {
        Format::Files(folder) => {
            files::export(&keys, folder, forms, &mut damaged, &mut progress(&keys, true))?
        }
        Format::Lines(lines) => {
            export_lines(arguments, &keys, lines, forms, &mut damaged, collections.is_some())?
        }
    };
    // The worst comes last.
    let mut failures = [left_out, collections, damaged.failure()].into_iter().flatten();
    let Some(last) = failures.next_back() else { return Ok(()) };
    for failure in failures {
        say(format_args!("zkv: {failure}"));
    }
    Err(last)
}

enum Format<'a> {
    /// The folder that they are written to.
    Files(&'a Path),
    Lines(Lines<'a>),
}

#[derive(Clone, Copy)]
enum Lines<'a> {
    Pairs,
    /// The field that holds the key.
    Json(&'a str),
    Tsv,
}

fn format(arguments: &Export) -> Result<Format<'_>, Failure> {
    match (arguments.format, arguments.key.as_deref()) {
        (None | Some(ExportFormat::Jsonl), Some(field)) => Ok(Format::Lines(Lines::Json(field))),
        (None | Some(ExportFormat::Pairs), None) => Ok(Format::Lines(Lines::Pairs)),
        (Some(ExportFormat::Tsv), None) => Ok(Format::Lines(Lines::Tsv)),
        (Some(ExportFormat::Files), None) => output::named_file(arguments.output.as_deref())
            .map(Format::Files)
            .ok_or_else(|| Failure::Usage("--format files needs -o FOLDER".to_owned())),
        (Some(ExportFormat::Jsonl), None) => Err(Failure::Usage(
            "--format jsonl needs --key FIELD; --format pairs writes any record".to_owned(),
        )),
        (Some(_), Some(_)) => Err(Failure::Usage(
            "--key names a field of JSON lines, and goes with --format jsonl alone".to_owned(),
        )),
    }
}

/// Writes a line for each of `keys`; what is left out is returned. Others may be, too, `has_left_out_others`.
fn export_lines(
    arguments: &Export,
    keys: &Keys<'_>,
    lines: Lines<'_>,
    forms: Forms,
    damaged: &mut DamagedPlaces,
    has_left_out_others: bool,
) -> Result<Option<Failure>, Failure> {
    let path = arguments.output.as_deref();
    let mut output = Output::open(path, &arguments.store)?;
    let mut progress = progress(keys, !output::is_terminal(path));
    let (mut written_count, mut left_out_count) = (0u64, 0);
    for entry in keys.iter()? {
        let Some((key, value)) = damaged.pass(entry, &progress)? else { continue };
        if lines.write(&key, &value, forms, &mut output)? {
            output.write(b"\n")?;
            written_count += 1;
        } else {
            left_out_count += 1;
        }
        progress.add_record();
    }
    drop(progress);
    let has_left_out = has_left_out_others || left_out_count > 0 || damaged.failure().is_some();
    match output::named_file(path) {
        // An older export is worth more than nothing.
        Some(path) if written_count == 0 && has_left_out => {
            drop(output);
            say(format_args!("zkv: {}: nothing was written, it is as it was", path.display()));
        }
        _ => output.finish()?,
    }
    let problem = match lines {
        Lines::Json(_) if forms.is_key_known => NO_JSON_LINE,
        Lines::Json(_) => UNKNOWN_KEYS,
        _ => NO_LINE,
    };
    Ok(left_out(left_out_count, problem))
}

/// A bar, unless the records are printed where it would stand.
fn progress(keys: &Keys<'_>, is_apart: bool) -> Progress {
    if is_apart { Progress::of_records(keys.len()) } else { Progress::hidden() }
}

fn left_out(count: u64, problem: &'static str) -> Option<Failure> {
    (count != 0).then_some(Failure::LeftOut { count, problem })
}

impl Lines<'_> {
    /// Writes the line of a record, without its end; `false`, and nothing, where it would not be read back as
    /// this one.
    fn write(
        self,
        key: &[u8],
        value: &[u8],
        forms: Forms,
        output: &mut Output,
    ) -> Result<bool, Failure> {
        match self {
            Self::Pairs => output.write_with(|into| json::wrap_into(key, value, into))?,
            // JSON has what a program has, as it is imported with the collection's types.
            Self::Json(_) if !forms.is_key_known => return Ok(false),
            Self::Json(field) => match plain(key, value, forms) {
                Some((key, text)) if json::holds_key(&text, field, &key) => output.write(&text)?,
                _ => return Ok(false),
            },
            Self::Tsv => match plain(key, value, forms) {
                Some((key, value)) if has_tsv_line(&key, &value) => {
                    output.write(&key)?;
                    output.write(b"\t")?;
                    output.write(&value)?;
                }
                _ => return Ok(false),
            },
        }
        Ok(true)
    }
}

/// Key and value as an import into the collection takes them; where the command does not know their types, there
/// is none, and they are as they are stored. `None` where they are not of these types.
fn plain<'a>(key: &'a [u8], value: &'a [u8], forms: Forms) -> Option<Plain<'a>> {
    Some((forms.key.decode(key)?, forms.value.decode(value)?))
}

/// Whether the line would be read back as this record.
fn has_tsv_line(key: &[u8], value: &[u8]) -> bool {
    let is_line = memchr::memchr(b'\n', value).is_none() && !value.ends_with(b"\r");
    is_line && memchr::memchr2(b'\t', b'\n', key).is_none()
}

#[cfg(test)]
mod tests {
    use super::has_tsv_line;

    #[test]
    fn a_record_has_a_tsv_line_where_it_can_be_read_back() {
        let cases: [(&[u8], &[u8], bool); 7] = [
            (b"k", b"v\tw", true),
            (b"k\r", b"v\rw", true),
            (b"k", b"v\r", false),
            (b"", b"", true),
            (b"k\t", b"v", false),
            (b"k\n", b"v", false),
            (b"k", b"v\nw", false),
        ];
        for (key, value, expected) in cases {
            assert_eq!(has_tsv_line(key, value), expected, "{key:?} {value:?}");
        }
    }
}
