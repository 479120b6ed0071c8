//! What the tests share: keys, a model, and a storage that fails on demand.

// Each test target uses a part of it.
#![allow(dead_code, unused_imports)]

mod fault;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub use fault::{FaultStorage, Operation};
use zkv_index::{
    Candidates, Change, Checkpoint, CheckpointMeta, HASH_BITS, IndexError, KeyHash, Location, Run,
    Thresholds,
};
use zkv_io::{MemoryStorage, OpenMode, Storage};

pub const STORE_ID: [u8; 16] = *b"the store's name";
pub const PATH: &str = "dir/store.idx";

/// Every checkpoint is appended, however small the file.
pub const ALWAYS_APPEND: Thresholds =
    Thresholds { base_bytes_least: 0, besides_base_eighths_max: u64::MAX, ..Thresholds::DEFAULT };

pub type Model = BTreeMap<KeyHash, Location>;

pub fn path() -> &'static Path {
    Path::new(PATH)
}

/// Keys from here on share the prefixes of keys 0 to 6.
pub const CLASHING: u64 = 1 << 40;

/// A hash as uniform as a real one, but for [`CLASHING`] keys.
pub fn hash(key: u64) -> KeyHash {
    let uniform = u128::from(mix(key)) << 64 | u128::from(mix(!key));
    if key < CLASHING {
        return KeyHash(uniform);
    }
    KeyHash(prefix(hash(key % 7)) << (128 - HASH_BITS) | uniform >> HASH_BITS)
}

/// The part of a hash that the file keeps.
pub fn prefix(hash: KeyHash) -> u128 {
    hash.0 >> (128 - HASH_BITS)
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

pub fn location(number: u64) -> Location {
    Location::new(number).unwrap()
}

/// Applies `writes` to `model`, and returns what they changed.
pub fn run_of(model: &mut Model, writes: impl IntoIterator<Item = (u64, Option<Location>)>) -> Run {
    let writes: BTreeMap<_, _> = writes.into_iter().map(|(key, new)| (hash(key), new)).collect();
    let change = |(hash, new): (KeyHash, Option<Location>)| {
        let old = match new {
            Some(new) => model.insert(hash, new),
            None => model.remove(&hash),
        };
        Change { hash, old, new }
    };
    Run::from_changes(writes.into_iter().map(change).collect())
}

/// Keys `0..count`, each in its own place.
pub fn first_run(model: &mut Model, count: u64) -> Run {
    run_of(model, (0..count).map(|key| (key, Location::new(key + 1))))
}

pub fn meta<'a>(watermark: &'a [u8], sections: &'a [(u32, &'a [u8])]) -> CheckpointMeta<'a> {
    CheckpointMeta { store_id: STORE_ID, watermark, sections, key_count: 7 }
}

pub fn open(storage: &dyn Storage) -> Result<Checkpoint, IndexError> {
    Checkpoint::open(storage, path(), STORE_ID, true)
}

pub fn find(checkpoint: &Checkpoint, hash: KeyHash) -> Result<Vec<Location>, IndexError> {
    let mut candidates = Candidates::new();
    checkpoint.candidates(hash, &mut candidates)?;
    Ok(candidates.to_vec())
}

/// For every key of `model`, and of `others`, exactly those places are found where some key with
/// its prefix lies; and the file is whole.
pub fn check(checkpoint: &Checkpoint, model: &Model, others: impl IntoIterator<Item = KeyHash>) {
    let places = places_of(model);
    for hash in model.keys().copied().chain(others) {
        let found = find(checkpoint, hash).unwrap();
        assert_eq!(sorted(&found), expected(&places, hash), "{hash:x?}");
    }
    checkpoint.verify().unwrap();
}

/// By prefix, where keys lie.
pub type Places = BTreeMap<u128, BTreeSet<Location>>;

pub fn places_of(model: &Model) -> Places {
    let mut places = Places::new();
    for (&hash, &location) in model {
        places.entry(prefix(hash)).or_default().insert(location);
    }
    places
}

pub fn expected(places: &Places, hash: KeyHash) -> Vec<Location> {
    places.get(&prefix(hash)).into_iter().flatten().copied().collect()
}

pub fn sorted(found: &[Location]) -> Vec<Location> {
    let mut found = found.to_vec();
    found.sort_unstable();
    found
}

pub fn read(storage: &dyn Storage, path: &Path) -> Vec<u8> {
    let file = storage.open(path, OpenMode::ReadOnly).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

/// A storage that holds `bytes` as the index file and nothing else.
pub fn storage_with(bytes: &[u8]) -> MemoryStorage {
    let storage = MemoryStorage::new();
    storage.open(path(), OpenMode::CreateNew).unwrap().write_at(0, bytes).unwrap();
    storage
}
