//! Salvage, held against a model that knows every block: all that is in undamaged blocks comes, and
//! nothing else does.

mod attempts;
#[path = "../common/mod.rs"]
mod common;
mod model;
mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::slice::from_ref;
use std::sync::OnceLock;

use zkv::{
    Cleaning, Durability, ErrorKind, Options, SalvageEvent, SalvageReport, Store, WriteBatch,
};
use zkv_io::{MemoryStorage, Storage};

use common::faulty::{INDEX, PATH, killed, noise, options, read_file, write_file};
use model::{COMMIT, DICTIONARY, Expected, FILE_HEADER, Model};

const DESTINATION: &str = "dir/salvaged.zkv";
const SLOT: u32 = 256 << 10;
const KEYS: u32 = 3000;

fn small(memory: &MemoryStorage) -> Options {
    // What is dead stays where it was put.
    let options = options(memory).slot_bytes(SLOT).cleaning(Cleaning::Off);
    options.memory_buffer_bytes(64 << 10)
}

fn key(number: u32) -> Vec<u8> {
    format!("https://example.org/pages/{number}").into_bytes()
}

/// A value that compresses well with a dictionary, and not without.
fn value(number: u32, version: u32) -> Vec<u8> {
    let digits: String = noise(u64::from(number * 31 + version), 24).escape_ascii().to_string();
    let title = format!("Page {number} in its version {version}");
    format!(
        "{{\"title\":\"{title}\",\"language\":\"en\",\"license\":\"MIT\",\"digest\":\"{digits}\"}}"
    )
    .into_bytes()
}

/// A closed store of several segments, with everything that a store can hold.
fn filled() -> MemoryStorage {
    let memory = MemoryStorage::new();
    let store = small(&memory).open(PATH).unwrap();
    for number in 0..KEYS {
        store.set_bytes(&key(number), &value(number, 0)).unwrap();
        if number % 700 == 300 {
            store.set_bytes(format!("large {number}").as_bytes(), &noise(9, 300_000)).unwrap();
        }
    }
    for number in (0..KEYS).step_by(3) {
        store.set_bytes(&key(number), &value(number, 1)).unwrap();
    }
    for number in (0..KEYS).step_by(7) {
        store.delete_bytes(&key(number)).unwrap();
    }
    store.delete_bytes(b"large 300").unwrap();
    store.set_bytes(b"large 1000", &noise(10, 200_000)).unwrap();
    for number in KEYS..KEYS + 800 {
        store.set_bytes(&key(number), &value(number, 2)).unwrap();
    }
    store.close().unwrap();
    memory
}

/// The store, and the model of it, made once.
fn whole() -> &'static (MemoryStorage, Model) {
    static WHOLE: OnceLock<(MemoryStorage, Model)> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let memory = filled();
        let model = Model::of(&memory);
        assert!(model.segments.len() >= 6, "{}", model.segments.len());
        assert!(model.dictionary_count() >= 4, "{}", model.dictionary_count());
        (memory, model)
    })
}

struct Salvaged {
    report: SalvageReport,
    found: Expected,
}

/// Salvages the data file `bytes`, with the index file beside it where one is given.
fn try_salvage(bytes: &[u8], index: Option<&[u8]>) -> zkv::Result<Salvaged> {
    let memory = MemoryStorage::new();
    write_file(&memory, PATH, bytes);
    if let Some(index) = index {
        write_file(&memory, INDEX, index);
    }
    let mut found = Expected::default();
    // Fast, since there are hundreds.
    let fast = options(&memory).compression_level(1);
    let report = zkv::salvage(PATH, DESTINATION, fast, |event| match event {
        SalvageEvent::PossiblySuperseded { key, .. } => {
            assert!(found.doubtful.insert(key.to_vec()));
        }
        SalvageEvent::IncompleteValue { key, .. } => {
            assert!(found.incomplete.insert(key.to_vec()));
        }
        _ => {}
    })?;
    assert_eq!(read_file(&memory, PATH), bytes, "the source is left alone");
    found.contents = contents(&options(&memory).open(DESTINATION).unwrap());
    assert_eq!(report.keys, found.contents.len() as u64);
    assert_eq!(report.possibly_superseded, found.doubtful.len() as u64);
    assert_eq!(report.incomplete_values, found.incomplete.len() as u64);
    Ok(Salvaged { report, found })
}

fn salvage(bytes: &[u8], index: Option<&[u8]>) -> Salvaged {
    try_salvage(bytes, index).unwrap()
}

fn contents(store: &Store) -> BTreeMap<Vec<u8>, Vec<u8>> {
    store.iter_bytes().map(Result::unwrap).collect()
}

#[track_caller]
fn assert_same(found: &Expected, expected: &Expected, what: &str) {
    // Whole contents would be pages long.
    let keys = |expected: &Expected| expected.contents.keys().cloned().collect::<BTreeSet<_>>();
    let (found_keys, expected_keys) = (keys(found), keys(expected));
    let missing = expected_keys.difference(&found_keys).count();
    let extra = found_keys.difference(&expected_keys).count();
    assert_eq!((missing, extra), (0, 0), "{what}: keys missing and too many");
    assert!(found.contents == expected.contents, "{what}: a value is wrong");
    let doubtful = (found.doubtful.len(), expected.doubtful.len());
    assert!(found.doubtful == expected.doubtful, "{what}: {doubtful:?} are doubtful");
    assert!(found.incomplete == expected.incomplete, "{what}: {:?}", found.incomplete);
}

/// Overwrites `damage` with zeros, and with noise, and holds what is left against the model.
#[track_caller]
fn check(damage: &[Range<u64>], what: &str) -> SalvageReport {
    let (_, model) = whole();
    let expected = model.expected(damage);
    let mut reports = ["zeros", "noise"].map(|fill| {
        let mut bytes = model.bytes.clone();
        for range in damage {
            let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
            let range = range.start..range.end.min(bytes.len());
            let filling = noise(range.start as u64 + 1, range.len());
            match fill {
                "zeros" => bytes[range].fill(0),
                _ => bytes[range].copy_from_slice(&filling),
            }
        }
        let salvaged = salvage(&bytes, None);
        assert_same(&salvaged.found, &expected, &format!("{what}, {fill}"));
        salvaged.report
    });
    std::mem::take(&mut reports[1])
}

#[test]
fn a_healthy_store_gives_exactly_its_contents() {
    let (memory, model) = whole();
    let index = read_file(memory, INDEX);
    let expected = contents(&options(memory).open_read_only(PATH).unwrap());
    for index in [None, Some(&*index), Some(&noise(1, 5000))] {
        let Salvaged { report, found } = salvage(&model.bytes, index);
        assert!(found.contents == expected && report.is_complete(), "{report:?}");
        assert_eq!(found, model.expected(&[]));
        assert_eq!((report.lost_headers, report.lost_seals), (0, 0));
        assert_eq!(report.segments, model.segments.len() as u64);
    }
}

#[test]
fn headers_cost_nothing() {
    let (_, model) = whole();
    let report = check(&[FILE_HEADER], "file header");
    assert!(report.is_complete() && report.lost_headers == 1, "{report:?}");
    for segment in &model.segments {
        let what = format!("header of segment {}", segment.sequence);
        let report = check(from_ref(&segment.header), &what);
        assert!(report.is_complete() && report.lost_headers == 1, "{what}: {report:?}");
        let what = format!("file header and {what}");
        let report = check(&[FILE_HEADER, segment.header.clone()], &what);
        assert!(report.is_complete() && report.lost_headers == 2, "{what}: {report:?}");
    }
    let mut all: Vec<Range<u64>> =
        model.segments.iter().map(|segment| segment.header.clone()).collect();
    all.push(FILE_HEADER);
    assert!(check(&all, "all headers").is_complete());
}

#[test]
fn seals_cost_nothing_but_certainty() {
    let (memory, model) = whole();
    let index = read_file(memory, INDEX);
    for segment in &model.segments {
        let Some(seal) = &segment.seal else { continue };
        let what = format!("seal of segment {}", segment.sequence);
        let report = check(from_ref(seal), &what);
        assert!(report.lost_seals == 1 && report.lost_headers == 0, "{what}: {report:?}");
        check(&[seal.clone(), segment.header.clone()], &format!("header and {what}"));
        check(&[seal.clone(), segment.header.clone(), FILE_HEADER], &format!("headers and {what}"));
        // The index knows where the segment's blocks end.
        let mut bytes = model.bytes.clone();
        bytes[usize::try_from(seal.start).unwrap() + 100] ^= 1;
        let with_index = salvage(&bytes, Some(&index));
        assert!(with_index.report.is_complete(), "{what}: {:?}", with_index.report);
    }
}

#[test]
fn a_lost_block_costs_its_own_records_only() {
    let (_, model) = whole();
    for segment in &model.segments {
        let blocks: Vec<_> =
            model.blocks.iter().filter(|block| block.position.0 == segment.sequence).collect();
        let step = (blocks.len() / 4).max(1);
        for block in blocks.iter().step_by(step) {
            let what = format!("block at {:?} of kind {}", block.position, block.kind);
            let middle = block.bytes.start + 5..block.bytes.start + 12;
            let report = check(&[middle], &what);
            // At the log's end it looks torn.
            if segment.seal.is_some() {
                let lost_bytes = block.bytes.end - block.bytes.start;
                assert!(report.lost_blocks >= 1 && report.lost_bytes >= lost_bytes, "{report:?}");
                assert!(!report.is_complete());
            }
        }
    }
}

#[test]
fn a_seal_knows_how_many_blocks_are_lost() {
    let (_, model) = whole();
    let in_first = model.blocks.iter().filter(|block| block.position.0 == 1);
    let two: Vec<_> = in_first.skip(20).take(2).collect();
    let both = two[0].bytes.start..two[1].bytes.end;
    let report = check(from_ref(&both), "two blocks");
    assert_eq!((report.lost_blocks, report.lost_ranges.len()), (2, 1));
}

#[test]
fn a_lost_commit_block_costs_no_record() {
    let (_, model) = whole();
    let all = model.expected(&[]).contents;
    let commits: Vec<_> = model.blocks.iter().filter(|block| block.kind == COMMIT).collect();
    for block in commits.iter().step_by(commits.len() / 6) {
        let what = format!("commit block at {:?}", block.position);
        let report = check(from_ref(&block.bytes), &what);
        assert_eq!(report.keys, all.len() as u64, "{what}");
    }
}

#[test]
fn a_lost_dictionary_is_taken_from_another_segment() {
    let (_, model) = whole();
    let all = model.expected(&[]).contents.len() as u64;
    let dictionaries: Vec<_> =
        model.blocks.iter().filter(|block| block.kind == DICTIONARY).collect();
    for block in &dictionaries {
        let report = check(from_ref(&block.bytes), &format!("dictionary at {:?}", block.position));
        let copies = dictionaries.iter().filter(|other| other.digest == block.digest).count();
        if copies > 1 {
            assert_eq!((report.keys, report.lost_blocks), (all, 1));
        }
    }
    let every: Vec<Range<u64>> = dictionaries.iter().map(|block| block.bytes.clone()).collect();
    let report = check(&every, "every dictionary");
    assert!(0 < report.keys && report.keys < all, "{report:?}");
}

#[test]
fn a_value_that_has_lost_a_piece_does_not_come_back_in_an_older_form() {
    let memory = MemoryStorage::new();
    let store = small(&memory).open(PATH).unwrap();
    store.set_bytes(b"key", b"older").unwrap();
    store.flush().unwrap();
    store.set_bytes(b"key", &noise(4, 300_000)).unwrap();
    store.set_bytes(b"other", &noise(5, 100_000)).unwrap();
    store.close().unwrap();
    let model = Model::of(&memory);
    let long = model.blocks.iter().find(|block| block.bytes.end - block.bytes.start > 60_000);
    let middle = usize::try_from(long.unwrap().bytes.start).unwrap() + 30_000;
    let mut bytes = model.bytes.clone();
    bytes[middle] ^= 1;
    let Salvaged { report, found } = salvage(&bytes, None);
    assert_eq!(found.contents, BTreeMap::from([(b"other".to_vec(), noise(5, 100_000))]));
    assert_eq!(found.incomplete, BTreeSet::from([b"key".to_vec()]));
    assert_eq!((report.incomplete_values, report.incomplete_value_bytes), (1, 300_000));
    assert_eq!((report.incomplete_commits, report.keys_of_incomplete_commits), (1, 1));
}

#[test]
fn a_deletion_counts_as_long_as_its_mark_is_whole() {
    let memory = MemoryStorage::new();
    let store = small(&memory).durability(Durability::Flushed).open(PATH).unwrap();
    store.set_bytes(b"key", b"value").unwrap();
    store.delete_bytes(b"key").unwrap();
    store.set_bytes(b"other", b"value").unwrap();
    store.close().unwrap();
    let model = Model::of(&memory);
    let all = salvage(&model.bytes, None);
    assert_eq!((all.report.keys, all.report.is_complete()), (1, true));
    let mark = model.blocks.iter().filter(|block| block.kind == 1).nth(1).unwrap();
    let mut bytes = model.bytes.clone();
    bytes[usize::try_from(mark.bytes.start).unwrap() + 8] ^= 1;
    let Salvaged { report, found } = salvage(&bytes, None);
    assert_eq!(found.doubtful, BTreeSet::from([b"key".to_vec()]));
    assert_eq!((report.keys, report.is_complete()), (2, false));
}

#[test]
fn a_killed_store_gives_what_opening_it_gives() {
    let memory = MemoryStorage::new();
    let store = small(&memory).open(PATH).unwrap();
    for number in 0..2000 {
        store.set_bytes(&key(number), &value(number, 0)).unwrap();
    }
    store.flush().unwrap();
    store.delete_bytes(&key(5)).unwrap();
    store.flush().unwrap();
    let killed = killed(&memory);
    let bytes = read_file(&killed, PATH);
    let Salvaged { report, found } = salvage(&bytes, None);
    assert_eq!(found.contents, contents(&options(&killed).open_read_only(PATH).unwrap()));
    assert!(report.is_complete(), "{report:?}");
    // The last commit's end was not written.
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let Salvaged { report, found } = salvage(&bytes[..end], None);
    assert_eq!((report.uncommitted_records, report.lost_blocks), (1, 0));
    assert!(found.contents.contains_key(&key(5)) && found.doubtful.is_empty());
}

#[test]
fn a_store_in_use_is_locked_and_nothing_that_exists_is_replaced() {
    let memory = MemoryStorage::new();
    let salvage = || zkv::salvage(PATH, DESTINATION, options(&memory), |_| {});
    assert_eq!(salvage().unwrap_err().kind(), ErrorKind::NotFound);
    let store = small(&memory).open(PATH).unwrap();
    store.set_bytes(b"key", b"value").unwrap();
    assert_eq!(salvage().unwrap_err().kind(), ErrorKind::Locked);
    store.close().unwrap();
    write_file(&memory, DESTINATION, b"something else");
    assert_eq!(salvage().unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(read_file(&memory, DESTINATION), b"something else");
    let invalid = options(&memory).memory_buffer_bytes(1);
    let refused = zkv::salvage(PATH, "dir/other", invalid, |_| {});
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Misuse);
    let mut names = memory.list(Path::new("dir")).unwrap();
    names.sort();
    assert_eq!(names, [DESTINATION, PATH, INDEX].map(PathBuf::from));
}

#[test]
fn noise_over_the_start_costs_what_it_covers() {
    for count in [1, 100, 4096, 4352, 5000, 70_000, 300_000, 700_000] {
        check(from_ref(&(0..count)), &format!("the first {count} bytes"));
    }
}

#[test]
fn a_truncated_file_gives_what_is_left() {
    let (_, model) = whole();
    let end = model.bytes.len() as u64;
    let mut lengths: Vec<u64> = (1..17).map(|part| end * part / 17).collect();
    lengths.extend([end - 1, end - 40, end - 100, 4097, 4352, 4400]);
    for length in lengths {
        let expected = model.expected(from_ref(&(length..u64::MAX)));
        let bytes = &model.bytes[..usize::try_from(length).unwrap()];
        let salvaged = salvage(bytes, None);
        let mut found = salvaged.found;
        // Whether the log once went on, only the rest can tell: the model knows, salvage may not.
        assert!(found.doubtful.is_subset(&expected.doubtful), "{length} bytes");
        found.doubtful.clone_from(&expected.doubtful);
        assert_same(&found, &expected, &format!("{length} bytes"));
    }
    assert_eq!(try_salvage(&[], None).err().unwrap().kind(), ErrorKind::Corrupt);
}

#[test]
fn slots_that_changed_places_give_nothing_wrong() {
    let (_, model) = whole();
    let slot = |number: usize| &model.segments[number];
    let (one, other) = (slot(1), slot(3));
    let mut bytes = model.bytes.clone();
    let (a, b) = (usize::try_from(one.start).unwrap(), usize::try_from(other.start).unwrap());
    for at in 0..SLOT as usize {
        bytes.swap(a + at, b + at);
    }
    let lost = [one, other].map(|segment| segment.start..segment.start + u64::from(SLOT));
    let salvaged = salvage(&bytes, None);
    let mut expected = model.expected(&lost);
    expected.doubtful.clone_from(&salvaged.found.doubtful);
    assert_same(&salvaged.found, &expected, "swapped slots");
    assert_eq!(salvaged.report.missing_segments, 2);
    assert!(!salvaged.report.is_complete());
}

#[test]
fn a_slot_of_another_store_is_lost_and_nothing_else() {
    let (_, model) = whole();
    let foreign = Model::of(&filled());
    let segment = &model.segments[2];
    let lost = segment.start..segment.start + u64::from(SLOT);
    let range = usize::try_from(lost.start).unwrap()..usize::try_from(lost.end).unwrap();
    for with_header in [true, false] {
        let mut bytes = model.bytes.clone();
        bytes[range.clone()].copy_from_slice(&foreign.bytes[range.clone()]);
        let mut damage = vec![lost.clone()];
        if !with_header {
            bytes[..4096].fill(0);
            damage.push(FILE_HEADER);
        }
        let salvaged = salvage(&bytes, None);
        let mut expected = model.expected(&damage);
        expected.doubtful.clone_from(&salvaged.found.doubtful);
        assert_same(&salvaged.found, &expected, "foreign slot");
        assert_eq!(salvaged.report.missing_segments, 1);
    }
}

#[test]
fn records_of_a_collection_are_not_cleaned_away_before_it_has_its_name() {
    let memory = MemoryStorage::new();
    let store = small(&memory).open(PATH).unwrap();
    let pages: zkv::Collection<u64, Vec<u8>> = store.collection("pages").unwrap();
    // Slots that records do not fill call for cleaning soonest, where cleaning is on.
    let page = |number| noise(number, 65_250);
    (0..1000).for_each(|number| pages.set(&number, &page(number)).unwrap());
    drop(pages);
    store.close().unwrap();
    let cleaned = Cleaning::automatic().dead_percent(5).write_percent(90);
    let to = options(&memory).slot_bytes(SLOT).cleaning(cleaned);
    let report = zkv::salvage(PATH, DESTINATION, to, |_| {}).unwrap();
    assert!(report.is_complete());
    let store = options(&memory).open_read_only(DESTINATION).unwrap();
    let pages: zkv::Collection<u64, Vec<u8>> = store.collection("pages").unwrap();
    (0..1000).for_each(|number| assert!(pages.get(&number).unwrap() == Some(page(number))));
}

#[test]
fn a_value_of_a_cleared_collection_that_cleaning_has_begun_to_take_is_not_missed() {
    let memory = MemoryStorage::new();
    let open = || small(&memory).cleaning(Cleaning::default()).open(PATH).unwrap();
    let store = open();
    let big: zkv::Collection<u32, Vec<u8>> = store.collection("big").unwrap();
    // In pieces, behind which its head stands in another segment.
    big.set(&1, &noise(1, 30 * 65_536 + 60_500)).unwrap();
    big.set(&2, &b"small".to_vec()).unwrap();
    for number in 0..600 {
        store.set_bytes(&key(number), &noise(number.into(), 4000)).unwrap();
    }
    store.flush().unwrap();
    big.clear().unwrap();
    drop(big);
    store.clean().unwrap();
    assert!(store.stats().unwrap().cleaning.segments > 4);
    store.close().unwrap();
    let report = zkv::salvage(PATH, DESTINATION, small(&memory), |_| {}).unwrap();
    assert!(report.is_complete(), "{report:?}");
    let store = options(&memory).open_read_only(DESTINATION).unwrap();
    let collections: Vec<_> =
        store.collections().into_iter().map(|one| (one.name, one.keys)).collect();
    assert_eq!((collections, store.len()), (vec![("big".to_owned(), 0)], 600));
}

#[test]
fn a_tail_that_a_crash_has_torn_brings_no_cleared_collection_back() {
    let memory = MemoryStorage::new();
    let store = small(&memory).durability(Durability::Flushed).open(PATH).unwrap();
    let gone: zkv::Collection<u32, u32> = store.collection("gone").unwrap();
    gone.set(&1, &1).unwrap();
    gone.clear().unwrap();
    store.set_bytes(b"there", b"").unwrap();
    let mut batch = WriteBatch::new();
    for number in 0..100 {
        batch.set_bytes(&key(number), &noise(number.into(), 1000));
    }
    store.write(batch).unwrap();
    let torn = killed(&memory);
    let mut bytes = read_file(&torn, PATH);
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[last - 60..=last].fill(0);
    write_file(&torn, PATH, &bytes);
    let report = zkv::salvage(PATH, DESTINATION, small(&torn), |_| {}).unwrap();
    assert!(report.uncommitted_records > 0, "{report:?}");
    assert_eq!((report.keys, report.recovered_collections), (1, 0));
}
