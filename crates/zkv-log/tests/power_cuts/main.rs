//! The log on a disk that loses what it was not told to keep, and that refuses.

#[path = "../common/mod.rs"]
mod common;
mod failing_reads;
mod refused;
mod slots_used_again;

use std::path::Path;
use std::sync::Arc;

use zkv_log::layout::{COMMIT_BLOCK_BYTES, SEGMENT_HEADER_BYTES, slot_start};
use zkv_log::{Access, LogError, LogOptions, LogWriter, OpenFile, Recovered, Result, Room, create};
use zkv_sim::{Calls, Event, Fault, Image, PowerCut, SimDisk, SyncFailure, WriteFailure};

use common::{PATH, SLOT, all, noise, slots};

/// What a commit writes at once, at the least: most take one write, the tests' large ones several.
const BUFFER: u32 = 4 << 10;

fn options() -> LogOptions {
    LogOptions { slot_bytes: SLOT, write_buffer_bytes: BUFFER, ..LogOptions::default() }
}

fn try_open(disk: &SimDisk, checkpoint: Option<&[u8]>) -> Result<Recovered> {
    let storage = Arc::new(disk.clone());
    OpenFile::open(storage, Path::new(PATH), Access::ReadWrite, options())?.recover(checkpoint)
}

fn open(disk: &SimDisk) -> LogWriter {
    open_from(disk, None)
}

fn open_from(disk: &SimDisk, checkpoint: Option<&[u8]>) -> LogWriter {
    try_open(disk, checkpoint).unwrap().writer.unwrap()
}

/// A log whose first segment is freed, durably.
fn log_with_a_free_slot(seed: u64) -> (SimDisk, LogWriter) {
    let disk = SimDisk::recording(seed);
    create(&disk, Path::new(PATH), &options()).unwrap();
    let mut writer = open(&disk);
    for number in 0..3 {
        writer.append(&[&noise(number, 40_000)]).unwrap();
    }
    writer.free(&[0]).unwrap();
    writer.log().sync(writer.end()).unwrap();
    (disk, writer)
}

/// Shows `check` what power cuts may leave of each moment behind event `before`.
fn cut_behind(disk: &SimDisk, before: usize, most: usize, check: impl Fn(Recovered, &str)) {
    let (mut cut, mut random) = (PowerCut::new(), fastrand::Rng::with_seed(1));
    for (number, event) in disk.events(0).iter().enumerate() {
        let is_new = cut.follow(event);
        if number < before {
            continue;
        }
        for way in cut.cuts(is_new, most, &mut random) {
            let what = format!("{event}, {way:?}");
            let left = try_open(&SimDisk::from_image(&cut.image(&way), 2), None);
            check(left.unwrap_or_else(|error| panic!("{error}: {what}")), &what);
        }
    }
}

#[test]
fn a_refused_commit_is_gone_even_where_all_of_it_has_arrived() {
    for write in [WriteFailure::Nothing, WriteFailure::Half, WriteFailure::AllButLast] {
        let disk = SimDisk::from_image(&Image::new(), 1);
        create(&disk, Path::new(PATH), &options()).unwrap();
        let mut writer = open(&disk);
        let end = writer.end();
        let error = std::io::ErrorKind::StorageFull;
        let (calls, sync) = (Calls::Changes, SyncFailure::CacheNew);
        disk.set_fault(Some(Fault { calls, number: 1, lasts: false, error, write, sync }));
        let packed = writer.log().pack(&[b"refused"]).unwrap();
        let mut commit = writer.begin().unwrap();
        commit.append(&packed).unwrap();
        // The zeros behind it are a part of the same write, so that it may lack nothing but one.
        commit.finish(Room::Ahead).unwrap_err();
        let next = disk.kill();
        drop(writer);
        assert_eq!(open(&next).end(), end, "{write:?}");
    }
}

#[test]
fn a_commit_abandoned_in_a_slot_used_again_leaves_the_way_to_the_newest_roll_call() {
    let (disk, mut writer) = log_with_a_free_slot(1);
    let (end, before) = (writer.end(), disk.event_count());
    let packed = writer.log().pack(&[&noise(8, 40_000)]).unwrap();
    writer.begin().unwrap().append(&packed).unwrap();
    // From the log alone: the header in the freed slot says where its newest roll call is.
    cut_behind(&disk, before, 40, |left, what| {
        assert_eq!(left.writer.unwrap().end(), end, "{what}");
    });
    // It says so until another one does.
    drop(writer);
    let mut writer = open(&disk.kill());
    writer.append(&[b"goes on"]).unwrap();
    let end = writer.end();
    drop(writer);
    assert_eq!(open(&disk.kill()).end(), end);
}

#[test]
fn a_power_cut_while_a_slot_is_used_again_loses_nothing() {
    let (disk, mut writer) = log_with_a_free_slot(1);
    let (durable, before) = (writer.end(), disk.event_count());
    writer.append(&[&noise(9, 40_000)]).unwrap();
    assert!(slots(&writer.log()).iter().any(|(slot, sequence)| (*slot, *sequence) == (0, 4)));
    cut_behind(&disk, before, 100, |left, what| {
        let end = left.writer.unwrap().end();
        assert!(end == durable || end == writer.end(), "{what}");
    });
}

/// What a power cut may leave of `work`, which starts with the log in `image`, where it succeeds.
fn cut_off(image: &Image, checkpoint: Option<&[u8]>, work: impl FnOnce(LogWriter)) -> Vec<Image> {
    let disk = SimDisk::recording_from(image, 1);
    work(open_from(&disk, checkpoint));
    let (mut cut, mut random) = (PowerCut::from_image(image), fastrand::Rng::with_seed(1));
    let mut images = Vec::new();
    for event in disk.events(0) {
        let is_new = cut.follow(&event);
        let mut ways = cut.cuts(is_new, 60, &mut random);
        ways.extend(cut.cuts(false, 60, &mut random));
        images.extend(ways.iter().map(|way| cut.image(way)));
    }
    images
}

/// Begins with the log on `disk`, and with what an index knows of it, where there is one: `work` is cut
/// off, and then commits behind what that has left.
fn check_that_nothing_comes_to_light(
    disk: &SimDisk,
    checkpoint: Option<&[u8]>,
    work: impl FnOnce(LogWriter),
) {
    for abandoned in cut_off(&disk.image(), checkpoint, work) {
        let mut ends = Vec::new();
        let images = cut_off(&abandoned, checkpoint, |mut writer| {
            ends.push(writer.end());
            writer.append(&[b"short"]).unwrap();
            ends.push(writer.end());
            writer.log().sync(writer.end()).unwrap();
            // Longer than what was abandoned, so that it brings a length that shows all of that.
            writer.append(&[&noise(3, 2000)]).unwrap();
            ends.push(writer.end());
        });
        for image in images {
            let found = open_from(&SimDisk::from_image(&image, 1), checkpoint).end();
            assert!(ends.contains(&found), "{found:?}, not one of {ends:?}");
        }
    }
}

/// A commit that fills what is left of a sector, one that is durable first.
fn two_commits(mut writer: LogWriter) {
    writer.append(&[&noise(2, 40)]).unwrap();
    writer.log().sync(writer.end()).unwrap();
    writer.append(&[&noise(2, 800)]).unwrap();
}

fn log_of_an_entry() -> (SimDisk, LogWriter) {
    let disk = SimDisk::recording(1);
    create(&disk, Path::new(PATH), &options()).unwrap();
    let mut writer = open(&disk);
    writer.append(&[&noise(1, 6000)]).unwrap();
    (disk, writer)
}

#[test]
fn nothing_that_a_crash_has_left_behind_a_closed_files_end_comes_to_light() {
    let (disk, mut writer) = log_of_an_entry();
    writer.close().unwrap();
    drop(writer);
    check_that_nothing_comes_to_light(&disk, None, two_commits);
}

#[test]
fn nothing_that_a_crash_has_left_behind_a_known_end_comes_to_light() {
    let (disk, mut writer) = log_of_an_entry();
    writer.log().sync(writer.end()).unwrap();
    // All of it is proven, and the file ends within a page.
    let checkpoint = writer.checkpoint().unwrap();
    drop(writer);
    check_that_nothing_comes_to_light(&disk, Some(&checkpoint), two_commits);
}

/// A log that ends at `offset`, or a little before, with what a torn write has left behind the last page.
fn log_with_a_torn_write(offset: u32, torn: &[u8]) -> SimDisk {
    const HEADERS: u32 = 128; // More than a block's and a commit's.
    let (disk, mut writer) = log_of_an_entry();
    let bytes = offset - writer.end().offset - HEADERS;
    writer.append(&[&noise(4, bytes as usize)]).unwrap();
    // So that nothing is left to be done when it is opened.
    writer.close().unwrap();
    assert!((offset - HEADERS..=offset).contains(&writer.end().offset));
    let mut image = disk.image();
    let bytes = [image.get(Path::new(PATH)).unwrap(), torn].concat();
    image.insert(PATH, bytes);
    SimDisk::from_image(&image, 1)
}

#[test]
fn nothing_that_a_crash_has_left_behind_a_torn_write_comes_to_light() {
    for torn in [noise(5, 512), vec![0; 512]] {
        check_that_nothing_comes_to_light(
            &log_with_a_torn_write(12 << 10, &torn),
            None,
            two_commits,
        );
    }
}

#[test]
fn nothing_that_a_crash_has_left_behind_a_torn_write_to_a_free_slot_comes_to_light() {
    const SEAL: u32 = 528; // A block of its own, at the slot's end.
    // What is appended starts a segment, in the slot of which the torn write is.
    let torn = [vec![0; 256], noise(5, 256)].concat();
    let disk = log_with_a_torn_write(SLOT - SEAL, &torn);
    check_that_nothing_comes_to_light(&disk, None, two_commits);
}

#[test]
fn a_commit_that_was_synced_halfway_does_not_come_to_light() {
    let (disk, mut writer) = log_of_an_entry();
    writer.close().unwrap();
    drop(writer);
    check_that_nothing_comes_to_light(&disk, None, |mut writer| {
        let log = writer.log();
        let first_half = log.pack(&[&noise(2, 4 * BUFFER as usize)]).unwrap();
        let second_half = log.pack(&[&noise(2, 300)]).unwrap();
        let mut commit = writer.begin().unwrap();
        commit.append(&first_half).unwrap();
        log.file().sync_data().unwrap();
        commit.append(&second_half).unwrap();
        commit.finish(Room::Exact).unwrap();
    });
}

#[test]
fn nothing_that_a_crash_has_left_behind_a_file_cut_at_its_logs_end_comes_to_light() {
    let (disk, mut writer) = log_of_an_entry();
    writer.close().unwrap();
    let log_bytes = slot_start(0, SLOT) + u64::from(writer.end().offset);
    writer.log().file().set_len(log_bytes).unwrap();
    drop(writer);
    check_that_nothing_comes_to_light(&disk, None, two_commits);
}

#[test]
fn a_file_ends_with_a_page_behind_each_commit() {
    let (disk, mut writer) = log_of_an_entry();
    for bytes in [1, 500, 5000, 40_000, 30_000] {
        for room in [Room::Exact, Room::Ahead] {
            let packed = writer.log().pack(&[&noise(4, bytes)]).unwrap();
            let mut commit = writer.begin().unwrap();
            commit.append(&packed).unwrap();
            commit.finish(room).unwrap();
            let image = disk.image();
            let len = image.get(Path::new(PATH)).unwrap().len();
            assert!(len.is_multiple_of(4096), "{len} bytes behind {bytes} more, {room:?}");
        }
    }
}

#[test]
fn a_refused_base_is_wiped_before_the_seal_that_leads_to_it() {
    for number in 1..10 {
        let (disk, mut writer) = log_of_an_entry();
        let end = writer.end();
        // The base may be there whole, and what the disk refuses from then on is written but for a byte.
        let (calls, error) = (Calls::Changes, std::io::ErrorKind::StorageFull);
        let (write, sync) = (WriteFailure::AllButLast, SyncFailure::CacheNew);
        disk.set_fault(Some(Fault { calls, number, lasts: true, error, write, sync }));
        if writer.rebase().is_ok() {
            continue;
        }
        // Another commit tries to wipe what is there.
        let _ = writer.append(&[b"next"]);
        drop(writer);
        disk.set_fault(None);
        let left = try_open(&disk.kill(), None);
        let found = left.unwrap_or_else(|error| panic!("{error}: call {number}")).writer.unwrap();
        assert!(end <= found.end(), "call {number}");
    }
}

fn failed_sync(number: u64) -> Option<Fault> {
    let (write, sync) = (WriteFailure::Nothing, SyncFailure::CacheNew);
    let error = std::io::ErrorKind::Other;
    Some(Fault { calls: Calls::Syncs, number, lasts: false, error, write, sync })
}

/// What power cuts may leave now.
fn cut_now(disk: &SimDisk) -> Vec<SimDisk> {
    let (mut cut, mut random) = (PowerCut::new(), fastrand::Rng::with_seed(3));
    for event in disk.events(0) {
        cut.follow(&event);
    }
    let ways = cut.cuts(false, 60, &mut random);
    ways.iter().map(|way| SimDisk::from_image(&cut.image(way), 2)).collect()
}

/// A process that opens the log as the page cache has it commits and syncs; then the power is cut.
fn check_that_the_next_commit_is_kept(disk: &SimDisk) {
    let next = disk.kill();
    let mut writer = open(&next);
    writer.append(&[b"acknowledged"]).unwrap();
    writer.log().sync(writer.end()).unwrap();
    drop(writer);
    for left in cut_now(&next) {
        let left = try_open(&left, None).unwrap();
        assert!(all(&left.log).contains(&b"acknowledged".to_vec()));
    }
}

#[test]
fn a_commit_under_way_while_another_threads_sync_fails_vouches_for_nothing() {
    let (disk, mut writer) = log_with_a_free_slot(1);
    writer.append(&[&noise(7, 3000)]).unwrap();
    let (log, end, synced) = (writer.log(), writer.end(), writer.log().synced_upto());
    let packed = log.pack(&[&noise(8, 40_000)]).unwrap();
    let mut commit = writer.begin().unwrap();
    disk.set_fault(failed_sync(1));
    log.sync(end).unwrap_err();
    disk.set_fault(None);
    // The slot that it uses again wants a sync, which the system would let pass.
    assert!(matches!(commit.append(&packed), Err(LogError::SyncFailed { .. })));
    drop(commit);
    assert_eq!(log.synced_upto(), synced);
    drop(writer);
    for left in cut_now(&disk) {
        try_open(&left, None).unwrap();
    }
    check_that_the_next_commit_is_kept(&disk);
}

#[test]
fn an_end_mark_whose_sync_has_failed_takes_nothing_along() {
    for seed in 0..10 {
        let disk = SimDisk::recording(seed);
        create(&disk, Path::new(PATH), &options()).unwrap();
        let mut writer = open(&disk);
        // The mark fills the page to its end, and the next commit writes another one.
        let overhead = (SEGMENT_HEADER_BYTES + 2 * COMMIT_BLOCK_BYTES) as usize + 9;
        writer.append(&[&noise(1, 4096 - overhead)]).unwrap();
        disk.set_fault(failed_sync(2));
        writer.close().unwrap_err();
        disk.set_fault(None);
        drop(writer);
        assert_eq!(open(&disk.kill()).end().offset, 4096);
        check_that_the_next_commit_is_kept(&disk);
    }
}

#[test]
fn a_segment_freed_before_its_sync_has_failed_still_leads_to_those_behind_it() {
    let disk = SimDisk::recording(1);
    create(&disk, Path::new(PATH), &options()).unwrap();
    let mut writer = open(&disk);
    for number in 0..4 {
        writer.append(&[&noise(number, 40_000)]).unwrap();
    }
    writer.free(&[1, 2]).unwrap();
    disk.set_fault(failed_sync(1));
    writer.log().sync(writer.end()).unwrap_err();
    disk.set_fault(None);
    drop(writer);
    check_that_the_next_commit_is_kept(&disk);
}

#[test]
fn nothing_is_cut_off_after_a_sync_of_the_segment_that_would_do_without_it_has_failed() {
    let disk = SimDisk::recording(1);
    create(&disk, Path::new(PATH), &options()).unwrap();
    let mut writer = open(&disk);
    let commit = |writer: &mut LogWriter, number| {
        writer.append(&[&noise(number, 40_000)]).unwrap();
        writer.log().sync(writer.end()).unwrap();
    };
    (0..3).for_each(|number| commit(&mut writer, number));
    writer.free(&[0]).unwrap();
    commit(&mut writer, 4);
    writer.free(&[1, 2]).unwrap();
    writer.log().sync(writer.end()).unwrap();
    disk.set_fault(failed_sync(2));
    writer.rebase().unwrap_err();
    disk.set_fault(None);
    assert!(matches!(writer.cut(), Err(LogError::SyncFailed { .. })));
    assert!(matches!(writer.trim(), Err(LogError::SyncFailed { .. })));
    drop(writer);
    for left in cut_now(&disk) {
        try_open(&left, None).unwrap();
    }
}

#[test]
fn a_second_power_cut_leaves_the_way_to_a_roll_call_whose_header_the_first_one_lost() {
    let disk = SimDisk::recording(1);
    create(&disk, Path::new(PATH), &options()).unwrap();
    let mut writer = open(&disk);
    for number in 0..3 {
        writer.append(&[&noise(number, 40_000)]).unwrap();
    }
    writer.log().sync(writer.end()).unwrap();
    let view = writer.log().view();
    writer.free(&[0]).unwrap();
    writer.log().sync(writer.end()).unwrap();
    let durable = writer.end();
    // The view holds the slot: the header that names the roll call stands elsewhere, and is not synced.
    writer.append(&[&noise(5, 40_000)]).unwrap();
    drop(view);
    let before = disk.event_count();
    writer.append(&[&noise(6, 40_000)]).unwrap();
    assert!(slots(&writer.log()).iter().any(|(slot, sequence)| (*slot, *sequence) == (0, 5)));
    let events = disk.events(0);
    let is_sync = |event: &Event| matches!(event, Event::Synced { .. });
    let until_sync = before + events[before..].iter().position(is_sync).unwrap();
    let (mut cut, mut random) = (PowerCut::new(), fastrand::Rng::with_seed(3));
    for event in &events[..until_sync] {
        cut.follow(event);
    }
    for way in cut.cuts(false, 100, &mut random) {
        for left in cut_off(&cut.image(&way), None, |mut writer| writer.mend().unwrap()) {
            let left = try_open(&SimDisk::from_image(&left, 1), None);
            let left = left.unwrap_or_else(|error| panic!("{error}: {way:?}"));
            assert!(left.writer.unwrap().end() >= durable, "{way:?}");
        }
    }
}

#[test]
fn a_close_whose_mark_was_not_synced_does_not_succeed_the_second_time() {
    let disk = SimDisk::recording(1);
    create(&disk, Path::new(PATH), &options()).unwrap();
    let mut writer = open(&disk);
    writer.append(&[b"one"]).unwrap();
    disk.set_fault(failed_sync(2));
    writer.close().unwrap_err();
    disk.set_fault(None);
    assert!(matches!(writer.close(), Err(LogError::SyncFailed { .. })));
}
