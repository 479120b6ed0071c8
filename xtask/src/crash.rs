//! `cargo xtask crash`: power cuts, failing disks and crashes within recovery, on the simulated disk.
//! `docs/testing.md` has the model.

mod check;
mod history;
mod images;
mod workload;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Args;

use crate::Failure;
use images::{Effort, Tally};
use workload::Workload;

/// What to try.
#[derive(Args)]
pub struct Arguments {
    /// Stops after so many seconds.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// The first of the long workloads' seeds.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Tries one workload at every change, as a failure has printed it.
    #[arg(long, value_name = "WORKLOAD")]
    replay: Option<Workload>,
}

/// Failures that are printed; a run with more stops.
const FAILURES_MAX: usize = 5;

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let tally = Tally::default();
    let until = Instant::now() + Duration::from_secs(arguments.seconds);
    if let Some(workload) = &arguments.replay {
        let effort = Effort { cuts_most: 200, write_one_in: 2, cut_one_in: 4, last_only: false };
        try_all(std::iter::once(workload.clone()), effort, &tally, until)?;
    } else {
        for count in 0..=3 {
            let effort = Effort { cuts_most: 40, write_one_in: 8, cut_one_in: 8, last_only: true };
            try_all(Workload::all(count).into_iter(), effort, &tally, until)?;
            println!(
                "crash: all workloads of {count}: {} images",
                tally.images.load(Ordering::Relaxed)
            );
        }
        let effort = Effort { cuts_most: 12, write_one_in: 16, cut_one_in: 16, last_only: false };
        try_all((arguments.seed..).map(Workload::random), effort, &tally, until)?;
    }
    let workloads = tally.workloads.load(Ordering::Relaxed);
    println!(
        "crash: {} images of {workloads} workloads, no violation",
        tally.images.load(Ordering::Relaxed)
    );
    Ok(())
}

fn try_all(
    workloads: impl Iterator<Item = Workload> + Send,
    effort: Effort,
    tally: &Tally,
    until: Instant,
) -> Result<(), Failure> {
    let workloads = Mutex::new(workloads);
    let failed = AtomicUsize::new(0);
    let work = || {
        while Instant::now() < until && failed.load(Ordering::Relaxed) < FAILURES_MAX {
            let Some(workload) = workloads.lock().ok().and_then(|mut all| all.next()) else {
                break;
            };
            let tried = history::run(&workload)
                .and_then(|history| images::cut_everywhere(&workload, &history, effort, tally));
            if let Err(error) = tried {
                failed.fetch_add(1, Ordering::Relaxed);
                eprintln!("crash: {error}\n  replay: cargo xtask crash --replay {workload}");
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    match failed.into_inner() {
        0 => Ok(()),
        count => Err(format!("crash: {count} workloads failed").into()),
    }
}
