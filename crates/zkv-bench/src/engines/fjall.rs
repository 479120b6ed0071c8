//! fjall, with its defaults but for a cache that holds the data, as its page on memory advises where
//! that fits, and its ingestion for records that come in key order. Values of a page and more are kept
//! apart from the keys, which its documentation advises for large ones.

use std::path::Path;

use fjall::{
    Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode, Readable, Snapshot,
};

use crate::Failure;
use crate::engine::{Change, Each, Engine, Order, Reader, Safety, Setup};

/// As much as SQLite gets, and more than the data that is measured here takes compressed.
const CACHE_BYTES: usize = 64 << 20;
/// Values of this length are large ones.
const SEPARATED_BYTES: u64 = 4096;

struct Fjall {
    database: Database,
    keyspace: Keyspace,
}

pub fn open(folder: &Path, setup: &Setup) -> Result<Box<dyn Engine>, Failure> {
    let cache = setup.cache_bytes.unwrap_or(CACHE_BYTES) as u64;
    let database = Database::builder(folder).cache_size(cache).open()?;
    let separation = (setup.record_bytes >= SEPARATED_BYTES).then(KvSeparationOptions::default);
    let options = || KeyspaceCreateOptions::default().with_kv_separation(separation);
    let keyspace = database.keyspace("bench", options)?;
    Ok(Box::new(Fjall { database, keyspace }))
}

impl Engine for Fjall {
    fn import(
        &self,
        records: &mut dyn Iterator<Item = (&[u8], &[u8])>,
        order: Order,
    ) -> Result<(), Failure> {
        match order {
            Order::Random => {
                for (key, value) in records {
                    self.keyspace.insert(key, value)?;
                }
            }
            Order::Sorted => {
                let mut ingestion = self.keyspace.start_ingestion()?;
                for (key, value) in records {
                    ingestion.write(key, value)?;
                }
                ingestion.finish()?;
            }
        }
        self.sync()
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>, Failure> {
        Ok(Box::new(FjallReader { fjall: self, snapshot: None }))
    }

    fn for_each(&self, each: Each<'_>) -> Result<(), Failure> {
        for record in self.keyspace.iter() {
            let (key, value) = record.into_inner()?;
            each(&key, &value);
        }
        Ok(())
    }

    fn write(&self, changes: &[Change<'_>], safety: Safety) -> Result<(), Failure> {
        if let ([(key, Some(value))], Safety::Relaxed) = (changes, safety) {
            return Ok(self.keyspace.insert(*key, *value)?);
        }
        let mode = match safety {
            Safety::Relaxed => None,
            Safety::Synced => Some(PersistMode::SyncData),
        };
        let mut batch = self.database.batch().durability(mode);
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(&self.keyspace, *key, *value),
                None => batch.remove(&self.keyspace, *key),
            }
        }
        Ok(batch.commit()?)
    }

    fn sync(&self) -> Result<(), Failure> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }

    fn settle(&mut self) -> Result<(), Failure> {
        self.keyspace.rotate_memtable_and_wait()?;
        self.keyspace.major_compact()?;
        self.sync()
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        self.sync()
    }
}

struct FjallReader<'a> {
    fjall: &'a Fjall,
    snapshot: Option<Snapshot>,
}

impl FjallReader<'_> {
    fn snapshot(&mut self) -> &Snapshot {
        self.snapshot.get_or_insert_with(|| self.fjall.database.snapshot())
    }
}

impl Reader for FjallReader<'_> {
    fn rest(&mut self) -> Result<(), Failure> {
        self.snapshot = None;
        Ok(())
    }

    fn get(&mut self, key: &[u8], found: &mut dyn FnMut(&[u8])) -> Result<bool, Failure> {
        let keyspace = &self.fjall.keyspace;
        let value = self.snapshot().get(keyspace, key)?;
        Ok(value.map(|value| found(&value)).is_some())
    }

    fn scan(&mut self, from: &[u8], count: usize, each: Each<'_>) -> Result<bool, Failure> {
        let keyspace = &self.fjall.keyspace;
        for record in self.snapshot().range(keyspace, from..).take(count) {
            let (key, value) = record.into_inner()?;
            each(&key, &value);
        }
        Ok(true)
    }
}
