//! Named collections: their own keys, their own types.

mod open;
mod raw;
mod raw_view;
mod view;

use std::borrow::{Borrow, Cow};
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zkv_record::decode;

use crate::coding::{Coding, of_key};
use crate::error::{Error, Result};
use crate::metadata::catalog::Entry;
use crate::read::iter::{IterBytes, KeysBytes};
use crate::store::encode_key;
use crate::write::modify::Target;
use crate::write::write_set::CollectionState;

pub use open::{CollectionInfo, CollectionOptions};
pub use raw::RawCollection;
pub use raw_view::{RawSnapshotCollection, RawTransactionCollection};
pub use view::{SnapshotCollection, TransactionCollection};

/// A named part of a store, with keys and values of one type each. See [`Store::collection`].
///
/// Its keys are its own: the same key may stand in any number of collections. Clones are handles of
/// the same collection. Each holds a handle of the store, which so stays open until the last of them is dropped
/// or [`Store::close`] is called. A key may be given as whatever `K` borrows as, so long as serde writes it
/// alike: a `String` as a `str`, but not an array as a slice, or a struct as one of its fields. Else it is refused,
/// of kind `Misuse`.
///
/// [`Store::collection`]: crate::Store::collection
/// [`Store::close`]: crate::Store::close
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let store = zkv::Store::open(directory.path().join("pages.zkv"))?;
/// let titles: zkv::Collection<String, String> = store.collection("titles")?;
/// titles.set("https://example.org/", &"Home".to_owned())?;
/// assert_eq!(titles.get("https://example.org/")?.as_deref(), Some("Home"));
/// assert_eq!(titles.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Collection<K, V> {
    raw: RawCollection,
    coding: Coding,
    /// What a collection of this name must be at whichever moment it is looked at.
    asked: Arc<Entry>,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V> Collection<K, V>
where
    K: Serialize + DeserializeOwned,
    V: Serialize + DeserializeOwned,
{
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.raw.name()
    }

    /// As [`Store::set`](crate::Store::set).
    ///
    /// # Errors
    /// As [`Store::set`](crate::Store::set); of kind `NotFound` where the collection was dropped.
    pub fn set<Q>(&self, key: &Q, value: &V) -> Result<()>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.raw.set(&self.encode_key(key)?, &self.encode_value(value)?)
    }

    /// As [`Store::get`](crate::Store::get).
    ///
    /// # Errors
    /// As [`Store::get`](crate::Store::get); of kind `NotFound` where the collection was dropped.
    pub fn get<Q>(&self, key: &Q) -> Result<Option<V>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let value = self.raw.get(&self.encode_key(key)?)?;
        value.map(|value| self.coding.decode(&value)).transpose()
    }

    /// As [`Store::get_many`](crate::Store::get_many).
    ///
    /// # Errors
    /// As [`Store::get_many`](crate::Store::get_many); of kind `NotFound` where the collection was
    /// dropped.
    pub fn get_many<Q>(&self, keys: &[&Q]) -> Result<Vec<Option<V>>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.coding.decode_all(self.raw.get_many(&self.encode_keys(keys)?)?)
    }

    /// As [`Store::delete`](crate::Store::delete).
    ///
    /// # Errors
    /// As [`Store::delete`](crate::Store::delete); of kind `NotFound` where the collection was
    /// dropped.
    pub fn delete<Q>(&self, key: &Q) -> Result<bool>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.raw.delete(&self.encode_key(key)?)
    }

    /// As [`Store::contains`](crate::Store::contains).
    ///
    /// # Errors
    /// As [`Store::contains`](crate::Store::contains); of kind `NotFound` where the collection was
    /// dropped.
    pub fn contains<Q>(&self, key: &Q) -> Result<bool>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.raw.contains(&self.encode_key(key)?)
    }

    /// As [`Store::get_or_insert_with`](crate::Store::get_or_insert_with).
    ///
    /// # Errors
    /// As [`Collection::get`] and [`Collection::set`].
    pub fn get_or_insert_with<Q>(&self, key: &Q, mut make: impl FnMut() -> V) -> Result<V>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.get_or_try_insert_with(key, || Ok(make()))
    }

    /// As [`Store::get_or_try_insert_with`](crate::Store::get_or_try_insert_with).
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = zkv::Store::open(directory.path().join("pages.zkv"))?;
    /// # let path = directory.path().join("home.html");
    /// # std::fs::write(&path, "Welcome")?;
    /// # let read = |_: &str| std::fs::read_to_string(&path);
    /// let pages: zkv::Collection<String, String> = store.collection("pages")?;
    /// let page = pages.get_or_try_insert_with("home.html", || {
    ///     Ok::<_, Box<dyn std::error::Error>>(read("home.html")?)
    /// })?;
    /// assert_eq!(pages.get("home.html")?, Some(page));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// What `make` returns, as it is; as [`Collection::get`] and [`Collection::set`].
    pub fn get_or_try_insert_with<Q, E>(
        &self,
        key: &Q,
        make: impl FnMut() -> Result<V, E>,
    ) -> Result<V, E>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
        E: From<Error>,
    {
        let (target, key) = (Target::Named(self.state()), self.encode_key(key)?);
        self.raw.store().get_or_try_insert_in(target, &key, self.coding, make)
    }

    /// As [`Store::update`](crate::Store::update).
    ///
    /// # Errors
    /// As [`Collection::get`] and [`Collection::set`]; [`Error::Conflict`] as there.
    pub fn update<Q>(
        &self,
        key: &Q,
        mut change: impl FnMut(Option<V>) -> Option<V>,
    ) -> Result<Option<V>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.try_update(key, |old| Ok(change(old)))
    }

    /// As [`Store::try_update`](crate::Store::try_update).
    ///
    /// # Errors
    /// What `change` returns, as it is; as [`Collection::update`].
    pub fn try_update<Q, E>(
        &self,
        key: &Q,
        change: impl FnMut(Option<V>) -> Result<Option<V>, E>,
    ) -> Result<Option<V>, E>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
        E: From<Error>,
    {
        let (key, coding) = (self.encode_key(key)?, self.coding);
        let decode = |value: Vec<u8>| coding.decode(&value);
        let target = Target::Named(self.state());
        self.raw.store().try_update_in(target, &key, decode, |value| coding.encode(value), change)
    }

    /// As [`Store::compare_and_set`](crate::Store::compare_and_set), but for what is the same: what is stored is
    /// held against `expected` as the value that [`Collection::get`] reads, and not as it was written. So
    /// JSON that has white space or another order of fields, and a value from before its type had got a
    /// `#[serde(default)]` field, are what `get` returns. Two equal `HashMap`s may differ here, too.
    ///
    /// # Errors
    /// As [`Collection::get`] and [`Collection::set`]: what is stored and is no `V` is an error, too, where a value
    /// is expected.
    pub fn compare_and_set<Q>(&self, key: &Q, expected: Option<&V>, new: Option<&V>) -> Result<bool>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let expected = expected.map(|value| self.encode_value(value)).transpose()?;
        let new = new.map(|value| self.encode_value(value)).transpose()?;
        let (target, key) = (Target::Named(self.state()), self.encode_key(key)?);
        let (expected, new) = (expected.as_deref(), new.as_deref());
        // What another version of the type, or somebody else, has written may be the same value in other bytes.
        let is_expected = |old: &[u8], expected: &[u8]| {
            Ok(old == expected || self.encode_value(&self.coding.decode(old)?)? == expected)
        };
        self.raw.store().compare_and_set_in(target, &key, expected, new, is_expected)
    }

    /// As [`Store::remove`](crate::Store::remove).
    ///
    /// # Errors
    /// As [`Collection::get`] and [`Collection::delete`].
    pub fn remove<Q>(&self, key: &Q) -> Result<Option<V>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let (target, key) = (Target::Named(self.state()), self.encode_key(key)?);
        self.raw.store().remove_in(target, &key, |value| self.coding.decode(&value))
    }

    /// How many keys it has; none once it is dropped.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.raw.len()
    }

    /// Whether it has no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All keys and values, as the collection has them now, in no particular order. Writes that come
    /// later are not seen, and do not wait for the iteration.
    ///
    /// Collections share the store's segments, 8 MiB long by default: this reads each that has, or had since
    /// the store was opened, something of this one, and passes over the others.
    ///
    /// # Errors
    /// Of kind `NotFound` where the collection was dropped.
    pub fn iter(&self) -> Result<CollectionIter<K, V>> {
        Ok(CollectionIter::new(self.raw.iter()?, self.coding))
    }

    /// As [`Collection::iter`], of keys alone. Values are not decoded, and long ones take no memory: see
    /// [`KeysBytes`].
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = zkv::Store::open(directory.path().join("pages.zkv"))?;
    /// let pages: zkv::Collection<String, String> = store.collection("pages")?;
    /// pages.set("home", &"Welcome".to_owned())?;
    /// let keys: Vec<String> = pages.keys()?.collect::<zkv::Result<_>>()?;
    /// assert_eq!(keys, ["home"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Of kind `NotFound` where the collection was dropped.
    pub fn keys(&self) -> Result<CollectionKeys<K>> {
        Ok(CollectionKeys::new(self.raw.keys()?))
    }

    /// Removes all keys, at once and however many they are.
    ///
    /// # Errors
    /// As [`Store::set`](crate::Store::set); of kind `NotFound` where the collection was dropped.
    pub fn clear(&self) -> Result<()> {
        self.raw.clear()
    }

    /// The key as `K` itself is written.
    pub(crate) fn encode_key<Q>(&self, key: &Q) -> Result<Vec<u8>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let encoded = encode_key(key)?;
        if is_written_alike::<K, Q>() {
            return Ok(encoded);
        }
        // A slice is written with its length, an array, which borrows as one, without.
        let own = decode::<K>(&encoded);
        if own.is_ok_and(|own| encode_key(own.borrow()).is_ok_and(|again| again == encoded)) {
            Ok(encoded)
        } else {
            Err(Error::KeyWrittenOtherwise)
        }
    }

    fn encode_keys<Q>(&self, keys: &[&Q]) -> Result<Vec<Vec<u8>>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        keys.iter().map(|key| self.encode_key(*key)).collect()
    }

    pub(crate) fn encode_value(&self, value: &V) -> Result<Vec<u8>> {
        self.coding.encode(value)
    }

    pub(crate) fn state(&self) -> &Arc<CollectionState> {
        self.raw.state()
    }
}

impl<K, V> Clone for Collection<K, V> {
    fn clone(&self) -> Self {
        let (raw, asked) = (self.raw.clone(), Arc::clone(&self.asked));
        Self { raw, coding: self.coding, asked, types: PhantomData }
    }
}

/// Whether a `Q` that is borrowed from a `K` is known to be written as that is. What a type of somebody's own
/// borrows as, or is borrowed as, may be anything.
fn is_written_alike<K, Q: ?Sized>() -> bool {
    let (own, borrowed) = (typeid::of::<K>(), typeid::of::<Q>());
    let texts = [
        typeid::of::<String>(),
        typeid::of::<Box<str>>(),
        typeid::of::<Rc<str>>(),
        typeid::of::<Arc<str>>(),
        typeid::of::<Cow<'static, str>>(),
    ];
    own == borrowed
        || borrowed == typeid::of::<str>() && texts.contains(&own)
        || borrowed == typeid::of::<[u8]>() && own == typeid::of::<Vec<u8>>()
}

impl<K, V> std::fmt::Debug for Collection<K, V> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Collection").field("name", &self.raw.name()).finish_non_exhaustive()
    }
}

/// All keys and values of a collection at one moment, in no particular order. See
/// [`Collection::iter`].
pub struct CollectionIter<K, V, I = IterBytes> {
    entries: I,
    coding: Coding,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V, I> CollectionIter<K, V, I> {
    pub(crate) fn new(entries: I, coding: Coding) -> Self {
        Self { entries, coding, types: PhantomData }
    }
}

impl<K, V, I> Iterator for CollectionIter<K, V, I>
where
    K: DeserializeOwned,
    V: DeserializeOwned,
    I: Iterator<Item = Result<(Vec<u8>, Vec<u8>)>>,
{
    type Item = Result<(K, V)>;

    fn next(&mut self) -> Option<Self::Item> {
        let decoded = |(key, value): (Vec<u8>, Vec<u8>)| {
            // Keys are always postcard's.
            let key = decode(&key).map_err(of_key)?;
            Ok((key, self.coding.decode(&value)?))
        };
        self.entries.next().map(|entry| entry.and_then(decoded))
    }
}

impl<K, V, I> std::fmt::Debug for CollectionIter<K, V, I> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("CollectionIter").finish_non_exhaustive()
    }
}

/// All keys of a collection at one moment, in no particular order. See [`Collection::keys`].
pub struct CollectionKeys<K, I = KeysBytes> {
    keys: I,
    types: PhantomData<fn() -> K>,
}

impl<K, I> CollectionKeys<K, I> {
    pub(crate) fn new(keys: I) -> Self {
        Self { keys, types: PhantomData }
    }
}

impl<K, I> Iterator for CollectionKeys<K, I>
where
    K: DeserializeOwned,
    I: Iterator<Item = Result<Vec<u8>>>,
{
    type Item = Result<K>;

    fn next(&mut self) -> Option<Self::Item> {
        self.keys.next().map(|key| Ok(decode(&key?).map_err(of_key)?))
    }
}

impl<K, I> std::fmt::Debug for CollectionKeys<K, I> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("CollectionKeys").finish_non_exhaustive()
    }
}
