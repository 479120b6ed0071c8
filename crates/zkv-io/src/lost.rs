//! What a failed read says of what stands there.

use std::io;

/// Whether a read has found that what it was after is lost: in a sector that the disk cannot read, or behind the
/// file's end. All else may pass, or says nothing of what is there.
#[must_use]
pub fn is_lost(error: &io::Error) -> bool {
    // EIO of Unix systems, and of Linux ENODATA, EBADMSG, EILSEQ and EUCLEAN, too; of Windows ERROR_CRC,
    // ERROR_SECTOR_NOT_FOUND, ERROR_READ_FAULT, ERROR_IO_DEVICE and ERROR_FILE_CORRUPT.
    let codes: &[i32] = if cfg!(windows) {
        &[23, 27, 30, 1117, 1392]
    } else if cfg!(target_os = "linux") {
        &[5, 61, 74, 84, 117]
    } else {
        &[5]
    };
    match error.raw_os_error() {
        Some(code) => codes.contains(&code),
        // A file that was cut short, or what a storage of somebody's own says of its disk.
        None => matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_sector_is_lost_and_what_memory_or_rights_are_missing_for_is_not() {
        let bad_sector = if cfg!(windows) { 23 } else { 5 };
        assert!(is_lost(&io::Error::from_raw_os_error(bad_sector)));
        assert!(is_lost(&io::ErrorKind::UnexpectedEof.into()));
        assert!(is_lost(&io::Error::other("of a storage's own")));
        // ENOMEM and EACCES; ERROR_NOT_ENOUGH_MEMORY and ERROR_INVALID_DATA.
        let passing = if cfg!(windows) { [8, 13] } else { [12, 13] };
        assert!(
            !passing.into_iter().map(io::Error::from_raw_os_error).any(|error| is_lost(&error))
        );
        assert!(!is_lost(&io::ErrorKind::OutOfMemory.into()));
    }
}
