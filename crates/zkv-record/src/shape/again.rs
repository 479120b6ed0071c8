//! Whether a type reads what it writes.

use std::ops::Range;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::noted::Noted;
use super::trace::Trace;
use crate::codec::Codec;
use crate::limits::DECODE_DEPTH_MAX;

/// Whether `T` reads what it writes with `codec`: each value that it makes of such as 0, 1 and the empty string
/// is written and read again, and must come back with the same variants of its enums. So are values that it makes of
/// numbers from 2 on, and texts that name them, each another one: those that are written must come back, too.
///
/// serde numbers the variants that are written and those that are read apart from each other, so that one
/// that `#[serde(skip)]` leaves out before others turns those into one another; and it reads nothing of a field
/// with `#[serde(skip_deserializing)]` that it has written, nor writes one with `skip_serializing` that it reads.
/// Names tell all that apart in JSON, but where a field has one name when it is written and another when it is
/// read: it is missing then, or its default. What a type refuses to write, or to make of plain values, is not known,
/// and counts as read again. `T` is asked as for [`shape_of`](crate::shape_of), and its `Serialize` is run, too.
///
/// ```
/// use zkv_record::{Codec, reads_what_it_writes};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// enum Kind {
///     Page,
///     #[serde(skip)]
///     Draft,
///     Feed,
/// }
///
/// assert!(!reads_what_it_writes::<Kind>(Codec::Postcard));
/// assert!(reads_what_it_writes::<Kind>(Codec::Json));
/// # let _ = Kind::Draft;
/// ```
#[must_use]
pub fn reads_what_it_writes<T: Serialize + DeserializeOwned>(codec: Codec) -> bool {
    let mut is_read = true;
    let mut check = |value: &T, numbers| {
        is_read = is_read && is_read_again(value, codec, numbers);
    };
    Trace::with_each(codec, |value: T| check(&value, 0..0));
    Trace::with_each_of_numbers(codec, |value: T, numbers| check(&value, numbers));
    is_read
}

/// Whether a value that was made of `numbers`, among others, comes back with the same variants and with those of
/// the numbers that it writes.
///
/// The bytes may differ: maps have another order, and what is not read may be the time, or a default. Nor need a
/// number be written: a type may make of it what it likes, once.
fn is_read_again<T>(value: &T, codec: Codec, numbers: Range<u32>) -> bool
where
    T: Serialize + DeserializeOwned,
{
    let mut bytes = Vec::new();
    if codec.encode(value, DECODE_DEPTH_MAX, &mut bytes).is_err() {
        return true;
    }
    let Ok(again) = codec.decode::<T>(&bytes, DECODE_DEPTH_MAX) else { return false };
    bytes.clear();
    if codec.encode(&again, DECODE_DEPTH_MAX, &mut bytes).is_err() {
        return false;
    }
    match (Noted::of(value, codec), Noted::of(&again, codec)) {
        (Some(first), Some(second)) => {
            first.variants() == second.variants() && second.has_those_of(&first, numbers)
        }
        _ => true,
    }
}
