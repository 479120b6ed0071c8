//! `cargo xtask histories`: threads that use one store at once, and whether what they have seen could
//! have been seen if they had come one after another. `docs/testing.md` has more.

mod check;
mod graph;
mod history;
mod plan;
mod run;
mod source;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, available_parallelism};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};

use crate::Failure;
use plan::Plan;

/// How long, and from which seed on.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// Goes on for so many seconds.
    #[arg(long, default_value_t = 60, conflicts_with = "count")]
    seconds: u64,
    /// Runs so many histories.
    #[arg(long)]
    count: Option<u64>,
    /// The first of their seeds.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Subcommand)]
enum Part {
    /// What CI runs: a few thousand.
    Smoke,
}

const SMOKE: u64 = 3000;

/// Histories that are printed; a run with more stops.
const FAILURES_MAX: usize = 3;

/// What a run has seen.
#[derive(Default)]
struct Tally {
    histories: AtomicU64,
    transactions: AtomicU64,
    conflicts: AtomicU64,
    /// Histories in which two threads had a transaction open at once.
    concurrent: AtomicU64,
    /// Histories in which one conflicted.
    conflicted: AtomicU64,
}

/// What CI runs.
pub fn smoke() -> Result<(), Failure> {
    run_until(1, None, Some(SMOKE))
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    match (&arguments.part, arguments.count) {
        (Some(Part::Smoke), _) => smoke(),
        (None, Some(count)) => run_until(arguments.seed, None, Some(count)),
        (None, None) => {
            run_until(arguments.seed, Some(Duration::from_secs(arguments.seconds)), None)
        }
    }
}

/// Runs histories by seed, on all cores, for a time or a count.
fn run_until(seed: u64, time: Option<Duration>, count: Option<u64>) -> Result<(), Failure> {
    let start = Instant::now();
    let (tally, failures) = (Tally::default(), Mutex::new(Vec::new()));
    let next = AtomicU64::new(seed);
    let is_over = |this: u64| {
        time.is_some_and(|time| start.elapsed() >= time)
            || count.is_some_and(|count| this - seed >= count)
            || failures.lock().map_or(true, |failures| failures.len() >= FAILURES_MAX)
    };
    let work = || loop {
        let this = next.fetch_add(1, Ordering::Relaxed);
        if is_over(this) {
            break;
        }
        if let (Err(failure), Ok(mut failures)) = (try_seed(this, &tally), failures.lock()) {
            failures.push(failure);
        }
    };
    thread::scope(|scope| {
        for _ in 1..available_parallelism().map_or(1, std::num::NonZero::get) {
            scope.spawn(work);
        }
        work();
    });
    println!("histories: {} in {:.0} s", tally.summary(), start.elapsed().as_secs_f64());
    let mut failures = failures.into_inner().unwrap_or_default();
    failures.extend(tally.shows_nothing());
    crate::report("histories", &failures)
}

/// Runs one history. The same seed gives the same plan, and not the same history: that is printed.
fn try_seed(seed: u64, tally: &Tally) -> Result<(), String> {
    let plan = Plan::new(seed);
    let history = run::run(&plan).map_err(|error| format!("histories: seed {seed}: {error}"))?;
    tally.note(&history);
    let anomalies = check::check(&history);
    if anomalies.is_empty() {
        return Ok(());
    }
    let lines: String = anomalies.iter().map(|anomaly| format!("  {anomaly}\n")).collect();
    Err(format!(
        "histories: seed {seed}, a store that is {:?}:\n{lines}{history}  \
         again, with other luck: cargo xtask histories --seed {seed} --count 1",
        plan.durability
    ))
}

impl Tally {
    fn note(&self, history: &history::History) {
        let conflicts = history.conflict_count() as u64;
        let is_concurrent = history.is_concurrent();
        self.histories.fetch_add(1, Ordering::Relaxed);
        self.transactions.fetch_add(history.transactions.len() as u64, Ordering::Relaxed);
        self.conflicts.fetch_add(conflicts, Ordering::Relaxed);
        self.concurrent.fetch_add(is_concurrent.into(), Ordering::Relaxed);
        self.conflicted.fetch_add((conflicts > 0).into(), Ordering::Relaxed);
    }

    /// Why a run of many histories that found nothing says nothing. Threads give way to each other, so that
    /// they meet on one processor, too: in 95 % of the histories.
    fn shows_nothing(&self) -> Option<String> {
        const MANY: u64 = 100;
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let have_met = of(&self.concurrent) * 2 >= of(&self.histories) && of(&self.conflicts) > 0;
        let is_silent = of(&self.histories) >= MANY && !have_met;
        is_silent.then(|| {
            "in most histories no transactions were side by side, or none conflicted".to_owned()
        })
    }

    fn summary(&self) -> String {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let histories = of(&self.histories);
        let percent = |count: &AtomicU64| of(count) * 100 / histories.max(1);
        format!(
            "{histories} histories, {} transactions, {} conflicts; {} % of the histories with \
             transactions side by side, {} % with a conflict;",
            of(&self.transactions),
            of(&self.conflicts),
            percent(&self.concurrent),
            percent(&self.conflicted)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_histories_in_which_nobody_meets_fail() {
        let tally = Tally::default();
        tally.histories.store(100, Ordering::Relaxed);
        assert!(tally.shows_nothing().is_some());
        tally.concurrent.store(50, Ordering::Relaxed);
        assert!(tally.shows_nothing().is_some());
        tally.conflicts.store(1, Ordering::Relaxed);
        assert_eq!(tally.shows_nothing(), None);
        tally.concurrent.store(49, Ordering::Relaxed);
        assert!(tally.shows_nothing().is_some());
    }

    #[test]
    fn histories_of_a_store_are_whole_and_clean() {
        let tally = Tally::default();
        for seed in 0..40 {
            try_seed(seed, &tally).unwrap();
        }
        let planned: usize =
            (0..40).map(|seed| Plan::new(seed).threads.iter().map(Vec::len).sum::<usize>()).sum();
        // The last read of each comes on top.
        assert_eq!(tally.transactions.into_inner(), planned as u64 + 40);
        assert_eq!(tally.histories.into_inner(), 40);
    }
}
