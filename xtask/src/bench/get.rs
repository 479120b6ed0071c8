//! `cargo xtask bench get`.

use std::hint::black_box;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::time::Instant;

use cpu_time::ThreadTime;
use zkv::Store;
use zkv_io::FileMap;
use zkv_measure::blocks::{self, BareReader, Block, Blocks};
use zkv_measure::figures::{compare, float, median, mib, verdict};
use zkv_measure::input::{self, Input, Record};
use zkv_measure::random::Random;

use crate::Failure;

/// A whole get may take this many times what the bare decompression takes.
const RATIO_MAX: f64 = 1.7;
/// It may also take this much longer, in microseconds.
const DIFFERENCE_MAX: f64 = 0.9;
/// Two threads together get at least this many times what one gets.
const TWO_THREADS_MIN: f64 = 1.7;

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    input: input::Arguments,
    /// Threads to hold against one.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Gets of each round.
    #[arg(long, default_value_t = 100_000)]
    gets: usize,
    /// Keys of one `get_many_bytes`.
    #[arg(long, default_value_t = 1000)]
    batch: usize,
    /// Rounds of which the medians are taken.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
}

/// Keys in the order in which they are asked for, and the blocks that hold them. Both lie one
/// behind another, so that finding out what to get next costs next to nothing.
struct Order {
    keys: Vec<u8>,
    ends: Vec<usize>,
    blocks: Vec<Block>,
    value_bytes: u64,
}

/// Everything that a round needs. All threads share it.
struct Bench {
    store: Store,
    map: Arc<dyn FileMap>,
    blocks: Blocks,
    present: Vec<Order>,
    absent: Order,
    batch: usize,
}

/// One of the loops.
#[derive(Clone, Copy)]
enum Loop {
    Get,
    Many,
    Memory,
    Map,
    Absent,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let input = arguments.input.input()?;
    let folder = arguments.input.folder()?;
    let path = folder.path().join("bench.zkv");
    arguments.input.import(&input, &path)?;
    let bench = Bench::prepare(arguments, &input, &path)?;
    drop(input);
    bench.print_store(&arguments.input.title())?;
    one_thread(&bench, arguments.rounds)?;
    if arguments.threads > 1 {
        several_threads(&bench, arguments.threads, arguments.rounds)?;
    }
    Ok(())
}

fn one_thread(bench: &Bench, rounds: usize) -> Result<(), Failure> {
    let loops = [Loop::Get, Loop::Memory, Loop::Map, Loop::Absent, Loop::Many];
    let mut taken = [const { Vec::new() }; 5];
    for round in 0..rounds {
        // Each round starts with another one.
        for turn in 0..loops.len() {
            let number = (round + turn) % loops.len();
            taken[number].push(bench.microseconds(loops[number], &bench.present[0])?);
        }
    }
    let [get, memory, map, absent, many] = taken;
    let (ratio, difference) = compare(&get, &memory);
    let (map_ratio, map_difference) = compare(&get, &map);
    println!("  get_bytes, whole                 {:7.3} us", median(&get));
    println!("  bare decompression, from memory  {:7.3} us", median(&memory));
    println!("  bare decompression, from the map {:7.3} us", median(&map));
    println!("  get_bytes of an absent key       {:7.3} us", median(&absent));
    println!(
        "  get_many_bytes, {} keys at once {:7.3} us a key, {:.2} of get_bytes",
        bench.batch,
        median(&many),
        compare(&many, &get).0
    );
    println!(
        "  get / bare: {ratio:.2}, {difference:+.2} us: {} (at most {RATIO_MAX} or {DIFFERENCE_MAX} us)",
        verdict(ratio <= RATIO_MAX || difference <= DIFFERENCE_MAX)
    );
    println!("  get / bare from the map: {map_ratio:.2}, {map_difference:+.2} us");
    Ok(())
}

/// By the fastest round of each: who else uses the processors only ever makes a round slower.
fn several_threads(bench: &Bench, count: usize, rounds: usize) -> Result<(), Failure> {
    let loops = [(Loop::Get, 1), (Loop::Get, count), (Loop::Memory, 1), (Loop::Memory, count)];
    let mut rates = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        for (rates, (which, count)) in rates.iter_mut().zip(loops) {
            rates.push(bench.steps_per_microsecond(which, count)?);
        }
    }
    let best = |rates: &[f64]| rates.iter().copied().fold(0.0, f64::max);
    let [get, gets, bare, bares] = &rates;
    let (gain, bare_gain) = (best(gets) / best(get), best(bares) / best(bare));
    let verdict = match count {
        2 if bare_gain >= TWO_THREADS_MIN => verdict(gain >= TWO_THREADS_MIN),
        2 => "unknown, since the machine is busy",
        _ => "no bar",
    };
    println!(
        "  {count} threads get {gain:.2} times what one gets, median {:.2}: {verdict} (2 threads: at least {TWO_THREADS_MIN})",
        compare(gets, get).0
    );
    println!(
        "  {count} threads decompress {bare_gain:.2} times what one does, median {:.2}",
        compare(bares, bare).0
    );
    Ok(())
}

impl Bench {
    fn prepare(arguments: &Arguments, input: &Input, path: &Path) -> Result<Self, Failure> {
        let blocks = Blocks::load(path)?;
        let store = arguments.input.options().open(path)?;
        warm(input, &store)?;
        let orders = (0..arguments.threads.max(1) as u64).map(|number| {
            let random = Random::new(arguments.input.seed ^ number << 32);
            Order::draw(input, Some(&blocks), arguments.gets, random)
        });
        let present = orders.collect::<Result<_, _>>()?;
        let absent = Order::draw(input, None, arguments.gets, Random::new(0))?;
        let batch = arguments.batch;
        Ok(Self { store, map: blocks::map(path)?, blocks, present, absent, batch })
    }

    fn print_store(&self, title: &str) -> Result<(), Failure> {
        let stats = self.store.stats()?;
        let block_count = self.blocks.blocks.len() as u64;
        println!(
            "{title}: {} keys, {:.1} MiB raw, {:.1} MiB data, {} segments, {} dictionaries",
            stats.keys,
            mib(stats.raw_bytes),
            mib(stats.data_file_bytes),
            stats.segments,
            self.blocks.dictionary_count(),
        );
        println!(
            "  {block_count} blocks of {:.0} bytes raw, {:.1} records each; values of {:.0} bytes",
            float(stats.raw_bytes) / float(block_count),
            float(stats.keys) / float(block_count),
            float(self.present[0].value_bytes) / float(self.present[0].ends.len() as u64),
        );
        let sharing = self.present[0].blocks.iter().map(|block| self.blocks.later_in_cell(block));
        println!(
            "  {:.3} further blocks start behind a key's own in the same cell",
            float(sharing.sum::<u64>()) / float(self.present[0].ends.len() as u64),
        );
        Ok(())
    }

    /// What one step of a loop takes of this thread's processor time: other processes that take
    /// turns with it do not count.
    fn microseconds(&self, which: Loop, present: &Order) -> Result<f64, Failure> {
        let order = if matches!(which, Loop::Absent) { &self.absent } else { present };
        let mut reader = BareReader::new(&self.blocks);
        let start = ThreadTime::try_now()?;
        match which {
            Loop::Get | Loop::Absent => {
                let mut value_bytes = 0;
                for key in order.keys() {
                    let value = black_box(self.store.get_bytes(key)?);
                    value_bytes += value.map_or(0, |value| value.len() as u64);
                }
                if value_bytes != order.value_bytes {
                    return Err("a get gave something else".into());
                }
            }
            Loop::Many => {
                let keys: Vec<&[u8]> = order.keys().collect();
                let mut value_bytes = 0;
                for batch in keys.chunks(self.batch.max(1)) {
                    let values = black_box(self.store.get_many_bytes(batch)?);
                    value_bytes +=
                        values.iter().flatten().map(|value| value.len() as u64).sum::<u64>();
                }
                if value_bytes != order.value_bytes {
                    return Err("a batch of gets gave something else".into());
                }
            }
            Loop::Memory => {
                for block in &order.blocks {
                    black_box(reader.read_memory(block));
                }
            }
            Loop::Map => {
                for block in &order.blocks {
                    black_box(reader.read_map(&*self.map, block)?);
                }
            }
        }
        Ok(start.try_elapsed()?.as_secs_f64() * 1e6 / float(order.ends.len() as u64))
    }

    /// What `count` threads do together, by the clock.
    fn steps_per_microsecond(&self, which: Loop, count: usize) -> Result<f64, Failure> {
        let barrier = Barrier::new(count + 1);
        std::thread::scope(|scope| {
            let threads: Vec<_> = self.present[..count]
                .iter()
                .map(|order| {
                    let work = || {
                        barrier.wait();
                        self.microseconds(which, order).map_err(|failure| failure.to_string())
                    };
                    scope.spawn(work)
                })
                .collect();
            barrier.wait();
            let start = Instant::now();
            let done: Result<Vec<f64>, String> = threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".into())))
                .collect();
            let microseconds = start.elapsed().as_secs_f64() * 1e6;
            done?;
            Ok(float((count * self.present[0].ends.len()) as u64) / microseconds)
        })
    }
}

/// Gets every key once: the page cache is warm then, and every value is known to be right.
fn warm(input: &Input, store: &Store) -> Result<(), Failure> {
    input.for_each(|key, value| match store.get_bytes(key)? {
        Some(found) if found == value => Ok(()),
        Some(_) => Err("a key has another value, or the input has it twice".into()),
        None => Err("a key is missing".into()),
    })
}

impl Order {
    fn draw(
        input: &Input,
        blocks: Option<&Blocks>,
        count: usize,
        mut random: Random,
    ) -> Result<Self, Failure> {
        let mut order =
            Self { keys: Vec::new(), ends: Vec::new(), blocks: Vec::new(), value_bytes: 0 };
        let mut record = Record::default();
        for _ in 0..count {
            input.record(random.below(input.count()), &mut record);
            match blocks {
                Some(blocks) => {
                    order.blocks.push(blocks.of_key(&record.key).ok_or("a key has no block")?);
                    order.value_bytes += record.value.len() as u64;
                }
                None => record.key.extend_from_slice(b" absent"),
            }
            order.keys.extend_from_slice(&record.key);
            order.ends.push(order.keys.len());
        }
        Ok(order)
    }

    fn keys(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.keys[start..*end])
    }
}
