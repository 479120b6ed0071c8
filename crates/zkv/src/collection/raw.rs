//! A collection without its types.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::read::iter::{IterBytes, KeysBytes};
use crate::shared::Shared;
use crate::store::Store;
use crate::write::modify::Target;
use crate::write::write_set::CollectionState;

/// A collection's keys and values as bytes, whatever their types. See [`Store::raw_collection`].
///
/// It suits tools that know no types. What is written here is not held against the collection's types: whoever
/// reads it with them gets an error of kind `Encoding` or, since postcard does not tell types, another value than
/// was meant, and never finds keys that are written otherwise.
///
/// It holds a handle of the store, as a [`Collection`](crate::Collection) does.
#[derive(Clone)]
pub struct RawCollection {
    store: Store,
    name: Arc<str>,
    state: Arc<CollectionState>,
}

impl std::fmt::Debug for RawCollection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RawCollection").field("name", &self.name).finish_non_exhaustive()
    }
}

impl RawCollection {
    pub(super) fn new(store: Store, name: Arc<str>, state: Arc<CollectionState>) -> Self {
        Self { store, name, state }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As [`Store::set_bytes`].
    ///
    /// # Errors
    /// As [`Store::set_bytes`]; of kind `NotFound` where the collection was dropped.
    pub fn set(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.store.set_in(Target::Named(&self.state), key, value)
    }

    /// As [`Store::get_bytes`].
    ///
    /// # Errors
    /// As [`Store::get_bytes`]; of kind `NotFound` where the collection was dropped.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.read(|shared, id| shared.mended(|| shared.get(shared.key(id, key))))
    }

    /// As [`Store::get_many_bytes`].
    ///
    /// # Errors
    /// As [`Store::get_many_bytes`]; of kind `NotFound` where the collection was dropped.
    pub fn get_many<Q: AsRef<[u8]>>(&self, keys: &[Q]) -> Result<Vec<Option<Vec<u8>>>> {
        let shared = self.store.shared();
        shared.mended(|| {
            let (id, moment) = self.state.moment(shared)?;
            shared.get_many_at(&moment, id, keys)
        })
    }

    /// As [`Store::delete_bytes`].
    ///
    /// # Errors
    /// As [`Store::delete_bytes`]; of kind `NotFound` where the collection was dropped.
    pub fn delete(&self, key: &[u8]) -> Result<bool> {
        self.store.delete_in(Target::Named(&self.state), key)
    }

    /// As [`Store::contains_bytes`].
    ///
    /// # Errors
    /// As [`Store::contains_bytes`]; of kind `NotFound` where the collection was dropped.
    pub fn contains(&self, key: &[u8]) -> Result<bool> {
        self.read(|shared, id| shared.mended(|| shared.contains(shared.key(id, key))))
    }

    /// As [`Store::update_bytes`].
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = zkv::Store::open(directory.path().join("pages.zkv"))?;
    /// let titles: zkv::Collection<u8, u8> = store.collection("titles")?;
    /// let titles = store.raw_collection("titles").expect("it was made");
    /// titles.update(&[1], |old| old.or(Some(vec![7])))?;
    /// assert!(titles.compare_and_set(&[1], Some(&[7]), Some(&[8]))?);
    /// assert_eq!(titles.remove(&[1])?, Some(vec![8]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::update_bytes`]; of kind `NotFound` where the collection was dropped.
    pub fn update(
        &self,
        key: &[u8],
        mut change: impl FnMut(Option<Vec<u8>>) -> Option<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>> {
        self.try_update(key, |old| Ok(change(old)))
    }

    /// As [`Store::try_update_bytes`].
    ///
    /// # Errors
    /// What `change` returns, as it is; as [`RawCollection::update`].
    pub fn try_update<E: From<Error>>(
        &self,
        key: &[u8],
        change: impl FnMut(Option<Vec<u8>>) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Option<Vec<u8>>, E> {
        self.store.try_update_bytes_in(Target::Named(&self.state), key, change)
    }

    /// As [`Store::compare_and_set_bytes`].
    ///
    /// # Errors
    /// As [`Store::compare_and_set_bytes`]; of kind `NotFound` where the collection was dropped.
    pub fn compare_and_set(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<bool> {
        self.store.compare_and_set_bytes_in(Target::Named(&self.state), key, expected, new)
    }

    /// As [`Store::remove_bytes`].
    ///
    /// # Errors
    /// As [`Store::remove_bytes`]; of kind `NotFound` where the collection was dropped.
    pub fn remove(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.store.remove_in(Target::Named(&self.state), key, Ok)
    }

    /// How many keys it has; none once it is dropped.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.read(|shared, id| Ok(shared.key_count(id, || shared.now()))).unwrap_or(0)
    }

    /// Whether it has no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As [`Store::iter_bytes`].
    ///
    /// # Errors
    /// Of kind `NotFound` where the collection was dropped.
    pub fn iter(&self) -> Result<IterBytes> {
        self.read(|shared, id| Ok(IterBytes::new(shared, shared.now(), id)))
    }

    /// As [`Store::keys_bytes`].
    ///
    /// # Errors
    /// Of kind `NotFound` where the collection was dropped.
    pub fn keys(&self) -> Result<KeysBytes> {
        self.read(|shared, id| Ok(KeysBytes::new(shared, shared.now(), id)))
    }

    /// Removes all keys, at once and however many they are.
    ///
    /// # Errors
    /// As [`Store::set_bytes`]; of kind `NotFound` where the collection was dropped.
    pub fn clear(&self) -> Result<()> {
        self.store.clear_collection(&self.name, &self.state)
    }

    /// Lets `read` look at the collection, whose number it is told.
    pub(crate) fn read<T>(&self, read: impl Fn(&Arc<Shared>, u32) -> Result<T>) -> Result<T> {
        let shared = self.store.shared();
        self.state.read(shared, |id| read(shared, id))
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn state(&self) -> &Arc<CollectionState> {
        &self.state
    }
}
