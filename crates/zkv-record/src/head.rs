//! Values over 1 MiB: a head names the pieces, and each piece is a record of its own.

use zkv_io::Cursor;

use crate::error::RecordError;
use crate::layout;
use crate::limits::{PIECE_BYTES_MAX, PIECE_BYTES_MIN, VALUE_BYTES_MAX};
use crate::record::corrupt;

const HEAD_BYTES: usize = layout::end(layout::HEAD);
const PIECE_KEY_BYTES: usize = layout::end(layout::PIECE_KEY);

/// The value of a [`Kind::Head`](crate::Kind::Head) record: which pieces make up the key's value.
///
/// ```
/// use zkv_record::{Head, PIECE_BYTES_MAX};
/// let head = Head { value_id: [7; 16], value_bytes: 2_500_000, piece_bytes: PIECE_BYTES_MAX };
/// assert_eq!(head.piece_count(), 3);
/// assert_eq!(head.piece_bytes_at(2), 2_500_000 - 2 * PIECE_BYTES_MAX);
/// assert_eq!(Head::decode(&head.encode())?, head);
/// # Ok::<(), zkv_record::RecordError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Head {
    /// Names the value's pieces. Random, so that the pieces of an earlier value of the same key
    /// are never taken for this one's.
    pub value_id: [u8; 16],
    /// The value's length: over [`PIECE_BYTES_MIN`], up to [`VALUE_BYTES_MAX`]. Whoever has room
    /// for it writes values up to [`VALUE_BYTES_INLINE_MAX`](crate::VALUE_BYTES_INLINE_MAX) whole.
    pub value_bytes: u64,
    /// The length of each piece but the last: 64 KiB to 1 MiB.
    pub piece_bytes: u32,
}

impl Head {
    /// The head's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..16].copy_from_slice(&self.value_id);
        bytes[16..24].copy_from_slice(&self.value_bytes.to_le_bytes());
        bytes[24..].copy_from_slice(&self.piece_bytes.to_le_bytes());
        bytes
    }

    /// Reads a head that fills `bytes`.
    ///
    /// # Errors
    /// [`RecordError::Corrupt`] where the length is another, or a field is out of its range: a
    /// reader may trust both numbers with its memory.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut cursor = Cursor::new(bytes);
        let head = Self::read(&mut cursor).map_err(|_| corrupt("head"))?;
        let value_is_long = u64::from(PIECE_BYTES_MIN) + 1..=VALUE_BYTES_MAX;
        if !value_is_long.contains(&head.value_bytes) {
            return Err(corrupt("head's value length"));
        }
        if !(PIECE_BYTES_MIN..=PIECE_BYTES_MAX).contains(&head.piece_bytes) {
            return Err(corrupt("head's piece length"));
        }
        Ok(head)
    }

    fn read(cursor: &mut Cursor<'_>) -> Result<Self, zkv_io::Overrun> {
        let value_id = cursor.array()?;
        let value_bytes = cursor.u64()?;
        let piece_bytes = cursor.u32()?;
        cursor.finish()?;
        Ok(Self { value_id, value_bytes, piece_bytes })
    }

    /// How many pieces the value has: 1 to 65,536 in a head that [`decode`](Head::decode) gave.
    ///
    /// # Panics
    /// Where `piece_bytes` is 0.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "4 GiB / 64 KiB, within the limits")]
    pub fn piece_count(&self) -> u32 {
        self.value_bytes.div_ceil(u64::from(self.piece_bytes)) as u32
    }

    /// How many bytes piece `number` has: `piece_bytes`, less in the last piece, 0 behind it.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "at most `piece_bytes`, a u32")]
    pub fn piece_bytes_at(&self, number: u32) -> u32 {
        let start = u64::from(number) * u64::from(self.piece_bytes);
        self.value_bytes.saturating_sub(start).min(u64::from(self.piece_bytes)) as u32
    }

    /// The key of piece `number`, counted from 0.
    #[must_use]
    pub fn piece_key(&self, number: u32) -> PieceKey {
        PieceKey { value_id: self.value_id, number }
    }
}

/// The key of a [`Kind::Piece`](crate::Kind::Piece) record. It lives in a namespace of its own, so
/// no user's key can equal it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PieceKey {
    /// The [`Head`]'s `value_id`.
    pub value_id: [u8; 16],
    /// Which piece, counted from 0.
    pub number: u32,
}

impl PieceKey {
    /// The key's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; PIECE_KEY_BYTES] {
        let mut bytes = [0; PIECE_KEY_BYTES];
        bytes[..16].copy_from_slice(&self.value_id);
        bytes[16..].copy_from_slice(&self.number.to_le_bytes());
        bytes
    }

    /// Reads a key that fills `bytes`.
    ///
    /// # Errors
    /// [`RecordError::Corrupt`] where the length is another.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        Self::read(&mut Cursor::new(bytes)).map_err(|_| corrupt("piece key"))
    }

    fn read(cursor: &mut Cursor<'_>) -> Result<Self, zkv_io::Overrun> {
        let value_id = cursor.array()?;
        let number = cursor.u32()?;
        cursor.finish()?;
        Ok(Self { value_id, number })
    }
}
