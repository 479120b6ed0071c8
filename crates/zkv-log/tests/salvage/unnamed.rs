//! Segments whose names are lost, and whose blocks tell that they are of the log.

use super::*;

#[test]
fn the_only_segment_is_found_without_its_header_where_it_is_not_the_first() {
    let (storage, mut writer) = new_log();
    append(&mut writer, 0..20);
    compact(&mut writer);
    append(&mut writer, 20..40);
    let before = bytes_of(&storage);
    writer.close().unwrap();
    drop(writer);
    for mut bytes in [before, bytes_of(&storage)] {
        bytes[usize::try_from(FILE_HEADER_BYTES).unwrap() + 70] ^= 1;
        let found = salvage(&storage_of(&bytes));
        assert_eq!(found.numbers, reversed(20..40));
        // A roll call has the name, and that nothing else belongs to the log.
        assert!(found.is_certain(), "{found:?}");
        // The first block, too, which is a roll call.
        zero(&mut bytes, FILE_HEADER_BYTES..FILE_HEADER_BYTES + 270);
        assert_eq!(salvage(&storage_of(&bytes)).numbers, reversed(20..40));
    }
}

#[test]
fn a_last_segment_is_found_without_its_header_and_the_seal_before_it() {
    let (storage, mut writer) = new_log();
    for number in 0..100 {
        append(&mut writer, number..number + 1);
        writer.log().sync(writer.end()).unwrap();
    }
    let begun = slot_start(1, SLOT);
    let mut killed = bytes_of(&storage);
    writer.checkpoint().unwrap();
    writer.close().unwrap();
    drop(writer);
    for bytes in [&mut killed, &mut bytes_of(&storage)] {
        for damage in [begun - 4096..begun + 4096, begun - 20..begun + 20] {
            let mut damaged = bytes.clone();
            zero(&mut damaged, damage.clone());
            let found = salvage(&storage_of(&damaged));
            assert!(found.numbers.starts_with(&reversed(75..100)), "{damage:?}: {found:?}");
            assert!(found.numbers.len() > 85 && !found.is_certain(), "{damage:?}: {found:?}");
        }
    }
}

/// Headers, seals and first blocks of all of them, so that nothing but commits says whose they are.
#[test]
fn any_number_of_segments_is_found_by_their_commits_alone() {
    let (storage, mut writer) = new_log();
    for number in 0..400 {
        append(&mut writer, number..number + 1);
        writer.log().sync(writer.end()).unwrap();
    }
    let count = writer.log().view().segments().len();
    assert!(count > 4);
    writer.close().unwrap();
    drop(writer);
    let mut bytes = bytes_of(&storage);
    for slot in 0..u32::try_from(count).unwrap() {
        let start = slot_start(slot, SLOT);
        zero(&mut bytes, start - 300..start + 300);
    }
    // Not so much of the file's header that its store is unknown.
    bytes[..4096].copy_from_slice(&bytes_of(&storage)[..4096]);
    let found = salvage(&storage_of(&bytes));
    // Of each segment, the first entry is lost.
    assert!(found.numbers.len() >= 400 - count, "{} of {count} segments", found.numbers.len());
    assert!(found.numbers.is_sorted_by(|newer, older| newer > older));
    assert!(!found.is_certain());
}

#[test]
fn the_newest_segment_of_a_slot_is_found_by_its_commits_among_what_older_ones_have_left() {
    let (storage, mut writer) = new_log();
    for number in 0..1200 {
        append(&mut writer, number..number + 1);
        writer.log().sync(writer.end()).unwrap();
        let segments = writer.log().view().segments();
        // Two slots are used in turns.
        if let [older, _, _] = segments[..] {
            let freed = writer.free(&[older.slot]).unwrap();
            writer.log().sync(freed.end).unwrap();
        }
    }
    let last = *writer.log().view().segments().last().unwrap();
    assert!(last.sequence > 8);
    let end = writer.end().offset;
    drop(writer);
    let mut bytes = bytes_of(&storage);
    let start = slot_start(last.slot, SLOT);
    for slot in 0..3 {
        let seal = slot_start(slot + 1, SLOT) - 1000;
        zero(&mut bytes, seal..seal + 1000);
    }
    zero(&mut bytes, start..start + 4096);
    let found = salvage(&storage_of(&bytes));
    let expected = usize::try_from(end / 1100).unwrap() - 5;
    assert!(found.numbers.starts_with(&reversed(1200 - u32::try_from(expected).unwrap()..1200)));
}

#[test]
fn a_slot_of_another_log_is_none_that_has_lost_its_name() {
    let filled = |count: u32, first: u32| {
        let (storage, mut writer) = new_log();
        (0..count).for_each(|number| append(&mut writer, first + number..first + number + 1));
        writer.close().unwrap();
        bytes_of(&storage)
    };
    let (mut bytes, other) = (filled(20, 0), filled(200, 1000));
    let slot = usize::try_from(slot_start(2, SLOT)).unwrap();
    bytes.resize(slot, 0);
    bytes.extend_from_slice(&other[slot..]);
    let storage = storage_of(&bytes);
    assert_eq!(salvage(&storage).numbers, reversed(0..20));
    assert_eq!(open(&storage).end().sequence, 1);
}

/// Its commits stand in the block that is damaged, moved, so that some of them agree on a seed.
#[test]
fn a_value_that_is_a_data_file_takes_no_segments_place() {
    let (storage, mut writer) = new_log();
    for number in 0..40 {
        writer.append(&[&noise(number, 5000)]).unwrap();
        writer.log().sync(writer.end()).unwrap();
    }
    writer.close().unwrap();
    let inner = bytes_of(&storage).split_off(usize::try_from(slot_start(2, SLOT)).unwrap());
    let saved_beside = |value: &[u8]| {
        let (storage, mut writer) = new_log();
        writer.append(&[value]).unwrap();
        append(&mut writer, 0..10);
        writer.close().unwrap();
        bytes_of(&storage)
    };
    // By a power of two, which brings the most to agree.
    let moved = slot_start(0, SLOT) + 4096;
    let begins = saved_beside(&inner[..40_000]).windows(64).position(|bytes| *bytes == inner[..64]);
    let ahead = usize::try_from(moved).unwrap() - begins.unwrap();
    let mut bytes = saved_beside(&[&noise(50, ahead), &inner[..40_000]].concat());
    zero(&mut bytes, slot_start(0, SLOT)..moved);
    let found = salvage(&storage_of(&bytes));
    assert_eq!(found.numbers, reversed(0..10), "{found:?}");
    assert!(!found.is_certain());
}
