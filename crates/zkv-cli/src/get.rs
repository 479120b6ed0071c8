//! `zkv get`.

use crate::arguments::Get;
use crate::failure::Failure;
use crate::output::Output;
use crate::store;
use crate::types::{Type, argument_bytes};

/// Prints the value of a key.
pub fn run(arguments: &Get) -> Result<(), Failure> {
    let kind = arguments.types.value_type;
    let key = arguments
        .types
        .key_type
        .encode(argument_bytes(&arguments.key))
        .map_err(|problem| Failure::Usage(format!("the key: {problem}")))?;
    let store = store::open_to_read(&arguments.store)?;
    let keys = store::Keys::of(&store, arguments.types.collection.as_deref())?;
    let found = keys.get(&key)?;
    let value = found.ok_or(Failure::KeysNotFound { missing: 1, asked: 1 })?;
    let text = match kind {
        Type::Bytes => value,
        _ => text_of(&value, kind)?,
    };
    // Only now: a key that is not there must not empty the file.
    let mut output = Output::open(arguments.output.as_deref(), &arguments.store)?;
    output.write(&text)?;
    output.finish()
}

fn text_of(value: &[u8], kind: Type) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    if !kind.decode_into(value, &mut text) {
        return Err(Failure::Usage(format!("the value is no {}", kind.name())));
    }
    text.push(b'\n');
    Ok(text)
}
