//! Reads of what the page cache holds. Loops of gets by one thread are timed by its processor
//! time: other programs that take turns with it do not count.

use std::time::Instant;

use cpu_time::{ProcessTime, ThreadTime};
use zkv_measure::figures::float;
use zkv_measure::random::Random;

use crate::Failure;
use crate::child::{Figures, Task};
use crate::engine::Engine;
use crate::phases::{get_all, seconds_of_threads, touch};
use crate::records::Keys;
use crate::zipf::Zipf;

/// A cache that takes in what comes again has learnt what that is after so many times the gets that are
/// measured.
const WARMING: usize = 5;

pub fn warm(task: &Task<'_>, figures: &mut Figures) -> Result<(), Failure> {
    let (arguments, records) = (task.arguments, &task.records);
    let mut random = Random::new(arguments.input.seed ^ 1);
    let mut draw = || Keys::draw(arguments.gets, || records.draw(&mut random));
    let (keys, bytes) = draw();
    let threads: Vec<_> = (0..arguments.threads.max(1)).map(|_| draw()).collect();
    let zipf = Zipf::new(records.count());
    let mut draw_hot = |count| Keys::draw(count, || records.at(zipf.scattered(&mut random)));
    let (hot_before, hot) = (draw_hot(WARMING * arguments.gets), draw_hot(arguments.gets));
    let mut absent = Keys::default();
    for _ in 0..arguments.gets {
        absent.push(&[records.draw(&mut random).0, b" absent"]);
    }

    let engine = task.engine.open(&task.folder, &task.setup(None))?;
    check_all(task, &*engine)?;
    let microseconds = |keys: &Keys, found: usize, bytes: u64| -> Result<f64, Failure> {
        let start = ThreadTime::try_now()?;
        if get_all(&*engine, keys)? != (found, bytes) {
            return Err("gets gave something else".into());
        }
        Ok(start.try_elapsed()?.as_secs_f64() * 1e6 / float(keys.len() as u64))
    };
    figures.insert("get_us".into(), microseconds(&keys, keys.len(), bytes)?);
    let took = seconds_of_threads(&threads, |(keys, bytes)| match get_all(&*engine, keys)? {
        (found, found_bytes) if found == keys.len() && found_bytes == *bytes => Ok(()),
        _ => Err("gets gave something else".into()),
    })?;
    let gets = threads.iter().map(|(keys, _)| keys.len() as u64).sum();
    figures.insert("get_threads_us".into(), took * 1e6 / float(gets));
    // Caches hold what such gets have left, not what came before.
    get_all(&*engine, &hot_before.0)?;
    figures.insert("zipf_us".into(), microseconds(&hot.0, hot.0.len(), hot.1)?);
    figures.insert("miss_us".into(), microseconds(&absent, 0, 0)?);
    iterate(task, &*engine, figures)?;
    engine.close()
}

/// Holds every value against the record: an engine that loses some is not measured. It warms the
/// caches, too.
pub fn check_all(task: &Task<'_>, engine: &dyn Engine) -> Result<(), Failure> {
    let mut reader = engine.reader()?;
    for (key, value) in task.records.in_random_order() {
        let mut is_right = false;
        reader.get(key, &mut |found| is_right = found == value)?;
        if !is_right {
            return Err("a key is missing, or has another value".into());
        }
    }
    Ok(())
}

/// Goes through all records: by the clock, since an engine may use several threads, and in the
/// processor time of all of them.
fn iterate(task: &Task<'_>, engine: &dyn Engine, figures: &mut Figures) -> Result<(), Failure> {
    let (mut count, mut bytes, mut sum) = (0, 0, 0);
    let (start, cpu) = (Instant::now(), ProcessTime::try_now()?);
    engine.for_each(&mut |key, value| {
        count += 1;
        bytes += (key.len() + value.len()) as u64;
        sum += touch(value);
    })?;
    let (took, cpu) = (start.elapsed(), cpu.try_elapsed()?);
    std::hint::black_box(sum);
    if (count, bytes) != (task.records.count(), task.records.raw_bytes) {
        return Err("an iteration gave something else".into());
    }
    let megabytes = float(bytes) / 1e6;
    figures.insert("iterate_mb_s".into(), megabytes / took.as_secs_f64());
    figures.insert("iterate_cpu_mb_s".into(), megabytes / cpu.as_secs_f64());
    Ok(())
}
