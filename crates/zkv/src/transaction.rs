//! Transactions: reads and writes that take effect as one.

mod iter;

use std::cell::{Cell, RefCell};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zkv_record::{Kind, Record, check_key};

use crate::error::{Error, Result};
use crate::hashed::KeyMap;
use crate::metadata::catalog::{CATALOG, DEFAULT};
use crate::options::Durability;
use crate::read::view::KeyRef;
use crate::snapshot::Reader;
use crate::store::{Store, encode_key};
use crate::write::modify::Begun;
use crate::write::recent::Reads;
use crate::write::write_set::{Body, Numbered, Write, WriteSet, Writes};
use iter::Overlay;
pub use iter::{TransactionIter, TransactionKeys};

/// How often [`Store::transaction`] tries.
const ATTEMPTS_MAX: u32 = 100;

/// Reads and writes that take effect as one, or not at all. See [`Store::begin`].
///
/// It sees the store as it was when it began, and its own writes. They are kept in memory until
/// [`Transaction::commit`], and dropped with it: dropping a transaction undoes it.
///
/// Transactions are serializable: those that commit could have run one after another, each at the
/// moment of its commit. Nobody waits for one; where another commit has written what this one has
/// read, its own commit fails with [`Error::Conflict`], and nothing has happened.
pub struct Transaction {
    store: Store,
    reader: Reader,
    reads: RefCell<Reads>,
    _begun: Begun,
    /// Collections within it share it, so that several can be used side by side. No borrow lasts while code of the
    /// user's runs.
    writes: RefCell<KeyMap<Write<'static>>>,
    collections: RefCell<Vec<Numbered>>,
    /// Whether it has asked for a collection that was made after it began.
    began_too_early: Cell<bool>,
}

/// Each call puts what it has to say into one of its parts at once, behind all that may panic.
impl UnwindSafe for Transaction {}
impl RefUnwindSafe for Transaction {}

impl Store {
    /// Begins a transaction.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = zkv::Store::open(directory.path().join("accounts.zkv"))?;
    /// let mut tx = store.begin()?;
    /// let balance: u64 = tx.get("alice")?.unwrap_or(0);
    /// tx.set("alice", &(balance + 10))?;
    /// tx.commit()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Of kind `ReadOnly`, and `Misuse` after `close`.
    pub fn begin(&self) -> Result<Transaction> {
        let shared = self.shared();
        shared.check_writable()?;
        let (begun, moment) = Begun::now(shared);
        Ok(Transaction {
            store: self.clone(),
            reader: Reader::new(Arc::clone(shared), moment),
            reads: RefCell::new(Reads { since: begun.since, ..Reads::default() }),
            _begun: begun,
            writes: RefCell::default(),
            collections: RefCell::default(),
            began_too_early: Cell::new(false),
        })
    }

    /// Runs `body` in a transaction and commits it, anew where it conflicts with another one, up to a
    /// hundred times; also where `body` fails, whatever with, once it has asked for a collection that was made after it
    /// had begun. Where `body` fails or panics, nothing has happened.
    ///
    /// That is so of what `body` does through the transaction. What else it does, such as writes through the
    /// store or a collection without [`Collection::within`](crate::Collection::within), happens at once, again at
    /// each attempt, and may be what the transaction conflicts with each time.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = zkv::Store::open(directory.path().join("accounts.zkv"))?;
    /// let sum = store.transaction(|tx| {
    ///     let balance: u64 = tx.get("alice")?.unwrap_or(0);
    ///     tx.set("alice", &(balance + 10))?;
    ///     Ok(balance + 10)
    /// })?;
    /// assert_eq!(sum, 10);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// What `body` returns; as [`Transaction::commit`], with [`Error::Conflict`] where it conflicts
    /// every time.
    pub fn transaction<T>(&self, body: impl FnMut(&mut Transaction) -> Result<T>) -> Result<T> {
        self.try_transaction(body)
    }

    /// As [`Store::transaction`], for a `body` with errors of its own. One that ends in `Ok(..)` may have to say of
    /// which type they are.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = zkv::Store::open(directory.path().join("accounts.zkv"))?;
    /// let spent = store.try_transaction(|tx| {
    ///     let balance: u64 = tx.get("alice")?.unwrap_or(0);
    ///     let left = balance.checked_sub(10).ok_or("there is not enough")?;
    ///     tx.set("alice", &left)?;
    ///     Ok::<_, Box<dyn std::error::Error>>(left)
    /// });
    /// assert_eq!(spent.unwrap_err().to_string(), "there is not enough");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// What `body` returns, as it is; as [`Store::transaction`].
    pub fn try_transaction<T, E: From<Error>>(
        &self,
        mut body: impl FnMut(&mut Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let mut transaction = self.begin()?;
            let done = body(&mut transaction);
            if done.is_err() && transaction.began_too_early.get() && attempts < ATTEMPTS_MAX {
                continue;
            }
            let value = done?;
            match transaction.commit() {
                Err(Error::Conflict) if attempts < ATTEMPTS_MAX => std::thread::yield_now(),
                done => return Ok(done.map(|()| value)?),
            }
        }
    }
}

impl Transaction {
    /// As [`Store::get`], as the transaction sees the store.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn get<K, V>(&self, key: &K) -> Result<Option<V>>
    where
        K: Serialize + ?Sized,
        V: DeserializeOwned,
    {
        let value = self.get_bytes(&encode_key(key)?)?;
        value.map(|value| self.reader.shared.postcard().decode(&value)).transpose()
    }

    /// As [`Store::contains`], as the transaction sees the store.
    ///
    /// # Errors
    /// As [`Store::contains`].
    pub fn contains<K: Serialize + ?Sized>(&self, key: &K) -> Result<bool> {
        self.contains_bytes(&encode_key(key)?)
    }

    /// As [`Store::set`], once the transaction is committed.
    ///
    /// # Errors
    /// As [`Store::set`].
    pub fn set<K, V>(&mut self, key: &K, value: &V) -> Result<()>
    where
        K: Serialize + ?Sized,
        V: Serialize + ?Sized,
    {
        let encoded = self.reader.shared.postcard().encode(value)?;
        self.set_bytes(&encode_key(key)?, &encoded)
    }

    /// As [`Store::delete`], once the transaction is committed. Says whether the key was there.
    ///
    /// # Errors
    /// As [`Transaction::delete_bytes`].
    pub fn delete<K: Serialize + ?Sized>(&mut self, key: &K) -> Result<bool> {
        self.delete_bytes(&encode_key(key)?)
    }

    /// As [`Store::remove`], once the transaction is committed. Returns the value as the transaction saw it.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = zkv::Store::open(directory.path().join("jobs.zkv"))?;
    /// store.set("waiting", "job 17")?;
    /// store.transaction(|tx| {
    ///     let job: Option<String> = tx.remove("waiting")?;
    ///     tx.set("running", &job)
    /// })?;
    /// assert!(!store.contains("waiting")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Transaction::get`] and [`Transaction::delete`]. Where the value is none of type `V`, it stays.
    pub fn remove<K, V>(&mut self, key: &K) -> Result<Option<V>>
    where
        K: Serialize + ?Sized,
        V: DeserializeOwned,
    {
        let (key, coding) = (encode_key(key)?, self.reader.shared.postcard());
        self.remove_in(DEFAULT, &key, |value| coding.decode(&value))
    }

    /// As [`Store::get_bytes`], as the transaction sees the store.
    ///
    /// # Errors
    /// As [`Store::get_bytes`].
    pub fn get_bytes(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.get_in(DEFAULT, key)
    }

    /// As [`Store::contains_bytes`], as the transaction sees the store.
    ///
    /// # Errors
    /// As [`Store::contains_bytes`].
    pub fn contains_bytes(&self, key: &[u8]) -> Result<bool> {
        self.contains_in(DEFAULT, key)
    }

    /// As [`Store::set_bytes`], once the transaction is committed.
    ///
    /// # Errors
    /// Of kind `Limit` where the key or value is too long.
    pub fn set_bytes(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.set_in(DEFAULT, key, value)
    }

    /// As [`Store::delete_bytes`], once the transaction is committed. Says whether the key was there.
    ///
    /// # Errors
    /// Of kind `Limit` where the key is too long; as [`Store::get_bytes`].
    pub fn delete_bytes(&mut self, key: &[u8]) -> Result<bool> {
        self.delete_in(DEFAULT, key)
    }

    /// As [`Store::remove_bytes`], once the transaction is committed. Returns the value as the transaction saw it.
    ///
    /// # Errors
    /// As [`Transaction::delete_bytes`].
    pub fn remove_bytes(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.remove_in(DEFAULT, key, Ok)
    }

    /// As [`Store::iter_bytes`], as the transaction sees the store now: what it writes later is not
    /// seen. The transaction then conflicts with whoever writes any key meanwhile.
    #[must_use]
    pub fn iter_bytes(&self) -> TransactionIter {
        self.iter_in(DEFAULT)
    }

    /// As [`Transaction::iter_bytes`], of keys alone. Long values take no memory: see
    /// [`KeysBytes`](crate::KeysBytes).
    #[must_use]
    pub fn keys_bytes(&self) -> TransactionKeys {
        self.keys_in(DEFAULT)
    }

    /// Makes the transaction's writes take effect, all at once, and waits for what the store's
    /// [`Durability`] says. One that has written nothing waits for nothing: what it has read may be less
    /// durable than that, where [`Transaction::commit_with`] waits.
    ///
    /// # Errors
    /// [`Error::Conflict`] where another commit has written what this one has read, or has cleared
    /// or dropped a collection that it used; as [`Store::set_bytes`]. Then nothing has happened, unless it was
    /// a sync that failed: see there.
    pub fn commit(self) -> Result<()> {
        if self.writes.borrow().is_empty() {
            // What it has read was all so at the moment at which it began.
            return Ok(());
        }
        let durability = self.reader.shared.options.durability;
        self.commit_with(durability)
    }

    /// As [`Transaction::commit`], waiting for `durability`, whatever the store's own is. All that
    /// was committed before is then as durable.
    ///
    /// # Errors
    /// As [`Transaction::commit`].
    pub fn commit_with(self, durability: Durability) -> Result<()> {
        let writes = self.writes.take();
        if writes.is_empty() {
            return self.store.wait_for(durability);
        }
        self.store.before_writing(durability)?;
        let writes = Writes::Few(writes.into_values().collect());
        let reads = Some(Box::new(self.reads.take()));
        let collections = self.collections.take();
        let set = WriteSet { writes, reads, collections, moves: None, durability };
        self.reader.shared.commit(set)
    }

    pub(crate) fn get_in(&self, collection: u32, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let key = self.reader.shared.key(collection, key);
        match self.own(key, value_of) {
            Some(value) => Ok(value),
            None => self.reader.get(key),
        }
    }

    /// What the transaction itself has made of a key; `None` where it has not, which is then read.
    pub(crate) fn own_value_in(&self, collection: u32, key: &[u8]) -> Option<Option<Vec<u8>>> {
        self.own(self.reader.shared.key(collection, key), value_of)
    }

    pub(crate) fn contains_in(&self, collection: u32, key: &[u8]) -> Result<bool> {
        let key = self.reader.shared.key(collection, key);
        match self.own(key, is_put) {
            Some(is_there) => Ok(is_there),
            None => self.reader.contains(key),
        }
    }

    /// What `of` makes of the transaction's own write of a key; `None` where there is none, which is noted as a read.
    fn own<T>(&self, key: KeyRef<'_>, of: impl FnOnce(&Write<'_>) -> T) -> Option<T> {
        let own = self.writes.borrow().get(&key.hash).map(of);
        if own.is_none() {
            self.note_read(key);
        }
        own
    }

    fn note_read(&self, key: KeyRef<'_>) {
        let mut reads = self.reads.borrow_mut();
        reads.keys.insert(key.hash);
        reads.note_touch(key.collection);
    }

    pub(crate) fn set_in(&self, collection: u32, key: &[u8], value: &[u8]) -> Result<()> {
        let shared = &self.reader.shared;
        check_key(key)?;
        shared.check_value_bytes(value.len() as u64)?;
        let key = shared.key(collection, key);
        let write = Write::put(key, value, shared.inline_bytes_max());
        self.writes.borrow_mut().insert(write.hash, write.into_owned());
        Ok(())
    }

    pub(crate) fn delete_in(&self, collection: u32, key: &[u8]) -> Result<bool> {
        check_key(key)?;
        let is_there = self.contains_in(collection, key)?;
        self.mark_deleted(collection, key);
        Ok(is_there)
    }

    /// Deletes a key if `decode` takes the value that it had, and returns what that makes of it.
    pub(crate) fn remove_in<V>(
        &self,
        collection: u32,
        key: &[u8],
        decode: impl FnOnce(Vec<u8>) -> Result<V>,
    ) -> Result<Option<V>> {
        check_key(key)?;
        let value = self.get_in(collection, key)?.map(decode).transpose()?;
        self.mark_deleted(collection, key);
        Ok(value)
    }

    fn mark_deleted(&self, collection: u32, key: &[u8]) {
        let write = Write::delete(self.reader.shared.key(collection, key));
        self.writes.borrow_mut().insert(write.hash, write);
    }

    pub(crate) fn iter_in(&self, collection: u32) -> TransactionIter {
        let own = |write: &Write<'_>| Some((key_of(write)?, value_of(write)?));
        TransactionIter(self.overlay(collection, self.reader.iter(collection), own))
    }

    pub(crate) fn keys_in(&self, collection: u32) -> TransactionKeys {
        let own = |write: &Write<'_>| if is_put(write) { key_of(write) } else { None };
        TransactionKeys(self.overlay(collection, self.reader.keys(collection), own))
    }

    /// What the transaction has written, as `own` has it, before what is `below`.
    fn overlay<T, I>(
        &self,
        collection: u32,
        below: I,
        own: impl Fn(&Write<'_>) -> Option<T>,
    ) -> Overlay<T, I> {
        let mut reads = self.reads.borrow_mut();
        reads.note_scan(collection);
        reads.note_touch(collection);
        let writes = self.writes.borrow();
        let writes = writes.values().filter(|write| write.collection == collection);
        let written = writes.clone().map(|write| write.hash).collect();
        let own: Vec<T> = writes.filter_map(own).collect();
        let shared = Arc::clone(&self.reader.shared);
        Overlay { own: own.into_iter(), written, below, collection, shared }
    }

    /// Notes that there was no collection of this name: none must have been made since.
    pub(crate) fn miss_collection(&self, name: &str) {
        self.began_too_early.set(true);
        let hash = self.reader.shared.keys.hash(CATALOG, name.as_bytes());
        self.reads.borrow_mut().keys.insert(hash);
    }

    /// Notes a named collection that the transaction uses: it must not be cleared meanwhile.
    pub(crate) fn use_collection(&self, numbered: &Numbered) {
        self.reads.borrow_mut().note_touch(numbered.id);
        let mut collections = self.collections.borrow_mut();
        if !collections.iter().any(|known| Arc::ptr_eq(&known.state, &numbered.state)) {
            collections.push(numbered.clone());
        }
    }

    pub(crate) fn reader(&self) -> &Reader {
        &self.reader
    }
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = formatter.debug_struct("Transaction");
        debug.field("store", &self.store).field("writes", &self.writes.borrow().len());
        debug.finish_non_exhaustive()
    }
}

fn key_of(write: &Write<'_>) -> Option<Vec<u8>> {
    match &write.body {
        Body::Record(record) => Record::decode(record).ok().map(|record| record.key.to_vec()),
        Body::Large(large) => Some(large.key.to_vec()),
    }
}

/// What a write puts; `None` where it deletes.
fn value_of(write: &Write<'_>) -> Option<Vec<u8>> {
    match &write.body {
        Body::Record(record) => {
            let record = Record::decode(record).ok()?;
            (record.kind == Kind::Put).then(|| record.value.to_vec())
        }
        Body::Large(large) => Some(large.value.to_vec()),
    }
}

fn is_put(write: &Write<'_>) -> bool {
    match &write.body {
        Body::Record(record) => crate::write::memtable::is_put(record),
        Body::Large(_) => true,
    }
}
