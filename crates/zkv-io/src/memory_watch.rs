//! Whether there is memory enough for the files that are mapped.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use crate::read_around::READ_AROUND_BYTES;

/// One copy in so many is timed, of each thread: that takes less than a nanosecond a copy. Prime, since
/// lookups take the same few copies each, and all of them are to have their turn.
const TIMED_ONE_IN: u32 = 61;
/// The start of what is in memory is copied in less, and no disk is faster.
const WAIT_MIN: Duration = Duration::from_micros(25);
/// And each byte of it: at a gigabyte a second, which is a tenth of what memory does.
const WAIT_MIN_A_BYTE: Duration = Duration::from_nanos(1);
/// A copy that did not wait takes back so much of one that did: one in five has to wait, or more, to be
/// noticed in the long run.
const WAITED_OVER_FAST: u32 = 4;
/// Where memory was found to be scarce: it is so until fewer than one in so many waits.
const WAITED_OVER_FAST_WHERE_SCARCE: u32 = TIMED_ONE_IN;
/// So many copies may wait, however small the file is.
const WAITS_MIN: u64 = 64;

/// So many timed copies behind the last one of a file that finds memory scarce, it is taken for enough:
/// a file that is not read any more, or is closed, says nothing of it.
const SCARCE_FOR: u32 = 1000;

/// Finds out that copies go on to wait for the disk where all of the file has been read already: it does
/// not stay in memory. Each read that the system makes larger than it has to be then drops what the next
/// ones want; and a page that is missing in a map takes longer than a read, of several of them one after
/// another. Memory is scarce for all files then: a file that is read often, and stays, is read around as
/// well where a page of it has gone.
#[derive(Debug, Default)]
pub(crate) struct MemoryWatch {
    /// About how many copies had to wait lately.
    waits: AtomicU32,
    has_found_scarce: AtomicBool,
}

/// What the files of this process know of its memory.
static MEMORY: Memory = Memory { scarce_for: AtomicU32::new(0) };

/// For how many timed copies more it is taken for scarce.
#[derive(Debug)]
struct Memory {
    scarce_for: AtomicU32,
}

impl Memory {
    #[inline]
    fn is_scarce(&self) -> bool {
        self.scarce_for.load(Ordering::Relaxed) > 0
    }

    /// Notes that a copy was timed, of a file that finds it scarce or not. Where nothing changes, nothing
    /// is written: other threads read it.
    fn note(&self, is_found_scarce: bool) {
        let left = self.scarce_for.load(Ordering::Relaxed);
        let change = if is_found_scarce { SCARCE_FOR } else { left.saturating_sub(1) };
        if change != left {
            // A copy that another thread counts meanwhile may be lost: about so many are enough.
            self.scarce_for.store(change, Ordering::Relaxed);
        }
    }
}

/// Whether reads of files that were mapped by [`FileStorage`](crate::FileStorage) go on to wait for the disk, though all
/// of a file has been read: whatever else this process keeps in memory, of what these files hold, keeps
/// them out of it.
#[inline]
pub fn memory_is_scarce() -> bool {
    MEMORY.is_scarce()
}

impl MemoryWatch {
    /// Whether the next copy is to be timed.
    #[inline]
    pub fn is_due(&self) -> bool {
        thread_local! {
            static COPIES: Cell<u32> = const { Cell::new(0) };
        }
        let number = COPIES.get().wrapping_add(1);
        COPIES.set(number);
        number.is_multiple_of(TIMED_ONE_IN)
    }

    /// Whether this one does.
    pub fn has_found_scarce(&self) -> bool {
        self.has_found_scarce.load(Ordering::Relaxed)
    }

    /// Notes how long a copy of so many bytes took, from a file of `file_bytes`. Returns `true` where copies went on to
    /// wait for longer than it takes to read all of it once, and it is not known yet why: most likely it
    /// was dropped from memory while nobody read it.
    #[allow(deprecated, reason = "`try_update`, its new name, came with Rust 1.95")]
    pub fn note(&self, took: Duration, copied_bytes: usize, file_bytes: u64) -> bool {
        let copied_bytes = u32::try_from(copied_bytes).unwrap_or(u32::MAX);
        let has_waited = took >= WAIT_MIN + WAIT_MIN_A_BYTE * copied_bytes;
        // Reading all of it once takes half as many.
        let waits_max = WAITS_MIN + 2 * file_bytes / READ_AROUND_BYTES as u64;
        let waits_max = u32::try_from(waits_max).unwrap_or(u32::MAX);
        let was_scarce = self.has_found_scarce();
        let fast_over_waited =
            if was_scarce { WAITED_OVER_FAST_WHERE_SCARCE } else { WAITED_OVER_FAST };
        let change = |waits: u32| match has_waited {
            true => waits.saturating_add(TIMED_ONE_IN).min(waits_max),
            false => waits.saturating_sub(TIMED_ONE_IN / fast_over_waited),
        };
        // Here, too, nothing is written where nothing changes.
        let update = |waits| Some(change(waits)).filter(|changed| *changed != waits);
        let before = self.waits.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
        let before = before.unwrap_or_else(|same| same);
        let after = change(before);
        let is_scarce = match after {
            0 => false,
            waits if waits == waits_max => true,
            _ => was_scarce,
        };
        if is_scarce != was_scarce {
            self.has_found_scarce.store(is_scarce, Ordering::Relaxed);
        }
        MEMORY.note(is_scarce);
        before < waits_max / 2 && after >= waits_max / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a copy.
    const BYTES: usize = 100;
    const WINDOWS: usize = 800;
    const FILE_BYTES: u64 = (WINDOWS * READ_AROUND_BYTES) as u64;
    const FAST: Duration = Duration::from_micros(1);
    const SLOW: Duration = Duration::from_micros(90);

    /// How many of these copies, over and over, it takes to find memory scarce.
    fn copies_until_scarce(times: &[Duration]) -> Option<usize> {
        let watch = MemoryWatch::default();
        (0..100_000).find(|number| {
            watch.note(times[number % times.len()], BYTES, FILE_BYTES);
            watch.has_found_scarce()
        })
    }

    #[test]
    fn memory_is_scarce_where_copies_wait_when_all_of_the_file_has_been_read() {
        let all_of_it = WINDOWS / TIMED_ONE_IN as usize;
        let found = copies_until_scarce(&[SLOW]).unwrap();
        assert!((2 * all_of_it..3 * all_of_it).contains(&found), "{found}");
        assert!(copies_until_scarce(&[SLOW, FAST]).is_some_and(|later| found < later));
    }

    #[test]
    fn before_memory_is_scarce_all_is_read_around_once_more() {
        let watch = MemoryWatch::default();
        let again =
            |took, count| (0..count).filter(|_| watch.note(took, BYTES, FILE_BYTES)).count();
        assert_eq!(again(FAST, 1000) + again(SLOW, 5), 0);
        assert_eq!(again(SLOW, 20), 1);
        assert!(!watch.has_found_scarce());
        assert_eq!(again(SLOW, 1000), 0);
        assert!(watch.has_found_scarce());
    }

    #[test]
    fn a_long_copy_that_takes_its_time_is_no_wait() {
        let watch = MemoryWatch::default();
        for _ in 0..10_000 {
            watch.note(Duration::from_micros(90), 300_000, FILE_BYTES);
        }
        assert!(!watch.has_found_scarce());
        for _ in 0..10_000 {
            watch.note(Duration::from_micros(900), 300_000, FILE_BYTES);
        }
        assert!(watch.has_found_scarce());
    }

    #[test]
    fn a_wait_now_and_then_is_none() {
        assert_eq!(copies_until_scarce(&[FAST]), None);
        assert_eq!(copies_until_scarce(&[SLOW, FAST, FAST, FAST, FAST, FAST]), None);
    }

    #[test]
    fn it_is_enough_again_where_hardly_any_copy_waits() {
        let watch = MemoryWatch::default();
        let note = |took, count| {
            for _ in 0..count {
                watch.note(took, BYTES, FILE_BYTES);
            }
            watch.has_found_scarce()
        };
        assert!(note(SLOW, 10_000));
        for _ in 0..1000 {
            assert!(note(FAST, 30) && note(SLOW, 1), "one in thirty is too many");
        }
        assert!(!note(FAST, 10_000));
        assert!(!note(SLOW, 1) && note(SLOW, 10_000));
    }

    #[test]
    fn memory_is_scarce_for_all_for_as_long_as_a_file_that_finds_it_so_is_read() {
        let memory = Memory { scarce_for: AtomicU32::new(0) };
        let note_of_others = |count| (0..count).for_each(|_| memory.note(false));
        note_of_others(10);
        assert!(!memory.is_scarce());
        for _ in 0..3 {
            memory.note(true);
            note_of_others(SCARCE_FOR - 1);
            assert!(memory.is_scarce());
        }
        note_of_others(1);
        assert!(!memory.is_scarce(), "it has not been read for long");
    }

    #[test]
    fn one_copy_in_many_is_timed() {
        let watch = MemoryWatch::default();
        let due = (0..1000 * TIMED_ONE_IN).filter(|_| watch.is_due()).count();
        assert_eq!(due, 1000);
    }

    #[test]
    fn each_copy_of_a_lookup_is_timed_now_and_then() {
        let watch = MemoryWatch::default();
        for copies in 1..=16 {
            let mut timed = vec![false; copies];
            for _ in 0..1000 {
                timed.iter_mut().for_each(|timed| *timed |= watch.is_due());
            }
            assert!(timed.iter().all(|timed| *timed), "of {copies}: {timed:?}");
        }
    }
}
