//! Collections without their types, within snapshots and transactions.

use crate::error::{Error, Result};
use crate::metadata::catalog::Entry;
use crate::read::iter::{IterBytes, KeysBytes};
use crate::snapshot::Snapshot;
use crate::transaction::{Transaction, TransactionIter, TransactionKeys};
use crate::write::write_set::Numbered;

use super::RawCollection;

/// A collection's keys and values as bytes, at a snapshot's moment. See [`RawCollection::at`] and
/// [`Snapshot::raw_collection`].
#[derive(Debug)]
pub struct RawSnapshotCollection<'a> {
    snapshot: &'a Snapshot,
    id: u32,
}

/// A collection's keys and values as bytes, as a transaction sees them. See [`RawCollection::within`].
#[derive(Debug)]
pub struct RawTransactionCollection<'a> {
    transaction: &'a Transaction,
    id: u32,
}

impl Snapshot {
    /// The collection `name` as bytes, whatever its types, be it cleared or dropped since; `None` where there was
    /// none.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = zkv::Store::open(directory.path().join("pages.zkv"))?;
    /// let titles: zkv::Collection<u8, u8> = store.collection("titles")?;
    /// titles.set(&1, &7)?;
    /// // All collections, at one moment.
    /// let snapshot = store.snapshot();
    /// store.drop_collection("titles")?;
    /// for info in snapshot.collections() {
    ///     let collection = snapshot.raw_collection(&info.name).expect("the snapshot has it");
    ///     for record in collection.iter() {
    ///         assert_eq!(record?, (vec![1], vec![7]));
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn raw_collection(&self, name: &str) -> Option<RawSnapshotCollection<'_>> {
        let id = self.reader.moment().committed().catalog.get(name)?.id;
        Some(RawSnapshotCollection { snapshot: self, id })
    }
}

impl RawCollection {
    /// As [`Collection::at`](crate::Collection::at), whatever the types of the collection are, or were. Without a
    /// handle of the collection, [`Snapshot::raw_collection`] does the same.
    ///
    /// # Errors
    /// As [`Collection::at`](crate::Collection::at), but for `TypeMismatch`.
    pub fn at<'a>(&self, snapshot: &'a Snapshot) -> Result<RawSnapshotCollection<'a>> {
        self.at_checked(snapshot, |_| Ok(()))
    }

    /// As [`Collection::within`](crate::Collection::within), whatever the types of the collection are.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = zkv::Store::open(directory.path().join("pages.zkv"))?;
    /// # let counts: zkv::Collection<u8, u8> = store.collection("counts")?;
    /// # counts.set(&1, &7)?;
    /// let counts = store.raw_collection("counts").expect("it was made");
    /// store.transaction(|tx| {
    ///     let mut counts = counts.within(tx)?;
    ///     if let Some(count) = counts.get(&[1])? {
    ///         counts.set(&[2], &count)?;
    ///     }
    ///     Ok(())
    /// })?;
    /// assert_eq!(counts.get(&[2])?, Some(vec![7]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Collection::within`](crate::Collection::within), but for `TypeMismatch`.
    pub fn within<'a>(&self, transaction: &'a Transaction) -> Result<RawTransactionCollection<'a>> {
        self.within_checked(transaction, |_| Ok(()))
    }

    /// As [`RawCollection::at`], if `check` takes what the collection was then.
    pub(super) fn at_checked<'a>(
        &self,
        snapshot: &'a Snapshot,
        check: impl FnOnce(&Entry) -> Result<()>,
    ) -> Result<RawSnapshotCollection<'a>> {
        self.state().check_opening(&snapshot.reader.shared.collections.opening)?;
        let moment = snapshot.reader.moment();
        let entry = moment.committed().catalog.get(self.name()).ok_or_else(|| self.missing())?;
        check(entry)?;
        Ok(RawSnapshotCollection { snapshot, id: entry.id })
    }

    /// As [`RawCollection::within`], if `check` takes what the collection was when the transaction began.
    pub(super) fn within_checked<'a>(
        &self,
        transaction: &'a Transaction,
        check: impl FnOnce(&Entry) -> Result<()>,
    ) -> Result<RawTransactionCollection<'a>> {
        self.state().check_opening(&transaction.reader().shared.collections.opening)?;
        // The one of its name may be another by now.
        self.state().id().ok_or(Error::CollectionDropped)?;
        let moment = transaction.reader().moment();
        let Some(entry) = moment.committed().catalog.get(self.name()) else {
            transaction.miss_collection(self.name());
            return Err(self.missing());
        };
        check(entry)?;
        // It may have been cleared since: the transaction goes on, and finds out at its commit.
        transaction.use_collection(&Numbered { state: self.state().clone(), id: entry.id });
        Ok(RawTransactionCollection { transaction, id: entry.id })
    }

    fn missing(&self) -> Error {
        Error::NoCollection { name: self.name().to_owned() }
    }
}

impl RawSnapshotCollection<'_> {
    /// As [`RawCollection::get`], at the snapshot's moment.
    ///
    /// # Errors
    /// As [`Store::get_bytes`](crate::Store::get_bytes).
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let reader = &self.snapshot.reader;
        reader.get(reader.shared.key(self.id, key))
    }

    /// As [`RawCollection::get_many`], at the snapshot's moment.
    ///
    /// # Errors
    /// As [`Store::get_many_bytes`](crate::Store::get_many_bytes).
    pub fn get_many<Q: AsRef<[u8]>>(&self, keys: &[Q]) -> Result<Vec<Option<Vec<u8>>>> {
        self.snapshot.reader.get_many(self.id, keys)
    }

    /// As [`RawCollection::contains`], at the snapshot's moment.
    ///
    /// # Errors
    /// As [`Store::contains_bytes`](crate::Store::contains_bytes).
    pub fn contains(&self, key: &[u8]) -> Result<bool> {
        let reader = &self.snapshot.reader;
        reader.contains(reader.shared.key(self.id, key))
    }

    /// How many keys there were.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.snapshot.reader.key_count(self.id)
    }

    /// Whether there were no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As [`RawCollection::iter`], at the snapshot's moment.
    #[must_use]
    pub fn iter(&self) -> IterBytes {
        self.snapshot.reader.iter(self.id)
    }

    /// As [`RawCollection::keys`], at the snapshot's moment.
    #[must_use]
    pub fn keys(&self) -> KeysBytes {
        self.snapshot.reader.keys(self.id)
    }
}

impl RawTransactionCollection<'_> {
    /// As [`RawCollection::get`], as the transaction sees the collection.
    ///
    /// # Errors
    /// As [`Transaction::get_bytes`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.transaction.get_in(self.id, key)
    }

    /// As [`RawCollection::get_many`], as the transaction sees the collection.
    ///
    /// # Errors
    /// As [`Transaction::get_many_bytes`].
    pub fn get_many<Q: AsRef<[u8]>>(&self, keys: &[Q]) -> Result<Vec<Option<Vec<u8>>>> {
        self.transaction.get_many_in(self.id, keys)
    }

    /// As [`RawCollection::contains`], as the transaction sees the collection.
    ///
    /// # Errors
    /// As [`Transaction::contains_bytes`].
    pub fn contains(&self, key: &[u8]) -> Result<bool> {
        self.transaction.contains_in(self.id, key)
    }

    /// As [`RawCollection::set`], once the transaction is committed.
    ///
    /// # Errors
    /// As [`Transaction::set_bytes`].
    pub fn set(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.transaction.set_in(self.id, key, value)
    }

    /// As [`RawCollection::delete`], once the transaction is committed. Says whether the key was there.
    ///
    /// # Errors
    /// As [`Transaction::delete_bytes`].
    pub fn delete(&mut self, key: &[u8]) -> Result<bool> {
        self.transaction.delete_in(self.id, key)
    }

    /// As [`RawCollection::remove`], once the transaction is committed. Returns the value as the transaction saw it.
    ///
    /// # Errors
    /// As [`Transaction::remove_bytes`].
    pub fn remove(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.remove_decoded(key, Ok)
    }

    pub(super) fn remove_decoded<V>(
        &mut self,
        key: &[u8],
        decode: impl FnOnce(Vec<u8>) -> Result<V>,
    ) -> Result<Option<V>> {
        self.transaction.remove_in(self.id, key, decode)
    }

    /// As [`Transaction::iter_bytes`], of this collection.
    #[must_use]
    pub fn iter(&self) -> TransactionIter {
        self.transaction.iter_in(self.id)
    }

    /// As [`Transaction::keys_bytes`], of this collection.
    #[must_use]
    pub fn keys(&self) -> TransactionKeys {
        self.transaction.keys_in(self.id)
    }
}
