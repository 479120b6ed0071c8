//! Views, moments and buffers: what readers see while others write, freeze, flush and commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use shuttle::rand::{Rng, thread_rng};
use shuttle::thread::{self, JoinHandle};
use zkv::{Collection, Durability, Options, Snapshot, Store, WriteBatch};
use zkv_model::check;
use zkv_sim::{Image, SimDisk};

const COMMITS: u8 = 3;
const WRITERS: u8 = 2;
const BUFFER_BYTES: usize = 64 << 10;

fn open() -> Store {
    // Its random bytes are the same each time.
    let disk = SimDisk::from_image(&Image::new(), 1);
    let options = Options::new().storage(Arc::new(disk)).memory_buffer_bytes(BUFFER_BYTES);
    options.slot_bytes(256 << 10).open("dir/store.zkv").unwrap()
}

/// Into a buffer, or straight to the log.
fn any_durability() -> Durability {
    if thread_rng().gen_bool(0.5) { Durability::Buffered } else { Durability::Flushed }
}

/// A writer's commits are numbered from 1, and each is of two keys. Their value is what the writer
/// had seen of the next one's commits; some are so long that the buffer is full.
fn commit(store: &Store, writer: u8, number: u8) {
    let seen = commits_of(|key| store.get_bytes(key).unwrap(), (writer + 1) % WRITERS).len();
    let mut value = vec![0; if thread_rng().gen_bool(0.5) { 1 } else { BUFFER_BYTES / 2 }];
    value[0] = u8::try_from(seen).unwrap();
    let mut batch = WriteBatch::new();
    for half in [0, 1] {
        batch.set_bytes(&[writer, number, half], &value);
    }
    store.write_with(batch, any_durability()).unwrap();
}

/// What the commits of `writer` say that are there: none behind one that is missing.
fn commits_of(get: impl Fn(&[u8]) -> Option<Vec<u8>>, writer: u8) -> Vec<u8> {
    let values = (1..=COMMITS).map(|number| get(&[writer, number, 0]).map(|value| value[0]));
    values.map_while(|value| value).collect()
}

/// What else goes on: buffers are frozen and written, and all of the index is made anew.
fn meanwhile(store: &Store) -> JoinHandle<()> {
    let store = store.clone();
    thread::spawn(move || match thread_rng().gen_range(0..4) {
        0 => store.rebuild_index().unwrap(),
        1 => store.sync().unwrap(),
        _ => store.flush().unwrap(),
    })
}

/// Holds that a snapshot is a prefix of the commits, with each of them whole, and returns how many it
/// has of each writer.
fn prefix(snapshot: &Snapshot) -> Vec<usize> {
    let found: BTreeMap<Vec<u8>, Vec<u8>> = snapshot.iter_bytes().map(Result::unwrap).collect();
    let keys: Vec<_> = found.keys().collect();
    let get = |key: &[u8]| found.get(key).cloned();
    let all: Vec<Vec<u8>> = (0..WRITERS).map(|writer| commits_of(get, writer)).collect();
    let halves = all.iter().map(|commits| 2 * commits.len()).sum::<usize>();
    assert_eq!(found.len(), halves, "a commit in part, or one without those before it: {keys:?}");
    for (writer, commits) in all.iter().enumerate() {
        let other = &all[(writer + 1) % all.len()];
        let seen = commits.iter().max().copied().unwrap_or(0);
        assert!(usize::from(seen) <= other.len(), "a commit without what it has seen: {all:?}");
    }
    assert_eq!(snapshot.len(), found.len() as u64);
    for (key, value) in &found {
        assert_eq!(snapshot.get_bytes(key).unwrap().as_ref(), Some(value));
    }
    all.iter().map(Vec::len).collect()
}

#[test]
fn a_snapshot_sees_a_prefix_of_the_commits_and_stays_so() {
    check(60, || {
        let store = open();
        let writers = (0..WRITERS).map(|writer| {
            let store = store.clone();
            thread::spawn(move || {
                (1..=COMMITS).for_each(|number| commit(&store, writer, number));
            })
        });
        let writers: Vec<_> = writers.collect();
        let meanwhile = meanwhile(&store);
        let mut last = vec![0; WRITERS.into()];
        for _ in 0..2 {
            let snapshot = store.snapshot();
            let counts = prefix(&snapshot);
            assert!(last.iter().zip(&counts).all(|(last, now)| last <= now), "a step back in time");
            assert_eq!(prefix(&snapshot), counts, "a snapshot that changes");
            last = counts;
        }
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        meanwhile.join().unwrap();
        assert_eq!(prefix(&store.snapshot()), vec![usize::from(COMMITS); WRITERS.into()]);
        store.close().unwrap();
    });
}

#[test]
fn a_get_never_sees_an_older_value_than_one_before_it() {
    check(60, || {
        let store = open();
        let writing = {
            let store = store.clone();
            thread::spawn(move || {
                for value in 1..=4 {
                    let mut batch = WriteBatch::new();
                    batch.set_bytes(b"key", &[value]);
                    store.write_with(batch, any_durability()).unwrap();
                    let read = store.get_bytes(b"key").unwrap();
                    assert_eq!(read, Some(vec![value]), "not what this thread has written");
                }
            })
        };
        let meanwhile = meanwhile(&store);
        let mut last = None;
        for _ in 0..4 {
            let value = store.get_bytes(b"key").unwrap();
            assert!(last <= value, "{value:?} behind {last:?}");
            last = value;
        }
        writing.join().unwrap();
        meanwhile.join().unwrap();
        store.close().unwrap();
    });
}

#[test]
fn a_collection_that_was_seen_cleared_stays_so() {
    check(60, || {
        let store = open();
        let collection: Collection<u8, u8> = store.collection("collection").unwrap();
        collection.set(&1, &1).unwrap();
        let clearing = {
            let collection = collection.clone();
            thread::spawn(move || collection.clear().unwrap())
        };
        let meanwhile = meanwhile(&store);
        let mut is_cleared = false;
        for _ in 0..4 {
            let is_empty = match thread_rng().gen_range(0..4) {
                0 => collection.get(&1).unwrap().is_none(),
                1 => collection.is_empty(),
                2 => collection.iter().unwrap().next().is_none(),
                _ => collection.at(&store.snapshot()).unwrap().is_empty(),
            };
            assert!(is_empty || !is_cleared, "cleared, and then full");
            is_cleared = is_empty;
        }
        clearing.join().unwrap();
        meanwhile.join().unwrap();
        assert!(collection.is_empty());
        store.close().unwrap();
    });
}
