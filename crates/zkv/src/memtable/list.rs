//! A list that one thread appends to while others read it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Items of the first chunk; each further one holds twice as many as the one before it.
const FIRST_CHUNK: usize = 128;
/// As many as numbers of 32 bits need.
const CHUNKS: usize = 26;

/// Items keep their place, so that reading one takes no lock.
pub(super) struct AppendList<T> {
    chunks: [OnceLock<Box<[OnceLock<T>]>>; CHUNKS],
    len: AtomicU32,
}

impl<T> AppendList<T> {
    pub(super) fn new() -> Self {
        Self { chunks: [const { OnceLock::new() }; CHUNKS], len: AtomicU32::new(0) }
    }

    /// Appends `item`, and returns its number. Only one thread at a time may.
    pub(super) fn push(&self, item: T) -> u32 {
        let number = self.len.load(Ordering::Relaxed);
        let (chunk, offset) = place(number);
        let items = self.chunks[chunk]
            .get_or_init(|| (0..FIRST_CHUNK << chunk).map(|_| OnceLock::new()).collect());
        let is_new = items[offset].set(item).is_ok();
        debug_assert!(is_new, "two threads append at once");
        self.len.store(number + 1, Ordering::Release);
        number
    }

    /// The item `number`; `None` where that was not appended yet.
    #[inline]
    pub(super) fn get(&self, number: u32) -> Option<&T> {
        let (chunk, offset) = place(number);
        self.chunks[chunk].get()?.get(offset)?.get()
    }

    /// All items, in the order in which they came.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        let chunks = self.chunks.iter().map_while(OnceLock::get);
        chunks.flatten().map_while(OnceLock::get)
    }
}

/// The chunk of an item, and its place there.
#[inline]
fn place(number: u32) -> (usize, usize) {
    let from_first = number as usize + FIRST_CHUNK;
    let chunk = (from_first.ilog2() - FIRST_CHUNK.ilog2()) as usize;
    (chunk, from_first - (FIRST_CHUNK << chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_found_by_their_numbers() {
        let list = AppendList::new();
        for item in 0..10_000u32 {
            assert!(list.get(item).is_none());
            assert_eq!(list.push(item), item);
        }
        assert!((0..10_000).all(|number| list.get(number) == Some(&number)));
        assert!(list.iter().copied().eq(0..10_000));
    }

    #[test]
    fn every_number_has_a_place_of_its_own() {
        for number in 0..10_000 {
            let (chunk, offset) = place(number);
            assert!(offset < FIRST_CHUNK << chunk);
            assert_eq!((FIRST_CHUNK << chunk) - FIRST_CHUNK + offset, number as usize);
        }
        assert!(place(u32::MAX).0 < CHUNKS);
    }
}
