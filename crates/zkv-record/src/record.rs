//! The record codec.

use zkv_io::{Cursor, put_varint, varint_bytes};

use crate::error::RecordError;
use crate::layout;
use crate::limits::{KEY_BYTES_MAX, VALUE_BYTES_INLINE_MAX};

const KIND_MASK: u8 = (1 << layout::FLAGS[0].2) - 1;
const COLLECTION: u8 = layout::flag(1);
const EXPIRY: u8 = layout::flag(2);
const ORIGIN: u8 = layout::flag(3);
/// All flags that this version knows.
const KNOWN: u8 = (1 << layout::end(layout::FLAGS)) - 1;

/// What a record says of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The key has this value.
    Put = 0,
    /// The key has no value any more.
    Delete = 1,
    /// The key has a value that lies in pieces; the record's value is a [`Head`](crate::Head).
    Head = 2,
    /// A piece of a long value; the record's key is a [`PieceKey`](crate::PieceKey).
    Piece = 3,
}

impl Kind {
    #[inline]
    const fn of(flags: u8) -> Self {
        match flags & KIND_MASK {
            0 => Self::Put,
            1 => Self::Delete,
            2 => Self::Head,
            _ => Self::Piece,
        }
    }
}

/// One record, borrowing its key and value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// What the record says of its key.
    pub kind: Kind,
    /// The collection that the key belongs to; 0 is the default one and takes no byte.
    pub collection: u32,
    /// When the record expires, in milliseconds since the Unix epoch; `None` takes no byte. No store writes
    /// it yet, nor goes by it.
    pub expires_at_ms: Option<u64>,
    /// Of a mark that was moved, the sequence number of the segment in which it was first written:
    /// what it speaks of stands there or before. `None` takes no byte.
    pub origin: Option<u64>,
    /// The key: at most [`KEY_BYTES_MAX`] bytes.
    pub key: &'a [u8],
    /// The value: at most [`VALUE_BYTES_INLINE_MAX`] bytes, and none with [`Kind::Delete`].
    pub value: &'a [u8],
}

impl<'a> Record<'a> {
    /// A put in the default collection that never expires.
    #[must_use]
    pub const fn put(key: &'a [u8], value: &'a [u8]) -> Self {
        Self { kind: Kind::Put, collection: 0, expires_at_ms: None, origin: None, key, value }
    }

    /// A delete mark in the default collection.
    #[must_use]
    pub const fn delete(key: &'a [u8]) -> Self {
        let kind = Kind::Delete;
        Self { kind, collection: 0, expires_at_ms: None, origin: None, key, value: b"" }
    }

    /// Appends the record's bytes. The value of a delete mark is left out.
    ///
    /// Neither key nor value is held against its limit here: a store does that before it takes any
    /// lock, with [`check_key`](crate::check_key), and cuts longer values into pieces. [`decode`]
    /// refuses what exceeds the limits.
    ///
    /// [`decode`]: Record::decode
    #[inline]
    pub fn encode_into(&self, into: &mut Vec<u8>) {
        into.reserve(self.encoded_bytes());
        into.push(self.flags());
        if self.collection != 0 {
            put_varint(into, u64::from(self.collection));
        }
        if let Some(expires_at_ms) = self.expires_at_ms {
            put_varint(into, expires_at_ms);
        }
        if let Some(origin) = self.origin {
            put_varint(into, origin);
        }
        put_varint(into, self.key.len() as u64);
        into.extend_from_slice(self.key);
        into.extend_from_slice(self.stored_value());
    }

    /// How many bytes [`encode_into`](Record::encode_into) appends.
    #[inline]
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        let collection = match self.collection {
            0 => 0,
            id => varint_bytes(u64::from(id)),
        };
        let expiry = self.expires_at_ms.map_or(0, varint_bytes);
        let origin = self.origin.map_or(0, varint_bytes);
        let key = varint_bytes(self.key.len() as u64) + self.key.len();
        1 + collection + expiry + origin + key + self.stored_value().len()
    }

    /// Reads a record that fills `bytes`. Nothing is copied.
    ///
    /// Varints need not be in their shortest form, so other bytes than those that
    /// [`encode_into`](Record::encode_into) writes can give an equal record.
    ///
    /// # Errors
    /// [`RecordError::UnsupportedFlags`] where a newer version wrote the record;
    /// [`RecordError::Corrupt`] where the bytes are no record, or exceed the limits.
    #[inline]
    pub fn decode(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let mut cursor = Cursor::new(bytes);
        let flags = cursor.u8().map_err(|_| corrupt("flags byte"))?;
        // Plain puts and delete marks are nearly all there is, and every get decodes some.
        let Options { collection, expires_at_ms, origin } =
            if flags <= KIND_MASK { Options::default() } else { options(flags, &mut cursor)? };
        let key = key(&mut cursor)?;
        let value = cursor.rest();
        let kind = Kind::of(flags);
        let value_bytes_max = if kind == Kind::Delete { 0 } else { VALUE_BYTES_INLINE_MAX };
        if value.len() > value_bytes_max {
            return Err(corrupt("value length"));
        }
        Ok(Self { kind, collection, expires_at_ms, origin, key, value })
    }

    /// Whether the record says that its key, or its piece, is gone.
    #[inline]
    #[must_use]
    pub fn is_mark(&self) -> bool {
        match self.kind {
            Kind::Delete => true,
            Kind::Piece => self.value.is_empty(),
            Kind::Put | Kind::Head => false,
        }
    }

    fn flags(&self) -> u8 {
        let collection = if self.collection == 0 { 0 } else { COLLECTION };
        let expiry = if self.expires_at_ms.is_none() { 0 } else { EXPIRY };
        let origin = if self.origin.is_none() { 0 } else { ORIGIN };
        self.kind as u8 | collection | expiry | origin
    }

    fn stored_value(&self) -> &'a [u8] {
        if self.kind == Kind::Delete { b"" } else { self.value }
    }
}

/// Keys and values stay out of logs, so only their lengths are printed.
impl std::fmt::Debug for Record<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Record")
            .field("kind", &self.kind)
            .field("collection", &self.collection)
            .field("expires_at_ms", &self.expires_at_ms)
            .field("origin", &self.origin)
            .field("key_bytes", &self.key.len())
            .field("value_bytes", &self.value.len())
            .finish()
    }
}

/// The fields that few records have.
#[derive(Default)]
struct Options {
    collection: u32,
    expires_at_ms: Option<u64>,
    origin: Option<u64>,
}

#[cold]
fn options(flags: u8, cursor: &mut Cursor<'_>) -> Result<Options, RecordError> {
    if flags & !KNOWN != 0 {
        return Err(RecordError::UnsupportedFlags { flags, known: KNOWN });
    }
    let mut options = Options::default();
    if flags & COLLECTION != 0 {
        options.collection = cursor
            .varint()
            .ok()
            .and_then(|id| u32::try_from(id).ok())
            .filter(|&id| id != 0)
            .ok_or(corrupt("collection"))?;
    }
    if flags & EXPIRY != 0 {
        options.expires_at_ms = Some(cursor.varint().map_err(|_| corrupt("expiry"))?);
    }
    if flags & ORIGIN != 0 {
        options.origin = Some(cursor.varint().map_err(|_| corrupt("origin"))?);
    }
    Ok(options)
}

#[inline]
fn key<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], RecordError> {
    let bytes = match cursor.rest().first() {
        // A key under 128 bytes: its length is one byte, and no loop is needed.
        Some(&length) if length < 0x80 => {
            *cursor = Cursor::new(&cursor.rest()[1..]);
            usize::from(length)
        }
        _ => long_key_bytes(cursor)?,
    };
    cursor.bytes(bytes).map_err(|_| corrupt("key"))
}

fn long_key_bytes(cursor: &mut Cursor<'_>) -> Result<usize, RecordError> {
    let bytes = cursor.varint().map_err(|_| corrupt("key length"))?;
    usize::try_from(bytes).ok().filter(|&bytes| bytes <= KEY_BYTES_MAX).ok_or(corrupt("key length"))
}

pub(crate) const fn corrupt(field: &'static str) -> RecordError {
    RecordError::Corrupt { field }
}
