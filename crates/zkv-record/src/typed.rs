//! Typed keys and values: postcard, without its blind spots.

use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::counted::{Counted, Counts};
use crate::error::{CodecError, RecordError};
use crate::limited::{Left, Limited};
use crate::limits::{DECODE_DEPTH_MAX, elements_max};

/// Appends postcard's encoding of `value`.
///
/// postcard is not self-describing: it writes neither names nor types, so a type must be read as
/// it was written, and a field can be neither added nor moved. `serde_json::Value` and enums that are
/// untagged or have `#[serde(tag)]` can be encoded but never decoded, and as keys two of them may be the same
/// bytes ([`asks_the_data`](crate::asks_the_data) finds such types); `#[serde(flatten)]`, and a field
/// that `#[serde(skip_serializing_if)]` leaves out of a struct with named fields, are refused. Those that it
/// leaves out of a tuple struct or variant, and `skip_serializing` without `skip_deserializing`, cannot be
/// seen: what is decoded is something else then, and two keys may be one
/// ([`reads_what_it_writes`](crate::reads_what_it_writes) finds such types).
///
/// ```
/// let mut bytes = Vec::new();
/// zkv_record::encode("key", &mut bytes)?;
/// assert_eq!(bytes, b"\x03key");
/// assert_eq!(zkv_record::decode::<String>(&bytes)?, "key");
/// # Ok::<(), zkv_record::RecordError>(())
/// ```
///
/// # Errors
/// As [`encode_within`] with a depth of [`DECODE_DEPTH_MAX`].
pub fn encode<T: Serialize + ?Sized>(value: &T, into: &mut Vec<u8>) -> Result<(), RecordError> {
    encode_within(value, DECODE_DEPTH_MAX, into).map(|_| ())
}

/// Appends postcard's encoding of `value`, as [`encode`] does, where [`decode_within`] reads it with the
/// same `depth_max`, and returns how many levels it nests.
///
/// # Errors
/// [`RecordError::Encode`] where the type's `Serialize` fails, or leaves out a field, or it holds a
/// sequence that does not know its length; [`RecordError::TooDeep`] and [`RecordError::TooManyElements`] where
/// it has more of either than can be read. `into` is then as it was.
pub fn encode_within<T: Serialize + ?Sized>(
    value: &T,
    depth_max: u32,
    into: &mut Vec<u8>,
) -> Result<u32, RecordError> {
    let counts = Counts::new(depth_max, false);
    let start = into.len();
    let written = postcard::serialize_with_flavor(&Counted::new(value, &counts), Appender(into));
    let max = elements_max(into.len() - start);
    let written = match written {
        Err(error) => Err(counts.why(CodecError::postcard(error))),
        Ok(()) if max < counts.elements() => Err(RecordError::TooManyElements { max }),
        Ok(()) => Ok(counts.levels()),
    };
    if written.is_err() {
        into.truncate(start);
    }
    written
}

/// Reads a value that fills `bytes`, with the limits of [`decode_within`] and a depth of
/// [`DECODE_DEPTH_MAX`].
///
/// # Errors
/// As [`decode_within`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    decode_within(bytes, DECODE_DEPTH_MAX)
}

/// Reads a value that fills `bytes`, and nests at most `depth_max` levels of structs, tuples,
/// sequences, maps, options and enums.
///
/// All its sequences and maps together may have as many elements as there are bytes, and
/// [`ELEMENTS_WITHOUT_BYTES_MAX`](crate::ELEMENTS_WITHOUT_BYTES_MAX) more: bytes that somebody forged can name any number of elements
/// that take no bytes, such as `()`. What a value takes in memory is up to the type, and at most in
/// proportion to the bytes.
///
/// # Errors
/// [`RecordError::Decode`] where the bytes are no `T`; [`RecordError::TooDeep`] and
/// [`RecordError::TooManyElements`]; [`RecordError::TrailingBytes`] where they are a `T` and more,
/// as when a pair is read as its first half. Not every wrong type can be told: any byte is a `u8`.
pub fn decode_within<T: DeserializeOwned>(bytes: &[u8], depth_max: u32) -> Result<T, RecordError> {
    let mut left = Left::new(bytes.len(), depth_max);
    let mut deserializer = postcard::Deserializer::from_bytes(bytes);
    let value = T::deserialize(Limited::new(&mut deserializer, &mut left))
        .map_err(|error| left.why(CodecError::postcard(error)))?;
    let rest = deserializer
        .finalize()
        .map_err(|error| RecordError::Decode(CodecError::postcard(error)))?;
    if rest.is_empty() { Ok(value) } else { Err(RecordError::TrailingBytes { bytes: rest.len() }) }
}

/// postcard's own growing buffers push strings byte by byte, or own their `Vec`.
struct Appender<'a>(&'a mut Vec<u8>);

impl Flavor for Appender<'_> {
    type Output = ();

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}
