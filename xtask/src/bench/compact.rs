//! `cargo xtask bench compact`.

use std::time::Instant;

use zkv::{CompactOptions, Store};
use zkv_measure::figures::{compare, float, median, mib, verdict};
use zkv_measure::input::{self, Input};
use zkv_measure::random::Random;

use crate::Failure;

/// How much smaller both files are after a compaction at level 9.
const SMALLER_PERCENT_MIN: f64 = 10.0;
/// Reads are no slower: within what two runs of the same differ by.
const GET_RATIO_MAX: f64 = 1.03;

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    input: input::Arguments,
    /// The level of the compaction.
    #[arg(long, default_value_t = 9)]
    compact_level: i32,
    /// Gets of each round.
    #[arg(long, default_value_t = 100_000)]
    gets: u64,
    /// Rounds of which the medians are taken.
    #[arg(long, default_value_t = 15)]
    rounds: u64,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let input = arguments.input.input()?;
    let folder = arguments.input.folder()?;
    let open = |name: &str| -> Result<Store, Failure> {
        let path = folder.path().join(name);
        arguments.input.import(&input, &path)?;
        Ok(arguments.input.options().open(&path)?)
    };
    let (imported, compacted) = (open("imported.zkv")?, open("compacted.zkv")?);
    let options = CompactOptions::default().compression_level(arguments.compact_level);
    let start = Instant::now();
    compacted.compact_with(&options, |_| ())?;
    let seconds = start.elapsed().as_secs_f64();
    let bytes = |store: &Store| -> Result<u64, Failure> {
        let stats = store.stats()?;
        Ok(stats.data_file_bytes + stats.index_file_bytes)
    };
    let (before, after) = (bytes(&imported)?, bytes(&compacted)?);
    let smaller = 100.0 - 100.0 * float(after) / float(before);
    println!("{}, compacted at level {}", arguments.input.title(), arguments.compact_level);
    println!(
        "  {:.2} MiB, {:.2} MiB before: {smaller:.1} % smaller: {} (at least {SMALLER_PERCENT_MIN}), in {seconds:.1} s",
        mib(after),
        mib(before),
        verdict(smaller >= SMALLER_PERCENT_MIN)
    );
    let keys = keys(&input)?;
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for round in 0..arguments.rounds {
        let of = |store: &Store| microseconds(store, &keys, arguments.gets, round);
        if round % 2 == 0 {
            first.push(of(&imported)?);
            second.push(of(&compacted)?);
        } else {
            second.push(of(&compacted)?);
            first.push(of(&imported)?);
        }
    }
    let (ratio, _) = compare(&second, &first);
    println!(
        "  a get {:.2} us, {:.2} us before: {ratio:.2}: {} (at most {GET_RATIO_MAX})",
        median(&second),
        median(&first),
        verdict(ratio <= GET_RATIO_MAX)
    );
    Ok(())
}

fn keys(input: &Input) -> Result<Vec<Vec<u8>>, Failure> {
    let mut keys = Vec::new();
    input.for_each(|key, _| {
        keys.push(key.to_vec());
        Ok(())
    })?;
    Ok(keys)
}

/// What one get of a random key takes.
fn microseconds(store: &Store, keys: &[Vec<u8>], gets: u64, seed: u64) -> Result<f64, Failure> {
    let mut random = Random::new(seed);
    let start = Instant::now();
    for _ in 0..gets {
        let place = usize::try_from(random.below(keys.len() as u64))?;
        if store.get_bytes(&keys[place])?.is_none() {
            return Err("a key is missing".into());
        }
    }
    Ok(start.elapsed().as_secs_f64() * 1e6 / float(gets))
}
