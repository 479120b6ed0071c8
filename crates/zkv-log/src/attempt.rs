//! One attempt at a better dictionary: a candidate, and whether it wins.

use std::collections::VecDeque;
use std::mem::take;
use std::sync::Arc;

use crate::codec::Encoder;
use crate::dictionary::Dictionary;
use crate::entries::{cut, write_payload};
use crate::train::{TrainParameters, train};

// The figures of this file are those of the sweep in `docs/benchmarks.md`, unless they say otherwise.

/// A dictionary is at most this share of what it was trained on: beyond that it repeats its samples.
const SAMPLES_PER_DICTIONARY: usize = 10;
/// The trainer's parameters, on a flat top of the sweep.
const PARAMETERS: TrainParameters =
    TrainParameters { segment_bytes: 300, piece_bytes: 6, table_bits: 20, acceleration: 2 };
/// The trainer gets entries in blocks, as they will be compressed: one by one, npm's took 0.12 s
/// instead of 0.09 s, and its data 0.5 % more (`bench import`, `bench ratio`). Of longer blocks than
/// this there would be too few to learn from.
const TRAINED_BLOCK_BYTES_MAX: usize = 4 << 10;
/// One sample in this many judges a candidate instead of training it.
const HELD_OUT: usize = 8;
/// Of those, so much judges: twice as much took as long as the training.
const JUDGED_BYTES: usize = 128 << 10;
/// A candidate is adopted at 95 % of the present size or less (zstd issue 1134: 5 to 10 %).
const ADOPT_SHARE: f64 = 0.95;

/// Samples, the oldest first, one behind another.
#[derive(Default)]
pub(crate) struct Samples {
    bytes: Vec<u8>,
    /// Bytes of samples that were dropped. What is behind them moves up once they are many: it may be
    /// megabytes, and samples may come one by one.
    dropped: usize,
    lengths: VecDeque<usize>,
}

impl Samples {
    pub(crate) fn push(&mut self, sample: &[u8]) {
        self.bytes.extend_from_slice(sample);
        self.lengths.push_back(sample.len());
    }

    /// Drops the oldest until at most `bytes_max` are left.
    pub(crate) fn keep(&mut self, bytes_max: usize) {
        while self.bytes.len() - self.dropped > bytes_max {
            self.dropped += self.lengths.pop_front().unwrap_or_default();
        }
        if self.dropped > bytes_max / 2 {
            self.bytes.drain(..take(&mut self.dropped));
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.bytes[self.dropped..];
        self.lengths.iter().map(move |length| {
            let (sample, behind) = rest.split_at(*length);
            rest = behind;
            sample
        })
    }
}

/// Compressed bytes for each raw one.
pub(crate) type Share = f64;

/// A dictionary, and how well it did on samples that it was not trained on.
pub(crate) struct Made {
    pub dictionary: Dictionary,
    pub share: Share,
}

/// Holds all that it needs, so that any thread can make it.
pub(crate) struct Attempt {
    pub samples: Samples,
    /// The dictionary in use.
    pub current: Option<Arc<Dictionary>>,
    /// How well that did when it was made: as well as another one may do. Where that would not win,
    /// nothing is tried.
    pub expected: Option<Share>,
    pub dictionary_bytes_max: usize,
    pub block_bytes: usize,
    pub level: i32,
}

impl Attempt {
    /// A new dictionary, where it wins clearly on samples that it was not trained on.
    pub(crate) fn make(&self) -> Option<Made> {
        let mut encoder = Encoder::new(self.level);
        let now = self.held_out_share(&mut encoder, self.current.as_deref());
        let wins = |share: Share| share <= now * ADOPT_SHARE;
        if !self.expected.is_none_or(wins) {
            return None;
        }
        let dictionary = self.candidate()?;
        let share = self.held_out_share(&mut encoder, Some(&dictionary));
        wins(share).then_some(Made { dictionary, share })
    }

    fn candidate(&self) -> Option<Dictionary> {
        let samples = self.samples.iter().enumerate();
        let trained: Vec<&[u8]> = samples
            .filter(|(number, _)| number % HELD_OUT != 0)
            .map(|(_, sample)| sample)
            .collect();
        let joined = trained.concat();
        let blocks = cut(&trained, self.block_bytes.min(TRAINED_BLOCK_BYTES_MAX));
        let sizes: Vec<usize> =
            blocks.map(|block| block.iter().map(|sample| sample.len()).sum()).collect();
        let bytes_max = (joined.len() / SAMPLES_PER_DICTIONARY).min(self.dictionary_bytes_max);
        train(&joined, &sizes, bytes_max, PARAMETERS).and_then(Dictionary::new)
    }

    #[expect(clippy::cast_precision_loss, reason = "a ratio of some megabytes")]
    fn held_out_share(&self, encoder: &mut Encoder, dictionary: Option<&Dictionary>) -> Share {
        let held_out: Vec<&[u8]> = self.samples.iter().step_by(HELD_OUT).collect();
        let held_out_bytes: usize = held_out.iter().map(|sample| sample.len()).sum();
        let stride = held_out_bytes.div_ceil(JUDGED_BYTES).max(1);
        let (mut raw, mut raw_bytes, mut bytes) = (Vec::new(), 0, 0);
        for block in cut(&held_out, self.block_bytes).step_by(stride) {
            write_payload(block, &mut raw);
            raw_bytes += raw.len();
            bytes += encoder.compress(&raw, dictionary).map_or(raw.len(), <[u8]>::len);
        }
        bytes as f64 / raw_bytes.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dictionary::Interner;

    #[test]
    fn the_newest_samples_are_kept_and_the_others_take_little_room() {
        let mut samples = Samples::default();
        for number in 0..1000u32 {
            samples.push(&number.to_le_bytes().repeat(1 + number as usize % 3));
            samples.keep(100);
            let kept: Vec<&[u8]> = samples.iter().collect();
            let bytes = kept.iter().map(|sample| sample.len()).sum::<usize>();
            assert!(bytes <= 100 && samples.bytes.len() <= 150);
            // Another one would not have fit.
            assert!(bytes > 100 - 12 || kept.len() == number as usize + 1);
            let oldest = number + 1 - u32::try_from(kept.len()).unwrap();
            for (sample, number) in kept.iter().zip(oldest..) {
                assert_eq!(**sample, number.to_le_bytes().repeat(1 + number as usize % 3));
            }
        }
    }

    /// What such documents share, only a dictionary knows: each is in a block of its own.
    fn attempt(kind: &str, current: Option<Arc<Dictionary>>, expected: Option<Share>) -> Attempt {
        let mut samples = Samples::default();
        for number in 0..4000u32 {
            let number = number.wrapping_mul(2_654_435_761);
            samples.push(format!("{kind} {number}, which is {kind}, as {kind} is").as_bytes());
        }
        let (dictionary_bytes_max, block_bytes, level) = (16 << 10, 64, 5);
        Attempt { samples, current, expected, dictionary_bytes_max, block_bytes, level }
    }

    #[test]
    fn where_a_dictionary_does_as_well_as_it_did_nothing_else_is_tried() {
        let made = attempt("archive-page", None, None).make().unwrap();
        let current = Some(Interner::default().intern(made.dictionary));
        let other = |current, expected| attempt("cached-answer", current, expected).make();
        assert!(other(current.clone(), Some(made.share)).is_some(), "what comes has changed");
        // As if it had done no better then: the same samples, on which another one wins.
        assert!(other(current.clone(), Some(1.0)).is_none());
        assert!(other(current, None).is_some());
    }
}
