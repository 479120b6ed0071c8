//! Opening, making and dropping collections.

use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zkv_record::{Codec, asks_the_data, outer_shape_of, reads_what_it_writes, shape_of};

use crate::error::{Error, Result};
use crate::metadata::catalog::{Entry, NAME_BYTES_MAX, TYPE_BYTES_MAX};
use crate::metadata::counts::KeyCounts;
use crate::metadata::live::CollectionBytes;
use crate::options::Durability;
use crate::read::view::Moment;
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use crate::store::Store;
use crate::write::write_set::{CollectionState, Move, Numbered, Write, WriteSet, Writes};

use super::{Collection, RawCollection};

/// How a collection's values are encoded, and what its types are called.
///
/// A store keeps both, and refuses to open a collection otherwise. Of values in JSON, only what the outermost
/// type is called counts: fields come and go. A type that gets `#[serde(flatten)]`, `#[serde(from)]` or
/// `#[serde(tag)]` is called something else from then on, or nothing: the name that the collection was made with,
/// such as `value_type("Page")`, still opens it.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let store = zkv::Store::open(directory.path().join("pages.zkv"))?;
/// let options = zkv::CollectionOptions::new().codec(zkv::Codec::Json).value_type("page v1");
/// let pages: zkv::Collection<String, serde_json::Value> =
///     store.collection_with("pages", &options)?;
/// pages.set("/", &serde_json::json!({"title": "Home"}))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct CollectionOptions {
    codec: Codec,
    key_type: Option<String>,
    value_type: Option<String>,
}

/// What a store knows of one of its collections.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CollectionInfo {
    /// Its name.
    pub name: String,
    /// How its values are encoded; `None` where only a newer version knows.
    pub codec: Option<Codec>,
    /// What its keys' type is called, or looks like.
    pub key_type: String,
    /// What its values' type is called, or looks like.
    pub value_type: String,
    /// How many keys it has.
    pub keys: u64,
    /// Its keys and values, before compression. What waits in buffers is not counted.
    pub raw_bytes: u64,
    /// What they take of the data file. What waits in buffers is not counted.
    pub live_bytes: u64,
}

impl CollectionOptions {
    /// postcard, and types that are told apart by what they look like to serde.
    pub fn new() -> Self {
        Self::default()
    }

    /// How values are encoded, default [`Codec::Postcard`]. Keys are always postcard, so that no key can be of a
    /// type that asks the data what it is ([`Error::AsksTheData`]).
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// What the type of the keys is called, instead of what it looks like: to be changed when the
    /// type changes in a way that its encoding does not show. Where the type comes to look otherwise and is
    /// encoded as before, as by a `#[serde(alias)]`, the name that [`CollectionInfo::key_type`] has opens the
    /// collection.
    pub fn key_type(mut self, name: impl Into<String>) -> Self {
        self.key_type = Some(name.into());
        self
    }

    /// As [`CollectionOptions::key_type`], of the values.
    pub fn value_type(mut self, name: impl Into<String>) -> Self {
        self.value_type = Some(name.into());
        self
    }

    /// What is kept of a collection with these options and types.
    fn entry<K: DeserializeOwned, V: DeserializeOwned>(&self) -> Entry {
        // Fields of JSON come and go.
        let shape_of_value = || match self.codec {
            Codec::Json => outer_shape_of::<V>(Codec::Json),
            codec => shape_of::<V>(codec),
        };
        Entry {
            id: 0,
            codec: self.codec.code(),
            key_type: self.key_type.clone().unwrap_or_else(|| shape_of::<K>(Codec::Postcard)),
            value_type: self.value_type.clone().unwrap_or_else(shape_of_value),
        }
    }
}

impl Store {
    /// Opens the collection `name`, or makes it, with values that postcard encodes. A name has 1 to
    /// 255 bytes. Making, clearing and dropping one is at least [`Durability::Flushed`].
    ///
    /// Opening one takes microseconds for small types, and milliseconds for large ones, so keep it: the types'
    /// `Deserialize` is asked several times what it reads, and given values such as 0, 7 and the empty text, which
    /// it may refuse and must not panic at. What it makes of them is written and read again.
    ///
    /// # Errors
    /// [`Error::TypeMismatch`] where it was made with other types: they are told apart by what
    /// serde asks for when it reads them, names of structs and fields included, aliases of fields and variants,
    /// too: a type that gets a `#[serde(alias)]` is another one, though it reads the same bytes, and
    /// [`CollectionOptions::value_type`] with what [`CollectionInfo::value_type`] says opens the collection.
    /// [`Error::AsksTheData`], of kind
    /// `Encoding`, where a type asks the data what it is, anywhere within it, as `serde_json::Value` does: two
    /// keys could be one, and values could be written and never be read. An enum does where one variant does,
    /// also where that is never used. Values may ask as JSON: see [`CollectionOptions::codec`].
    /// [`Error::ReadsOtherwise`], of kind `Encoding`, where a type reads something else than it writes. Of kind `Misuse`
    /// where the name is too long or empty; `NotFound` where it does not exist and the store is
    /// open read-only; as [`Store::set`] where it has to be made.
    pub fn collection<K, V>(&self, name: &str) -> Result<Collection<K, V>>
    where
        K: Serialize + DeserializeOwned,
        V: Serialize + DeserializeOwned,
    {
        self.collection_with(name, &CollectionOptions::new())
    }

    /// As [`Store::collection`], with another codec or with names for the types.
    ///
    /// # Errors
    /// As [`Store::collection`], and [`Error::TypeMismatch`] where the codec is another one.
    pub fn collection_with<K, V>(
        &self,
        name: &str,
        options: &CollectionOptions,
    ) -> Result<Collection<K, V>>
    where
        K: Serialize + DeserializeOwned,
        V: Serialize + DeserializeOwned,
    {
        check_encodings::<K, V>(options.codec)?;
        let (shared, asked) = (self.shared(), options.entry::<K, V>());
        // Nobody drops it between the look at the catalog and the handle.
        let gate = shared.collections.gate();
        let (found, is_made) = match shared.collection_entry(name) {
            Some(found) => (found, false),
            None => (self.make_collection(name, &asked)?, true),
        };
        check_types(name, &found, &asked)?;
        let raw = self.raw_of(name, &found);
        drop(gate);
        if is_made {
            shared.clean_behind(Ok(()))?;
        }
        let (coding, asked) = (shared.coding(options.codec), Arc::new(asked));
        Ok(Collection { raw, coding, asked, types: PhantomData })
    }

    /// The collection `name` as bytes, whatever its types; `None` where there is none.
    #[must_use]
    pub fn raw_collection(&self, name: &str) -> Option<RawCollection> {
        let _gate = self.shared().collections.gate();
        self.shared().collection_entry(name).map(|found| self.raw_of(name, &found))
    }

    /// All collections, by name.
    #[must_use]
    pub fn collections(&self) -> Vec<CollectionInfo> {
        let (shared, moment) = (self.shared(), self.shared().now());
        shared.collection_infos(&moment, &shared.key_counts(&moment))
    }

    /// Removes a collection with all its keys, at once and however many they are, and says whether it
    /// was there. Handles of it get errors of kind `NotFound` from then on.
    ///
    /// # Errors
    /// As [`Store::set_bytes`].
    pub fn drop_collection(&self, name: &str) -> Result<bool> {
        let shared = self.shared();
        shared.check_writable()?;
        let gate = shared.collections.gate();
        let Some(entry) = shared.collection_entry(name) else { return Ok(false) };
        let of = Numbered { state: shared.collections.get(name, entry.id), id: entry.id };
        shared.commit_catalog(shared.catalog_writes(name, None)?, Some(Move { of, to: None }))?;
        shared.collections.forget(name);
        drop(gate);
        shared.clean_behind(Ok(()))?;
        Ok(true)
    }

    pub(super) fn clear_collection(&self, name: &str, state: &Arc<CollectionState>) -> Result<()> {
        let shared = self.shared();
        shared.check_writable()?;
        let gate = shared.collections.gate();
        let of = Numbered::now(state)?;
        let entry = shared.collection_entry(name).ok_or(Error::CollectionDropped)?;
        let id = shared.next_collection_id()?;
        let moves = Move { of, to: Some(id) };
        let writes = shared.catalog_writes(name, Some(&Entry { id, ..entry }))?;
        shared.commit_catalog(writes, Some(moves))?;
        drop(gate);
        shared.clean_behind(Ok(()))
    }

    /// Makes a collection with the codec and the types of `entry`, which is another store's.
    pub(crate) fn copy_collection(&self, name: &str, entry: &Entry) -> Result<RawCollection> {
        let _gate = self.shared().collections.gate();
        let made = self.make_collection(name, entry)?;
        Ok(self.raw_of(name, &made))
    }

    /// The caller holds the gate.
    fn make_collection(&self, name: &str, asked: &Entry) -> Result<Entry> {
        let shared = self.shared();
        let names = [
            (name, NAME_BYTES_MAX),
            (&*asked.key_type, TYPE_BYTES_MAX),
            (&*asked.value_type, TYPE_BYTES_MAX),
        ];
        if let Some((name, max)) =
            names.into_iter().find(|(name, max)| name.is_empty() || name.len() > *max)
        {
            return Err(Error::InvalidName { bytes: name.len(), max });
        }
        if shared.writer.is_none() {
            return Err(Error::NoCollectionToRead { name: name.to_owned() });
        }
        let entry = Entry { id: shared.next_collection_id()?, ..asked.clone() };
        shared.commit_catalog(shared.catalog_writes(name, Some(&entry))?, None)?;
        Ok(entry)
    }

    fn raw_of(&self, name: &str, entry: &Entry) -> RawCollection {
        let state = self.shared().collections.get(name, entry.id);
        RawCollection::new(self.clone(), name.into(), state)
    }
}

impl Snapshot {
    /// The collections that there were, by name, as [`Store::collections`] has them. [`CollectionInfo::raw_bytes`]
    /// and [`CollectionInfo::live_bytes`] are what they take now: nothing of one that was cleared or dropped since.
    #[must_use]
    pub fn collections(&self) -> Vec<CollectionInfo> {
        let reader = &self.reader;
        reader.shared.collection_infos(&reader.moment(), &reader.key_counts())
    }
}

impl Shared {
    /// The collections of `moment`, which have so many keys.
    fn collection_infos(&self, moment: &Moment, counts: &KeyCounts) -> Vec<CollectionInfo> {
        // What is in use is known of the log as it is now.
        let (live, log) = self.live();
        let taken = live.by_collection(&log);
        let infos = moment.committed().catalog.names().map(|(name, entry)| {
            let CollectionBytes { raw_bytes, live_bytes } =
                taken.get(&entry.id).copied().unwrap_or_default();
            CollectionInfo {
                name: name.to_owned(),
                codec: Codec::from_code(entry.codec),
                key_type: entry.key_type.clone(),
                value_type: entry.value_type.clone(),
                keys: counts.of(entry.id),
                raw_bytes,
                live_bytes,
            }
        });
        infos.collect()
    }

    fn collection_entry(&self, name: &str) -> Option<Entry> {
        self.view.load().committed.catalog.get(name).cloned()
    }

    fn next_collection_id(&self) -> Result<u32> {
        self.view.load().committed.catalog.next_id().ok_or(Error::TooManyCollections)
    }

    fn catalog_writes(&self, name: &str, entry: Option<&Entry>) -> Result<Vec<Write<'static>>> {
        Ok(self.view.load().committed.catalog.writes(&self.keys, name, entry)?)
    }

    /// Commits writes to the catalog, straight to the log: what is buffered of a collection stands
    /// before them. The caller holds the gate, or is alone: it does its share of the cleaning, if any, once it has
    /// dropped that.
    pub(crate) fn commit_catalog(
        &self,
        writes: Vec<Write<'static>>,
        moves: Option<Move>,
    ) -> Result<()> {
        let durability = match self.options.durability {
            Durability::Synced => Durability::Synced,
            Durability::Buffered | Durability::Flushed => Durability::Flushed,
        };
        self.commit_within_gate(&WriteSet {
            writes: Writes::Few(writes),
            reads: None,
            collections: Vec::new(),
            moves: moves.map(Box::new),
            durability,
        })
    }
}

/// Refuses types of which something could be written that is never read, or read as something else.
fn check_encodings<K, V>(codec: Codec) -> Result<()>
where
    K: Serialize + DeserializeOwned,
    V: Serialize + DeserializeOwned,
{
    if asks_the_data::<K>() {
        // Two keys could be the same bytes.
        return Err(Error::AsksTheData { what: "keys", remedy: "give the keys another type" });
    }
    if codec == Codec::Postcard && asks_the_data::<V>() {
        let remedy = "JSON can do both, which `CollectionOptions::codec(Codec::Json)` asks for";
        return Err(Error::AsksTheData { what: "values", remedy });
    }
    if !reads_what_it_writes::<K>(Codec::Postcard) {
        let remedy = "give the keys another type, or its variants and fields another order";
        return Err(Error::ReadsOtherwise { what: "keys", remedy });
    }
    if !reads_what_it_writes::<V>(codec) {
        let remedy = match codec {
            Codec::Json => {
                "make its Deserialize read all that its Serialize writes, by the same names"
            }
            _ => {
                "put such variants last, or take JSON, which has names: `CollectionOptions::codec(Codec::Json)`"
            }
        };
        return Err(Error::ReadsOtherwise { what: "values", remedy });
    }
    Ok(())
}

pub(super) fn check_types(name: &str, found: &Entry, asked: &Entry) -> Result<()> {
    let mismatch = |what, found: String, asked: String| {
        Err(Error::TypeMismatch { name: name.to_owned(), what, found, asked })
    };
    if found.codec != asked.codec {
        let codec = |code| match Codec::from_code(code) {
            Some(codec) => format!("{codec:?}"),
            None => format!("number {code}, which only a newer version knows"),
        };
        return mismatch("codec", codec(found.codec), codec(asked.codec));
    }
    if found.key_type != asked.key_type {
        return mismatch("keys", found.key_type.clone(), asked.key_type.clone());
    }
    if found.value_type != asked.value_type {
        return mismatch("values", found.value_type.clone(), asked.value_type.clone());
    }
    Ok(())
}
