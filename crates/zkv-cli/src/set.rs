//! `zkv set`.

use std::borrow::Cow;
use std::io::{self, Read};

use zkv::{Codec, Options, Store};

use crate::arguments::{Set, Types};
use crate::failure::Failure;
use crate::store;
use crate::types::{Type, argument_bytes};

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
        check_types(&store, &arguments.types)?;
        Ok(keys.set(&key, &value)?)
    });
    store::close(store, done)
}

/// Refuses to write what the programs that use a collection could not read.
fn check_types(store: &Store, types: &Types) -> Result<(), Failure> {
    let Some(name) = &types.collection else { return Ok(()) };
    let infos = store.collections();
    let Some(info) = infos.iter().find(|info| info.name == *name) else { return Ok(()) };
    let of_values = match info.codec {
        Some(Codec::Json) => Some(Type::Bytes),
        _ => Type::of_collection(&info.value_type),
    };
    let key = ("key", Type::of_collection(&info.key_type), types.key_type);
    for (what, wanted, given) in [key, ("value", of_values, types.value_type)] {
        if let Some(wanted) = wanted.filter(|wanted| *wanted != given) {
            let (wanted, given) = (wanted.name(), given.name());
            return Err(Failure::Usage(format!(
                "the collection has no {what}s of the type {given}: give --{what}-type {wanted}"
            )));
        }
    }
    Ok(())
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
