//! Space that comes back: segments that are freed, and the file's end that is cut off.

mod common;

use std::path::Path;
use std::sync::Arc;

use zkv_io::{MemoryStorage, OpenMode, Storage, StorageFile};
use zkv_log::layout::slot_start;
use zkv_log::{Access, FreeSlots, LogError, LogWriter, OpenFile};
use zkv_sim::{Act, Watched};

use common::{PATH, SLOT, new_log, noise, open, options, try_open};

/// Fills most of a segment.
fn fill(writer: &mut LogWriter, seed: u64) {
    writer.append(&[&noise(seed, 50_000)]).unwrap();
}

fn full_slots(writer: &LogWriter) -> Vec<u32> {
    let segments = writer.log().view().segments();
    segments.iter().filter(|segment| segment.is_sealed).map(|segment| segment.slot).collect()
}

fn free_and_sync(writer: &mut LogWriter, slots: &[u32]) {
    let committed = writer.free(slots).unwrap();
    writer.log().sync(committed.end).unwrap();
}

fn file_bytes(writer: &LogWriter) -> u64 {
    writer.log().file_bytes().unwrap()
}

#[test]
fn a_log_of_which_nothing_is_needed_becomes_a_few_pages() {
    let (storage, mut writer) = new_log();
    for seed in 0..6 {
        fill(&mut writer, seed);
    }
    // The first base lies behind all that it lets go, the second in front.
    for _ in 0..2 {
        writer.rebase().unwrap();
        let slots = full_slots(&writer);
        free_and_sync(&mut writer, &slots);
    }
    assert!(writer.cut().unwrap() > 5 * u64::from(SLOT));
    assert!(file_bytes(&writer) <= 4096 + u64::from(SLOT));
    writer.close().unwrap();
    assert!(file_bytes(&writer) <= 12 << 10, "{}", file_bytes(&writer));
    drop(writer);
    let mut writer = open(&storage);
    assert_eq!(writer.free_slots(), FreeSlots::default());
    let address = writer.append(&[b"goes on"]).unwrap()[0];
    assert_eq!(writer.log().view().read(address).unwrap(), b"goes on");
}

#[test]
fn what_a_view_holds_is_not_cut_off() {
    let (_storage, mut writer) = new_log();
    for seed in 0..4 {
        fill(&mut writer, seed);
    }
    for _ in 0..2 {
        let last = writer.append(&[b"held"]).unwrap()[0];
        let held = writer.log().view();
        writer.rebase().unwrap();
        let slots = full_slots(&writer);
        free_and_sync(&mut writer, &slots);
        assert_eq!(writer.cut().unwrap(), 0);
        assert_eq!(held.read(last).unwrap(), b"held");
    }
    assert!(writer.cut().unwrap() > 0);
}

#[test]
fn a_slot_that_a_reader_of_the_log_alone_needs_is_not_cut_off() {
    let (storage, mut writer) = new_log();
    for seed in 0..4 {
        fill(&mut writer, seed);
    }
    // A crash before the rebase leaves a log whose last segment lies in front.
    free_and_sync(&mut writer, &[0]);
    fill(&mut writer, 9);
    free_and_sync(&mut writer, &[2, 3]);
    assert_eq!(writer.cut().unwrap(), 0, "the way to the end leads through them");
    let used: Vec<u32> = writer.log().view().segments().iter().map(|one| one.slot).collect();
    assert_eq!(used, [1, 0]);
    writer.rebase().unwrap();
    assert!(writer.cut().unwrap() > 0);
    drop(writer);
    let segments = open(&storage).log().view().segments();
    assert_eq!(segments.len(), 3);
}

/// A log with a full segment in the last slot, and the one that is being written in front of it.
fn log_that_ends_in_front() -> (MemoryStorage, LogWriter) {
    let (storage, mut writer) = new_log();
    for seed in 0..4 {
        fill(&mut writer, seed);
    }
    writer.rebase().unwrap();
    free_and_sync(&mut writer, &[0, 1, 2, 3]);
    writer.rebase().unwrap();
    let slots: Vec<u32> = writer.log().view().segments().iter().map(|one| one.slot).collect();
    assert_eq!(slots, [4, 0]);
    (storage, writer)
}

#[test]
fn a_checkpoint_from_before_segments_were_freed_and_cut_off_still_leads_into_the_log() {
    let (storage, mut writer) = log_that_ends_in_front();
    let checkpoint = writer.checkpoint().unwrap();
    free_and_sync(&mut writer, &[4]);
    assert!(writer.cut().unwrap() > 0);
    let end = writer.end();
    drop(writer);
    let recovered = try_open(&storage, Some(&checkpoint)).unwrap();
    assert!(recovered.replay_from.is_some(), "it was no use");
    assert_eq!(recovered.writer.unwrap().end(), end);
    assert_eq!(recovered.log.view().segments().len(), 1);
}

#[test]
fn a_segment_that_somebody_else_has_cut_off_is_missing() {
    let (storage, mut writer) = log_that_ends_in_front();
    let checkpoint = writer.checkpoint().unwrap();
    writer.log().file().set_len(slot_start(4, SLOT)).unwrap();
    drop(writer);
    let error = try_open(&storage, Some(&checkpoint)).map(drop).unwrap_err();
    assert!(matches!(error, LogError::Corrupt { what: "a segment is missing", .. }), "{error}");
}

#[test]
fn a_cut_that_fails_though_it_was_done_is_no_loss() {
    let (storage, writer) = log_that_ends_in_front();
    drop(writer);
    let below = storage.open(Path::new(PATH), OpenMode::ReadWrite).unwrap();
    let whole = below.len().unwrap();
    let cut_short = Watched::new(Arc::new(storage), move |act, _| match act {
        Act::SetLen(bytes) => {
            below.set_len(bytes)?;
            Err(std::io::Error::other("the disk was slow to tell"))
        }
        _ => Ok(()),
    });
    let open = || {
        let storage = Arc::new(cut_short.clone());
        let file = OpenFile::open(storage, Path::new(PATH), Access::ReadWrite, options()).unwrap();
        file.recover(None).unwrap().writer.unwrap()
    };
    let mut writer = open();
    free_and_sync(&mut writer, &[4]);
    assert!(writer.cut().is_err());
    assert!(writer.log().file().len().unwrap() < whole);
    writer.append(&[b"goes on"]).unwrap();
    writer.log().sync(writer.end()).unwrap();
    let end = writer.end();
    drop(writer);
    assert_eq!(open().end(), end);
}

#[test]
fn packed_entries_that_are_not_kept_are_not_appended() {
    let (_storage, mut writer) = new_log();
    let entries: Vec<Vec<u8>> =
        (0..5000u32).map(|number| format!("entry {number} of many").into_bytes()).collect();
    let slices: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
    for keep in [1usize, 2, 7, 5000] {
        let is_kept: Vec<bool> = (0..entries.len()).map(|number| number % keep == 0).collect();
        let log = writer.log();
        let whole = log.pack(&slices).unwrap();
        let packed = log.repack(&whole, &slices, &is_kept).unwrap_or(whole);
        let mut commit = writer.begin().unwrap();
        let addresses = commit.append(&packed).unwrap();
        commit.finish(zkv_log::Room::Exact).unwrap();
        let kept: Vec<&Vec<u8>> = entries.iter().step_by(keep).collect();
        assert_eq!(addresses.len(), kept.len());
        for (address, entry) in addresses.iter().zip(kept) {
            assert_eq!(writer.log().view().read(*address).unwrap(), *entry);
        }
    }
}

/// The last segment's header leads into one that is freed, so that a reader of the log alone starts there.
#[test]
fn a_copy_has_the_freed_slots_that_a_reader_of_the_log_alone_needs() {
    let (_storage, mut writer) = new_log();
    for seed in 0..4 {
        fill(&mut writer, seed);
    }
    let last = writer.append(&[b"lives on"]).unwrap()[0];
    let freed = full_slots(&writer);
    free_and_sync(&mut writer, &freed);
    let view = writer.log().view();
    assert_eq!((freed.len(), view.segments().len()), (3, 1));
    for with_freed in [false, true] {
        let copies = MemoryStorage::new();
        let file = copies.open(Path::new(PATH), OpenMode::CreateNew).unwrap();
        match with_freed {
            false => view.copy_to(&*file).unwrap(),
            true => view.copy_with_freed_to(&*file).unwrap(),
        }
        drop(file);
        let copy = try_open(&copies, None).ok().and_then(|recovered| recovered.writer);
        let read = copy.and_then(|copy| copy.log().view().read(last).ok());
        assert_eq!(read.is_some_and(|read| read == b"lives on"), with_freed);
    }
    // Behind a base nobody needs them: the copy is as small as the log.
    writer.rebase().unwrap();
    let view = writer.log().view();
    let bytes_of = |copy: &dyn Fn(&dyn StorageFile) -> std::io::Result<()>| {
        let copies = MemoryStorage::new();
        let file = copies.open(Path::new(PATH), OpenMode::CreateNew).unwrap();
        copy(&*file).unwrap();
        file.len().unwrap()
    };
    let plain = bytes_of(&|file| view.copy_to(file));
    assert_eq!(bytes_of(&|file| view.copy_with_freed_to(file)), plain);
}
