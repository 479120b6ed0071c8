//! A slot in memory, as much of it as the disk gives.

use std::ops::Range;

use zkv_io::StorageFile;

/// What is read at once where a longer read has failed: a sector of most disks, a page of a file.
const UNIT_BYTES: usize = 4096;

/// The bytes of a slot, up to the file's end.
pub(crate) struct Image {
    /// Zeros where the disk failed.
    pub bytes: Vec<u8>,
    /// Where it did, in bytes from the slot's start.
    unreadable: Vec<Range<usize>>,
}

impl Image {
    /// Reads up to `bytes_max` from `start` on, and sets aside what cannot be read.
    pub(crate) fn read(
        file: &dyn StorageFile,
        start: u64,
        bytes_max: u32,
        file_bytes: u64,
    ) -> Self {
        let count = file_bytes.saturating_sub(start).min(u64::from(bytes_max));
        let mut bytes = vec![0; usize::try_from(count).unwrap_or(0)];
        let mut unreadable = Vec::new();
        if file.read_at(start, &mut bytes).is_err() {
            for (number, unit) in bytes.chunks_mut(UNIT_BYTES).enumerate() {
                let at = number * UNIT_BYTES;
                if file.read_at(start + at as u64, unit).is_err() {
                    unit.fill(0);
                    unreadable.push(at..at + unit.len());
                }
            }
        }
        Self { bytes, unreadable }
    }

    /// Whether `range` is known to hold nothing but zeros.
    pub(super) fn is_zero(&self, range: Range<u32>) -> bool {
        let range = range.start as usize..(range.end as usize).min(self.bytes.len());
        let is_read =
            self.unreadable.iter().all(|gap| gap.end <= range.start || range.end <= gap.start);
        let bytes = self.bytes.get(range).unwrap_or(&[]);
        is_read && bytes.iter().all(|byte| *byte == 0)
    }

    pub(super) fn end(&self) -> u32 {
        // A slot has at most 16 MiB.
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }
}
