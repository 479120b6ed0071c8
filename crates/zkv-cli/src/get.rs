//! `zkv get`.

use crate::arguments::{Get, Types};
use crate::failure::Failure;
use crate::output::Output;
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
    // Only now: a key that is not there must not empty the file.
    let mut output = Output::open(arguments.output.as_deref(), &arguments.store)?;
    output.write(&text)?;
    if kind != Type::Bytes {
        output.write(b"\n")?;
    }
    output.finish()
}
