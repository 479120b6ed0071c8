//! CRC32C, the Castagnoli polynomial, with the processor's instruction where there is one.

/// Extends `seed`, the CRC32C of what came before (0 at the start), by `bytes`.
///
/// `crc32c(crc32c(0, a), b)` equals `crc32c(0, ab)`. It is not `crc32fast`'s polynomial. In blocks
/// up to 2 GiB it finds every flip of up to three bits and every burst of up to 32.
///
/// ```
/// assert_eq!(zkv_io::crc32c(0, b"123456789"), 0xE306_9283); // RFC 3720, appendix B.4
/// ```
#[inline]
#[must_use]
pub fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(seed, bytes)
}

#[cfg(test)]
mod tests {
    use super::crc32c;

    #[test]
    fn known_vectors_of_rfc_3720_match() {
        assert_eq!(crc32c(0, &[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(0, &[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(crc32c(crc32c(0, b"12345"), b"6789"), 0xE306_9283);
    }
}
