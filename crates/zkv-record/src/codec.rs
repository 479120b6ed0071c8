//! Which encoding the values of a collection have.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::RecordError;
use crate::{json, typed};

/// How typed values become bytes. Typed keys are always postcard: they are found by their bytes, and
/// JSON writes one value in many ways.
///
/// ```
/// use zkv_record::{Codec, DECODE_DEPTH_MAX};
///
/// let mut bytes = Vec::new();
/// Codec::Json.encode(&("page", 7), DECODE_DEPTH_MAX, &mut bytes)?;
/// assert_eq!(bytes, br#"["page",7]"#);
/// let decoded: serde_json::Value = Codec::Json.decode(&bytes, DECODE_DEPTH_MAX)?;
/// assert_eq!(decoded[1], 7);
/// # Ok::<(), zkv_record::RecordError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Codec {
    /// [`encode`](crate::encode) and [`decode_within`](crate::decode_within): short and fast, for
    /// types that are read as they were written.
    #[default]
    Postcard,
    /// JSON, written as serde_json does, without white space, and read with it, too: longer and slower, for
    /// types that need a self-describing format (`serde_json::Value`, `#[serde(flatten)]`, enums that are
    /// untagged or have `#[serde(tag)]`), and for those whose fields come and go (`skip_serializing_if`).
    ///
    /// JSON cannot tell everything: `()`, and the `Some` of a `None` or a `()`, become `null`. NaN and the
    /// infinities are refused, and so are keys of maps that are no strings, numbers or bools.
    Json,
}

impl Codec {
    /// The number that stands for it in a store, and never changes.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Postcard => 0,
            Self::Json => 1,
        }
    }

    /// The codec of a number, or `None` where this version knows none.
    ///
    /// ```
    /// use zkv_record::Codec;
    /// assert_eq!(Codec::from_code(Codec::Json.code()), Some(Codec::Json));
    /// assert_eq!(Codec::from_code(2), None);
    /// ```
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Postcard),
            1 => Some(Self::Json),
            _ => None,
        }
    }

    /// What types ask, to be read as text or as numbers.
    pub(crate) const fn is_human_readable(self) -> bool {
        match self {
            Self::Postcard => false,
            Self::Json => true,
        }
    }

    /// Appends the encoding of `value`, where [`Codec::decode`] reads it with the same `depth_max`. In JSON, a variant
    /// that is a tuple or a struct takes two levels of that, as of whoever reads it as anything.
    ///
    /// # Errors
    /// [`RecordError::Encode`] where the type's `Serialize` fails, or it holds what the codec cannot
    /// write: for postcard a sequence that does not know its length, for JSON a number that is not finite, or
    /// a map whose keys are no strings, numbers or bools; [`RecordError::TooDeep`]; [`RecordError::TooManyElements`] as of
    /// [`encode_within`](crate::encode_within). `into` is then as it was.
    pub fn encode<T: Serialize + ?Sized>(
        self,
        value: &T,
        depth_max: u32,
        into: &mut Vec<u8>,
    ) -> Result<(), RecordError> {
        match self {
            Self::Postcard => typed::encode_within(value, depth_max, into).map(|_| ()),
            Self::Json => json::encode_within(value, depth_max, into),
        }
    }

    /// Reads a value that fills `bytes`, within the limits of [`decode_within`](crate::decode_within).
    /// They mean the same for both: `depth_max` takes the place of serde_json's own limit of 128 levels,
    /// up or down. White space behind JSON is trailing bytes like any other.
    ///
    /// # Errors
    /// [`RecordError::Decode`] where the bytes are no `T`; [`RecordError::TooDeep`] and
    /// [`RecordError::TooManyElements`]; [`RecordError::TrailingBytes`] where they are a `T` and more.
    pub fn decode<T: DeserializeOwned>(
        self,
        bytes: &[u8],
        depth_max: u32,
    ) -> Result<T, RecordError> {
        match self {
            Self::Postcard => typed::decode_within(bytes, depth_max),
            Self::Json => json::decode_within(bytes, depth_max),
        }
    }
}
