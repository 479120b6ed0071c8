//! What a store does whose disk cannot read some of its sectors.

mod common;

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use zkv::{Cleaning, Durability, ErrorKind, Options, ReadMode, SalvageEvent, WriteBatch};
use zkv_io::{MemoryStorage, Storage};

use common::bad_sectors::{BadSectors, SECTOR};
use common::faulty::{Act, FaultyStorage, PATH, killed, noise, options, read_file};

fn key(number: u64) -> Vec<u8> {
    format!("key {number}").into_bytes()
}

/// A closed store of so many incompressible records of 600 bytes.
fn filled(count: u64) -> MemoryStorage {
    let memory = MemoryStorage::new();
    let store = options(&memory).open(PATH).unwrap();
    for number in 0..count {
        store.set_bytes(&key(number), &noise(number, 600)).unwrap();
    }
    store.close().unwrap();
    memory
}

/// The store in `memory` on a disk that cannot read these sectors.
fn beside(memory: &MemoryStorage, sectors: &[u64]) -> Options {
    let storage = BadSectors::new(memory, PATH, sectors);
    Options::new().storage(Arc::new(storage)).read_mode(ReadMode::Pread).cache_bytes(0)
}

/// As [`beside`], of a disk that gives all but these bytes.
fn beside_bytes(memory: &MemoryStorage, bad: Vec<Range<u64>>) -> Options {
    let storage = FaultyStorage::new(memory, move |act, path| {
        let Act::Read { offset, bytes } = act else { return Ok(()) };
        let reaches = |bad: &Range<u64>| offset < bad.end && bad.start < offset + bytes as u64;
        match path == Path::new(PATH) && bad.iter().any(reaches) {
            true => Err(io::Error::other("the sector is bad")),
            false => Ok(()),
        }
    });
    storage.options().read_mode(ReadMode::Pread).cache_bytes(0)
}

/// The keys of the first `count` that lookups cannot read.
fn unreadable(options: Options, count: u64) -> Vec<Vec<u8>> {
    let store = options.open_read_only(PATH).unwrap();
    (0..count).map(key).filter(|key| store.get_bytes(key).is_err()).collect()
}

#[test]
fn a_bad_sector_keeps_nothing_from_being_written() {
    let memory = filled(2000);
    let lost = unreadable(beside(&memory, &[100]), 2000);
    assert!(!lost.is_empty() && lost.len() < 20, "{}", lost.len());
    let store = beside(&memory, &[100]).open(PATH).unwrap();
    for number in 2000..3000 {
        store.set_bytes(&key(number), b"other").unwrap();
    }
    store.set_bytes(&lost[0], b"newer").unwrap();
    store.flush().unwrap();
    store.sync().unwrap();
    assert_eq!(store.len(), 3000);
    store.close().unwrap();

    let store = options(&memory).open(PATH).unwrap();
    assert_eq!(store.get_bytes(&key(2999)).unwrap().unwrap(), b"other");
    assert_eq!(store.get_bytes(&lost[0]).unwrap().unwrap(), b"newer");
    assert_eq!(store.len(), 3000);
}

#[test]
fn a_bad_sector_of_superseded_records_does_not_keep_a_store_from_being_opened() {
    let memory = filled(2000);
    let lost = unreadable(beside(&memory, &[100]), 2000);
    // The index file does not know of these yet.
    let store = options(&memory).durability(Durability::Flushed).open(PATH).unwrap();
    for key in &lost {
        store.set_bytes(key, b"newer").unwrap();
    }
    let memory = killed(&memory);
    for is_read_only in [true, false] {
        let options = beside(&memory, &[100]);
        let open = if is_read_only { Options::open_read_only } else { Options::open };
        let store = open(options, PATH).unwrap();
        assert_eq!(store.get_bytes(&lost[0]).unwrap().unwrap(), b"newer");
        assert_eq!(store.len(), 2000);
        assert_eq!(store.iter_bytes().flatten().count(), 2000);
    }
}

#[test]
fn a_segment_with_a_bad_sector_is_left_alone_and_others_are_cleaned() {
    const SLOT: u32 = 256 << 10;
    let memory = MemoryStorage::new();
    let store = options(&memory).slot_bytes(SLOT).cleaning(Cleaning::Off).open(PATH).unwrap();
    for round in 0..4 {
        (0..1000).for_each(|n| store.set_bytes(&key(n), &noise(1000 * round + n, 600)).unwrap());
        store.flush().unwrap();
    }
    store.close().unwrap();

    // In the middle of the second of about ten segments, nearly all of which are dead.
    let bad = (u64::from(SLOT) + u64::from(SLOT) / 2) / SECTOR;
    let store = beside(&memory, &[bad]).cleaning(Cleaning::Off).open(PATH).unwrap();
    store.clean().unwrap();
    let cleaned = store.stats().unwrap().cleaning.segments;
    assert!(cleaned > 5, "{cleaned} segments");
    assert_eq!(store.compact(|_| ()).unwrap_err().kind(), ErrorKind::Corrupt);
    let values = (0..1000).map(|number| store.get_bytes(&key(number)));
    assert_eq!(values.filter(|value| matches!(value, Ok(Some(_)))).count(), 1000);
    store.close().unwrap();
}

#[test]
fn an_iteration_goes_on_behind_bad_sectors_however_many_lie_in_a_row() {
    let memory = filled(6000);
    for count in [1, 34, 300] {
        let sectors: Vec<u64> = (100..100 + count).collect();
        let lost = unreadable(beside(&memory, &sectors), 6000).len();
        let store = beside(&memory, &sectors).open_read_only(PATH).unwrap();
        let (yielded, errors): (Vec<_>, Vec<_>) = store.iter_bytes().partition(Result::is_ok);
        assert_eq!((yielded.len(), errors.len()), (6000 - lost, 1), "{count} sectors");
    }
}

#[test]
fn a_bad_sector_of_a_seal_costs_nothing() {
    const SLOT: u64 = 8 << 20;
    let memory = filled(16_000);
    // The table of a full segment is its last 32 KiB.
    let in_table = SLOT / SECTOR - 3;
    for (sectors, lost_max) in [(&[in_table][..], 0), (&[in_table, 300], 10)] {
        let memory = killed(&memory);
        let lost = unreadable(beside(&memory, sectors), 16_000);
        assert!(lost.len() <= lost_max, "{} lost beside {sectors:?}", lost.len());
        let store = beside(&memory, sectors).open(PATH).unwrap();
        let yielded: BTreeSet<_> = store.iter_bytes().flatten().map(|(key, _)| key).collect();
        assert_eq!(yielded.len(), 16_000 - lost.len());
        let mut batch = WriteBatch::new();
        for key in yielded.iter().take(15_000) {
            batch.delete_bytes(key);
        }
        store.write(batch).unwrap();
        store.flush().unwrap();
        assert_eq!(store.iter_bytes().flatten().count(), 1_000 - lost.len());
    }
}

#[test]
fn a_bad_sector_costs_only_what_lies_in_it() {
    let memory = filled(2000);
    let bytes = read_file(&memory, PATH);
    for sector in [50usize, 100, 101, 102, 103, 150] {
        // A block's header and a record's key stand before the value, of which some lies in the sector.
        let near = &bytes[sector * 4096 - 599..(sector + 1) * 4096 + 640];
        let is_near = |number| near.windows(600).any(|bytes| bytes == noise(number, 600));
        let lost = unreadable(beside(&memory, &[sector as u64]), 2000);
        let near_count =
            (0..2000).filter(|number| lost.contains(&key(*number)) && is_near(*number));
        assert_eq!(near_count.count(), lost.len(), "beside {sector}");
    }
}

/// A crash without a power cut, so that all that was acknowledged is there.
#[test]
fn a_log_whose_last_seal_cannot_be_read_is_not_cut_short() {
    const SLOT: u32 = 256 << 10;
    for durability in [Durability::Flushed, Durability::Synced] {
        let memory = MemoryStorage::new();
        let options = options(&memory).slot_bytes(SLOT).durability(durability);
        let store = options.open(PATH).unwrap();
        for number in 0..10 {
            store.set_bytes(&key(number), &noise(number, 20_000)).unwrap();
        }
        // One commit that goes on in the next segment.
        let mut batch = WriteBatch::new();
        for number in 10..20 {
            batch.set_bytes(&key(number), &noise(number, 20_000));
        }
        store.write(batch).unwrap();
        let memory = killed(&memory);
        // The file's header takes the first sector.
        let seal = u64::from(SLOT) / SECTOR;
        let error = beside(&memory, &[seal]).open(PATH).unwrap_err();
        assert!(error.to_string().contains("a segment's seal"), "{error}");
        let storage = beside(&memory, &[seal]);
        let report = zkv::salvage(PATH, "dir/to.zkv", storage, |_| ()).unwrap();
        assert_eq!((report.keys, report.is_complete()), (20, false));
    }
}

/// Then nothing tells that the log goes on there.
#[test]
fn nor_is_one_of_which_the_next_segment_cannot_be_read_either() {
    const SLOT: u32 = 256 << 10;
    let next = u64::from(SLOT) / SECTOR + 1;
    for durability in [Durability::Flushed, Durability::Synced] {
        let memory = MemoryStorage::new();
        let options = options(&memory).slot_bytes(SLOT).durability(durability);
        let store = options.open(PATH).unwrap();
        let mut count = 0;
        while store.stats().unwrap().segments < 2 {
            // 32 of them end before the page with the seal.
            store.set_bytes(&key(count), &noise(count, 7_900)).unwrap();
            count += 1;
        }
        let memory = killed(&memory);
        let error = beside(&memory, &[next - 1, next, next + 1, next + 2]).open(PATH).unwrap_err();
        assert!(error.to_string().contains("a segment's seal"), "{error}");
        // Where the seal can be read, it says more.
        let error = beside(&memory, &[next]).open(PATH).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        let salvaged = |sectors: &[u64]| {
            let storage = beside(&memory, sectors);
            let report = zkv::salvage(PATH, "dir/to.zkv", storage, |_| ()).unwrap();
            memory.remove(Path::new("dir/to.zkv")).unwrap();
            (report.keys, report.missing_segments, report.is_complete())
        };
        assert_eq!(salvaged(&[next, next + 1, next + 2]), (count - 1, 1, false));
        assert!(!salvaged(&[next - 1, next, next + 1, next + 2]).2);
        assert_eq!(Options::new().storage(Arc::new(memory)).open(PATH).unwrap().len(), count);
    }
}

/// What is missing has no older value, that would be in doubt.
#[test]
fn salvage_misses_the_only_segment_where_the_disk_cannot_read_it() {
    const SLOT: u32 = 256 << 10;
    let memory = MemoryStorage::new();
    let options = options(&memory).slot_bytes(SLOT).durability(Durability::Synced);
    let store = options.open(PATH).unwrap();
    let snapshot = store.snapshot();
    store.compact(|_| ()).unwrap();
    drop(snapshot);
    store.collection::<u64, u64>("of no keys").unwrap();
    store.close().unwrap();
    memory.remove(Path::new("dir/store.zkv.idx")).unwrap();
    let next = u64::from(SLOT) / SECTOR + 1;
    let storage = beside(&memory, &[next]);
    let report = zkv::salvage(PATH, "dir/to.zkv", storage, |_| ()).unwrap();
    assert_eq!((report.missing_segments, report.is_complete()), (1, false));
}

#[test]
fn salvage_tells_of_a_sector_in_which_the_log_may_go_on() {
    let memory = MemoryStorage::new();
    let store = options(&memory).durability(Durability::Synced).open(PATH).unwrap();
    store.set_bytes(b"long", &noise(1, 9_000)).unwrap();
    let memory = killed(&memory);
    let bytes = read_file(&memory, PATH);
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 / SECTOR;
    assert!(beside(&memory, &[last]).open(PATH).is_err());
    let report = zkv::salvage(PATH, "dir/to.zkv", beside(&memory, &[last]), |_| ()).unwrap();
    assert_eq!((report.keys, report.lost_blocks, report.is_complete()), (0, 1, false));
}

/// Of the last segment's only page, the disk gives what says that it is there.
#[test]
fn salvage_tells_of_a_segment_of_which_only_the_header_can_be_read() {
    let memory = MemoryStorage::new();
    let options = options(&memory).slot_bytes(256 << 10).durability(Durability::Flushed);
    let store = options.use_index_file(false).open(PATH).unwrap();
    let (mut count, second_slot) = (0, (256 << 10) + SECTOR);
    while read_file(&memory, PATH).len() as u64 <= second_slot {
        let bytes = if count < 12 { 20_000 } else { 600 };
        store.set_bytes(&key(count), &noise(count, bytes)).unwrap();
        count += 1;
    }
    let memory = killed(&memory);
    assert_eq!(read_file(&memory, PATH).len() as u64, second_slot + SECTOR);
    let bad = second_slot + 1024..second_slot + 1536;
    let report =
        zkv::salvage(PATH, "dir/to.zkv", beside_bytes(&memory, vec![bad]), |_| ()).unwrap();
    assert_eq!((report.keys, report.segments, report.is_complete()), (count - 1, 2, false));
    assert!(report.lost_blocks > 0, "{report:?}");
}

/// The log goes on behind that segment, also where its newest one has lost its first page, or the commit that leads
/// there its end. Some systems give the rest of a page of which a sector is bad: then the seal says so.
#[test]
fn salvage_beside_a_bad_sector_next_to_a_seal_gives_no_commit_up() {
    const SLOT: u64 = 256 << 10;
    let memory = MemoryStorage::new();
    let options = options(&memory).slot_bytes(256 << 10).durability(Durability::Flushed);
    let store = options.open(PATH).unwrap();
    for number in 0..10 {
        store.set_bytes(&key(number), &noise(number, 20_000)).unwrap();
    }
    // One commit that goes on in the next segment.
    let mut batch = WriteBatch::new();
    for number in 0..10 {
        batch.set_bytes(&key(number), &noise(10 + number, 20_000));
    }
    store.write(batch).unwrap();
    let memory = killed(&memory);
    let end = read_file(&memory, PATH).iter().rposition(|byte| *byte != 0).unwrap() as u64;
    let (seals_page, next) = (SLOT, SLOT + SECTOR);
    let cases = [next, end - end % SECTOR].map(|lost| [(512, lost), (SECTOR, lost)]);
    for (bad_bytes, lost) in cases.into_iter().flatten() {
        let bad = vec![seals_page..seals_page + bad_bytes, lost..lost + SECTOR];
        let options = || beside_bytes(&memory, bad.clone());
        let mut doubtful = BTreeSet::new();
        let report = zkv::salvage(PATH, "dir/to.zkv", options(), |event| {
            if let SalvageEvent::PossiblySuperseded { key, .. } = event {
                doubtful.insert(key.to_vec());
            }
        });
        let report = report.unwrap();
        // Nothing else may tell of a segment that has lost its first page.
        assert!(bad_bytes == SECTOR || report.segments == 2, "{report:?}");
        let store = options().open("dir/to.zkv").unwrap();
        let is_newest =
            |number| store.get_bytes(&key(number)).unwrap() == Some(noise(10 + number, 20_000));
        assert!((0..10).all(|number| is_newest(number) || doubtful.contains(&key(number))));
        assert_eq!((store.len(), report.is_complete()), (10, false));
        store.close().unwrap();
        memory.remove(Path::new("dir/to.zkv")).unwrap();
    }
}
