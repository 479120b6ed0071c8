//! `zkv list`.

use crate::arguments::List;
use crate::damage::DamagedPlaces;
use crate::failure::Failure;
use crate::output::{self, Output, say};
use crate::progress::Progress;
use crate::store::{self, Access, Part};
use crate::types::{Form, Type, argument_bytes};

/// Prints keys, and values where their type is given.
pub fn run(arguments: &List) -> Result<(), Failure> {
    let prefix = arguments.prefix.as_deref().map_or(&b""[..], argument_bytes);
    let store = store::open_to_read(&arguments.store)?;
    let collection = arguments.collection.as_deref();
    let keys = store::Keys::of(&store, collection)?;
    let form = |part, given| store::form_of(&store, collection, part, given, Access::Read);
    let key_form = form(Part::Key, arguments.key_type)?;
    if !prefix.is_empty() && matches!(key_form.given_as(), Type::U64 | Type::I64) {
        return Err(Failure::Usage("--prefix is for keys of type bytes and str".to_owned()));
    }
    let value_form =
        arguments.value_type.map(|given| form(Part::Value, Some(given))).transpose()?;
    let mut output = Output::open(None, &arguments.store)?;
    let mut lines = Lines {
        key_form,
        value_form,
        prefix,
        escapes: output::is_terminal(None),
        other_type_count: 0,
        no_line_count: 0,
    };
    let (mut damaged, no_progress) = (DamagedPlaces::new(arguments.keep_going), Progress::hidden());
    let mut room = arguments.limit.unwrap_or(u64::MAX);
    let mut line = Vec::new();
    for entry in records(&keys, lines.value_form.is_some())? {
        if room == 0 {
            break;
        }
        let Some((key, value)) = damaged.pass(entry, &no_progress)? else { continue };
        if lines.write(&key, &value, &mut line) {
            output.write(&line)?;
            room -= 1;
        }
    }
    output.finish()?;
    if let Some(left_out) = store::collections_left_out(&store, collection) {
        say(format_args!("zkv: {left_out}"));
    }
    let left_out = lines.say_what_is_left_out();
    let Some(failure) = damaged.failure() else { return left_out };
    if let Err(left_out) = left_out {
        say(format_args!("zkv: {left_out}"));
    }
    Err(failure)
}

type Records = Box<dyn Iterator<Item = Result<(Vec<u8>, Vec<u8>), zkv::Error>>>;

/// All records, with empty values where none is asked for.
fn records(keys: &store::Keys<'_>, with_values: bool) -> Result<Records, Failure> {
    if with_values {
        return Ok(Box::new(keys.iter()?));
    }
    Ok(Box::new(keys.keys()?.map(|key| Ok((key?, Vec::new())))))
}

struct Lines<'a> {
    key_form: Form,
    value_form: Option<Form>,
    prefix: &'a [u8],
    escapes: bool,
    /// Records that are left out, and why.
    other_type_count: u64,
    no_line_count: u64,
}

impl Lines<'_> {
    /// Makes the line of a record; `false` where it has none.
    fn write(&mut self, key: &[u8], value: &[u8], line: &mut Vec<u8>) -> bool {
        line.clear();
        let mut is_whole = self.key_form.decode_into(key, line);
        if is_whole && !line.starts_with(self.prefix) {
            return false;
        }
        // Whoever reads the lines takes the first tab for the end of the key.
        let mut is_line = self.value_form.is_none() || memchr::memchr(b'\t', line).is_none();
        if let Some(form) = self.value_form {
            line.push(b'\t');
            is_whole = is_whole && form.decode_into(value, line);
        }
        is_line &= memchr::memchr(b'\n', line).is_none();
        if !is_whole {
            self.other_type_count += 1;
            return false;
        }
        if self.escapes {
            *line = output::escaped_bytes(line).into_bytes();
        } else if !is_line {
            self.no_line_count += 1;
            return false;
        }
        line.push(b'\n');
        true
    }

    fn say_what_is_left_out(&self) -> Result<(), Failure> {
        let no_line = Failure::LeftOut {
            count: self.no_line_count,
            problem: "a line end, or a tab in the key, does not fit into a line; see `zkv export`",
        };
        match (self.other_type_count, self.no_line_count) {
            (0, 0) => Ok(()),
            (0, _) => Err(no_line),
            (count, no_line_count) => {
                if no_line_count > 0 {
                    say(format_args!("zkv: {no_line}"));
                }
                let problem = "the key or the value is not of the type asked for";
                Err(Failure::LeftOut { count, problem })
            }
        }
    }
}
