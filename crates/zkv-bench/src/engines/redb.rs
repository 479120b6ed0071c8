//! redb, with its defaults: a cache of 1 GiB, and an import in one transaction.

use std::path::Path;

use redb::{
    Builder, Database, Durability, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition,
};

use crate::Failure;
use crate::engine::{Change, Each, Engine, Order, Reader, Safety, Setup};

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("bench");

struct Redb(Database);

pub fn open(folder: &Path, setup: &Setup) -> Result<Box<dyn Engine>, Failure> {
    let mut builder = Builder::new();
    if let Some(bytes) = setup.cache_bytes {
        builder.set_cache_size(bytes);
    }
    Ok(Box::new(Redb(builder.create(folder.join("bench.redb"))?)))
}

impl Redb {
    fn table(&self) -> Result<ReadOnlyTable<&'static [u8], &'static [u8]>, Failure> {
        Ok(self.0.begin_read()?.open_table(TABLE)?)
    }
}

impl Engine for Redb {
    fn import(
        &self,
        records: &mut dyn Iterator<Item = (&[u8], &[u8])>,
        _order: Order,
    ) -> Result<(), Failure> {
        let transaction = self.0.begin_write()?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for (key, value) in records {
                table.insert(key, value)?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>, Failure> {
        Ok(Box::new(RedbReader { redb: self, table: None }))
    }

    fn for_each(&self, each: Each<'_>) -> Result<(), Failure> {
        for record in self.table()?.iter()? {
            let (key, value) = record?;
            each(key.value(), value.value());
        }
        Ok(())
    }

    fn write(&self, changes: &[Change<'_>], safety: Safety) -> Result<(), Failure> {
        let mut transaction = self.0.begin_write()?;
        transaction.set_durability(match safety {
            Safety::Relaxed => Durability::None,
            Safety::Synced => Durability::Immediate,
        })?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for (key, value) in changes {
                match value {
                    Some(value) => table.insert(*key, *value)?,
                    None => table.remove(*key)?,
                };
            }
        }
        Ok(transaction.commit()?)
    }

    /// What `Durability::None` left becomes durable with the next commit that is.
    fn sync(&self) -> Result<(), Failure> {
        Ok(self.0.begin_write()?.commit()?)
    }

    fn settle(&mut self) -> Result<(), Failure> {
        // It does some of the work, and says whether there may be more.
        while self.0.compact()? {}
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        Ok(self.0.close()?)
    }
}

struct RedbReader<'a> {
    redb: &'a Redb,
    /// It keeps its transaction.
    table: Option<ReadOnlyTable<&'static [u8], &'static [u8]>>,
}

impl RedbReader<'_> {
    fn table(&mut self) -> Result<&ReadOnlyTable<&'static [u8], &'static [u8]>, Failure> {
        match &mut self.table {
            Some(table) => Ok(table),
            none => Ok(none.insert(self.redb.table()?)),
        }
    }
}

impl Reader for RedbReader<'_> {
    fn rest(&mut self) -> Result<(), Failure> {
        self.table = None;
        Ok(())
    }

    fn get(&mut self, key: &[u8], found: &mut dyn FnMut(&[u8])) -> Result<bool, Failure> {
        let value = self.table()?.get(key)?;
        Ok(value.map(|value| found(value.value())).is_some())
    }

    fn scan(&mut self, from: &[u8], count: usize, each: Each<'_>) -> Result<bool, Failure> {
        for record in self.table()?.range(from..)?.take(count) {
            let (key, value) = record?;
            each(key.value(), value.value());
        }
        Ok(true)
    }
}
