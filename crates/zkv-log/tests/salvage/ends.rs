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

#[test]
fn a_last_segment_that_is_lost_is_missed() {
    let (storage, mut writer) = new_log();
    append(&mut writer, 0..60);
    for number in 60..100 {
        append(&mut writer, number..number + 1);
    }
    writer.close().unwrap();
    drop(writer);
    let mut bytes = bytes_of(&storage);
    bytes.truncate(usize::try_from(slot_start(1, SLOT)).unwrap());
    let found = salvage(&storage_of(&bytes));
    assert!(!found.numbers.is_empty() && found.doubts == 1, "{found:?}");
}

#[test]
fn a_segment_that_a_crash_kept_from_being_begun_is_not_missed() {
    let (storage, freed) = with_freed_segments();
    let mut writer = open(&storage);
    let tail = |writer: &LogWriter| *writer.log().view().segments().last().unwrap();
    let (before, first) = (bytes_of(&storage), tail(&writer));
    let mut number = 300;
    while tail(&writer).sequence == first.sequence {
        append(&mut writer, number..number + 1);
        number += 1;
    }
    let begun = tail(&writer).slot;
    assert!(freed.contains(&begun));
    let slot = slot_start(begun, SLOT)..slot_start(begun + 1, SLOT);
    let mut bytes = bytes_of(&storage);
    zero(&mut bytes, slot.clone());
    assert_eq!(salvage(&storage_of(&bytes)).doubts, 1);
    let slot = usize::try_from(slot.start).unwrap()..usize::try_from(slot.end).unwrap();
    bytes[slot.clone()].copy_from_slice(&before[slot]);
    let found = salvage(&storage_of(&bytes));
    assert!(found.is_certain() && found.numbers[0] == number - 2, "{found:?}");
}

/// A log whose second segment holds one commit, which nothing proves to be durable, and its bytes as a killed
/// process leaves them. Tells how many entries there are, and where the log ends.
fn with_a_second_segment() -> (Vec<u8>, u32, usize) {
    let (storage, mut writer) = new_log();
    let mut count = 0;
    while writer.end().sequence == 1 {
        append(&mut writer, count..count + 1);
        count += 1;
    }
    let end = bytes_to_end(&storage, &writer).len();
    (bytes_of(&storage), count, end)
}

#[test]
fn what_stands_behind_a_damaged_seal_is_not_taken_for_abandoned() {
    let (mut bytes, count, end) = with_a_second_segment();
    bytes[end - 3] ^= 1;
    for seal in [None, Some(1), Some(400)] {
        let mut bytes = bytes.clone();
        if let Some(back) = seal {
            bytes[usize::try_from(slot_start(1, SLOT)).unwrap() - back] ^= 1;
        }
        let found = salvage(&storage_of(&bytes));
        assert_eq!(found.numbers, reversed(0..count - 1));
        assert_eq!(found.uncommitted, [count - 1], "{seal:?}");
        assert_eq!(found.doubts, usize::from(seal.is_some()));
    }
}

#[test]
fn a_damaged_seal_tells_that_the_log_may_have_gone_on() {
    let (mut bytes, count, _) = with_a_second_segment();
    let second = usize::try_from(slot_start(1, SLOT)).unwrap();
    bytes[second - 10] ^= 1;
    bytes[second..].fill(0);
    let found = salvage(&storage_of(&bytes));
    assert_eq!((found.numbers, found.doubts), (reversed(0..count - 1), 1));
}

/// What a crash has torn of an older seal of its slot, which nobody needs.
#[test]
fn a_segment_in_a_slot_with_a_torn_seal_of_an_older_one_is_certain() {
    let (storage, mut writer) = new_log();
    append(&mut writer, 0..200);
    let full = writer.log().view().segments();
    writer.rebase().unwrap();
    writer.free(&full.iter().map(|segment| segment.slot).collect::<Vec<_>>()).unwrap();
    writer.close().unwrap();
    drop(writer);
    let mut bytes = bytes_of(&storage);
    for slot in &full {
        bytes[usize::try_from(slot_start(slot.slot + 1, SLOT)).unwrap() - 10] ^= 1;
    }
    let storage = storage_of(&bytes);
    let mut writer = open(&storage);
    let base = slots(&writer.log());
    let mut count = 0;
    while slots(&writer.log()).len() == base.len() {
        append(&mut writer, count..count + 1);
        count += 1;
    }
    assert_eq!(writer.log().view().segments().last().unwrap().slot, full[0].slot);
    writer.close().unwrap();
    drop(writer);
    let found = salvage(&storage);
    assert!(found.is_certain(), "{found:?}");
    assert_eq!(found.numbers, reversed(0..count));
}
