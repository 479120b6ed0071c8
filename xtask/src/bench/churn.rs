//! `cargo xtask bench churn`.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cpu_time::ProcessTime;
use zkv::{Cleaning, Stats, Store};
use zkv_measure::figures::{float, mib, verdict};
use zkv_measure::generate::Generator;
use zkv_measure::input::{self, Record};
use zkv_measure::memory::own_memory_bytes;
use zkv_measure::random::{Random, mix};

use crate::Failure;

/// The file may be so many times as long as what is live in it, and two slots longer.
const FILE_RATIO_MAX: f64 = 1.5;
/// Of even overwrites, and of skewed ones.
const AMPLIFICATION_MAX: (f64, f64) = (3.0, 2.0);
/// Beside a store that is never cleaned.
const THROUGHPUT_MIN: f64 = 0.5;
const READ_TAIL_MAX: f64 = 3.0;
/// What deleting nine tenths and compacting leaves, and one slot.
const COMPACTED_RATIO_MAX: f64 = 1.1;
/// What deleting all leaves.
const EMPTY_BYTES_MAX: u64 = 64 << 10;
const COMPACTION_MIB_MAX: f64 = 64.0;
/// How often the file is measured.
const SAMPLE_EVERY: Duration = Duration::from_millis(2);
/// How often somebody reads meanwhile.
const READ_EVERY: Duration = Duration::from_micros(500);

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    input: input::Arguments,
    /// How often as many records are overwritten as there are.
    #[arg(long, default_value_t = 10)]
    rounds: u64,
    /// Four of five overwrites go to a fifth of the keys, and each key is chosen anew.
    #[arg(long)]
    skewed: bool,
    /// Without the store that is never cleaned: nothing to hold throughput and reads against.
    #[arg(long)]
    alone: bool,
}

/// What happened to one store.
struct Churned {
    seconds: f64,
    processor_seconds: f64,
    stats: Stats,
    /// The most that the file exceeded its bound by, in slots, over all rounds.
    excess_slots: f64,
    longest_file: u64,
    read_tail_us: f64,
    read_median_us: f64,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let kind = if arguments.skewed { "skewed overwrites" } else { "random overwrites of all" };
    println!("{}: {} rounds of {kind}", arguments.input.title(), arguments.rounds);
    let folder = arguments.input.folder()?;
    let bench = Bench::new(arguments, folder.path().join("cleaned.zkv"));
    let store = bench.fill(Cleaning::default())?;
    let cleaned = bench.churn(&store)?;
    cleaned.print("cleaned", arguments);
    if !arguments.alone {
        let path = folder.path().join("never.zkv");
        let never = Bench::new(arguments, path);
        let other = never.fill(Cleaning::Off)?;
        let never = never.churn(&other)?;
        drop(other);
        never.print("never cleaned", arguments);
        compare(&cleaned, &never);
    }
    bench.delete_and_compact(&store)
}

fn compare(cleaned: &Churned, never: &Churned) {
    let throughput = never.seconds / cleaned.seconds;
    let tail = cleaned.read_tail_us / never.read_tail_us;
    println!(
        "  throughput beside one never cleaned {throughput:.2}: {} (at least {THROUGHPUT_MIN})",
        verdict(throughput >= THROUGHPUT_MIN)
    );
    println!(
        "  99.9th percentile of a read beside it {tail:.2}: {} (at most {READ_TAIL_MAX})",
        verdict(tail <= READ_TAIL_MAX)
    );
}

struct Bench<'a> {
    arguments: &'a Arguments,
    path: PathBuf,
    keys: Generator,
}

impl<'a> Bench<'a> {
    fn new(arguments: &'a Arguments, path: PathBuf) -> Self {
        let keys = Generator::new(arguments.input.generate, arguments.input.seed);
        Self { arguments, path, keys }
    }

    fn count(&self) -> u64 {
        self.arguments.input.count
    }

    fn fill(&self, cleaning: Cleaning) -> Result<Store, Failure> {
        let store = self.arguments.input.options().cleaning(cleaning).open(&self.path)?;
        let mut record = Record::default();
        for number in 0..self.count() {
            self.keys.record(number, &mut record);
            store.set_bytes(&record.key, &record.value)?;
        }
        store.sync()?;
        Ok(store)
    }

    /// Overwrites records, while others read them and measure the file.
    fn churn(&self, store: &Store) -> Result<Churned, Failure> {
        let before = store.stats()?;
        let watch = Watch::default();
        let mut excess_slots = f64::MIN;
        let (start, processor) = (Instant::now(), ProcessTime::try_now()?);
        let latencies = std::thread::scope(|scope| {
            scope.spawn(|| watch.measure(&self.path));
            let reads = scope.spawn(|| self.read(store, &watch));
            let churned = (1..=self.arguments.rounds).try_for_each(|round| {
                let live_before = store.stats()?.live_bytes;
                self.overwrite(store, round)?;
                store.flush()?;
                let live = store.stats()?.live_bytes.min(live_before);
                let longest = watch.longest.swap(0, Ordering::Relaxed);
                let excess = float(longest) - FILE_RATIO_MAX * float(live);
                excess_slots = excess_slots.max(excess / float(self.slot_bytes()));
                Ok::<(), Failure>(())
            });
            watch.is_over.store(true, Ordering::Relaxed);
            let latencies = reads.join().unwrap_or_default();
            churned.map(|()| latencies)
        })?;
        if let Some(failure) = watch.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(failure.into());
        }
        let (seconds, processor_seconds) =
            (start.elapsed().as_secs_f64(), processor.try_elapsed()?.as_secs_f64());
        let mut stats = store.stats()?;
        stats.written_bytes -= before.written_bytes;
        stats.cleaning.moved_bytes -= before.cleaning.moved_bytes;
        let at = |share: f64| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place")]
            let place = (float(latencies.len() as u64) * share) as usize;
            latencies.get(place).copied().unwrap_or_default()
        };
        Ok(Churned {
            seconds,
            processor_seconds,
            stats,
            excess_slots,
            longest_file: watch.longest_ever.load(Ordering::Relaxed),
            read_tail_us: at(0.999),
            read_median_us: at(0.5),
        })
    }

    fn slot_bytes(&self) -> u64 {
        u64::from(self.arguments.input.slot_bytes.unwrap_or(8 << 20))
    }

    /// One round: each key once in random order, or as many by chance.
    fn overwrite(&self, store: &Store, round: u64) -> Result<(), Failure> {
        let count = self.count();
        let values =
            Generator::new(self.arguments.input.generate, self.arguments.input.seed + round);
        let mut random = Random::new(round);
        let (mut record, mut value) = (Record::default(), Record::default());
        let order = Order::new(count, round);
        for step in 0..count {
            let number = match self.arguments.skewed {
                false => order.at(step),
                true if random.below(5) < 4 => random.below(count / 5),
                true => random.below(count),
            };
            self.keys.record(number, &mut record);
            values.record(number, &mut value);
            store.set_bytes(&record.key, &value.value)?;
        }
        Ok(())
    }

    /// Reads random records now and then, and returns how long that took, in microseconds, sorted.
    fn read(&self, store: &Store, watch: &Watch) -> Vec<f64> {
        let (mut random, mut record) = (Random::new(7), Record::default());
        let mut latencies = Vec::new();
        while !watch.is_over.load(Ordering::Relaxed) {
            self.keys.record(random.below(self.count()), &mut record);
            let start = Instant::now();
            if !matches!(store.get_bytes(&record.key), Ok(Some(_))) {
                watch.note_failure("a key was not found");
            }
            latencies.push(start.elapsed().as_secs_f64() * 1e6);
            std::thread::sleep(READ_EVERY);
        }
        latencies.sort_by(f64::total_cmp);
        latencies
    }

    fn delete_and_compact(&self, store: &Store) -> Result<(), Failure> {
        let mut record = Record::default();
        for number in (0..self.count()).filter(|number| number % 10 != 0) {
            self.keys.record(number, &mut record);
            store.delete_bytes(&record.key)?;
        }
        store.flush()?;
        let stats = self.compact(store, "nine tenths deleted")?;
        let bound = COMPACTED_RATIO_MAX * float(stats.live_bytes) + float(self.slot_bytes());
        let holds = float(stats.data_file_bytes) <= bound;
        println!(
            "    {:.1} MiB, {:.1} MiB live: {} (at most {COMPACTED_RATIO_MAX} times, and a slot)",
            mib(stats.data_file_bytes),
            mib(stats.live_bytes),
            verdict(holds)
        );
        for number in (0..self.count()).step_by(10) {
            self.keys.record(number, &mut record);
            store.delete_bytes(&record.key)?;
        }
        let stats = self.compact(store, "all deleted")?;
        println!(
            "    {} bytes: {} (below {EMPTY_BYTES_MAX})",
            stats.data_file_bytes,
            verdict(stats.data_file_bytes < EMPTY_BYTES_MAX)
        );
        Ok(())
    }

    fn compact(&self, store: &Store, what: &str) -> Result<Stats, Failure> {
        let before = store.stats()?.data_file_bytes;
        let (watch, memory_before) = (Watch::default(), own_memory_bytes()?);
        let start = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| watch.measure(&self.path));
            let compacted = store.compact(|_| ());
            watch.is_over.store(true, Ordering::Relaxed);
            compacted
        })?;
        let stats = store.stats()?;
        let most = before.max(stats.data_file_bytes);
        let longest = watch.longest_ever.load(Ordering::Relaxed).max(most);
        let slots = float(longest - most) / float(self.slot_bytes());
        let used = mib(watch.memory.load(Ordering::Relaxed).saturating_sub(memory_before));
        println!("  {what}, and compacted in {:.1} s", start.elapsed().as_secs_f64());
        println!(
            "    at most {slots:.2} slots beyond before and after: {} (at most 2)",
            verdict(slots <= 2.0)
        );
        println!(
            "    {used:.1} MiB of memory besides: {} (below {COMPACTION_MIB_MAX})",
            verdict(used < COMPACTION_MIB_MAX)
        );
        Ok(stats)
    }
}

impl Churned {
    fn print(&self, name: &str, arguments: &Arguments) {
        let written = arguments.rounds * arguments.input.count;
        let (amplification, file) = (self.stats.write_amplification(), self.longest_file);
        println!("  {name}:");
        println!(
            "    {:.0} overwrites a second, {:.1} s of processor time in {:.1} s",
            float(written) / self.seconds,
            self.processor_seconds,
            self.seconds
        );
        println!(
            "    reads: median {:.1} us, 99.9th percentile {:.0} us",
            self.read_median_us, self.read_tail_us
        );
        println!(
            "    file {:.1} MiB at the most, {:.1} MiB live",
            mib(file),
            mib(self.stats.live_bytes)
        );
        if self.stats.cleaning.segments == 0 {
            return;
        }
        let max = if arguments.skewed { AMPLIFICATION_MAX.1 } else { AMPLIFICATION_MAX.0 };
        println!(
            "    {:+.2} slots beyond {FILE_RATIO_MAX} times what is live: {} (at most 2)",
            self.excess_slots,
            verdict(self.excess_slots <= 2.0)
        );
        println!(
            "    write amplification {amplification:.2}: {} (at most {max})",
            verdict(amplification <= max)
        );
        println!("    {:?}", self.stats.cleaning);
    }
}

/// What others see while something is done to a store.
#[derive(Default)]
struct Watch {
    is_over: AtomicBool,
    /// The file's greatest length since somebody looked, and ever.
    longest: AtomicU64,
    longest_ever: AtomicU64,
    /// The most of the process's own memory.
    memory: AtomicU64,
    failure: Mutex<Option<String>>,
}

impl Watch {
    fn measure(&self, path: &Path) {
        while !self.is_over.load(Ordering::Relaxed) {
            let bytes = path.metadata().map_or(0, |metadata| metadata.len());
            self.longest.fetch_max(bytes, Ordering::Relaxed);
            self.longest_ever.fetch_max(bytes, Ordering::Relaxed);
            self.memory.fetch_max(own_memory_bytes().unwrap_or(0), Ordering::Relaxed);
            std::thread::sleep(SAMPLE_EVERY);
        }
    }

    fn note_failure(&self, what: &str) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert_with(|| what.to_owned());
    }
}

/// The numbers below a count, in an order that looks random: a Feistel network over the next power of
/// four, whose numbers beyond the count are walked past.
struct Order {
    count: u64,
    half_bits: u32,
    seed: u64,
}

impl Order {
    fn new(count: u64, seed: u64) -> Self {
        let bits = u64::BITS - count.max(2).leading_zeros();
        Self { count, half_bits: bits.div_ceil(2), seed }
    }

    fn at(&self, place: u64) -> u64 {
        let mut number = place;
        loop {
            number = self.shuffled(number);
            if number < self.count {
                return number;
            }
        }
    }

    fn shuffled(&self, number: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (number >> self.half_bits, number & mask);
        for round in 0..4 {
            let mixed = mix(right ^ mix(self.seed << 8 | round));
            (left, right) = (right, left ^ (mixed & mask));
        }
        left << self.half_bits | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_has_each_number_once() {
        for count in [1, 2, 3, 100, 1000] {
            let order = Order::new(count, 5);
            let mut seen: Vec<u64> = (0..count).map(|place| order.at(place)).collect();
            assert!(count < 50 || !seen.is_sorted());
            seen.sort_unstable();
            assert_eq!(seen, (0..count).collect::<Vec<u64>>());
        }
    }
}
