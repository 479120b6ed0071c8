//! The log through crashes, failed syncs and damage: each case was found by a review.

mod common;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use zkv_io::MemoryStorage;
use zkv_log::{Access, LogError, OpenFile};
use zkv_sim::{Act, Watched};

use common::{PATH, SLOT, bytes_of, new_log, noise, open, options, slots, storage_of, try_open};

#[test]
fn an_end_mark_that_was_not_synced_proves_only_what_is_before_it() {
    let (storage, mut writer) = new_log();
    writer.append(&[b"one"]).unwrap();
    let end = writer.end();
    writer.close().unwrap();
    drop(writer);
    // Killed before the last sync: the mark is there, and no disk has it.
    let mut writer = open(&storage);
    assert_eq!(writer.log().synced_upto(), end);
    writer.append(&[&noise(1, 600)]).unwrap();
    drop(writer);
    // A power cut keeps the new commit and loses the mark.
    let mut bytes = bytes_of(&storage);
    let mark = 4096 + end.offset as usize;
    bytes[mark..mark + 32].fill(0);
    let log = open(&storage_of(&bytes)).log();
    assert_eq!(log.view().segments()[0].data_bytes, end.offset);
}

#[test]
fn a_seal_that_names_a_slot_behind_the_files_end_ends_the_log() {
    let (storage, mut writer) = new_log();
    writer.append(&[&noise(1, 60_000)]).unwrap();
    let end = writer.end();
    writer.append(&[&noise(2, 60_000), &noise(3, 60_000)]).unwrap();
    drop(writer);
    // A power cut keeps the first segment with its seal, and nothing of the next ones, not even room.
    for bytes_behind in [0, 1, SLOT as usize] {
        let kept = &bytes_of(&storage)[..4096 + SLOT as usize];
        let image = [kept, &vec![0; bytes_behind]].concat();
        let mut writer = open(&storage_of(&image));
        assert_eq!(writer.end(), end);
        writer.append(&[&noise(4, 60_000)]).unwrap();
    }
}

#[test]
fn a_segment_header_names_the_newest_roll_call_that_is_durable() {
    let (storage, mut writer) = new_log();
    for number in 0..6 {
        writer.append(&[&noise(number, 40_000)]).unwrap();
    }
    // The first roll call is durable before the second is written, and stands in a segment that goes.
    writer.free(&[0]).unwrap();
    writer.log().sync(writer.end()).unwrap();
    for number in 6..9 {
        writer.append(&[&noise(number, 40_000)]).unwrap();
    }
    writer.free(&[1, 5]).unwrap();
    writer.log().sync(writer.end()).unwrap();
    writer.free(&[2]).unwrap();
    for number in 9..12 {
        writer.append(&[&noise(number, 40_000)]).unwrap();
    }
    let truth = slots(&writer.log());
    drop(writer);
    assert_eq!(slots(&open(&storage).log()), truth);
}

#[test]
fn a_header_that_a_crash_has_lost_is_written_again_with_the_tail() {
    let (storage, mut writer) = new_log();
    for number in 0..3 {
        writer.append(&[&noise(number, 40_000)]).unwrap();
    }
    let (end, whole) = (writer.end(), bytes_of(&storage));
    drop(writer);
    let headers = [1, 2].map(|slot| 4096 + slot * SLOT as usize..4096 + slot * SLOT as usize + 256);
    let mut image = whole.clone();
    headers.iter().for_each(|header| image[header.clone()].fill(0));
    let storage = storage_of(&image);
    let mut writer = open(&storage);
    assert_eq!(writer.end(), end);
    writer.append(&[b"more"]).unwrap();
    for header in headers {
        assert_eq!(bytes_of(&storage)[header.clone()], whole[header]);
    }
}

#[test]
fn an_abandoned_segments_seal_is_wiped_with_its_header() {
    let (storage, mut writer) = new_log();
    writer.append(&[&noise(1, 40_000)]).unwrap();
    writer.checkpoint().unwrap();
    for number in 2..4 {
        writer.append(&[&noise(number, 40_000)]).unwrap();
    }
    writer.free(&[1]).unwrap();
    let before = bytes_of(&storage);
    for number in 4..7 {
        writer.append(&[&noise(number, 40_000)]).unwrap();
    }
    drop(writer);
    // Of all that was written last, a power cut keeps a seal, which repeats its segment's header.
    let mut image = before;
    let seal_end = 4096 + 5 * SLOT as usize;
    image.resize(seal_end, 0);
    image[seal_end - 528..].copy_from_slice(&bytes_of(&storage)[seal_end - 528..seal_end]);
    let storage = storage_of(&image);
    let mut writer = open(&storage);
    writer.append(&[&noise(7, 40_000)]).unwrap();
    let truth = slots(&writer.log());
    assert!(truth.iter().any(|(slot, sequence)| (*slot, *sequence) == (1, 4)), "{truth:?}");
    drop(writer);
    assert_eq!(slots(&open(&storage).log()), truth);
}

#[test]
fn segments_stay_retired_wherever_the_retire_entry_stands() {
    for left_over in 0..120 {
        let (storage, mut writer) = new_log();
        for number in 0..4 {
            writer.append(&[&noise(number, 40_000)]).unwrap();
        }
        let checkpoint = writer.checkpoint().unwrap();
        // Fills the segment up to a few bytes before its seal.
        let seal = SLOT - (8 + 264 + SLOT / 256);
        let fill = seal - writer.end().offset - 8 - 1 - 32 - 28 - left_over;
        writer.append(&[&noise(99, fill as usize)]).unwrap();
        writer.free(&[0]).unwrap();
        writer.close().unwrap();
        let truth = slots(&writer.log());
        drop(writer);
        for checkpoint in [None, Some(&checkpoint[..])] {
            let opened = try_open(&storage, checkpoint).unwrap();
            assert_eq!(slots(&opened.log), truth, "{left_over} bytes left");
        }
    }
}

#[test]
fn a_roll_call_of_thousands_of_segments_spans_blocks() {
    let (storage, mut writer) = new_log();
    let entry = noise(1, 60_000);
    for _ in 0..3400 {
        writer.append(&[&entry]).unwrap();
    }
    writer.free(&[0, 5, 9]).unwrap();
    let checkpoint = writer.checkpoint().unwrap();
    writer.append(&[&entry, &entry]).unwrap();
    writer.checkpoint().unwrap();
    // Segments that begin from here on name the roll call.
    writer.append(&[&entry, &entry]).unwrap();
    let truth = slots(&writer.log());
    drop(writer);
    for checkpoint in [None, Some(&checkpoint[..])] {
        assert!(slots(&try_open(&storage, checkpoint).unwrap().log) == truth);
    }
}

/// A log with freed segments whose slots are in use again, and a checkpoint from before that.
fn much_changed() -> (MemoryStorage, Vec<u8>, Vec<(u32, u64)>) {
    let (storage, mut writer) = new_log();
    writer.append(&[b"a"]).unwrap();
    let old = writer.checkpoint().unwrap();
    for number in 0..6 {
        writer.append(&[&noise(number, 40_000)]).unwrap();
    }
    writer.checkpoint().unwrap();
    let committed = writer.free(&[1, 2]).unwrap();
    writer.log().sync(committed.end).unwrap();
    for number in 0..6 {
        writer.append(&[&noise(number, 40_000)]).unwrap();
    }
    writer.close().unwrap();
    let truth = slots(&writer.log());
    (storage, old, truth)
}

#[test]
fn a_checkpoint_from_before_freed_segments_is_set_aside() {
    let (storage, old, truth) = much_changed();
    let opened = try_open(&storage, Some(&old)).unwrap();
    assert_eq!((slots(&opened.log), opened.replay_from), (truth, None));
}

#[test]
fn any_one_segment_header_may_be_damaged_without_an_index() {
    let (storage, _, truth) = much_changed();
    let bytes = bytes_of(&storage);
    for (slot, sequence) in &truth {
        let mut damaged = bytes.clone();
        damaged[4096 + *slot as usize * SLOT as usize + 20] ^= 1;
        let opened = try_open(&storage_of(&damaged), None).unwrap();
        assert_eq!(slots(&opened.log), truth, "sequence {sequence}");
    }
}

#[test]
fn a_checkpoint_leads_into_no_slot_that_another_segment_has_begun() {
    let (storage, mut writer) = new_log();
    writer.append(&[&noise(1, 40_000)]).unwrap();
    let checkpoint = writer.checkpoint().unwrap();
    for number in 2..5 {
        writer.append(&[&noise(number, 40_000)]).unwrap();
    }
    writer.free(&[1]).unwrap();
    writer.log().sync(writer.end()).unwrap();
    let (mut image, durable) = (bytes_of(&storage), slots(&writer.log()));
    for number in 5..7 {
        writer.append(&[&noise(number, 40_000)]).unwrap();
    }
    drop(writer);
    // A power cut keeps the header and the seal of the segment that is new in slot 1, and nothing
    // between: those of the old one's blocks still stand there.
    let slot = 4096 + SLOT as usize;
    for kept in [slot..slot + 256, 2 * slot - 4096 - 528..2 * slot - 4096] {
        image[kept.clone()].copy_from_slice(&bytes_of(&storage)[kept]);
    }
    for checkpoint in [None, Some(&checkpoint[..])] {
        let opened = try_open(&storage_of(&image), checkpoint).unwrap();
        assert_eq!(slots(&opened.log), durable);
    }
}

#[test]
fn a_crafted_slot_in_a_checkpoint_allocates_nothing() {
    let (storage, mut writer) = new_log();
    for number in 0..3 {
        writer.append(&[&noise(number, 40_000)]).unwrap();
    }
    let mut checkpoint = writer.checkpoint().unwrap();
    let truth = slots(&writer.log());
    drop(writer);
    let first_slot = 108 + 8;
    checkpoint[first_slot..first_slot + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    let opened = try_open(&storage, Some(&checkpoint)).unwrap();
    assert_eq!((slots(&opened.log), opened.replay_from), (truth, None));
}

#[test]
fn commits_of_one_length_in_diverged_copies_differ() {
    let (storage, mut writer) = new_log();
    writer.append(&[b"common"]).unwrap();
    writer.close().unwrap();
    drop(writer);
    let copy = storage_of(&bytes_of(&storage));
    let mut checkpoints = Vec::new();
    for (storage, entry) in [(&storage, b"one"), (&copy, b"two")] {
        let mut writer = open(storage);
        writer.append(&[entry]).unwrap();
        checkpoints.push(writer.checkpoint().unwrap());
        writer.close().unwrap();
    }
    assert!(try_open(&storage, Some(&checkpoints[0])).unwrap().replay_from.is_some());
    assert!(try_open(&storage, Some(&checkpoints[1])).unwrap().replay_from.is_none());
    assert!(try_open(&copy, Some(&checkpoints[0])).unwrap().replay_from.is_none());
}

#[test]
fn a_lost_first_sector_of_the_last_segment_is_damage() {
    let (storage, mut writer) = new_log();
    for number in 0..200 {
        writer.append(&[&noise(number, 500)]).unwrap();
        writer.log().sync(writer.end()).unwrap();
    }
    assert!(slots(&writer.log()).len() == 2);
    drop(writer);
    let mut bytes = bytes_of(&storage);
    let second = 4096 + SLOT as usize;
    bytes[second..second + 1024].fill(0);
    let opened = try_open(&storage_of(&bytes), None);
    assert!(matches!(opened, Err(LogError::Corrupt { .. })));
}

#[test]
fn a_lost_seal_and_the_header_behind_it_are_damage_where_later_commits_prove_it() {
    let (storage, mut writer) = new_log();
    for number in 0..200 {
        writer.append(&[&noise(number, 500)]).unwrap();
        writer.log().sync(writer.end()).unwrap();
    }
    let (early, late) = (writer.checkpoint().unwrap(), writer.end());
    assert_eq!(slots(&writer.log()), [(0, 1), (1, 2)]);
    let killed = bytes_of(&storage);
    writer.close().unwrap();
    drop(writer);
    let second = 4096 + SLOT as usize;
    for bytes in [killed, bytes_of(&storage)] {
        for damage in [second - 4096..second + 4096, second - 20..second + 20] {
            let mut bytes = bytes.clone();
            bytes[damage.clone()].fill(0);
            let damaged = storage_of(&bytes);
            let opened = try_open(&damaged, None);
            assert!(matches!(opened, Err(LogError::Corrupt { .. })), "{damage:?}");
            // An index needs neither.
            let opened = try_open(&damaged, Some(&early)).unwrap();
            assert!(late <= opened.writer.unwrap().end());
        }
    }
}

#[test]
fn an_abandoned_segment_whose_header_is_wiped_is_no_damage() {
    let (storage, mut writer) = new_log();
    writer.append(&[b"kept"]).unwrap();
    writer.log().sync(writer.end()).unwrap();
    let packed = writer.log().pack(&[&noise(1, 50_000), &noise(2, 50_000)]).unwrap();
    let mut commit = writer.begin().unwrap();
    commit.append(&packed).unwrap();
    drop(commit);
    let end = writer.end();
    drop(writer);
    let mut bytes = bytes_of(&storage);
    assert_eq!(open(&storage).end(), end);
    // A crash may keep the length that the file had before it was cut: its second slot has a page.
    bytes.resize(4096 + SLOT as usize + 4096, 0);
    assert_eq!(open(&storage_of(&bytes)).end(), end);
}

#[test]
fn a_seal_alone_proves_what_was_durable_before_it() {
    let (storage, mut writer) = new_log();
    writer.append(&[&noise(1, 600)]).unwrap();
    let synced = writer.end();
    writer.log().sync(synced).unwrap();
    let packed = writer.log().pack(&[&noise(2, 40_000), &noise(3, 40_000)]).unwrap();
    let mut commit = writer.begin().unwrap();
    commit.append(&packed).unwrap();
    // Killed before the next commit block, and the header of the segment that was begun is lost.
    let mut killed = bytes_of(&storage);
    drop(commit);
    killed[4096 + SLOT as usize..].fill(0);
    assert_eq!(open(&storage_of(&killed)).end(), synced);
    // The first commit's own block was written before the sync, and says nothing of it.
    killed[4096 + 256 + 100] ^= 1;
    let opened = try_open(&storage_of(&killed), None);
    assert!(matches!(opened, Err(LogError::Corrupt { .. })));
}

#[test]
fn a_lost_watermark_is_damage_where_the_log_goes_on_behind_it() {
    let (storage, mut writer) = new_log();
    writer.append(&[b"one"]).unwrap();
    let checkpoint = writer.checkpoint().unwrap();
    let watermark = 4096 + writer.end().offset as usize;
    writer.append(&[b"two"]).unwrap();
    drop(writer);
    let mut bytes = bytes_of(&storage);
    bytes[watermark - 1] ^= 1;
    let opened = try_open(&storage_of(&bytes), Some(&checkpoint));
    assert!(matches!(opened, Err(LogError::Corrupt { .. })));
}

#[test]
fn of_two_threads_that_sync_none_succeeds_where_the_disk_failed() {
    let (inner, writer) = new_log();
    drop(writer);
    let (asked, failures) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    let of_disk = Arc::clone(&asked);
    let storage = Watched::new(Arc::new(inner), move |act, _| {
        if act != Act::Sync {
            return Ok(());
        }
        while of_disk.load(Ordering::SeqCst) < 2 {
            std::thread::yield_now();
        }
        // A system tells one caller of a failure, and the next that all is well.
        match failures.fetch_add(1, Ordering::SeqCst) {
            0 => Err(io::Error::other("the disk is broken")),
            _ => Ok(()),
        }
    });
    let file =
        OpenFile::open(Arc::new(storage), Path::new(PATH), Access::ReadWrite, options()).unwrap();
    let mut writer = file.recover(None).unwrap().writer.unwrap();
    writer.append(&[b"one"]).unwrap();
    let (log, end) = (writer.log(), writer.end());
    std::thread::scope(|scope| {
        let sync = || {
            asked.fetch_add(1, Ordering::SeqCst);
            log.sync(end)
        };
        let (first, second) = (scope.spawn(sync), scope.spawn(sync));
        assert!(first.join().unwrap().is_err());
        assert!(second.join().unwrap().is_err());
    });
    assert!(log.synced_upto() < end);
    assert!(matches!(writer.append(&[b"two"]), Err(LogError::SyncFailed { .. })));
}

#[test]
fn a_sync_vouches_for_nothing_behind_the_logs_end() {
    let (storage, mut writer) = new_log();
    writer.append(&[b"one"]).unwrap();
    let (log, first) = (writer.log(), writer.end());
    log.sync(log.view().seen_upto()).unwrap();
    assert_eq!(log.synced_upto(), first);
    writer.append(&[b"two"]).unwrap();
    log.sync(writer.end()).unwrap();
    assert_eq!(log.synced_upto(), writer.end());
    writer.append(&[b"three"]).unwrap();
    let end = writer.end();
    drop((writer, log));
    let mut writer = open(&storage);
    writer.mend().unwrap();
    // Nothing was committed since it was opened, and there is something to sync all the same.
    writer.log().sync(writer.log().view().seen_upto()).unwrap();
    assert_eq!((writer.log().synced_upto(), writer.end()), (end, end));
    writer.close().unwrap();
    drop(writer);
    open(&storage);
}
