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

/// The header of one that was given up stays, where it leads on, until the next segment has one. That next one has
/// its number, and loses its own header and the seal that names it.
#[test]
fn a_segment_that_has_lost_its_header_is_not_ousted_by_an_abandoned_one_that_has_kept_its_own() {
    let (storage, mut writer) = new_log();
    let mut count = 0;
    let mut append_until = |writer: &mut LogWriter, slot: u32| {
        while writer.log().view().segments().last().unwrap().slot != slot {
            append(writer, count..count + 5);
            count += 5;
        }
        count
    };
    append_until(&mut writer, 3);
    writer.free(&[0]).unwrap();
    writer.log().sync(writer.end()).unwrap();
    let kept_from = append_until(&mut writer, 0);
    writer.checkpoint().unwrap();
    let entries: Vec<Vec<u8>> = (1000..1150).map(entry).collect();
    let slices: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
    let packed = writer.log().pack(&slices).unwrap();
    let mut commit = writer.begin().unwrap();
    commit.append(&packed).unwrap();
    let storage = storage_of(&bytes_of(&storage));
    drop(commit);
    let mut writer = open(&storage);
    writer.free(&[1]).unwrap();
    writer.log().sync(writer.end()).unwrap();
    let kept_from = append_until(&mut writer, 1).max(kept_from);
    for number in kept_from..kept_from + 20 {
        append(&mut writer, number..number + 1);
        writer.log().sync(writer.end()).unwrap();
    }
    assert_eq!(slots(&writer.log()), [(2, 3), (3, 4), (0, 5), (1, 6)]);
    let whole = bytes_of(&storage);
    let start = slot_start(1, SLOT);
    for lost in [start - 4096..start + 4096, start - 512..start + 512] {
        let mut bytes = whole.clone();
        zero(&mut bytes, lost.clone());
        let found = salvage(&storage_of(&bytes));
        let is_given_up = |number: &u32| (1000..1150).contains(number);
        assert!(!found.set().iter().any(is_given_up), "{lost:?}: {found:?}");
        assert!(!found.uncommitted.iter().any(is_given_up), "{lost:?}: {found:?}");
        // Some before these are in the page that is lost.
        let newest = kept_from + 5..kept_from + 20;
        assert!(found.set().is_superset(&newest.collect()), "{lost:?}: {found:?}");
        assert!(!found.is_certain());
    }
}
