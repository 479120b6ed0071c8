//! `cargo xtask fuzz`: the fuzz targets of `crates/zkv-fuzz`, on stable or with libFuzzer.
//!
//! The targets are built as tests are, with their checks for overflow, and are no part of this task's
//! own build.

use std::path::PathBuf;
use std::process::Command as Process;

use clap::{Args, Subcommand};

use crate::{Failure, workspace};

/// What each target of a smoke run gets: all of them together stay under a minute.
const SMOKE_SECONDS: u64 = 3;
/// Flips of a smoke run: a few seconds.
const SMOKE_FLIPS: u64 = 1500;

/// What to fuzz.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Command {
    #[command(subcommand)]
    other: Option<Other>,
    /// The target; `cargo xtask fuzz list` names them.
    target: Option<String>,
    /// How long it runs.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// What the inputs follow from: a failed run names its own.
    #[arg(long)]
    seed: Option<u64>,
    /// Guided by coverage: needs cargo-fuzz and a nightly toolchain.
    #[arg(long)]
    coverage: bool,
}

#[derive(Subcommand)]
enum Other {
    /// All targets, for a few seconds each.
    Smoke,
    /// Every bit of a seed that is a store flipped, one by one, with checksums made right.
    Flips {
        /// The seed, by its file name in `fuzz/seeds/stores` or `fuzz/seeds/data`.
        #[arg(default_value = "first")]
        store: String,
        /// A share of all bits, as 3/8: to divide the work.
        #[arg(long, default_value = "1/1")]
        part: String,
    },
    /// Runs one input, as a failed run has left it.
    Replay {
        /// The target.
        target: String,
        /// The input's file.
        file: PathBuf,
    },
    /// Writes the seeds of all targets anew.
    Seeds,
    /// Lists the targets.
    List,
}

/// Runs the command.
pub fn run(command: &Command) -> Result<(), Failure> {
    match &command.other {
        Some(Other::Smoke) => smoke(),
        Some(Other::Flips { store, part }) => driver(&["flips", store, "--part", part]),
        Some(Other::Replay { target, file }) => {
            driver(&["replay", target, &std::path::absolute(file)?.to_string_lossy()])
        }
        Some(Other::Seeds) => driver(&["seeds"]),
        Some(Other::List) => driver(&["list"]),
        None => fuzz(command),
    }
}

/// Runs all targets briefly, and flips a share of bits. The seed is the same each time: whoever wants
/// others asks for them.
pub fn smoke() -> Result<(), Failure> {
    driver(&["run", "--seconds", &SMOKE_SECONDS.to_string(), "--seed", "1"])?;
    driver(&["flips", "--count", &SMOKE_FLIPS.to_string(), "--seed", "1"])
}

fn fuzz(command: &Command) -> Result<(), Failure> {
    let target = command.target.as_deref().ok_or("name a target: `cargo xtask fuzz list`")?;
    let seconds = command.seconds.to_string();
    let seed = command.seed.map(|seed| seed.to_string());
    if command.coverage {
        return cover(target, &seconds, seed.as_deref());
    }
    let mut arguments = vec!["run", target, "--seconds", &seconds];
    if let Some(seed) = &seed {
        arguments.extend(["--seed", seed]);
    }
    driver(&arguments)
}

/// The driver is built with the profile of the tests, which CI has built already.
fn driver(arguments: &[&str]) -> Result<(), Failure> {
    let mut process = workspace::cargo();
    process.args(["run", "--quiet", "--profile", "test", "--package", "zkv-fuzz", "--"]);
    workspace::run(process.args(arguments), "a fuzz target fails, above")
}

/// cargo-fuzz has a workspace of its own, which alone needs nightly.
fn cover(target: &str, seconds: &str, seed: Option<&str>) -> Result<(), Failure> {
    let seeds: &[&str] = match target.strip_suffix("-mended").unwrap_or(target) {
        "log" => &["data"],
        "verify" | "salvage" | "store" => &["data", "stores"],
        seeds => &[seeds],
    };
    let mut process = Process::new("cargo");
    process.current_dir(workspace::root()).args(["+nightly", "fuzz", "run", target]);
    // What it adds to the corpus stays out of the committed seeds.
    let corpus = format!("fuzz/corpus/{target}");
    std::fs::create_dir_all(workspace::root().join(&corpus))?;
    process.arg(&corpus);
    process.args(seeds.iter().map(|seeds| format!("fuzz/seeds/{seeds}"))).arg("--");
    process.args([&format!("-max_total_time={seconds}"), "-timeout=10", "-rss_limit_mb=512"]);
    process.args(["-max_len=524288", &format!("-seed={}", seed.unwrap_or("0"))]);
    workspace::run(&mut process, "libFuzzer found something, or cargo-fuzz or nightly are missing")
}
