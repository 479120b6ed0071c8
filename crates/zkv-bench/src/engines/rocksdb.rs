//! RocksDB as its page "Setup Options and Basic Tuning" advises: leveled with dynamic level bytes, bloom
//! filters of 10 bits, the newest table format, syncs spread over the writing. Unlike there, index and
//! filters are in memory besides the cache, as they are by default: a filter of 400,000 keys is larger
//! than one of the 64 parts of a cache of 32 MiB, which then never holds it, and each get reads it anew.
//! Both variants compress with zstd and have a cache of that size. An import goes without the write-ahead
//! log and ends with a flush, in key order by ingesting a table, as its FAQ advises.

use std::path::{Path, PathBuf};

use rocksdb::{
    BlockBasedOptions, BottommostLevelCompaction, Cache, CompactOptions, DB, DBCompressionType,
    Direction, IteratorMode, Options, SstFileWriter, WriteBatch, WriteOptions,
};

use crate::Failure;
use crate::engine::{Change, Each, Engine, Order, Reader, Safety, Setup};

/// Where nothing limits it.
const CACHE_BYTES: usize = 32 << 20;
/// Of a bloom filter, for each key.
const FILTER_BITS: f64 = 10.0;
/// Written between two syncs in the background.
const BYTES_PER_SYNC: u64 = 1 << 20;
/// A trained dictionary, and what it is trained on: a hundred times as much.
const DICTIONARY_BYTES: i32 = 16 << 10;
/// Records of one batch of an import.
const BATCH: usize = 1000;
/// Whatever RocksDB takes for zstd's window and strategy where nothing else is said.
const WINDOW_BITS: i32 = -14;
/// The same for the level: zstd's default, 3.
const LEVEL: i32 = 32_767;

/// How blocks are compressed.
#[derive(Clone, Copy)]
pub enum Variant {
    /// Blocks of 16 KiB, each alone.
    Blocks,
    /// Blocks of 4 KiB with a trained dictionary.
    Dictionary,
}

struct Rocks {
    db: DB,
    options: Options,
    folder: PathBuf,
}

pub fn open(folder: &Path, setup: &Setup, variant: Variant) -> Result<Box<dyn Engine>, Failure> {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(setup.cache_bytes.unwrap_or(CACHE_BYTES)));
    table.set_bloom_filter(FILTER_BITS, false);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_compression_type(DBCompressionType::Zstd);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_bytes_per_sync(BYTES_PER_SYNC);
    let cores = std::thread::available_parallelism()?.get();
    options.increase_parallelism(i32::try_from(cores)?);
    match variant {
        Variant::Blocks => table.set_block_size(16 << 10),
        Variant::Dictionary => {
            table.set_block_size(4 << 10);
            options.set_compression_options(WINDOW_BITS, LEVEL, 0, DICTIONARY_BYTES);
            options.set_zstd_max_train_bytes(100 * DICTIONARY_BYTES);
        }
    }
    options.set_block_based_table_factory(&table);
    let db = DB::open(&options, folder)?;
    Ok(Box::new(Rocks { db, options, folder: folder.to_owned() }))
}

fn batch_of<'a>(changes: impl Iterator<Item = Change<'a>>) -> WriteBatch {
    let mut batch = WriteBatch::default();
    for (key, value) in changes {
        match value {
            Some(value) => batch.put(key, value),
            None => batch.delete(key),
        }
    }
    batch
}

impl Rocks {
    fn ingest(&self, records: &mut dyn Iterator<Item = (&[u8], &[u8])>) -> Result<(), Failure> {
        let path = self.folder.join("import.sst");
        let mut writer = SstFileWriter::create(&self.options);
        writer.open(&path)?;
        for (key, value) in records {
            writer.put(key, value)?;
        }
        writer.finish()?;
        drop(writer);
        self.db.ingest_external_file(vec![&path])?;
        // It was copied, or linked.
        Ok(std::fs::remove_file(path)?)
    }
}

impl Engine for Rocks {
    fn import(
        &self,
        records: &mut dyn Iterator<Item = (&[u8], &[u8])>,
        order: Order,
    ) -> Result<(), Failure> {
        if order == Order::Sorted {
            return self.ingest(records);
        }
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        let mut records = records.map(|(key, value)| (key, Some(value))).peekable();
        while records.peek().is_some() {
            self.db.write_opt(batch_of(records.by_ref().take(BATCH)), &options)?;
        }
        Ok(self.db.flush()?)
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>, Failure> {
        Ok(Box::new(RocksReader(&self.db)))
    }

    fn for_each(&self, each: Each<'_>) -> Result<(), Failure> {
        let mut iterator = self.db.raw_iterator();
        iterator.seek_to_first();
        while let Some((key, value)) = iterator.item() {
            each(key, value);
            iterator.next();
        }
        Ok(iterator.status()?)
    }

    fn write(&self, changes: &[Change<'_>], safety: Safety) -> Result<(), Failure> {
        let mut options = WriteOptions::default();
        options.set_sync(safety == Safety::Synced);
        Ok(self.db.write_opt(batch_of(changes.iter().copied()), &options)?)
    }

    fn sync(&self) -> Result<(), Failure> {
        Ok(self.db.flush_wal(true)?)
    }

    fn settle(&mut self) -> Result<(), Failure> {
        self.db.flush()?;
        let mut options = CompactOptions::default();
        options.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
        self.db.compact_range_opt(None::<&[u8]>, None::<&[u8]>, &options);
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        self.sync()?;
        self.db.cancel_all_background_work(true);
        Ok(())
    }
}

struct RocksReader<'a>(&'a DB);

impl Reader for RocksReader<'_> {
    fn get(&mut self, key: &[u8], found: &mut dyn FnMut(&[u8])) -> Result<bool, Failure> {
        let value = self.0.get_pinned(key)?;
        Ok(value.map(|value| found(&value)).is_some())
    }

    fn scan(&mut self, from: &[u8], count: usize, each: Each<'_>) -> Result<bool, Failure> {
        let records = self.0.iterator(IteratorMode::From(from, Direction::Forward));
        for record in records.take(count) {
            let (key, value) = record?;
            each(&key, &value);
        }
        Ok(true)
    }
}
