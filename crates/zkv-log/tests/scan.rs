//! Scanning a segment: whole, and in parts that were split off.

mod common;

use std::path::Path;
use std::sync::Arc;

use zkv_io::{MemoryStorage, OpenMode, Storage};
use zkv_log::{
    Access, Cell, Location, LogOptions, LogView, LogWriter, OpenFile, SegmentParts, SegmentScan,
    create,
};

use common::{PATH, noise};

const SLOT: u32 = 1 << 20;

type Cells = Vec<(Location, usize, Vec<Vec<u8>>)>;

fn options() -> LogOptions {
    LogOptions { slot_bytes: SLOT, ..LogOptions::default() }
}

fn open(storage: &MemoryStorage) -> LogWriter {
    let storage = Arc::new(storage.clone());
    let file = OpenFile::open(storage, Path::new(PATH), Access::ReadWrite, options()).unwrap();
    file.recover(None).unwrap().writer.unwrap()
}

/// Commits of one entry and of many, short and longer than what is read at once.
fn filled() -> (MemoryStorage, LogWriter) {
    let storage = MemoryStorage::new();
    create(&storage, Path::new(PATH), &options()).unwrap();
    let mut writer = open(&storage);
    let lengths = [10, 300, 5000, 64 << 10, 150_000].into_iter().cycle().take(60);
    for (round, length) in (0u64..).zip(lengths) {
        let long = noise(round, length);
        writer.append(&[&long]).unwrap();
        let short: Vec<Vec<u8>> = (0..200).map(|n| noise(round << 32 | n, 40)).collect();
        writer.append(&short.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
        for number in 0..5 {
            writer.append(&[&noise(number, 3)]).unwrap();
        }
    }
    (storage, writer)
}

/// What is left of a scan, and how it ends.
fn cells_of(scan: &mut SegmentScan, cells: &mut Cells) -> Option<String> {
    let mut cell = Cell::default();
    loop {
        match scan.next_cell(&mut cell) {
            Ok(true) => {
                let entries = (0..cell.len()).map(|number| cell.entry(number).to_vec()).collect();
                cells.push((cell.location(), cell.block_count(), entries));
            }
            Ok(false) => return None,
            Err(error) => return Some(error.to_string()),
        }
    }
}

/// Scans each segment whole and in parts. Returns how many parts and errors there were.
fn compare(view: &LogView) -> (usize, usize) {
    let (mut part_count, mut error_count) = (0, 0);
    for segment in view.segments() {
        let (mut whole, mut parts) = (Cells::new(), Cells::new());
        let end = cells_of(&mut view.scan(segment.slot, None).unwrap(), &mut whole);
        let mut scan = view.scan(segment.slot, None).unwrap();
        let mut reader: Option<SegmentScan> = None;
        let mut end_of_parts = None;
        while end_of_parts.is_none() {
            let Some(part) = scan.split() else { break };
            part_count += 1;
            match &mut reader {
                Some(reader) => reader.go_on_with(part),
                None => reader = Some(part),
            }
            end_of_parts = reader.as_mut().and_then(|reader| cells_of(reader, &mut parts));
        }
        assert!(whole == parts, "{} cells and {}", whole.len(), parts.len());
        assert_eq!(end, end_of_parts);
        error_count += usize::from(end.is_some());
    }
    (part_count, error_count)
}

#[test]
fn parts_have_what_the_whole_has() {
    let (storage, mut writer) = filled();
    let segments = writer.log().view().segments().len();
    assert!(3 < segments);
    let (parts, errors) = compare(&writer.log().view());
    assert!(5 * segments < parts && errors == 0, "{parts} parts of {segments} segments");
    writer.close().unwrap();
    drop(writer);
    assert_eq!(compare(&open(&storage).log().view()), (parts, 0));
}

/// Scans so many random choices of parts of each segment, by one scan or in parts, and holds each against
/// the cells that a whole scan finds there. Returns how many cells were found, and how many scans failed.
fn compare_chosen(
    view: &LogView,
    whole: &[(u32, Cells)],
    seed: u64,
    rounds: u32,
) -> (usize, usize) {
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut found_count, mut failed_count) = (0, 0);
    for _ in 0..rounds {
        for (slot, whole) in whole {
            let mut bits = random.u64(..);
            for _ in 0..random.u32(..7) {
                bits &= random.u64(..);
            }
            let parts = SegmentParts::from_bits(bits);
            let wanted = whole.iter().filter(|cell| parts.contains(SegmentParts::of(cell.0, SLOT)));
            let (mut scan, mut found) = (view.scan(*slot, None).unwrap().only(parts), Cells::new());
            let mut end = None;
            if random.bool() {
                end = cells_of(&mut scan, &mut found);
            } else {
                while end.is_none()
                    && let Some(mut part) = scan.split()
                {
                    end = cells_of(&mut part, &mut found);
                }
            }
            found_count += found.len();
            failed_count += usize::from(end.is_some());
            match end {
                None => assert!(wanted.eq(&found), "{bits:x} of slot {slot}"),
                Some(_) => assert!(wanted.take(found.len()).eq(&found), "{bits:x} of slot {slot}"),
            }
        }
    }
    (found_count, failed_count)
}

fn whole_of(view: &LogView) -> Vec<(u32, Cells)> {
    let cells = view.segments().into_iter().map(|segment| {
        let mut cells = Cells::new();
        assert_eq!(cells_of(&mut view.scan(segment.slot, None).unwrap(), &mut cells), None);
        (segment.slot, cells)
    });
    cells.collect()
}

#[test]
fn chosen_parts_have_the_cells_that_start_there() {
    let (storage, mut writer) = filled();
    let view = writer.log().view();
    let whole = whole_of(&view);
    let (found, failed) = compare_chosen(&view, &whole, 1, 200);
    assert!(10_000 < found && failed == 0, "{found} cells found, {failed} scans failed");
    drop(view);
    writer.close().unwrap();
    drop(writer);
    let opened = open(&storage).log().view();
    assert_eq!(compare_chosen(&opened, &whole, 2, 50).1, 0);
}

#[test]
fn chosen_parts_are_found_beside_what_is_damaged_or_end_there_with_an_error() {
    let (storage, writer) = filled();
    let view = writer.log().view();
    let whole = whole_of(&view);
    let file = storage.open(Path::new(PATH), OpenMode::ReadWrite).unwrap();
    let (mut random, mut failed) = (fastrand::Rng::with_seed(1), 0);
    for round in 0..300 {
        // In a full segment, behind its header: among its blocks, or in the table of its seal.
        let within =
            if round % 2 == 0 { 256..900_000 } else { u64::from(SLOT) - 4096..u64::from(SLOT) };
        let offset = 4096 + u64::from(SLOT) + random.u64(within);
        let mut byte = [0];
        file.read_at(offset, &mut byte).unwrap();
        file.write_at(offset, &[byte[0] ^ 1 << random.u8(..8)]).unwrap();
        let count = compare_chosen(&view, &whole, round, 5).1;
        assert!(
            round % 2 == 0 || count == 0,
            "a wrong table is no damage to what stands in the segment"
        );
        failed += count;
        file.write_at(offset, &byte).unwrap();
    }
    assert!(50 < failed, "{failed} scans failed");
}

#[test]
fn a_cell_that_is_read_is_not_lost_with_what_is_passed_over_behind_it() {
    let storage = MemoryStorage::new();
    create(&storage, Path::new(PATH), &options()).unwrap();
    let mut writer = open(&storage);
    let long = noise(1, 2 * (SLOT / u64::BITS) as usize);
    for entry in [&noise(2, 20_000)[..], &long, b"behind"] {
        writer.append(&[entry]).unwrap();
    }
    let view = writer.log().view();
    let whole = whole_of(&view);
    let [first, passed_over, behind] = &whole[0].1[..] else { panic!("{} cells", whole.len()) };
    let [first_part, passed, last_part] =
        [first, passed_over, behind].map(|cell| SegmentParts::of(cell.0, SLOT));
    let parts = first_part.union(last_part);
    assert!(!parts.contains(passed), "the long entry starts in a part of its own");
    // The last byte of the long entry, whose block is looked at on the way to the part behind it.
    let bytes = common::bytes_of(&storage);
    let at = bytes.windows(50).position(|bytes| long.ends_with(bytes)).unwrap() as u64 + 49;
    let file = storage.open(Path::new(PATH), OpenMode::ReadWrite).unwrap();
    file.write_at(at, &[!long[long.len() - 1]]).unwrap();
    let mut found = Cells::new();
    let end = cells_of(&mut view.scan(whole[0].0, None).unwrap().only(parts), &mut found);
    assert!(end.is_some() && found == [first.clone()], "{} cells, {end:?}", found.len());
}

#[test]
fn parts_end_where_the_whole_does_at_what_is_damaged() {
    let (storage, writer) = filled();
    let view = writer.log().view();
    let file = storage.open(Path::new(PATH), OpenMode::ReadWrite).unwrap();
    let (mut random, mut failed) = (fastrand::Rng::with_seed(1), 0);
    for _ in 0..200 {
        // In a full segment, behind its header.
        let offset = 4096 + u64::from(SLOT) + random.u64(256..900_000);
        let mut byte = [0];
        file.read_at(offset, &mut byte).unwrap();
        file.write_at(offset, &[byte[0] ^ 1 << random.u8(..8)]).unwrap();
        failed += compare(&view).1;
        file.write_at(offset, &byte).unwrap();
    }
    assert!(150 < failed, "{failed} flips were met");
    assert_eq!(compare(&view).1, 0);
}
