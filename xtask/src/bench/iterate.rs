//! `cargo xtask bench iterate`.

use std::path::Path;
use std::time::Instant;

use cpu_time::ProcessTime;
use zkv::{Collection, Store};
use zkv_measure::blocks::{BareReader, Blocks};
use zkv_measure::figures::{compare, float, median};
use zkv_measure::input::{self, Input, Record};
use zkv_measure::random::Random;

use crate::Failure;

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    input: input::Arguments,
    /// Of a thousand records, how many are overwritten for the second part.
    #[arg(long, default_value_t = 10)]
    overwritten: u64,
    /// Rounds of which the medians are taken.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let input = arguments.input.input()?;
    let folder = arguments.input.folder()?;
    let path = folder.path().join("bench.zkv");
    arguments.input.import(&input, &path)?;
    println!("{}:", arguments.input.title());
    measure(arguments, &path, "as imported")?;
    overwrite(arguments, &input, &path)?;
    measure(arguments, &path, "some overwritten")?;
    small_collections(arguments, &input, &path)
}

/// The three loops take turns.
fn measure(arguments: &Arguments, path: &Path, what: &str) -> Result<(), Failure> {
    let blocks = Blocks::load(path)?;
    let store = arguments.input.options().open_read_only(path)?;
    let raw_bytes = store.stats()?.raw_bytes;
    let loops: [&dyn Fn() -> Result<u64, Failure>; 3] =
        [&|| borrowed(&store), &|| copied(&store), &|| Ok(bare(&blocks))];
    let (mut clock, mut processor) = ([const { Vec::new() }; 3], [const { Vec::new() }; 3]);
    for round in 0..arguments.rounds {
        for turn in 0..loops.len() {
            let number = (round + turn) % loops.len();
            let (start, used) = (Instant::now(), ProcessTime::try_now()?);
            let bytes = loops[number]()?;
            clock[number].push(start.elapsed().as_secs_f64());
            processor[number].push(used.try_elapsed()?.as_secs_f64());
            if number < 2 && bytes != raw_bytes {
                return Err("an iteration gave something else".into());
            }
        }
    }
    let rate = |seconds: &[f64]| float(raw_bytes) / 1e6 / median(seconds);
    println!(
        "  {what}, MB/s of keys and values, and how much longer by the clock and in processor time"
    );
    println!("    all blocks, bare decompression {:7.0}", rate(&clock[2]));
    for (number, name) in ["next_borrowed", "next"].iter().enumerate() {
        let times = |taken: &[Vec<f64>; 3]| compare(&taken[number], &taken[2]).0;
        println!(
            "    {name:<30} {:7.0} {:7.2} {:7.2}",
            rate(&clock[number]),
            times(&clock),
            times(&processor)
        );
    }
    Ok(())
}

/// A collection that was written at once, beside all the rest, and one that was written record by record,
/// while all the rest was written again.
fn small_collections(arguments: &Arguments, input: &Input, path: &Path) -> Result<(), Failure> {
    const RECORDS: u32 = 1000;
    const STREWN: u32 = 100;
    let store = arguments.input.options().open(path)?;
    let few = store.collection::<u32, u32>("few")?;
    for number in 0..RECORDS {
        few.set(&number, &number)?;
    }
    store.flush()?;
    let what = format!("a collection of {RECORDS} records that lie in one segment");
    small_collection(arguments, &store, &few, RECORDS, &what)?;

    let strewn = store.collection::<u32, u32>("strewn")?;
    let mut record = Record::default();
    let apart = input.count().div_ceil(u64::from(STREWN));
    for (number, start) in (0..STREWN).zip((0..).step_by(usize::try_from(apart)?)) {
        strewn.set(&number, &number)?;
        for other in start..(start + apart).min(input.count()) {
            input.record(other, &mut record);
            store.set_bytes(&record.key, &record.value)?;
        }
    }
    store.flush()?;
    let what = format!("a collection of {STREWN} records, strewn over all segments");
    small_collection(arguments, &store, &strewn, STREWN, &what)
}

fn small_collection(
    arguments: &Arguments,
    store: &Store,
    collection: &Collection<u32, u32>,
    records: u32,
    what: &str,
) -> Result<(), Failure> {
    let (mut alone, mut all) = (Vec::new(), Vec::new());
    for _ in 0..arguments.rounds {
        let start = Instant::now();
        let count = collection.iter()?.try_fold(0, |count, record| record.map(|_| count + 1))?;
        alone.push(start.elapsed().as_secs_f64());
        if count != records {
            return Err("an iteration of a collection gave something else".into());
        }
        let start = Instant::now();
        borrowed(store)?;
        all.push(start.elapsed().as_secs_f64());
    }
    println!("  {what}, in the time of all others");
    println!("    {:<30} {:7.3}", "iter", compare(&alone, &all).0);
    Ok(())
}

fn borrowed(store: &Store) -> Result<u64, Failure> {
    let (mut records, mut bytes) = (store.iter_bytes(), 0);
    while let Some(record) = records.next_borrowed() {
        let (key, value) = record?;
        bytes += (key.len() + value.len()) as u64;
    }
    Ok(bytes)
}

fn copied(store: &Store) -> Result<u64, Failure> {
    let mut bytes = 0;
    for record in store.iter_bytes() {
        let (key, value) = record?;
        bytes += (key.len() + value.len()) as u64;
    }
    Ok(bytes)
}

fn bare(blocks: &Blocks) -> u64 {
    let mut reader = BareReader::new(blocks);
    blocks.blocks.iter().map(|block| reader.read_memory(block) as u64).sum()
}

fn overwrite(arguments: &Arguments, input: &Input, path: &Path) -> Result<(), Failure> {
    let store = arguments.input.options().open(path)?;
    let (mut random, mut record) = (Random::new(arguments.input.seed), Record::default());
    for _ in 0..input.count() * arguments.overwritten / 1000 {
        input.record(random.below(input.count()), &mut record);
        store.set_bytes(&record.key, &record.value)?;
    }
    Ok(store.close()?)
}
