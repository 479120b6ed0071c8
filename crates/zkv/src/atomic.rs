//! Reading and writing one key as one step.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::coding::Coding;
use crate::error::{Error, Result};
use crate::store::{Store, encode_key};
use crate::write::modify::{Fate, Target};

impl Store {
    /// The value of `key`, which is first given the one that `make` returns where it has none. `make`
    /// may be called more than once where others write to the same key.
    ///
    /// # Errors
    /// As [`Store::get`] and [`Store::set`]; `make` may set the key itself, and that value is returned then.
    pub fn get_or_insert_with<K, V>(&self, key: &K, mut make: impl FnMut() -> V) -> Result<V>
    where
        K: Serialize + ?Sized,
        V: Serialize + DeserializeOwned,
    {
        self.get_or_try_insert_with(key, || Ok(make()))
    }

    /// As [`Store::get_or_insert_with`], with a `make` that may fail, as one that fetches what a cache lacks.
    /// Where it fails or panics, nothing is written, and it is not called again.
    ///
    /// Nobody waits for `make`: threads that lack the same key at once each call their own, and those that do not
    /// fail get the value that was written first. One that takes long is called again also where about a million
    /// other keys were written meanwhile, if the key has no value then.
    ///
    /// ```
    /// # type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
    /// fn fetch(url: &str) -> Result<String> {
    ///     # if url.ends_with("lost") { return Err("404".into()) }
    ///     // A request that may fail.
    ///     # Ok("Home".into())
    /// }
    /// # let directory = tempfile::tempdir()?;
    /// # let store = zkv::Store::open(directory.path().join("pages.zkv"))?;
    /// let url = "https://example.org/";
    /// let page = store.get_or_try_insert_with(url, || fetch(url))?;
    /// # assert_eq!(page, "Home");
    /// assert_eq!(store.get(url)?, Some(page));
    /// # assert!(store.get_or_try_insert_with("lost", || fetch("lost")).is_err());
    /// # assert_eq!(store.len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// What `make` returns, as it is; as [`Store::get_or_insert_with`], in the same type.
    pub fn get_or_try_insert_with<K, V, E>(
        &self,
        key: &K,
        make: impl FnMut() -> Result<V, E>,
    ) -> Result<V, E>
    where
        K: Serialize + ?Sized,
        V: Serialize + DeserializeOwned,
        E: From<Error>,
    {
        let coding = self.shared().postcard();
        self.get_or_try_insert_in(Target::Default, &encode_key(key)?, coding, make)
    }

    /// Gives `key` the value that `change` makes of the one that it has, or none where `change`
    /// returns `None`; returns the new one. Nobody else writes to the key in between: `change` is
    /// called again where somebody has, up to ten thousand times.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = zkv::Store::open(directory.path().join("counts.zkv"))?;
    /// let count = store.update("visits", |count: Option<u64>| Some(count.unwrap_or(0) + 1))?;
    /// assert_eq!(count, Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::get`] and [`Store::set`]; [`Error::Conflict`] where somebody writes to the key during each of
    /// the ten thousand calls, as where `change` itself does. But a `change` that is given `None` and returns it
    /// leaves nothing to be written, and so to conflict: what it has written itself stays, and `None` is returned.
    pub fn update<K, V>(
        &self,
        key: &K,
        mut change: impl FnMut(Option<V>) -> Option<V>,
    ) -> Result<Option<V>>
    where
        K: Serialize + ?Sized,
        V: Serialize + DeserializeOwned,
    {
        self.try_update(key, |old| Ok(change(old)))
    }

    /// As [`Store::update`], with a `change` that may fail. Where it fails or panics, nothing is written, and it is
    /// not called again, even if others have written to the key meanwhile. Nobody waits for it; one that takes
    /// long is called again also where about a million other keys were written meanwhile.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = zkv::Store::open(directory.path().join("accounts.zkv"))?;
    /// # store.set("alice", &30u64)?;
    /// let withdraw = |amount: u64| {
    ///     store.try_update("alice", |balance: Option<u64>| {
    ///         let left = balance.unwrap_or(0).checked_sub(amount);
    ///         left.map(Some).ok_or(Box::<dyn std::error::Error>::from("the balance is too low"))
    ///     })
    /// };
    /// assert_eq!(withdraw(20)?, Some(10));
    /// assert!(withdraw(20).is_err());
    /// assert_eq!(store.get("alice")?, Some(10u64));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// What `change` returns, as it is; as [`Store::update`], in the same type.
    pub fn try_update<K, V, E>(
        &self,
        key: &K,
        change: impl FnMut(Option<V>) -> Result<Option<V>, E>,
    ) -> Result<Option<V>, E>
    where
        K: Serialize + ?Sized,
        V: Serialize + DeserializeOwned,
        E: From<Error>,
    {
        let (key, coding) = (encode_key(key)?, self.shared().postcard());
        let decode = |value: Vec<u8>| coding.decode(&value);
        self.try_update_in(Target::Default, &key, decode, |value| coding.encode(value), change)
    }

    /// As [`Store::update`], of the bytes as they are.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = zkv::Store::open(directory.path().join("log.zkv"))?;
    /// for line in ["one", "two"] {
    ///     store.update_bytes(b"lines", |old| Some([&old.unwrap_or_default(), line.as_bytes()].concat()))?;
    /// }
    /// assert_eq!(store.get_bytes(b"lines")?.as_deref(), Some(&b"onetwo"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::get_bytes`] and [`Store::set_bytes`]; [`Error::Conflict`] as [`Store::update`].
    pub fn update_bytes(
        &self,
        key: &[u8],
        mut change: impl FnMut(Option<Vec<u8>>) -> Option<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>> {
        self.try_update_bytes(key, |old| Ok(change(old)))
    }

    /// As [`Store::try_update`], of the bytes as they are.
    ///
    /// # Errors
    /// What `change` returns, as it is; as [`Store::update_bytes`], in the same type.
    pub fn try_update_bytes<E: From<Error>>(
        &self,
        key: &[u8],
        change: impl FnMut(Option<Vec<u8>>) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Option<Vec<u8>>, E> {
        self.try_update_bytes_in(Target::Default, key, change)
    }

    /// Gives `key` the value `new`, or none, if it has the value `expected`, or none; says whether it
    /// did. Values are the same where their encodings are: those of two equal `HashMap`s need not be.
    ///
    /// # Errors
    /// As [`Store::get`] and [`Store::set`].
    pub fn compare_and_set<K, V>(
        &self,
        key: &K,
        expected: Option<&V>,
        new: Option<&V>,
    ) -> Result<bool>
    where
        K: Serialize + ?Sized,
        V: Serialize + ?Sized,
    {
        let coding = self.shared().postcard();
        let expected = expected.map(|value| coding.encode(value)).transpose()?;
        let new = new.map(|value| coding.encode(value)).transpose()?;
        self.compare_and_set_bytes(&encode_key(key)?, expected.as_deref(), new.as_deref())
    }

    /// Gives `key` the value `new`, or none, if it has the value `expected`, or none; says whether it did.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = zkv::Store::open(directory.path().join("jobs.zkv"))?;
    /// // Whoever comes first has the job.
    /// assert!(store.compare_and_set_bytes(b"job 17", None, Some(b"worker 1"))?);
    /// assert!(!store.compare_and_set_bytes(b"job 17", None, Some(b"worker 2"))?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::get_bytes`] and [`Store::set_bytes`].
    pub fn compare_and_set_bytes(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<bool> {
        self.compare_and_set_bytes_in(Target::Default, key, expected, new)
    }

    /// Removes `key`, and returns the value that it had.
    ///
    /// # Errors
    /// As [`Store::get`] and [`Store::delete`]. Where the value is none of type `V`, it stays.
    pub fn remove<K, V>(&self, key: &K) -> Result<Option<V>>
    where
        K: Serialize + ?Sized,
        V: DeserializeOwned,
    {
        let (key, coding) = (encode_key(key)?, self.shared().postcard());
        self.remove_in(Target::Default, &key, |value| coding.decode(&value))
    }

    /// Removes `key`, and returns the value that it had.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = zkv::Store::open(directory.path().join("jobs.zkv"))?;
    /// store.set_bytes(b"job 17", b"waits")?;
    /// assert_eq!(store.remove_bytes(b"job 17")?.as_deref(), Some(&b"waits"[..]));
    /// assert_eq!(store.remove_bytes(b"job 17")?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::get_bytes`] and [`Store::delete_bytes`].
    pub fn remove_bytes(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.remove_in(Target::Default, key, Ok)
    }

    pub(crate) fn get_or_try_insert_in<V, E>(
        &self,
        target: Target<'_>,
        key: &[u8],
        coding: Coding,
        mut make: impl FnMut() -> Result<V, E>,
    ) -> Result<V, E>
    where
        V: Serialize + DeserializeOwned,
        E: From<Error>,
    {
        self.decide(target, key, |moment, key| {
            if let Some(value) = self.shared().get_at(moment, key)? {
                return Ok((Ok(coding.decode(&value)?), Fate::Keep));
            }
            let made = make();
            let fate = match &made {
                Ok(value) => Fate::Set(coding.encode(value)?),
                // Handed through as what was decided: as the store's own it might be tried again.
                Err(_) => Fate::Keep,
            };
            Ok((made, fate))
        })?
    }

    pub(crate) fn try_update_in<V, E>(
        &self,
        target: Target<'_>,
        key: &[u8],
        decode: impl Fn(Vec<u8>) -> Result<V>,
        encode: impl Fn(&V) -> Result<Vec<u8>>,
        mut change: impl FnMut(Option<V>) -> Result<Option<V>, E>,
    ) -> Result<Option<V>, E>
    where
        E: From<Error>,
    {
        self.decide(target, key, |moment, key| {
            let old = self.shared().get_at(moment, key)?;
            let is_there = old.is_some();
            let changed = change(old.map(&decode).transpose()?);
            let fate = match &changed {
                Ok(Some(value)) => Fate::Set(encode(value)?),
                Ok(None) if is_there => Fate::Delete,
                // An error, too, is what was decided: as the store's own it might be tried again.
                Ok(None) | Err(_) => Fate::Keep,
            };
            Ok((changed, fate))
        })?
    }

    pub(crate) fn try_update_bytes_in<E: From<Error>>(
        &self,
        target: Target<'_>,
        key: &[u8],
        change: impl FnMut(Option<Vec<u8>>) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Option<Vec<u8>>, E> {
        self.try_update_in(target, key, Ok, |value| Ok(value.clone()), change)
    }

    pub(crate) fn compare_and_set_bytes_in(
        &self,
        target: Target<'_>,
        key: &[u8],
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<bool> {
        self.compare_and_set_in(target, key, expected, new, |old, expected| Ok(old == expected))
    }

    /// `is_expected` says whether what is stored, which is its first argument, is the value that is expected.
    pub(crate) fn compare_and_set_in(
        &self,
        target: Target<'_>,
        key: &[u8],
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
        is_expected: impl Fn(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<bool> {
        self.decide(target, key, |moment, key| {
            let old = self.shared().get_at(moment, key)?;
            let is_same = match (&old, expected) {
                (Some(old), Some(expected)) => is_expected(old, expected)?,
                (old, expected) => old.is_none() && expected.is_none(),
            };
            let fate = match new {
                _ if !is_same => return Ok((false, Fate::Keep)),
                Some(value) => Fate::Set(value.to_vec()),
                None if old.is_some() => Fate::Delete,
                None => Fate::Keep,
            };
            Ok((true, fate))
        })
    }

    pub(crate) fn remove_in<V>(
        &self,
        target: Target<'_>,
        key: &[u8],
        decode: impl Fn(Vec<u8>) -> Result<V>,
    ) -> Result<Option<V>> {
        self.decide(target, key, |moment, key| match self.shared().get_at(moment, key)? {
            Some(value) => Ok((Some(decode(value)?), Fate::Delete)),
            None => Ok((None, Fate::Keep)),
        })
    }
}
