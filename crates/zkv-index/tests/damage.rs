//! Damaged and hostile files: the right answer, an error, or an earlier checkpoint; never a key that
//! is missing in silence.

mod support;

use std::fs::OpenOptions;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use support::{
    ALWAYS_APPEND, FaultStorage, Model, Places, STORE_ID, check, expected, find, first_run, hash,
    meta, open, path, places_of, read, run_of, sorted, storage_with,
};
use zkv_index::layout::{BUCKET, HEADER, HEADER_BYTES, Row, SECTION, SECTION_BYTES_MAX, TABLE};
use zkv_index::{Checkpoint, IndexError, IndexFinding, Location, verify, write_first};
use zkv_io::{FileStorage, MemoryStorage, OpenMode, Storage, crc32c};
use zkv_sim::{Act, Watched};

const KEYS: u64 = 80;
/// Sections of 64 bytes need no padding, so that every byte of the file has a meaning.
const SECTION_BYTES: usize = 64;

/// A file of three checkpoints, and what each of them holds.
struct Sample {
    bytes: Vec<u8>,
    models: Vec<Model>,
    places: Vec<Places>,
    /// Where each checkpoint ends.
    ends: Vec<usize>,
}

fn section(number: usize) -> [u8; SECTION_BYTES] {
    [u8::try_from(number).unwrap() + 1; SECTION_BYTES]
}

/// Its salts are always the same: what is found does not depend on chance.
fn sample() -> Sample {
    let (storage, mut model) = (FaultStorage::default(), Model::new());
    let run = first_run(&mut model, KEYS);
    let first = &[(1, &section(0)[..])];
    let mut checkpoint = write_first(&storage, path(), &run, &meta(&[0], first)).unwrap();
    let (mut models, mut ends) = (vec![model.clone()], vec![checkpoint.file_bytes()]);
    for number in 1..3 {
        let writes = (0..20).map(|key| (key * 4, Location::new(key * u64::from(number) % 5)));
        let run = run_of(&mut model, writes);
        let section = section(usize::from(number));
        let sections = &[(1, &section[..])];
        let mark = [number];
        let meta = meta(&mark, sections);
        checkpoint =
            checkpoint.write_next_with(&storage, path(), &run, &meta, &ALWAYS_APPEND).unwrap();
        models.push(model.clone());
        ends.push(checkpoint.file_bytes());
    }
    let places = models.iter().map(places_of).collect();
    let ends = ends.into_iter().map(|end| usize::try_from(end).unwrap()).collect();
    Sample { bytes: read(&storage, path()), models, places, ends }
}

/// All that is wrong with a file of these bytes.
fn verified(bytes: &[u8]) -> Vec<IndexFinding> {
    let storage: Arc<dyn Storage> = Arc::new(storage_with(bytes));
    let mut findings = Vec::new();
    let verified = verify(&storage, path(), STORE_ID, &mut |found| findings.push(found)).unwrap();
    let is_whole = verified.checkpoint.is_some() && verified.is_whole;
    assert_eq!(is_whole, findings.iter().all(|found| !found.is_damage), "{findings:?}");
    findings
}

/// Which checkpoint this is, by its watermark; everything that it answers is right.
fn check_answers(sample: &Sample, checkpoint: &Checkpoint, what: &str) -> usize {
    let number = usize::from(checkpoint.watermark()[0]);
    assert_eq!(checkpoint.number(), number as u64, "{what}");
    for hash in (0..KEYS + 20).map(hash) {
        match find(checkpoint, hash) {
            Ok(found) => {
                assert_eq!(sorted(&found), expected(&sample.places[number], hash), "{what}");
            }
            Err(error) => assert!(matches!(error, IndexError::Corrupt { .. }), "{what}: {error}"),
        }
    }
    match checkpoint.section(1) {
        Ok(found) => assert_eq!(found.unwrap(), section(number), "{what}"),
        Err(error) => assert!(matches!(error, IndexError::Corrupt { .. }), "{what}: {error}"),
    }
    number
}

#[test]
fn every_truncation_opens_at_an_earlier_checkpoint_or_fails() {
    let sample = sample();
    for length in 0..sample.bytes.len() {
        match open(&storage_with(&sample.bytes[..length])) {
            Ok(checkpoint) => {
                let number = check_answers(&sample, &checkpoint, &format!("cut to {length}"));
                assert!(sample.ends[number] <= length);
                checkpoint.verify().unwrap();
            }
            Err(error) => assert!(matches!(error, IndexError::Corrupt { .. }), "{error}"),
        }
    }
}

#[test]
fn every_flipped_bit_is_harmless_or_found() {
    let sample = sample();
    let sound = verified(&sample.bytes);
    assert!(sound.is_empty(), "{sound:?}");
    let mut torn = Vec::new();
    for bit in 0..sample.bytes.len() * 8 {
        let mut bytes = sample.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let found = verified(&bytes);
        assert!(!found.is_empty(), "bit {bit}");
        if found.iter().all(|found| !found.is_damage) {
            torn.push(bit);
        }
        match open(&storage_with(&bytes)) {
            Ok(checkpoint) => drop(check_answers(&sample, &checkpoint, &format!("bit {bit}"))),
            Err(error) => assert!(matches!(error, IndexError::Corrupt { .. }), "{bit}: {error}"),
        }
    }
    // The only bit that a header has in its second sector: without it, a crash may have lost that.
    assert_eq!(torn, [1536 * 8 + 6]);
}

#[test]
fn damage_in_several_places_is_reported_at_each() {
    let sample = sample();
    let mut bytes = sample.bytes.clone();
    // Two buckets of the base, the section of the first checkpoint, a bucket of the third.
    let places = [HEADER_BYTES, HEADER_BYTES + 128, sample.ends[0] - 64, sample.ends[1] + 512];
    for place in places {
        bytes[place + 5] ^= 1;
    }
    let found: Vec<u64> = verified(&bytes).iter().map(|found| found.offset).collect();
    assert_eq!(found, places.map(|place| place as u64));
}

#[test]
fn zeros_behind_sections_are_held_against_zeros() {
    let (storage, mut model) = (MemoryStorage::new(), Model::new());
    let run = first_run(&mut model, KEYS);
    let sections = &[(1, &[7; 10][..])];
    write_first(&storage, path(), &run, &meta(&[0], sections)).unwrap();
    let bytes = read(&storage, path());
    assert!(verified(&bytes).is_empty());
    for at in bytes.len() - 54..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] = 0x80;
        assert_eq!(verified(&changed)[0].offset, at as u64);
    }
}

#[test]
fn a_checkpoint_that_was_never_completed_is_told_from_a_damaged_header() {
    let sample = sample();
    let (start, end) = (sample.ends[1], sample.bytes.len());
    // As a crash leaves it: the body is there, and no header.
    let mut unfinished = sample.bytes.clone();
    unfinished[start..start + HEADER_BYTES].fill(0);
    let found = verified(&unfinished);
    assert_eq!((found.len(), found[0].is_damage), (1, false), "{found:?}");
    let mut damaged = sample.bytes.clone();
    damaged[start + 300] ^= 0x20;
    let found = verified(&damaged);
    assert_eq!((found.len(), found[0].is_damage), (1, true), "{found:?}");
    assert_eq!(found[0].offset, start as u64);
    // A file that has grown over a header's place may show there what the disk held.
    let mut noise = unfinished.clone();
    noise[start..start + HEADER_BYTES].fill(0xC3);
    let found = verified(&noise);
    assert_eq!((found.len(), found[0].is_damage), (1, false), "{found:?}");
    assert!(verified(&sample.bytes[..end - 1]).iter().any(|found| found.offset == start as u64));
}

#[test]
fn every_zeroed_or_garbled_bucket_is_found() {
    let sample = sample();
    for at in (HEADER_BYTES..sample.bytes.len()).step_by(64) {
        for filler in [0, 0xFF, 0x5A] {
            let mut bytes = sample.bytes.clone();
            bytes[at..at + 64].fill(filler);
            // Some sectors of a header are zeros.
            let is_changed = bytes != sample.bytes;
            assert_eq!(is_changed, !verified(&bytes).is_empty(), "{filler} at {at}");
            if let Ok(checkpoint) = open(&storage_with(&bytes)) {
                check_answers(&sample, &checkpoint, &format!("{filler} at {at}"));
            }
        }
    }
}

#[test]
fn no_zeroed_bucket_says_that_a_key_is_missing() {
    const KEYS: u64 = 1_000_000;
    let (storage, mut model) = (FaultStorage::default(), Model::new());
    let run = first_run(&mut model, KEYS);
    let checkpoint = write_first(&storage, path(), &run, &meta(b"", &[])).unwrap();
    // Among so many buckets, each check is that of one.
    let buckets_bytes = usize::try_from(checkpoint.file_bytes()).unwrap() - HEADER_BYTES;
    assert!(buckets_bytes / 64 > 1 << 16);
    let file = storage.open(path(), OpenMode::ReadWrite).unwrap();
    file.write_at(HEADER_BYTES as u64, &vec![0; buckets_bytes]).unwrap();
    for key in 0..KEYS {
        let found = find(&checkpoint, hash(key));
        assert!(matches!(found, Err(IndexError::Corrupt { .. })), "{key}: {found:?}");
    }
}

/// Where a field lies in the file's first header; `index` counts tables or sections.
fn field(rows: &[Row], name: &str, index: usize) -> (usize, usize) {
    let &(_, offset, size) = rows.iter().find(|row| row.0 == name).unwrap();
    let start = match rows {
        TABLE => field(HEADER, "tables", 0).0,
        SECTION => field(HEADER, "sections", 0).0,
        _ => 0,
    };
    let record: usize = rows.iter().map(|row| row.2).sum();
    (start + offset + if start == 0 { 0 } else { index * record }, size)
}

/// Makes the checksum of the header at `offset` right.
fn mend_header(bytes: &mut [u8], offset: usize) {
    let header = &mut bytes[offset..offset + HEADER_BYTES];
    header[12..16].fill(0);
    let check = crc32c(0, header);
    header[12..16].copy_from_slice(&check.to_le_bytes());
}

/// Opens `bytes` and does everything that reads: it may fail, but neither panic nor hang.
fn read_everything(bytes: &[u8]) -> Result<(), IndexError> {
    let checkpoint = open(&storage_with(bytes))?;
    for key in 0..20 {
        drop(find(&checkpoint, hash(key)));
    }
    drop(checkpoint.section(1));
    drop(checkpoint.verify());
    let mut model = Model::new();
    let run = first_run(&mut model, 3);
    let storage = storage_with(bytes);
    drop(open(&storage)?.write_next(&storage, path(), &run, &meta(b"", &[])));
    let copy = MemoryStorage::new().open(path(), OpenMode::CreateNew)?;
    drop(checkpoint.copy_to(&*copy));
    checkpoint.verify()
}

#[test]
fn hostile_headers_are_refused_or_harmless() {
    let Sample { bytes, ends, .. } = sample();
    // A header alone, and the last of three, which has three tables.
    for (bytes, start) in [(&bytes[..ends[0]], 0), (&bytes[..], ends[1])] {
        let with = |change: &dyn Fn(&mut [u8])| {
            let mut bytes = bytes.to_vec();
            change(&mut bytes[start..]);
            mend_header(&mut bytes, start);
            drop(read_everything(&bytes));
        };
        for bit in 16 * 8..HEADER_BYTES * 8 {
            with(&|header| header[bit / 8] ^= 1 << (bit % 8));
        }
        for (rows, indexes) in [(HEADER, 0..1), (TABLE, 0..5), (SECTION, 0..8)] {
            for (&(name, ..), index) in
                rows.iter().flat_map(|row| indexes.clone().map(move |index| (row, index)))
            {
                let (offset, size) = field(rows, name, index);
                for filler in [0, 1, 0x7F, 0x80, 0xFF] {
                    with(&|header| header[offset..offset + size].fill(filler));
                }
            }
        }
    }
}

#[test]
fn lengths_that_cannot_be_are_refused_when_opening() {
    let bytes = sample().bytes;
    let cases: [(&[Row], &str, u64); 23] = [
        (HEADER, "offset", 64),
        (HEADER, "body_end", 448),
        (HEADER, "body_end", 513),
        (HEADER, "body_end", 1 << 62),
        (HEADER, "sections_offset", u64::MAX),
        (HEADER, "table_count", 0),
        (HEADER, "table_count", 6),
        (HEADER, "section_count", 9),
        (HEADER, "watermark_bytes", 129),
        (SECTION, "length", u64::MAX),
        (SECTION, "length", 1 << 40),
        (TABLE, "bucket_count", 0x0FFF_FFFF),
        (TABLE, "bucket_count", 0xFFFF_FFFF),
        (TABLE, "entry_count", 1 << 20),
        (TABLE, "spill_count", 4096),
        (TABLE, "displacement_max", 4096),
        // Too few to tell the prefix.
        (TABLE, "prefix_bits", 20),
        (TABLE, "prefix_bits", 37),
        (TABLE, "location_bits", 0),
        (TABLE, "location_bits", 48),
        // In a base.
        (TABLE, "kill_bits", 1),
        (TABLE, "kill_bits", 2),
        (TABLE, "first_bucket", 0xFFFF_FFF0),
    ];
    for (rows, name, value) in cases {
        let mut bytes = bytes.clone();
        let (offset, size) = field(rows, name, 0);
        bytes[offset..offset + size].copy_from_slice(&value.to_le_bytes()[..size]);
        mend_header(&mut bytes, 0);
        let error = open(&storage_with(&bytes)).unwrap_err();
        assert!(matches!(error, IndexError::Corrupt { offset: 0, .. }), "{name} {value}: {error}");
    }
}

#[test]
fn tables_that_overlap_are_refused() {
    let sample = sample();
    let start = sample.ends[1];
    let with = |change: &dyn Fn(&mut [u8])| {
        let mut bytes = sample.bytes.clone();
        change(&mut bytes[start..]);
        mend_header(&mut bytes, start);
        bytes
    };
    // The second of three tables, where the first one is.
    let (to, size) = field(TABLE, "first_bucket", 1);
    let (from, _) = field(TABLE, "first_bucket", 0);
    let bytes = with(&|header| header.copy_within(from..from + size, to));
    let error = open(&storage_with(&bytes)).unwrap_err();
    assert!(matches!(error, IndexError::Corrupt { offset, .. } if offset == start as u64));
    assert!(error.to_string().contains("two tables overlap"), "{error}");
    // Another one than an earlier checkpoint has there.
    let (salt, _) = field(TABLE, "salt", 1);
    let bytes = with(&|header| header[salt] ^= 1);
    let [finding] = verified(&bytes)[..] else { panic!("{:?}", verified(&bytes)) };
    assert_eq!(finding.what, "a table overlaps an earlier one");
}

#[test]
fn a_section_that_is_longer_than_any_is_refused_however_long_the_file_is() {
    let mut bytes = sample().bytes;
    bytes.truncate(HEADER_BYTES);
    let mut put = |rows, name, value: u64| {
        let (offset, size) = field(rows, name, 0);
        bytes[offset..offset + size].copy_from_slice(&value.to_le_bytes()[..size]);
    };
    // A sparse file may be as long as this without taking any room.
    let file_bytes = 1 << 40;
    put(HEADER, "body_end", file_bytes);
    put(SECTION, "length", SECTION_BYTES_MAX + 1);
    mend_header(&mut bytes, 0);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    std::fs::write(&path, &bytes).unwrap();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(file_bytes).unwrap();
    let error = Checkpoint::open(&FileStorage, &path, STORE_ID, false).unwrap_err();
    assert!(matches!(error, IndexError::Corrupt { offset: 0, .. }), "{error}");
}

#[test]
fn verifying_finds_a_wrong_count() {
    let mut bytes = sample().bytes;
    let end = sample().ends[0];
    bytes.truncate(end);
    let (offset, _) = field(TABLE, "entry_count", 0);
    bytes[offset] -= 1;
    mend_header(&mut bytes, 0);
    let error = open(&storage_with(&bytes)).unwrap().verify().unwrap_err();
    assert!(error.to_string().contains("more or fewer entries"), "{error}");
}

#[test]
fn verifying_finds_a_header_that_has_changed_since() {
    let sample = sample();
    let storage = storage_with(&sample.bytes);
    let checkpoint = open(&storage).unwrap();
    let file = storage.open(path(), OpenMode::ReadWrite).unwrap();
    file.write_at(sample.ends[1] as u64 + 83, &[1]).unwrap();
    let error = checkpoint.verify().unwrap_err();
    assert!(error.to_string().contains("a header has changed"), "{error}");
}

#[test]
fn verifying_fails_where_a_read_has_no_memory_and_finds_nothing() {
    let before = Arc::new(AtomicU32::new(u32::MAX));
    let left = Arc::clone(&before);
    let storage = Watched::new(Arc::new(storage_with(&sample().bytes)), move |act, _| {
        let is_read = matches!(act, Act::Read { .. });
        match is_read && left.fetch_sub(1, Ordering::Relaxed) == 0 {
            true => Err(io::ErrorKind::OutOfMemory.into()),
            false => Ok(()),
        }
    });
    let storage: Arc<dyn Storage> = Arc::new(storage);
    let mut number = 0;
    loop {
        before.store(number, Ordering::Relaxed);
        let verified = verify(&storage, path(), STORE_ID, &mut |found| panic!("{found:?}"));
        if before.load(Ordering::Relaxed) <= number {
            break;
        }
        assert!(matches!(verified, Err(IndexError::Io(_))), "read {number}");
        number += 1;
    }
    assert!(number > 5, "{number}");
}

#[test]
fn checkpoints_out_of_order_are_refused() {
    let mut sample = sample();
    let start = sample.ends[0];
    sample.bytes[start + field(HEADER, "number", 0).0] += 1;
    mend_header(&mut sample.bytes, start);
    let error = open(&storage_with(&sample.bytes)).unwrap_err();
    assert!(error.to_string().contains("numbered in order"), "{error}");
}

#[test]
fn hostile_buckets_are_harmless() {
    let bytes = sample().bytes;
    let number = |bytes: &[u8], (offset, size): (usize, usize)| {
        let mut number = [0; 8];
        number[..size].copy_from_slice(&bytes[offset..offset + size]);
        u64::from_le_bytes(number)
    };
    let salt = u32::try_from(number(&bytes, field(TABLE, "salt", 0))).unwrap();
    let first = usize::try_from(number(&bytes, field(TABLE, "first_bucket", 0))).unwrap() * 64;
    let buckets = u32::try_from(number(&bytes, field(TABLE, "bucket_count", 0))).unwrap();
    let entries = field(BUCKET, "entries", 0).1;
    for bucket in 0..buckets {
        for bit in 0..entries * 8 {
            let mut bytes = bytes.clone();
            let at = first + bucket as usize * 64;
            bytes[at + bit / 8] ^= 1 << (bit % 8);
            let crc = crc32c(salt ^ bucket, &bytes[at..at + entries]);
            // The lower half, and the upper one turned by 13.
            let check = (crc & 0xFFFF) ^ (crc >> 16 << 13 | crc >> 19) & 0xFFFF;
            bytes[at + entries..at + 64].copy_from_slice(&check.to_le_bytes()[..2]);
            assert!(read_everything(&bytes).is_err(), "verify sees what lookups cannot");
        }
    }
}

#[test]
fn foreign_and_newer_files_are_named() {
    let bytes = sample().bytes;
    let foreign = Checkpoint::open(&storage_with(&bytes), path(), [0; 16], false).unwrap_err();
    assert!(matches!(foreign, IndexError::Foreign { found: STORE_ID, .. }), "{foreign}");

    let mut newer = bytes.clone();
    newer[field(HEADER, "version", 0).0] = 3;
    mend_header(&mut newer, 0);
    let error = open(&storage_with(&newer)).unwrap_err();
    let named = matches!(error, IndexError::UnsupportedVersion { found: 3, supported: 2 });
    assert!(named, "{error}");

    // A flipped bit is damage, not a newer version.
    newer[field(HEADER, "version", 0).0] = 4;
    assert!(matches!(open(&storage_with(&newer)), Err(IndexError::Corrupt { .. })));

    let mut featured = bytes.clone();
    featured[field(HEADER, "required_features", 0).0] = 4;
    mend_header(&mut featured, 0);
    let error = open(&storage_with(&featured)).unwrap_err();
    assert!(matches!(error, IndexError::UnsupportedFeatures { found: 4, .. }), "{error}");
}

#[test]
fn a_newer_checkpoint_behind_known_ones_is_not_overlooked() {
    let sample = sample();
    let (mut bytes, offset) = (sample.bytes, sample.ends[1]);
    bytes[offset + 8] = 3;
    mend_header(&mut bytes, offset);
    let error = open(&storage_with(&bytes)).unwrap_err();
    assert!(matches!(error, IndexError::UnsupportedVersion { found: 3, .. }), "{error}");
}

#[test]
fn garbage_behind_the_last_checkpoint_is_cut_off_by_the_next() {
    let sample = sample();
    let mut bytes = sample.bytes.clone();
    bytes.extend([0xA5; 5000]);
    let storage = storage_with(&bytes);
    let checkpoint = open(&storage).unwrap();
    let mut model = sample.models[2].clone();
    let run = run_of(&mut model, [(1, Location::new(40_000))]);
    let next = checkpoint
        .write_next_with(&storage, path(), &run, &meta(b"", &[]), &ALWAYS_APPEND)
        .unwrap();
    assert_eq!(read(&storage, path()).len() as u64, next.file_bytes());
    assert!(next.file_bytes() > sample.bytes.len() as u64);
    check(&open(&storage).unwrap(), &model, (0..KEYS).map(hash));
}
