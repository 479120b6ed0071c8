//! What is written is found, at every size and through every kind of checkpoint.

mod support;

use proptest::prelude::*;
use support::{
    ALWAYS_APPEND, CLASHING, Model, STORE_ID, check, find, first_run, hash, location, meta, open,
    path, read, run_of,
};
use zkv_index::{Change, Checkpoint, IndexError, Location, Run, Thresholds, write_first};
use zkv_io::{FileStorage, MemoryStorage, OpenMode, Storage};

#[test]
fn every_size_round_trips() {
    for count in [0, 1, 3, 100, 10_000, 200_000] {
        let (storage, mut model) = (MemoryStorage::new(), Model::new());
        let run = first_run(&mut model, count);
        let written = write_first(&storage, path(), &run, &meta(b"mark", &[])).unwrap();
        let opened = open(&storage).unwrap();
        for checkpoint in [written, opened] {
            check(&checkpoint, &model, (count..count + 1000).map(hash));
            assert_eq!(checkpoint.watermark(), b"mark");
            assert_eq!((checkpoint.key_count(), checkpoint.run_count()), (7, 1));
        }
    }
}

#[test]
fn a_store_of_three_keys_has_a_tiny_index() {
    let (storage, mut model) = (MemoryStorage::new(), Model::new());
    let sections: &[(u32, &[u8])] = &[(1, &[5; 100]), (2, &[6; 40])];
    let run = first_run(&mut model, 3);
    let checkpoint = write_first(&storage, path(), &run, &meta(&[1; 60], sections)).unwrap();
    assert_eq!(checkpoint.file_bytes(), 512 + 64 + 192);
    assert_eq!(read(&storage, path()).len(), 768);
}

#[test]
fn two_hundred_thousand_keys_take_less_than_six_bytes_each() {
    let (storage, mut model) = (MemoryStorage::new(), Model::new());
    // Two slots of 32,768 cells.
    let writes = (0..200_000).map(|key| (key, Location::new(key % 65_535 + 1)));
    let run = run_of(&mut model, writes);
    let checkpoint = write_first(&storage, path(), &run, &meta(b"", &[])).unwrap();
    assert!(checkpoint.file_bytes() < 6 * 200_000, "{} bytes", checkpoint.file_bytes());
}

#[test]
fn real_files_are_appended_to_in_place_and_then_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.idx");
    let mut model = Model::new();
    let run = first_run(&mut model, 200_000);
    let mut checkpoint = write_first(&FileStorage, &path, &run, &meta(b"", &[])).unwrap();
    let first_bytes = checkpoint.file_bytes();
    let mut tables = Vec::new();
    for round in 0..9 {
        let moved = (0..800).map(|key| (key * 7 + round, Location::new(key + 300_000 + round)));
        let run =
            run_of(&mut model, moved.chain([(round, None), (200_000 + round, Location::new(9))]));
        checkpoint = checkpoint.write_next(&FileStorage, &path, &run, &meta(b"", &[])).unwrap();
        tables.push(checkpoint.run_count());
    }
    // The fifth append merges the four before it; the seventh would pass an eighth of the base.
    assert_eq!(tables, [2, 3, 4, 5, 2, 3, 1, 2, 3]);
    assert!(checkpoint.file_bytes() < first_bytes + first_bytes / 8);
    check(&checkpoint, &model, (200_000..201_000).map(hash));
    drop(checkpoint);
    let checkpoint = Checkpoint::open(&FileStorage, &path, STORE_ID, false).unwrap();
    assert_eq!(checkpoint.number(), 9);
    check(&checkpoint, &model, (200_000..201_000).map(hash));
    assert_eq!(FileStorage.list(directory.path()).unwrap(), [path]);
}

#[test]
fn an_old_checkpoint_answers_as_ever_while_newer_ones_are_written() {
    let (storage, mut model) = (MemoryStorage::new(), Model::new());
    let run = first_run(&mut model, 500);
    let mut checkpoints = vec![write_first(&storage, path(), &run, &meta(b"", &[])).unwrap()];
    let mut models = vec![model.clone()];
    for round in 0..20 {
        let run =
            run_of(&mut model, (0..60).map(|key| (key * 9 + round, Location::new(round + 1))));
        let thresholds = Thresholds { besides_base_eighths_max: 40, ..ALWAYS_APPEND };
        let last = checkpoints.last().unwrap();
        let next = last.write_next_with(&storage, path(), &run, &meta(b"", &[]), &thresholds);
        checkpoints.push(next.unwrap());
        models.push(model.clone());
    }
    assert!(checkpoints.iter().skip(1).any(|checkpoint| checkpoint.run_count() == 1));
    for (checkpoint, model) in checkpoints.iter().zip(&models) {
        check(checkpoint, model, []);
    }
}

#[test]
fn keys_that_share_a_prefix_are_all_found() {
    let (storage, mut model) = (MemoryStorage::new(), Model::new());
    // For each of seven prefixes, more than fit ten buckets.
    let run = run_of(&mut model, (0..700).map(|key| (CLASHING + key, Location::new(key + 1))));
    let first = write_first(&storage, path(), &run, &meta(b"", &[])).unwrap();
    check(&first, &model, (0..20).map(hash));
    // One of them is deleted; two swap places, which changes no entry.
    let writes = [(7, None), (14, Location::new(22)), (21, Location::new(15))];
    let run = run_of(&mut model, writes.map(|(key, new)| (CLASHING + key, new)));
    let meta = meta(b"", &[]);
    let next = first.write_next_with(&storage, path(), &run, &meta, &ALWAYS_APPEND).unwrap();
    check(&next, &model, (0..20).map(hash));
    assert!(!find(&next, hash(CLASHING + 7)).unwrap().contains(&location(8)));
}

#[test]
fn sections_and_key_count_are_those_of_the_last_checkpoint() {
    let storage = MemoryStorage::new();
    let (empty, sections) = (Run::from_changes(Vec::new()), [(9, &b"nine"[..]), (10, &[])]);
    let first = write_first(&storage, path(), &empty, &meta(b"1", &sections)).unwrap();
    assert_eq!(first.section(9).unwrap().unwrap(), b"nine");
    assert_eq!(first.section(10).unwrap().unwrap(), b"");
    assert_eq!(first.section(11).unwrap(), None);
    let eight = [(1, &[8; 70_000][..]); 8];
    let next = first
        .write_next_with(&storage, path(), &empty, &meta(b"2", &eight), &ALWAYS_APPEND)
        .unwrap();
    assert_eq!(next.section(1).unwrap().unwrap(), [8; 70_000]);
    assert_eq!(next.section(9).unwrap(), None);
    assert_eq!((next.watermark(), next.run_count()), (&b"2"[..], 1));
    next.verify().unwrap();
}

#[test]
fn tables_that_cancel_out_are_dropped() {
    let (storage, mut model) = (MemoryStorage::new(), Model::new());
    let run = first_run(&mut model, 40);
    let mut last = write_first(&storage, path(), &run, &meta(b"", &[])).unwrap();
    let mut tables = Vec::new();
    for new in [Some(500), None, Some(501), None, None] {
        let run = run_of(&mut model, [(77, new.and_then(Location::new))]);
        let meta = meta(b"", &[]);
        last = last.write_next_with(&storage, path(), &run, &meta, &ALWAYS_APPEND).unwrap();
        tables.push(last.run_count());
        assert_eq!(read(&storage, path()).len() as u64, last.file_bytes());
    }
    assert_eq!(tables, [2, 3, 4, 5, 1]);
    check(&open(&storage).unwrap(), &model, (0..100).map(hash));
}

#[test]
fn a_file_holds_at_most_64_checkpoints() {
    let (storage, mut model) = (MemoryStorage::new(), Model::new());
    let run = first_run(&mut model, 40);
    let mut last = write_first(&storage, path(), &run, &meta(b"", &[])).unwrap();
    let mut bytes = Vec::new();
    for round in 1..=70 {
        let run = run_of(&mut model, [(round, Location::new(round + 100))]);
        let meta = meta(b"", &[]);
        last = last.write_next_with(&storage, path(), &run, &meta, &ALWAYS_APPEND).unwrap();
        bytes.push(last.file_bytes());
        check(&open(&storage).unwrap(), &model, []);
    }
    let shorter = bytes.iter().zip(&bytes[1..]).filter(|(before, after)| after < before);
    assert_eq!((shorter.count(), bytes[63] < bytes[62]), (1, true));
}

#[test]
fn limits_are_refused_by_name() {
    let storage = MemoryStorage::new();
    let empty = Run::from_changes(Vec::new());
    let sections = [(1, &b""[..]); 9];
    for meta in [meta(&[0; 129], &[]), meta(b"", &sections)] {
        let error = write_first(&storage, path(), &empty, &meta).unwrap_err();
        assert!(matches!(error, IndexError::TooLarge { .. }), "{error}");
    }
    assert!(matches!(open(&storage), Err(IndexError::Missing)));
}

#[test]
fn changes_over_another_checkpoint_are_refused() {
    let storage = MemoryStorage::new();
    let change = Change { hash: hash(1), old: Location::new(5), new: Location::new(6) };
    let run = Run::from_changes(vec![change]);
    let error = write_first(&storage, path(), &run, &meta(b"", &[])).unwrap_err();
    assert!(matches!(error, IndexError::Mismatch), "{error}");
    assert_eq!(storage.list(path().parent().unwrap()).unwrap(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_copy_opens_as_the_checkpoint_it_was_made_of() {
    let (storage, mut model) = (MemoryStorage::new(), Model::new());
    let run = first_run(&mut model, 30_000);
    let first = write_first(&storage, path(), &run, &meta(b"first", &[])).unwrap();
    let old_model = model.clone();
    let run = run_of(&mut model, (0..50).map(|key| (key, None)));
    let next =
        first.write_next_with(&storage, path(), &run, &meta(b"next", &[]), &ALWAYS_APPEND).unwrap();
    for (checkpoint, model) in [(first, old_model), (next, model)] {
        let copies = MemoryStorage::new();
        checkpoint.copy_to(&*copies.open(path(), OpenMode::CreateNew).unwrap()).unwrap();
        let copy = open(&copies).unwrap();
        assert_eq!(copy.watermark(), checkpoint.watermark());
        check(&copy, &model, (0..50).map(hash));
    }
}

/// What a generated test does.
#[derive(Clone, Debug)]
enum Step {
    /// Writes keys; a location of 0 deletes.
    Next {
        writes: Vec<(u64, u64)>,
        thresholds: usize,
    },
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let keys = prop_oneof![3 => 0..300u64, 1 => CLASHING..CLASHING + 60];
    let writes = prop::collection::vec((keys, prop_oneof![Just(0), 1..5u64, 1..1u64 << 30]), 0..80);
    let next =
        (writes, 0..3usize).prop_map(|(writes, thresholds)| Step::Next { writes, thresholds });
    prop::collection::vec(prop_oneof![4 => next, 1 => Just(Step::Reopen)], 1..25)
}

const THRESHOLDS: [Thresholds; 3] = [
    ALWAYS_APPEND,
    Thresholds { base_bytes_least: 0, besides_base_eighths_max: 12, ..Thresholds::DEFAULT },
    Thresholds::DEFAULT,
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_sequence_of_checkpoints_answers_as_a_map(count in 0u64..300, steps in steps()) {
        let (storage, mut model) = (MemoryStorage::new(), Model::new());
        let run = first_run(&mut model, count);
        let mut checkpoint = write_first(&storage, path(), &run, &meta(b"", &[])).unwrap();
        for step in steps {
            checkpoint = match step {
                Step::Next { writes, thresholds } => {
                    let writes = writes.into_iter().map(|(key, new)| (key, Location::new(new)));
                    let run = run_of(&mut model, writes);
                    let thresholds = &THRESHOLDS[thresholds];
                    checkpoint
                        .write_next_with(&storage, path(), &run, &meta(b"", &[]), thresholds)
                        .unwrap()
                }
                Step::Reopen => open(&storage).unwrap(),
            };
            check(&checkpoint, &model, (0..350).chain(CLASHING..CLASHING + 60).map(hash));
            let (bytes, file_bytes) = (read(&storage, path()).len(), checkpoint.file_bytes());
            prop_assert_eq!(bytes as u64, file_bytes);
        }
    }
}
