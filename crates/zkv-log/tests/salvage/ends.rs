//! Segments that have lost what says where they end, or what comes next.

use super::*;

#[test]
fn a_lost_block_does_not_hide_that_the_end_may_be_lost() {
    let (storage, mut writer) = new_log();
    (0..50).for_each(|number| append(&mut writer, number..number + 1));
    let block = bytes_to_end(&storage, &writer).len() as u64;
    (50..100).for_each(|number| append(&mut writer, number..number + 1));
    writer.close().unwrap();
    drop(writer);
    let mut bytes = bytes_of(&storage);
    // The first segment's last blocks, and its seal.
    zero(&mut bytes, block..slot_start(1, SLOT));
    let found = salvage(&storage_of(&bytes));
    assert_eq!((found.doubts, found.lost.len()), (1, 0));
    bytes[usize::try_from(FILE_HEADER_BYTES).unwrap() + 1500] ^= 1;
    let found = salvage(&storage_of(&bytes));
    assert_eq!((found.doubts, found.lost.len()), (1, 1));
}
