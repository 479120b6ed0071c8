//! `cargo xtask bench memory`.

use serde::{Deserialize, Serialize};
use zkv_measure::figures::{mib, report_as_child, run_child as run_in_child, verdict};
use zkv_measure::input;
use zkv_measure::memory::{own_memory_bytes, peak_while};

use crate::Failure;

/// An import takes less memory than this, whatever its size, maps not counted.
const MIB_MAX: f64 = 100.0;
/// How many times over the input is imported: from the second size on, the buffers are full, and
/// the index of what came behind the last checkpoint is as long as it gets.
const TIMES: [u64; 3] = [1, 4, 16];
/// The last two sizes differ by less than this, where the size does not matter.
const SPREAD_MAX: f64 = 1.25;
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
        let mut words = vec![
            "bench".to_owned(),
            "memory-child".to_owned(),
            "--times".to_owned(),
            times.to_string(),
        ];
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
    let (stats, peak_bytes) = peak_while(|| import(arguments, &input, folder.path()))?;
    report_as_child(&Imported {
        keys: stats.keys,
        raw_bytes: stats.raw_bytes,
        peak_bytes: peak_bytes.saturating_sub(before),
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
