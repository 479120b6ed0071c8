//! What verifying says of logs: freed segments, slots in use again, strays, damage without an index.

mod common;

use std::path::Path;
use std::sync::Arc;

use zkv_io::MemoryStorage;
use zkv_log::{
    Access, LogFinding, LogOptions, LogVisitor, LogWriter, OpenFile, Position, Room, Severity,
    VerifiedEntry, VerifiedLog, layout::seal_offset,
};

use common::{PATH, SLOT, bytes_of, compact, new_log, noise, open_file, options, storage_of};

#[derive(Default)]
struct Seen {
    findings: Vec<LogFinding>,
    positions: Vec<Position>,
    entries: Vec<Vec<u8>>,
    bytes: u64,
}

impl LogVisitor for Seen {
    fn finding(&mut self, finding: LogFinding) {
        self.findings.push(finding);
    }
    fn entry(&mut self, entry: &VerifiedEntry<'_>) {
        self.positions.push(entry.position);
        self.entries.push(entry.bytes.to_vec());
    }
    fn done(&mut self, bytes: u64) {
        self.bytes += bytes;
    }
}

fn verified_with(storage: &MemoryStorage, checkpoint: Option<&[u8]>) -> (Seen, VerifiedLog) {
    let mut seen = Seen::default();
    let verifier = open_file(storage, Access::ReadOnly).unwrap().verifier(checkpoint);
    let counts = verifier.run(&mut seen).unwrap();
    assert!(seen.positions.is_sorted(), "entries come in the order of the log");
    assert!(seen.bytes <= verifier.bytes());
    (seen, counts)
}

fn verified(storage: &MemoryStorage) -> (Seen, VerifiedLog) {
    verified_with(storage, None)
}

/// A log with freed segments, of whose slots some are in use again, and its last checkpoint.
fn much_changed() -> (MemoryStorage, Vec<u8>) {
    let (storage, mut writer) = new_log();
    for number in 0..7 {
        writer.append(&[&noise(number, 40_000)]).unwrap();
    }
    writer.checkpoint().unwrap();
    let committed = writer.free(&[1, 2, 4]).unwrap();
    writer.log().sync(committed.end).unwrap();
    for number in 10..12 {
        writer.append(&[&noise(number, 40_000), b"short"]).unwrap();
    }
    let checkpoint = writer.checkpoint().unwrap();
    writer.append(&[b"last"]).unwrap();
    writer.close().unwrap();
    (storage, checkpoint)
}

#[test]
fn a_seal_names_no_block_of_an_aborted_commit() {
    let (storage, mut writer) = new_log();
    writer.append(&[b"before"]).unwrap();
    let short: Vec<Vec<u8>> = (0..100).map(|number| noise(number, 900)).collect();
    let short: Vec<&[u8]> = short.iter().map(Vec::as_slice).collect();
    let packed = writer.log().pack(&short).unwrap();
    let mut commit = writer.begin().unwrap();
    commit.append(&packed).unwrap();
    drop(commit);
    // One block where there were many; the second one seals the segment.
    for number in 0..2 {
        writer.append(&[&noise(number, 40_000)]).unwrap();
    }
    writer.close().unwrap();
    drop(writer);
    let (seen, counts) = verified(&storage);
    assert!(seen.findings.is_empty(), "{:?}", seen.findings);
    assert_eq!(counts.entries, 3);
}

#[test]
fn a_log_with_freed_and_reused_slots_is_sound() {
    let (storage, checkpoint) = much_changed();
    for checkpoint in [None, Some(&checkpoint[..])] {
        let (seen, counts) = verified_with(&storage, checkpoint);
        // The last segment's slot was another's before.
        let severities: Vec<_> = seen.findings.iter().map(|found| found.severity).collect();
        assert_eq!(severities, [Severity::Notice], "{:?}", seen.findings);
        assert_eq!(counts.segments, 6);
        assert_eq!(counts.entries, 4 + 4 + 1);
        assert_eq!(counts.is_checkpoint_right, checkpoint.map(|_| true));
        assert_eq!(seen.entries.last().unwrap(), b"last");
    }
}

#[test]
fn a_checkpoint_of_segments_that_were_freed_since_is_still_right() {
    let (storage, mut writer) = new_log();
    for number in 0..3 {
        writer.append(&[&noise(number, 40_000)]).unwrap();
    }
    let checkpoint = writer.checkpoint().unwrap();
    writer.free(&[0]).unwrap();
    writer.close().unwrap();
    drop(writer);
    let verifier = open_file(&storage, Access::ReadOnly).unwrap().verifier(Some(&checkpoint));
    assert!(verifier.watermark().is_some());
    let (seen, counts) = verified_with(&storage, Some(&checkpoint));
    assert_eq!((seen.findings, counts.is_checkpoint_right), (Vec::new(), Some(true)));
}

/// Where in a checkpoint its segments stand, and the bytes of each.
const SEGMENTS: usize = 108;
const SEGMENT_BYTES: usize = 24;

#[test]
fn an_index_that_lists_other_segments_than_the_roll_call_is_found_out() {
    let (storage, mut writer) = new_log();
    for number in 0..4 {
        writer.append(&[&noise(number, 40_000)]).unwrap();
    }
    let before = writer.checkpoint().unwrap();
    let freed = &before[SEGMENTS..SEGMENTS + SEGMENT_BYTES];
    writer.free(&[0]).unwrap();
    let checkpoint = writer.checkpoint().unwrap();
    writer.close().unwrap();
    drop(writer);
    let with_count = |change: i8| {
        let mut forged = checkpoint.clone();
        forged[104] = forged[104].wrapping_add_signed(change);
        forged
    };
    let mut lacking = with_count(-1);
    lacking.drain(SEGMENTS..SEGMENTS + SEGMENT_BYTES);
    let mut more = with_count(1);
    more.splice(SEGMENTS..SEGMENTS, freed.iter().copied());
    for (forged, what) in [(lacking, "is missing"), (more, "lacks a segment")] {
        let (seen, _) = verified_with(&storage, Some(&forged));
        assert_eq!(seen.findings.len(), 1, "{:?}", seen.findings);
        assert!(seen.findings[0].what.contains(what), "{:?}", seen.findings);
        assert_eq!(seen.findings[0].severity, Severity::Loss);
    }
}

#[test]
fn damage_anywhere_leaves_the_other_segments_readable_without_an_index() {
    let (storage, _) = much_changed();
    let bytes = bytes_of(&storage);
    let whole = verified(&storage).0;
    for slot in 0..bytes.len() / SLOT as usize {
        let start = 4096 + slot * SLOT as usize;
        // The header, the first block, the middle, the seal.
        for within in [20, 300, 30_000, SLOT as usize - 100] {
            let mut damaged = bytes.clone();
            let Some(byte) = damaged.get_mut(start + within) else { continue };
            *byte ^= 1;
            let (seen, counts) = verified(&storage_of(&damaged));
            let is_free = seen.findings == whole.findings;
            assert_eq!(counts.segments, 6, "slot {slot}, byte {within}: {:?}", seen.findings);
            let kept = seen.entries.iter().filter(|entry| whole.entries.contains(entry)).count();
            assert_eq!(kept, seen.entries.len(), "no entry that the log does not have");
            assert!(kept + 2 >= whole.entries.len(), "slot {slot}, byte {within}");
            assert!(!is_free || kept == whole.entries.len());
        }
    }
}

#[test]
fn segments_are_found_by_their_neighbours_where_header_and_index_are_lost() {
    let (storage, _) = much_changed();
    let mut bytes = bytes_of(&storage);
    let whole = verified(&storage).0;
    // Slot 2 is in use again: its segment's header is lost, and a block elsewhere, so that the log
    // does not open.
    let start = 4096 + 2 * SLOT as usize;
    bytes[start..start + 256].fill(0);
    bytes[4096 + 6 * SLOT as usize + 300] ^= 1;
    let damaged = storage_of(&bytes);
    assert!(open_file(&damaged, Access::ReadOnly).unwrap().recover(None).is_err());
    let (seen, counts) = verified(&damaged);
    assert_eq!(counts.segments, 6, "{:?}", seen.findings);
    assert!(seen.entries.len() + 1 >= whole.entries.len());
    let header = seen.findings.iter().find(|found| found.offset == start as u64).unwrap();
    assert_eq!(header.severity, Severity::Mendable, "{:?}", seen.findings);
}

#[test]
fn a_segment_that_is_gone_from_the_file_is_missed() {
    let (storage, _) = much_changed();
    let bytes = bytes_of(&storage);
    let slot = SLOT as usize;
    for gone in [0, 1, 3, 5, 6] {
        let mut without = bytes.clone();
        let start = 4096 + gone * slot;
        let end = without.len().min(start + slot);
        without[start..end].fill(0);
        let (seen, _) = verified(&storage_of(&without));
        let worst = seen.findings.iter().map(|found| found.severity).max();
        assert_eq!(worst, Some(Severity::Loss), "slot {gone}: {:?}", seen.findings);
    }
    // The last one: a crash may have kept the seal before it and nothing of it.
    let mut without = bytes;
    without[4096 + 2 * slot..4096 + 3 * slot].fill(0);
    let (seen, _) = verified(&storage_of(&without));
    assert_eq!(seen.findings[0].severity, Severity::Notice, "{:?}", seen.findings);
}

#[test]
fn a_lost_header_of_the_only_segment_is_a_loss_where_that_is_not_the_first() {
    let (storage, mut writer) = new_log();
    compact(&mut writer);
    writer.append(&[b"kept"]).unwrap();
    writer.close().unwrap();
    drop(writer);
    let mut bytes = bytes_of(&storage);
    bytes[4096 + 70] ^= 1;
    let (seen, _) = verified(&storage_of(&bytes));
    let worst = seen.findings.iter().map(|found| found.severity).max();
    assert_eq!(worst, Some(Severity::Loss), "{:?}", seen.findings);
}

#[test]
fn what_an_unfinished_commit_leaves_is_a_notice() {
    let (storage, mut writer) = new_log();
    writer.append(&[b"one"]).unwrap();
    let packed = writer.log().pack(&[&noise(1, 50_000), &noise(2, 50_000)]).unwrap();
    let mut commit = writer.begin().unwrap();
    commit.append(&packed).unwrap();
    // As if the process were killed here.
    let torn = storage_of(&bytes_of(&storage));
    commit.finish(Room::Ahead).unwrap();
    let (seen, counts) = verified(&torn);
    assert_eq!((counts.segments, counts.entries), (1, 1));
    assert!(!seen.findings.is_empty());
    let severities = seen.findings.iter().map(|found| found.severity);
    assert!(severities.eq(vec![Severity::Notice; seen.findings.len()]), "{:?}", seen.findings);
    // The room ahead is zeros, and each of them is held against that.
    let whole = bytes_of(&storage);
    drop(writer);
    assert_eq!(verified(&storage).0.findings, []);
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() = 1;
    assert_eq!(verified(&storage_of(&flipped)).0.findings.len(), 1);
}

#[test]
fn a_damaged_end_mark_is_damage_and_a_torn_one_is_not() {
    let (storage, mut writer) = new_log();
    writer.append(&[b"one"]).unwrap();
    writer.close().unwrap();
    let end = 4096 + writer.end().offset as usize;
    drop(writer);
    let bytes = bytes_of(&storage);
    for bit in (end - 32) * 8..end * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let (seen, _) = verified(&storage_of(&flipped));
        let severities: Vec<_> = seen.findings.iter().map(|found| found.severity).collect();
        assert_eq!(severities, [Severity::Mendable], "bit {bit}: {:?}", seen.findings);
    }
    let mut torn = bytes.clone();
    torn[end - 16..].fill(0);
    let (seen, _) = verified(&storage_of(&torn));
    assert_eq!(seen.findings[0].severity, Severity::Notice, "{:?}", seen.findings);
}

#[test]
fn a_segment_that_was_full_to_its_seal_and_synced_before_it_was_sealed_is_whole() {
    let (storage, mut writer) = new_log();
    let append = |writer: &mut LogWriter, bytes: usize| {
        let before = writer.end().offset;
        writer.append(&[&noise(before.into(), bytes)]).unwrap();
        (writer.end().offset - before) as usize
    };
    let overhead = append(&mut writer, 500) - 500;
    let seal = seal_offset(SLOT);
    while seal - writer.end().offset > 2000 {
        append(&mut writer, 500);
    }
    let left = (seal - writer.end().offset) as usize;
    append(&mut writer, left - overhead);
    assert_eq!(writer.end(), Position { sequence: 1, offset: seal });
    writer.log().sync(writer.end()).unwrap();
    writer.append(&[&noise(0, 500)]).unwrap();
    assert_eq!(writer.end().sequence, 2);
    writer.close().unwrap();
    drop(writer);
    assert_eq!(verified(&storage).0.findings, []);
}

#[test]
fn a_commit_that_was_dropped_where_the_next_one_fills_the_segment_leaves_no_start_behind() {
    // The log ends short behind a cell's start, so that none of its blocks begins there.
    let (storage, mut writer) = new_log();
    while !(1..36).contains(&(writer.end().offset % 256)) {
        writer.append(&[&noise(1, 301)]).unwrap();
    }
    let (packed, bytes) = (writer.log().pack(&[&noise(2, 5000)]).unwrap(), bytes_of(&storage));
    let mut commit = writer.begin().unwrap();
    commit.append(&packed).unwrap();
    drop(commit);
    let seal_behind = |mut writer: LogWriter, storage: &MemoryStorage| {
        writer.append(&[&noise(3, 64_000)]).unwrap();
        assert_eq!(writer.end().sequence, 2);
        writer.close().unwrap();
        drop(writer);
        assert_eq!(verified(storage).0.findings, []);
    };
    seal_behind(writer, &storage);
    // The same where a crash has left the block of an unfinished commit.
    let storage = storage_of(&bytes);
    let open = || {
        let options = LogOptions { write_buffer_bytes: 4 << 10, ..options() };
        let shared = Arc::new(storage.clone());
        let file = OpenFile::open(shared, Path::new(PATH), Access::ReadWrite, options).unwrap();
        file.recover(None).unwrap().writer.unwrap()
    };
    let mut writer = open();
    let mut commit = writer.begin().unwrap();
    commit.append(&packed).unwrap();
    std::mem::forget(commit);
    drop(writer);
    assert_ne!(bytes_of(&storage), bytes);
    seal_behind(open(), &storage);
}

#[test]
fn a_file_is_verified_while_its_log_is_open_to_write() {
    let (storage, writer) = new_log();
    drop(writer);
    let file = open_file(&storage, Access::ReadWrite).unwrap();
    let mut writer = file.recover(None).unwrap().writer.unwrap();
    writer.append(&[b"entry"]).unwrap();
    writer.close().unwrap();
    let mut seen = Seen::default();
    file.verifier(None).run(&mut seen).unwrap();
    assert_eq!((seen.findings, seen.entries), (vec![], vec![b"entry".to_vec()]));
}
