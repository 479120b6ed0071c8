//! A driver that fuzzes on stable: it changes seeds by a rule, without knowing what code they reach.
//! libFuzzer does know (`fuzz/`), and needs nightly.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use zkv_fuzz::corpus;
use zkv_fuzz::mutate::mutate;
use zkv_fuzz::random::Random;
use zkv_fuzz::targets::{TARGETS, Target, find};

/// An input may take 1 s. This leaves room for a machine that has other things to do.
const INPUT_SECONDS_MAX: u64 = 10;
/// What an input may take, and what the process takes without one.
const MEMORY_KIB_MAX: u64 = (256 + 64) << 10;

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

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Run { target, seconds, seed } => run(target.as_deref(), seconds, seed),
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

/// The input that is being run lies in a file, so that it is there whatever it does to the process.
struct Current {
    path: PathBuf,
    file: std::fs::File,
}

impl Current {
    fn new(target: &Target, seed: u64) -> std::io::Result<Self> {
        let folder = corpus::folder().join("failures").join(target.name);
        std::fs::create_dir_all(&folder)?;
        let path = folder.join(format!("seed-{seed}"));
        let file = std::fs::File::create(&path)?;
        Ok(Self { path, file })
    }

    fn write(&mut self, input: &[u8]) -> std::io::Result<()> {
        use std::io::Seek as _;
        self.file.rewind()?;
        self.file.write_all(input)?;
        self.file.set_len(input.len() as u64)
    }
}

fn fuzz(target: &'static Target, time: Duration, seed: u64) -> Result<(), String> {
    let inputs = corpus::inputs(target).map_err(|error| format!("seeds: {error}"))?;
    if inputs.is_empty() {
        return Err(format!("{}: no seeds; run `cargo xtask fuzz seeds`", target.name));
    }
    let mut current = Current::new(target, seed).map_err(|error| error.to_string())?;
    announce_failures(target, seed, &current.path);
    let watch = Watch::start(target, seed, &current.path);
    let mut random = Random::new(seed);
    let (start, mut count) = (Instant::now(), 0u64);
    while start.elapsed() < time {
        let mut input = inputs[random.below(inputs.len())].1.clone();
        let other = &inputs[random.below(inputs.len())].1;
        let parts = (target.parts)(&input);
        mutate(&mut input, &parts, other, &mut random);
        current.write(&input).map_err(|error| error.to_string())?;
        watch.begin(count + 1);
        reset_peak();
        (target.run)(&input);
        if peak_kib().is_some_and(|peak| peak > MEMORY_KIB_MAX) {
            return Err(failure(target, seed, &current.path, "it takes too much memory"));
        }
        count += 1;
    }
    watch.begin(0);
    let _ = std::fs::remove_file(&current.path);
    println!("fuzz {}: {count} inputs in {} s, seed {seed}", target.name, time.as_secs());
    Ok(())
}

fn failure(target: &Target, seed: u64, path: &Path, what: &str) -> String {
    format!(
        "{} fails with seed {seed}: {what}\nreplay: cargo xtask fuzz replay {} {}",
        target.name,
        target.name,
        path.display()
    )
}

/// A panic in any thread ends the process: the library's own threads would hide it.
fn announce_failures(target: &'static Target, seed: u64, path: &Path) {
    let (path, print) = (path.to_owned(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        eprintln!("{}", failure(target, seed, &path, "it panics"));
        std::process::exit(1);
    }));
}

/// Ends the process where an input takes too long.
struct Watch(Arc<AtomicU64>);

impl Watch {
    fn start(target: &'static Target, seed: u64, path: &Path) -> Self {
        let (running, path) = (Arc::new(AtomicU64::new(0)), path.to_owned());
        let seen_by_thread = Arc::clone(&running);
        std::thread::spawn(move || {
            let mut before = 0;
            loop {
                std::thread::sleep(Duration::from_secs(INPUT_SECONDS_MAX));
                let now = seen_by_thread.load(Ordering::Relaxed);
                if now != 0 && now == before {
                    eprintln!("{}", failure(target, seed, &path, "it takes too long"));
                    std::process::exit(1);
                }
                before = now;
            }
        });
        Self(running)
    }

    fn begin(&self, number: u64) {
        self.0.store(number, Ordering::Relaxed);
    }
}

/// The most memory that the process has had since [`reset_peak`]; `None` where nobody tells.
fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn reset_peak() {
    // Elsewhere than on Linux, memory is not watched.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
