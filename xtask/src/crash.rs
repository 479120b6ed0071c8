//! `cargo xtask crash`: power cuts, failing disks and crashes within recovery, on the simulated disk.
//! `docs/testing.md` has the model.

mod check;
mod faults;
mod history;
mod images;
mod indexes;
mod log;
mod model;
mod planted;
mod scripts;
mod sectors;
mod session;
mod workload;

use std::fmt::{self, Display};
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use crate::Failure;
use history::History;
use images::{Effort, Tally};
use log::LogWorkload;
use workload::Workload;

/// What to try.
#[derive(Args)]
pub struct Arguments {
    /// The parts to run; all of them where none is named.
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// The long workloads, those of the log and those of the store, go on for so many seconds each.
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// The first of their seeds.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Plants only the bugs whose names contain this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    bug: String,
    /// Tries one workload, or one fault, as a failure has printed it.
    #[arg(long, value_name = "WORKLOAD")]
    replay: Option<Replay>,
    /// Of all workloads of up to three operations, this share: 2/4 is every fourth, from the second on.
    #[arg(long, value_name = "K/N", default_value = "1/1")]
    share: Share,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// What CI runs: short ones of everything.
    Smoke,
    /// All workloads of up to three operations, and some written out, cut at every change.
    Exhaustive,
    /// Those written out that give space back.
    Cleaning,
    /// A fault at the first call, the second, the third, until none is left.
    Faults,
    /// Long workloads of the log alone, which frees segments and uses their slots again.
    Log,
    /// Long workloads by seed, cut at every change.
    Long,
    /// Long workloads by seed, between whose operations sectors cannot be read any more, and can again.
    Sectors,
    /// Bugs that the others must see, each planted into a copy of the sources.
    Planted,
}

/// How far the long workloads go on.
#[derive(Clone, Copy)]
enum Until {
    Time(Duration),
    /// So many of them, on a machine as busy as it may be.
    Count(usize),
}

/// One of several machines, or of several runs, among which all workloads are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    /// How many workloads come before its first.
    skip: usize,
    /// One in so many is its own.
    one_in: usize,
}

impl Share {
    const ALL: Self = Self { skip: 0, one_in: 1 };

    fn of<T>(self, all: impl IntoIterator<Item = T>) -> impl Iterator<Item = T> {
        all.into_iter().skip(self.skip).step_by(self.one_in)
    }
}

/// As it is read.
impl Display for Share {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.skip + 1, self.one_in)
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers =
            text.split_once('/').and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
        match numbers {
            Some((number @ 1.., one_in)) if number <= one_in => {
                Ok(Self { skip: number - 1, one_in })
            }
            _ => Err("a share is K/N, with K from 1 to N".to_owned()),
        }
    }
}

/// Of each kind of long workloads, how many CI runs.
const SMOKE_WORKLOADS: usize = 12;
/// Workloads beside bad sectors that CI runs.
const SMOKE_SECTORS: usize = 40;
/// Of the calls of workloads that clean, CI makes one in so many fail.
const SMOKE_CLEANING_CALLS: usize = 8;
/// What a smoke run tries at the least, half of what it does. It is counted, so that no machine is too slow.
const SMOKE_IMAGES_MIN: u64 = 140_000;
const SMOKE_FAULTS_MIN: u64 = 7_000;
/// All workloads of three operations take hours of processor time: what was tried is told meanwhile.
const REPORT_INTERVAL: Duration = Duration::from_secs(120);
/// Failures that are printed; a run with more stops.
const FAILURES_MAX: usize = 5;

const EXHAUSTIVE: Effort = Effort {
    cuts_most: 40,
    write_one_in: 8,
    cut_one_in: 8,
    crashes_most: 3,
    last_only: true,
    first_step: 0,
};
/// Of all pairs, in CI.
const SMOKE: Effort = Effort { cuts_most: 12, write_one_in: 12, cut_one_in: 24, ..EXHAUSTIVE };
const LONG: Effort =
    Effort { cuts_most: 12, write_one_in: 16, cut_one_in: 16, last_only: false, ..EXHAUSTIVE };
const LOG: Effort = Effort { cuts_most: 12, last_only: false, ..EXHAUSTIVE };
/// Of workloads that clean: few changes, and large ones.
const CLEANING: Effort = Effort { cuts_most: 8, write_one_in: 4, cut_one_in: 32, ..LONG };
/// In CI.
const SMOKE_CLEANING: Effort = Effort { cuts_most: 3, crashes_most: 2, ..CLEANING };
/// Of one workload.
const THOROUGH: Effort =
    Effort { cuts_most: 200, write_one_in: 2, cut_one_in: 4, last_only: false, ..EXHAUSTIVE };

/// What CI runs.
pub fn smoke() -> Result<(), Failure> {
    let (parts, bug) = (vec![Part::Smoke], String::new());
    run(&Arguments { parts, seconds: 0, seed: 1, bug, replay: None, share: Share::ALL })
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let tally = Tally::default();
    if let Some(workload) = &arguments.replay {
        replay(workload, &tally)?;
        return Ok(());
    }
    let all =
        [Part::Exhaustive, Part::Cleaning, Part::Faults, Part::Log, Part::Long, Part::Sectors];
    let parts = if arguments.parts.is_empty() { &all[..] } else { &arguments.parts };
    let until = Until::Time(Duration::from_secs(arguments.seconds));
    for part in parts {
        match part {
            Part::Smoke => {
                log(arguments.seed, Until::Count(SMOKE_WORKLOADS), &tally)?;
                faults(SMOKE_CLEANING_CALLS, &tally)?;
                exhaustive(2, SMOKE, Share::ALL, &tally)?;
                cleaning(SMOKE_CLEANING, &tally)?;
                long(arguments.seed, Until::Count(SMOKE_WORKLOADS), &tally)?;
                sectors(arguments.seed, Until::Count(SMOKE_SECTORS), &tally)?;
                tally.expect(SMOKE_IMAGES_MIN, SMOKE_FAULTS_MIN)?;
            }
            Part::Exhaustive => exhaustive(3, EXHAUSTIVE, arguments.share, &tally)?,
            Part::Cleaning => cleaning(CLEANING, &tally)?,
            Part::Faults => {
                faults(1, &tally)?;
                tally.expect(1, SMOKE_FAULTS_MIN)?;
            }
            Part::Planted => planted::run(arguments.seed, &arguments.bug)?,
            Part::Log => log(arguments.seed, until, &tally)?,
            Part::Long => long(arguments.seed, until, &tally)?,
            Part::Sectors => sectors(arguments.seed, until, &tally)?,
        }
    }
    if *parts != [Part::Planted] {
        tally.expect(1, 0)?;
    }
    println!("crash: no violation in {}", tally.summary());
    Ok(())
}

/// What a failure has printed.
#[derive(Clone)]
enum Replay {
    Store(Workload),
    Log(LogWorkload),
    Fault(faults::Case),
    Sectors(sectors::Case),
}

impl FromStr for Replay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("fault/") {
            return text.parse().map(Self::Fault);
        }
        if text.starts_with("sectors/") {
            return text.parse().map(Self::Sectors);
        }
        match text.strip_prefix("log/") {
            Some(rest) => rest.parse().map(Self::Log),
            None => text.parse().map(Self::Store),
        }
    }
}

/// Tries a workload as the parts that it may come from do, since chance follows the effort, and then
/// thoroughly.
fn replay(replay: &Replay, tally: &Tally) -> Result<(), Failure> {
    match replay {
        Replay::Store(workload) => {
            let history = History::of(workload)?;
            for effort in [SMOKE, EXHAUSTIVE, LONG, THOROUGH] {
                history.cut_everywhere(effort, tally)?;
            }
            if workload.first_cleaning().is_some() {
                for effort in [SMOKE_CLEANING, CLEANING] {
                    clean(workload, effort, tally)?;
                }
            }
        }
        Replay::Log(workload) => {
            for effort in [LOG, THOROUGH] {
                workload.run(effort, tally)?;
            }
        }
        Replay::Fault(case) => case.run(1, tally)?,
        Replay::Sectors(case) => case.run(tally)?,
    }
    println!("crash: no violation in {}", tally.summary());
    Ok(())
}

fn exhaustive(most: u32, effort: Effort, share: Share, tally: &Tally) -> Result<(), Failure> {
    try_all(Workload::directed()?.into_iter(), None, tally, |workload| {
        History::of(workload)?.cut_everywhere(LONG, tally)
    })?;
    println!("crash: workloads written out: so far {}", tally.summary());
    for count in 0..=most {
        try_all(share.of(Workload::all(count)), None, tally, |workload| {
            History::of(workload)?.cut_everywhere(effort, tally)
        })?;
        println!(
            "crash: {share} of all workloads of {count} operations: so far {}",
            tally.summary()
        );
    }
    Ok(())
}

fn cleaning(effort: Effort, tally: &Tally) -> Result<(), Failure> {
    try_all(Workload::cleaning()?.into_iter(), None, tally, |workload| {
        clean(workload, effort, tally)
    })?;
    println!("crash: workloads that clean: so far {}", tally.summary());
    Ok(())
}

/// Cuts what gives space back, and what comes behind it.
fn clean(workload: &Workload, effort: Effort, tally: &Tally) -> Result<(), String> {
    // The first step is the store's making.
    let first_step = workload.first_cleaning().map_or(0, |operation| operation + 1);
    History::of(workload)?.cut_everywhere(Effort { first_step, ..effort }, tally)
}

fn long(seed: u64, until: Until, tally: &Tally) -> Result<(), Failure> {
    try_some((seed..).map(Workload::random), until, tally, |workload| {
        match workload.first_cleaning() {
            Some(_) => clean(workload, SMOKE_CLEANING, tally),
            None => History::of(workload)?.cut_everywhere(LONG, tally),
        }
    })?;
    println!("crash: long workloads: so far {}", tally.summary());
    Ok(())
}

fn log(seed: u64, until: Until, tally: &Tally) -> Result<(), Failure> {
    let attempt = |workload: &LogWorkload| workload.run(LOG, tally);
    try_all(LogWorkload::scripts(), None, tally, attempt)?;
    try_some((seed..).map(LogWorkload::Random), until, tally, attempt)?;
    println!("crash: the log alone: so far {}", tally.summary());
    Ok(())
}

fn sectors(seed: u64, until: Until, tally: &Tally) -> Result<(), Failure> {
    let attempt = |case: &sectors::Case| case.run(tally);
    try_all(sectors::Case::written_out()?.into_iter(), None, tally, attempt)?;
    try_some(sectors::Case::from(seed)?, until, tally, attempt)?;
    println!("crash: beside bad sectors: so far {}", tally.summary());
    Ok(())
}

fn faults(one_cleaning_in: usize, tally: &Tally) -> Result<(), Failure> {
    let cases = faults::cases()?;
    try_all(cases.into_iter(), None, tally, |case| case.run(one_cleaning_in, tally))?;
    println!("crash: faults at every call: so far {}", tally.summary());
    Ok(())
}

/// Tries the first of `cases`, as far as `until` says.
fn try_some<C: Display + Send>(
    cases: impl Iterator<Item = C> + Send,
    until: Until,
    tally: &Tally,
    attempt: impl Fn(&C) -> Result<(), String> + Sync,
) -> Result<(), Failure> {
    match until {
        Until::Time(time) => try_all(cases, Some(Instant::now() + time), tally, attempt),
        Until::Count(count) => try_all(cases.take(count), None, tally, attempt),
    }
}

/// Tries all `cases` on all cores, and prints those that fail.
fn try_all<C: Display + Send>(
    cases: impl Iterator<Item = C> + Send,
    until: Option<Instant>,
    tally: &Tally,
    attempt: impl Fn(&C) -> Result<(), String> + Sync,
) -> Result<(), Failure> {
    let cases = Mutex::new(cases);
    let failed = AtomicUsize::new(0);
    let work = || {
        while until.is_none_or(|until| Instant::now() < until)
            && failed.load(Ordering::Relaxed) < FAILURES_MAX
        {
            let Some(case) = cases.lock().ok().and_then(|mut cases| cases.next()) else { break };
            tally.workloads.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = attempt(&case) {
                failed.fetch_add(1, Ordering::Relaxed);
                eprintln!("crash: {error}\n  replay: cargo xtask crash --replay {case}");
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut next_report = Instant::now() + REPORT_INTERVAL;
        while workers.iter().any(|worker| !worker.is_finished()) {
            std::thread::sleep(Duration::from_millis(20));
            if Instant::now() >= next_report {
                println!("crash: so far {}", tally.summary());
                next_report += REPORT_INTERVAL;
            }
        }
    });
    match failed.into_inner() {
        0 => Ok(()),
        count => Err(format!("crash: {count} cases failed").into()),
    }
}
