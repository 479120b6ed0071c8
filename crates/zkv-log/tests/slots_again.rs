//! Slots that are used again: which segment a slot has, whatever still says otherwise.

mod common;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};

use zkv_io::MemoryStorage;
use zkv_log::layout::{COMMIT_BLOCK_BYTES, FILE_HEADER_BYTES, seal_offset, slot_start};
use zkv_log::{Access, EntryAddress, LogError, LogWriter, OpenFile};
use zkv_sim::{Act, Watched};

use common::{
    PATH, SLOT, bytes_of, compact, new_log, noise, open, options, slots, storage_of, try_open,
};

/// Fills a segment but for less than another one of these takes.
fn fill(writer: &mut LogWriter, seed: u64) {
    writer.append(&[&noise(seed, 40_000)]).unwrap();
}

#[test]
fn an_address_does_not_outlive_its_segment() {
    let (_storage, mut writer) = new_log();
    let first = writer.append(&[&noise(0, 40_000)]).unwrap()[0];
    (1..4).for_each(|seed| fill(&mut writer, seed));
    let before = writer.view();
    writer.free(&[first.slot]).unwrap();
    writer.log().sync(writer.end()).unwrap();
    let is_gone = |writer: &LogWriter| {
        matches!(writer.view().read(first), Err(LogError::Corrupt { what: "no such entry", .. }))
    };
    assert!(is_gone(&writer));
    assert_eq!(before.read(first).unwrap(), noise(0, 40_000), "a view keeps what it has");
    drop(before);
    let again = (4..9).map(|seed| writer.append(&[&noise(seed, 40_000)]).unwrap()[0]);
    let again: Vec<EntryAddress> = again.collect();
    let alike = again.iter().find(|address| address.slot == first.slot).unwrap();
    assert_eq!((alike.offset, alike.ordinal), (first.offset, first.ordinal));
    assert!(is_gone(&writer), "another entry stands there");
}

#[test]
fn a_stray_whose_header_stays_is_not_taken_for_the_base_of_its_number() {
    let (storage, mut writer) = new_log();
    writer.append(&[b"old"]).unwrap();
    writer.checkpoint().unwrap();
    // The next roll call finds no room, and begins a segment.
    let room = seal_offset(SLOT) - writer.end().offset - COMMIT_BLOCK_BYTES - 29;
    writer.append(&[&noise(1, room as usize)]).unwrap();
    writer.log().sync(writer.end()).unwrap();
    writer.checkpoint().unwrap();
    assert_eq!(slots(&writer.log()), [(0, 1), (1, 2)]);
    drop(writer);
    // The power was cut before that checkpoint's sync: the seal is lost, all else has arrived.
    let mut bytes = bytes_of(&storage);
    let at = |offset: u64| usize::try_from(offset).unwrap();
    let seal = FILE_HEADER_BYTES + u64::from(seal_offset(SLOT));
    bytes[at(seal)..at(slot_start(1, SLOT))].fill(0);
    let storage = storage_of(&bytes);
    let mut writer = open(&storage);
    assert_eq!(slots(&writer.log()), [(0, 1)]);
    writer.mend().unwrap();
    assert!(writer.needs_freed_slots());
    writer.rebase().unwrap();
    writer.append(&[b"acknowledged"]).unwrap();
    writer.log().sync(writer.end()).unwrap();
    let (truth, end) = (slots(&writer.log()), writer.end());
    drop(writer);
    let left = open(&storage);
    assert_eq!((slots(&left.log()), left.end()), (truth, end));
}

#[test]
fn the_header_of_a_tail_in_a_slot_used_again_may_be_lost_beside_an_index() {
    let (storage, mut writer) = new_log();
    (0..4).for_each(|seed| fill(&mut writer, seed));
    let older = writer.checkpoint().unwrap();
    writer.free(&[1]).unwrap();
    writer.log().sync(writer.end()).unwrap();
    fill(&mut writer, 9);
    let newer = writer.checkpoint().unwrap();
    writer.close().unwrap();
    let (truth, end) = (slots(&writer.log()), writer.end());
    drop(writer);
    // The seal of the segment that was there still stands.
    let mut bytes = bytes_of(&storage);
    bytes[usize::try_from(slot_start(1, SLOT)).unwrap() + 20] ^= 1;
    for checkpoint in [older, newer] {
        let left = try_open(&storage_of(&bytes), Some(&checkpoint)).unwrap().writer.unwrap();
        assert_eq!((slots(&left.log()), left.end()), (truth.clone(), end));
    }
}

#[test]
fn a_lost_header_of_the_only_segment_is_damage_where_that_is_not_the_first() {
    let (storage, mut writer) = new_log();
    writer.append(&[b"freed"]).unwrap();
    compact(&mut writer);
    writer.append(&[&noise(1, 5000)]).unwrap();
    let killed = bytes_of(&storage);
    writer.close().unwrap();
    drop(writer);
    for bytes in [killed, bytes_of(&storage)] {
        for lost in [1, 116, 512] {
            let mut bytes = bytes.clone();
            bytes[4096..4096 + lost].fill(0);
            let damaged = storage_of(&bytes);
            let opened = try_open(&damaged, None);
            assert!(matches!(opened, Err(LogError::Corrupt { .. })), "{lost} bytes");
            assert_eq!(bytes_of(&damaged), bytes);
        }
    }
    // An empty log loses nothing with it, and what a crash has torn there was no commit.
    let (storage, mut writer) = new_log();
    let mut bytes = bytes_of(&storage);
    bytes[4096] = 0;
    assert_eq!(open(&storage_of(&bytes)).last_commit(), 0);
    writer.append(&[b"torn"]).unwrap();
    let mut bytes = bytes_of(&storage);
    bytes[4096 + 256..4096 + 270].fill(0);
    assert_eq!(open(&storage_of(&bytes)).last_commit(), 0);
}

#[test]
fn a_slot_is_used_again_with_a_roll_call_that_knows_it_to_be_free() {
    let inner = MemoryStorage::new();
    zkv_log::create(&inner, Path::new(PATH), &options()).unwrap();
    let (is_slow, syncing, go_on) = (AtomicBool::new(false), Barrier::new(2), Barrier::new(2));
    let slow = Arc::new((is_slow, syncing, go_on));
    let watch = {
        let slow = Arc::clone(&slow);
        move |act: Act, _: &Path| {
            if act == Act::Sync && slow.0.swap(false, Ordering::SeqCst) {
                slow.1.wait();
                slow.2.wait();
            }
            Ok(())
        }
    };
    let storage = Arc::new(Watched::new(Arc::new(inner.clone()), watch));
    let file = OpenFile::open(storage, Path::new(PATH), Access::ReadWrite, options()).unwrap();
    let mut writer = file.recover(None).unwrap().writer.unwrap();
    (0..5).for_each(|seed| fill(&mut writer, seed));
    writer.log().sync(writer.end()).unwrap();
    let first = writer.free(&[1]).unwrap().end;
    slow.0.store(true, Ordering::SeqCst);
    let log = writer.log();
    std::thread::scope(|scope| {
        let sync = scope.spawn(|| log.sync(first));
        slow.1.wait();
        // Behind what the sync under way has taken for its end.
        writer.free(&[2]).unwrap();
        slow.2.wait();
        sync.join().unwrap().unwrap();
    });
    fill(&mut writer, 8);
    let truth = slots(&writer.log());
    drop((file, writer, log));
    assert_eq!(slots(&open(&inner).log()), truth);
}

#[test]
fn a_roll_call_lists_the_segments_that_the_retired_ones_before_it_have_filled() {
    let (storage, mut writer) = new_log();
    // As many as it takes for their list to need segments of its own.
    (0..4000).for_each(|seed| _ = writer.append(&[&noise(seed % 7, 60_000)]).unwrap());
    writer.free(&(0..3950).collect::<Vec<u32>>()).unwrap();
    writer.log().sync(writer.end()).unwrap();
    fill(&mut writer, 1);
    fill(&mut writer, 2);
    writer.close().unwrap();
    let truth = slots(&writer.log());
    drop(writer);
    assert_eq!(slots(&open(&storage).log()), truth);
}
