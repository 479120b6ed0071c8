//! What can be wrong with a record, a key or a value.

use std::fmt;
use std::str::Utf8Error;

use serde_json::error::Category;

/// Why bytes are no record, or a key or value cannot be one.
///
/// No variant holds a key's or a value's bytes: errors end up in logs. Its text says all of it, what the codec
/// reports included, so it has no `source()`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The bytes are no record that any version writes. They came through a checksum, so this is
    /// either damage before it was computed, or a forgery.
    #[error("the record's {field} does not fit its bytes; verify the store, then salvage it")]
    Corrupt {
        /// Which field cannot be read.
        field: &'static str,
    },
    /// The record uses a feature that this version does not know.
    #[error(
        "the record has flags {flags:#04x}, and this version knows only {known:#04x}; \
         open the store with a newer version"
    )]
    UnsupportedFlags {
        /// The record's flags.
        flags: u8,
        /// All flags that this version knows.
        known: u8,
    },
    /// The value's `Serialize` failed, or uses what the codec cannot write.
    #[error("the value cannot be encoded: {0}")]
    Encode(CodecError),
    /// The bytes are no value of the type asked for.
    #[error("the stored bytes are no value of the type asked for: {0}")]
    Decode(CodecError),
    /// The bytes hold a value of the type asked for, and more behind it: most likely they were
    /// written as another type.
    #[error(
        "{} left behind the decoded value; it was stored as another type",
        if *bytes == 1 { "1 byte is".to_owned() } else { format!("{bytes} bytes are") }
    )]
    TrailingBytes {
        /// How many bytes are left.
        bytes: usize,
    },
    /// The value nests deeper than it may, or its bytes are forged.
    #[error(
        "the value nests deeper than {max} levels: raise `Options::max_decode_depth`, and for a batch \
         `WriteBatch::max_decode_depth`, too, or store a flatter type"
    )]
    TooDeep {
        /// How deep it may nest.
        max: u32,
    },
    /// A key nests deeper than any key may.
    #[error("the key nests deeper than {max} levels, which no option raises: use a flatter type")]
    KeyTooDeep {
        /// [`DECODE_DEPTH_MAX`](crate::DECODE_DEPTH_MAX).
        max: u32,
    },
    /// The value has more elements than its bytes can hold and 65,536, such as a long `Vec<()>`, or its bytes are
    /// forged.
    #[error(
        "the value has more than {max} elements in its sequences, which is more than its bytes can hold: too \
         many take no bytes, or it was stored as another type, or forged"
    )]
    TooManyElements {
        /// How many it may have.
        max: usize,
    },
    /// A key is longer than a key may be.
    #[error("a key of {bytes} bytes exceeds the limit of {max}")]
    KeyTooLong {
        /// The key's length.
        bytes: usize,
        /// [`KEY_BYTES_MAX`](crate::KEY_BYTES_MAX).
        max: usize,
    },
    /// A value is longer than a value may be.
    #[error("a value of {bytes} bytes exceeds the limit of {max}; see `Options::max_value_bytes`")]
    ValueTooLong {
        /// The value's length.
        bytes: u64,
        /// The store's own limit, or [`VALUE_BYTES_MAX`](crate::VALUE_BYTES_MAX).
        max: u64,
    },
}

/// What the codec reports. It holds nothing of the value: not what postcard and serde_json quote of
/// it, and no message of the type's own `Serialize` and `Deserialize`. Their error types are kept out
/// of the interface, so that their next major versions are not ours.
#[derive(Clone, PartialEq, Eq)]
pub struct CodecError(Reason);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Reason {
    Postcard(postcard::Error),
    Json {
        what: &'static str,
        /// Counted from 1; 0 where it is not known.
        line: usize,
        column: usize,
    },
    NotUtf8 {
        /// The first byte that cannot be read.
        offset: usize,
    },
}

/// How serde begins its messages. Behind that, it quotes the value.
const KINDS: &[&str] = &[
    "invalid type",
    "invalid value",
    "invalid length",
    "unknown variant",
    "unknown field",
    "missing field",
    "duplicate field",
];

impl CodecError {
    pub(crate) fn postcard(error: postcard::Error) -> Self {
        Self(Reason::Postcard(error))
    }

    pub(crate) fn json_encode(error: &serde_json::Error) -> Self {
        let what = match error.classify() {
            Category::Syntax => "a map's key is no string, number or bool, as JSON asks",
            _ => "the type's `Serialize` failed",
        };
        Self(Reason::Json { what, line: 0, column: 0 })
    }

    pub(crate) fn json_not_finite() -> Self {
        let what = "a number is infinite or none (NaN), which JSON cannot tell";
        Self(Reason::Json { what, line: 0, column: 0 })
    }

    pub(crate) fn json_decode(error: &serde_json::Error) -> Self {
        let what = match error.classify() {
            Category::Syntax => "no JSON",
            Category::Eof => "the JSON ends too early",
            Category::Data | Category::Io => {
                let message = error.to_string();
                let kind = KINDS.iter().find(|kind| message.starts_with(**kind));
                kind.copied().unwrap_or("refused by the type's `Deserialize`")
            }
        };
        Self(Reason::Json { what, line: error.line(), column: error.column() })
    }

    pub(crate) fn not_utf8(error: Utf8Error) -> Self {
        Self(Reason::NotUtf8 { offset: error.valid_up_to() })
    }
}

impl fmt::Debug for CodecError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Reason::Postcard(error) => fmt::Debug::fmt(error, formatter),
            reason => fmt::Debug::fmt(reason, formatter),
        }
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            // What postcard refuses on principle needs naming in the user's terms.
            Reason::Postcard(postcard::Error::WontImplement) => formatter.write_str(
                "postcard is not self-describing: serde_json::Value and enums that are untagged or \
                 have #[serde(tag)] can be encoded but not decoded; JSON can do both",
            ),
            Reason::Postcard(postcard::Error::SerdeSerCustom) => formatter.write_str(
                "the type's `Serialize` failed, or a field was left out by \
                 #[serde(skip_serializing_if)], which only JSON can tell",
            ),
            Reason::Postcard(postcard::Error::SerializeSeqLengthUnknown) => formatter.write_str(
                "a sequence or map does not know its length beforehand, as with #[serde(flatten)]; \
                 JSON need not know it",
            ),
            Reason::Postcard(error) => fmt::Display::fmt(error, formatter),
            Reason::Json { what, line: 0, .. } => formatter.write_str(what),
            Reason::Json { what, line, column } => {
                write!(formatter, "{what} at line {line}, column {column}")
            }
            Reason::NotUtf8 { offset } => write!(formatter, "no UTF-8 at byte {offset}"),
        }
    }
}

impl std::error::Error for CodecError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_behind_a_value_is_counted_in_words_that_fit() {
        for (bytes, expected) in [(1, "1 byte is left behind"), (2, "2 bytes are left behind")] {
            let message = RecordError::TrailingBytes { bytes }.to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }
}
