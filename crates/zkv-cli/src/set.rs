//! `zkv set`.

use std::borrow::Cow;
use std::io::{self, Read};

use zkv::Options;

use crate::arguments::Set;
use crate::failure::Failure;
use crate::store;
use crate::types::argument_bytes;

/// Sets the value of a key.
pub fn run(arguments: &Set) -> Result<(), Failure> {
    let key = arguments
        .types
        .key_type
        .encode(argument_bytes(&arguments.key))
        .map_err(|problem| Failure::Usage(format!("the key: {problem}")))?;
    let text = match &arguments.value {
        Some(value) => Cow::Borrowed(argument_bytes(value)),
        None => Cow::Owned(read_standard_input()?),
    };
    let value = arguments
        .types
        .value_type
        .encode(&text)
        .map_err(|problem| Failure::Usage(format!("the value: {problem}")))?;
    let collection = arguments.types.collection.as_deref();
    // Nothing is created for a value that cannot be stored.
    let store = store::open_to_write(&arguments.store, Options::new(), collection)?;
    let done = store::Keys::of(&store, collection).and_then(|keys| {
        store::check_types(&store, &arguments.types)?;
        Ok(keys.set(&key, &value)?)
    });
    store::close(store, done)
}

fn read_standard_input() -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    // One byte more than the longest value: the store refuses it, and endless input ends.
    let enough = u64::from(u32::MAX) + 1;
    match io::stdin().lock().take(enough).read_to_end(&mut value) {
        Ok(_) => Ok(value),
        Err(error) => Err(Failure::File { name: "standard input".to_owned(), error }),
    }
}
