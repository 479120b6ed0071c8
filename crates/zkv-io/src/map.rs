//! The one memory map. It is made of extents that double, so that a growing file is never mapped
//! again, and readers never wait for it to grow.

use std::fs::File;
use std::sync::OnceLock;

use memmap2::{MmapOptions, MmapRaw};

use crate::read_around::ReadAround;

/// The first extent covers this much; each further one as much as all before it together.
const FIRST_EXTENT_BYTES: u64 = 1 << 20;
/// Of all processors that have the instruction.
const CACHE_LINE_BYTES: usize = 64;
/// Enough for the largest file offset, 2^63.
const EXTENT_COUNT: usize = 44;

/// A read-only map of a file, extended on demand.
#[derive(Debug)]
pub(crate) struct ExtentMap {
    /// `None` where there was no room for the map in this process: it is not asked for again.
    extents: [OnceLock<Option<Extent>>; EXTENT_COUNT],
}

#[derive(Debug)]
struct Extent {
    map: MmapRaw,
    read_around: ReadAround,
}

impl Extent {
    fn new(map: MmapRaw) -> Self {
        Self { read_around: ReadAround::new(&map), map }
    }
}

impl ExtentMap {
    pub(crate) fn new() -> Self {
        Self { extents: [const { OnceLock::new() }; EXTENT_COUNT] }
    }

    /// Copies as much of `into` as lies in the first extent it touches, and says how much that was;
    /// `None` where that extent cannot be mapped here. The caller vouches that the file now holds
    /// all of `offset..offset + into.len()`.
    pub(crate) fn copy_out(
        &self,
        file: &File,
        file_bytes: u64,
        offset: u64,
        into: &mut [u8],
    ) -> Option<usize> {
        let (number, start, bytes) = extent_of(offset);
        // Only Unix lets a map reach beyond the file's end, where the file will grow into it.
        if !cfg!(unix) && file_bytes < start + bytes {
            return None;
        }
        let length = usize::try_from(bytes).ok()?;
        let mapped = match self.extents[number].get() {
            Some(mapped) => mapped,
            None => {
                let mapped = MmapOptions::new().offset(start).len(length).map_raw_read_only(file);
                // Where two readers map it at once, one of the two maps is dropped.
                self.extents[number].get_or_init(|| mapped.ok().map(Extent::new))
            }
        };
        let extent = mapped.as_ref()?;
        #[expect(clippy::cast_possible_truncation, reason = "below `length`, a usize")]
        let within = (offset - start) as usize;
        let count = into.len().min(length - within);
        extent.read_around.before_copying(&extent.map, within..within + count);
        copy(&extent.map, within, &mut into[..count]);
        Some(count)
    }

    /// What was read around is read around again before it is copied.
    pub(crate) fn read_around_again(&self) {
        for extent in self.extents.iter().filter_map(OnceLock::get).flatten() {
            extent.read_around.forget();
        }
    }

    /// Asks for the cache lines of a range, as far as its extent is mapped.
    #[inline]
    pub(crate) fn prefetch(&self, offset: u64, bytes: u32) {
        let (number, start, _) = extent_of(offset);
        let Some(extent) = self.extents.get(number).and_then(OnceLock::get) else { return };
        let Some(extent) = extent else { return };
        let Ok(within) = usize::try_from(offset - start) else { return };
        let end = extent.map.len().min(within.saturating_add(bytes as usize));
        for at in (within..end).step_by(CACHE_LINE_BYTES) {
            prefetch_line(&extent.map, at);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
#[inline]
fn prefetch_line(extent: &MmapRaw, within: usize) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    debug_assert!(within < extent.len());
    // SAFETY: `within` lies inside the map (the caller's range ends there), so the pointer may be
    // made. The instruction is a hint: it reads nothing that the program sees, and never faults,
    // also where the file has become shorter than the map.
    unsafe {
        _mm_prefetch::<_MM_HINT_T0>(extent.as_ptr().add(within).cast());
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn prefetch_line(_: &MmapRaw, _: usize) {}

/// The number, start and length of the extent that holds `offset`.
fn extent_of(offset: u64) -> (usize, u64, u64) {
    match (offset / FIRST_EXTENT_BYTES).checked_ilog2() {
        None => (0, 0, FIRST_EXTENT_BYTES),
        Some(doublings) => {
            let start = FIRST_EXTENT_BYTES << doublings;
            (doublings as usize + 1, start, start)
        }
    }
}

#[allow(unsafe_code)]
fn copy(extent: &MmapRaw, within: usize, into: &mut [u8]) {
    assert!(within <= extent.len() && into.len() <= extent.len() - within);
    // SAFETY: the range lies inside the map (asserted above), which lives as long as `extent`, and
    // `into` is memory of our own, so the two do not overlap. Another thread or process may write
    // these pages meanwhile: no reference to them is ever made, and a copy that mixes old and new
    // bytes is caught by the checksum that the caller holds against the copy. A process that cuts
    // the file shorter than the caller has just found it, against the lock that every zkv process
    // takes, makes the system raise SIGBUS, which ends this process but reads nothing wrong.
    unsafe {
        std::ptr::copy_nonoverlapping(extent.as_ptr().add(within), into.as_mut_ptr(), into.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn what_cannot_be_mapped_is_left_to_reads() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        std::fs::write(&path, [7; 100]).unwrap();
        // The system maps no file that cannot be read.
        let file = File::options().write(true).open(&path).unwrap();
        let map = ExtentMap::new();
        for _ in 0..2 {
            assert_eq!(map.copy_out(&file, 100, 10, &mut [0; 10]), None);
            map.prefetch(10, 10);
        }
    }

    #[test]
    fn extents_cover_every_offset_once() {
        let mut end = 0;
        for number in 0..30 {
            let (found, start, bytes) = extent_of(end);
            assert_eq!((found, start), (number, end));
            assert_eq!(extent_of(end + bytes - 1).0, number);
            end += bytes;
        }
    }
}
