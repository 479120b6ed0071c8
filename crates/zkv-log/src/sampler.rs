//! When to train a dictionary, on what, and whether to adopt it.

use std::sync::Arc;

use crate::codec::Encoder;
use crate::dictionary::{Dictionary, Interner};
use crate::entries::{cut, write_payload};
use crate::train::{TrainParameters, train};

// The figures of this file are those of the sweep in `docs/benchmarks.md`, unless they say otherwise.

/// Samples kept: 1.2 % better than half as much, and twice as much trains twice as long for 0.5 %.
const SAMPLE_BYTES: usize = 2 << 20;
/// Of a longer entry only the start is a sample.
const SAMPLE_ENTRY_BYTES_MAX: usize = 8 << 10;
/// The largest dictionary trained. Twice as much wins 2 % on a large store, and costs a small one
/// more than that.
const TRAINED_BYTES_MAX: usize = 112 << 10;
/// A dictionary is at most this share of what it was trained on: beyond that it repeats its samples.
const SAMPLES_PER_DICTIONARY: usize = 10;
/// Raw bytes before the first attempt: what a smaller store could gain, the dictionary would cost.
const FIRST_ATTEMPT_BYTES: u64 = 256 << 10;
/// Each attempt waits for this many times as many bytes as the last one.
const ATTEMPT_FACTOR: u64 = 8;
/// The trainer's parameters, on a flat top of the sweep.
const PARAMETERS: TrainParameters =
    TrainParameters { segment_bytes: 300, piece_bytes: 6, table_bits: 20, acceleration: 1 };
/// One sample in this many judges a candidate instead of training it.
const HELD_OUT: usize = 8;
/// A candidate is adopted at 95 % of the present size or less (zstd issue 1134: 5 to 10 %).
const ADOPT_PERCENT: usize = 95;

/// Samples, the oldest first, one behind another.
#[derive(Default)]
struct Samples {
    bytes: Vec<u8>,
    lengths: Vec<usize>,
}

impl Samples {
    fn push(&mut self, sample: &[u8]) {
        self.bytes.extend_from_slice(sample);
        self.lengths.push(sample.len());
    }

    /// Drops the oldest until at most `bytes_max` are left.
    fn keep(&mut self, bytes_max: usize) {
        let (mut count, mut bytes) = (0, 0);
        while self.bytes.len() - bytes > bytes_max {
            bytes += self.lengths[count];
            count += 1;
        }
        self.bytes.drain(..bytes);
        self.lengths.drain(..count);
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.bytes[..];
        self.lengths.iter().map(move |length| {
            let (sample, behind) = rest.split_at(*length);
            rest = behind;
            sample
        })
    }
}

/// Keeps samples of what is written, and the dictionary in use.
pub(crate) struct Sampler {
    samples: Samples,
    raw_bytes_seen: u64,
    next_attempt_bytes: u64,
    current: Option<Arc<Dictionary>>,
    dictionary_bytes_max: usize,
}

impl Sampler {
    pub(crate) fn new(current: Option<Arc<Dictionary>>, dictionary_bytes_max: usize) -> Self {
        let dictionary_bytes_max = dictionary_bytes_max.min(TRAINED_BYTES_MAX);
        Self {
            dictionary_bytes_max,
            samples: Samples::default(),
            raw_bytes_seen: 0,
            next_attempt_bytes: FIRST_ATTEMPT_BYTES,
            current,
        }
    }

    pub(crate) fn current(&self) -> Option<&Arc<Dictionary>> {
        self.current.as_ref()
    }

    /// Takes samples evenly from `entries`.
    pub(crate) fn observe(&mut self, entries: &[&[u8]]) {
        let raw_bytes: usize = entries.iter().map(|entry| entry.len()).sum();
        self.raw_bytes_seen += raw_bytes as u64;
        // Samples taken long before the next attempt would be replaced by then.
        if self.raw_bytes_seen + 2 * SAMPLE_BYTES as u64 <= self.next_attempt_bytes {
            return;
        }
        let stride = (raw_bytes / SAMPLE_BYTES).max(1);
        for entry in entries.iter().step_by(stride) {
            self.samples.push(&entry[..entry.len().min(SAMPLE_ENTRY_BYTES_MAX)]);
        }
        self.samples.keep(SAMPLE_BYTES);
    }

    pub(crate) fn is_attempt_due(&self) -> bool {
        self.raw_bytes_seen >= self.next_attempt_bytes
    }

    /// Trains a candidate where it is time, and adopts it where it wins clearly on samples that it
    /// was not trained on.
    pub(crate) fn attempt(&mut self, interner: &Interner, block_bytes: usize, level: i32) {
        if !self.is_attempt_due() {
            return;
        }
        self.next_attempt_bytes = self.raw_bytes_seen.saturating_mul(ATTEMPT_FACTOR);
        let Some(candidate) = self.candidate() else { return };
        let mut encoder = Encoder::new(level);
        let now = self.held_out_bytes(&mut encoder, self.current.as_deref(), block_bytes);
        let then = self.held_out_bytes(&mut encoder, Some(&candidate), block_bytes);
        if then * 100 <= now * ADOPT_PERCENT {
            self.current = Some(interner.intern(candidate));
        }
    }

    fn candidate(&self) -> Option<Dictionary> {
        let (mut joined, mut sizes) = (Vec::with_capacity(self.samples.bytes.len()), Vec::new());
        for (number, sample) in self.samples.iter().enumerate() {
            if number % HELD_OUT != 0 {
                joined.extend_from_slice(sample);
                sizes.push(sample.len());
            }
        }
        let bytes_max = (joined.len() / SAMPLES_PER_DICTIONARY).min(self.dictionary_bytes_max);
        train(&joined, &sizes, bytes_max, PARAMETERS).and_then(Dictionary::new)
    }

    fn held_out_bytes(
        &self,
        encoder: &mut Encoder,
        dictionary: Option<&Dictionary>,
        block_bytes: usize,
    ) -> usize {
        let held_out: Vec<&[u8]> = self.samples.iter().step_by(HELD_OUT).collect();
        let mut raw = Vec::new();
        let compressed = cut(&held_out, block_bytes).map(|block| {
            write_payload(block, &mut raw);
            encoder.compress(&raw, dictionary).map_or(raw.len(), <[u8]>::len)
        });
        compressed.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(count: u32) -> Vec<Vec<u8>> {
        let document =
            |n: u32| format!(r#"{{"id":{n},"kind":"page","title":"no {n}","lang":"en"}}"#);
        (0..count).map(|number| document(number.wrapping_mul(2_654_435_761)).into_bytes()).collect()
    }

    fn observe_and_attempt(sampler: &mut Sampler, entries: &[Vec<u8>]) {
        let entries: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
        sampler.observe(&entries);
        sampler.attempt(&Interner::default(), 1024, 3);
    }

    #[test]
    fn a_dictionary_that_wins_is_adopted_and_one_that_does_not_is_not() {
        let mut sampler = Sampler::new(None, TRAINED_BYTES_MAX);
        observe_and_attempt(&mut sampler, &documents(1000));
        assert!(sampler.current().is_none(), "too little was seen");
        observe_and_attempt(&mut sampler, &documents(20_000));
        let first = Arc::clone(sampler.current().unwrap());
        for _ in 0..10 {
            observe_and_attempt(&mut sampler, &documents(20_000));
        }
        assert!(Arc::ptr_eq(&first, sampler.current().unwrap()), "the same data wins nothing");
    }

    #[test]
    fn random_bytes_get_no_dictionary() {
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        };
        let entries: Vec<Vec<u8>> =
            (0..4000).map(|_| (0..100).map(|_| random()).collect()).collect();
        let mut sampler = Sampler::new(None, TRAINED_BYTES_MAX);
        observe_and_attempt(&mut sampler, &entries);
        assert!(sampler.current().is_none());
    }

    #[test]
    fn samples_are_bounded() {
        let mut sampler = Sampler::new(None, TRAINED_BYTES_MAX);
        for _ in 0..20 {
            sampler.observe(&vec![&[5u8; 20_000][..]; 100]);
            assert!(sampler.samples.bytes.len() <= SAMPLE_BYTES);
            assert_eq!(sampler.samples.lengths.len(), sampler.samples.bytes.len() / (8 << 10));
        }
    }
}
