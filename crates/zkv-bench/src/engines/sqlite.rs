//! SQLite, with a write-ahead log: one table, clustered by the key where records are short, as its page
//! on `WITHOUT ROWID` tables advises; a connection for each thread that reads, and the writer's for reads
//! among writes, whose cache another connection's commits would empty; statements prepared once; a cache of
//! 64 MiB and a map, as its page on memory-mapped files describes, but none where memory is limited: it is off
//! by default. Relaxed writes are those of `synchronous = NORMAL`, which the log's page advises. Where the key is
//! the table's own, `REPLACE` is the fastest way to write; else it would delete a row of two trees, and `ON
//! CONFLICT` changes it in its place.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use rusqlite::{Connection, Params, Statement, params};

use crate::Failure;
use crate::engine::{Change, Each, Engine, Order, Reader, Safety, Setup};

/// Rows longer than a twentieth of a page of 4 KiB are better kept out of the tree of keys.
const CLUSTERED_BYTES_MAX: u64 = 4096 / 20;
/// The cache where nothing limits it.
const CACHE_BYTES: usize = 64 << 20;
/// The longest map that SQLite is compiled for.
const MAP_BYTES: usize = 0x7fff_0000;

struct Sqlite {
    path: PathBuf,
    cache_bytes: Option<usize>,
    /// SQLite has one writer at a time; waiting here is fairer to it than its own polling.
    writer: Mutex<Writer>,
}

struct Writer {
    connection: Connection,
    put: &'static str,
    /// What its commits wait for.
    safety: Safety,
}

pub fn open(folder: &Path, setup: &Setup) -> Result<Box<dyn Engine>, Failure> {
    let path = folder.join("bench.sqlite");
    let cache_bytes = setup.cache_bytes;
    let connection = connect(&path, cache_bytes)?;
    let (clustered, put) = match setup.record_bytes <= CLUSTERED_BYTES_MAX {
        true => ("WITHOUT ROWID", "REPLACE INTO t VALUES (?, ?)"),
        false => ("", "INSERT INTO t VALUES (?, ?) ON CONFLICT (k) DO UPDATE SET v = excluded.v"),
    };
    let statement =
        format!("CREATE TABLE IF NOT EXISTS t (k BLOB PRIMARY KEY, v BLOB NOT NULL) {clustered}");
    connection.execute_batch(&statement)?;
    let writer = Mutex::new(Writer { connection, put, safety: Safety::Relaxed });
    Ok(Box::new(Sqlite { path, cache_bytes, writer }))
}

fn connect(path: &Path, cache_bytes: Option<usize>) -> Result<Connection, Failure> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", level(Safety::Relaxed))?;
    // A negative number is one of KiB.
    let cache_kib = cache_bytes.unwrap_or(CACHE_BYTES) >> 10;
    connection.pragma_update(None, "cache_size", format!("-{cache_kib}"))?;
    let map_bytes = if cache_bytes.is_some() { 0 } else { MAP_BYTES };
    connection.pragma_update(None, "mmap_size", map_bytes.to_string())?;
    Ok(connection)
}

fn level(safety: Safety) -> &'static str {
    match safety {
        Safety::Relaxed => "NORMAL",
        Safety::Synced => "FULL",
    }
}

impl Sqlite {
    fn writer(&self) -> Result<MutexGuard<'_, Writer>, Failure> {
        self.writer.lock().map_err(|_| "a thread panicked while it wrote".into())
    }

    fn put_all<'a>(
        Writer { connection, put, .. }: &mut Writer,
        changes: &mut dyn Iterator<Item = Change<'a>>,
    ) -> Result<(), Failure> {
        let transaction = connection.transaction()?;
        {
            let mut put = transaction.prepare_cached(put)?;
            let mut delete = transaction.prepare_cached("DELETE FROM t WHERE k = ?")?;
            for (key, value) in changes {
                match value {
                    Some(value) => put.execute(params![key, value])?,
                    None => delete.execute([key])?,
                };
            }
        }
        Ok(transaction.commit()?)
    }
}

impl Engine for Sqlite {
    fn import(
        &self,
        records: &mut dyn Iterator<Item = (&[u8], &[u8])>,
        _order: Order,
    ) -> Result<(), Failure> {
        let mut changes = records.map(|(key, value)| (key, Some(value)));
        Self::put_all(&mut *self.writer()?, &mut changes)?;
        self.sync()
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>, Failure> {
        let connection = connect(&self.path, self.cache_bytes)?;
        // One transaction for many reads spares each of them its own locks.
        connection.execute_batch("BEGIN")?;
        Ok(Box::new(SqliteReader(connection)))
    }

    fn writing_reader(&self) -> Result<Box<dyn Reader + '_>, Failure> {
        Ok(Box::new(WritingReader(self)))
    }

    fn for_each(&self, each: Each<'_>) -> Result<(), Failure> {
        let writer = self.writer()?;
        // In the order in which rows lie, whether the key is the table's tree or has one of its own.
        let mut statement = writer.connection.prepare("SELECT k, v FROM t")?;
        show(&mut statement, [], each)
    }

    fn write(&self, changes: &[Change<'_>], safety: Safety) -> Result<(), Failure> {
        let mut writer = self.writer()?;
        if writer.safety != safety {
            writer.connection.pragma_update(None, "synchronous", level(safety))?;
            writer.safety = safety;
        }
        Self::put_all(&mut writer, &mut changes.iter().copied())
    }

    /// A checkpoint syncs the log and the file.
    fn sync(&self) -> Result<(), Failure> {
        let writer = self.writer()?;
        Ok(writer.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
    }

    fn settle(&mut self) -> Result<(), Failure> {
        self.writer()?.connection.execute_batch("VACUUM")?;
        self.sync()
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        let writer = self.writer.into_inner().map_err(|_| "a thread panicked while it wrote")?;
        writer.connection.close().map_err(|(_, error)| error.into())
    }
}

struct SqliteReader(Connection);

impl Reader for SqliteReader {
    /// Each read after it is a transaction of its own.
    fn rest(&mut self) -> Result<(), Failure> {
        if !self.0.is_autocommit() {
            self.0.execute_batch("COMMIT")?;
        }
        Ok(())
    }

    fn get(&mut self, key: &[u8], found: &mut dyn FnMut(&[u8])) -> Result<bool, Failure> {
        get(&self.0, key, found)
    }

    fn scan(&mut self, from: &[u8], count: usize, each: Each<'_>) -> Result<bool, Failure> {
        scan(&self.0, from, count, each)
    }
}

/// Reads by the connection that writes, each of them a transaction of its own.
struct WritingReader<'a>(&'a Sqlite);

impl Reader for WritingReader<'_> {
    fn get(&mut self, key: &[u8], found: &mut dyn FnMut(&[u8])) -> Result<bool, Failure> {
        get(&self.0.writer()?.connection, key, found)
    }

    fn scan(&mut self, from: &[u8], count: usize, each: Each<'_>) -> Result<bool, Failure> {
        scan(&self.0.writer()?.connection, from, count, each)
    }
}

fn get(connection: &Connection, key: &[u8], found: &mut dyn FnMut(&[u8])) -> Result<bool, Failure> {
    let mut statement = connection.prepare_cached("SELECT v FROM t WHERE k = ?")?;
    let mut rows = statement.query([key])?;
    match rows.next()? {
        Some(row) => found(row.get_ref(0)?.as_blob()?),
        None => return Ok(false),
    }
    Ok(true)
}

fn scan(
    connection: &Connection,
    from: &[u8],
    count: usize,
    each: Each<'_>,
) -> Result<bool, Failure> {
    let select = "SELECT k, v FROM t WHERE k >= ? ORDER BY k LIMIT ?";
    let count = i64::try_from(count)?;
    let mut statement = connection.prepare_cached(select)?;
    show(&mut statement, params![from, count], each)?;
    Ok(true)
}

fn show(
    statement: &mut Statement<'_>,
    parameters: impl Params,
    each: Each<'_>,
) -> Result<(), Failure> {
    let mut rows = statement.query(parameters)?;
    while let Some(row) = rows.next()? {
        each(row.get_ref(0)?.as_blob()?, row.get_ref(1)?.as_blob()?);
    }
    Ok(())
}
