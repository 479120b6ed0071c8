//! `cargo xtask torture`: the real command, tortured from outside.
//!
//! A victim is a run of `zkv` that says what it has stored. Something is done to it while it runs;
//! then the store is held against what it said: all that was acknowledged is there, what is there
//! is the store as it was behind one of the operations, every value is whole, and it opens; behind kills
//! and power cuts `zkv verify` finds no damage, either.
//!
//! What cannot run on this machine is named, and is no pass.

mod command;
mod full;
mod kill;
mod mounts;
mod oracle;
mod power;
mod processes;
mod report;
mod syscall;
mod verify;
mod victim;
mod workload;

use std::time::{Duration, Instant};

use crate::Failure;
use command::Zkv;
use report::Report;

/// What to do, and for how long.
#[derive(clap::Args)]
pub struct Arguments {
    /// How long `kill` and `power` go on, in seconds each
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Where the random choices start, as a failure prints it
    #[arg(long)]
    seed: Option<u64>,
    /// What to do: everything, where nothing is named
    #[arg(value_enum, value_name = "PART")]
    parts: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// SIGKILL at random moments, also while it recovers from the last one
    Kill,
    /// SIGKILL at, and errors from, each system call in turn
    Syscall,
    /// Disks, file sizes and memory that run out
    Full,
    /// Power cuts, on a file system in a loop device
    Power,
    /// Locks between processes, and files that cannot be written
    Processes,
    /// A share of everything, in half a minute
    Smoke,
}

const ALL: [Part; 5] = [Part::Processes, Part::Full, Part::Syscall, Part::Kill, Part::Power];

/// How much of it.
struct Budget {
    seed: u64,
    duration: Duration,
    /// Whether one case in some is enough.
    is_smoke: bool,
}

/// Tortures the command.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let zkv = Zkv::build()?;
    let is_smoke = arguments.parts.contains(&Part::Smoke);
    let takes_all = is_smoke || arguments.parts.is_empty();
    let seed = arguments.seed.unwrap_or_else(seed_of_the_clock);
    let duration = Duration::from_secs(if is_smoke { 5 } else { arguments.seconds });
    let budget = Budget { seed, duration, is_smoke };
    println!("torture: seed {seed}");
    let mut reports = Vec::new();
    for part in ALL {
        if takes_all || arguments.parts.contains(&part) {
            let start = Instant::now();
            let report = run_part(part, &zkv, &budget);
            report.print(start.elapsed());
            reports.push(report);
        }
    }
    // Whoever names a part wants it to run; where all are asked for, it is enough to be told.
    report::conclude(&reports, !takes_all)
}

fn run_part(part: Part, zkv: &Zkv, budget: &Budget) -> Report {
    match part {
        Part::Kill => kill::run(zkv, budget),
        Part::Syscall => syscall::run(zkv, budget),
        Part::Full => full::run(zkv, budget),
        Part::Power => power::run(zkv, budget),
        Part::Processes | Part::Smoke => processes::run(zkv),
    }
}

/// Another one each time.
fn seed_of_the_clock() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    since.as_secs() % 1_000_000
}
