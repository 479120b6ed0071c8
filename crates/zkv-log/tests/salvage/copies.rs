//! Copies of a log that went different ways, and their index files.

use super::*;

/// A log that goes on behind `bytes` with commits of so many entries each, and its index file.
fn gone_on(bytes: &[u8], numbers: Range<u32>, at_once: u32) -> (MemoryStorage, SalvageIndex) {
    let storage = storage_of(bytes);
    let mut writer = open(&storage);
    for number in numbers.step_by(at_once as usize) {
        append(&mut writer, number..number + at_once);
    }
    let checkpoint = writer.checkpoint().unwrap();
    let index = SalvageIndex { store_id: writer.log().identity().store_id, checkpoint };
    writer.close().unwrap();
    (storage, index)
}

fn goes_by_index(storage: &MemoryStorage, index: &SalvageIndex) -> bool {
    let salvage = Salvage::open(storage, Path::new(PATH), Some(index), &mut |_, _| {});
    salvage.unwrap().goes_by_index()
}

#[test]
fn the_index_of_a_copy_that_went_another_way_says_nothing() {
    let (storage, mut writer) = new_log();
    append(&mut writer, 0..10);
    drop(writer);
    let common = bytes_of(&storage);
    // Of one segment, and of several.
    for count in [40, 250] {
        let ours = gone_on(&common, 100..100 + count, 1);
        for (other_count, at_once) in [(count / 2, 2), (count, 2), (count + 12, 2), (count, 1)] {
            let theirs = gone_on(&common, 1000..1000 + other_count, at_once);
            for ((log, own), (_, other)) in [(&ours, &theirs), (&theirs, &ours)] {
                assert!(goes_by_index(log, own) && !goes_by_index(log, other), "{other_count}");
                let found = try_salvage(log, Some(other)).unwrap();
                assert!(found.is_certain() && found.uncommitted.is_empty(), "{other_count}");
                assert_eq!(found.numbers, salvage(log).numbers);
            }
        }
    }
}

#[test]
fn an_index_is_of_the_past_of_a_log_that_has_lost_any_block() {
    let (storage, mut writer) = new_log();
    append(&mut writer, 0..10);
    drop(writer);
    let (storage, index) = gone_on(&bytes_of(&storage), 100..250, 1);
    // What is written later lies behind it.
    let mut writer = open(&storage);
    (250..400).for_each(|number| append(&mut writer, number..number + 1));
    writer.close().unwrap();
    drop(writer);
    let bytes = bytes_of(&storage);
    for at in (4096..bytes.len()).step_by(700) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        assert!(goes_by_index(&storage_of(&bytes), &index), "byte {at}");
    }
}
