//! What is left of a damaged log: segments that were freed stay away, tails that a crash has torn do
//! not count, and nothing makes the search slow or takes a wrong block.

mod attempts;
mod bad_sectors;
#[path = "../common/mod.rs"]
mod common;
mod copies;
mod ends;
mod hidden_strays;
mod unnamed;

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use zkv_io::{MemoryStorage, Storage};
use zkv_log::layout::{COMMIT_BLOCK_BYTES, FILE_HEADER_BYTES, seal_offset, slot_start};
use zkv_log::{
    Access, LogError, LogOptions, LogWriter, OpenFile, Room, Salvage, SalvageIndex, Salvaged,
    create,
};

use common::{PATH, SLOT, bytes_of, compact, new_log, noise, open, options, slots, storage_of};

/// Up to the log's end, without what fills its last page.
fn bytes_to_end(storage: &MemoryStorage, writer: &LogWriter) -> Vec<u8> {
    let view = writer.log().view();
    let end =
        slot_start(view.segments().last().unwrap().slot, SLOT) + u64::from(writer.end().offset);
    let mut bytes = bytes_of(storage);
    bytes.truncate(usize::try_from(end).unwrap());
    bytes
}

fn entry(number: u32) -> Vec<u8> {
    [format!("entry {number} ").into_bytes(), noise(number.into(), 900)].concat()
}

fn append(writer: &mut LogWriter, numbers: Range<u32>) {
    let entries: Vec<Vec<u8>> = numbers.map(entry).collect();
    let slices: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
    writer.append(&slices).unwrap();
}

/// The slots of segments of which no entry is older than `first`.
fn slots_up_to(writer: &LogWriter, sequence: u64) -> Vec<u32> {
    let segments = writer.log().view().segments();
    segments.iter().filter(|one| one.sequence <= sequence).map(|one| one.slot).collect()
}

/// What salvage found.
#[derive(Debug, Default)]
struct Found {
    /// Numbers of entries, from the newest.
    numbers: Vec<u32>,
    uncommitted: Vec<u32>,
    lost: Vec<Range<u64>>,
    missing: u64,
    doubts: usize,
    is_torn: bool,
}

impl Found {
    fn is_certain(&self) -> bool {
        self.lost.is_empty() && self.missing == 0 && self.doubts == 0
    }

    fn set(&self) -> BTreeSet<u32> {
        self.numbers.iter().copied().collect()
    }
}

fn try_salvage(storage: &dyn Storage, index: Option<&SalvageIndex>) -> Result<Found, LogError> {
    let mut salvage = Salvage::open(storage, Path::new(PATH), index, &mut |_, _| {})?;
    let mut found = Found::default();
    while let Some(next) = salvage.next_older()? {
        match next {
            Salvaged::Block(block) => {
                let numbers = block.entries.iter().rev().map(|entry| {
                    let text = entry.split(|byte| *byte == b' ').nth(1).unwrap();
                    let number = std::str::from_utf8(text).unwrap().parse().unwrap();
                    assert_eq!(*entry, self::entry(number));
                    number
                });
                let into =
                    if block.is_committed { &mut found.numbers } else { &mut found.uncommitted };
                into.extend(numbers);
            }
            Salvaged::Lost(lost) => found.lost.push(lost.offset..lost.offset + lost.bytes),
            Salvaged::MissingSegments(count) => found.missing += count,
            Salvaged::Doubt => found.doubts += 1,
            Salvaged::Torn => found.is_torn = true,
            Salvaged::Segment(_) | Salvaged::CommitEnd => {}
        }
    }
    Ok(found)
}

fn salvage(storage: &MemoryStorage) -> Found {
    try_salvage(storage, None).unwrap()
}

fn reversed(numbers: Range<u32>) -> Vec<u32> {
    numbers.rev().collect()
}

/// A log whose first segments were freed: entries 0 to 199 are no part of it any longer, 200 to 299
/// are. Returns it and the slots that are free.
fn with_freed_segments() -> (MemoryStorage, Vec<u32>) {
    let (storage, mut writer) = new_log();
    append(&mut writer, 0..200);
    let last = writer.log().view().segments().last().unwrap().sequence;
    // So that the next entries start in a segment of their own.
    while writer.log().view().segments().last().unwrap().sequence == last {
        append(&mut writer, 0..1);
    }
    append(&mut writer, 200..300);
    let slots = slots_up_to(&writer, last);
    writer.free(&slots).unwrap();
    writer.close().unwrap();
    (storage, slots)
}

fn zero(bytes: &mut [u8], range: Range<u64>) {
    let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
    let end = bytes.len();
    bytes[range.start.min(end)..range.end.min(end)].fill(0);
}

#[test]
fn a_whole_log_is_read_from_its_end() {
    let (storage, mut writer) = new_log();
    append(&mut writer, 0..150);
    append(&mut writer, 150..300);
    writer.close().unwrap();
    drop(writer);
    let found = salvage(&storage);
    assert!(found.is_certain() && !found.is_torn && found.uncommitted.is_empty());
    assert_eq!(found.numbers, reversed(0..300));
}

#[test]
fn what_was_freed_stays_away_whatever_header_is_lost() {
    let (storage, slots) = with_freed_segments();
    let found = salvage(&storage);
    assert!(found.is_certain(), "{found:?}");
    let live: BTreeSet<u32> = found.set();
    assert!(live.is_superset(&(200..300).collect()));
    assert!(live.iter().all(|number| *number == 0 || *number >= 200), "{live:?}");
    let bytes = bytes_of(&storage);
    let slot_count = (bytes.len() as u64 - FILE_HEADER_BYTES).div_ceil(SLOT.into());
    for slot in 0..u32::try_from(slot_count).unwrap() {
        let mut damaged = bytes.clone();
        zero(&mut damaged, 0..FILE_HEADER_BYTES);
        let start = slot_start(slot, SLOT);
        zero(&mut damaged, start..start + 256);
        assert_eq!(salvage(&storage_of(&damaged)).set(), live, "slot {slot}");
        let seal = start + u64::from(seal_offset(SLOT));
        zero(&mut damaged, seal..start + u64::from(SLOT));
        let found = salvage(&storage_of(&damaged));
        assert_eq!(found.set(), live, "slot {slot}");
        assert_eq!(
            found.is_certain(),
            slots.contains(&slot) || slot + 1 == u32::try_from(slot_count).unwrap()
        );
    }
}

#[test]
fn a_later_roll_call_keeps_freed_segments_away_without_their_retire_entry() {
    let (storage, _) = with_freed_segments();
    let mut writer = open(&storage);
    let slot = writer.log().view().segments().last().unwrap().slot;
    let end = 4096 + u64::from(slot) * u64::from(SLOT) + u64::from(writer.end().offset);
    append(&mut writer, 300..310);
    writer.checkpoint().unwrap();
    writer.close().unwrap();
    drop(writer);
    let mut bytes = bytes_of(&storage);
    let live = salvage(&storage).set();
    // The commit that freed them, which is the last one before the end mark.
    zero(&mut bytes, end - 200..end - 32);
    let found = salvage(&storage_of(&bytes));
    assert!(found.set().is_subset(&live) && live.len() - found.set().len() <= 1, "{found:?}");
    assert!(!found.is_certain());
}

#[test]
fn an_older_copy_keeps_what_a_newer_index_no_longer_lists() {
    let (storage, mut writer) = new_log();
    append(&mut writer, 0..300);
    let older = storage_of(&bytes_of(&storage));
    let slots = slots_up_to(&writer, 2);
    writer.free(&slots).unwrap();
    let checkpoint = writer.checkpoint().unwrap();
    let index = SalvageIndex { store_id: writer.log().identity().store_id, checkpoint };
    let found = try_salvage(&older, Some(&index)).unwrap();
    assert_eq!(found.numbers, reversed(0..300));
    assert!(!found.is_certain(), "the index knows that the log went on");
    writer.close().unwrap();
    drop(writer);
    let found = try_salvage(&storage, Some(&index)).unwrap();
    assert!(found.is_certain() && found.numbers.len() < 250, "{found:?}");
}

#[test]
fn a_slot_that_was_used_again_gives_its_newest_segment_only() {
    let (storage, slots) = with_freed_segments();
    let mut writer = open(&storage);
    // Fills one of the freed slots in part, so that what it held before is still behind.
    append(&mut writer, 300..360);
    let reused = writer.log().view().segments().last().unwrap().slot;
    assert!(slots.contains(&reused), "{reused} of {slots:?}");
    writer.close().unwrap();
    drop(writer);
    let bytes = bytes_of(&storage);
    let live = salvage(&storage).set();
    assert!(live.is_superset(&(200..360).collect()));
    let start = slot_start(reused, SLOT);
    // The old segment's seal still names it; the new one's own header is gone.
    let mut damaged = bytes.clone();
    zero(&mut damaged, start..start + 256);
    assert_eq!(salvage(&storage_of(&damaged)).set(), live);
    // Its first block, too: it is found by the seal that leads to it, and a search.
    zero(&mut damaged, start..start + 300);
    let found = salvage(&storage_of(&damaged));
    assert!(found.set().is_subset(&live) && live.len() - found.set().len() <= 1, "{found:?}");
}

#[test]
fn blocks_without_a_commit_do_not_count_unless_something_proves_them() {
    let (storage, mut writer) = new_log();
    append(&mut writer, 0..20);
    let before = bytes_to_end(&storage, &writer).len();
    append(&mut writer, 20..40);
    let after = bytes_to_end(&storage, &writer);
    // As a crash would leave it: the second commit lacks its end.
    let torn = salvage(&storage_of(&after[..after.len() - 20]));
    assert_eq!(torn.numbers, reversed(0..20));
    assert_eq!(torn.uncommitted, reversed(20..40));
    assert!(torn.is_certain() && torn.is_torn);
    let cut = salvage(&storage_of(&after[..before + 100]));
    assert_eq!((cut.numbers, cut.uncommitted), (reversed(0..20), vec![]));
    // The checkpoint proves that both were durable, and that more is missing.
    let checkpoint = writer.checkpoint().unwrap();
    let store_id = writer.log().identity().store_id;
    let index = SalvageIndex { store_id, checkpoint };
    let proven = try_salvage(&storage_of(&after[..after.len() - 20]), Some(&index)).unwrap();
    assert_eq!((proven.numbers, proven.uncommitted), (reversed(0..40), vec![]));
    assert!(!proven.lost.is_empty());
    let foreign = SalvageIndex { store_id: [9; 16], ..index };
    let torn = try_salvage(&storage_of(&after[..after.len() - 20]), Some(&foreign)).unwrap();
    assert_eq!(torn.uncommitted, reversed(20..40));
}

/// Two logs that are copies of one up to entry 99, and go on with other entries.
fn diverged(with_roll_call: bool) -> (MemoryStorage, MemoryStorage) {
    let (storage, mut writer) = new_log();
    append(&mut writer, 0..100);
    drop(writer);
    let copy = storage_of(&bytes_of(&storage));
    for (storage, numbers) in [(&storage, 100..300), (&copy, 300..500)] {
        let mut writer = open(storage);
        append(&mut writer, numbers);
        if with_roll_call {
            writer.checkpoint().unwrap();
        }
        writer.close().unwrap();
    }
    (storage, copy)
}

#[test]
fn a_slot_of_a_copy_that_went_another_way_does_not_count() {
    let slot = |number: u32| {
        let start = usize::try_from(slot_start(number, SLOT)).unwrap();
        start..start + SLOT as usize
    };
    // The first two were full or begun before the copy was made.
    for number in 2..4 {
        for with_seal in [true, false] {
            let (storage, copy) = diverged(!with_seal);
            let (ours, theirs) = (bytes_of(&storage), bytes_of(&copy));
            let mut spliced = ours;
            spliced[slot(number)].copy_from_slice(&theirs[slot(number)]);
            if !with_seal {
                // What leads there is lost; the roll call at the end still names our own.
                let end = slot(number - 1).end;
                spliced[end - 1000..end].fill(0);
            }
            let found = salvage(&storage_of(&spliced));
            assert!(found.numbers.iter().all(|number| *number < 300), "slot {number}");
            assert!(found.numbers.len() > 200, "slot {number}");
            assert!(!found.is_certain(), "slot {number}");
        }
    }
}

#[test]
fn a_commit_block_that_does_not_fit_what_stands_before_it_is_none() {
    let (storage, mut writer) = new_log();
    append(&mut writer, 0..20);
    drop(writer);
    let copy = storage_of(&bytes_of(&storage));
    let gone_on = |storage, numbers| {
        let mut writer = open(storage);
        append(&mut writer, numbers);
        bytes_to_end(storage, &writer)
    };
    let (mut ours, theirs) = (gone_on(&storage, 20..30), gone_on(&copy, 30..40));
    assert_eq!(ours.len(), theirs.len());
    let commit = ours.len() - COMMIT_BLOCK_BYTES as usize;
    ours[commit..].copy_from_slice(&theirs[commit..]);
    let found = salvage(&storage_of(&ours));
    assert_eq!((found.numbers, found.uncommitted), (reversed(0..20), reversed(20..30)));
}

#[test]
fn an_aborted_commit_that_begot_segments_does_not_count() {
    let (storage, mut writer) = new_log();
    append(&mut writer, 0..20);
    let entries: Vec<Vec<u8>> = (20..300).map(entry).collect();
    let slices: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
    let packed = writer.log().pack(&slices).unwrap();
    let mut commit = writer.begin().unwrap();
    commit.append(&packed).unwrap();
    // As a kill leaves it: who drops it wipes it.
    let aborted = bytes_of(&storage);
    drop(commit);
    let found = salvage(&storage_of(&aborted));
    assert_eq!(found.numbers, reversed(0..20));
    assert!(!found.uncommitted.is_empty());
    // Wiped, and written over in part.
    append(&mut writer, 300..310);
    writer.close().unwrap();
    drop(writer);
    let found = salvage(&storage);
    assert!(found.is_certain() && found.uncommitted.is_empty(), "{found:?}");
    assert_eq!(found.numbers, [reversed(300..310), reversed(0..20)].concat());
}

#[test]
fn a_log_of_one_segment_needs_no_header_at_all() {
    let (storage, mut writer) = new_log();
    append(&mut writer, 0..30);
    let checkpoint = writer.checkpoint().unwrap();
    let store_id = writer.log().identity().store_id;
    append(&mut writer, 30..50);
    writer.close().unwrap();
    drop(writer);
    let mut bytes = bytes_of(&storage);
    zero(&mut bytes, 0..FILE_HEADER_BYTES + 256);
    let found = salvage(&storage_of(&bytes));
    assert_eq!(found.numbers, reversed(0..50));
    assert!(found.is_certain());
    let index = SalvageIndex { store_id, checkpoint };
    let found = try_salvage(&storage_of(&bytes), Some(&index)).unwrap();
    assert_eq!(found.numbers, reversed(0..50));
    // Some blocks, too.
    zero(&mut bytes, FILE_HEADER_BYTES..FILE_HEADER_BYTES + 1500);
    let found = salvage(&storage_of(&bytes));
    assert_eq!(found.numbers, reversed(2..50));
    assert!(!found.is_certain());
    let other = storage_of(&noise(3, 200_000));
    assert!(matches!(try_salvage(&other, None), Err(LogError::NothingToSalvage)));
}

#[test]
fn segments_without_a_roll_call_are_all_read() {
    let (storage, freed) = with_freed_segments();
    let mut bytes = bytes_of(&storage);
    let live = salvage(&storage).set();
    // The commit of the retire entry and the roll call, near the end, and the end mark.
    let mut writer = open(&storage);
    let members = writer.log().view().segments();
    let tail = members.last().unwrap();
    writer.close().unwrap();
    let end = slot_start(tail.slot, SLOT) + u64::from(tail.data_bytes);
    let commit = u64::from(COMMIT_BLOCK_BYTES);
    zero(&mut bytes, end - 2 * commit..end - commit - 20);
    // The end mark still proves what the lost commit block ended.
    assert_eq!(salvage(&storage_of(&bytes)).set(), live);
    // Retire entry, roll call, commit block, end mark: 20 bytes a member, and 8 for each of the first two.
    let all = 2 * 8 + 2 * commit + 20 * (freed.len() + members.len()) as u64;
    zero(&mut bytes, end - all..end);
    let found = salvage(&storage_of(&bytes));
    assert!(found.set().is_superset(&live));
    assert!(found.set().contains(&100), "freed segments are found again: nothing tells of it");
}

#[test]
fn noise_and_what_looks_like_blocks_is_searched_in_time() {
    let storage = MemoryStorage::new();
    let options = LogOptions { slot_bytes: 8 << 20, ..LogOptions::default() };
    create(&storage, Path::new(PATH), &options).unwrap();
    let mut writer = open(&storage);
    append(&mut writer, 0..3000);
    writer.close().unwrap();
    drop(writer);
    let bytes = bytes_of(&storage);
    let first = usize::try_from(FILE_HEADER_BYTES).unwrap() + 256;
    let middle = bytes.len() / 2;
    // Each byte of the second one starts what may be a block of 64 KiB.
    for filling in [noise(5, middle - first), vec![1; middle - first]] {
        let mut damaged = bytes.clone();
        damaged[first..middle].copy_from_slice(&filling);
        let start = std::time::Instant::now();
        let found = salvage(&storage_of(&damaged));
        // Summing each candidate would take minutes.
        assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
        assert!(found.numbers.len() > 1400, "{}", found.numbers.len());
        assert_eq!(found.numbers[..1400], reversed(1600..3000));
    }
}

#[test]
fn a_log_that_is_being_written_is_locked() {
    let (storage, writer) = new_log();
    assert!(matches!(try_salvage(&storage, None), Err(LogError::Locked)));
    drop(writer);
    assert!(try_salvage(&storage, None).unwrap().is_certain());
}

#[test]
fn commits_ahead_of_the_end_leave_no_trace() {
    let (storage, mut writer) = new_log();
    let entries = [entry(0)];
    let slices: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
    let packed = writer.log().pack(&slices).unwrap();
    let mut commit = writer.begin().unwrap();
    commit.append(&packed).unwrap();
    commit.finish(Room::Ahead).unwrap();
    // Killed: zeros stand behind the end.
    let found = salvage(&storage_of(&bytes_of(&storage)));
    assert!(found.is_certain() && !found.is_torn);
    assert_eq!(found.numbers, [0]);
}
