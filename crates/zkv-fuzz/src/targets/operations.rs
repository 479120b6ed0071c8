//! Operations on a store, with reopenings, kills and index files that go away, against a map.
//!
//! A kill keeps what the operating system was given, and nothing else: what is found then must be the
//! store as it was behind some earlier operation, none before the last flush.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use zkv::{Durability, Options, Store};

use super::data::{DATA, INDEX, options};
use crate::storage::SeededStorage;

/// Operations of one input: what is behind them is not looked at.
const OPERATIONS_MAX: usize = 400;

type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

pub(crate) fn run(input: &[u8]) {
    let Some((settings, operations)) = input.split_first() else { return };
    let mut run = Run::new(*settings);
    for operation in operations.chunks(3).take(OPERATIONS_MAX) {
        let [kind, key, value] = [0, 1, 2].map(|at| operation.get(at).copied().unwrap_or(0));
        run.step(kind, key, value);
    }
    run.reopen();
}

struct Run {
    storage: SeededStorage,
    store: Option<Store>,
    durability: Durability,
    seed: u64,
    /// What the store holds now.
    model: Contents,
    /// What it held behind each operation since the last flush, that one first.
    since_flush: Vec<Contents>,
}

impl Run {
    fn new(settings: u8) -> Self {
        let durability = match settings % 4 {
            0 => Durability::Flushed,
            1 => Durability::Synced,
            _ => Durability::Buffered,
        };
        // No two storages of a run draw the same numbers.
        let seed = u64::from(settings) << 32;
        let storage = SeededStorage::new(seed, []);
        let model = Contents::new();
        let since_flush = vec![Contents::new()];
        let mut run = Self { storage, store: None, durability, seed, model, since_flush };
        run.store = Some(run.open());
        run
    }

    fn options(&self) -> Options {
        options(&self.storage).create(true).durability(self.durability).slot_bytes(256 << 10)
    }

    fn open(&self) -> Store {
        self.options().open(DATA).expect("a store that nobody forged opens")
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("it is open between operations")
    }

    fn step(&mut self, kind: u8, key: u8, value: u8) {
        let key = [key % 32];
        match kind % 16 {
            0..=5 => self.set(&key, vec![value; usize::from(value) * 3]),
            6 => self.set(&key, vec![value; 65_600 + usize::from(value)]),
            7..=9 => self.delete(&key),
            10 => {
                let found = self.store().get_bytes(&key).expect("a read");
                assert_eq!(found.as_ref(), self.model.get(&key[..]), "key {key:?}");
            }
            11 => {
                self.store().flush().expect("a flush");
                self.note_flush();
            }
            12 => {
                self.store().sync().expect("a sync");
                self.note_flush();
            }
            13 => self.reopen(),
            14 => self.kill(),
            _ => self.lose_index(value),
        }
    }

    fn set(&mut self, key: &[u8], value: Vec<u8>) {
        self.store().set_bytes(key, &value).expect("a write");
        // A long value is written at once, behind what waits in buffers.
        let is_written = value.len() > 65_536;
        self.model.insert(key.to_vec(), value);
        self.note_write(is_written);
    }

    fn delete(&mut self, key: &[u8]) {
        let deleted = self.store().delete_bytes(key).expect("a delete");
        assert_eq!(deleted, self.model.remove(key).is_some(), "key {key:?}");
        self.note_write(false);
    }

    fn note_write(&mut self, is_written: bool) {
        self.since_flush.push(self.model.clone());
        if is_written || self.durability != Durability::Buffered {
            self.note_flush();
        }
    }

    fn note_flush(&mut self) {
        self.since_flush = vec![self.model.clone()];
    }

    fn reopen(&mut self) {
        if let Some(store) = self.store.take() {
            store.close().expect("a close");
        }
        self.store = Some(self.open());
        assert!(self.contents() == self.model, "a store that was closed has changed");
        assert_eq!(self.store().len(), self.model.len() as u64);
        self.note_flush();
    }

    /// Goes on with the files as they are now; the old store writes into files that nobody reads.
    fn kill(&mut self) {
        let files = [DATA, INDEX].map(|name| (name, self.storage.read(Path::new(name))));
        let files =
            files.iter().filter_map(|(name, bytes)| Some((Path::new(*name), bytes.as_deref()?)));
        self.seed += 1;
        let after = SeededStorage::new(self.seed, files);
        let killed = std::mem::replace(&mut self.storage, after);
        drop(self.store.take());
        drop(killed);
        self.store = Some(self.open());
        let found = self.contents();
        assert!(self.since_flush.contains(&found), "a kill left what never was, or too little");
        self.model = found;
        self.note_flush();
    }

    /// Closes the store, takes its index away or spoils it, and opens it.
    fn lose_index(&mut self, how: u8) {
        if let Some(store) = self.store.take() {
            store.close().expect("a close");
        }
        let index = Path::new(INDEX);
        let storage: Arc<dyn zkv_io::Storage> = Arc::new(self.storage.clone());
        if how.is_multiple_of(2) {
            let _ = storage.remove(index);
        } else if let Ok(file) = storage.open(index, zkv_io::OpenMode::ReadWrite) {
            let at = u64::from(how) * 7 % file.len().expect("a length").max(1);
            file.write_at(at, &[how ^ 0x5A]).expect("memory takes it");
        }
        self.reopen();
    }

    fn contents(&self) -> Contents {
        self.store().iter_bytes().map(|entry| entry.expect("an entry")).collect()
    }
}
