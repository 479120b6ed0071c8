//! Copying a log as it is.

use std::io;

use zkv_io::StorageFile;

use crate::layout::FILE_HEADER_BYTES;
use crate::log::LogView;
use crate::segment::Segment;

impl LogView {
    /// Writes the log, as this view has it, into an empty file. The copy is the same log, with the
    /// same identity; whatever is written to one of them later is not known to the other.
    ///
    /// # Errors
    /// Whatever the system reports.
    pub fn copy_to(&self, file: &dyn StorageFile) -> io::Result<()> {
        self.copy_range(file, 0, FILE_HEADER_BYTES)?;
        for segment in self.segments.by_slot.iter().flatten() {
            let bytes = self.bytes_to_copy(segment);
            self.copy_range(file, segment.place.start, u64::from(bytes))?;
        }
        Ok(())
    }

    /// A full segment's seal stands at its slot's end.
    fn bytes_to_copy(&self, segment: &Segment) -> u32 {
        let end = self.end_of(segment);
        if segment.is_sealed() && end == segment.end() { segment.place.slot_bytes } else { end }
    }

    fn copy_range(&self, file: &dyn StorageFile, start: u64, bytes: u64) -> io::Result<()> {
        const CHUNK_BYTES: usize = 256 << 10;
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut at = start;
        while at < start + bytes {
            let left = usize::try_from(start + bytes - at).unwrap_or(CHUNK_BYTES);
            let chunk = &mut buffer[..left.min(CHUNK_BYTES)];
            self.shared.file.read_at(at, chunk)?;
            file.write_at(at, chunk)?;
            at += chunk.len() as u64;
        }
        Ok(())
    }
}
