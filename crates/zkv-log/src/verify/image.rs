//! Reading a segment's bytes, as far as the disk gives them.

use std::io;

use zkv_io::{StorageFile, is_lost};

use crate::segment::Place;

/// What is read at once where a whole segment cannot be: a page, and the sectors of any disk.
pub(crate) const PAGE_BYTES: usize = 4096;

/// The bytes of a segment, with zeros for those that cannot be read.
pub(crate) struct Image {
    pub bytes: Vec<u8>,
    /// Where runs of bytes start that the system could not read, from the segment's start.
    pub unreadable: Vec<u32>,
    /// The first read of a page that failed though what it was after may be there.
    pub failed: Option<io::Error>,
}

/// Reads the first `upto` bytes of a segment, or as many as a file of `file_bytes` has.
pub(crate) fn read_image(
    file: &dyn StorageFile,
    place: Place,
    file_bytes: u64,
    upto: u32,
) -> Image {
    let bytes = file_bytes.saturating_sub(place.start).min(u64::from(upto));
    let mut image = Image { bytes: vec![0; usize_of(bytes)], unreadable: Vec::new(), failed: None };
    if file.read_at(place.start, &mut image.bytes).is_ok() {
        return image;
    }
    let mut was_readable = true;
    for page in 0..image.bytes.len().div_ceil(PAGE_BYTES) {
        let start = page * PAGE_BYTES;
        let end = image.bytes.len().min(start + PAGE_BYTES);
        let read = file.read_at(place.start + start as u64, &mut image.bytes[start..end]);
        let is_readable = read.is_ok();
        match read {
            // The file was cut since it was measured.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                image.bytes.truncate(start);
                return image;
            }
            Err(error) => {
                image.bytes[start..end].fill(0);
                if was_readable {
                    image.unreadable.push(u32::try_from(start).unwrap_or(u32::MAX));
                }
                if !is_lost(&error) {
                    image.failed.get_or_insert(error);
                }
            }
            Ok(()) => {}
        }
        was_readable = is_readable;
    }
    image
}

fn usize_of(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
