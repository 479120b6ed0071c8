//! How a store is opened.

use std::sync::Arc;

use zkv::{Cleaning, Durability, Options};
use zkv_index::Thresholds;
use zkv_io::MemoryStorage;

#[derive(Clone, Copy)]
pub struct Settings {
    pub durability: Durability,
    pub use_index_file: bool,
    pub cleaning: Cleaning,
}

pub fn settings(durability: Durability, use_index_file: bool) -> Settings {
    Settings { durability, use_index_file, cleaning: Cleaning::Off }
}

pub fn options(storage: &MemoryStorage, settings: Settings) -> Options {
    let Settings { durability, use_index_file, cleaning } = settings;
    let thresholds = if cleaning == Cleaning::Off {
        Thresholds::DEFAULT
    } else {
        // As of a large index file, which another thread writes anew while the one that cleans goes on.
        Thresholds { base_bytes_least: 0, besides_base_eighths_max: 0, aside_bytes_least: 0 }
    };
    Options::new()
        .storage(Arc::new(storage.clone()))
        .durability(durability)
        .use_index_file(use_index_file)
        .index_thresholds(thresholds)
        .cleaning(cleaning)
        .slot_bytes(256 << 10)
        .memory_buffer_bytes(64 << 10)
        .cache_bytes(64 << 10)
        .max_parallel_reads(1)
}
