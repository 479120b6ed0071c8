//! Whether a type reads what it writes.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::trace::Trace;
use crate::codec::Codec;
use crate::counted::Counts;
use crate::error::RecordError;
use crate::limits::DECODE_DEPTH_MAX;
use crate::{json, typed};

/// Whether `T` reads what it writes with `codec`: each value that it makes of such as 0, 1 and the empty string
/// is written and read again, and must come back with the same variants of its enums.
///
/// serde numbers the variants that are written and those that are read apart from each other, so that one
/// that `#[serde(skip)]` leaves out before others turns those into one another; and it reads nothing of a field
/// with `#[serde(skip_deserializing)]` that it has written, nor writes one with `skip_serializing` that it reads.
/// Names tell all that apart in JSON. What a type refuses to write, or to make of plain values, is not known,
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
    Trace::with_each(codec, |value: T| is_read = is_read && is_read_again(&value, codec));
    is_read
}

fn is_read_again<T: Serialize + DeserializeOwned>(value: &T, codec: Codec) -> bool {
    let Ok((bytes, variants)) = written(value, codec) else { return true };
    match codec.decode::<T>(&bytes, DECODE_DEPTH_MAX) {
        Ok(again) => written(&again, codec).is_ok_and(|(_, others)| others == variants),
        Err(_) => false,
    }
}

/// How a value is written, and which variants that has.
fn written<T: Serialize>(
    value: &T,
    codec: Codec,
) -> Result<(Vec<u8>, Vec<&'static str>), RecordError> {
    let mut bytes = Vec::new();
    let counts = Counts::new(DECODE_DEPTH_MAX, codec == Codec::Json).with_variants();
    match codec {
        Codec::Postcard => typed::encode_counted(value, &counts, &mut bytes).map(|_| ())?,
        Codec::Json => json::encode_counted(value, &counts, &mut bytes)?,
    }
    Ok((bytes, counts.into_variants()))
}
