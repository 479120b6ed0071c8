//! The store as it was at one moment.

use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::{Arc, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::metadata::catalog::DEFAULT;
use crate::metadata::counts::KeyCounts;
use crate::read::iter::{IterBytes, KeysBytes};
use crate::read::view::{KeyRef, Moment};
use crate::shared::Shared;
use crate::store::{Store, encode_key};
use crate::sync::atomic::Ordering;
use crate::sync::{ArcSwap, Mutex};

/// The store as it was when [`Store::snapshot`] was called, for as long as this lives. Threads may
/// share it.
///
/// Nothing waits for a snapshot, and taking one copies nothing. What it costs: the buffers, the
/// index and the segments of its moment stay, where the store needs them no longer; see
/// [`Stats::held_bytes`](crate::Stats::held_bytes). The files stay open and locked, too.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// let store = zkv::Store::open(directory.path().join("pages.zkv"))?;
/// store.set("key", "old")?;
/// let snapshot = store.snapshot();
/// store.set("key", "new")?;
/// assert_eq!(snapshot.get::<_, String>("key")?.as_deref(), Some("old"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Snapshot {
    pub(crate) reader: Reader,
}

/// Reads at one moment.
pub(crate) struct Reader {
    pub shared: Arc<Shared>,
    /// Another one, of the same log, once the index was found damaged.
    moment: ArcSwap<Moment>,
    /// Whether that is so.
    is_mended: Mutex<bool>,
    /// As [`Shared::mends_left`] was when this began.
    mends_left: u32,
}

/// What it shares with others is as sound behind a panic as [`Shared`] is; a moment never changes.
impl UnwindSafe for Reader {}
impl RefUnwindSafe for Reader {}

impl Store {
    /// The store as it is now. Takes no lock.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let shared = self.shared();
        shared.snapshots.fetch_add(1, Ordering::Relaxed);
        Snapshot { reader: Reader::new(Arc::clone(shared), shared.now()) }
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = &self.reader.shared.path;
        formatter.debug_struct("Snapshot").field("path", path).finish_non_exhaustive()
    }
}

impl Snapshot {
    /// As [`Store::get`], at the snapshot's moment.
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

    /// As [`Store::contains`], at the snapshot's moment.
    ///
    /// # Errors
    /// As [`Store::contains`].
    pub fn contains<K: Serialize + ?Sized>(&self, key: &K) -> Result<bool> {
        self.contains_bytes(&encode_key(key)?)
    }

    /// As [`Store::get_bytes`], at the snapshot's moment.
    ///
    /// # Errors
    /// As [`Store::get_bytes`].
    pub fn get_bytes(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.reader.get(self.reader.shared.key(DEFAULT, key))
    }

    /// As [`Store::contains_bytes`], at the snapshot's moment.
    ///
    /// # Errors
    /// As [`Store::contains_bytes`].
    pub fn contains_bytes(&self, key: &[u8]) -> Result<bool> {
        self.reader.contains(self.reader.shared.key(DEFAULT, key))
    }

    /// As [`Store::iter_bytes`], at the snapshot's moment.
    #[must_use]
    pub fn iter_bytes(&self) -> IterBytes {
        self.reader.iter(DEFAULT)
    }

    /// As [`Store::keys_bytes`], at the snapshot's moment.
    #[must_use]
    pub fn keys_bytes(&self) -> KeysBytes {
        self.reader.keys(DEFAULT)
    }

    /// How many keys of its own the store had, without those of named collections.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.reader.key_count(DEFAULT)
    }

    /// Whether the store had no keys of its own.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.reader.shared.snapshots.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>, moment: Moment) -> Self {
        let mends_left = shared.mends_left();
        let (moment, is_mended) = (ArcSwap::from_pointee(moment), Mutex::new(false));
        Self { shared, moment, is_mended, mends_left }
    }

    /// Makes `attempt`, and once more with an index that is made anew where this one is damaged.
    pub(crate) fn mended<T>(&self, attempt: impl Fn(&Moment) -> Result<T>) -> Result<T> {
        match attempt(&self.moment.load()) {
            Err(error) if error.is_index_damage() => attempt(&*self.mended_moment(error)?),
            done => done,
        }
    }

    /// The moment with an index that was made anew, once.
    #[cold]
    fn mended_moment(&self, found: Error) -> Result<Arc<Moment>> {
        let mut is_mended = self.is_mended.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_mended {
            let moment = self.moment.load_full();
            let mended = self.shared.mended_moment(&moment, self.mends_left, found)?;
            self.moment.store(Arc::new(mended));
            *is_mended = true;
        }
        Ok(self.moment())
    }

    pub(crate) fn get(&self, key: KeyRef<'_>) -> Result<Option<Vec<u8>>> {
        self.mended(|moment| self.shared.get_at(moment, key))
    }

    pub(crate) fn contains(&self, key: KeyRef<'_>) -> Result<bool> {
        self.mended(|moment| self.shared.contains_at(moment, key))
    }

    pub(crate) fn iter(&self, collection: u32) -> IterBytes {
        IterBytes::new(&self.shared, Moment::clone(&self.moment.load()), collection)
    }

    pub(crate) fn keys(&self, collection: u32) -> KeysBytes {
        KeysBytes::new(&self.shared, Moment::clone(&self.moment.load()), collection)
    }

    pub(crate) fn key_count(&self, collection: u32) -> u64 {
        let counted = self.mended(|moment| {
            moment.count_keys(collection).map_err(|error| self.shared.lookup_error(error))
        });
        counted.unwrap_or_else(|_| self.moment.load().committed().counts.of(collection))
    }

    /// As [`Reader::key_count`], of all collections.
    pub(crate) fn key_counts(&self) -> KeyCounts {
        let counted = self.mended(|moment| {
            moment.count_all_keys().map_err(|error| self.shared.lookup_error(error))
        });
        counted.unwrap_or_else(|_| KeyCounts::clone(&self.moment.load().committed().counts))
    }

    pub(crate) fn moment(&self) -> Arc<Moment> {
        self.moment.load_full()
    }
}
