//! Copying a log as it is.

use std::collections::HashSet;
use std::io;

use zkv_io::StorageFile;

use crate::layout::FILE_HEADER_BYTES;
use crate::log::LogView;
use crate::reclaim::{is_forgotten, roll_call_named_in};
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

    /// As [`LogView::copy_to`], with the slots that were freed and that whoever reads the log alone looks
    /// for: of a log that nobody writes, since a writer uses them again, and can
    /// [`rebase`](crate::LogWriter::rebase) it instead.
    ///
    /// # Errors
    /// Whatever the system reports.
    pub fn copy_with_freed_to(&self, file: &dyn StorageFile) -> io::Result<()> {
        self.copy_to(file)?;
        let (shared, members) = (&self.shared, || self.segments.by_slot.iter().flatten());
        let used: HashSet<u32> = members().map(|segment| segment.place.id.slot).collect();
        let last = members().max_by_key(|segment| segment.place.id.sequence);
        let needed_from = last.and_then(|last| roll_call_named_in(shared, last.place.id.slot));
        let (file_bytes, slot_bytes) = (shared.file.len()?, u64::from(shared.identity.slot_bytes));
        for slot in 0..u32::MAX {
            let start = shared.identity.slot_start(slot);
            if start >= file_bytes {
                break;
            }
            if !used.contains(&slot) && !is_forgotten(shared, slot, needed_from) {
                self.copy_range(file, start, slot_bytes.min(file_bytes - start))?;
            }
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
