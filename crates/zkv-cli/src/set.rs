//! `zkv set`.

use std::borrow::Cow;
use std::io::{self, Read};

use zkv::{KEY_BYTES_MAX, Options, RecordError, VALUE_BYTES_MAX};

use crate::arguments::{Set, Types};
use crate::failure::Failure;
use crate::store::{self, Access, Part};
use crate::types::{Form, Type, argument_bytes};

/// Sets the value of a key.
pub fn run(arguments: &Set) -> Result<(), Failure> {
    let text = match &arguments.value {
        Some(value) => Cow::Borrowed(argument_bytes(value)),
        None => Cow::Owned(read_standard_input()?),
    };
    let Types { collection, key_type, value_type } = &arguments.types;
    let collection = collection.as_deref();
    // Nothing is created for what cannot be stored; a collection is in a store that exists.
    if collection.is_none() {
        let own = |given: Option<Type>| Form::own(given.unwrap_or(Type::Bytes));
        let (key, value) = encode(arguments, &text, own(*key_type), own(*value_type))?;
        check_lengths(key.len(), value.len() as u64)?;
    }
    let (path, no_create) = (&arguments.store, arguments.no_create);
    let store = store::open_to_write(path, Options::new(), collection, no_create)?;
    let done = store::Keys::of(&store, collection).and_then(|keys| {
        let form = |part, given| store::form_of(&store, collection, part, given, Access::Write);
        let (key_form, value_form) = (form(Part::Key, *key_type)?, form(Part::Value, *value_type)?);
        let (key, value) = encode(arguments, &text, key_form, value_form)?;
        Ok(keys.set(&key, &value)?)
    });
    store::close(store, done)
}

/// A key and a value as they are stored.
type Encoded<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

fn encode<'a>(
    arguments: &'a Set,
    text: &'a [u8],
    key_form: Form,
    value_form: Form,
) -> Result<Encoded<'a>, Failure> {
    let key = store::encode_key(&arguments.key, key_form)?;
    // The line end with which `get` ends a text, as `echo` does, is none of it.
    let is_line = arguments.value.is_none() && value_form == Form::Str;
    let line = text.strip_suffix(b"\n").filter(|_| is_line);
    let value = value_form.encode(line.unwrap_or(text));
    Ok((key, value.map_err(|problem| Failure::Usage(format!("the value: {problem}")))?))
}

/// What the store would refuse once it is made.
fn check_lengths(key_bytes: usize, value_bytes: u64) -> Result<(), Failure> {
    let refused = |error: RecordError| Err(Failure::Store(error.into()));
    if key_bytes > KEY_BYTES_MAX {
        return refused(RecordError::KeyTooLong { bytes: key_bytes, max: KEY_BYTES_MAX });
    }
    if value_bytes > VALUE_BYTES_MAX {
        return refused(RecordError::ValueTooLong { bytes: value_bytes, max: VALUE_BYTES_MAX });
    }
    Ok(())
}

fn read_standard_input() -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    // One byte more than the longest value: that is refused, and endless input ends.
    let enough = VALUE_BYTES_MAX + 1;
    match io::stdin().lock().take(enough).read_to_end(&mut value) {
        Ok(_) => Ok(value),
        Err(error) => Err(Failure::File { name: "standard input".to_owned(), error }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_refused_before_there_is_a_store() {
        assert!(check_lengths(KEY_BYTES_MAX, VALUE_BYTES_MAX).is_ok());
        for (key_bytes, value_bytes, part) in [
            (KEY_BYTES_MAX + 1, 0, "a key of 65537 bytes"),
            (0, 1 << 32, "a value of 4294967296 bytes"),
        ] {
            let problem = check_lengths(key_bytes, value_bytes).unwrap_err().to_string();
            assert!(problem.starts_with(part), "{problem}");
        }
    }
}
