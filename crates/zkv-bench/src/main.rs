//! The benchmark of zkv against other embedded engines: the same records for all, each engine in a
//! process of its own, in turns, and beside them what the machine could do at best.

mod cgroup;
mod child;
mod disk;
mod engine;
mod engines;
mod limits;
mod measures;
mod phases;
mod plot;
mod records;
mod report;
mod run;
mod zipf;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use zkv_measure::{Failure, input};

use crate::child::Phase;
use crate::engine::Kind;

/// Measures zkv against other embedded engines.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    input: input::Arguments,
    /// The engines, zkv first; by default all that were compiled.
    #[arg(long, value_delimiter = ',')]
    engines: Vec<Kind>,
    /// What to measure, by default all.
    #[arg(long, value_delimiter = ',')]
    phases: Vec<Phase>,
    /// Rounds of which the medians are taken.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Threads that read together.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Gets of one loop.
    #[arg(long, default_value_t = 100_000)]
    gets: usize,
    /// Gets while nothing is in the page cache.
    #[arg(long, default_value_t = 1000)]
    cold_gets: usize,
    /// Durable commits of one thread, and of all writing threads together.
    #[arg(long, default_value_t = 2000)]
    commits: usize,
    /// Operations of each YCSB workload; a tenth as many where they are scans.
    #[arg(long, default_value_t = 200_000)]
    operations: usize,
    /// A folder of the memory control group in which this program may make groups: gets are then
    /// also measured with a tenth of the raw data as memory.
    #[arg(long)]
    cgroup: Option<PathBuf>,
    /// Where to write all figures as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// The folder for plots as SVG.
    #[arg(long)]
    plots: Option<PathBuf>,
    /// Measures nothing, and prints and plots what such a file of figures holds.
    #[arg(long, conflicts_with_all = ["data", "generate"])]
    from: Option<PathBuf>,
    #[command(flatten)]
    child: child::Arguments,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.child.phase {
        Some(phase) => child::run(&arguments, phase),
        None => run::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("zkv-bench: {failure}");
            ExitCode::FAILURE
        }
    }
}
