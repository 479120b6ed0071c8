//! `zkv set`.

use std::borrow::Cow;
use std::io::{self, Read};

use zkv::Options;

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
        encode(arguments, &text, own(*key_type), own(*value_type))?;
    }
    let store = store::open_to_write(&arguments.store, Options::new(), collection)?;
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
    let value = value_form.encode(text);
    Ok((key, value.map_err(|problem| Failure::Usage(format!("the value: {problem}")))?))
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
