//! What the blocks of a closed store hold, decompressed, to be compressed and trained on again.

use std::hint::black_box;
use std::ops::Range;
use std::path::Path;

use cpu_time::ThreadTime;
use zkv_log::LogOptions;
use zkv_log::measure::{Compressor, MeasuredBlock, MeasuredDictionary, Training, for_each_block};

use crate::Failure;
use crate::blocks::open_log;

/// What the blocks of a store hold, by commit.
#[derive(Default)]
pub struct RawBlocks {
    bytes: Vec<u8>,
    blocks: Vec<(Range<usize>, Option<usize>)>,
    dictionaries: Vec<MeasuredDictionary>,
    entries: Vec<Range<usize>>,
    /// Where the entries of each commit end.
    commits: Vec<usize>,
}

impl RawBlocks {
    /// Those of the closed store at `path`.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let mut loaded = Self::default();
        let mut commits_before = 0;
        for_each_block(&open_log(path)?, |block| {
            if block.commits_before != commits_before {
                commits_before = block.commits_before;
                loaded.commits.push(loaded.entries.len());
            }
            loaded.add(block);
        })?;
        loaded.commits.push(loaded.entries.len());
        Ok(loaded)
    }

    fn add(&mut self, block: &MeasuredBlock<'_>) {
        let dictionary = block.dictionary.as_ref().map(|dictionary| {
            let known = &mut self.dictionaries;
            let place = known.iter().position(|known| known.bytes() == dictionary.bytes());
            place.unwrap_or_else(|| {
                known.push(dictionary.clone());
                known.len() - 1
            })
        });
        let start = self.bytes.len();
        self.bytes.extend_from_slice(block.raw);
        self.blocks.push((start..self.bytes.len(), dictionary));
        // The entries are the last of what a block holds.
        let lengths: Vec<usize> = block.entries().map(<[u8]>::len).collect();
        let mut at = self.bytes.len() - lengths.iter().sum::<usize>();
        for length in lengths {
            self.entries.push(at..at + length);
            at += length;
        }
    }

    /// Compresses all blocks on `count` threads, and returns their seconds together.
    pub fn compress(&self, level: i32, count: usize) -> Result<f64, Failure> {
        let share = self.blocks.len().div_ceil(count).max(1);
        let seconds: Result<Vec<f64>, std::io::Error> = std::thread::scope(|scope| {
            let threads: Vec<_> = self
                .blocks
                .chunks(share)
                .map(|blocks| scope.spawn(|| self.compress_share(level, blocks)))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or(Ok(f64::NAN))).collect()
        });
        Ok(seconds?.iter().sum())
    }

    fn compress_share(
        &self,
        level: i32,
        blocks: &[(Range<usize>, Option<usize>)],
    ) -> Result<f64, std::io::Error> {
        let mut compressor = Compressor::new(level);
        let start = ThreadTime::try_now()?;
        for (raw, dictionary) in blocks {
            let dictionary = dictionary.map(|number| &self.dictionaries[number]);
            black_box(compressor.compress(&self.bytes[raw.clone()], dictionary));
        }
        Ok(start.try_elapsed()?.as_secs_f64())
    }

    /// Trains as the import did, and returns the seconds of the trainings alone.
    pub fn train(&self, block_bytes: u32, level: i32) -> Result<f64, Failure> {
        let options = LogOptions { block_bytes, compression_level: level, ..LogOptions::default() };
        let mut training = Training::new(&options);
        let (mut seconds, mut start) = (0.0, 0);
        for end in &self.commits {
            let entries: Vec<&[u8]> =
                self.entries[start..*end].iter().map(|entry| &self.bytes[entry.clone()]).collect();
            training.observe(&entries);
            let before = ThreadTime::try_now()?;
            training.attempt();
            seconds += before.try_elapsed()?.as_secs_f64();
            start = *end;
        }
        Ok(seconds)
    }
}
