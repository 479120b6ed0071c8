//! One engine, one phase, in a process of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::ValueEnum;
use zkv_measure::figures::report_as_child;

use crate::engine::{Kind, Setup};
use crate::records::Records;
use crate::{Failure, limits, phases};

/// What is measured in one process, in the order of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Phase {
    /// Records in random order into a new store; settling.
    Import,
    /// Opening, and the memory that it takes.
    Open,
    /// Reads of what the page cache holds.
    Read,
    /// What the machine could do at best, with the blocks of zkv's store.
    Limits,
    /// Gets of what the page cache does not hold.
    Cold,
    /// Gets with little memory.
    Limited,
    /// The workloads A to F of YCSB.
    Ycsb,
    /// Durable commits, overwrites, deletes.
    Write,
    /// Records in the order of keys into a new store.
    Sorted,
}

/// What only a child is told.
#[derive(clap::Args)]
pub struct Arguments {
    /// What to measure in this process.
    #[arg(long, hide = true, requires = "engine", requires = "at")]
    pub phase: Option<Phase>,
    /// Whom to measure.
    #[arg(long, hide = true)]
    engine: Option<Kind>,
    /// The store's folder.
    #[arg(long, hide = true)]
    at: Option<PathBuf>,
    /// The mean length of the records.
    #[arg(long, hide = true, default_value_t = 0)]
    record_bytes: u64,
    /// The control group to join.
    #[arg(long, hide = true)]
    group: Option<PathBuf>,
}

/// What was measured, by the names in [`crate::measures`].
pub type Figures = BTreeMap<String, f64>;

/// A phase that is being measured.
pub struct Task<'a> {
    pub arguments: &'a crate::Arguments,
    /// None where the phase looks at its memory: they would leave room for what comes later.
    pub records: Records,
    pub engine: Kind,
    pub folder: PathBuf,
    pub group: Option<PathBuf>,
}

impl Task<'_> {
    /// What the engine is told when it is opened.
    pub fn setup(&self, cache_bytes: Option<usize>) -> Setup {
        Setup {
            record_bytes: self.arguments.child.record_bytes,
            cache_bytes,
            zkv: self.arguments.input.options(),
        }
    }
}

/// Does one phase, and prints its figures for the parent.
pub fn run(arguments: &crate::Arguments, phase: Phase) -> Result<(), Failure> {
    let child = &arguments.child;
    let records = match phase {
        Phase::Open => Records::default(),
        _ => Records::new(arguments.input.input()?, arguments.input.seed)?,
    };
    let task = Task {
        arguments,
        records,
        engine: child.engine.ok_or("--engine is missing")?,
        folder: child.at.clone().ok_or("--at is missing")?,
        group: child.group.clone(),
    };
    let mut figures = Figures::new();
    match phase {
        Phase::Import => phases::import::random(&task, &mut figures)?,
        Phase::Sorted => phases::import::sorted(&task, &mut figures)?,
        Phase::Open => phases::open::all(&task, &mut figures)?,
        Phase::Read => phases::read::warm(&task, &mut figures)?,
        Phase::Cold => phases::cold::cold(&task, &mut figures)?,
        Phase::Limited => phases::cold::limited(&task, &mut figures)?,
        Phase::Ycsb => phases::ycsb::all(&task, &mut figures)?,
        Phase::Write => phases::write::all(&task, &mut figures)?,
        Phase::Limits => limits::all(&task, &mut figures)?,
    }
    report_as_child(&figures)
}
