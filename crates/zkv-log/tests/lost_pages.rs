//! Slots that do not begin as they should: the disk has lost a write of their first page, or brought it elsewhere.

mod common;

use std::ops::Range;

use zkv_io::MemoryStorage;
use zkv_log::layout::slot_start;
use zkv_log::{LogError, LogWriter};

use common::{SLOT, bytes_of, compact, new_log, noise, slots, storage_of, try_open};

const PAGE: usize = 4096;

fn at(slot: u32) -> usize {
    usize::try_from(slot_start(slot, SLOT)).unwrap()
}

/// Commits of so many bytes each, of which each but the last is synced, and says so of the one before it.
fn append_synced(writer: &mut LogWriter, seeds: Range<u64>, bytes: usize) {
    for seed in seeds {
        writer.append(&[&noise(seed, bytes)]).unwrap();
        writer.log().sync(writer.end()).unwrap();
    }
}

/// Refuses what would open as an older log, and leaves it as it is.
fn check_refused(damaged: &[u8], checkpoint: Option<&[u8]>, what: &str) {
    let storage: MemoryStorage = storage_of(damaged);
    let opened = try_open(&storage, checkpoint);
    assert!(matches!(opened, Err(LogError::Corrupt { .. })), "{what}: {:?}", opened.map(|_| ()));
    assert_eq!(bytes_of(&storage), damaged, "{what}");
}

/// One write holds the seal of a full segment and the first page of the next one.
#[test]
fn a_page_before_a_slot_and_its_first_one_bring_no_older_log_back() {
    for to_synced in [22, 27] {
        let (storage, mut writer) = new_log();
        append_synced(&mut writer, 0..4, 60_000);
        let checkpoint = writer.checkpoint().unwrap();
        writer.free(&[1, 2]).unwrap();
        writer.log().sync(writer.end()).unwrap();
        let older = bytes_of(&storage);
        append_synced(&mut writer, 10..12, 60_000);
        append_synced(&mut writer, 20..to_synced, 500);
        let [.., (1, 5), (2, 6)] = slots(&writer.log())[..] else { panic!("other slots") };
        writer.close().unwrap();
        drop(writer);
        let mut damaged = bytes_of(&storage);
        let lost = at(2) - PAGE..at(2) + PAGE;
        damaged[lost.clone()].copy_from_slice(&older[lost]);
        for (checkpoint, what) in [(None, "no index"), (Some(&checkpoint[..]), "an older index")] {
            check_refused(&damaged, checkpoint, what);
        }
    }
}

/// As before, where the segment has room left: a base ends it early, and so does an entry that does not fit.
#[test]
fn a_page_before_a_slot_and_its_first_one_bring_no_older_log_back_beside_an_index() {
    let base = |writer: &mut LogWriter| _ = writer.rebase().unwrap();
    let long_entry = |writer: &mut LogWriter| append_synced(writer, 12..13, 40_000);
    for (what, begin) in [("a base", &base as &dyn Fn(&mut _)), ("a long entry", &long_entry)] {
        let (storage, mut writer) = new_log();
        append_synced(&mut writer, 0..3, 40_000);
        writer.rebase().unwrap();
        let freed = writer.free(&[0, 1]).unwrap();
        writer.log().sync(freed.end).unwrap();
        append_synced(&mut writer, 10..11, 40_000);
        let checkpoint = writer.checkpoint().unwrap();
        append_synced(&mut writer, 11..12, 40_000);
        let older = bytes_of(&storage);
        begin(&mut writer);
        append_synced(&mut writer, 20..30, 2000);
        let [.., (0, 5), (1, 6)] = slots(&writer.log())[..] else { panic!("other slots") };
        drop(writer);
        let mut damaged = bytes_of(&storage);
        let lost = at(1) - PAGE..at(1) + PAGE;
        damaged[lost.clone()].copy_from_slice(&older[lost]);
        check_refused(&damaged, Some(&checkpoint), what);
    }
}

#[test]
fn first_pages_that_changed_places_bring_no_older_log_back() {
    let (storage, mut writer) = new_log();
    append_synced(&mut writer, 0..1, 500);
    // A commit of five segments.
    let entries: Vec<Vec<u8>> = (1..6).map(|seed| noise(seed, 50_000)).collect();
    writer.append(&entries.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
    append_synced(&mut writer, 10..16, 1000);
    writer.close().unwrap();
    assert_eq!(slots(&writer.log()).last(), Some(&(4, 5)));
    drop(writer);
    for other in 1..4 {
        let mut damaged = bytes_of(&storage);
        let (before, behind) = damaged.split_at_mut(at(4));
        before[at(other)..][..PAGE].swap_with_slice(&mut behind[..PAGE]);
        check_refused(&damaged, None, "swapped");
    }
}

/// Zeros up to the first block of a slot are what is left of a segment that was given up.
#[test]
fn zeros_over_a_seal_and_the_next_header_are_no_segment_that_was_given_up() {
    let (storage, mut writer) = new_log();
    append_synced(&mut writer, 0..2, 60_000);
    append_synced(&mut writer, 2..8, 300);
    writer.close().unwrap();
    drop(writer);
    for behind in [116, 200, 256] {
        let mut damaged = bytes_of(&storage);
        damaged[at(1) - 300..at(1) + behind].fill(0);
        check_refused(&damaged, None, "zeros");
    }
}

/// The index file is from before a compaction: its last segment is still there, and the only one that came later
/// has lost its first page, in a slot that the index gives another one.
#[test]
fn an_older_index_does_not_hide_what_a_lost_first_page_has_left() {
    let (storage, mut writer) = new_log();
    append_synced(&mut writer, 0..2, 40_000);
    let checkpoint = writer.checkpoint().unwrap();
    for freed in [&[0, 1][..], &[2]] {
        writer.rebase().unwrap();
        writer.free(freed).unwrap();
        writer.log().sync(writer.end()).unwrap();
    }
    append_synced(&mut writer, 10..20, 2000);
    assert_eq!(slots(&writer.log()), [(0, 4)]);
    let mut damaged = bytes_of(&storage);
    // Cut off so far, since a reader has held the slot before.
    damaged.truncate(at(2));
    damaged[at(0)..][..PAGE].copy_from_slice(&noise(9, PAGE));
    check_refused(&damaged, Some(&checkpoint), "an older index");
}

/// As before, where the index's last segment lies in that slot itself.
#[test]
fn an_older_index_does_not_bring_back_what_stands_behind_a_lost_first_page() {
    let (storage, mut writer) = new_log();
    append_synced(&mut writer, 0..10, 5000);
    let checkpoint = writer.checkpoint().unwrap();
    let older = bytes_of(&storage);
    compact(&mut writer);
    append_synced(&mut writer, 10..20, 2000);
    let (mut damaged, end) = (bytes_of(&storage), at(0) + writer.end().offset as usize);
    damaged[at(0)..][..PAGE].copy_from_slice(&noise(9, PAGE));
    // What was there is not wiped, where the slot is used again.
    damaged.truncate(end);
    damaged.extend_from_slice(&older[end..]);
    check_refused(&damaged, Some(&checkpoint), "an older index");
}
