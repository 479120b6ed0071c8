//! Collections within snapshots and transactions.

use std::borrow::Borrow;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Result;
use crate::metadata::catalog::Entry;
use crate::read::iter::{IterBytes, KeysBytes};
use crate::snapshot::Snapshot;
use crate::transaction::{Transaction, TransactionIter, TransactionKeys};

use super::open::check_types;
use super::raw_view::{RawSnapshotCollection, RawTransactionCollection};
use super::{Collection, CollectionIter, CollectionKeys};

/// A collection at a snapshot's moment. See [`Collection::at`].
pub struct SnapshotCollection<'a, K, V> {
    of: &'a Collection<K, V>,
    raw: RawSnapshotCollection<'a>,
}

/// A collection as a transaction sees it. See [`Collection::within`].
pub struct TransactionCollection<'a, K, V> {
    of: &'a Collection<K, V>,
    raw: RawTransactionCollection<'a>,
}

impl<K, V> Collection<K, V>
where
    K: Serialize + DeserializeOwned,
    V: Serialize + DeserializeOwned,
{
    /// The collection of this name as it was at the moment of `snapshot`, be it cleared or dropped since.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = zkv::Store::open(directory.path().join("pages.zkv"))?;
    /// let titles: zkv::Collection<u32, String> = store.collection("titles")?;
    /// titles.set(&1, &"Home".to_owned())?;
    /// let snapshot = store.snapshot();
    /// titles.clear()?;
    /// assert_eq!(titles.at(&snapshot)?.len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Of kind `NotFound` where it did not exist then, `TypeMismatch` where the one of this name was
    /// another one with other types, and `Misuse` where the snapshot is of another store.
    pub fn at<'a>(&'a self, snapshot: &'a Snapshot) -> Result<SnapshotCollection<'a, K, V>> {
        let check = |entry: &Entry| check_types(self.name(), entry, &self.asked);
        Ok(SnapshotCollection { of: self, raw: self.raw.at_checked(snapshot, check)? })
    }

    /// The collection as `transaction` sees it, to be read and written within it. Several may be used side by side.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = zkv::Store::open(directory.path().join("pages.zkv"))?;
    /// let drafts: zkv::Collection<u32, String> = store.collection("drafts")?;
    /// let titles: zkv::Collection<u32, String> = store.collection("titles")?;
    /// drafts.set(&1, &"Home".to_owned())?;
    /// store.transaction(|tx| {
    ///     let (mut drafts, mut titles) = (drafts.within(tx)?, titles.within(tx)?);
    ///     if let Some(title) = drafts.remove(&1)? {
    ///         titles.set(&1, &title)?;
    ///     }
    ///     let count = titles.iter().count();
    ///     tx.set("count", &count)
    /// })?;
    /// assert_eq!(titles.get(&1)?.as_deref(), Some("Home"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Of kind `NotFound` where it was dropped, or did not exist when the transaction began, in which case
    /// [`Store::transaction`](crate::Store::transaction) begins anew,
    /// `TypeMismatch` where the one of this name is another one with other types, and `Misuse` where the
    /// transaction is of another store.
    pub fn within<'a>(
        &'a self,
        transaction: &'a Transaction,
    ) -> Result<TransactionCollection<'a, K, V>> {
        let check = |entry: &Entry| check_types(self.name(), entry, &self.asked);
        Ok(TransactionCollection { of: self, raw: self.raw.within_checked(transaction, check)? })
    }
}

impl<K, V> SnapshotCollection<'_, K, V>
where
    K: Serialize + DeserializeOwned,
    V: Serialize + DeserializeOwned,
{
    /// As [`Collection::get`], at the snapshot's moment.
    ///
    /// # Errors
    /// As [`Collection::get`].
    pub fn get<Q>(&self, key: &Q) -> Result<Option<V>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let value = self.raw.get(&self.of.encode_key(key)?)?;
        value.map(|value| self.of.coding.decode(&value)).transpose()
    }

    /// As [`Collection::get_many`], at the snapshot's moment.
    ///
    /// # Errors
    /// As [`Collection::get_many`].
    pub fn get_many<Q>(&self, keys: &[&Q]) -> Result<Vec<Option<V>>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.of.coding.decode_all(self.raw.get_many(&self.of.encode_keys(keys)?)?)
    }

    /// As [`Collection::contains`], at the snapshot's moment.
    ///
    /// # Errors
    /// As [`Collection::contains`].
    pub fn contains<Q>(&self, key: &Q) -> Result<bool>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.raw.contains(&self.of.encode_key(key)?)
    }

    /// How many keys there were.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.raw.len()
    }

    /// Whether there were no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As [`Collection::iter`], at the snapshot's moment.
    #[must_use]
    pub fn iter(&self) -> CollectionIter<K, V, IterBytes> {
        CollectionIter::new(self.raw.iter(), self.of.coding)
    }

    /// As [`Collection::keys`], at the snapshot's moment.
    #[must_use]
    pub fn keys(&self) -> CollectionKeys<K, KeysBytes> {
        CollectionKeys::new(self.raw.keys())
    }
}

impl<K, V> TransactionCollection<'_, K, V>
where
    K: Serialize + DeserializeOwned,
    V: Serialize + DeserializeOwned,
{
    /// As [`Collection::get`], as the transaction sees the collection.
    ///
    /// # Errors
    /// As [`Collection::get`].
    pub fn get<Q>(&self, key: &Q) -> Result<Option<V>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let value = self.raw.get(&self.of.encode_key(key)?)?;
        value.map(|value| self.of.coding.decode(&value)).transpose()
    }

    /// As [`Collection::get_many`], as the transaction sees the collection.
    ///
    /// # Errors
    /// As [`Collection::get_many`].
    pub fn get_many<Q>(&self, keys: &[&Q]) -> Result<Vec<Option<V>>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.of.coding.decode_all(self.raw.get_many(&self.of.encode_keys(keys)?)?)
    }

    /// As [`Collection::contains`], as the transaction sees the collection.
    ///
    /// # Errors
    /// As [`Collection::contains`].
    pub fn contains<Q>(&self, key: &Q) -> Result<bool>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.raw.contains(&self.of.encode_key(key)?)
    }

    /// As [`Collection::set`], once the transaction is committed.
    ///
    /// # Errors
    /// As [`Transaction::set`].
    pub fn set<Q>(&mut self, key: &Q, value: &V) -> Result<()>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.raw.set(&self.of.encode_key(key)?, &self.of.encode_value(value)?)
    }

    /// As [`Collection::delete`], once the transaction is committed. Says whether the key was there.
    ///
    /// # Errors
    /// As [`Transaction::delete`].
    pub fn delete<Q>(&mut self, key: &Q) -> Result<bool>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.raw.delete(&self.of.encode_key(key)?)
    }

    /// As [`Collection::remove`], once the transaction is committed. Returns the value as the transaction saw it.
    ///
    /// # Errors
    /// As [`Transaction::remove`].
    pub fn remove<Q>(&mut self, key: &Q) -> Result<Option<V>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let (key, coding) = (self.of.encode_key(key)?, self.of.coding);
        self.raw.remove_decoded(&key, |value| coding.decode(&value))
    }

    /// As [`Transaction::iter_bytes`], of this collection.
    #[must_use]
    pub fn iter(&self) -> CollectionIter<K, V, TransactionIter> {
        CollectionIter::new(self.raw.iter(), self.of.coding)
    }

    /// As [`Transaction::keys_bytes`], of this collection.
    #[must_use]
    pub fn keys(&self) -> CollectionKeys<K, TransactionKeys> {
        CollectionKeys::new(self.raw.keys())
    }
}

impl<K, V> std::fmt::Debug for SnapshotCollection<'_, K, V> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = formatter.debug_struct("SnapshotCollection");
        debug.field("of", self.of).field("raw", &self.raw).finish_non_exhaustive()
    }
}

impl<K, V> std::fmt::Debug for TransactionCollection<'_, K, V> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = formatter.debug_struct("TransactionCollection");
        debug.field("of", self.of).field("raw", &self.raw).finish_non_exhaustive()
    }
}
