//! A driver that fuzzes on stable: it changes seeds by a rule, without knowing what code they reach.
//! libFuzzer does know (`fuzz/`), and needs nightly.

mod runner;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::Parser;
use zkv_fuzz::corpus;
use zkv_fuzz::mutate::mutate;
use zkv_fuzz::random::Random;
use zkv_fuzz::targets::{TARGETS, Target, find};

use runner::{Runner, peak_kib};

/// Fuzzes zkv on stable.
#[derive(Parser)]
enum Command {
    /// Runs one target, or all of them one after another.
    Run {
        /// The target's name; all without one.
        target: Option<String>,
        /// How long each target runs.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// What the inputs follow from; drawn where it is not given.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Flips every bit of a seed that is a store, one by one, with checksums made right.
    Flips(Flips),
    /// Runs one file, as a failed run has left it.
    Replay {
        /// The target's name.
        target: String,
        /// The input.
        file: PathBuf,
    },
    /// Writes the seeds anew.
    Seeds,
    /// Lists the targets.
    List,
}

/// Which bits to flip.
#[derive(clap::Args)]
struct Flips {
    /// The seed, by its file name.
    #[arg(default_value = "first")]
    store: String,
    /// A share of all bits, as 3/8: to divide the work.
    #[arg(long, default_value = "1/1")]
    part: Part,
    /// Draws as many bits instead.
    #[arg(long, conflicts_with = "part")]
    count: Option<usize>,
    /// What those follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A share, by its number from 1 and how many there are.
#[derive(Clone, Copy)]
struct Part {
    number: usize,
    count: usize,
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/');
        let parsed = numbers.and_then(|(number, count)| {
            Some(Self { number: number.parse().ok()?, count: count.parse().ok()? })
        });
        let is_part = |part: &Self| (1..=part.count).contains(&part.number);
        parsed.filter(is_part).ok_or_else(|| format!("{text}: not a part, as 3/8"))
    }
}

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Run { target, seconds, seed } => run(target.as_deref(), seconds, seed),
        Command::Flips(of) => flips(&of),
        Command::Replay { target, file } => replay(&target, &file),
        Command::Seeds => corpus::write_seeds().map_err(|error| error.to_string()),
        Command::List => {
            TARGETS.iter().for_each(|target| println!("{}", target.name));
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("fuzz: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn named(name: &str) -> Result<&'static Target, String> {
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    find(name).ok_or_else(|| format!("no target {name}; there are {}", names.join(", ")))
}

fn run(name: Option<&str>, seconds: u64, seed: Option<u64>) -> Result<(), String> {
    let targets: Vec<&Target> = match name {
        Some(name) => vec![named(name)?],
        None => TARGETS.iter().collect(),
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = seed.unwrap_or_else(|| now.map_or(0, |now| now.as_secs()));
    for target in targets {
        fuzz(target, Duration::from_secs(seconds), seed)?;
    }
    Ok(())
}

fn replay(name: &str, file: &Path) -> Result<(), String> {
    let target = named(name)?;
    let input = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let start = Instant::now();
    (target.run)(&input);
    let peak = peak_kib().unwrap_or(0) >> 10;
    println!("{}: {:.3} s, {peak} MiB", file.display(), start.elapsed().as_secs_f64());
    Ok(())
}

fn fuzz(target: &'static Target, time: Duration, seed: u64) -> Result<(), String> {
    let inputs = seeds(target)?;
    let mut runner = Runner::new(target, seed)?;
    let mut random = Random::new(seed);
    let start = Instant::now();
    while start.elapsed() < time {
        let mut input = inputs[random.below(inputs.len())].1.clone();
        let other = &inputs[random.below(inputs.len())].1;
        let parts = (target.parts)(&input);
        mutate(&mut input, &parts, other, &mut random);
        runner.run(&input)?;
    }
    let (name, count, seconds) = (target.name, runner.count(), time.as_secs());
    println!("fuzz {name}: {} in {seconds} s, seed {seed}", runner.finish());
    // An input takes a second at the most, and mostly a hundredth of one.
    if count < seconds {
        return Err(format!("{name}: only {count} inputs were tried, expected {seconds}"));
    }
    Ok(())
}

fn seeds(target: &Target) -> Result<Vec<(PathBuf, Vec<u8>)>, String> {
    let inputs = corpus::inputs(target).map_err(|error| format!("seeds: {error}"))?;
    if inputs.is_empty() {
        return Err(format!("{}: no seeds; run `cargo xtask fuzz seeds`", target.name));
    }
    Ok(inputs)
}

/// Flips bits of a store one by one, with all checksums made right again.
fn flips(flips: &Flips) -> Result<(), String> {
    let target = named("store-mended")?;
    let found = seeds(target)?.into_iter().find(|(path, _)| path.ends_with(&flips.store));
    let (_, mut store) = found.ok_or("no such seed in fuzz/seeds/data and fuzz/seeds/stores")?;
    let bit_count = store.len() * 8;
    let bits: Box<dyn Iterator<Item = usize>> = match flips.count {
        Some(count) => {
            let mut random = Random::new(flips.seed);
            Box::new((0..count).map(move |_| random.below(bit_count)))
        }
        None => {
            let Part { number, count } = flips.part;
            Box::new(bit_count * (number - 1) / count..bit_count * number / count)
        }
    };
    let mut runner = Runner::new(target, flips.seed)?;
    for bit in bits {
        store[bit / 8] ^= 1 << (bit % 8);
        runner.run(&store)?;
        store[bit / 8] ^= 1 << (bit % 8);
    }
    println!("fuzz flips {}: of {bit_count} bits, {}", flips.store, runner.finish());
    Ok(())
}
