//! What is measured, one file a phase.

pub mod cold;
pub mod import;
pub mod open;
pub mod read;
pub mod write;
pub mod ycsb;

use std::time::Instant;

use crate::Failure;
use crate::engine::Engine;
use crate::records::Keys;

/// Bytes that an engine hands over are looked at, one in each cache line: a pointer alone is no value.
pub fn touch(value: &[u8]) -> u64 {
    value.iter().step_by(64).map(|byte| u64::from(*byte)).sum()
}

/// Asks for all `keys` with one reader, and returns how many there were, and the bytes of their values.
pub fn get_all(engine: &dyn Engine, keys: &Keys) -> Result<(usize, u64), Failure> {
    let mut reader = engine.reader()?;
    let (mut found, mut bytes, mut sum) = (0, 0, 0);
    for key in keys.iter() {
        let is_there = reader.get(key, &mut |value| {
            bytes += value.len() as u64;
            sum += touch(value);
        })?;
        found += usize::from(is_there);
    }
    std::hint::black_box(sum);
    Ok((found, bytes))
}

/// The seconds that `work` takes.
pub fn seconds(work: impl FnOnce() -> Result<(), Failure>) -> Result<f64, Failure> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64())
}

/// Does `work` on each of `shares` in a thread of its own, and returns the seconds from the first that
/// begins until all are done.
pub fn seconds_of_threads<T: Sync>(
    shares: &[T],
    work: impl Fn(&T) -> Result<(), Failure> + Sync,
) -> Result<f64, Failure> {
    let barrier = std::sync::Barrier::new(shares.len());
    let times = std::thread::scope(|scope| {
        let start_one = |share| {
            let (barrier, work) = (&barrier, &work);
            scope.spawn(move || {
                barrier.wait();
                let start = Instant::now();
                work(share).map_err(|failure| failure.to_string())?;
                Ok((start, Instant::now()))
            })
        };
        let threads: Vec<_> = shares.iter().map(start_one).collect();
        let joined = threads.into_iter().map(|thread| match thread.join() {
            Ok(times) => times,
            Err(_) => Err("a thread panicked".to_owned()),
        });
        joined.collect::<Result<Vec<_>, String>>()
    })?;
    let first = times.iter().map(|(start, _)| *start).min();
    let last = times.iter().map(|(_, end)| *end).max();
    Ok(first.zip(last).map_or(0.0, |(first, last)| (last - first).as_secs_f64()))
}
