//! The store against maps: any operations, in any order, through reopening, lost indexes, checkpoints
//! and cleaning.

#[path = "../common/mod.rs"]
mod common;
mod ends;
mod settings;
mod steps;

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use zkv::{
    Cleaning, Collection, CollectionOptions, Durability, ErrorKind, Options, Snapshot, Store,
    WriteBatch,
};
use zkv_io::{MemoryStorage, OpenMode, Storage};

use common::in_time;
use settings::{Settings, options, settings};
use steps::{End, Step, Value, Write, cleaning_step, key, step};

const PATH: &str = "dir/store.zkv";
const INDEX: &str = "dir/store.zkv.idx";

/// The default collection; the others have names.
const DEFAULT: usize = 0;
const PLACES: usize = 3;

type Named = Collection<u8, Vec<u8>>;

/// What a store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    /// By collection and key's number.
    entries: BTreeMap<(usize, u8), Vec<u8>>,
    /// What the types of the named collections that exist are called.
    types: BTreeMap<usize, String>,
    /// Collections that were ever made.
    made: usize,
}

impl Model {
    fn get(&self, place: usize, key: u8) -> Option<&Vec<u8>> {
        self.entries.get(&(place, key))
    }

    fn len_of(&self, place: usize) -> u64 {
        self.entries.keys().filter(|(of, _)| *of == place).count() as u64
    }

    /// The bytes of all keys and values of a collection, as they are encoded.
    fn raw_bytes_of(&self, place: usize) -> usize {
        let entries = self.entries.iter().filter(|((of, _), _)| *of == place);
        entries
            .map(|((_, number), value)| match place {
                DEFAULT => key(*number).len() + value.len(),
                _ => 1 + encoded_bytes(value),
            })
            .sum()
    }

    fn write(&mut self, writes: &[Write]) {
        for (place, key, value) in writes {
            match value {
                Some(value) => self.entries.insert((*place, *key), value.bytes()),
                None => self.entries.remove(&(*place, *key)),
            };
        }
    }

    /// Opens a collection, and makes it where it is missing: with a type that it never had.
    fn open(&mut self, store: &Store, place: usize) -> Named {
        if !self.types.contains_key(&place) {
            self.made += 1;
            self.types.insert(place, format!("made as {}", self.made));
        }
        self.existing(store, place)
    }

    fn existing(&self, store: &Store, place: usize) -> Named {
        let options = CollectionOptions::new().value_type(&self.types[&place]);
        store.collection_with(&name(place), &options).unwrap()
    }
}

fn name(place: usize) -> String {
    format!("collection {place}")
}

/// A length as a varint, and the bytes.
fn encoded_bytes(value: &[u8]) -> usize {
    let length_bytes = match value.len() {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        _ => 3,
    };
    length_bytes + value.len()
}

fn check_all(store: &Store, model: &Model) {
    let (mut found, mut records) = (BTreeMap::new(), store.iter_bytes());
    while let Some(entry) = records.next_borrowed() {
        let (key, value) = entry.unwrap();
        assert!(found.insert(key.to_vec(), value.to_vec()).is_none(), "no key twice");
    }
    let of_default = model.entries.iter().filter(|((place, _), _)| *place == DEFAULT);
    let expected = of_default.map(|((_, number), value)| (key(*number), value.clone()));
    assert!(found == expected.collect(), "iteration differs");
    assert_eq!(store.len(), model.len_of(DEFAULT));
    for number in 0..40 {
        let got = store.get_bytes(&key(number)).unwrap();
        assert!(got.as_ref() == model.get(DEFAULT, number), "key {number}");
    }
    // What waits in buffers is counted as keys only.
    match store.flush() {
        Ok(()) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ReadOnly),
    }
    let named_bytes = check_named(store, model);
    let stats = store.stats().unwrap();
    assert_eq!(stats.keys, model.entries.len() as u64);
    let raw = (model.raw_bytes_of(DEFAULT) + named_bytes) as u64;
    // The catalog is counted where there is one.
    assert!(stats.raw_bytes == raw || (model.made > 0 && stats.raw_bytes > raw), "live bytes");
}

/// Returns how many bytes the named collections have.
fn check_named(store: &Store, model: &Model) -> usize {
    let infos = store.collections();
    assert!(infos.iter().map(|info| &info.value_type).eq(model.types.values()), "collections");
    let mut bytes = 0;
    for (info, place) in infos.iter().zip(model.types.keys()) {
        let collection = model.existing(store, *place);
        let expected: Vec<(u8, Vec<u8>)> =
            (0..40).filter_map(|key| Some((key, model.get(*place, key)?.clone()))).collect();
        let mut found: Vec<_> = collection.iter().unwrap().map(Result::unwrap).collect();
        found.sort();
        assert!(found == expected, "iteration of {} differs", info.name);
        for key in 0..40 {
            assert!(collection.get(&key).unwrap().as_ref() == model.get(*place, key), "key {key}");
        }
        let len = model.len_of(*place);
        assert_eq!((info.keys, collection.len()), (len, len), "{}", info.name);
        assert_eq!(info.raw_bytes, model.raw_bytes_of(*place) as u64, "{}", info.name);
        bytes += model.raw_bytes_of(*place);
    }
    bytes
}

/// A snapshot, and what it must show for ever.
struct Held {
    snapshot: Snapshot,
    model: Model,
    collections: BTreeMap<usize, Named>,
}

impl Held {
    fn take(store: &Store, model: &Model) -> Self {
        let places = model.types.keys();
        let collections = places.map(|place| (*place, model.existing(store, *place))).collect();
        Self { snapshot: store.snapshot(), model: model.clone(), collections }
    }

    /// Whatever has been done to the collections since.
    fn check(&self) {
        let Self { snapshot, model, collections } = self;
        assert_eq!(snapshot.len(), model.len_of(DEFAULT));
        assert_eq!(snapshot.iter_bytes().map(Result::unwrap).count() as u64, snapshot.len());
        for number in 0..40 {
            let got = snapshot.get_bytes(&key(number)).unwrap();
            assert!(got.as_ref() == model.get(DEFAULT, number), "key {number} of a snapshot");
        }
        for (place, collection) in collections {
            let then = collection.at(snapshot).unwrap();
            assert_eq!(then.len(), model.len_of(*place));
            assert_eq!(then.iter().map(Result::unwrap).count() as u64, then.len());
            for key in 0..40 {
                let got = then.get(&key).unwrap();
                assert!(got.as_ref() == model.get(*place, key), "key {key} of a snapshot");
            }
        }
    }
}

/// A store, and what it must hold.
struct Run {
    storage: MemoryStorage,
    settings: Settings,
    store: Store,
    model: Model,
    held: Option<Held>,
    backups: u32,
    /// Index files that the store had, the oldest first.
    indexes: Vec<Vec<u8>>,
    /// Segments that were cleaned by stores that were closed since.
    cleaned: u64,
}

impl Run {
    fn new(settings: Settings) -> Self {
        let storage = MemoryStorage::new();
        let store = options(&storage, settings).open(PATH).unwrap();
        Self {
            storage,
            settings,
            store,
            model: Model::default(),
            held: None,
            backups: 0,
            indexes: Vec::new(),
            cleaned: 0,
        }
    }

    fn options(&self) -> Options {
        options(&self.storage, self.settings)
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Set(place, number, value) => self.set(*place, *number, value),
            Step::Delete(place, number) => self.delete(*place, *number),
            Step::Get(place, number) => self.get(*place, *number),
            Step::Batch(writes, durability) => self.batch(writes, *durability),
            Step::Transact(writes, end) => self.transact(writes, end),
            Step::Snapshot => {
                self.release();
                self.held = Some(Held::take(&self.store, &self.model));
            }
            Step::Clear(place) => {
                self.model.open(&self.store, *place).clear().unwrap();
                self.model.entries.retain(|(of, _), _| of != place);
            }
            Step::Drop(place) => {
                let existed = self.model.types.remove(place).is_some();
                assert_eq!(self.store.drop_collection(&name(*place)).unwrap(), existed);
                self.model.entries.retain(|(of, _), _| of != place);
            }
            Step::Fill(place, first, count, bytes) => {
                let writes = (0..*count)
                    .map(|byte| (*place, (first + byte) % 40, Some(Value { byte, bytes: *bytes })));
                self.batch(&writes.collect::<Vec<_>>(), None);
            }
            Step::Clean => in_time(&self.store, Store::clean),
            Step::Compact => self.store.compact(|_| ()).unwrap(),
            Step::Flush => self.store.flush().unwrap(),
            Step::Sync => self.store.sync().unwrap(),
            Step::RebuildIndex => self.store.rebuild_index().unwrap(),
            Step::Reopen => self.reopen(true, |_| ()),
            Step::LoseIndexAndReopen => self.reopen(false, |run| {
                let _ = run.storage.remove(Path::new(INDEX));
            }),
            Step::SwitchIndex => self.reopen(true, |run| {
                run.settings.use_index_file = !run.settings.use_index_file;
            }),
            Step::BringBackIndex => self.reopen(true, Self::bring_back_index),
            Step::Backup => self.backup(),
            Step::Len => {
                assert_eq!(self.store.len(), self.model.len_of(DEFAULT));
                for place in self.model.types.keys() {
                    let len = self.model.existing(&self.store, *place).len();
                    assert_eq!(len, self.model.len_of(*place), "collection {place}");
                }
            }
            Step::Iterate => check_all(&self.store, &self.model),
        }
    }

    fn set(&mut self, place: usize, number: u8, value: &Value) {
        match place {
            DEFAULT => self.store.set_bytes(&key(number), &value.bytes()).unwrap(),
            _ => self.model.open(&self.store, place).set(&number, &value.bytes()).unwrap(),
        }
        self.model.entries.insert((place, number), value.bytes());
    }

    fn delete(&mut self, place: usize, number: u8) {
        let deleted = match place {
            DEFAULT => self.store.delete_bytes(&key(number)).unwrap(),
            _ => self.model.open(&self.store, place).delete(&number).unwrap(),
        };
        assert_eq!(deleted, self.model.entries.remove(&(place, number)).is_some());
    }

    fn get(&mut self, place: usize, number: u8) {
        let (is_there, found) = if place == DEFAULT {
            let key = key(number);
            (self.store.contains_bytes(&key).unwrap(), self.store.get_bytes(&key).unwrap())
        } else {
            let collection = self.model.open(&self.store, place);
            (collection.contains(&number).unwrap(), collection.get(&number).unwrap())
        };
        assert_eq!(is_there, self.model.get(place, number).is_some());
        assert!(found.as_ref() == self.model.get(place, number));
    }

    fn batch(&mut self, writes: &[Write], durability: Option<Durability>) {
        let mut batch = WriteBatch::new();
        for (place, number, value) in writes {
            let value = value.as_ref().map(Value::bytes);
            match (*place, value) {
                (DEFAULT, Some(value)) => batch.set_bytes(&key(*number), &value),
                (DEFAULT, None) => batch.delete_bytes(&key(*number)),
                (place, Some(value)) => {
                    batch.set_in(&self.model.open(&self.store, place), number, &value)
                }
                (place, None) => batch.delete_in(&self.model.open(&self.store, place), number),
            };
        }
        assert_eq!(batch.len(), writes.len());
        match durability {
            Some(durability) => self.store.write_with(batch, durability).unwrap(),
            None => self.store.write(batch).unwrap(),
        }
        self.model.write(writes);
    }

    fn transact(&mut self, writes: &[Write], end: &End) {
        // A collection that did not exist when the transaction began is none to it.
        for (place, ..) in writes.iter().filter(|(place, ..)| *place != DEFAULT) {
            self.model.open(&self.store, *place);
        }
        let mut after = self.model.clone();
        let mut transaction = self.store.begin().unwrap();
        for write in writes {
            let (place, number, value) = write;
            let value = value.as_ref().map(Value::bytes);
            let (found, deleted) = if *place == DEFAULT {
                let key = key(*number);
                let found = transaction.get_bytes(&key).unwrap();
                match value {
                    Some(value) => transaction.set_bytes(&key, &value).map(|()| (found, None)),
                    None => transaction.delete_bytes(&key).map(|deleted| (found, Some(deleted))),
                }
            } else {
                let collection = after.existing(&self.store, *place);
                let mut within = collection.within(&transaction).unwrap();
                let found = within.get(number).unwrap();
                match value {
                    Some(value) => within.set(number, &value).map(|()| (found, None)),
                    None => within.delete(number).map(|deleted| (found, Some(deleted))),
                }
            }
            .unwrap();
            assert!(found.as_ref() == after.get(*place, *number), "a transaction's own read");
            assert!(deleted.is_none_or(|deleted| deleted == found.is_some()));
            after.write(std::slice::from_ref(write));
        }
        assert_eq!(transaction.iter_bytes().count() as u64, after.len_of(DEFAULT));
        match end {
            End::Commit => transaction.commit().unwrap(),
            End::CommitWith(durability) => transaction.commit_with(*durability).unwrap(),
            End::Drop => return,
        }
        self.model = after;
    }

    /// A snapshot keeps the files open.
    fn release(&mut self) {
        if let Some(held) = self.held.take() {
            held.check();
        }
    }

    fn reopen(&mut self, closes: bool, meanwhile: impl FnOnce(&mut Self)) {
        self.release();
        self.cleaned += self.store.stats().unwrap().cleaning.segments;
        // The handle is gone before the next one opens the files.
        let elsewhere = options(&MemoryStorage::new(), self.settings).open(PATH).unwrap();
        let store = std::mem::replace(&mut self.store, elsewhere);
        if closes {
            store.close().unwrap();
        } else {
            drop(store);
        }
        meanwhile(self);
        self.store = self.options().open(PATH).unwrap();
    }

    fn bring_back_index(&mut self) {
        let index = Path::new(INDEX);
        let Ok(file) = self.storage.open(index, OpenMode::ReadWrite) else { return };
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_at(0, &mut bytes).unwrap();
        self.indexes.push(bytes);
        // Each time another one, from the first on.
        let older = &self.indexes[self.indexes.len() / 3];
        file.set_len(0).unwrap();
        file.write_at(0, older).unwrap();
    }

    fn backup(&mut self) {
        self.backups += 1;
        let copies = [format!("dir/copy {}", self.backups), format!("dir/fresh {}", self.backups)];
        let options = options(&self.storage, settings(self.settings.durability, true));
        self.store.backup(&copies[0]).unwrap();
        self.store.backup_with(&copies[1], options.clone()).unwrap();
        for copy in copies {
            check_all(&options.clone().open(&copy).unwrap(), &self.model);
        }
    }

    fn finish(mut self) {
        self.release();
        check_all(&self.store, &self.model);
        let report = self.store.verify(|_| ()).unwrap();
        assert!(report.is_sound() && report.findings.is_empty(), "{report:?}");
        let options = self.options();
        self.store.close().unwrap();
        check_all(&options.clone().open_read_only(PATH).unwrap(), &self.model);
        check_all(&options.use_index_file(false).open_read_only(PATH).unwrap(), &self.model);
    }
}

fn run(steps: &[Step], settings: Settings) {
    let mut run = Run::new(settings);
    for step in steps {
        run.step(step);
    }
    run.finish();
}

#[test]
fn the_steps_that_clean_clean() {
    let mut run = Run::new(settings(Durability::Buffered, true));
    for round in 0..4 {
        for bytes in [20_000, 21_000, 22_000] {
            run.step(&Step::Fill(DEFAULT, 0, 40, bytes + round));
        }
        for step in [Step::BringBackIndex, Step::Clean, Step::BringBackIndex] {
            run.step(&step);
        }
    }
    assert!(run.cleaned > 3, "{}", run.cleaned);
    run.finish();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_buffered_store_is_a_map(steps in prop::collection::vec(step(), 1..120)) {
        run(&steps, settings(Durability::Buffered, true));
    }

    #[test]
    fn a_synced_store_is_a_map(steps in prop::collection::vec(step(), 1..120)) {
        run(&steps, settings(Durability::Synced, true));
    }

    #[test]
    fn a_store_without_an_index_file_is_a_map(steps in prop::collection::vec(step(), 1..80)) {
        run(&steps, settings(Durability::Buffered, false));
    }

    #[test]
    fn a_store_that_is_cleaned_is_a_map(
        steps in prop::collection::vec(cleaning_step(), 1..80),
        durability in steps::durability(),
        use_index_file in any::<bool>(),
    ) {
        run(&steps, settings(durability, use_index_file));
    }

    #[test]
    fn a_store_that_cleans_itself_is_a_map(
        steps in prop::collection::vec(cleaning_step(), 1..80),
        durability in steps::durability(),
    ) {
        let cleaning = Cleaning::automatic().dead_percent(5).write_percent(90);
        run(&steps, Settings { cleaning, ..settings(durability, true) });
    }
}
