//! One record to bytes and back, the hash of its key, and the encoding of typed keys and values.
//!
//! A [`Record`] is what the log stores as one entry: a put, a delete mark, the [`Head`] of a value
//! too long for one entry, or a piece of such a value. A [`KeyHasher`] gives the 128 bits by which
//! the index finds it. [`encode`] and [`decode`] turn typed keys and values into the bytes that a
//! record holds, and a [`Codec`] does so with values in one of two encodings.
//!
//! The crate opens no file, compresses nothing, and decides nothing about durability, order or
//! expiry: it only says what the bytes mean.
//!
//! The bytes are described row by row in `docs/format/record.md`.
//!
//! ```
//! use zkv_record::{Kind, Record};
//!
//! let record = Record::put(b"key", b"value");
//! let mut bytes = Vec::new();
//! record.encode_into(&mut bytes);
//! assert_eq!(bytes, b"\x00\x03keyvalue");
//! assert_eq!(Record::decode(&bytes)?, record);
//! assert_eq!(record.kind, Kind::Put);
//! # Ok::<(), zkv_record::RecordError>(())
//! ```

mod codec;
mod counted;
mod error;
mod hash;
mod head;
mod json;
#[doc(hidden)]
pub mod layout;
mod limited;
mod limits;
mod record;
mod shape;
mod typed;

pub use codec::Codec;
pub use error::{CodecError, RecordError};
pub use hash::{KeyHasher, Namespace};
pub use head::{Head, PieceKey};
pub use limits::{
    DECODE_DEPTH_MAX, ELEMENTS_WITHOUT_BYTES_MAX, KEY_BYTES_MAX, PIECE_BYTES, PIECE_BYTES_MAX,
    PIECE_BYTES_MIN, VALUE_BYTES_INLINE_MAX, VALUE_BYTES_MAX, check_key, check_value_bytes,
};
pub use record::{Kind, Record};
pub use shape::{SHAPE_BYTES_MAX, asks_the_data, outer_shape_of, reads_what_it_writes, shape_of};
pub use typed::{decode, decode_within, encode, encode_within};
