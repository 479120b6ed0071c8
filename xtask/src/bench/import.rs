//! `cargo xtask bench import`.

use std::time::Instant;

use cpu_time::ProcessTime;
use zkv_measure::figures::{compare, float, median, mib, verdict};
use zkv_measure::input::{self, Input, put_all};
use zkv_measure::raw_blocks::RawBlocks;

use crate::Failure;

/// An import may take this many times the processor time of compressing its blocks in a loop: on
/// records of a kilobyte, and on records of a hundred bytes.
const RATIO_MAX: (f64, f64) = (1.5, 2.0);
/// Below this mean length, records are small ones.
const SMALL_RECORD_BYTES: f64 = 300.0;

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    input: input::Arguments,
    /// Rounds of which the medians are taken.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
}

/// The seconds of one round.
struct Round {
    /// Processor time, of all threads.
    import: f64,
    wall: f64,
    /// Of the wall time, that of closing: the index is written, and both files are synced.
    closing: f64,
    /// Processor time until then.
    import_to_closing: f64,
    training: f64,
    limit: f64,
    /// The same loop, its blocks shared out among two threads, in processor time.
    limit_of_two: f64,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let input = Input::File(arguments.input.input()?.in_memory()?);
    let mut rounds = Vec::new();
    for _ in 0..arguments.rounds {
        rounds.push(round(arguments, &input)?);
    }
    print(arguments, &input, &rounds)
}

fn round(arguments: &Arguments, input: &Input) -> Result<Round, Failure> {
    let folder = arguments.input.folder()?;
    let path = folder.path().join("bench.zkv");
    let (start, cpu) = (Instant::now(), ProcessTime::try_now()?);
    let store = arguments.input.options().open(&path)?;
    put_all(input, &store)?;
    let import_to_closing = cpu.try_elapsed()?.as_secs_f64();
    let before_closing = start.elapsed().as_secs_f64();
    store.close()?;
    let import = cpu.try_elapsed()?.as_secs_f64();
    let wall = start.elapsed().as_secs_f64();
    let blocks = RawBlocks::load(&path)?;
    drop(folder);
    let limit = blocks.compress(arguments.input.level, 1)?;
    let limit_of_two = blocks.compress(arguments.input.level, 2)?;
    let block_bytes = arguments.input.block_bytes.unwrap_or(1024);
    let training = blocks.train(block_bytes, arguments.input.level)?;
    let closing = wall - before_closing;
    Ok(Round { import, wall, closing, import_to_closing, training, limit, limit_of_two })
}

fn print(arguments: &Arguments, input: &Input, rounds: &[Round]) -> Result<(), Failure> {
    let of = |each: fn(&Round) -> f64| rounds.iter().map(each).collect::<Vec<_>>();
    let least = |each: fn(&Round) -> f64| of(each).into_iter().fold(f64::INFINITY, f64::min);
    let mut raw_bytes = 0;
    input.for_each(|key, value| {
        raw_bytes += (key.len() + value.len()) as u64;
        Ok(())
    })?;
    let is_small = float(raw_bytes) / float(input.count()) < SMALL_RECORD_BYTES;
    let bar = if is_small { RATIO_MAX.1 } else { RATIO_MAX.0 };
    let wall = median(&of(|round| round.wall));
    println!("{}: {} records, {:.1} MiB", arguments.input.title(), input.count(), mib(raw_bytes));
    println!("  import, wall           {wall:7.3} s, {:.0} MiB/s", mib(raw_bytes) / wall);
    println!("  import, processors     {:7.3} s", median(&of(|round| round.import)));
    println!("  of that, training      {:7.3} s", median(&of(|round| round.training)));
    println!("  compression in a loop  {:7.3} s", median(&of(|round| round.limit)));
    println!("  the same on 2 threads  {:7.3} s", median(&of(|round| round.limit_of_two)));
    let (ratio, _) = compare(&of(Round::without_training), &of(|round| round.limit));
    let (of_two, _) = compare(&of(Round::without_training), &of(|round| round.limit_of_two));
    let fastest = least(Round::without_training) / least(|round| round.limit);
    println!(
        "  (import - training) / compression: {ratio:.2}: {} (at most {bar}); of the fastest \
         rounds {fastest:.2}; of compression on 2 threads {of_two:.2}",
        verdict(ratio <= bar)
    );
    let (busy, _) = compare(&of(|round| round.import), &of(|round| round.wall));
    let (to_closing, _) =
        compare(&of(|round| round.import_to_closing), &of(|round| round.wall - round.closing));
    let closing = median(&of(|round| round.closing));
    println!(
        "  processors busy: {busy:.2}; before closing, which takes {closing:.3} s: {to_closing:.2}"
    );
    Ok(())
}

impl Round {
    fn without_training(&self) -> f64 {
        self.import - self.training
    }
}
