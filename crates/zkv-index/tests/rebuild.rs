//! An index rebuilt from facts equals the one that the facts describe, in little memory.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use support::{CLASHING, Model, check, hash, meta, open, path};
use zkv_index::{IndexError, Location, Rebuild};
use zkv_io::{MemoryStorage, OpenMode, Storage, TEMPORARY_SUFFIX};

fn file_count(storage: &MemoryStorage) -> usize {
    storage.list(path().parent().unwrap()).unwrap().len()
}

/// Builds from `facts`, checks against what they say, and returns how many files there were before
/// the index was.
fn check_facts(facts: &[(u64, u64)], memory_bytes: usize) -> usize {
    let storage = Arc::new(MemoryStorage::new());
    let mut rebuild = Rebuild::new(storage.clone(), path().to_owned(), memory_bytes);
    let (mut model, mut weights) = (Model::new(), BTreeMap::new());
    for (weight, &(key, place)) in (0..).zip(facts) {
        rebuild.push(hash(key), Location::new(place), weight).unwrap();
        weights.insert(key, (Location::new(place), weight));
        match Location::new(place) {
            Some(place) => model.insert(hash(key), place),
            None => model.remove(&hash(key)),
        };
    }
    let scratch_count = file_count(&storage);
    let mut live = Vec::new();
    let rebuilt = rebuild.finish(&mut |place, weight| {
        live.push((Some(place), weight));
        true
    });
    let rebuilt = rebuilt.unwrap();
    assert_eq!(rebuilt.key_count(), model.len() as u64);
    let mut expected: Vec<_> = weights.into_values().filter(|fact| fact.0.is_some()).collect();
    live.sort_unstable();
    expected.sort_unstable();
    assert_eq!(live, expected);

    let checkpoint = rebuilt.write(&*storage, path(), &meta(b"mark", &[])).unwrap();
    assert_eq!((checkpoint.watermark(), checkpoint.number()), (&b"mark"[..], 0));
    check(&checkpoint, &model, facts.iter().map(|fact| hash(fact.0)));
    check(&open(&*storage).unwrap(), &model, []);
    assert_eq!(storage.list(path().parent().unwrap()).unwrap(), [path()]);
    scratch_count
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn the_last_fact_of_each_key_counts(
        facts in prop::collection::vec((prop_oneof![0..700u64, CLASHING..CLASHING + 20], 0..50u64), 0..3000)
    ) {
        let scratch_count = check_facts(&facts, 0);
        prop_assert_eq!(scratch_count, usize::from(facts.len() > 256));
        prop_assert_eq!(check_facts(&facts, 1 << 20), 0);
    }
}

#[test]
fn half_a_million_facts_fit_a_megabyte() {
    let facts: Vec<_> = (0..500_000).map(|fact| (fact * 7 % 300_000, fact % 70_000)).collect();
    assert_eq!(check_facts(&facts, 1 << 20), 1);
}

#[test]
fn the_scratch_file_is_private_to_the_build_and_goes_with_it() {
    let storage = Arc::new(MemoryStorage::new());
    let mut rebuild = Rebuild::new(storage.clone(), path().to_owned(), 0);
    for key in 0..300 {
        rebuild.push(hash(key), Location::new(1), 0).unwrap();
    }
    let names = storage.list(path().parent().unwrap()).unwrap();
    assert!(
        names.len() == 1 && names[0].to_str().unwrap().ends_with(TEMPORARY_SUFFIX),
        "{names:?}"
    );
    drop(rebuild.finish(&mut |_, _| true).unwrap());
    assert_eq!(file_count(&storage), 0);
}

/// Flips a bit of the only file that there is.
fn flip(storage: &MemoryStorage, at: u64) {
    let path = storage.list(path().parent().unwrap()).unwrap().remove(0);
    let file = storage.open(&path, OpenMode::ReadWrite).unwrap();
    let mut byte = [0];
    file.read_at(at, &mut byte).unwrap();
    file.write_at(at, &[byte[0] ^ 1]).unwrap();
}

#[test]
fn what_has_changed_in_the_scratch_file_becomes_no_index() {
    const KEYS: u64 = 600;
    let spilled = || {
        let storage = Arc::new(MemoryStorage::new());
        let mut rebuild = Rebuild::new(storage.clone(), path().to_owned(), 0);
        for key in 0..KEYS {
            rebuild.push(hash(key), Location::new(key + 1), 1).unwrap();
        }
        (storage, rebuild)
    };
    let is_told = |error: IndexError| error.to_string().contains("the scratch file has changed");
    // Of the first facts that were written, which take 32 bytes each: a hash, a location, a weight.
    for at in (0..256 * 32).step_by(13) {
        let (storage, rebuild) = spilled();
        flip(&storage, at);
        let finished = rebuild.finish(&mut |_, _| true);
        assert!(is_told(finished.unwrap_err()), "{at}");
    }
    // Behind all facts lie the survivors, with 16 bytes each.
    for at in (KEYS * 32..KEYS * 48).step_by(13) {
        let (storage, rebuild) = spilled();
        let rebuilt = rebuild.finish(&mut |_, _| true).unwrap();
        flip(&storage, at);
        let written = rebuilt.write(&*storage, path(), &meta(b"", &[]));
        assert!(is_told(written.unwrap_err()), "{at}");
    }
}
