//! What a commit that was given up has left beside the log that went on.

use super::*;

/// A log killed within a commit of several segments, behind a checkpoint that the headers of these are the
/// first to name: they stay when it is opened again.
fn killed_behind_a_checkpoint() -> MemoryStorage {
    let (storage, mut writer) = new_log();
    append(&mut writer, 0..20);
    writer.checkpoint().unwrap();
    let entries: Vec<Vec<u8>> = (20..300).map(entry).collect();
    let slices: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
    let packed = writer.log().pack(&slices).unwrap();
    let mut commit = writer.begin().unwrap();
    commit.append(&packed).unwrap();
    storage_of(&bytes_of(&storage))
}

fn gone_on(storage: &MemoryStorage, numbers: Range<u32>) {
    let mut writer = open(storage);
    for number in numbers {
        append(&mut writer, number..number + 1);
    }
    writer.close().unwrap();
}

fn own_and(numbers: Range<u32>) -> BTreeSet<u32> {
    (0..20).chain(numbers).collect()
}

#[test]
fn a_segment_that_takes_the_place_of_an_abandoned_one_is_found() {
    // Which of the two has the smaller nonce is a matter of chance.
    for _ in 0..20 {
        let storage = killed_behind_a_checkpoint();
        gone_on(&storage, 300..370);
        assert_eq!(salvage(&storage).set(), own_and(300..370));
    }
}

#[test]
fn a_segment_is_found_beside_the_seal_of_an_abandoned_one_in_its_slot() {
    for _ in 0..20 {
        let storage = killed_behind_a_checkpoint();
        let abandoned = bytes_of(&storage);
        gone_on(&storage, 300..370);
        let mut bytes = bytes_of(&storage);
        // As a store has it whose abandoned segments were wiped in part only.
        let slot = usize::try_from(slot_start(1, SLOT)).unwrap();
        let seal = slot + seal_offset(SLOT) as usize..slot + SLOT as usize;
        bytes[seal.clone()].copy_from_slice(&abandoned[seal]);
        assert_eq!(salvage(&storage_of(&bytes)).set(), own_and(300..370));
    }
}

#[test]
fn an_abandoned_header_that_stays_keeps_no_seal() {
    let storage = killed_behind_a_checkpoint();
    let is_there = |storage: &MemoryStorage, offset: u32| {
        let start = usize::try_from(slot_start(1, SLOT)).unwrap() + offset as usize;
        bytes_of(storage)[start..start + 64].iter().any(|byte| *byte != 0)
    };
    assert!(is_there(&storage, 0) && is_there(&storage, seal_offset(SLOT)));
    gone_on(&storage, 300..301);
    assert!(is_there(&storage, 0) && !is_there(&storage, seal_offset(SLOT)));
}

#[test]
fn a_log_that_goes_on_behind_an_abandoned_commit_is_certain() {
    let storage = killed_behind_a_checkpoint();
    gone_on(&storage, 300..310);
    let found = salvage(&storage);
    assert!(found.is_certain() && found.uncommitted.is_empty(), "{found:?}");
    assert_eq!(found.set(), own_and(300..310));
}

/// All of the commit has arrived but a page in the segment before the abandoned one, which keeps its header.
#[test]
fn a_commit_that_was_given_up_is_not_brought_as_the_newest() {
    let (storage, mut writer) = new_log();
    append(&mut writer, 0..20);
    writer.checkpoint().unwrap();
    append(&mut writer, 20..90);
    assert_eq!(slots(&writer.log()), [(0, 1), (1, 2)]);
    let mut bytes = bytes_of(&storage);
    let lost = slot_start(0, SLOT) + (40 << 10);
    zero(&mut bytes, lost..lost + 4096);
    let storage = storage_of(&bytes);
    gone_on(&storage, 300..301);
    let found = salvage(&storage);
    assert!(found.is_certain() && found.uncommitted.is_empty(), "{found:?}");
    assert_eq!(found.set(), own_and(300..301));
}

/// Both have lost their headers and the seals that name them, the abandoned one in the crash that tore it.
#[test]
fn a_segment_without_a_name_is_told_from_an_abandoned_one_in_its_slot() {
    // Which of the two has the smaller nonce is a matter of chance.
    for _ in 0..20 {
        let (storage, mut writer) = new_log();
        append(&mut writer, 0..20);
        append(&mut writer, 20..130);
        assert_eq!(slots(&writer.log()), [(0, 1), (1, 2)]);
        let mut bytes = bytes_of(&storage);
        for lost in [slot_start(0, SLOT) + (40 << 10), slot_start(1, SLOT)] {
            zero(&mut bytes, lost..lost + 4096);
        }
        let storage = storage_of(&bytes);
        // Not closed, which would cut off what the abandoned one has left.
        let mut writer = open(&storage);
        for number in 300..370 {
            append(&mut writer, number..number + 1);
            writer.log().sync(writer.end()).unwrap();
        }
        let mut bytes = bytes_of(&storage);
        zero(&mut bytes, slot_start(1, SLOT) - 4096..slot_start(1, SLOT) + 4096);
        let found = salvage(&storage_of(&bytes)).set();
        assert!(found.contains(&369) && found.is_subset(&own_and(300..370)), "{found:?}");
    }
}
