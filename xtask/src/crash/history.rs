//! A run of a workload, and what a crash within it may leave.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use zkv::{Durability, Options, Store};
use zkv_io::Storage;
use zkv_sim::SimDisk;

use super::workload::{Operation, Workload};

pub const STORE: &str = "dir/store.zkv";
pub const INDEX: &str = "dir/store.zkv.idx";

/// What a store holds.
pub type Model = BTreeMap<Vec<u8>, Arc<Vec<u8>>>;

/// A finished run.
pub struct History {
    pub disk: SimDisk,
    /// What the store held after each commit; the first is the empty store.
    pub commits: Vec<Model>,
    /// One for the store's making, and one for each operation.
    pub spans: Vec<Span>,
    pub backups: Vec<Backup>,
}

/// The changes to the disk that one operation made, and which commits a crash may leave.
#[derive(Clone, Debug)]
pub struct Span {
    pub end_event: usize,
    /// Commits that a crash within the operation may leave as the last one.
    pub within: RangeInclusive<usize>,
    /// As `within`, once the operation has returned.
    pub behind: RangeInclusive<usize>,
    /// Whether the store's making had returned before the operation.
    pub exists: bool,
}

/// A copy of the store: whole or absent, and there once its making has returned.
pub struct Backup {
    pub path: PathBuf,
    pub commit: usize,
    pub end_event: usize,
}

/// A store in use.
struct Run<'a> {
    workload: &'a Workload,
    disk: SimDisk,
    store: Option<Store>,
    history: Vec<Model>,
    /// What the process that uses the store sees.
    visible: Model,
    /// The last commit that is acknowledged as durable.
    durable: usize,
    backups: Vec<Backup>,
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

/// Runs the workload on a new disk. Nothing fails in it, so an error is one of the store.
pub fn run(workload: &Workload) -> Result<History, String> {
    let mut run = Run {
        workload,
        disk: SimDisk::recording(workload.seed),
        store: None,
        history: vec![Model::new()],
        visible: Model::new(),
        durable: 0,
        backups: Vec::new(),
    };
    run.open()?;
    let made = run.disk.event_count();
    let span = Span { end_event: made, within: 0..=0, behind: 0..=0, exists: false };
    let mut spans = vec![span];
    for (number, operation) in workload.operations.iter().enumerate() {
        let durable = run.durable;
        let done = run.step(number, *operation);
        done.map_err(|error| format!("operation {number}, {operation}: {error}"))?;
        let (end_event, last) = (run.disk.event_count(), run.history.len() - 1);
        let (within, behind) = (durable..=last, run.durable..=last);
        spans.push(Span { end_event, within, behind, exists: true });
    }
    let Run { disk, history: commits, backups, store, .. } = run;
    // Its closing is no part of the run.
    let after = disk.kill();
    drop(store);
    Ok(History { disk: after, commits, spans, backups })
}

impl Run<'_> {
    fn open(&mut self) -> Result<(), String> {
        let opened = options(&self.disk, self.workload).open(STORE);
        self.store = Some(opened.map_err(|error| format!("open: {error}"))?);
        self.compare()
    }

    fn store(&self) -> Result<&Store, String> {
        self.store.as_ref().ok_or_else(|| "no store is open".to_owned())
    }

    fn step(&mut self, number: usize, operation: Operation) -> Result<(), String> {
        match operation {
            Operation::Set(key, bytes) => self.set(number, key, bytes)?,
            Operation::Delete(key) => self.delete(key)?,
            Operation::Flush => {
                self.store()?.flush().map_err(message)?;
                self.commit();
            }
            Operation::Sync => {
                self.store()?.sync().map_err(message)?;
                self.commit();
                self.acknowledge();
            }
            Operation::Reopen => {
                let store = self.store.take().ok_or("no store is open")?;
                store.close().map_err(message)?;
                self.commit();
                self.acknowledge();
                self.open()?;
            }
            Operation::Kill => self.kill(false)?,
            Operation::LoseIndex => self.kill(true)?,
            Operation::RebuildIndex => {
                self.store()?.rebuild_index().map_err(message)?;
                // The index is made of what was committed before, and that is synced.
                self.acknowledge();
                self.commit();
            }
            Operation::Backup => self.backup(number)?,
        }
        self.compare()
    }

    fn set(&mut self, number: usize, key: u8, bytes: u32) -> Result<(), String> {
        let (key, value) = (Operation::key(key), self.workload.value(number, bytes));
        self.store()?.set_bytes(&key, &value).map_err(message)?;
        let is_piecewise = value.len() > 64 << 10;
        if is_piecewise {
            // What waits in buffers is written before it.
            self.commit();
        }
        self.visible.insert(key, Arc::new(value));
        self.wrote(is_piecewise);
        Ok(())
    }

    fn delete(&mut self, key: u8) -> Result<(), String> {
        let key = Operation::key(key);
        let existed = self.store()?.delete_bytes(&key).map_err(message)?;
        let expected = self.visible.remove(&key).is_some();
        if existed != expected {
            return Err(format!("delete said {existed}, and it was {expected}"));
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
    fn commit(&mut self) {
        if self.history.last() != Some(&self.visible) {
            self.history.push(self.visible.clone());
        }
    }

    /// What is in the log is durable.
    fn acknowledge(&mut self) {
        self.durable = self.history.len() - 1;
    }

    fn kill(&mut self, loses_index: bool) -> Result<(), String> {
        self.disk = self.disk.kill();
        // What it does while it is dropped reaches no disk.
        self.store = None;
        self.visible = self.history.last().cloned().unwrap_or_default();
        if loses_index {
            // There may be none.
            let _ = self.disk.remove(Path::new(INDEX));
        }
        self.open()
    }

    fn backup(&mut self, number: usize) -> Result<(), String> {
        let path = PathBuf::from(format!("dir/backup-{number}.zkv"));
        self.store()?.backup(&path).map_err(message)?;
        self.commit();
        self.acknowledge();
        let end_event = self.disk.event_count();
        self.backups.push(Backup { path, commit: self.durable, end_event });
        Ok(())
    }

    /// Holds what the process sees against what it wrote, without writing anything.
    fn compare(&self) -> Result<(), String> {
        let store = self.store()?;
        for (key, value) in &self.visible {
            let found = store.get_bytes(key).map_err(message)?;
            if found.as_ref() != Some(value) {
                return Err("the running store has another value".to_owned());
            }
        }
        let (len, expected) = (store.len(), self.visible.len());
        if len == expected as u64 { Ok(()) } else { Err(format!("len is {len}, not {expected}")) }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn message(error: zkv::Error) -> String {
    error.to_string()
}
