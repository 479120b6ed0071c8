//! Reading and writing one key as one step.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::coding::Coding;
use crate::error::Result;
use crate::modify::{Fate, Place};
use crate::store::{Store, encode_key};

impl Store {
    /// The value of `key`, which is first given the one that `make` returns where it has none. `make`
    /// may be called more than once where others write to the same key.
    ///
    /// # Errors
    /// As [`Store::get`] and [`Store::set`]; `make` may set the key itself, and that value is returned then.
    pub fn get_or_insert_with<K, V>(&self, key: &K, make: impl FnMut() -> V) -> Result<V>
    where
        K: Serialize + ?Sized,
        V: Serialize + DeserializeOwned,
    {
        let coding = self.shared().postcard();
        self.get_or_insert_in(Place::Default, &encode_key(key)?, coding, make)
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
    /// As [`Store::get`] and [`Store::set`]; [`Error::Conflict`] where `change` itself writes to the key.
    ///
    /// [`Error::Conflict`]: crate::Error::Conflict
    pub fn update<K, V>(
        &self,
        key: &K,
        change: impl FnMut(Option<V>) -> Option<V>,
    ) -> Result<Option<V>>
    where
        K: Serialize + ?Sized,
        V: Serialize + DeserializeOwned,
    {
        let coding = self.shared().postcard();
        self.update_in(Place::Default, &encode_key(key)?, coding, change)
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
        let is_expected = |old: &[u8], expected: &[u8]| Ok(old == expected);
        let (expected, new) = (expected.as_deref(), new.as_deref());
        self.compare_and_set_in(Place::Default, &encode_key(key)?, expected, new, is_expected)
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
        self.remove_in(Place::Default, &encode_key(key)?, self.shared().postcard())
    }

    pub(crate) fn get_or_insert_in<V: Serialize + DeserializeOwned>(
        &self,
        place: Place<'_>,
        key: &[u8],
        coding: Coding,
        mut make: impl FnMut() -> V,
    ) -> Result<V> {
        self.decide(place, key, |moment, key| match self.shared().get_at(moment, key)? {
            Some(value) => Ok((coding.decode(&value)?, Fate::Keep)),
            None => {
                let value = make();
                let encoded = coding.encode(&value)?;
                Ok((value, Fate::Set(encoded)))
            }
        })
    }

    pub(crate) fn update_in<V: Serialize + DeserializeOwned>(
        &self,
        place: Place<'_>,
        key: &[u8],
        coding: Coding,
        mut change: impl FnMut(Option<V>) -> Option<V>,
    ) -> Result<Option<V>> {
        self.decide(place, key, |moment, key| {
            let old = self.shared().get_at(moment, key)?;
            let is_there = old.is_some();
            let new = change(old.map(|value| coding.decode(&value)).transpose()?);
            let fate = match &new {
                Some(value) => Fate::Set(coding.encode(value)?),
                None if is_there => Fate::Delete,
                None => Fate::Keep,
            };
            Ok((new, fate))
        })
    }

    /// `is_expected` says whether what is stored, which is its first argument, is the value that is expected.
    pub(crate) fn compare_and_set_in(
        &self,
        place: Place<'_>,
        key: &[u8],
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
        is_expected: impl Fn(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<bool> {
        self.decide(place, key, |moment, key| {
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

    pub(crate) fn remove_in<V: DeserializeOwned>(
        &self,
        place: Place<'_>,
        key: &[u8],
        coding: Coding,
    ) -> Result<Option<V>> {
        self.decide(place, key, |moment, key| match self.shared().get_at(moment, key)? {
            Some(value) => Ok((Some(coding.decode(&value)?), Fate::Delete)),
            None => Ok((None, Fate::Keep)),
        })
    }
}
