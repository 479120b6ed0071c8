//! A list that one thread appends to while others read it.

use std::sync::OnceLock;

use crate::sync::atomic::{AtomicU32, Ordering};

/// Items of a chunk. All are of one size, which the allocator can use again and again. An eighth as many
/// would spare those who hold a buffer of one record most of its 86 KB, and make imports 5 % slower.
const CHUNK_ITEMS: usize = 1024;
/// Chunks of the first group; each further one holds twice as many as the one before it.
const FIRST_GROUP: usize = 32;
/// As many as numbers of 32 bits need.
const GROUPS: usize = 18;

/// Items keep their place, so that reading one takes no lock.
pub(super) struct AppendList<T> {
    groups: [OnceLock<Box<[Chunk<T>]>>; GROUPS],
    len: AtomicU32,
}

type Chunk<T> = OnceLock<Box<[OnceLock<T>]>>;

impl<T> AppendList<T> {
    pub(super) fn new() -> Self {
        Self { groups: [const { OnceLock::new() }; GROUPS], len: AtomicU32::new(0) }
    }

    /// Appends `item`, and returns its number. Only one thread at a time may.
    pub(super) fn push(&self, item: T) -> u32 {
        let number = self.len.load(Ordering::Relaxed);
        let (group, chunk, offset) = place(number);
        let chunks = self.groups[group].get_or_init(|| unset(FIRST_GROUP << group));
        let items = chunks[chunk].get_or_init(|| unset(CHUNK_ITEMS));
        let is_new = items[offset].set(item).is_ok();
        debug_assert!(is_new, "two threads append at once");
        self.len.store(number + 1, Ordering::Release);
        number
    }

    /// How many items there are.
    pub(super) fn len(&self) -> u32 {
        self.len.load(Ordering::Acquire)
    }

    /// The memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        let chunks = (self.len() as usize).div_ceil(CHUNK_ITEMS);
        let groups = self.groups.iter().filter_map(OnceLock::get);
        let places: usize = groups.map(|group| group.len()).sum();
        chunks * CHUNK_ITEMS * size_of::<OnceLock<T>>() + places * size_of::<Chunk<T>>()
    }

    /// The item `number`; `None` where that was not appended yet.
    #[inline]
    pub(super) fn get(&self, number: u32) -> Option<&T> {
        let (group, chunk, offset) = place(number);
        self.groups[group].get()?.get(chunk)?.get()?.get(offset)?.get()
    }

    /// All items, in the order in which they came.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        let chunks = self.groups.iter().map_while(OnceLock::get).flatten();
        chunks.map_while(OnceLock::get).flatten().map_while(OnceLock::get)
    }
}

fn unset<T>(count: usize) -> Box<[OnceLock<T>]> {
    (0..count).map(|_| OnceLock::new()).collect()
}

/// An item's group, its chunk in the group, and its place in the chunk.
#[inline]
fn place(number: u32) -> (usize, usize, usize) {
    let number = number as usize;
    let from_first = number / CHUNK_ITEMS + FIRST_GROUP;
    let group = (from_first.ilog2() - FIRST_GROUP.ilog2()) as usize;
    (group, from_first - (FIRST_GROUP << group), number % CHUNK_ITEMS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_found_by_their_numbers() {
        let list = AppendList::new();
        for item in 0..100_000u32 {
            assert!(list.get(item).is_none());
            assert_eq!(list.push(item), item);
        }
        assert!((0..100_000).all(|number| list.get(number) == Some(&number)));
        assert!(list.iter().copied().eq(0..100_000));
    }

    #[test]
    fn every_number_has_a_place_of_its_own() {
        for number in (0..1_000_000).chain(u32::MAX - 10..=u32::MAX) {
            let (group, chunk, offset) = place(number);
            assert!(group < GROUPS && chunk < FIRST_GROUP << group && offset < CHUNK_ITEMS);
            let chunks_before = (FIRST_GROUP << group) - FIRST_GROUP + chunk;
            assert_eq!(chunks_before * CHUNK_ITEMS + offset, number as usize);
        }
    }
}
