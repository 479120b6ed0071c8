//! Typed values as JSON, within the same limits as postcard's.

use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::counted::{Counted, Counts};
use crate::error::{CodecError, RecordError};
use crate::limited::{Left, Limited};

/// Appends the JSON of `value`, without white space. `into` is as it was where that fails. Each element takes
/// a byte at the least, so that there are never too many to be read.
pub(crate) fn encode_within<T: Serialize + ?Sized>(
    value: &T,
    depth_max: u32,
    into: &mut Vec<u8>,
) -> Result<(), RecordError> {
    let counts = Counts::new(depth_max, true);
    let start = into.len();
    serde_json::to_writer(&mut *into, &Counted::new(value, &counts)).map_err(|error| {
        into.truncate(start);
        counts.why(CodecError::json_encode(&error))
    })
}

/// Reads a value that fills `bytes` within the limits of [`decode_within`](crate::decode_within).
pub(crate) fn decode_within<T: DeserializeOwned>(
    bytes: &[u8],
    depth_max: u32,
) -> Result<T, RecordError> {
    // Checked as a whole: serde_json does not look into the strings of fields that a type ignores.
    let text =
        str::from_utf8(bytes).map_err(|error| RecordError::Decode(CodecError::not_utf8(error)))?;
    let mut left = Left::new(bytes.len(), depth_max);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    // Its own limit is a constant, and below what an option may ask for. `Limited` counts each
    // level on which serde_json recurses; what a type ignores is skipped without recursion.
    deserializer.disable_recursion_limit();
    let value = T::deserialize(Limited::new(&mut deserializer, &mut left))
        .map_err(|error| left.why(CodecError::json_decode(&error)))?;
    // Reads nothing: the one way to learn where the value ended.
    let end = deserializer.into_iter::<IgnoredAny>().byte_offset();
    if end == bytes.len() {
        Ok(value)
    } else {
        Err(RecordError::TrailingBytes { bytes: bytes.len() - end })
    }
}
