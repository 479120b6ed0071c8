//! The store against a map: any operations, in any order, through reopening, lost indexes and
//! checkpoints.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use zkv::{Durability, ErrorKind, Options, Store};
use zkv_io::{MemoryStorage, Storage};

const PATH: &str = "dir/store.zkv";

#[derive(Clone, Debug)]
enum Step {
    Set(u8, Value),
    Delete(u8),
    Get(u8),
    Flush,
    Sync,
    RebuildIndex,
    Reopen,
    /// As after a kill: nothing is flushed by hand, the handle is just gone.
    LoseIndexAndReopen,
    Backup,
    Len,
    Iterate,
}

#[derive(Clone, Debug)]
struct Value {
    byte: u8,
    bytes: usize,
}

impl Value {
    /// Half of it compresses.
    fn bytes(&self) -> Vec<u8> {
        let mut state = u64::from(self.byte) + 1;
        let noise = std::iter::repeat_with(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        });
        let half = self.bytes / 2;
        noise.take(half).chain(std::iter::repeat_n(self.byte, self.bytes - half)).collect()
    }
}

fn key(number: u8) -> Vec<u8> {
    match number {
        0 => Vec::new(),
        1 => vec![7; 65_536],
        _ => format!("key {number}").into_bytes(),
    }
}

fn value() -> impl Strategy<Value = Value> {
    let bytes = prop_oneof![
        20 => 0usize..200,
        5 => 200usize..5000,
        1 => Just(65_536usize),
        1 => 65_537usize..300_000,
    ];
    (any::<u8>(), bytes).prop_map(|(byte, bytes)| Value { byte, bytes })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (0u8..40, value()).prop_map(|(key, value)| Step::Set(key, value)),
        8 => (0u8..40).prop_map(Step::Delete),
        8 => (0u8..40).prop_map(Step::Get),
        2 => Just(Step::Flush),
        1 => Just(Step::Sync),
        1 => Just(Step::RebuildIndex),
        2 => Just(Step::Reopen),
        1 => Just(Step::LoseIndexAndReopen),
        1 => Just(Step::Backup),
        3 => Just(Step::Len),
        2 => Just(Step::Iterate),
    ]
}

fn options(storage: &MemoryStorage, durability: Durability, use_index_file: bool) -> Options {
    Options::new()
        .storage(Arc::new(storage.clone()))
        .durability(durability)
        .use_index_file(use_index_file)
        .slot_bytes(256 << 10)
        .memory_buffer_bytes(64 << 10)
        .max_parallel_reads(1)
}

fn check_all(store: &Store, model: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let found: BTreeMap<Vec<u8>, Vec<u8>> = store.iter_bytes().map(Result::unwrap).collect();
    assert_eq!(found.len(), model.len());
    assert!(found == *model, "iteration differs");
    assert_eq!(store.iter_bytes().count(), model.len(), "no key twice");
    assert_eq!(store.len(), model.len() as u64);
    for number in 0..40 {
        let key = key(number);
        assert!(store.get_bytes(&key).unwrap() == model.get(&key).cloned(), "key {number}");
    }
    // What waits in buffers is counted as keys only.
    match store.flush() {
        Ok(()) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ReadOnly),
    }
    let stats = store.stats().unwrap();
    let raw: usize = model.iter().map(|(key, value)| key.len() + value.len()).sum();
    assert_eq!(stats.raw_bytes, raw as u64, "live bytes");
}

fn run(steps: &[Step], durability: Durability, use_index_file: bool) {
    let storage = MemoryStorage::new();
    let open = || options(&storage, durability, use_index_file).open(PATH).unwrap();
    let mut store = open();
    let mut model = BTreeMap::new();
    let mut backups = 0;
    for step in steps {
        match step {
            Step::Set(number, value) => {
                store.set_bytes(&key(*number), &value.bytes()).unwrap();
                model.insert(key(*number), value.bytes());
            }
            Step::Delete(number) => {
                let existed = model.remove(&key(*number)).is_some();
                assert_eq!(store.delete_bytes(&key(*number)).unwrap(), existed);
            }
            Step::Get(number) => {
                let key = key(*number);
                assert_eq!(store.contains_bytes(&key).unwrap(), model.contains_key(&key));
                assert!(store.get_bytes(&key).unwrap() == model.get(&key).cloned());
            }
            Step::Flush => store.flush().unwrap(),
            Step::Sync => store.sync().unwrap(),
            Step::RebuildIndex => store.rebuild_index().unwrap(),
            Step::Reopen => {
                store.close().unwrap();
                store = open();
            }
            Step::LoseIndexAndReopen => {
                drop(store);
                let _ = storage.remove(Path::new("dir/store.zkv.idx"));
                store = open();
            }
            Step::Backup => {
                backups += 1;
                let copy = format!("dir/copy {backups}");
                store.backup(&copy).unwrap();
                check_all(&options(&storage, durability, true).open(&copy).unwrap(), &model);
            }
            Step::Len => assert_eq!(store.len(), model.len() as u64),
            Step::Iterate => check_all(&store, &model),
        }
    }
    check_all(&store, &model);
    store.close().unwrap();
    let store = options(&storage, durability, use_index_file).open_read_only(PATH).unwrap();
    check_all(&store, &model);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_buffered_store_is_a_map(steps in prop::collection::vec(step(), 1..120)) {
        run(&steps, Durability::Buffered, true);
    }

    #[test]
    fn a_synced_store_is_a_map(steps in prop::collection::vec(step(), 1..120)) {
        run(&steps, Durability::Synced, true);
    }

    #[test]
    fn a_store_without_an_index_file_is_a_map(steps in prop::collection::vec(step(), 1..80)) {
        run(&steps, Durability::Buffered, false);
    }
}
