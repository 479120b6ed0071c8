//! `zkv del`.

use std::borrow::Cow;

use crate::arguments::Del;
use crate::failure::Failure;
use crate::store::{self, Access, Keys, Part};

/// Deletes keys.
pub fn run(arguments: &Del) -> Result<(), Failure> {
    let collection = arguments.collection.as_deref();
    let store = store::open_to_change(&arguments.store)?;
    let done = Keys::of(&store, collection).and_then(|of| {
        let given = arguments.key_type;
        let form = store::form_of(&store, collection, Part::Key, given, Access::Read)?;
        let keys = arguments.keys.iter().map(|key| store::encode_key(key, form));
        // No key is deleted where one of them is none.
        delete(&of, &keys.collect::<Result<Vec<_>, _>>()?)
    });
    let missing = store::close(store, done)?;
    if missing == 0 {
        Ok(())
    } else {
        Err(Failure::KeysNotFound { missing, asked: arguments.keys.len() })
    }
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
