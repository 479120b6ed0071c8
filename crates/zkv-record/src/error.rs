//! What can be wrong with a record, a key or a value.

use std::fmt;

/// Why bytes are no record, or a key or value cannot be one.
///
/// No variant holds a key's or a value's bytes: errors end up in logs.
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
    /// The value's `Serialize` failed, or uses what postcard cannot write.
    #[error("the value cannot be encoded")]
    Encode(#[source] CodecError),
    /// The bytes are no value of the type asked for.
    #[error("the stored bytes are no value of the type asked for")]
    Decode(#[source] CodecError),
    /// The bytes hold a value of the type asked for, and more behind it: most likely they were
    /// written as another type.
    #[error("{bytes} bytes are left behind the decoded value; it was stored as another type")]
    TrailingBytes {
        /// How many bytes are left.
        bytes: usize,
    },
    /// The bytes nest deeper than a value may, or are forged.
    #[error(
        "the value nests deeper than {max} levels: raise `Options::max_decode_depth`, \
         or store a flatter type"
    )]
    TooDeep {
        /// How deep it may nest.
        max: u32,
    },
    /// The bytes name more elements than they can hold, or are forged.
    #[error(
        "the value has more than {max} elements in its sequences, which is more than its bytes \
         can hold: it was stored as another type, or forged"
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

/// What postcard reports. Its type is kept out of the interface, so that postcard's next major
/// version is not ours.
#[derive(Clone, PartialEq, Eq)]
pub struct CodecError(pub(crate) postcard::Error);

impl fmt::Debug for CodecError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            // What postcard refuses on principle needs naming in the user's terms.
            postcard::Error::WontImplement => formatter.write_str(
                "postcard is not self-describing: serde_json::Value, #[serde(flatten)] and \
                 untagged enums can be encoded but not decoded",
            ),
            _ => fmt::Display::fmt(&self.0, formatter),
        }
    }
}

impl std::error::Error for CodecError {}
