//! The log alone: what is appended is found again, through every kind of reopening.

mod common;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use zkv_io::MemoryStorage;
use zkv_log::layout::COMMIT_BLOCK_BYTES;
use zkv_log::{Access, EntryAddress, LogError, LogOptions, LogWriter, OpenFile, Room, create};
use zkv_sim::{Act, Watched};

use common::{
    PATH, SLOT, all, bytes_of, new_log, noise, open, open_file, options, storage_of, try_open,
};

/// An entry that compresses a little, and that no other equals.
fn entry(number: u32) -> Vec<u8> {
    let mut state = u64::from(number);
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(0x9E37_79B9_7F4A_7C15);
        state.to_be_bytes()[0]
    });
    let noise: Vec<u8> = noise.take(number as usize % 90).collect();
    [format!("entry {number} ").into_bytes(), noise].concat()
}

fn append(writer: &mut LogWriter, numbers: std::ops::Range<u32>) -> Vec<EntryAddress> {
    let entries: Vec<Vec<u8>> = numbers.map(entry).collect();
    let slices: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
    writer.append(&slices).unwrap()
}

/// As [`all`], cell by cell.
fn all_by_cell(log: &zkv_log::Log) -> Vec<Vec<u8>> {
    let (view, mut cell) = (log.view(), zkv_log::Cell::default());
    let (mut found, mut locations) = (Vec::new(), Vec::new());
    for segment in view.segments() {
        let mut scan = view.scan(segment.slot, None).unwrap();
        while scan.next_cell(&mut cell).unwrap() {
            assert!(!locations.contains(&cell.location()), "a cell comes once");
            locations.push(cell.location());
            let mut of_location = Vec::new();
            view.visit(cell.location(), |entry| of_location.push(entry.to_vec())).unwrap();
            assert_eq!(of_location.len(), cell.len());
            found.extend((0..cell.len()).map(|number| cell.entry(number).to_vec()));
        }
    }
    found
}

fn expected(count: u32) -> Vec<Vec<u8>> {
    (0..count).map(entry).collect()
}

#[test]
fn entries_are_read_by_address_and_found_by_location() {
    let (_storage, mut writer) = new_log();
    let mut addresses = Vec::new();
    for commit in 0..40 {
        addresses.extend(append(&mut writer, commit * 100..commit * 100 + 100));
    }
    let view = writer.log().view();
    assert!(view.segments().len() > 2, "several segments");
    for (number, address) in (0..).zip(&addresses) {
        assert_eq!(view.read(*address).unwrap(), entry(number));
    }
    assert_eq!(all(&writer.log()), expected(4000));
}

#[test]
fn locations_find_the_newest_of_equal_keys_in_one_cell() {
    let (_storage, mut writer) = new_log();
    for version in [b"key=1", b"key=2", b"key=3"] {
        let packed = writer.log().pack(&[version]).unwrap();
        let mut commit = writer.begin().unwrap();
        let locations = commit.append_located(&packed).unwrap();
        commit.finish(Room::Ahead).unwrap();
        let find = |found: &[u8]| found.starts_with(b"key").then(|| found.to_vec());
        assert_eq!(writer.log().view().find(locations[0], find).unwrap().unwrap(), version);
    }
}

#[test]
fn a_log_is_the_same_after_reopening_from_nothing_and_from_a_checkpoint() {
    let (storage, mut writer) = new_log();
    append(&mut writer, 0..3000);
    let checkpoint = writer.checkpoint().unwrap();
    let watermark = writer.end();
    append(&mut writer, 3000..6000);
    append(&mut writer, 6000..6010);
    drop(writer);
    for checkpoint in [None, Some(&checkpoint[..])] {
        let opened = try_open(&storage, checkpoint).unwrap();
        assert_eq!(all(&opened.log), expected(6010));
        let from = checkpoint.map(|_| watermark);
        assert_eq!(opened.replay_from, from);
    }
    let mut writer = open(&storage);
    append(&mut writer, 6010..6020);
    writer.close().unwrap();
    drop(writer);
    let opened = open_file(&storage, Access::ReadOnly).unwrap().recover(Some(&checkpoint)).unwrap();
    assert_eq!(all(&opened.log), expected(6020));
}

/// Where the log ends, in a file of one segment.
fn end_in_file(writer: &LogWriter) -> usize {
    4096 + writer.end().offset as usize
}

#[test]
fn a_scan_by_cells_finds_what_a_scan_by_blocks_does() {
    let (_storage, mut writer) = new_log();
    let mut rng = fastrand::Rng::with_seed(1);
    let mut count = 0;
    for commit in 0..300 {
        let entries = if commit % 50 == 49 { 400 } else { 1 + commit % 4 };
        append(&mut writer, count..count + entries);
        count += entries;
        if commit % 70 == 69 {
            // A block that is longer than the scan reads ahead.
            let mut long = vec![0; 40 << 10];
            rng.fill(&mut long);
            writer.append(&[&long, b"short"]).unwrap();
        }
        if commit % 30 == 0 {
            let log = writer.log();
            assert_eq!(all_by_cell(&log), all(&log));
        }
    }
    let log = writer.log();
    assert!(log.view().segments().len() > 2);
    assert_eq!(all_by_cell(&log), all(&log));
}

#[test]
fn opening_and_closing_again_changes_nothing() {
    let (storage, mut writer) = new_log();
    append(&mut writer, 0..10);
    writer.close().unwrap();
    drop(writer);
    let before = bytes_of(&storage);
    assert_eq!(before.len(), 8192, "the file's header and a page");
    open(&storage).close().unwrap();
    assert_eq!(bytes_of(&storage), before);
}

#[test]
fn a_log_cut_anywhere_opens_with_whole_commits_only() {
    let (storage, mut writer) = new_log();
    let mut ends = vec![end_in_file(&writer)];
    for commit in 0..8 {
        append(&mut writer, commit * 5..commit * 5 + 5);
        ends.push(end_in_file(&writer));
    }
    drop(writer);
    let bytes = bytes_of(&storage);
    for cut in ends[0]..=ends[8] {
        let whole = u32::try_from(ends.iter().filter(|end| **end <= cut).count()).unwrap() - 1;
        let storage = storage_of(&bytes[..cut]);
        let mut writer = open(&storage);
        assert_eq!(all(&writer.log()), expected(whole * 5), "cut at {cut}");
        append(&mut writer, whole * 5..whole * 5 + 3);
        drop(writer);
        assert_eq!(all(&open(&storage).log()), expected(whole * 5 + 3), "cut at {cut}");
    }
}

#[test]
fn a_flip_below_a_durable_place_is_damage_and_one_above_is_a_torn_tail() {
    let (storage, mut writer) = new_log();
    append(&mut writer, 0..5);
    writer.log().sync(writer.end()).unwrap();
    let durable = end_in_file(&writer);
    append(&mut writer, 5..10);
    append(&mut writer, 10..15);
    let end = end_in_file(&writer);
    drop(writer);
    let bytes = bytes_of(&storage);
    for at in 4096 + 256..end {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        match try_open(&storage_of(&flipped), None) {
            Err(LogError::Corrupt { .. }) => assert!(at < durable, "byte {at}"),
            Ok(opened) => {
                // The proof itself was hit, or the last commit: nothing says that more was durable.
                assert!(at >= durable, "byte {at}");
                let found = all(&opened.log);
                assert!(found == expected(5) || found == expected(10), "byte {at}");
            }
            Err(error) => panic!("byte {at}: {error}"),
        }
    }
}

#[test]
fn a_flip_in_the_last_closed_segment_is_damage() {
    let (storage, mut writer) = new_log();
    append(&mut writer, 0..50);
    writer.close().unwrap();
    let end_mark = end_in_file(&writer) - COMMIT_BLOCK_BYTES as usize;
    drop(writer);
    let bytes = bytes_of(&storage);
    for at in 4096 + 256..end_mark {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        let opened = try_open(&storage_of(&flipped), None);
        assert!(matches!(opened, Err(LogError::Corrupt { .. })), "byte {at}");
    }
}

#[test]
fn either_header_may_be_lost() {
    let (storage, mut writer) = new_log();
    append(&mut writer, 0..50);
    drop(writer);
    let bytes = bytes_of(&storage);
    for lost in [0..4096, 4096..4096 + 256] {
        let mut damaged = bytes.clone();
        damaged[lost].fill(0xFF);
        assert_eq!(all(&open(&storage_of(&damaged)).log()), expected(50));
    }
}

#[test]
fn the_header_of_any_segment_may_be_lost() {
    let (storage, mut writer) = new_log();
    append(&mut writer, 0..6000);
    assert!(writer.log().view().segments().len() >= 4);
    drop(writer);
    let bytes = bytes_of(&storage);
    for start in (4096..bytes.len()).step_by(SLOT as usize) {
        let mut damaged = bytes.clone();
        damaged[start..start + 256].fill(0);
        assert_eq!(all(&open(&storage_of(&damaged)).log()), expected(6000), "at {start}");
    }
}

#[test]
fn an_unfinished_commit_leaves_nothing_behind() {
    let (storage, mut writer) = new_log();
    append(&mut writer, 0..100);
    for _ in 0..3 {
        let entries: Vec<Vec<u8>> = (7000..12_000).map(entry).collect();
        let slices: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
        let packed = writer.log().pack(&slices).unwrap();
        let mut commit = writer.begin().unwrap();
        commit.append(&packed).unwrap();
        drop(commit);
        assert_eq!(all(&writer.log()), expected(100));
    }
    // What a crash here would find.
    assert_eq!(all(&open(&storage_of(&bytes_of(&storage))).log()), expected(100));
    append(&mut writer, 100..6000);
    assert_eq!(all(&writer.log()), expected(6000));
    drop(writer);
    assert_eq!(all(&open(&storage).log()), expected(6000));
}

#[test]
fn a_commit_of_which_a_part_could_not_be_appended_is_not_finished() {
    let entries: Vec<Vec<u8>> = (0..50).map(|seed| noise(seed, 3000)).collect();
    let slices: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
    let mut failures = 0;
    for failing in 0.. {
        let storage = MemoryStorage::new();
        let writes_left = Arc::new(AtomicI64::new(i64::MAX));
        let left = Arc::clone(&writes_left);
        let full_disk = Watched::new(Arc::new(storage.clone()), move |act, _| {
            let is_refused = act == Act::Write && left.fetch_sub(1, Ordering::SeqCst) == 0;
            if is_refused { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
        });
        let options = LogOptions { write_buffer_bytes: 4096, ..options() };
        create(&full_disk, Path::new(PATH), &options).unwrap();
        let shared = Arc::new(full_disk);
        let file = OpenFile::open(shared, Path::new(PATH), Access::ReadWrite, options).unwrap();
        let mut writer = file.recover(None).unwrap().writer.unwrap();
        append(&mut writer, 0..3);
        let packed = writer.log().pack(&slices).unwrap();
        writes_left.store(failing, Ordering::SeqCst);
        let mut commit = writer.begin().unwrap();
        if commit.append(&packed).is_ok() {
            break;
        }
        failures += 1;
        // The disk has room again.
        assert!(commit.append(&packed).is_err(), "write {failing}");
        assert!(commit.finish(Room::Exact).is_err(), "write {failing}");
        assert_eq!(all(&writer.log()), expected(3), "write {failing}");
        append(&mut writer, 3..5);
        drop((writer, file));
        assert_eq!(all(&open(&storage).log()), expected(5), "write {failing}");
    }
    assert!(failures > 20, "{failures}");
}

#[test]
fn freed_slots_are_used_again_once_nobody_reads_them() {
    let (storage, mut writer) = new_log();
    append(&mut writer, 0..6000);
    let reader = writer.log().view();
    let freed: Vec<u32> = reader.segments().iter().take(2).map(|segment| segment.slot).collect();
    let mut kept = reader.scan(freed[0], None).unwrap();
    let mut cell = zkv_log::Cell::default();
    assert!(reader.scan(freed[0], None).unwrap().next_cell(&mut cell).unwrap());
    let name = reader.cell_id(cell.location()).unwrap();
    writer.free(&freed).unwrap();
    writer.log().sync(writer.end()).unwrap();
    let full = bytes_of(&storage).len();
    append(&mut writer, 6000..7500);
    assert!(bytes_of(&storage).len() > full, "a view holds the slots");
    let mut count = 0;
    while let Some(block) = kept.next_block().unwrap() {
        count += block.entries().unwrap().count();
    }
    assert!(count > 1000);
    drop((reader, kept));
    append(&mut writer, 7500..9000);
    let slots: Vec<u32> = writer.log().view().segments().iter().map(|info| info.slot).collect();
    assert!(slots.contains(&freed[0]), "{slots:?}");
    let name_again = writer.log().view().cell_id(cell.location()).unwrap();
    assert_ne!(name_again, name, "the same place, and other entries");
    let found = all(&writer.log());
    assert_eq!(found[found.len() - 3000..], expected(9000)[6000..]);
    drop(writer);
    assert_eq!(all(&open(&storage).log()), found);
}

#[test]
fn a_roll_call_leads_past_freed_segments() {
    let (storage, mut writer) = new_log();
    for round in 0..6 {
        append(&mut writer, round * 3000..round * 3000 + 3000);
        let oldest = writer.log().view().segments()[0].slot;
        writer.free(&[oldest]).unwrap();
        writer.checkpoint().unwrap();
    }
    let found = all(&writer.log());
    drop(writer);
    assert_eq!(all(&open(&storage).log()), found);
}

#[test]
fn small_synced_commits_seldom_change_the_files_length() {
    let (storage, mut writer) = new_log();
    let mut lengths = Vec::new();
    for number in 0..300 {
        let packed = writer.log().pack(&[&entry(number)]).unwrap();
        let mut commit = writer.begin().unwrap();
        commit.append(&packed).unwrap();
        let committed = commit.finish(Room::Ahead).unwrap();
        writer.log().sync(committed.end).unwrap();
        lengths.push(bytes_of(&storage).len());
    }
    lengths.dedup();
    assert!(lengths.len() < 6, "{lengths:?}");
    assert_eq!(all(&writer.log()), expected(300));
    drop(writer);
    assert_eq!(all(&open(&storage).log()), expected(300));
}

#[test]
fn entries_up_to_the_limit_are_kept_and_longer_ones_refused() {
    let (storage, mut writer) = new_log();
    let longest = zkv_log::layout::entry_bytes_max(SLOT);
    let noise: Vec<u8> = (0..longest as u64)
        .map(|at| at.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()[0])
        .collect();
    let address = writer.append(&[&noise]).unwrap()[0];
    assert_eq!(writer.log().view().read(address).unwrap(), noise);
    let error = writer.append(&[&vec![0; longest + 1]]).unwrap_err();
    assert!(matches!(error, LogError::EntryTooLarge { .. }));
    drop(writer);
    assert_eq!(open(&storage).log().view().read(address).unwrap(), noise);
}

#[test]
fn a_second_writer_is_locked_out() {
    let (storage, writer) = new_log();
    let second = try_open(&storage, None);
    assert!(matches!(second, Err(LogError::Locked)));
    drop(writer);
    let reader = open_file(&storage, Access::ReadOnly).unwrap().recover(None).unwrap();
    assert!(open_file(&storage, Access::ReadOnly).unwrap().recover(None).is_ok());
    assert!(matches!(try_open(&storage, None), Err(LogError::Locked)));
    assert!(reader.writer.is_none());
}

#[test]
fn a_file_that_is_open_has_one_log_to_write_at_a_time() {
    let (storage, writer) = new_log();
    drop(writer);
    let file = open_file(&storage, Access::ReadWrite).unwrap();
    let mut writer = file.recover(None).unwrap().writer.unwrap();
    append(&mut writer, 0..3);
    for file in [&file, &file.clone()] {
        assert!(matches!(file.recover(None), Err(LogError::Locked)));
    }
    // Whoever reads counts on what the view has: another writer would fill the slots that it holds.
    let view = writer.view();
    drop(writer);
    assert!(matches!(file.recover(None), Err(LogError::Locked)));
    drop(view);
    let mut writer = file.recover(None).unwrap().writer.unwrap();
    append(&mut writer, 3..5);
    writer.close().unwrap();
    drop((file, writer));
    assert_eq!(all(&open(&storage).log()), expected(5));
    let file = open_file(&storage, Access::ReadOnly).unwrap();
    let readers = [file.recover(None).unwrap().log, file.recover(None).unwrap().log];
    assert!(readers.iter().all(|log| all(log) == expected(5)));
}

#[test]
fn blocks_fit_the_smallest_slots_however_large_they_may_be() {
    let storage = Arc::new(MemoryStorage::new());
    let options = LogOptions { block_bytes: 65_536, ..options() };
    create(&*storage, Path::new(PATH), &options).unwrap();
    let file = OpenFile::open(storage, Path::new(PATH), Access::ReadWrite, options).unwrap();
    let mut writer = file.recover(None).unwrap().writer.unwrap();
    let entries: Vec<Vec<u8>> = (0..2000).map(|seed| noise(seed, 100)).collect();
    let slices: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
    writer.append(&slices).unwrap();
    assert_eq!(all(&writer.log()), entries);
}
