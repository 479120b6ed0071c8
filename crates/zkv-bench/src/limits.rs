//! What the machine could do at best with the same records: the limits that zkv is held against.

use std::hint::black_box;

use cpu_time::ThreadTime;
use zkv_measure::blocks::{BareReader, Block, Blocks};
use zkv_measure::figures::float;
use zkv_measure::random::Random;
use zkv_measure::raw_blocks::RawBlocks;

use crate::Failure;
use crate::child::{Figures, Task};
use crate::engines::zkv;
use crate::phases::{seconds, seconds_of_threads};
use crate::records::below;

/// What an index takes for each key, roughly.
const INDEX_BYTES: usize = 6;

pub fn all(task: &Task<'_>, figures: &mut Figures) -> Result<(), Failure> {
    memory(task, figures)?;
    decompression(task, figures)?;
    compression(task, figures)
}

/// Copies of values in random order, and of single cache lines.
fn memory(task: &Task<'_>, figures: &mut Figures) -> Result<(), Failure> {
    let mut random = Random::new(task.arguments.input.seed ^ 1);
    let count = task.arguments.gets;
    let values: Vec<&[u8]> = (0..count).map(|_| task.records.draw(&mut random).1).collect();
    let mut copy = Vec::new();
    let start = ThreadTime::try_now()?;
    for value in values {
        copy.clear();
        copy.extend_from_slice(value);
        black_box(&copy);
    }
    put(figures, "limit_copy_us", start, count)?;
    let lines = black_box(vec![0_u8; (task.records.count() * INDEX_BYTES).max(64)]);
    let last = lines.len() / 64;
    let places: Vec<usize> = (0..count).map(|_| below(&mut random, last) * 64).collect();
    let (mut line, start) = ([0; 64], ThreadTime::try_now()?);
    for place in places {
        // Each waits for the one before, as a reader waits for the answer.
        let place = place + usize::from(line[0]);
        line.copy_from_slice(&lines[place..place + 64]);
    }
    black_box(line);
    put(figures, "limit_line_us", start, count)
}

/// The blocks of zkv's store that hold the keys of random gets, on one thread and on several; and
/// all blocks in their order, by the clock, on as many threads.
fn decompression(task: &Task<'_>, figures: &mut Figures) -> Result<(), Failure> {
    let blocks = Blocks::load(&zkv::path(&task.folder))?;
    let mut random = Random::new(task.arguments.input.seed ^ 1);
    let mut draw = || -> Result<Vec<Block>, Failure> {
        let keys = (0..task.arguments.gets).map(|_| task.records.draw(&mut random).0);
        keys.map(|key| blocks.of_key(key).ok_or_else(|| "a key has no block".into())).collect()
    };
    let shares =
        (0..task.arguments.threads.max(1)).map(|_| draw()).collect::<Result<Vec<_>, _>>()?;
    let read = |share: &[Block]| {
        let mut reader = BareReader::new(&blocks);
        share.iter().map(|block| reader.read_memory(block)).sum::<usize>()
    };
    black_box(read(&shares[0]));
    let start = ThreadTime::try_now()?;
    black_box(read(&shares[0]));
    put(figures, "limit_decompress_us", start, shares[0].len())?;
    let took = seconds_of_threads(&shares, |share| {
        black_box(read(share));
        Ok(())
    })?;
    let count: usize = shares.iter().map(Vec::len).sum();
    figures.insert("limit_decompress_threads_us".into(), took * 1e6 / float(count as u64));
    let parts: Vec<&[Block]> =
        blocks.blocks.chunks(blocks.blocks.len().div_ceil(shares.len()).max(1)).collect();
    let took = seconds_of_threads(&parts, |part| {
        black_box(read(part));
        Ok(())
    })?;
    figures.insert("limit_iterate_mb_s".into(), float(task.records.raw_bytes) / 1e6 / took);
    Ok(())
}

/// All blocks, compressed again as the store did, on all cores.
fn compression(task: &Task<'_>, figures: &mut Figures) -> Result<(), Failure> {
    let blocks = RawBlocks::load(&zkv::path(&task.folder))?;
    let cores = std::thread::available_parallelism()?.get();
    let level = task.arguments.input.level;
    let took = seconds(|| blocks.compress(level, cores).map(|_| ()))?;
    let megabytes = float(task.records.raw_bytes) / 1e6;
    figures.insert("limit_compress_mb_s".into(), megabytes / took);
    let records = float(task.records.count() as u64) / 1e3;
    figures.insert("limit_compress_krecords_s".into(), records / took);
    Ok(())
}

fn put(figures: &mut Figures, name: &str, start: ThreadTime, count: usize) -> Result<(), Failure> {
    let took = start.try_elapsed()?.as_secs_f64();
    figures.insert(name.to_owned(), took * 1e6 / float(count as u64));
    Ok(())
}
