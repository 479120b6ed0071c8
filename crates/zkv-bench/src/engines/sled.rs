//! sled, with its defaults: a cache of 1 GiB. It cannot give room back. What is written in one batch
//! is atomic, and durable once it was flushed. Its `flush` calls `sync_file_range` on Linux, which does
//! not empty the disk's own cache: what it calls durable may not survive a power cut.

use std::path::Path;

use sled::{Batch, Config, Db};

use crate::Failure;
use crate::engine::{Change, Each, Engine, Order, Reader, Safety, Setup};

struct Sled(Db);

pub fn open(folder: &Path, setup: &Setup) -> Result<Box<dyn Engine>, Failure> {
    let mut config = Config::new().path(folder.join("bench.sled"));
    if let Some(bytes) = setup.cache_bytes {
        config = config.cache_capacity(bytes as u64);
    }
    Ok(Box::new(Sled(config.open()?)))
}

impl Engine for Sled {
    fn import(
        &self,
        records: &mut dyn Iterator<Item = (&[u8], &[u8])>,
        _order: Order,
    ) -> Result<(), Failure> {
        for (key, value) in records {
            self.0.insert(key, value)?;
        }
        self.sync()
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>, Failure> {
        Ok(Box::new(SledReader(&self.0)))
    }

    fn for_each(&self, each: Each<'_>) -> Result<(), Failure> {
        for record in self.0.iter() {
            let (key, value) = record?;
            each(&key, &value);
        }
        Ok(())
    }

    fn write(&self, changes: &[Change<'_>], safety: Safety) -> Result<(), Failure> {
        if let [(key, Some(value))] = changes {
            // One change is atomic anyway, and needs no batch's lock.
            self.0.insert(key, *value)?;
        } else {
            let mut batch = Batch::default();
            for (key, value) in changes {
                match value {
                    Some(value) => batch.insert(*key, *value),
                    None => batch.remove(*key),
                }
            }
            self.0.apply_batch(batch)?;
        }
        match safety {
            Safety::Relaxed => Ok(()),
            Safety::Synced => self.sync(),
        }
    }

    fn sync(&self) -> Result<(), Failure> {
        self.0.flush()?;
        Ok(())
    }

    fn settle(&mut self) -> Result<(), Failure> {
        self.sync()
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        self.sync()
    }
}

struct SledReader<'a>(&'a Db);

impl Reader for SledReader<'_> {
    fn get(&mut self, key: &[u8], found: &mut dyn FnMut(&[u8])) -> Result<bool, Failure> {
        let value = self.0.get(key)?;
        Ok(value.map(|value| found(&value)).is_some())
    }

    fn scan(&mut self, from: &[u8], count: usize, each: Each<'_>) -> Result<bool, Failure> {
        for record in self.0.range(from..).take(count) {
            let (key, value) = record?;
            each(&key, &value);
        }
        Ok(true)
    }
}
