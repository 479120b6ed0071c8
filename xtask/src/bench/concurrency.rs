//! `cargo xtask bench concurrency`: readers beside a writer, and commits that wait together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use zkv::{Durability, Options, Store, WriteBatch};
use zkv_io::FileStorage;
use zkv_measure::figures::{float, mib, verdict};
use zkv_measure::memory::own_memory_bytes;
use zkv_measure::random::Random;
use zkv_sim::{Act, Watched};

use crate::Failure;

/// The 99.9th percentile of a read beside a writer is at most this many times that without.
const TAIL_RATIO_MAX: f64 = 3.0;
/// Threads that commit together do at least this many times what one does.
const GROUP_RATIO_MIN: f64 = 4.0;

#[derive(clap::Args)]
pub struct Arguments {
    /// Records that the readers read.
    #[arg(long, default_value_t = 200_000)]
    records: u32,
    /// Seconds that each part of a round takes.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Rounds; the worst of each percentile is reported beside the median.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Milliseconds that each sync is made to take longer, where commits wait together.
    #[arg(long, default_value_t = 5)]
    sync_ms: u64,
    /// Threads that commit together.
    #[arg(long, default_value_t = 8)]
    threads: usize,
    /// Records of the batch.
    #[arg(long, default_value_t = 1_000_000)]
    batch: u32,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    readers(arguments)?;
    groups(arguments)?;
    batch(arguments)
}

fn value(number: u32) -> Vec<u8> {
    format!("{{\"id\":{number},\"name\":\"package-{}\",\"stars\":{}}}", number % 977, number / 3)
        .into_bytes()
}

/// Reads by two threads, alone and while another one commits `Synced` without pause.
fn readers(arguments: &Arguments) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("readers.zkv");
    let store = Options::new().durability(Durability::Synced).open(&path)?;
    let mut batch = WriteBatch::new();
    for number in 0..arguments.records {
        batch.set_bytes(&number.to_le_bytes(), &value(number));
    }
    store.write(batch)?;
    let (mut alone, mut beside, mut commits) = (Vec::new(), Vec::new(), 0);
    for round in 0..arguments.rounds {
        alone.push(Tail::of(read_for(arguments, &store, round)?));
        let is_done = AtomicBool::new(false);
        let (read, committed) = thread::scope(|scope| {
            let writer = scope.spawn(|| commit_until(&store, &is_done));
            let read = read_for(arguments, &store, round);
            is_done.store(true, Ordering::Relaxed);
            (read, writer.join())
        });
        beside.push(Tail::of(read?));
        commits += committed.map_err(|_| "the writer panicked")??;
    }
    let seconds = float(arguments.seconds) * float(arguments.rounds as u64);
    println!("reads by two threads, of {} records, in microseconds:", arguments.records);
    println!("                     median   99 %   99.9 %  99.99 %  slowest");
    let (alone, beside) = (Tail::middle(&alone), Tail::middle(&beside));
    alone.print("alone");
    beside.print("beside a writer");
    let ratio = beside.p999 / alone.p999;
    println!(
        "  99.9 %: {ratio:.2} times: {} (at most {TAIL_RATIO_MAX})",
        verdict(ratio <= TAIL_RATIO_MAX)
    );
    println!("  the writer made {:.0} synced commits a second", float(commits) / seconds);
    Ok(())
}

fn commit_until(store: &Store, is_done: &AtomicBool) -> Result<u64, zkv::Error> {
    let mut count = 0u32;
    while !is_done.load(Ordering::Relaxed) {
        store.set_bytes(&(count % 1000).to_be_bytes(), &value(count))?;
        count += 1;
    }
    Ok(count.into())
}

/// The nanoseconds of each read.
fn read_for(arguments: &Arguments, store: &Store, round: usize) -> Result<Vec<u64>, Failure> {
    let time = Duration::from_secs(arguments.seconds);
    let one = |seed: u64| -> Result<Vec<u64>, zkv::Error> {
        let (mut random, mut taken) = (Random::new(seed), Vec::new());
        let start = Instant::now();
        while start.elapsed() < time {
            let number = u32::try_from(random.below(arguments.records.into())).unwrap_or(0);
            let before = Instant::now();
            let found = store.get_bytes(&number.to_le_bytes())?;
            taken.push(u64::try_from(before.elapsed().as_nanos()).unwrap_or(u64::MAX));
            assert!(found.is_some(), "a record is missing");
        }
        Ok(taken)
    };
    let both = thread::scope(|scope| {
        let other = scope.spawn(|| one(round as u64 * 2));
        (one(round as u64 * 2 + 1), other.join())
    });
    let mut taken = both.0?;
    taken.extend(both.1.map_err(|_| "a reader panicked")??);
    Ok(taken)
}

/// The far end of how long reads took, in microseconds.
#[derive(Clone, Copy)]
struct Tail {
    p50: f64,
    p99: f64,
    p999: f64,
    p9999: f64,
    max: f64,
}

impl Tail {
    fn of(mut nanoseconds: Vec<u64>) -> Self {
        nanoseconds.sort_unstable();
        let at = |share: f64| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place")]
            let place = (share * float(nanoseconds.len() as u64 - 1)) as usize;
            float(nanoseconds[place]) / 1000.0
        };
        Self { p50: at(0.5), p99: at(0.99), p999: at(0.999), p9999: at(0.9999), max: at(1.0) }
    }

    /// The median of each.
    fn middle(of: &[Self]) -> Self {
        let median = |part: fn(&Self) -> f64| {
            let mut values: Vec<f64> = of.iter().map(part).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        Self {
            p50: median(|tail| tail.p50),
            p99: median(|tail| tail.p99),
            p999: median(|tail| tail.p999),
            p9999: median(|tail| tail.p9999),
            max: median(|tail| tail.max),
        }
    }

    fn print(&self, name: &str) {
        let Self { p50, p99, p999, p9999, max } = self;
        println!("  {name:<16} {p50:8.2} {p99:8.2} {p999:8.2} {p9999:8.2} {max:8.1}");
    }
}

/// Commits a second of one thread and of several, where a sync takes its time.
fn groups(arguments: &Arguments) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let delay = Duration::from_millis(arguments.sync_ms);
    let path = folder.path().join("groups.zkv");
    let slow = Watched::new(Arc::new(FileStorage), move |act, _| {
        if act == Act::Sync {
            thread::sleep(delay);
        }
        Ok(())
    });
    let storage = Arc::new(slow);
    let store = Options::new().storage(storage).durability(Durability::Synced).open(path)?;
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..arguments.rounds {
        for (rates, threads) in rates.iter_mut().zip([1, arguments.threads]) {
            let time = Duration::from_secs(arguments.seconds);
            let commits = commits_of(&store, threads, time, round)?;
            rates.push(float(commits) / time.as_secs_f64());
        }
    }
    let [one, many] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    });
    println!("synced commits a second, where a sync takes {} ms more:", arguments.sync_ms);
    println!("  one thread {one:.0}, {} threads {many:.0}", arguments.threads);
    let ratio = many / one;
    println!(
        "  {ratio:.2} times: {} (at least {GROUP_RATIO_MIN})",
        verdict(ratio >= GROUP_RATIO_MIN)
    );
    Ok(())
}

fn commits_of(store: &Store, threads: usize, time: Duration, round: usize) -> Result<u64, Failure> {
    let one = |thread: usize| -> Result<u64, zkv::Error> {
        let (start, mut count) = (Instant::now(), 0u64);
        while start.elapsed() < time {
            let key = [&thread.to_le_bytes()[..], &round.to_le_bytes(), &count.to_le_bytes()];
            store.set_bytes(&key.concat(), b"value")?;
            count += 1;
        }
        Ok(count)
    };
    let counts: Vec<_> = thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|thread| scope.spawn(move || one(thread))).collect();
        all.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    let mut sum = 0;
    for count in counts {
        sum += count.map_err(|_| "a writer panicked")??;
    }
    Ok(sum)
}

/// One batch of many records, and what it takes of memory.
fn batch(arguments: &Arguments) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path().join("batch.zkv"))?;
    let before = own_memory_bytes()?;
    let start = Instant::now();
    let (mut batch, mut bytes) = (WriteBatch::new(), 0u64);
    for number in 0..arguments.batch {
        let value = value(number);
        bytes += 4 + value.len() as u64;
        batch.set_bytes(&number.to_le_bytes(), &value);
    }
    let gathered = own_memory_bytes()?;
    let is_done = AtomicBool::new(false);
    let peak = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak = 0;
            while !is_done.load(Ordering::Relaxed) {
                peak = peak.max(own_memory_bytes().unwrap_or(0));
                thread::sleep(Duration::from_millis(1));
            }
            peak
        });
        let written = store.write(batch);
        is_done.store(true, Ordering::Relaxed);
        written.map(|()| watcher.join().unwrap_or(0))
    })?;
    let seconds = start.elapsed().as_secs_f64();
    println!("one batch of {} records, {:.0} MiB:", arguments.batch, mib(bytes));
    println!(
        "  {seconds:.1} s; gathering takes {:.0} MiB of memory, writing {:.0} MiB at its peak",
        mib(gathered.saturating_sub(before)),
        mib(peak.saturating_sub(before))
    );
    Ok(())
}
