//! zkv, with its defaults but for what the command line says.

use std::path::Path;

use zkv::{Durability, Store, WriteBatch};

use crate::Failure;
use crate::engine::{Change, Each, Engine, Order, Reader, Safety, Setup};

struct Zkv(Store);

pub fn open(folder: &Path, setup: &Setup) -> Result<Box<dyn Engine>, Failure> {
    Ok(Box::new(Zkv(setup.zkv.clone().open(path(folder))?)))
}

/// The data file of the store in `folder`.
pub fn path(folder: &Path) -> std::path::PathBuf {
    folder.join("bench.zkv")
}

impl Engine for Zkv {
    fn import(
        &self,
        records: &mut dyn Iterator<Item = (&[u8], &[u8])>,
        _order: Order,
    ) -> Result<(), Failure> {
        for (key, value) in records {
            self.0.set_bytes(key, value)?;
        }
        Ok(self.0.sync()?)
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>, Failure> {
        Ok(Box::new(ZkvReader(&self.0)))
    }

    fn for_each(&self, each: Each<'_>) -> Result<(), Failure> {
        let mut records = self.0.iter_bytes();
        while let Some(record) = records.next_borrowed() {
            let (key, value) = record?;
            each(key, value);
        }
        Ok(())
    }

    fn write(&self, changes: &[Change<'_>], safety: Safety) -> Result<(), Failure> {
        if let ([(key, Some(value))], Safety::Relaxed) = (changes, safety) {
            return Ok(self.0.set_bytes(key, value)?);
        }
        let mut batch = WriteBatch::new();
        for (key, value) in changes {
            match value {
                Some(value) => batch.set_bytes(key, value),
                None => batch.delete_bytes(key),
            };
        }
        let durability = match safety {
            Safety::Relaxed => Durability::Buffered,
            Safety::Synced => Durability::Synced,
        };
        Ok(self.0.write_with(batch, durability)?)
    }

    fn sync(&self) -> Result<(), Failure> {
        Ok(self.0.sync()?)
    }

    fn settle(&mut self) -> Result<(), Failure> {
        Ok(self.0.compact(|_| ())?)
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        Ok(self.0.close()?)
    }
}

struct ZkvReader<'a>(&'a Store);

impl Reader for ZkvReader<'_> {
    fn get(&mut self, key: &[u8], found: &mut dyn FnMut(&[u8])) -> Result<bool, Failure> {
        let value = self.0.get_bytes(key)?;
        Ok(value.map(|value| found(&value)).is_some())
    }

    fn scan(&mut self, _from: &[u8], _count: usize, _each: Each<'_>) -> Result<bool, Failure> {
        Ok(false)
    }
}
