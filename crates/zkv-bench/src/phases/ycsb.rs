//! The core workloads of YCSB (Cooper et al., SoCC 2010), on one thread. Each read sees the newest
//! state. Writes are relaxed; what is written is synced at the end, within the time. A tenth as many
//! operations come before those that are measured.

use zkv_measure::figures::float;
use zkv_measure::random::Random;

use crate::Failure;
use crate::child::{Figures, Task};
use crate::engine::{Engine, Reader, Safety};
use crate::phases::{seconds, touch};
use crate::records::below;
use crate::zipf::Zipf;

/// The most records of one scan.
const SCAN_MAX: usize = 100;
/// One scan stands for so many other operations.
const OPERATIONS_PER_SCAN: usize = 10;

/// A workload: which of a hundred operations are what; the rest are reads.
struct Workload {
    name: char,
    updates: u64,
    inserts: u64,
    scans: u64,
    modifications: u64,
    /// Whether it reads what came last, and not what is hot.
    is_latest: bool,
}

const fn workload(
    name: char,
    updates: u64,
    inserts: u64,
    scans: u64,
    modifications: u64,
) -> Workload {
    Workload { name, updates, inserts, scans, modifications, is_latest: inserts > 0 && scans == 0 }
}

/// In the order in which YCSB advises to run them on one load, the scans last.
const WORKLOADS: [Workload; 6] = [
    workload('a', 50, 0, 0, 0),
    workload('b', 5, 0, 0, 0),
    workload('c', 0, 0, 0, 0),
    workload('f', 0, 0, 0, 50),
    workload('d', 0, 5, 0, 0),
    workload('e', 0, 5, 95, 0),
];

struct Session<'a> {
    task: &'a Task<'a>,
    engine: &'a dyn Engine,
    reader: Box<dyn Reader + 'a>,
    zipf: Zipf,
    random: Random,
    /// Keys that were not in the import.
    inserted: Vec<Vec<u8>>,
    sum: u64,
}

pub fn all(task: &Task<'_>, figures: &mut Figures) -> Result<(), Failure> {
    let engine = task.engine.open(&task.folder, &task.setup(None))?;
    let mut session = Session {
        task,
        engine: &*engine,
        reader: engine.writing_reader()?,
        zipf: Zipf::new(task.records.count()),
        random: Random::new(task.arguments.input.seed ^ 3),
        inserted: Vec::new(),
        sum: 0,
    };
    let is_ordered = session.reader.scan(task.records.at(0).0, 1, &mut |_, _| ())?;
    session.reader.rest()?;
    for workload in &WORKLOADS {
        if workload.scans > 0 && !is_ordered {
            continue;
        }
        let share = if workload.scans > 0 { OPERATIONS_PER_SCAN } else { 1 };
        let count = task.arguments.operations / share;
        (0..count / 10).try_for_each(|_| session.step(workload))?;
        session.engine.sync()?;
        let took = seconds(|| {
            (0..count).try_for_each(|_| session.step(workload))?;
            session.engine.sync()
        })?;
        let name = format!("ycsb_{}_kops", workload.name);
        figures.insert(name, float(count as u64) / 1e3 / took);
    }
    std::hint::black_box(session.sum);
    drop(session);
    engine.close()
}

impl<'a> Session<'a> {
    fn step(&mut self, workload: &Workload) -> Result<(), Failure> {
        let kinds = [workload.updates, workload.inserts, workload.scans, workload.modifications];
        let mut chance = self.random.below(100);
        let kind = kinds.iter().position(|share| {
            let is_it = chance < *share;
            chance = chance.saturating_sub(*share);
            is_it
        });
        match kind {
            Some(0) => self.update(),
            Some(1) => self.insert(),
            Some(2) => self.scan(),
            Some(_) => self.modify(),
            None if workload.is_latest => self.read_latest(),
            None => {
                let key = self.hot_key();
                self.read(key)
            }
        }
    }

    fn hot_key(&mut self) -> &'a [u8] {
        self.task.records.at(self.zipf.scattered(&mut self.random)).0
    }

    fn read(&mut self, key: &[u8]) -> Result<(), Failure> {
        read(&mut *self.reader, &mut self.sum, key)
    }

    /// The last one that was written is the most frequent, be it inserted here or imported.
    fn read_latest(&mut self) -> Result<(), Failure> {
        let back = 1 + self.zipf.rank(&mut self.random);
        match self.inserted.len().checked_sub(back) {
            Some(place) => read(&mut *self.reader, &mut self.sum, &self.inserted[place]),
            None => {
                let place = self.task.records.count() + self.inserted.len() - back;
                self.read(self.task.records.at(place).0)
            }
        }
    }

    fn update(&mut self) -> Result<(), Failure> {
        let key = self.hot_key();
        self.write(key)
    }

    fn modify(&mut self) -> Result<(), Failure> {
        let key = self.hot_key();
        self.read(key)?;
        self.write(key)
    }

    fn write(&mut self, key: &[u8]) -> Result<(), Failure> {
        let value = self.task.records.draw(&mut self.random).1;
        self.engine.write(&[(key, Some(value))], Safety::Relaxed)
    }

    fn insert(&mut self) -> Result<(), Failure> {
        let (near, value) = self.task.records.draw(&mut self.random);
        let mut key = near.to_vec();
        key.extend_from_slice(format!(" new {}", self.inserted.len()).as_bytes());
        self.engine.write(&[(&key, Some(value))], Safety::Relaxed)?;
        self.inserted.push(key);
        Ok(())
    }

    fn scan(&mut self) -> Result<(), Failure> {
        let (from, count) = (self.hot_key(), 1 + below(&mut self.random, SCAN_MAX));
        let sum = &mut self.sum;
        self.reader.scan(from, count, &mut |_, value| *sum += touch(value))?;
        self.reader.rest()
    }
}

fn read(reader: &mut dyn Reader, sum: &mut u64, key: &[u8]) -> Result<(), Failure> {
    match reader.get(key, &mut |value| *sum += touch(value))? {
        true => reader.rest(),
        false => Err("a key is missing".into()),
    }
}
