//! Sectors that the disk cannot read.

use std::io;
use std::path::Path;

use crate::disk::{File, SimDisk};

/// A part of a file that the disk cannot read. Whatever touches it, through a map, too, fails as a read of a
/// bad sector does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSector {
    /// Where it starts in its file, in bytes.
    pub offset: u64,
    /// How long it is: 512 or 4096 bytes.
    pub bytes: u64,
    /// What becomes of it.
    pub lasts: Lasts,
}

/// How long a sector cannot be read. Each ends where its file is cut before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasts {
    /// For ever: what is written there seems to arrive.
    ForEver,
    /// Until a write brings all of it. What brings a part of it fails, since the rest would have to be read.
    UntilWritten,
    /// Until somebody takes it out of the list, as a cable that is plugged in again does. Meanwhile as
    /// `ForEver`.
    ForAWhile,
}

impl BadSector {
    fn touches(&self, offset: u64, bytes: u64) -> bool {
        self.offset < offset + bytes && offset < self.offset + self.bytes
    }

    fn is_within(&self, offset: u64, bytes: u64) -> bool {
        offset <= self.offset && self.offset + self.bytes <= offset + bytes
    }
}

impl SimDisk {
    /// From now on, these sectors of the file of that name cannot be read, and no others of it.
    ///
    /// # Errors
    /// Where there is no such file.
    pub fn set_bad_sectors(&self, path: &Path, sectors: Vec<BadSector>) -> io::Result<()> {
        let mut state = self.state();
        let id = state.id(path)?;
        state.file(id)?.bad_sectors = sectors;
        Ok(())
    }

    /// The sectors of the file of that name that cannot be read.
    #[must_use]
    pub fn bad_sectors(&self, path: &Path) -> Vec<BadSector> {
        let mut state = self.state();
        let file =
            state.id(path).and_then(|id| state.file(id).map(|file| file.bad_sectors.clone()));
        file.unwrap_or_default()
    }

    /// Whether a write has failed since it would have had to read the rest of a bad sector.
    #[must_use]
    pub fn has_refused_write(&self) -> bool {
        self.state().has_refused_write
    }
}

impl File {
    /// Fails where some of these bytes cannot be read.
    pub(crate) fn check_readable(&self, offset: u64, bytes: usize) -> io::Result<()> {
        match self.bad_sectors.iter().any(|bad| bad.touches(offset, bytes as u64)) {
            true => Err(io::Error::other("the sector cannot be read")),
            false => Ok(()),
        }
    }

    /// Whether a write of these bytes fails, which leaves everything as it was. Else it mends what it covers.
    pub(crate) fn refuses_write(&mut self, offset: u64, bytes: usize) -> bool {
        let bytes = bytes as u64;
        let mut mendable = self.bad_sectors.iter().filter(|bad| bad.lasts == Lasts::UntilWritten);
        if mendable.any(|bad| bad.touches(offset, bytes) && !bad.is_within(offset, bytes)) {
            return true;
        }
        let stays =
            |bad: &BadSector| bad.lasts != Lasts::UntilWritten || !bad.is_within(offset, bytes);
        self.bad_sectors.retain(stays);
        false
    }

    /// The file has so many bytes now.
    pub(crate) fn cut_bad_sectors(&mut self, bytes: u64) {
        self.bad_sectors.retain(|bad| bad.offset < bytes);
    }
}
