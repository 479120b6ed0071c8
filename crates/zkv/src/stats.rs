//! What a store can tell of itself.

use std::sync::atomic::Ordering;

use zkv_log::layout::FILE_HEADER_BYTES;

use crate::clean::CleaningStats;
use crate::error::{Error, Result};
use crate::metadata::catalog::DEFAULT;
use crate::store::Store;

/// Sizes and counts of a store. What still waits in buffers is counted as keys only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Keys that have a value, those of named collections among them.
    pub keys: u64,
    /// The length of the data file.
    pub data_file_bytes: u64,
    /// The length of the index file; 0 where there is none.
    pub index_file_bytes: u64,
    /// Live keys and values, before compression.
    pub raw_bytes: u64,
    /// Bytes of the data file that live records take: of each segment its live share.
    pub live_bytes: u64,
    /// Bytes of the data file that hold what was overwritten or deleted. Segments' headers and ends that were
    /// too short for the next block are counted with neither.
    pub dead_bytes: u64,
    /// Bytes of the data file that no segment fills: they are used next, or cut off.
    pub free_bytes: u64,
    /// Bytes written to the data file since the store was opened.
    pub written_bytes: u64,
    /// What cleaning has done since then.
    pub cleaning: CleaningStats,
    /// Segments of the data file.
    pub segments: u64,
    /// Different dictionaries in use.
    pub dictionaries: u64,
    /// Snapshots of this store that live.
    pub snapshots: u64,
    /// Memory of buffers that were written to the log, and that snapshots, transactions and
    /// iterations still hold: of each at least 86 KB, however few records are in it.
    pub held_bytes: u64,
    /// Memory of values that were read lately: see [`Options::cache_bytes`](crate::Options::cache_bytes).
    pub cached_bytes: u64,
}

impl Stats {
    /// Live keys and values over both files: how much smaller the store is than what it holds.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        let files = self.data_file_bytes + self.index_file_bytes;
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        let ratio = self.raw_bytes as f64 / files.max(1) as f64;
        ratio
    }

    /// How many bytes were written to the data file for each that the store's user has written,
    /// compressed, since the store was opened: 1 where nothing was cleaned.
    #[must_use]
    pub fn write_amplification(&self) -> f64 {
        let of_user = self.written_bytes.saturating_sub(self.cleaning.moved_bytes);
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        let ratio = self.written_bytes.max(1) as f64 / of_user.max(1) as f64;
        ratio
    }
}

impl Store {
    /// Sizes and counts.
    ///
    /// # Errors
    /// Of kind `Io` where the files cannot be measured, `Corrupt` where a dictionary is damaged.
    pub fn stats(&self) -> Result<Stats> {
        let shared = self.shared();
        let moment = shared.now();
        let counts = shared.key_counts(&moment);
        let named = moment.committed().catalog.names().map(|(_, entry)| entry.id);
        let keys = named.fold(counts.of(DEFAULT), |sum, id| sum.saturating_add(counts.of(id)));
        let (live, log) = shared.live();
        let (raw_bytes, live_bytes) = (live.live_raw_bytes(), live.live_data_bytes(&log));
        let segments = log.segments();
        let data_bytes: u64 = segments.iter().map(|segment| u64::from(segment.data_bytes)).sum();
        let data_file_bytes = shared.log.file_bytes().map_err(Error::data(&shared.path))?;
        let slot_bytes = u64::from(log.identity().slot_bytes);
        let slots = data_file_bytes.saturating_sub(FILE_HEADER_BYTES).div_ceil(slot_bytes);
        // What was made in memory, for want of a file, has no watermark.
        let is_file = shared.options.use_index_file;
        let view = shared.view.load_full();
        let checkpoint = view.committed.checkpoint.as_ref();
        let index = checkpoint.filter(|index| is_file && !index.watermark().is_empty());
        let dictionaries = log.dictionary_count().map_err(Error::data(&shared.path))?;
        Ok(Stats {
            keys,
            data_file_bytes,
            index_file_bytes: index.map_or(0, |index| index.file_bytes()),
            raw_bytes,
            live_bytes,
            dead_bytes: data_bytes.saturating_sub(live_bytes),
            free_bytes: slots.saturating_sub(segments.len() as u64) * slot_bytes,
            written_bytes: shared.cleaner.written_bytes(),
            cleaning: shared.cleaner.stats(),
            segments: segments.len() as u64,
            dictionaries: dictionaries as u64,
            snapshots: shared.snapshots.load(Ordering::Relaxed),
            held_bytes: shared.held_bytes(),
            cached_bytes: shared.cache.bytes(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use zkv_io::MemoryStorage;

    use super::*;
    use crate::options::Options;

    #[test]
    fn what_is_live_is_told_of_one_moment_beside_a_writer() {
        let options = Options::new().storage(Arc::new(MemoryStorage::new()));
        let store = options.memory_buffer_bytes(1 << 20).open("store.zkv").unwrap();
        let set = |random: &mut fastrand::Rng, number: u64| {
            let mut noise = vec![0; 1000];
            random.fill(&mut noise);
            store.set_bytes(&number.to_be_bytes(), &noise).unwrap();
        };
        let mut random = fastrand::Rng::with_seed(1);
        (0..1000).for_each(|number| set(&mut random, number));
        store.flush().unwrap();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let number = random.u64(0..1000);
                    set(&mut random, number);
                }
            });
            let live = (0..500).map(|_| {
                std::thread::sleep(std::time::Duration::from_millis(1));
                store.stats().unwrap().live_bytes
            });
            let least = live.min().unwrap();
            is_over.store(true, Ordering::Relaxed);
            assert!(least > 900_000, "{least}");
        });
    }
}
