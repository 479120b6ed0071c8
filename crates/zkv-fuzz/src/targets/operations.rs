//! Operations on a store on a simulated disk, with batches and transactions, cleaning, reopenings,
//! kills, power cuts and index files that go away, against a map.
//!
//! What is found after a kill must be the store as it was behind some earlier operation, none before
//! the last flush; after a power cut, none before the last sync.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use zkv::{Durability, Options, Store, WriteBatch};
use zkv_io::{OpenMode, Storage};
use zkv_sim::{PowerCut, SimDisk};

use super::data::{DATA, INDEX, options};

/// Operations of one input: what is behind them is not looked at.
const OPERATIONS_MAX: usize = 400;
/// Ways of cutting the power among which one is drawn.
const CUTS_MAX: usize = 16;

/// The longest value that is stored in one piece: a longer one is written at once.
const INLINE_BYTES_MAX: usize = 65_536;
/// Keys and bytes of a batch that fills a slot in good part, and that no buffer holds.
const FILL_KEYS: u8 = 6;
const FILL_BYTES: usize = 40_000;

type Contents = BTreeMap<Vec<u8>, Arc<Vec<u8>>>;

/// A key, and its new value; none deletes it.
type Write = (Vec<u8>, Option<Vec<u8>>);

pub(crate) fn run(input: &[u8]) {
    let Some((settings, operations)) = input.split_first() else { return };
    let mut run = Run::new(*settings);
    for operation in operations.chunks(3).take(OPERATIONS_MAX) {
        let [kind, key, value] = [0, 1, 2].map(|at| operation.get(at).copied().unwrap_or(0));
        run.step(kind, key, value);
    }
    run.cut_power();
    run.reopen();
}

struct Run {
    /// What the disk started from: nothing, or what a power cut has left.
    start: PowerCut,
    disk: SimDisk,
    random: fastrand::Rng,
    store: Option<Store>,
    durability: Durability,
    /// What the store held at the last sync and behind each operation since; the last is what it
    /// holds now.
    since_sync: Vec<Contents>,
    /// Which of them the operating system has, at the least.
    flushed: usize,
}

impl Run {
    fn new(settings: u8) -> Self {
        let durability = match settings % 4 {
            0 => Durability::Flushed,
            1 => Durability::Synced,
            _ => Durability::Buffered,
        };
        let mut run = Self {
            start: PowerCut::new(),
            disk: SimDisk::recording(settings.into()),
            random: fastrand::Rng::with_seed(settings.into()),
            store: None,
            durability,
            since_sync: vec![Contents::new()],
            flushed: 0,
        };
        run.store = Some(run.open());
        run
    }

    fn options(&self) -> Options {
        options(&self.disk).create(true).durability(self.durability).slot_bytes(256 << 10)
    }

    fn open(&self) -> Store {
        self.options().open(DATA).expect("a store that nobody forged opens")
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("it is open between operations")
    }

    fn step(&mut self, kind: u8, key: u8, value: u8) {
        let key = [key % 32];
        match kind % 24 {
            0..=5 => self.set(&key, vec![value; usize::from(value) * 3]),
            6 => self.set(&key, vec![value; 65_600 + usize::from(value)]),
            7..=9 => self.delete(&key),
            10 => {
                let found = self.store().get_bytes(&key).expect("a read");
                assert_eq!(found.as_ref(), self.now().get(&key[..]).map(|value| &**value));
            }
            11 => {
                self.store().flush().expect("a flush");
                self.note_flush();
            }
            12 => {
                self.store().sync().expect("a sync");
                self.note_sync();
            }
            13 => self.reopen(),
            14 if value.is_multiple_of(2) => self.kill(),
            14 => self.cut_power(),
            15 => self.lose_index(value),
            16 | 17 => self.batch(few_writes(key[0], value)),
            18 | 19 => self.transact(few_writes(key[0], value)),
            20 | 21 => self.batch(self.filling(key[0], value)),
            22 => {
                self.store().clean().expect("a cleaning");
                self.note_flush();
            }
            _ => {
                self.store().compact(|_| ()).expect("a compaction");
                self.note_sync();
            }
        }
        assert_eq!(self.store().len(), self.now().len() as u64);
    }

    /// Values that do not compress.
    fn filling(&self, first: u8, seed: u8) -> Vec<Write> {
        let turn = self.since_sync.len() as u64;
        let writes = (0..FILL_KEYS).map(|number| {
            let mut bytes = vec![0; FILL_BYTES];
            let seed = turn << 16 | u64::from(seed) << 8 | u64::from(number);
            fastrand::Rng::with_seed(seed).fill(&mut bytes);
            (vec![(first + number) % 32], Some(bytes))
        });
        writes.collect()
    }

    /// What the store holds.
    fn now(&self) -> &Contents {
        self.since_sync.last().expect("the state at the last sync is there")
    }

    fn set(&mut self, key: &[u8], value: Vec<u8>) {
        self.store().set_bytes(key, &value).expect("a write");
        // A long value is written at once, behind what waits in buffers.
        let is_written = value.len() > INLINE_BYTES_MAX;
        self.note_write(is_written, |contents| contents.insert(key.to_vec(), Arc::new(value)));
    }

    fn batch(&mut self, writes: Vec<Write>) {
        let mut batch = WriteBatch::new();
        for (key, value) in &writes {
            match value {
                Some(value) => batch.set_bytes(key, value),
                None => batch.delete_bytes(key),
            };
        }
        self.store().write(batch).expect("a batch");
        let bytes: usize = writes.iter().flat_map(|(_, value)| value).map(Vec::len).sum();
        // More than a buffer holds goes straight to the log.
        self.note_write(bytes > INLINE_BYTES_MAX, |contents| apply(contents, writes));
    }

    fn transact(&mut self, writes: Vec<Write>) {
        let mut transaction = self.store().begin().expect("a transaction");
        for (key, value) in &writes {
            match value {
                Some(value) => transaction.set_bytes(key, value).expect("a transaction's write"),
                None => drop(transaction.delete_bytes(key).expect("a transaction's delete")),
            }
        }
        transaction.commit().expect("nobody is in its way");
        self.note_write(false, |contents| apply(contents, writes));
    }

    fn delete(&mut self, key: &[u8]) {
        let deleted = self.store().delete_bytes(key).expect("a delete");
        assert_eq!(deleted, self.now().contains_key(key), "key {key:?}");
        self.note_write(false, |contents| contents.remove(key));
    }

    fn note_write<T>(&mut self, is_written: bool, change: impl FnOnce(&mut Contents) -> T) {
        let mut contents = self.now().clone();
        change(&mut contents);
        self.since_sync.push(contents);
        match self.durability {
            Durability::Synced => self.note_sync(),
            Durability::Flushed => self.note_flush(),
            _ if is_written => self.note_flush(),
            _ => {}
        }
    }

    fn note_flush(&mut self) {
        self.flushed = self.since_sync.len() - 1;
    }

    fn note_sync(&mut self) {
        self.since_sync.drain(..self.since_sync.len() - 1);
        self.flushed = 0;
    }

    fn close(&mut self) {
        if let Some(store) = self.store.take() {
            store.close().expect("a close");
        }
        self.note_sync();
    }

    fn reopen(&mut self) {
        self.close();
        self.store = Some(self.open());
        assert!(self.contents() == *self.now(), "a store that was closed has changed");
        assert_eq!(self.store().len(), self.now().len() as u64);
    }

    fn kill(&mut self) {
        self.disk = self.disk.kill();
        drop(self.store.take());
        self.store = Some(self.open());
        let found = self.contents();
        let mut states = self.since_sync[self.flushed..].iter();
        let state = states.rposition(|state| *state == found);
        let state = state.expect("a kill leaves a state that was, none before the last flush");
        // What the kill has undone never comes back.
        self.since_sync.truncate(self.flushed + state + 1);
        self.note_flush();
    }

    fn cut_power(&mut self) {
        for event in self.disk.events(0) {
            self.start.follow(&event);
        }
        let cuts = self.start.cuts(false, CUTS_MAX, &mut self.random);
        let image = self.start.image(&cuts[self.random.usize(..cuts.len())]);
        let _ = self.disk.kill();
        drop(self.store.take());
        self.disk = SimDisk::recording_from(&image, self.random.u64(..));
        self.start = PowerCut::from_image(&image);
        self.store = Some(self.open());
        let found = self.contents();
        let is_known = self.since_sync.contains(&found);
        assert!(is_known, "a power cut left what never was, or less than was synced");
        // What is there now is durable.
        self.since_sync.push(found);
        self.note_sync();
    }

    /// Closes the store, takes its index away or spoils it, and opens it.
    fn lose_index(&mut self, how: u8) {
        self.close();
        let index = Path::new(INDEX);
        if how.is_multiple_of(2) {
            let _ = self.disk.remove(index);
        } else if let Ok(file) = self.disk.open(index, OpenMode::ReadWrite) {
            let at = u64::from(how) * 7 % file.len().expect("a length").max(1);
            file.write_at(at, &[how ^ 0x5A]).expect("the disk takes it");
        }
        self.reopen();
    }

    fn contents(&self) -> Contents {
        let entries = self.store().iter_bytes().map(|entry| entry.expect("an entry"));
        entries.map(|(key, value)| (key, Arc::new(value))).collect()
    }
}

/// A few sets and a delete, of keys that stand one after another.
fn few_writes(first: u8, value: u8) -> Vec<Write> {
    let sets = (0..value % 4).map(|number| Some(vec![value; usize::from(number) * 200]));
    let values = sets.chain([None]);
    (first..).zip(values).map(|(key, value)| (vec![key % 32], value)).collect()
}

fn apply(contents: &mut Contents, writes: Vec<Write>) {
    for (key, value) in writes {
        match value {
            Some(value) => drop(contents.insert(key, Arc::new(value))),
            None => drop(contents.remove(&key)),
        }
    }
}
