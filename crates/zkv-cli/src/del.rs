//! `zkv del`.

use std::borrow::Cow;

use crate::arguments::Del;
use crate::failure::Failure;
use crate::store::{self, Keys};
use crate::types::argument_bytes;

/// Deletes keys.
pub fn run(arguments: &Del) -> Result<(), Failure> {
    let keys: Result<Vec<_>, _> =
        arguments.keys.iter().map(|key| arguments.key_type.encode(argument_bytes(key))).collect();
    let keys = keys.map_err(|problem| Failure::Usage(format!("a key: {problem}")))?;
    let store = store::open_to_change(&arguments.store)?;
    let done = Keys::of(&store, arguments.collection.as_deref()).and_then(|of| delete(&of, &keys));
    let missing = store::close(store, done)?;
    if missing == 0 { Ok(()) } else { Err(Failure::KeysNotFound { missing, asked: keys.len() }) }
}

/// How many of `keys` were not there.
fn delete(of: &Keys<'_>, keys: &[Cow<'_, [u8]>]) -> Result<usize, Failure> {
    let mut missing = 0;
    for key in keys {
        if !of.delete(key)? {
            missing += 1;
        }
    }
    Ok(missing)
}
