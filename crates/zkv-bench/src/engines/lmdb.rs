//! LMDB through heed: one unnamed database, a map far larger than the data, an import in one
//! transaction, in key order by appending. Relaxed writes are those of `MDB_NOSYNC`, of which a
//! power cut may leave a damaged file.
#![expect(unsafe_code, reason = "heed leaves it to its caller that the map stays whole")]

use std::ops::Bound;
use std::path::{Path, PathBuf};

use heed::types::Bytes;
use heed::{
    CommitOrAbort, CompactionOption, Database, Env, EnvFlags, EnvOpenOptions, FlagSetMode,
    PutFlags, RoTxn, WithTls,
};

use crate::Failure;
use crate::engine::{Change, Each, Engine, Order, Reader, Safety, Setup};

/// The most that the file may grow to; the map takes no room but addresses.
const MAP_BYTES: usize = 1 << 38;

struct Lmdb {
    folder: PathBuf,
    flags: EnvFlags,
    // Always there, but while it is being replaced by its compacted copy.
    open: Option<Open>,
}

struct Open {
    env: Env,
    database: Database<'static, Bytes, Bytes>,
}

pub fn open(folder: &Path, setup: &Setup) -> Result<Box<dyn Engine>, Failure> {
    let flags = match setup.cache_bytes {
        // Its documentation advises this for random reads of more than the memory holds.
        Some(_) => EnvFlags::NO_READ_AHEAD,
        None => EnvFlags::empty(),
    };
    Ok(Box::new(Lmdb { folder: folder.to_owned(), flags, open: Some(open_env(folder, flags)?) }))
}

fn open_env(folder: &Path, flags: EnvFlags) -> Result<Open, Failure> {
    let mut options = EnvOpenOptions::new();
    options.map_size(MAP_BYTES);
    // SAFETY: not reading ahead changes nothing but the order of reads.
    unsafe { options.flags(flags) };
    // SAFETY: the folder is this process's own, and only one process at a time opens the file, which
    // nothing but LMDB writes.
    let env = unsafe { options.open(folder)? };
    let opened = env.create_databases_and_commit(env.write_txn()?, |opener, transaction| {
        let database = opener.create_database::<Bytes, Bytes>(transaction, None)?;
        Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(database))
    })?;
    let CommitOrAbort::Commit(database) = opened else {
        return Err("LMDB did not open its database".into());
    };
    Ok(Open { env, database })
}

impl Lmdb {
    fn open(&self) -> Result<&Open, Failure> {
        self.open.as_ref().ok_or_else(|| "LMDB was not opened again".into())
    }

    /// Closes it, and waits until the file is unmapped.
    fn close_env(&mut self) {
        if let Some(open) = self.open.take() {
            open.env.prepare_for_closing().wait();
        }
    }
}

impl Engine for Lmdb {
    fn import(
        &self,
        records: &mut dyn Iterator<Item = (&[u8], &[u8])>,
        order: Order,
    ) -> Result<(), Failure> {
        let Open { env, database } = self.open()?;
        let flags = match order {
            Order::Random => PutFlags::empty(),
            Order::Sorted => PutFlags::APPEND,
        };
        let mut transaction = env.write_txn()?;
        for (key, value) in records {
            database.put_with_flags(&mut transaction, flags, key, value)?;
        }
        Ok(transaction.commit()?)
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>, Failure> {
        Ok(Box::new(LmdbReader { open: self.open()?, transaction: None }))
    }

    fn for_each(&self, each: Each<'_>) -> Result<(), Failure> {
        let Open { env, database } = self.open()?;
        let transaction = env.read_txn()?;
        for record in database.iter(&transaction)? {
            let (key, value) = record?;
            each(key, value);
        }
        Ok(())
    }

    fn write(&self, changes: &[Change<'_>], safety: Safety) -> Result<(), Failure> {
        let Open { env, database } = self.open()?;
        let mut transaction = env.write_txn()?;
        let mode = match safety {
            Safety::Relaxed => FlagSetMode::Enable,
            Safety::Synced => FlagSetMode::Disable,
        };
        // SAFETY: it is called by who holds the one write transaction, so by one thread at a time;
        // without syncs, only a power cut damages the file, and then nothing reads it again.
        unsafe { env.set_flags(EnvFlags::NO_SYNC, mode)? };
        for (key, value) in changes {
            match value {
                Some(value) => database.put(&mut transaction, key, value)?,
                None => {
                    database.delete(&mut transaction, key)?;
                }
            }
        }
        Ok(transaction.commit()?)
    }

    fn sync(&self) -> Result<(), Failure> {
        Ok(self.open()?.env.force_sync()?)
    }

    /// The file never shrinks: what its documentation offers is a compacted copy.
    fn settle(&mut self) -> Result<(), Failure> {
        let copy = self.folder.join("copy.mdb");
        self.open()?.env.copy_to_path(&copy, CompactionOption::Enabled)?.sync_all()?;
        self.close_env();
        std::fs::rename(&copy, self.folder.join("data.mdb"))?;
        self.open = Some(open_env(&self.folder, self.flags)?);
        Ok(())
    }

    fn close(mut self: Box<Self>) -> Result<(), Failure> {
        self.sync()?;
        self.close_env();
        Ok(())
    }
}

struct LmdbReader<'a> {
    open: &'a Open,
    transaction: Option<RoTxn<'a, WithTls>>,
}

impl<'a> LmdbReader<'a> {
    fn transaction(&mut self) -> Result<&RoTxn<'a, WithTls>, Failure> {
        match &mut self.transaction {
            Some(transaction) => Ok(transaction),
            none => Ok(none.insert(self.open.env.read_txn()?)),
        }
    }
}

impl Reader for LmdbReader<'_> {
    fn rest(&mut self) -> Result<(), Failure> {
        self.transaction = None;
        Ok(())
    }

    fn get(&mut self, key: &[u8], found: &mut dyn FnMut(&[u8])) -> Result<bool, Failure> {
        let database = self.open.database;
        let value = database.get(self.transaction()?, key)?;
        Ok(value.map(found).is_some())
    }

    fn scan(&mut self, from: &[u8], count: usize, each: Each<'_>) -> Result<bool, Failure> {
        let range = (Bound::Included(from), Bound::Unbounded);
        let database = self.open.database;
        for record in database.range(self.transaction()?, &range)?.take(count) {
            let (key, value) = record?;
            each(key, value);
        }
        Ok(true)
    }
}
