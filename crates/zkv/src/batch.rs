//! Writes that take effect together.

use std::borrow::Borrow;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zkv_index::KeyHash;
use zkv_record::{DECODE_DEPTH_MAX, RecordError, check_key, encode_within};

use crate::collection::{Collection, RawCollection};
use crate::error::{Error, Result};
use crate::metadata::catalog::DEFAULT;
use crate::options::Durability;
use crate::store::{Store, encode_key};
use crate::write::memtable::ENTRY_OVERHEAD_BYTES;
use crate::write::spill::{Spilled, Wish, Wishes, write_of};
use crate::write::write_set::{CollectionState, Numbered, WriteSet, Writes};

/// Puts and deletes that take effect together: readers see all of them or none, and so does
/// whoever opens the store after a crash. Of several writes to one key, the last counts.
///
/// A batch may be of any size. What it holds beyond 4 MiB lies in a temporary file, in the system's
/// folder for these, until it is written; [`Store::write`] takes some 120 bytes of memory for each of
/// its keys, and no more than the store's buffers for what they hold.
///
/// What cannot be encoded, or kept, is reported by [`Store::write`], which then writes nothing;
/// [`WriteBatch::failure`] tells of it before.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let store = zkv::Store::open(directory.path().join("pages.zkv"))?;
/// let mut batch = zkv::WriteBatch::new();
/// batch.set("from", &90u32).set("to", &110u32).delete("pending");
/// store.write(batch)?;
/// assert_eq!(store.get::<_, u32>("to")?, Some(110));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a batch does nothing until it is written"]
pub struct WriteBatch {
    wishes: Wishes,
    /// The named collections that it writes to; the default one is number 0, and not here.
    collections: Vec<Arc<CollectionState>>,
    /// How many levels its values of the default collection may nest, and how many they do.
    depth_max: u32,
    levels: u32,
    /// The first thing that went wrong.
    failure: Option<Error>,
}

impl Default for WriteBatch {
    fn default() -> Self {
        Self {
            wishes: Wishes::default(),
            collections: Vec::new(),
            depth_max: DECODE_DEPTH_MAX,
            levels: 0,
            failure: None,
        }
    }
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many levels a value of [`WriteBatch::set`] may nest, as with
    /// [`Options::max_decode_depth`](crate::Options::max_decode_depth): default 128. For a store that takes
    /// deeper ones, whose limit holds, too. Those of [`WriteBatch::set_in`] go by that alone.
    pub fn max_decode_depth(mut self, levels: u32) -> Self {
        self.depth_max = levels;
        self
    }

    /// As [`Store::set`], once the batch is written.
    pub fn set<K, V>(&mut self, key: &K, value: &V) -> &mut Self
    where
        K: Serialize + ?Sized,
        V: Serialize + ?Sized,
    {
        self.try_add(|batch| {
            let (key, mut encoded) = (encode_key(key)?, Vec::with_capacity(64));
            let levels = encode_within(value, batch.depth_max, &mut encoded)?;
            batch.levels = batch.levels.max(levels);
            batch.push(0, &key, Some(&encoded))
        })
    }

    /// As [`Store::delete`], once the batch is written.
    pub fn delete<K: Serialize + ?Sized>(&mut self, key: &K) -> &mut Self {
        self.try_add(|batch| batch.push(0, &encode_key(key)?, None))
    }

    /// As [`Store::set_bytes`], once the batch is written.
    pub fn set_bytes(&mut self, key: &[u8], value: &[u8]) -> &mut Self {
        self.try_add(|batch| batch.push(0, key, Some(value)))
    }

    /// As [`Store::delete_bytes`], once the batch is written. A key whose record is damaged gets its mark,
    /// too, so that salvage brings no older value; once that is in the log, to read the key is an error of kind
    /// `Corrupt` again.
    pub fn delete_bytes(&mut self, key: &[u8]) -> &mut Self {
        self.try_add(|batch| batch.push(0, key, None))
    }

    /// As [`Collection::set`], once the batch is written.
    pub fn set_in<K, V, Q>(
        &mut self,
        collection: &Collection<K, V>,
        key: &Q,
        value: &V,
    ) -> &mut Self
    where
        K: Borrow<Q> + Serialize + DeserializeOwned,
        V: Serialize + DeserializeOwned,
        Q: Serialize + ?Sized,
    {
        self.try_add(|batch| {
            let (key, value) = (collection.encode_key(key)?, collection.encode_value(value)?);
            batch.push_in(collection.state(), &key, Some(&value))
        })
    }

    /// As [`Collection::delete`], once the batch is written.
    pub fn delete_in<K, V, Q>(&mut self, collection: &Collection<K, V>, key: &Q) -> &mut Self
    where
        K: Borrow<Q> + Serialize + DeserializeOwned,
        V: Serialize + DeserializeOwned,
        Q: Serialize + ?Sized,
    {
        self.try_add(|batch| batch.push_in(collection.state(), &collection.encode_key(key)?, None))
    }

    /// As [`RawCollection::set`], once the batch is written.
    pub fn set_bytes_in(
        &mut self,
        collection: &RawCollection,
        key: &[u8],
        value: &[u8],
    ) -> &mut Self {
        self.try_add(|batch| batch.push_in(collection.state(), key, Some(value)))
    }

    /// As [`RawCollection::delete`], once the batch is written.
    pub fn delete_bytes_in(&mut self, collection: &RawCollection, key: &[u8]) -> &mut Self {
        self.try_add(|batch| batch.push_in(collection.state(), key, None))
    }

    /// How many writes it holds, those included that later ones replace.
    #[must_use]
    pub fn len(&self) -> usize {
        self.wishes.count() as usize
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Why the batch takes nothing more, if so: a write could not be encoded, or kept, or its key is too
    /// long. [`Store::write`] will report it, and write nothing.
    #[must_use]
    pub fn failure(&self) -> Option<&Error> {
        self.failure.as_ref()
    }

    fn try_add(&mut self, add: impl FnOnce(&mut Self) -> Result<()>) -> &mut Self {
        if self.failure.is_none() {
            self.failure = add(self).err();
        }
        self
    }

    fn push(&mut self, collection: u32, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        check_key(key)?;
        Ok(self.wishes.push(&Wish { collection, key, value })?)
    }

    fn push_in(
        &mut self,
        state: &Arc<CollectionState>,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<()> {
        let number = self.number_of(state);
        self.push(number, key, value)
    }

    /// The number of a named collection in this batch.
    fn number_of(&mut self, state: &Arc<CollectionState>) -> u32 {
        let known = self.collections.iter().position(|known| Arc::ptr_eq(known, state));
        let place = known.unwrap_or_else(|| {
            self.collections.push(Arc::clone(state));
            self.collections.len() - 1
        });
        u32::try_from(place + 1).unwrap_or(u32::MAX)
    }

    /// The collections with the numbers that they have now.
    fn numbered(&self) -> Result<Vec<Numbered>> {
        self.collections.iter().map(Numbered::now).collect()
    }
}

impl Store {
    /// Writes a batch, and waits for what the store's [`Durability`] says.
    ///
    /// # Errors
    /// As [`Store::set`] and [`Store::set_bytes`], for any of its writes; as [`WriteBatch`] where one could not be
    /// added; of kind `NotFound` where it writes to a collection that was dropped, and `Misuse` where that
    /// is another store's. Then nothing has happened, unless it was a sync that failed: see
    /// [`Store::set_bytes`].
    pub fn write(&self, batch: WriteBatch) -> Result<()> {
        self.write_with(batch, self.shared().options.durability)
    }

    /// Writes a batch, and waits for `durability`, whatever the store's own is. All that was written
    /// before the batch is then as durable.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub fn write_with(&self, mut batch: WriteBatch, durability: Durability) -> Result<()> {
        if let Some(error) = batch.failure.take() {
            return Err(error);
        }
        self.before_writing(durability)?;
        self.check_batch(&batch)?;
        if self.fits_buffer(&batch) {
            return self.write_few(&batch, durability);
        }
        self.write_many(batch, durability)
    }

    /// Whether it takes no more memory than a buffer may: short records take more than they are long.
    fn fits_buffer(&self, batch: &WriteBatch) -> bool {
        batch.wishes.bytes_in_memory().is_some_and(|bytes| {
            let overhead = batch.len().saturating_mul(ENTRY_OVERHEAD_BYTES);
            bytes.saturating_add(overhead) <= self.shared().options.memory_buffer_bytes
        })
    }

    fn check_batch(&self, batch: &WriteBatch) -> Result<()> {
        let shared = self.shared();
        let opening = &shared.collections.opening;
        batch.collections.iter().try_for_each(|state| state.check_opening(opening))?;
        let max = shared.options.decode_depth_max;
        if batch.levels > max {
            return Err(RecordError::TooDeep { max }.into());
        }
        batch.wishes.for_each(|_, wish| {
            check_key(wish.key)?;
            shared.check_value_bytes(wish.value.map_or(0, |value| value.len() as u64))
        })
    }

    fn write_few(&self, batch: &WriteBatch, durability: Durability) -> Result<()> {
        let shared = self.shared();
        loop {
            let collections = batch.numbered()?;
            let mut writes = Vec::with_capacity(batch.len());
            batch.wishes.for_each(|_, wish| {
                let collection = id_of(&collections, wish.collection);
                let inline_bytes_max = shared.inline_bytes_max();
                let write = write_of(&wish, collection, &shared.keys, inline_bytes_max);
                writes.push(write.into_owned());
                Ok::<(), Error>(())
            })?;
            // Of one key, those that came later stand later: the sort is stable.
            writes.sort_by_key(|write| write.hash);
            keep_last(&mut writes, |write| write.hash);
            if writes.is_empty() {
                return self.wait_for(durability);
            }
            let writes = Writes::Few(writes);
            let set = WriteSet { writes, reads: None, collections, moves: None, durability };
            match shared.commit(set) {
                // A collection was cleared meanwhile, and has another number.
                Err(Error::Conflict) => {}
                done => return done,
            }
        }
    }

    fn write_many(&self, batch: WriteBatch, durability: Durability) -> Result<()> {
        let shared = self.shared();
        let bytes = batch.wishes.bytes();
        shared.wait_to_commit(|| bytes);
        let mut batch = batch;
        loop {
            let collections = batch.numbered()?;
            let ids = std::iter::once(DEFAULT).chain(collections.iter().map(|one| one.id));
            let wishes = std::mem::take(&mut batch.wishes);
            let spilled = Spilled::new(wishes, ids.collect(), &shared.keys)?;
            let set = WriteSet {
                writes: Writes::Many(&spilled),
                reads: None,
                collections,
                moves: None,
                durability,
            };
            match shared.commit_alone(&set) {
                Err(Error::Conflict) => batch.wishes = spilled.into_wishes(),
                done => return done,
            }
        }
    }
}

/// The number in the store of a collection of the batch.
fn id_of(collections: &[Numbered], number: u32) -> u32 {
    let place = (number as usize).checked_sub(1);
    place.and_then(|place| collections.get(place)).map_or(DEFAULT, |numbered| numbered.id)
}

/// Keeps the last of each run of equal hashes.
fn keep_last<T>(sorted: &mut Vec<T>, hash_of: impl Fn(&T) -> KeyHash) {
    sorted.reverse();
    sorted.dedup_by_key(|one| hash_of(one));
    sorted.reverse();
}

impl std::fmt::Debug for WriteBatch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = formatter.debug_struct("WriteBatch");
        debug.field("writes", &self.len()).field("failure", &self.failure).finish_non_exhaustive()
    }
}
