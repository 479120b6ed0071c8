//! The format's limits. A store that has to be read by an older version cannot raise them.

use crate::error::RecordError;

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 65_536;

/// The longest value that one record holds, in bytes; a longer one is stored as pieces.
pub const VALUE_BYTES_INLINE_MAX: usize = 1 << 20;

/// The longest value of all, in bytes: 4 GiB - 1.
pub const VALUE_BYTES_MAX: u64 = u32::MAX as u64;

/// The longest pieces, in bytes, into which a writer should cut a long value: they are packed by several
/// threads, and each is read as a whole.
pub const PIECE_BYTES: usize = 512 * 1024;

/// The shortest piece length that a [`Head`](crate::Head) may name, in bytes. It bounds the number
/// of pieces, so that a damaged head cannot ask for billions.
pub const PIECE_BYTES_MIN: u32 = 64 * 1024;

/// The longest piece length that a [`Head`](crate::Head) may name, in bytes: a piece is an inline
/// value.
#[expect(clippy::cast_possible_truncation, reason = "1 MiB")]
pub const PIECE_BYTES_MAX: u32 = VALUE_BYTES_INLINE_MAX as u32;

/// How many levels of structs, tuples, sequences, maps, options and enums a typed value may nest
/// when it is decoded, unless told otherwise: as deep as serde_json goes, and shallow enough for the
/// 2 MiB stack of a thread.
pub const DECODE_DEPTH_MAX: u32 = 128;

/// How many elements that take no bytes a typed value may have.
pub const ELEMENTS_WITHOUT_BYTES_MAX: usize = 65_536;

/// How many elements a typed value of so many bytes may have, in all its sequences and maps.
#[inline]
pub(crate) const fn elements_max(bytes: usize) -> usize {
    bytes.saturating_add(ELEMENTS_WITHOUT_BYTES_MAX)
}

/// Holds a key against [`KEY_BYTES_MAX`]. An empty key is a key like any other.
///
/// # Errors
/// [`RecordError::KeyTooLong`].
#[inline]
pub const fn check_key(key: &[u8]) -> Result<(), RecordError> {
    if key.len() <= KEY_BYTES_MAX {
        Ok(())
    } else {
        Err(RecordError::KeyTooLong { bytes: key.len(), max: KEY_BYTES_MAX })
    }
}

/// Holds a value's length against [`VALUE_BYTES_MAX`].
///
/// # Errors
/// [`RecordError::ValueTooLong`].
#[inline]
pub const fn check_value_bytes(bytes: u64) -> Result<(), RecordError> {
    if bytes <= VALUE_BYTES_MAX {
        Ok(())
    } else {
        Err(RecordError::ValueTooLong { bytes, max: VALUE_BYTES_MAX })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_at_the_limit_pass_and_one_byte_more_does_not() {
        assert_eq!(check_key(&vec![0; KEY_BYTES_MAX]), Ok(()));
        assert_eq!(
            check_key(&vec![0; KEY_BYTES_MAX + 1]),
            Err(RecordError::KeyTooLong { bytes: 65_537, max: 65_536 })
        );
        assert_eq!(check_value_bytes(VALUE_BYTES_MAX), Ok(()));
        assert_eq!(
            check_value_bytes(VALUE_BYTES_MAX + 1),
            Err(RecordError::ValueTooLong { bytes: 1 << 32, max: (1 << 32) - 1 })
        );
    }
}
