//! `cargo xtask bench memory`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::bench::figures::{
    mib, own_memory_bytes, report_as_child, run_child as run_in_child, verdict,
};
use crate::bench::input;

/// An import takes less memory than this, whatever its size, maps not counted.
const MIB_MAX: f64 = 100.0;
/// How many times over the input is imported: from the second size on, the buffers are full, and
/// the index of what came behind the last checkpoint is as long as it gets.
const TIMES: [u64; 3] = [1, 4, 16];
/// The last two sizes differ by less than this, where the size does not matter.
const SPREAD_MAX: f64 = 1.25;
/// How often a process looks at its memory.
const SAMPLE_EVERY: Duration = Duration::from_millis(1);

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    input: input::Arguments,
}

#[derive(clap::Args)]
pub struct ChildArguments {
    #[command(flatten)]
    input: input::Arguments,
    /// How many times over to import it, each time under other keys.
    #[arg(long)]
    times: u64,
}

#[derive(Serialize, Deserialize)]
struct Imported {
    keys: u64,
    raw_bytes: u64,
    peak_bytes: u64,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    println!("{}: the peak of an import's own memory", arguments.input.title());
    let mut peaks = Vec::new();
    for times in TIMES {
        let mut words = vec!["memory-child".to_owned(), "--times".to_owned(), times.to_string()];
        words.extend(arguments.input.to_command_line());
        let imported: Imported = run_in_child(&words)?;
        let peak = mib(imported.peak_bytes);
        println!(
            "  {times} x: {} keys, {:.1} MiB raw: {peak:.1} MiB: {} (below {MIB_MAX})",
            imported.keys,
            mib(imported.raw_bytes),
            verdict(peak < MIB_MAX)
        );
        peaks.push(peak);
    }
    let spread = peaks[2] / peaks[1];
    println!("  16 x / 4 x: {spread:.2}: {} (below {SPREAD_MAX})", verdict(spread < SPREAD_MAX));
    Ok(())
}

/// What the input itself takes is there before and is left out.
pub fn run_child(arguments: &ChildArguments) -> Result<(), Failure> {
    let input = arguments.input.input()?;
    let folder = arguments.input.folder()?;
    let before = own_memory_bytes()?;
    let (peak, is_done) = (AtomicU64::new(0), AtomicBool::new(false));
    let watch = || {
        while !is_done.load(Ordering::Relaxed) {
            let now = own_memory_bytes().unwrap_or(u64::MAX);
            peak.fetch_max(now, Ordering::Relaxed);
            std::thread::sleep(SAMPLE_EVERY);
        }
    };
    let stats = std::thread::scope(|scope| {
        scope.spawn(watch);
        let imported = import(arguments, &input, folder.path());
        is_done.store(true, Ordering::Relaxed);
        imported
    })?;
    report_as_child(&Imported {
        keys: stats.keys,
        raw_bytes: stats.raw_bytes,
        peak_bytes: peak.into_inner().saturating_sub(before),
    })
}

fn import(
    arguments: &ChildArguments,
    input: &input::Input,
    folder: &std::path::Path,
) -> Result<zkv::Stats, Failure> {
    let store = arguments.input.options().open(folder.join("bench.zkv"))?;
    let mut key_of_time = Vec::new();
    for time in 0..arguments.times {
        input.for_each(|key, value| {
            key_of_time.clear();
            key_of_time.extend_from_slice(key);
            if time > 0 {
                key_of_time.extend_from_slice(format!(" {time}").as_bytes());
            }
            Ok(store.set_bytes(&key_of_time, value)?)
        })?;
    }
    store.sync()?;
    let stats = store.stats()?;
    store.close()?;
    Ok(stats)
}
