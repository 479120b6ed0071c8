//! A stretch of the file in memory, as much of it as the disk gives.

use std::io;
use std::ops::Range;

use zkv_io::{StorageFile, is_lost};

use crate::error::{LogError, Result};

/// What is read at once where a longer read has failed: a sector of most disks, a page of a file.
pub(crate) const UNIT_BYTES: usize = 4096;

/// The bytes of a slot, or of a part of it, up to the file's end.
pub(crate) struct Image {
    /// Zeros where the disk failed.
    pub bytes: Vec<u8>,
    /// The runs of bytes where it did, in order, from the start of these.
    pub unreadable: Vec<Range<u32>>,
    /// The first read of a unit that failed though what it was after may be there.
    failed: Option<io::Error>,
}

impl Image {
    /// Reads up to `bytes_max` from `start` on, as many as a file of `file_bytes` has, and sets aside what cannot
    /// be read.
    pub(crate) fn read(
        file: &dyn StorageFile,
        start: u64,
        bytes_max: u32,
        file_bytes: u64,
    ) -> Self {
        let count = file_bytes.saturating_sub(start).min(u64::from(bytes_max));
        let bytes = vec![0; usize::try_from(count).unwrap_or(0)];
        let mut image = Self { bytes, unreadable: Vec::new(), failed: None };
        if file.read_at(start, &mut image.bytes).is_err() {
            image.read_units(file, start);
        }
        image
    }

    fn read_units(&mut self, file: &dyn StorageFile, start: u64) {
        let mut at = 0;
        while at < self.bytes.len() {
            let from = start + at as u64;
            let in_unit = UNIT_BYTES - usize::try_from(from % UNIT_BYTES as u64).unwrap_or(0);
            let end = self.bytes.len().min(at + in_unit);
            match file.read_at(from, &mut self.bytes[at..end]) {
                // The file was cut since it was measured.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.bytes.truncate(at);
                    return;
                }
                Err(error) => self.set_aside(at..end, error),
                Ok(()) => {}
            }
            at = end;
        }
    }

    fn set_aside(&mut self, unit: Range<usize>, error: io::Error) {
        self.bytes[unit.clone()].fill(0);
        let (start, end) = (offset_of(unit.start), offset_of(unit.end));
        match self.unreadable.last_mut() {
            Some(run) if run.end == start => run.end = end,
            _ => self.unreadable.push(start..end),
        }
        if !is_lost(&error) {
            self.failed.get_or_insert(error);
        }
    }

    /// For who must not take what could not be read this time for lost.
    ///
    /// # Errors
    /// [`LogError::Io`] where a read has failed though what it was after may be there.
    pub(crate) fn for_certain(mut self) -> Result<Self> {
        match self.failed.take() {
            Some(error) => Err(LogError::io("read")(error)),
            None => Ok(self),
        }
    }

    /// Whether the disk has failed to give any of `range`.
    pub(crate) fn is_unreadable(&self, range: Range<u32>) -> bool {
        self.unreadable.iter().any(|run| run.start < range.end && range.start < run.end)
    }

    /// Whether `range` is known to hold nothing but zeros.
    pub(crate) fn is_zero(&self, range: Range<u32>) -> bool {
        let within = range.start as usize..(range.end as usize).min(self.bytes.len());
        let bytes = self.bytes.get(within).unwrap_or(&[]);
        !self.is_unreadable(range) && bytes.iter().all(|byte| *byte == 0)
    }

    /// How many bytes there are.
    pub(crate) fn end(&self) -> u32 {
        offset_of(self.bytes.len())
    }
}

/// A slot has at most 16 MiB.
fn offset_of(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
