//! A cursor over bytes that nobody vouches for. It cannot overrun, and trailing bytes are an error.

use std::fmt;

/// The longest varint: ten groups of seven bits hold a `u64`.
pub const VARINT_BYTES_MAX: usize = 10;

/// The bytes end too early, run on too long, or hold a varint that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overrun;

impl fmt::Display for Overrun {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a field's length does not fit the bytes that hold it")
    }
}

impl std::error::Error for Overrun {}

/// Reads little-endian fields from the front of a slice.
///
/// ```
/// use zkv_io::Cursor;
/// let mut cursor = Cursor::new(&[1, 0, 7]);
/// assert_eq!(cursor.u16(), Ok(1));
/// assert_eq!(cursor.u8(), Ok(7));
/// assert_eq!(cursor.finish(), Ok(()));
/// ```
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// Starts at the front of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`Overrun`] where fewer are left.
    #[inline]
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Overrun> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(Overrun)?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// [`Overrun`] where fewer are left.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Overrun> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(Overrun)?;
        self.rest = rest;
        Ok(*head)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`Overrun`] at the end.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, Overrun> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Two bytes, little-endian.
    ///
    /// # Errors
    /// [`Overrun`] where fewer are left.
    #[inline]
    pub fn u16(&mut self) -> Result<u16, Overrun> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes, little-endian.
    ///
    /// # Errors
    /// [`Overrun`] where fewer are left.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, Overrun> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes, little-endian.
    ///
    /// # Errors
    /// [`Overrun`] where fewer are left.
    #[inline]
    pub fn u64(&mut self) -> Result<u64, Overrun> {
        self.array().map(u64::from_le_bytes)
    }

    /// A varint: seven bits a byte, lowest first, the top bit set on all but the last (LEB128).
    ///
    /// # Errors
    /// [`Overrun`] where the bytes end within it, or it does not fit 64 bits.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, Overrun> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let group = u64::from(byte & 0x7F);
            if shift == 63 && group > 1 {
                return Err(Overrun);
            }
            value |= group << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Overrun)
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`Overrun`] where bytes are left.
    pub fn finish(&self) -> Result<(), Overrun> {
        if self.rest.is_empty() { Ok(()) } else { Err(Overrun) }
    }
}

/// Appends `value` as a varint of 1 to [`VARINT_BYTES_MAX`] bytes.
#[inline]
pub fn put_varint(into: &mut Vec<u8>, mut value: u64) {
    loop {
        let group = value.to_le_bytes()[0] & 0x7F;
        value >>= 7;
        if value == 0 {
            into.push(group);
            return;
        }
        into.push(group | 0x80);
    }
}

/// How many bytes [`put_varint`] appends for `value`.
#[inline]
#[must_use]
pub fn varint_bytes(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_and_every_truncation_fails() {
        for value in [0, 1, 127, 128, 16_383, 16_384, 1 << 32, u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(bytes.len(), varint_bytes(value));
            let mut cursor = Cursor::new(&bytes);
            assert_eq!(cursor.varint(), Ok(value));
            assert_eq!(cursor.finish(), Ok(()));
            for end in 0..bytes.len() {
                assert_eq!(Cursor::new(&bytes[..end]).varint(), Err(Overrun));
            }
        }
    }

    #[test]
    fn a_varint_over_64_bits_is_refused() {
        assert_eq!(Cursor::new(&[0xFF; 11]).varint(), Err(Overrun));
        let mut bytes = [0xFF; 10];
        bytes[9] = 2;
        assert_eq!(Cursor::new(&bytes).varint(), Err(Overrun));
    }

    #[test]
    fn trailing_bytes_are_an_error() {
        let mut cursor = Cursor::new(&[1, 2, 3]);
        assert_eq!(cursor.u16(), Ok(0x0201));
        assert_eq!(cursor.finish(), Err(Overrun));
        assert_eq!(cursor.u16(), Err(Overrun));
    }
}
