//! A store in use, and the model that it is held against.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use zkv::{Cleaning, Durability, ErrorKind, Options, Snapshot, Store, WriteBatch};
use zkv_io::{Storage, replace_atomically};
use zkv_sim::SimDisk;

use super::model::{self, DEFAULT, Model, Named};
use super::workload::{Change, Operation, Place, Workload};

pub const STORE: &str = "dir/store.zkv";
pub const INDEX: &str = "dir/store.zkv.idx";
pub const SLOT_BYTES: u32 = 256 << 10;

/// A store that runs a workload, step by step.
pub struct Session<'a> {
    pub workload: &'a Workload,
    pub disk: SimDisk,
    /// `None` where an opening has failed.
    pub store: Option<Store>,
    /// What the process that uses the store sees.
    pub visible: Model,
    /// What the store held after each commit; the first is the empty store.
    pub commits: Vec<Model>,
    /// The last commit that is acknowledged as durable.
    pub durable: usize,
    pub backups: Vec<Backup>,
    pub use_index_file: bool,
    /// What is other than with most sessions.
    pub adjust: fn(Options) -> Options,
    held: Option<Held>,
    /// Values that may wait in the store's buffer, at the most.
    buffered_bytes: u32,
}

/// A copy of the store: whole or absent, and there once its making has returned.
pub struct Backup {
    pub path: PathBuf,
    pub commit: usize,
    pub end_event: usize,
}

/// A snapshot, and what it shows for as long as it is held.
struct Held {
    snapshot: Snapshot,
    model: Model,
    collections: Vec<(Place, Named)>,
}

/// Why a step did not go as it should.
#[derive(Debug)]
pub enum Trouble {
    /// The store says that it failed.
    Refused(zkv::Error),
    /// The store says something that is not so.
    Wrong(String),
}

impl From<zkv::Error> for Trouble {
    fn from(error: zkv::Error) -> Self {
        Self::Refused(error)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(formatter),
            Self::Wrong(what) => formatter.write_str(what),
        }
    }
}

pub fn options(disk: &SimDisk, workload: &Workload) -> Options {
    let options = match workload.buffer_bytes() {
        Some(bytes) => Options::new().memory_buffer_bytes(bytes as usize),
        None => Options::new(),
    };
    options
        .storage(Arc::new(disk.clone()))
        .durability(workload.durability)
        .use_index_file(workload.index.is_used())
        .index_thresholds(workload.index.thresholds())
        .slot_bytes(SLOT_BYTES)
        // The flushing and the cleaning thread stay out of it: what they do would come at any moment.
        .flush_interval(Duration::from_secs(3600))
        .cleaning(Cleaning::Off)
}

impl<'a> Session<'a> {
    /// A session that has not opened its store yet.
    pub fn new(workload: &'a Workload, disk: SimDisk) -> Self {
        Self {
            workload,
            disk,
            store: None,
            visible: Model::default(),
            commits: vec![Model::default()],
            durable: 0,
            backups: Vec::new(),
            use_index_file: workload.index.is_used(),
            adjust: |options| options,
            held: None,
            buffered_bytes: 0,
        }
    }

    pub fn open(&mut self) -> Result<(), Trouble> {
        let options = options(&self.disk, self.workload).use_index_file(self.use_index_file);
        self.store = Some((self.adjust)(options).open(STORE)?);
        Ok(())
    }

    pub fn store(&self) -> Result<&Store, Trouble> {
        self.store.as_ref().ok_or_else(|| Trouble::Wrong("no store is open".to_owned()))
    }

    /// Does the operation `number` of the workload. What fails changes nothing of the model.
    pub fn step(&mut self, number: usize, operation: Operation) -> Result<(), Trouble> {
        match operation {
            Operation::Set(..)
            | Operation::Delete(..)
            | Operation::Batch { .. }
            | Operation::Transact { .. }
            | Operation::Clear(_)
            | Operation::Drop(_) => return self.change(number, operation),
            Operation::Flush => {
                self.store()?.flush()?;
                self.commit();
            }
            Operation::Sync => {
                self.store()?.sync()?;
                self.commit();
                self.acknowledge();
            }
            Operation::Reopen => {
                self.close()?;
                return self.open();
            }
            Operation::SwitchIndex => {
                self.close()?;
                self.use_index_file = !self.use_index_file;
                return self.open();
            }
            Operation::Kill => return self.kill(false),
            Operation::LoseIndex => return self.kill(true),
            Operation::RebuildIndex => {
                self.store()?.rebuild_index()?;
                // The index is made of what was committed before, and that is synced.
                self.acknowledge();
                self.commit();
            }
            Operation::Backup => return self.backup(number),
            Operation::Restore => return self.restore(),
            Operation::Clean => {
                self.store()?.clean()?;
                self.commit();
            }
            Operation::Compact => {
                self.store()?.compact(|_| ())?;
                // The segment that all of it begins with is synced.
                self.commit();
                self.acknowledge();
            }
            Operation::Hold => self.held = Some(Held::new(self.store()?, &self.visible)?),
            Operation::Release => self.held = None,
        }
        Ok(())
    }

    /// Does an operation that changes what the store holds, and notes what its commits leave.
    fn change(&mut self, number: usize, operation: Operation) -> Result<(), Trouble> {
        self.make_room(operation)?;
        let states = self.visible.after(self.workload, number, operation);
        for place in operation.places().into_iter().filter(|place| *place != DEFAULT) {
            if !self.visible.types.contains_key(&place) {
                model::open(self.store()?, place, &model::type_of(number))?;
            }
        }
        self.write(number, operation, states.last().unwrap_or(&self.visible))?;
        let last = states.len().saturating_sub(1);
        for (turn, state) in states.into_iter().enumerate() {
            let goes_straight = turn < last || operation.goes_straight();
            if goes_straight {
                // What waits in buffers is written before it.
                self.commit();
            }
            self.visible = state;
            self.wrote(goes_straight);
        }
        if let Operation::Transact { is_synced: true, .. } = operation {
            self.acknowledge();
        }
        Ok(())
    }

    /// Flushes before a small buffer is full: else the flushing thread would.
    fn make_room(&mut self, operation: Operation) -> Result<(), Trouble> {
        let Some(buffer_bytes) = self.workload.buffer_bytes() else { return Ok(()) };
        let bytes = if operation.goes_straight() { 0 } else { operation.value_bytes() };
        if self.buffered_bytes + bytes > buffer_bytes / 2 {
            self.store()?.flush()?;
            self.commit();
            self.buffered_bytes = 0;
        }
        self.buffered_bytes += bytes;
        Ok(())
    }

    /// Writes, to collections that exist. `after` is what the store then holds.
    fn write(&self, number: usize, operation: Operation, after: &Model) -> Result<(), Trouble> {
        let store = self.store()?;
        let writes = operation.writes(self.workload, number);
        match operation {
            Operation::Clear(place) if self.visible.types.contains_key(&place) => {
                self.visible.open(store, place)?.clear()?;
            }
            Operation::Drop(place) => {
                let existed = store.drop_collection(&model::name(place))?;
                expect("drop", existed, self.visible.types.contains_key(&place))?;
            }
            Operation::Batch { .. } => store.write(batch(store, writes, after)?)?,
            Operation::Transact { is_synced, .. } => {
                self.transact(writes, after, is_synced)?;
            }
            _ => {
                for (place, key, value) in writes {
                    self.write_one(place, &key, value, after)?;
                }
            }
        }
        Ok(())
    }

    fn write_one(
        &self,
        place: Place,
        key: &Vec<u8>,
        value: Option<Vec<u8>>,
        after: &Model,
    ) -> Result<(), Trouble> {
        let store = self.store()?;
        let expected = self.visible.get(place, key).is_some();
        match (place, value) {
            (DEFAULT, Some(value)) => store.set_bytes(key, &value)?,
            (DEFAULT, None) => expect("delete", store.delete_bytes(key)?, expected)?,
            (_, Some(value)) => after.open(store, place)?.set(key, &value)?,
            (_, None) => expect("delete", after.open(store, place)?.delete(key)?, expected)?,
        }
        Ok(())
    }

    fn transact(&self, writes: Vec<Change>, after: &Model, is_synced: bool) -> Result<(), Trouble> {
        let store = self.store()?;
        let mut transaction = store.begin()?;
        for (place, key, value) in writes {
            let value = value.unwrap_or_default();
            let found = if place == DEFAULT {
                let found = transaction.get_bytes(&key)?;
                transaction.set_bytes(&key, &value)?;
                found
            } else {
                let collection = after.open(store, place)?;
                let mut within = collection.within(&transaction)?;
                let found = within.get(&key)?;
                within.set(&key, &value)?;
                found
            };
            if found.as_ref() != self.visible.get(place, &key).map(|value| &**value) {
                return Err(Trouble::Wrong("a transaction reads another value".to_owned()));
            }
        }
        if is_synced {
            transaction.commit_with(Durability::Synced)?;
        } else {
            transaction.commit()?;
        }
        Ok(())
    }

    /// Notes a write that has returned, as the durability has it.
    fn wrote(&mut self, went_straight: bool) {
        match self.workload.durability {
            Durability::Synced => {
                self.commit();
                self.acknowledge();
            }
            Durability::Flushed => self.commit(),
            _ if went_straight => self.commit(),
            _ => {}
        }
    }

    /// What is visible is in the log.
    pub fn commit(&mut self) {
        if self.commits.last() != Some(&self.visible) {
            self.commits.push(self.visible.clone());
        }
    }

    /// What is in the log is durable.
    pub fn acknowledge(&mut self) {
        self.durable = self.commits.len() - 1;
    }

    pub fn close(&mut self) -> Result<(), Trouble> {
        // It keeps the files open.
        self.held = None;
        let closed = self.store()?.clone().close();
        // Where what waits in buffers cannot be written, it stays open.
        let is_closed = |error: zkv::Error| error.kind() == ErrorKind::Misuse;
        if closed.is_ok() || self.store()?.flush().is_err_and(is_closed) {
            self.store = None;
        }
        closed?;
        self.commit();
        self.acknowledge();
        Ok(())
    }

    fn kill(&mut self, loses_index: bool) -> Result<(), Trouble> {
        self.end_process();
        self.visible = self.commits.last().cloned().unwrap_or_default();
        if loses_index {
            // There may be none.
            let _ = self.disk.remove(Path::new(INDEX));
        }
        self.open()
    }

    /// Ends the process as a kill does.
    pub fn end_process(&mut self) {
        self.disk = self.disk.kill();
        // What it does while it is dropped reaches no disk.
        (self.store, self.held) = (None, None);
        self.buffered_bytes = 0;
    }

    fn backup(&mut self, number: usize) -> Result<(), Trouble> {
        // Another life, with a seed of its own, may have made backups before.
        let path = PathBuf::from(format!("dir/backup-{}-{number}.zkv", self.workload.seed));
        self.store()?.backup(&path)?;
        self.commit();
        self.acknowledge();
        let end_event = self.disk.event_count();
        self.backups.push(Backup { path, commit: self.durable, end_event });
        Ok(())
    }

    /// Whoever does this waits until it is durable, before anybody opens the store.
    fn restore(&mut self) -> Result<(), Trouble> {
        let Some(Backup { path, commit, .. }) = self.backups.last() else { return Ok(()) };
        let (image, visible) = (self.disk.image(), self.commits[*commit].clone());
        let bytes = image.get(path).unwrap_or_default();
        self.end_process();
        let disk = self.disk.clone();
        let copied = disk
            .spared(|| replace_atomically(&disk, Path::new(STORE), |file| file.write_at(0, bytes)));
        copied.map_err(|error| Trouble::Wrong(format!("the last backup: {error}")))?;
        self.visible = visible;
        self.commit();
        self.acknowledge();
        self.open()
    }

    /// What a process sees of the keys of `models`, by gets alone: it writes nothing.
    pub fn read(&self, models: &[&Model]) -> Result<Model, Trouble> {
        Model::read(self.store()?, models.iter().copied())
    }

    /// Holds what the process sees against what it wrote.
    pub fn compare(&self) -> Result<(), Trouble> {
        self.compare_values()?;
        let store = self.store()?;
        self.visible.check_len(DEFAULT, store.len())?;
        for place in self.visible.types.keys() {
            self.visible.check_len(*place, self.visible.open(store, *place)?.len())?;
        }
        Ok(())
    }

    /// As [`Session::compare`], without counts, which leave out what cannot be read.
    pub fn compare_values(&self) -> Result<(), Trouble> {
        if self.read(&[&self.visible])? != self.visible {
            return Err(Trouble::Wrong("the running store has another value".to_owned()));
        }
        self.held.as_ref().map_or(Ok(()), Held::compare)
    }
}

impl Held {
    fn new(store: &Store, visible: &Model) -> Result<Self, Trouble> {
        let places = visible.types.keys().map(|place| Ok((*place, visible.open(store, *place)?)));
        let collections = places.collect::<Result<_, Trouble>>()?;
        Ok(Self { snapshot: store.snapshot(), model: visible.clone(), collections })
    }

    /// Whatever has been done to the store since.
    fn compare(&self) -> Result<(), Trouble> {
        let Self { snapshot, model, collections } = self;
        let mut found = Model { types: model.types.clone(), ..Model::default() };
        for entry in snapshot.iter_bytes() {
            found.take(DEFAULT, entry)?;
        }
        for (place, collection) in collections {
            for entry in collection.at(snapshot)?.iter() {
                found.take(*place, entry)?;
            }
        }
        if found == *model {
            return Ok(());
        }
        Err(Trouble::Wrong("a snapshot shows something else than what it was taken of".to_owned()))
    }
}

fn batch(store: &Store, writes: Vec<Change>, after: &Model) -> Result<WriteBatch, Trouble> {
    let mut batch = WriteBatch::new();
    for (place, key, value) in writes {
        match (place, value) {
            (DEFAULT, Some(value)) => batch.set_bytes(&key, &value),
            (DEFAULT, None) => batch.delete_bytes(&key),
            (_, Some(value)) => batch.set_in(&after.open(store, place)?, &key, &value),
            (_, None) => batch.delete_in(&after.open(store, place)?, &key),
        };
    }
    Ok(batch)
}

fn expect(what: &str, existed: bool, expected: bool) -> Result<(), Trouble> {
    if existed == expected {
        return Ok(());
    }
    Err(Trouble::Wrong(format!("{what} said {existed}, and it was {expected}")))
}
