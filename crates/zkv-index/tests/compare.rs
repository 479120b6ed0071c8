//! An index held against what the log says.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use support::{ALWAYS_APPEND, Model, first_run, hash, meta, path, run_of};
use zkv_index::{Checkpoint, Difference, KeyHash, Location, Rebuild, Rebuilt, Run, write_first};
use zkv_io::MemoryStorage;

/// An index of `model`, as the log tells it.
fn told(model: &Model) -> Rebuilt {
    told_of(model, usize::MAX, &|_| true)
}

/// As [`told`], of which the index need not have all.
fn told_of(model: &Model, memory_bytes: usize, is_needed: &dyn Fn(u64) -> bool) -> Rebuilt {
    let storage = Arc::new(MemoryStorage::new());
    let mut rebuild = Rebuild::new(storage, "scratch".into(), memory_bytes);
    for (number, (hash, location)) in (0..).zip(model) {
        rebuild.push(*hash, Some(*location), number).unwrap();
    }
    rebuild.finish(&mut |_, number| is_needed(number)).unwrap()
}

fn differences(told: &Rebuilt, checkpoint: Option<&Checkpoint>, changes: &Run) -> Vec<Difference> {
    let mut found = Vec::new();
    told.compare(checkpoint, changes, &mut |difference| found.push(difference)).unwrap();
    found
}

fn nothing() -> Run {
    Run::from_changes(Vec::new())
}

/// Three tables, and the changes over them.
fn sample() -> (Checkpoint, Run, Model) {
    let (storage, mut model) = (MemoryStorage::new(), BTreeMap::new());
    let run = first_run(&mut model, 2000);
    let mut checkpoint = write_first(&storage, path(), &run, &meta(b"", &[])).unwrap();
    for round in 1..3 {
        let run = run_of(&mut model, (0..300).map(|key| (key, Location::new(key * round % 7))));
        checkpoint = checkpoint
            .write_next_with(&storage, path(), &run, &meta(b"", &[]), &ALWAYS_APPEND)
            .unwrap();
    }
    let changes = run_of(&mut model, (100..400).map(|key| (key, Location::new(key % 3))));
    (checkpoint, changes, model)
}

#[test]
fn an_index_of_its_log_does_not_differ() {
    let (checkpoint, changes, model) = sample();
    assert_eq!(differences(&told(&model), Some(&checkpoint), &changes), []);
    let (mut model, run) = (Model::new(), nothing());
    assert_eq!(differences(&told(&model), None, &run), []);
    let run = first_run(&mut model, 50);
    assert_eq!(differences(&told(&model), None, &run), []);
}

#[test]
fn what_is_not_needed_is_not_written_and_may_be_there_or_not() {
    let (checkpoint, changes, model) = sample();
    let is_needed = |number: u64| !number.is_multiple_of(3);
    for memory_bytes in [0, usize::MAX] {
        let told = told_of(&model, memory_bytes, &is_needed);
        assert_eq!(differences(&told, Some(&checkpoint), &changes), []);
        let needed = (0..).zip(&model).filter(|(number, _)| is_needed(*number));
        let needed: Model = needed.map(|(_, (hash, location))| (*hash, *location)).collect();
        assert_eq!(told.key_count(), needed.len() as u64);
        let all = told_of(&model, memory_bytes, &|_| true);
        let written = told.write(&MemoryStorage::new(), path(), &meta(b"", &[])).unwrap();
        assert_eq!(differences(&told_of(&needed, 0, &|_| true), Some(&written), &nothing()), []);
        let missing = differences(&all, Some(&written), &nothing()).len();
        assert_eq!(missing, model.len() - needed.len());
    }
}

#[test]
fn what_only_one_of_them_has_is_told() {
    let (checkpoint, changes, model) = sample();
    for key in [0, 150, 350, 1999] {
        let place = model.get(&hash(key)).copied();
        let other = Location::new(77_777).unwrap();
        let mut moved = model.clone();
        moved.insert(hash(key), other);
        let mut found = differences(&told(&moved), Some(&checkpoint), &changes);
        found.retain(|difference| *difference != Difference::Unknown(other));
        let untrue: Vec<_> = place.into_iter().map(Difference::Untrue).collect();
        assert_eq!(found, untrue, "key {key}");

        let mut without = model.clone();
        without.remove(&hash(key));
        assert_eq!(differences(&told(&without), Some(&checkpoint), &changes), untrue);
    }
    let lost = KeyHash(99 << 90);
    let mut more = model;
    more.insert(lost, Location::new(5).unwrap());
    let found = differences(&told(&more), Some(&checkpoint), &changes);
    assert_eq!(found, [Difference::Unknown(Location::new(5).unwrap())]);
}
