//! When to train a dictionary, and on what.

use std::mem::take;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::attempt::{Attempt, Made, Samples, Share};
use crate::dictionary::{Dictionary, DictionaryPlace, Interner};
use crate::options::LogOptions;

// The figures of this file are those of the sweep in `docs/benchmarks.md`, unless they say otherwise.

/// What dictionaries are trained on, and how large they may get.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    sample_bytes: usize,
    dictionary_bytes_max: usize,
}

impl Scale {
    /// For what comes as it comes. Samples: 1.2 % better than half as many, and twice as many train
    /// twice as long for 0.5 %. Dictionaries: twice as much wins 2 % on a large store, and costs a
    /// small one more than that.
    pub(crate) const BESIDE_WRITES: Self =
        Self { sample_bytes: 2 << 20, dictionary_bytes_max: 112 << 10 };

    /// For a store of about `raw_bytes` that is written anew. More samples win 0.3 to 1.2 % of a large
    /// one. A larger dictionary wins up to 1.8 % where the encoder searches it well, and else takes more
    /// in each segment than it wins: up to 2.7 % at level 5.
    pub(crate) fn to_write_anew(raw_bytes: u64, level: i32) -> Self {
        let Self { sample_bytes, dictionary_bytes_max } = Self::BESIDE_WRITES;
        if raw_bytes < LARGE_STORE_BYTES {
            return Self::BESIDE_WRITES;
        }
        let is_searched_well = level > GREEDY_LEVEL_MAX;
        let dictionary_bytes_max = dictionary_bytes_max << u32::from(is_searched_well);
        Self { sample_bytes: 4 * sample_bytes, dictionary_bytes_max }
    }
}

/// A store of so many raw bytes pays for the time of more samples.
const LARGE_STORE_BYTES: u64 = 16 << 20;
/// Up to this level zstd takes the first match that it finds (`ZSTD_greedy`), or looks no further.
const GREEDY_LEVEL_MAX: i32 = 5;

/// Of a longer entry only the start is a sample.
const SAMPLE_ENTRY_BYTES_MAX: usize = 8 << 10;
/// Raw bytes before the first attempt: what a smaller store could gain, the dictionary would cost.
const FIRST_ATTEMPT_BYTES: u64 = 256 << 10;
/// Each attempt waits for this many times as many bytes as the last one.
const ATTEMPT_FACTOR: u64 = 8;
/// Behind so many, a training takes less than 5 % of what the import has taken. Before, one begins only
/// where the dictionary does worse than it did.
const FREE_ATTEMPT_BYTES: u64 = 64 << 20;
/// What a later attempt makes is used once a quarter as much again was seen: two buffers of an
/// import at the least, which take about as long as the training beside them.
const ATTEMPT_TIME_SHARE: u64 = 4;

/// What is packed is judged by so much of it at a time,
const DRIFT_WINDOW_BYTES: u64 = 8 << 20;
/// and is worth an attempt where it packs so much worse than at first.
const DRIFT_FACTOR: f64 = 1.15;

/// Keeps samples of what is written, and the dictionary in use.
pub(crate) struct Sampler {
    samples: Samples,
    raw_bytes_seen: u64,
    next_attempt_bytes: u64,
    current: Option<Arc<Dictionary>>,
    /// How well that did when it was made, if it was made here.
    expected: Option<Share>,
    /// Another opening's, which nobody has needed yet.
    inherited: Option<DictionaryPlace>,
    drift: Drift,
    under_way: Option<UnderWay>,
    scale: Scale,
    block_bytes: usize,
    level: i32,
    has_threads: bool,
}

/// How well what comes packs, beside what came when the dictionary was new.
#[derive(Default)]
struct Drift {
    raw_bytes: u64,
    packed_bytes: u64,
    /// Of the first window behind the last attempt: packed bytes for each raw one.
    first: Option<f64>,
}

impl Drift {
    /// Notes what was packed; whether it packs clearly worse than it did.
    fn note(&mut self, raw_bytes: u64, packed_bytes: u64) -> bool {
        self.raw_bytes += raw_bytes;
        self.packed_bytes += packed_bytes;
        if self.raw_bytes < DRIFT_WINDOW_BYTES {
            return false;
        }
        #[expect(clippy::cast_precision_loss, reason = "a ratio of some megabytes")]
        let now = self.packed_bytes as f64 / self.raw_bytes as f64;
        (self.raw_bytes, self.packed_bytes) = (0, 0);
        let first = *self.first.get_or_insert(now);
        now > first * DRIFT_FACTOR
    }
}

/// An attempt that is made beside the packing.
struct UnderWay {
    attempt: Making,
    /// What it makes is used once this much was seen, however long it takes: what is written
    /// depends on nothing but the calls.
    ends_at_bytes: u64,
}

enum Making {
    Beside(JoinHandle<Option<Made>>),
    /// Made by who asks for it, where there shall be no more than one thread.
    Asked(Attempt),
}

impl Making {
    fn start(attempt: Attempt, has_threads: bool) -> std::io::Result<Self> {
        if !has_threads {
            return Ok(Self::Asked(attempt));
        }
        let thread = std::thread::Builder::new().name("zkv-train".to_owned());
        thread.spawn(move || attempt.make()).map(Self::Beside)
    }

    fn end(self) -> Option<Made> {
        match self {
            Self::Beside(thread) => thread.join().ok().flatten(),
            Self::Asked(attempt) => attempt.make(),
        }
    }
}

impl Sampler {
    pub(crate) fn new(
        inherited: Option<DictionaryPlace>,
        dictionary_bytes_max: usize,
        scale: Scale,
        options: &LogOptions,
    ) -> Self {
        let dictionary_bytes_max = scale.dictionary_bytes_max.min(dictionary_bytes_max);
        Self {
            scale: Scale { dictionary_bytes_max, ..scale },
            samples: Samples::default(),
            raw_bytes_seen: 0,
            next_attempt_bytes: FIRST_ATTEMPT_BYTES,
            current: None,
            expected: None,
            inherited,
            drift: Drift::default(),
            under_way: None,
            block_bytes: options.block_bytes as usize,
            level: options.compression_level,
            has_threads: options.compression_threads > 1,
        }
    }

    /// Goes on with the dictionary of the opening before, unless it has, or has a newer one.
    pub(crate) fn inherit(
        &mut self,
        read: impl FnOnce(DictionaryPlace) -> Option<Arc<Dictionary>>,
    ) {
        if let Some(place) = self.inherited.take() {
            self.current = read(place);
        }
    }

    /// The dictionary for `entries`, which come next.
    ///
    /// The first one is trained before they are packed: without one they would take far more room.
    /// A later one wins little, so it is trained meanwhile.
    pub(crate) fn dictionary_for(
        &mut self,
        interner: &Interner,
        entries: &[&[u8]],
    ) -> Option<Arc<Dictionary>> {
        self.observe(entries);
        self.end_attempt(interner);
        if self.current.is_none() {
            self.attempt(interner);
        } else {
            self.begin_attempt();
        }
        self.current.clone()
    }

    /// Notes how well the entries were packed that the dictionary was asked for. Where what comes has
    /// changed, another attempt is due once there are samples of it.
    pub(crate) fn note_packed(&mut self, raw_bytes: u64, packed_bytes: u64) {
        if self.drift.note(raw_bytes, packed_bytes) {
            self.drift = Drift::default();
            let soon = self.raw_bytes_seen + 2 * self.scale.sample_bytes as u64;
            self.next_attempt_bytes = self.next_attempt_bytes.min(soon);
        }
    }

    /// The dictionary in use.
    pub(crate) fn current(&self) -> Option<Arc<Dictionary>> {
        self.current.clone()
    }

    /// Goes on with `dictionary`, which was trained on more.
    pub(crate) fn go_on_with(&mut self, dictionary: Arc<Dictionary>) {
        // It was to win against another one.
        self.abandon_attempt();
        self.current = Some(dictionary);
        self.expected = None;
        self.inherited = None;
        self.drift = Drift::default();
    }

    /// Takes samples evenly from `entries`.
    pub(crate) fn observe(&mut self, entries: &[&[u8]]) {
        let raw_bytes: usize = entries.iter().map(|entry| entry.len()).sum();
        self.raw_bytes_seen += raw_bytes as u64;
        // Samples taken long before the next attempt would be replaced by then.
        let sample_bytes = self.scale.sample_bytes;
        if self.raw_bytes_seen + 2 * sample_bytes as u64 <= self.next_attempt_bytes {
            return;
        }
        let stride = (raw_bytes / sample_bytes).max(1);
        for entry in entries.iter().step_by(stride) {
            self.samples.push(&entry[..entry.len().min(SAMPLE_ENTRY_BYTES_MAX)]);
        }
        self.samples.keep(sample_bytes);
    }

    /// Makes an attempt where it is time, and waits for it.
    pub(crate) fn attempt(&mut self, interner: &Interner) {
        if let Some(attempt) = self.next_attempt() {
            self.adopt(interner, attempt.make());
        }
    }

    /// Begins an attempt where it is time. Where the system has no more threads, it is left out.
    fn begin_attempt(&mut self) {
        if self.under_way.is_some() {
            return;
        }
        let Some(attempt) = self.next_attempt() else { return };
        let ends_at_bytes = self.raw_bytes_seen + self.raw_bytes_seen / ATTEMPT_TIME_SHARE;
        let started = Making::start(attempt, self.has_threads);
        self.under_way = started.ok().map(|attempt| UnderWay { attempt, ends_at_bytes });
    }

    fn end_attempt(&mut self, interner: &Interner) {
        let is_over = |under_way: &mut UnderWay| under_way.ends_at_bytes <= self.raw_bytes_seen;
        if let Some(under_way) = self.under_way.take_if(is_over) {
            self.adopt(interner, under_way.attempt.end());
        }
    }

    fn next_attempt(&mut self) -> Option<Attempt> {
        if self.raw_bytes_seen < self.next_attempt_bytes {
            return None;
        }
        self.next_attempt_bytes = self.raw_bytes_seen.saturating_mul(ATTEMPT_FACTOR);
        let is_free = self.raw_bytes_seen >= FREE_ATTEMPT_BYTES;
        Some(Attempt {
            expected: self.expected.filter(|_| !is_free),
            samples: take(&mut self.samples),
            current: self.current.clone(),
            dictionary_bytes_max: self.scale.dictionary_bytes_max,
            block_bytes: self.block_bytes,
            level: self.level,
        })
    }

    /// Waits for the thread of an attempt, and drops what it has made.
    fn abandon_attempt(&mut self) {
        if let Some(UnderWay { attempt: Making::Beside(thread), .. }) = self.under_way.take() {
            let _ = thread.join();
        }
    }

    fn adopt(&mut self, interner: &Interner, made: Option<Made>) {
        if let Some(Made { dictionary, share }) = made {
            self.go_on_with(interner.intern(dictionary));
            self.expected = Some(share);
        }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        // No thread outlives the log.
        self.abandon_attempt();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler() -> Sampler {
        let options = LogOptions { compression_level: 3, ..LogOptions::default() };
        Sampler::new(None, 1 << 20, Scale::BESIDE_WRITES, &options)
    }

    fn documents(count: u32) -> Vec<Vec<u8>> {
        let document =
            |n: u32| format!(r#"{{"id":{n},"kind":"page","title":"no {n}","lang":"en"}}"#);
        (0..count).map(|number| document(number.wrapping_mul(2_654_435_761)).into_bytes()).collect()
    }

    fn observe_and_attempt(sampler: &mut Sampler, entries: &[Vec<u8>]) {
        let entries: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
        sampler.observe(&entries);
        sampler.attempt(&Interner::default());
    }

    #[test]
    fn a_dictionary_that_wins_is_adopted_and_one_that_does_not_is_not() {
        let mut sampler = sampler();
        observe_and_attempt(&mut sampler, &documents(1000));
        assert!(sampler.current.is_none(), "too little was seen");
        observe_and_attempt(&mut sampler, &documents(20_000));
        let first = Arc::clone(sampler.current.as_ref().unwrap());
        for _ in 0..10 {
            observe_and_attempt(&mut sampler, &documents(20_000));
        }
        assert!(
            Arc::ptr_eq(&first, sampler.current.as_ref().unwrap()),
            "the same data wins nothing"
        );
    }

    #[test]
    fn another_attempt_is_made_where_what_comes_packs_worse() {
        let mut sampler = sampler();
        observe_and_attempt(&mut sampler, &documents(20_000));
        let scheduled = sampler.next_attempt_bytes;
        for _ in 0..4 {
            sampler.note_packed(DRIFT_WINDOW_BYTES, DRIFT_WINDOW_BYTES / 4);
        }
        assert_eq!(sampler.next_attempt_bytes, scheduled);
        sampler.raw_bytes_seen = 0;
        sampler.note_packed(DRIFT_WINDOW_BYTES, DRIFT_WINDOW_BYTES / 3);
        assert_eq!(sampler.next_attempt_bytes, 4 << 20);
        // Once: what stays so is no drift.
        sampler.next_attempt_bytes = scheduled;
        sampler.note_packed(DRIFT_WINDOW_BYTES, DRIFT_WINDOW_BYTES / 3);
        sampler.note_packed(DRIFT_WINDOW_BYTES, DRIFT_WINDOW_BYTES / 3);
        assert_eq!(sampler.next_attempt_bytes, scheduled);
    }

    #[test]
    fn an_attempt_that_costs_little_beside_the_import_is_made_in_any_case() {
        let mut sampler = sampler();
        sampler.expected = Some(0.5);
        let mut expected_behind = |raw_bytes_seen| {
            (sampler.raw_bytes_seen, sampler.next_attempt_bytes) = (raw_bytes_seen, 0);
            sampler.next_attempt().unwrap().expected
        };
        assert_eq!(expected_behind(FREE_ATTEMPT_BYTES - 1), Some(0.5));
        assert_eq!(expected_behind(FREE_ATTEMPT_BYTES), None);
    }

    #[test]
    fn a_large_store_gets_more_samples_and_a_larger_dictionary_where_it_is_searched_well() {
        let scale = |raw_bytes, level| {
            let scale = Scale::to_write_anew(raw_bytes, level);
            (scale.sample_bytes >> 20, scale.dictionary_bytes_max >> 10)
        };
        assert_eq!([scale(1 << 30, 5), scale(1 << 30, 9)], [(8, 112), (8, 224)]);
        assert_eq!(scale(1 << 20, 9), (2, 112));
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
        let mut sampler = sampler();
        observe_and_attempt(&mut sampler, &entries);
        assert!(sampler.current.is_none());
    }

    #[test]
    fn an_attempt_under_way_is_not_thrown_away_for_another() {
        let mut sampler = sampler();
        observe_and_attempt(&mut sampler, &documents(20_000));
        assert!(sampler.current.is_some());
        (sampler.raw_bytes_seen, sampler.next_attempt_bytes) = (1 << 30, 1 << 30);
        let (some, interner) = (documents(40_000), Interner::default());
        let entries: Vec<&[u8]> = some.iter().map(Vec::as_slice).collect();
        sampler.dictionary_for(&interner, &entries);
        let ends_at_bytes = sampler.under_way.as_ref().unwrap().ends_at_bytes;
        // What comes has changed.
        for packed_bytes in [DRIFT_WINDOW_BYTES / 4, DRIFT_WINDOW_BYTES / 3] {
            sampler.note_packed(DRIFT_WINDOW_BYTES, packed_bytes);
        }
        for _ in 0..4 {
            sampler.dictionary_for(&interner, &entries);
        }
        assert!(sampler.next_attempt_bytes < sampler.raw_bytes_seen);
        assert_eq!(sampler.under_way.as_ref().unwrap().ends_at_bytes, ends_at_bytes);
    }

    #[test]
    fn samples_are_bounded() {
        let mut sampler = sampler();
        for _ in 0..20 {
            sampler.observe(&vec![&[5u8; 20_000][..]; 100]);
            let lengths: Vec<usize> = sampler.samples.iter().map(<[u8]>::len).collect();
            let most = Scale::BESIDE_WRITES.sample_bytes;
            assert!(lengths.iter().sum::<usize>() <= most);
            assert!(lengths.iter().all(|length| *length == SAMPLE_ENTRY_BYTES_MAX));
        }
    }
}
