//! What every engine has to do, and the list of them.

use std::path::Path;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::engines;

/// What is done with a key or a value that was found. Nothing of it may be kept.
pub type Each<'a> = &'a mut dyn FnMut(&[u8], &[u8]);

/// A record to set, or one to delete, where it has no value.
pub type Change<'a> = (&'a [u8], Option<&'a [u8]>);

/// The engines, in the order of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Ours.
    Zkv,
    /// LMDB, through heed.
    Lmdb,
    /// redb.
    Redb,
    /// SQLite.
    Sqlite,
    /// fjall.
    Fjall,
    /// sled.
    Sled,
    /// RocksDB, blocks of 16 KiB compressed with zstd.
    RocksdbBlocks,
    /// RocksDB, blocks of 4 KiB compressed with zstd and a trained dictionary.
    RocksdbDictionary,
}

/// What an engine is told about its work beforehand.
pub struct Setup {
    /// The bytes of a record, on average.
    pub record_bytes: u64,
    /// The memory for caches where it is limited.
    pub cache_bytes: Option<usize>,
    /// What the command line says of zkv.
    pub zkv: zkv::Options,
}

/// What a write has to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safety {
    /// Nothing: a crash may lose it.
    Relaxed,
    /// It is on stable storage.
    Synced,
}

/// In which order the records come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Any.
    Random,
    /// That of the keys.
    Sorted,
}

/// An open store of an engine.
pub trait Engine: Sync {
    /// Puts everything into the new store. It is on stable storage afterwards.
    fn import(
        &self,
        records: &mut dyn Iterator<Item = (&[u8], &[u8])>,
        order: Order,
    ) -> Result<(), Failure>;

    /// Something to read with, for one thread.
    fn reader(&self) -> Result<Box<dyn Reader + '_>, Failure>;

    /// As [`Engine::reader`], for the thread that writes, too.
    fn writing_reader(&self) -> Result<Box<dyn Reader + '_>, Failure> {
        self.reader()
    }

    /// Shows every record to `each`, in the order that the engine finds cheapest.
    fn for_each(&self, each: Each<'_>) -> Result<(), Failure>;

    /// Makes the changes, all or none of them.
    fn write(&self, changes: &[Change<'_>], safety: Safety) -> Result<(), Failure>;

    /// Brings everything that was written to stable storage.
    fn sync(&self) -> Result<(), Failure>;

    /// Gives back what room it can.
    fn settle(&mut self) -> Result<(), Failure>;

    /// Closes it, and waits for that.
    fn close(self: Box<Self>) -> Result<(), Failure>;
}

/// Reads of one thread. They may all see the store as it was at the first one since the last rest.
pub trait Reader {
    /// Lets go of what it sees: the next read sees the newest state. Many always do.
    fn rest(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    /// Shows the value of `key`; `false` where there is none.
    fn get(&mut self, key: &[u8], found: &mut dyn FnMut(&[u8])) -> Result<bool, Failure>;

    /// Shows `count` records from `from` on, in the order of keys; `false` where the engine has no
    /// such order.
    fn scan(&mut self, from: &[u8], count: usize, each: Each<'_>) -> Result<bool, Failure>;
}

impl Kind {
    /// Opens the store in `folder`, or makes one where there is none.
    pub fn open(self, folder: &Path, setup: &Setup) -> Result<Box<dyn Engine>, Failure> {
        match self {
            Self::Zkv => engines::zkv::open(folder, setup),
            Self::Lmdb => engines::lmdb::open(folder, setup),
            Self::Redb => engines::redb::open(folder, setup),
            Self::Sqlite => engines::sqlite::open(folder, setup),
            Self::Fjall => engines::fjall::open(folder, setup),
            Self::Sled => engines::sled::open(folder, setup),
            #[cfg(feature = "rocksdb")]
            Self::RocksdbBlocks => {
                engines::rocksdb::open(folder, setup, engines::rocksdb::Variant::Blocks)
            }
            #[cfg(feature = "rocksdb")]
            Self::RocksdbDictionary => {
                engines::rocksdb::open(folder, setup, engines::rocksdb::Variant::Dictionary)
            }
            #[cfg(not(feature = "rocksdb"))]
            Self::RocksdbBlocks | Self::RocksdbDictionary => {
                Err("built without RocksDB: use `cargo xtask bench rivals --rocksdb`".into())
            }
        }
    }

    /// Whether this program was built with it.
    pub fn is_compiled(self) -> bool {
        cfg!(feature = "rocksdb") || !matches!(self, Self::RocksdbBlocks | Self::RocksdbDictionary)
    }

    /// Its name on the command line and in tables.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETUP: fn() -> Setup =
        || Setup { record_bytes: 20, cache_bytes: None, zkv: zkv::Options::new() };

    fn check(engine: &dyn Engine, expected: &[(&[u8], &[u8])], case: &str) {
        let mut found = Vec::new();
        engine.for_each(&mut |key, value| found.push((key.to_vec(), value.to_vec()))).unwrap();
        found.sort();
        let all: Vec<_> =
            expected.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        assert_eq!(found, all, "{case}: all");
        for mut reader in [engine.reader().unwrap(), engine.writing_reader().unwrap()] {
            check_reader(&mut *reader, expected, case);
        }
    }

    fn check_reader(reader: &mut dyn Reader, expected: &[(&[u8], &[u8])], case: &str) {
        for (key, value) in expected {
            let mut is_right = false;
            assert!(reader.get(key, &mut |found| is_right = found == *value).unwrap(), "{case}");
            assert!(is_right, "{case}: get");
        }
        assert!(!reader.get(b"nothing", &mut |_| panic!("{case}")).unwrap());
        let mut scanned = Vec::new();
        let is_ordered = reader.scan(b"b", 2, &mut |key, _| scanned.push(key.to_vec())).unwrap();
        let from = expected.iter().map(|(key, _)| *key).filter(|key| *key >= &b"b"[..]);
        assert!(!is_ordered || scanned == from.take(2).collect::<Vec<_>>(), "{case}: scan");
        reader.rest().unwrap();
    }

    #[test]
    fn every_engine_keeps_what_it_is_given() {
        for kind in Kind::value_variants().iter().copied().filter(|kind| kind.is_compiled()) {
            for order in [Order::Random, Order::Sorted] {
                let case = format!("{} {order:?}", kind.name());
                let folder = tempfile::tempdir().unwrap();
                let mut engine = kind.open(folder.path(), &SETUP()).unwrap();
                let records: [(&[u8], &[u8]); 3] = [(b"a", b"1"), (b"b", b""), (b"c", b"3")];
                engine.import(&mut records.into_iter(), order).unwrap();
                check(&*engine, &records, &case);
                let changes: [Change<'_>; 2] = [(b"b", None), (b"c", Some(b"4"))];
                engine.write(&changes, Safety::Relaxed).unwrap();
                engine.write(&[(b"d", Some(b"5"))], Safety::Synced).unwrap();
                let expected: [(&[u8], &[u8]); 3] = [(b"a", b"1"), (b"c", b"4"), (b"d", b"5")];
                check(&*engine, &expected, &case);
                engine.sync().unwrap();
                engine.settle().unwrap();
                check(&*engine, &expected, &case);
                engine.close().unwrap();
                let engine = kind.open(folder.path(), &SETUP()).unwrap();
                check(&*engine, &expected, &case);
                engine.close().unwrap();
            }
        }
    }
}
