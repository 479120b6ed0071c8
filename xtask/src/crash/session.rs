//! A store in use, and the model that it is held against.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use zkv::{Durability, ErrorKind, Options, Store};
use zkv_io::{Storage, replace_atomically};
use zkv_sim::SimDisk;

use super::workload::{Operation, Workload};

pub const STORE: &str = "dir/store.zkv";
pub const INDEX: &str = "dir/store.zkv.idx";

/// What a store holds.
pub type Model = BTreeMap<Vec<u8>, Arc<Vec<u8>>>;

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
}

/// A copy of the store: whole or absent, and there once its making has returned.
pub struct Backup {
    pub path: PathBuf,
    pub commit: usize,
    pub end_event: usize,
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
    Options::new()
        .storage(Arc::new(disk.clone()))
        .durability(workload.durability)
        .use_index_file(workload.use_index_file)
        .slot_bytes(256 << 10)
        // The flushing thread stays out of it: what it does would come at any moment.
        .flush_interval(Duration::from_secs(3600))
}

impl<'a> Session<'a> {
    /// A session that has not opened its store yet.
    pub fn new(workload: &'a Workload, disk: SimDisk) -> Self {
        Self {
            workload,
            disk,
            store: None,
            visible: Model::new(),
            commits: vec![Model::new()],
            durable: 0,
            backups: Vec::new(),
        }
    }

    pub fn open(&mut self) -> Result<(), Trouble> {
        self.store = Some(options(&self.disk, self.workload).open(STORE)?);
        Ok(())
    }

    pub fn store(&self) -> Result<&Store, Trouble> {
        self.store.as_ref().ok_or_else(|| Trouble::Wrong("no store is open".to_owned()))
    }

    /// Does the operation `number` of the workload. What fails changes nothing of the model.
    pub fn step(&mut self, number: usize, operation: Operation) -> Result<(), Trouble> {
        match operation {
            Operation::Set(key, bytes) => return self.set(number, key, bytes),
            Operation::Delete(key) => return self.delete(key),
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
                let closed = self.store()?.clone().close();
                // Where what waits in buffers cannot be written, it stays open.
                let is_closed = |error: zkv::Error| error.kind() == ErrorKind::Misuse;
                if closed.is_ok() || self.store()?.flush().is_err_and(is_closed) {
                    self.store = None;
                }
                closed?;
                self.commit();
                self.acknowledge();
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
        }
        Ok(())
    }

    fn set(&mut self, number: usize, key: u8, bytes: u32) -> Result<(), Trouble> {
        let (key, value) = (Operation::key(key), self.workload.value(number, bytes));
        self.store()?.set_bytes(&key, &value)?;
        let is_piecewise = value.len() > 64 << 10;
        if is_piecewise {
            // What waits in buffers is written before it.
            self.commit();
        }
        self.visible.insert(key, Arc::new(value));
        self.wrote(is_piecewise);
        Ok(())
    }

    fn delete(&mut self, key: u8) -> Result<(), Trouble> {
        let key = Operation::key(key);
        let existed = self.store()?.delete_bytes(&key)?;
        let expected = self.visible.remove(&key).is_some();
        if existed != expected {
            let what = format!("delete said {existed}, and it was {expected}");
            return Err(Trouble::Wrong(what));
        }
        self.wrote(false);
        Ok(())
    }

    /// Notes a write that has returned, as the durability has it.
    fn wrote(&mut self, is_piecewise: bool) {
        match self.workload.durability {
            Durability::Synced => {
                self.commit();
                self.acknowledge();
            }
            Durability::Flushed => self.commit(),
            Durability::Buffered if is_piecewise => self.commit(),
            Durability::Buffered => {}
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
        self.store = None;
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
        let disk = self.disk.kill();
        let copied = replace_atomically(&disk, Path::new(STORE), |file| file.write_at(0, bytes));
        copied.map_err(|error| Trouble::Wrong(format!("the last backup: {error}")))?;
        (self.disk, self.store, self.visible) = (disk, None, visible);
        self.commit();
        self.acknowledge();
        self.open()
    }

    /// What a process sees of the keys of `model` and `others`, by gets alone: it writes nothing.
    pub fn read(&self, others: &[&Model]) -> Result<Model, Trouble> {
        let store = self.store()?;
        let mut found = Model::new();
        for key in others.iter().flat_map(|model| model.keys()) {
            if let Some(value) = store.get_bytes(key)? {
                found.insert(key.clone(), Arc::new(value));
            }
        }
        Ok(found)
    }

    /// Holds what the process sees against what it wrote.
    pub fn compare(&self) -> Result<(), Trouble> {
        if self.read(&[&self.visible])? != self.visible {
            return Err(Trouble::Wrong("the running store has another value".to_owned()));
        }
        let (len, expected) = (self.store()?.len(), self.visible.len());
        if len == expected as u64 {
            Ok(())
        } else {
            Err(Trouble::Wrong(format!("len is {len}, not {expected}")))
        }
    }
}
