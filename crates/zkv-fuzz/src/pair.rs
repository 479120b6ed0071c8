//! Both files of a store in one input: the data file, and its index behind it.

use std::ops::Range;
use std::path::Path;

use crate::mend::{mend_file, parts_of_file, segment_chain};
use crate::mend_index::{mend_index, mend_watermark, parts_of_index};
use crate::storage::SeededStorage;
use crate::targets::{DATA, INDEX};

/// How an index file starts. No data file holds it by chance.
const INDEX_MAGIC: &[u8] = b"zkvindex";

/// Where the index starts; at the input's end where there is none.
fn index_start(input: &[u8]) -> usize {
    let found = input.windows(INDEX_MAGIC.len()).position(|bytes| bytes == INDEX_MAGIC);
    found.unwrap_or(input.len())
}

/// A file system that holds both files; or the data file alone, where the input has no index.
pub(crate) fn storage(seed: u64, input: &[u8]) -> SeededStorage {
    let (data, index) = input.split_at(index_start(input));
    let files = [(Path::new(DATA), data), (Path::new(INDEX), index)];
    SeededStorage::new(seed, files.into_iter().take(if index.is_empty() { 1 } else { 2 }))
}

/// Makes the checksums of both files right, and the index one of the data file's past.
pub fn mend_pair(input: &mut [u8]) {
    let (data, index) = input.split_at_mut(index_start(input));
    mend_file(data);
    mend_watermark(index, |sequence, offset| segment_chain(data, sequence, offset));
    mend_index(index);
}

/// The parts that decide how the files are read.
#[must_use]
pub fn parts_of_pair(input: &[u8]) -> Vec<Range<usize>> {
    let start = index_start(input);
    let (data, index) = input.split_at(start);
    let of_index = parts_of_index(index).into_iter();
    let moved = of_index.map(|part| part.start + start..part.end + start);
    parts_of_file(data).into_iter().chain(moved).collect()
}
