//! `zkv get`.

use std::borrow::Cow;

use crate::arguments::{Get, Types};
use crate::failure::Failure;
use crate::output::{self, Output};
use crate::store::{self, Access, Part};
use crate::types::Type;

/// Prints the value of a key.
pub fn run(arguments: &Get) -> Result<(), Failure> {
    let Types { collection, key_type, value_type } = &arguments.types;
    let collection = collection.as_deref();
    let store = store::open_to_read(&arguments.store)?;
    let keys = store::Keys::of(&store, collection)?;
    let form = |part, given| store::form_of(&store, collection, part, given, Access::Read);
    let (key_form, value_form) = (form(Part::Key, *key_type)?, form(Part::Value, *value_type)?);
    let key = store::encode_key(&arguments.key, key_form)?;
    let found = keys.get(&key)?;
    let value = found.ok_or(Failure::KeysNotFound { missing: 1, asked: 1 })?;
    let kind = value_form.given_as();
    let not_of_kind = || Failure::Usage(format!("the value is no {}", kind.name()));
    let text = value_form.decode(&value).ok_or_else(not_of_kind)?;
    let path = arguments.output.as_deref();
    let text = printed(text, kind, output::is_terminal(path));
    // Only now: a key that is not there must not empty the file.
    let mut output = Output::open(path, &arguments.store)?;
    output.write(&text)?;
    output.finish()
}

/// What is printed of a value. Bytes stay as they are, but for a terminal, which a stranger's value may drive.
fn printed(text: Cow<'_, [u8]>, kind: Type, is_terminal: bool) -> Cow<'_, [u8]> {
    if is_terminal {
        let lines = text.strip_suffix(b"\n").unwrap_or(&text).split(|byte| *byte == b'\n');
        return Cow::Owned(lines.flat_map(escaped_line).collect());
    }
    match kind {
        Type::Bytes => text,
        _ => Cow::Owned([&*text, b"\n"].concat()),
    }
}

fn escaped_line(line: &[u8]) -> Vec<u8> {
    [output::escaped_bytes(line).as_bytes(), b"\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_escaped_lines_and_a_pipe_the_bytes() {
        let cases: [(&[u8], Type, bool, &[u8]); 7] = [
            (b"a\x1b[2J", Type::Bytes, true, b"a\\u{1b}[2J\n"),
            (b"a\x1b[2J", Type::Bytes, false, b"a\x1b[2J"),
            (b"a\x1b[2J", Type::Str, true, b"a\\u{1b}[2J\n"),
            (b"a\x1b[2J", Type::Str, false, b"a\x1b[2J\n"),
            (b"two\nlines\n", Type::Bytes, true, b"two\nlines\n"),
            (b"\x00\xFF\ntext", Type::Bytes, true, b"\\x00\\xff\ntext\n"),
            (b"-5", Type::I64, true, b"-5\n"),
        ];
        for (text, kind, is_terminal, expected) in cases {
            let printed = printed(Cow::Borrowed(text), kind, is_terminal);
            assert_eq!(printed.as_ref(), expected, "{}", text.escape_ascii());
        }
    }
}
