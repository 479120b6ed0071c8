//! What the system is asked to read around a page that is missing from a map.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::MmapRaw;

/// As much as Linux reads around a missing page where nobody has set it up otherwise
/// (`read_ahead_kb`): where that is much more, one get can want more memory than its process may have.
pub(crate) const READ_AROUND_BYTES: usize = 128 << 10;
/// So many windows more are asked for where the one before was: what is read may go on.
const WINDOWS_AHEAD: usize = 4;
/// Of a window, in a word of `asked`.
const WORD_BITS: usize = u64::BITS as usize;

/// The windows of an extent that the system was asked to read, once each, before something is copied out
/// of them. Of others it reads the page that is missing.
#[derive(Debug)]
pub(crate) struct ReadAround {
    /// One bit a window.
    asked: Box<[AtomicU64]>,
}

impl ReadAround {
    /// Of a map of which nothing was read yet.
    pub fn new(map: &MmapRaw) -> Self {
        // Where it fails, the system reads around as it is set up.
        #[cfg(unix)]
        let _ = map.advise(memmap2::Advice::Random);
        let words = windows_of(map).div_ceil(WORD_BITS);
        Self { asked: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Asks for the windows that `range`, which is not empty, lies in.
    #[inline]
    pub fn before_copying(&self, map: &MmapRaw, range: Range<usize>) {
        let (first, last) = (range.start / READ_AROUND_BYTES, (range.end - 1) / READ_AROUND_BYTES);
        if !(first..=last).all(|window| self.is_asked(window)) {
            self.ask(map, first, last);
        }
    }

    /// All windows are asked for again when something is copied out of them.
    pub fn forget(&self) {
        self.asked.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    #[inline]
    fn is_asked(&self, window: usize) -> bool {
        self.asked[window / WORD_BITS].load(Ordering::Relaxed) & bit_of(window) != 0
    }

    #[cold]
    fn ask(&self, map: &MmapRaw, first: usize, last: usize) {
        let goes_on = first > 0 && self.is_asked(first - 1);
        let ahead = if goes_on { WINDOWS_AHEAD } else { 0 };
        let end = windows_of(map).min(last + 1 + ahead);
        for window in first..end {
            self.asked[window / WORD_BITS].fetch_or(bit_of(window), Ordering::Relaxed);
        }
        // The system reads them while this goes on; where it cannot, pages are read as they are missing.
        #[cfg(unix)]
        {
            let start = first * READ_AROUND_BYTES;
            let bytes = map.len().min(end * READ_AROUND_BYTES) - start;
            let _ = map.advise_range(memmap2::Advice::WillNeed, start, bytes);
        }
    }
}

fn windows_of(map: &MmapRaw) -> usize {
    map.len().div_ceil(READ_AROUND_BYTES)
}

fn bit_of(window: usize) -> u64 {
    1 << (window % WORD_BITS)
}

#[cfg(test)]
mod tests {
    use memmap2::MmapOptions;

    use super::*;

    const WINDOWS: usize = 100;

    /// The windows that were asked for, after copies of so many bytes from there.
    fn asked_after(copies: &[(usize, usize)]) -> Vec<usize> {
        let file = tempfile::tempfile().unwrap();
        file.set_len((WINDOWS * READ_AROUND_BYTES) as u64).unwrap();
        let map = MmapOptions::new().map_raw_read_only(&file).unwrap();
        let read_around = ReadAround::new(&map);
        for (start, bytes) in copies {
            read_around.before_copying(&map, *start..start + bytes);
        }
        let asked = (0..WINDOWS).filter(|window| read_around.is_asked(*window)).collect();
        read_around.forget();
        assert!(!(0..WINDOWS).any(|window| read_around.is_asked(window)));
        asked
    }

    #[test]
    fn one_copy_asks_for_the_windows_that_it_lies_in() {
        let at = 70 * READ_AROUND_BYTES;
        assert_eq!(asked_after(&[(at, 1)]), [70]);
        assert_eq!(asked_after(&[(at - 1, 1)]), [69]);
        assert_eq!(asked_after(&[(at - 1, 2)]), [69, 70]);
        assert_eq!(asked_after(&[(0, 5), (3, 1)]), [0]);
    }

    #[test]
    fn where_copies_follow_each_other_more_is_asked_for_up_to_the_end() {
        let (at, end) = (70 * READ_AROUND_BYTES, WINDOWS * READ_AROUND_BYTES);
        let next = at + READ_AROUND_BYTES;
        assert_eq!(asked_after(&[(at, 1), (next, 1)]), [70, 71, 72, 73, 74, 75]);
        let last = end - READ_AROUND_BYTES;
        assert_eq!(asked_after(&[(last - 1, 1), (last, 9)]), [98, 99]);
    }
}
