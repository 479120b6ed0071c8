//! What `verify` says of stores: sound, damaged, at odds with their index, half readable.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use zkv::{
    ErrorKind, Finding, IndexState, Options, Severity, Store, StoreFile, VerifyReport, verify,
};
use zkv_index::{Change, Checkpoint, CheckpointMeta, Run, write_first};
use zkv_io::{MemoryStorage, Storage};
use zkv_log::{Access, LogOptions, LogWriter, OpenFile};
use zkv_record::{Head, Kind, PieceKey, Record};

use common::bad_sectors::{BadSectors, SECTOR};
use common::faulty::{INDEX, PATH, killed, noise, options, read_file, write_file};
use common::sample::{Sample, sample, sample_options, text};
use common::{index_path, place};

fn verified(memory: &MemoryStorage) -> VerifyReport {
    verify(PATH, options(memory), |_| {}).unwrap()
}

#[track_caller]
fn check_sound(report: &VerifyReport, index: IndexState) {
    assert_eq!(report.findings, [], "{report:?}");
    assert!(report.is_sound());
    assert_eq!((report.worst, report.findings_left_out), (None, 0));
    assert_eq!(report.index, index);
}

fn severities(report: &VerifyReport, file: StoreFile) -> Vec<Severity> {
    let of_file = report.findings.iter().filter(|finding| finding.file == file);
    of_file.map(|finding| finding.severity).collect()
}

#[test]
fn a_sound_store_is_read_whole() {
    let Sample { memory, model } = sample();
    let mut progress = Vec::new();
    let report = verify(PATH, options(&memory), |at| progress.push(at)).unwrap();
    check_sound(&report, IndexState::Compared);
    assert!(report.segments > 2 && report.index_buckets > 0);
    assert!(report.records > model.len() as u64 && report.blocks > report.segments);
    let bytes = read_file(&memory, PATH).len() + read_file(&memory, INDEX).len();
    assert!(report.bytes <= bytes as u64 && report.bytes * 10 > bytes as u64 * 9);
    assert!(progress.is_sorted_by_key(|at| at.bytes_done));
    let last = progress.last().unwrap();
    assert!(last.bytes_done <= last.bytes_total && last.bytes_done * 10 > last.bytes_total * 9);
}

#[test]
fn stores_without_records_are_sound() {
    let memory = MemoryStorage::new();
    let store = options(&memory).open(PATH).unwrap();
    check_sound(&store.verify(|_| {}).unwrap(), IndexState::Compared);
    check_sound(&verified(&killed(&memory)), IndexState::Missing);
    store.close().unwrap();
    check_sound(&verified(&memory), IndexState::Compared);
    check_sound(
        &options(&memory).open_read_only(PATH).unwrap().verify(|_| {}).unwrap(),
        IndexState::Compared,
    );
}

#[test]
fn an_open_store_is_verified_with_what_waits_in_its_buffers() {
    let Sample { memory, model } = sample();
    let store = options(&memory).open(PATH).unwrap();
    let before = store.verify(|_| {}).unwrap();
    check_sound(&before, IndexState::Compared);
    for number in 0..100 {
        store.set_bytes(&[b"more", &[number][..]].concat(), &text(u64::from(number))).unwrap();
    }
    assert!(store.delete_bytes(b"long").unwrap());
    store.set_bytes(b"text 7", b"overwritten").unwrap();
    let after = store.verify(|_| {}).unwrap();
    check_sound(&after, IndexState::Compared);
    // Two pieces' marks, the head's, 100 puts and one more.
    assert_eq!(after.records, before.records + 104);
    assert_eq!(store.len(), model.len() as u64 + 99);
    // Its index file knows nothing of that yet, and is no worse for it.
    check_sound(&verified(&killed(&memory)), IndexState::Compared);
    assert_eq!(verify(PATH, options(&memory), |_| {}).unwrap_err().kind(), ErrorKind::Locked);
    let other = store.clone();
    store.close().unwrap();
    check_sound(&other.verify(|_| {}).unwrap(), IndexState::Compared);
    drop(other);
    check_sound(&verified(&memory), IndexState::Compared);
}

#[test]
fn writes_go_on_while_an_open_store_is_verified() {
    let memory = MemoryStorage::new();
    let store = sample_options(&memory).open(PATH).unwrap();
    for number in 0..40 {
        store.set_bytes(&[number], &noise(number.into(), 20_000)).unwrap();
    }
    let mut is_written = false;
    let report = store.verify(|_| {
        // Fills the segment that was the last one when it began, and seals it.
        for number in 40..80 {
            store.set_bytes(&[number], &noise(number.into(), 20_000)).unwrap();
        }
        store.sync().unwrap();
        is_written = true;
    });
    check_sound(&report.unwrap(), IndexState::Compared);
    assert!(is_written);
    check_sound(&store.verify(|_| {}).unwrap(), IndexState::Compared);
}

#[test]
fn a_store_that_is_open_to_be_read_is_verified_with_its_index_file() {
    let Sample { memory, .. } = sample();
    let mut index = read_file(&memory, INDEX);
    index[600] ^= 1;
    write_file(&memory, INDEX, &index);
    let store = options(&memory).open_read_only(PATH).unwrap();
    let report = store.verify(|_| {}).unwrap();
    assert_eq!(severities(&report, StoreFile::Index), [Severity::Mendable], "{report:?}");
    assert_eq!(report.index, IndexState::NotCompared);
    let without = options(&memory).use_index_file(false);
    let report = without.open_read_only(PATH).unwrap().verify(|_| {}).unwrap();
    check_sound(&report, IndexState::Missing);
}

#[test]
fn an_index_that_the_log_has_left_behind_is_no_damage() {
    let Sample { memory, .. } = sample();
    let (old_data, old_index) = (read_file(&memory, PATH), read_file(&memory, INDEX));
    let store = options(&memory).open(PATH).unwrap();
    // More than a closing store leaves to the next opening.
    store.set_bytes(b"later", &noise(3, 20 << 10)).unwrap();
    store.close().unwrap();
    let new_index = read_file(&memory, INDEX);

    memory.remove(Path::new(INDEX)).unwrap();
    check_sound(&verified(&memory), IndexState::Missing);
    write_file(&memory, INDEX, &old_index);
    check_sound(&verified(&memory), IndexState::Compared);
    // Of a state that this log has not reached, and of another store.
    write_file(&memory, INDEX, &new_index);
    write_file(&memory, PATH, &old_data);
    let foreign = read_file(&sample().memory, INDEX);
    for index in [new_index, foreign] {
        write_file(&memory, INDEX, &index);
        let report = verified(&memory);
        assert_eq!(severities(&report, StoreFile::Index), [Severity::Notice], "{report:?}");
        assert_eq!((report.findings.len(), report.index), (1, IndexState::SetAside));
        assert!(report.is_sound());
    }
}

#[test]
fn what_a_crash_leaves_behind_is_no_damage() {
    let Sample { memory, .. } = sample();
    let store = options(&memory).open(PATH).unwrap();
    store.set_bytes(b"a", &noise(1, 3000)).unwrap();
    store.flush().unwrap();
    let whole = read_file(&memory, PATH);
    let copy = killed(&memory);
    check_sound(&verified(&copy), IndexState::Compared);
    // Torn within the last commit.
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap();
    write_file(&copy, PATH, &whole[..end - 1000]);
    let report = verified(&copy);
    assert_eq!(severities(&report, StoreFile::Data), [Severity::Notice], "{report:?}");
    assert!(report.is_sound() && report.index == IndexState::Compared);
}

/// Replaces the index file by one of the same moment that was made of `changes` only.
fn forge_index(memory: &MemoryStorage, key_count: u64, changes: Vec<Change>) {
    let store_id = store_id(memory);
    let old = Checkpoint::open(memory, Path::new(INDEX), store_id, false).unwrap();
    let sections = [1, 2, 3, 4, 5].map(|kind| (kind, old.section(kind).unwrap().unwrap()));
    let sections = sections.each_ref().map(|(kind, bytes)| (*kind, &bytes[..]));
    let watermark = &sections[0].1[..24];
    let meta = CheckpointMeta { store_id, watermark, sections: &sections, key_count };
    write_first(memory, Path::new(INDEX), &Run::from_changes(changes), &meta).unwrap();
}

fn store_id(memory: &MemoryStorage) -> [u8; 16] {
    read_file(memory, PATH)[16..32].try_into().unwrap()
}

#[test]
fn an_index_at_odds_with_the_records_is_found_out() {
    let Sample { memory, model } = sample();
    let keys = model.len() as u64;
    forge_index(&memory, keys, Vec::new());
    let report = verified(&memory);
    // All records and two pieces are unknown; a thousand findings are kept.
    assert_eq!(report.findings.len(), 1000);
    assert_eq!(report.findings_left_out, keys + 2 - 1000);
    assert_eq!(report.worst, Some(Severity::Mendable));
    assert_eq!(report.index, IndexState::Compared);
    assert!(report.findings.iter().all(|finding| finding.is_of_index), "{:?}", report.findings[0]);

    let memory = MemoryStorage::new();
    let store = options(&memory).open(PATH).unwrap();
    store.close().unwrap();
    let untrue = zkv_index::Location::new(1);
    forge_index(&memory, 1, vec![Change { hash: zkv_index::KeyHash(5), old: None, new: untrue }]);
    let found: Vec<_> =
        verified(&memory).findings.iter().map(|finding| finding.what.to_string()).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("counts") && found[1].contains("holds no live record"), "{found:?}");
}

#[test]
fn counts_that_do_not_add_up_are_found_out() {
    let Sample { memory, .. } = sample();
    let store_id = store_id(&memory);
    let old = Checkpoint::open(&memory, Path::new(INDEX), store_id, true).unwrap();
    let section = |kind| old.section(kind).unwrap().unwrap();
    let of = |changed: u32, byte: usize| {
        let mut sections = [1, 2, 3, 4, 5].map(|kind| (kind, section(kind)));
        sections[changed as usize - 1].1[byte] ^= 1;
        let sections = sections.each_ref().map(|(kind, bytes)| (*kind, &bytes[..]));
        let (log, key_count) = (section(1), old.key_count());
        let watermark = &log[..24];
        let meta = CheckpointMeta { store_id, watermark, sections: &sections, key_count };
        old.write_next(&memory, Path::new(INDEX), &Run::from_changes(Vec::new()), &meta).unwrap();
        verified(&memory).findings
    };
    // Records of the first segment, live ones, and keys of a collection.
    let found = of(2, 4);
    assert_eq!((found.len(), found[0].offset), (1, 4096), "{found:?}");
    assert!(found[0].what.contains("in this segment"));
    let found = of(3, 8);
    assert_eq!((found.len(), found[0].offset), (1, 4096), "{found:?}");
    let found = of(4, 4);
    // The header still has the right one.
    assert!(found.len() == 2 && found.iter().all(|one| one.what.contains("keys")), "{found:?}");
    // The next collection's number, in the record that the catalog starts with.
    let found = of(5, 4 + 4);
    assert!(found.len() == 1 && found[0].what.contains("collections"), "{found:?}");
    let found = of(1, 40);
    assert!(found.iter().any(|found| found.what.contains("keeps of the log")), "{found:?}");
}

fn log_writer(memory: &MemoryStorage) -> LogWriter {
    let storage = Arc::new(memory.clone());
    let file = OpenFile::open(storage, Path::new(PATH), Access::ReadWrite, LogOptions::default());
    file.unwrap().recover(None).unwrap().writer.unwrap()
}

/// A log of one commit of `records`, and nothing else.
fn log_of(records: &[&[u8]]) -> VerifyReport {
    let memory = MemoryStorage::new();
    zkv_log::create(&memory, Path::new(PATH), &LogOptions::default()).unwrap();
    let mut log = log_writer(&memory);
    log.append(records).unwrap();
    log.close().unwrap();
    drop(log);
    verified(&memory)
}

fn encoded(kind: Kind, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Record { kind, ..Record::put(key, value) }.encode_into(&mut bytes);
    bytes
}

#[test]
fn records_that_cannot_be_are_losses() {
    let head = Head { value_id: [7; 16], value_bytes: 100_000, piece_bytes: 65_536 };
    let piece =
        |number, bytes| encoded(Kind::Piece, &head.piece_key(number).encode(), &noise(1, bytes));
    let of_head = encoded(Kind::Head, b"key", &head.encode());
    let put = encoded(Kind::Put, b"key", b"value");
    let pieces = [piece(0, 65_536), piece(1, 34_464)];
    let whole = log_of(&[&pieces[0], &pieces[1], &of_head]);
    check_sound(&whole, IndexState::Missing);

    let cases: [(&str, &[&[u8]]); 7] = [
        ("newer version", &[&[0x80, 1, b'k', b'v']]),
        ("no record", &[&[0, 9, b'k']]),
        ("names pieces", &[&encoded(Kind::Head, b"key", b"short")]),
        ("names pieces", &[&encoded(Kind::Piece, b"key", b"short")]),
        ("lacks a piece", &[&pieces[0], &of_head]),
        ("another length", &[&pieces[0], &piece(1, 34_463), &of_head]),
        ("twice", &[&put, &put]),
    ];
    for (what, records) in cases {
        let report = log_of(records);
        assert_eq!(report.findings.len(), 1, "{report:?}");
        let Finding { severity, offset, what: found, .. } = &report.findings[0];
        assert_eq!((*severity, *offset > 4096), (Severity::Loss, true));
        assert!(found.contains(what), "{found}");
    }
    let orphan = PieceKey { value_id: [8; 16], number: 0 }.encode();
    let report = log_of(&[&put, &encoded(Kind::Piece, &orphan, b"piece")]);
    assert_eq!(severities(&report, StoreFile::Data), [Severity::Mendable], "{report:?}");
    // A value that was replaced takes its pieces along.
    let gone = encoded(Kind::Piece, &head.piece_key(1).encode(), b"");
    let report = log_of(&[&pieces[0], &of_head]);
    assert_eq!(report.worst, Some(Severity::Loss));
    assert!(log_of(&[&gone, &put]).is_sound());
}

#[test]
fn all_damage_is_reported_and_not_only_the_first() {
    let Sample { memory, .. } = sample();
    let sound = verified(&memory);
    let mut bytes = read_file(&memory, PATH);
    let slot = 256 << 10;
    let places = [100, 4096 + 20, 4096 + 9000, 4096 + 60_000, 4096 + slot + 40_000];
    for place in places {
        bytes[place] ^= 4;
    }
    write_file(&memory, PATH, &bytes);
    let mut index = read_file(&memory, INDEX);
    index[700] ^= 1;
    write_file(&memory, INDEX, &index);
    let report = verified(&memory);
    // Beside these, the value whose piece is lost.
    assert_eq!(report.findings.len(), places.len() + 2, "{report:?}");
    let offsets = report.findings.iter().filter(|found| found.file == StoreFile::Data);
    for (found, place) in offsets.zip(places) {
        // The longest block holds a piece of 64 KiB.
        let distance = place as u64 - found.offset;
        assert!(distance < 66_000, "{found:?} for {place}");
    }
    assert!(report.records + 100 > sound.records, "{report:?}");
}

#[test]
fn a_store_that_does_not_open_is_read_all_the_same() {
    let Sample { memory, .. } = sample();
    let sound = verified(&memory);
    memory.remove(Path::new(INDEX)).unwrap();
    let bytes = read_file(&memory, PATH);
    let slot = 256 << 10;
    // A block, a seal, and the header of a segment together with its first block.
    let cases: [(&str, &[usize]); 3] = [
        ("a block", &[4096 + 50_000]),
        ("a seal", &[4096 + slot - 700, 4096 + 2 * slot - 800]),
        ("a segment's start", &[4096 + slot + 30, 4096 + slot + 256 + 20]),
    ];
    for (name, places) in cases {
        let mut damaged = bytes.clone();
        for place in places {
            damaged[*place] ^= 1;
        }
        write_file(&memory, PATH, &damaged);
        let opened = options(&memory).open_read_only(PATH);
        let report = verified(&memory);
        assert!(report.findings.len() > places.len() - 1, "{name}: {report:?}");
        if let Err(error) = opened {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}");
            assert_eq!(report.worst, Some(Severity::Loss), "{name}");
        }
        assert_eq!(report.segments, sound.segments, "{name}: {report:?}");
        assert!(report.records + 40 > sound.records, "{name}: {report:?}");
    }
}

#[test]
fn files_that_are_cut_while_they_are_verified_are_findings() {
    let Sample { memory, .. } = sample();
    let place = place();
    let index = index_path(&place.path);
    // How long the files are from the first step on: both cut, or one of them.
    for (data_bytes, index_bytes) in [(300_000, 1000), (u64::MAX, 1000), (0, u64::MAX)] {
        fs::write(&place.path, read_file(&memory, PATH)).unwrap();
        fs::write(&index, read_file(&memory, INDEX)).unwrap();
        let cut = |path: &Path, bytes: u64| {
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_len(file.metadata().unwrap().len().min(bytes)).unwrap();
        };
        let report = verify(&place.path, Options::new(), |_| {
            cut(&place.path, data_bytes);
            cut(&index, index_bytes);
        });
        let report = report.unwrap();
        assert!(!report.is_sound() && report.index != IndexState::Compared, "{report:?}");
    }
}

/// At the start of the sample's first segment.
const DICTIONARY_SECTORS: u64 = 12;

#[test]
fn what_the_disk_cannot_read_is_a_finding() {
    let Sample { memory, model } = sample();
    let sound = verified(&memory);
    for (path, file) in [(PATH, StoreFile::Data), (INDEX, StoreFile::Index)] {
        let sectors = read_file(&memory, path).len() as u64 / SECTOR;
        for sector in 0..sectors {
            let storage = BadSectors::new(&memory, path, &[sector, sectors / 2]);
            let options = Options::new().storage(Arc::new(storage));
            let report = verify(PATH, options, |_| {}).unwrap();
            assert!(!severities(&report, file).is_empty(), "{file:?} {sector}: {report:?}");
            assert!(!report.is_sound());
            // Without its dictionary, most of a segment is lost.
            let has_dictionary = file == StoreFile::Index || sector > DICTIONARY_SECTORS;
            let least = if has_dictionary { sound.records - 200 } else { 50 };
            assert!(report.records > least, "{file:?} {sector}: {report:?}");
        }
    }
    // Nothing was written, and nothing is held.
    let store: Store = options(&memory).open(PATH).unwrap();
    assert_eq!(store.len(), model.len() as u64);
}

#[test]
fn an_index_file_that_may_not_be_read_is_no_damage() {
    use std::io::ErrorKind::{Other, OutOfMemory, PermissionDenied};
    let cases = [(PermissionDenied, Severity::Notice), (OutOfMemory, Severity::Notice)];
    for (kind, severity) in cases.into_iter().chain([(Other, Severity::Mendable)]) {
        let storage = BadSectors::of_kind(&sample().memory, INDEX, &[0], kind);
        let report = verify(PATH, Options::new().storage(Arc::new(storage)), |_| {}).unwrap();
        assert_eq!(severities(&report, StoreFile::Index), [severity], "{report:?}");
        assert_eq!((report.findings.len(), report.index), (1, IndexState::NotCompared));
        assert!(report.findings[0].what.contains("the sector is bad"), "{report:?}");
    }
}

#[test]
fn what_the_disk_cannot_read_behind_the_blocks_loses_nothing() {
    let memory = MemoryStorage::new();
    let store: Store = options(&memory).slot_bytes(256 << 10).open(PATH).unwrap();
    for number in 0..14u64 {
        store.set_bytes(&number.to_be_bytes(), &noise(number, 40_000)).unwrap();
        store.flush().unwrap();
    }
    store.close().unwrap();
    // A seventh value finds no room in the first slot: its last sectors have zeros, and a seal.
    for (sector, worst) in
        [(30, Severity::Loss), (62, Severity::Mendable), (64, Severity::Mendable)]
    {
        let storage = BadSectors::new(&memory, PATH, &[sector]);
        let options = Options::new().storage(Arc::new(storage));
        let report = verify(PATH, options, |_| {}).unwrap();
        assert_eq!(report.worst, Some(worst), "{sector}: {report:?}");
        let is_compared = report.index == IndexState::Compared;
        assert_eq!(is_compared, worst == Severity::Mendable, "{sector}: {report:?}");
    }
}

#[test]
fn a_store_whose_first_headers_are_lost_is_read_by_those_that_are_left() {
    let memory = MemoryStorage::new();
    let store = options(&memory).slot_bytes(256 << 10).open(PATH).unwrap();
    for number in 0..15u32 {
        store.set_bytes(&number.to_be_bytes(), &noise(number.into(), 40_000)).unwrap();
    }
    store.close().unwrap();
    let whole = verified(&memory);
    check_sound(&whole, IndexState::Compared);
    let mut bytes = read_file(&memory, PATH);
    // The file's header page, and the first segment's cell behind it.
    bytes[..4096 + 256].fill(0);
    for has_index in [true, false] {
        write_file(&memory, PATH, &bytes);
        if !has_index {
            memory.remove(Path::new(INDEX)).unwrap();
        }
        let report = verified(&memory);
        assert_eq!(report.worst, Some(Severity::Loss), "{report:?}");
        assert!(report.findings[0].what.contains("does not open"), "{report:?}");
        let error = options(&memory).open_read_only(PATH).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!((report.segments, report.records), (3, whole.records), "{report:?}");
    }
}

#[test]
fn an_index_whose_sections_are_longer_than_any_of_its_data_file_is_not_used() {
    let memory = MemoryStorage::new();
    options(&memory).open(PATH).unwrap().close().unwrap();
    let data_bytes = read_file(&memory, PATH).len();
    let longest = (64 << 20) + 1024 * data_bytes;
    let store_id = store_id(&memory);
    let old = Checkpoint::open(&memory, Path::new(INDEX), store_id, false).unwrap();
    let sections = [1, 2, 3, 4, 5].map(|kind| (kind, old.section(kind).unwrap().unwrap()));
    let sections_bytes: usize = sections.iter().map(|(_, bytes)| bytes.len()).sum();
    for more in [0, 1] {
        // Of a kind that nobody reads, so that it is its length alone.
        let long = vec![0; longest - sections_bytes + more];
        let mut forged: Vec<(u32, &[u8])> = vec![(99, &long)];
        forged.extend(sections.iter().map(|(kind, bytes)| (*kind, &bytes[..])));
        let watermark = &sections[0].1[..24];
        let key_count = old.key_count();
        let meta = CheckpointMeta { store_id, watermark, sections: &forged, key_count };
        let none = Run::from_changes(Vec::new());
        write_first(&memory, Path::new(INDEX), &none, &meta).unwrap();
        let report = verified(&memory);
        assert_eq!(report.findings.len(), more, "{report:?}");
        let is_used = if more == 0 { IndexState::Compared } else { IndexState::NotCompared };
        assert_eq!(report.index, is_used);
        // One that is not used is written anew.
        options(&memory).open(PATH).unwrap().close().unwrap();
        assert_eq!(read_file(&memory, INDEX).len() < longest, more == 1);
    }
}
