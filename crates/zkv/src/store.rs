//! The store.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Weak};

use serde::Serialize;
use serde::de::DeserializeOwned;
use zkv_record::encode;

use crate::clean::Cleaner;
use crate::coding::of_key;
use crate::collections::Collections;
use crate::error::Result;
use crate::handle::Handle;
use crate::metadata::catalog::DEFAULT;
use crate::open::{self, Opened};
use crate::options::{Durability, Options};
use crate::read::cache::ValueCache;
use crate::read::iter::IterBytes;
use crate::read::view::View;
use crate::shared::{Front, Shared};
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use crate::sync::{ArcSwap, Condvar, Mutex};
use crate::write::group::Queues;
use crate::write::memtable::{Arena, Memtable};
use crate::write::modify::Target;
use crate::write::pipeline::Pipeline;
use crate::write::recent::Recent;

/// An open store. Clones are handles of the same store; threads may share or clone it.
///
/// Methods without `_bytes` store keys and values as [postcard](https://docs.rs/postcard) encodes
/// them; those with `_bytes` store the bytes as they are. Both see the same records: `set("a", ..)`
/// writes the key `b"\x01a"`, the length and the bytes of the string. postcard does not describe
/// itself: types that ask the data what it is, such as `serde_json::Value` and enums that are untagged or
/// have `#[serde(tag)]`, can be written but not read back; `#[serde(flatten)]`, and a field that
/// `#[serde(skip_serializing_if)]` leaves out, are refused when they are written. An enum of which
/// `#[serde(skip)]` leaves out a variant before others is read as another one than was written. A
/// [`Collection`](crate::Collection) with [`Codec::Json`](crate::Codec::Json) takes all of these.
///
/// A key has up to 64 KiB, a value up to 4 GiB - 1, encoded.
///
/// Dropping the last handle flushes and closes the store; [`Store::close`] does the same and
/// reports errors. Each [`Collection`](crate::Collection), [`RawCollection`](crate::RawCollection) and
/// [`Transaction`](crate::Transaction) holds a handle: while one of them is there, the store stays open.
///
/// A store belongs to the process that has opened it: behind a `fork`, as some programs make to become a daemon,
/// the child opens it anew. What it does with a handle of its parent's is not written, or fails with
/// [`Error::Forked`](crate::Error::Forked).
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("pages.zkv");
/// let store = zkv::Store::open(&path)?;
/// store.set("answer", &42u32)?;
/// assert_eq!(store.get::<_, u32>("answer")?, Some(42));
/// store.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Store {
    handle: Arc<Handle>,
}

/// How often one handle makes a damaged index anew without being asked; then it reports the damage.
const MENDS_MAX: u32 = 16;
impl Store {
    /// Opens the store at `path`, or makes it, with the default [`Options`]. Its index lies beside
    /// it, as `path` with `.idx` appended.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open(path)
    }

    /// Opens the store at `path` to read it: see [`Options::open_read_only`].
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open_read_only(path)
    }

    pub(crate) fn open_with(path: &Path, options: Options) -> Result<Self> {
        // Index files are made beside it later, when the process may be elsewhere.
        let path = options.storage.absolute(path);
        let Opened { index, keys, log, committed, live, writer } = open::open(&path, &options)?;
        let active = Arc::new(Memtable::new());
        let front = Front {
            active: Arc::clone(&active),
            active_since: None,
            arena: Arena::default(),
            recent: Recent::default(),
            written: Vec::new(),
            reserved: None,
            is_closing: false,
            is_ending: false,
        };
        let view = View { active, frozen: Vec::new(), committed };
        let shared = Arc::new_cyclic(|itself| Shared {
            itself: Weak::clone(itself),
            path,
            process: std::process::id().into(),
            index,
            cache: ValueCache::new(options.cache_bytes),
            options,
            keys,
            log,
            view: ArcSwap::from_pointee(view),
            front: Mutex::new(front),
            wake: Condvar::new(),
            live_at_opening: live,
            writer: writer.map(Mutex::new),
            pipeline: Pipeline::default(),
            cleaner: Cleaner::default(),
            queues: Queues::default(),
            collections: Collections::default(),
            snapshots: AtomicU64::new(0),
            mends_left: AtomicU32::new(MENDS_MAX),
            rewriting: Mutex::default(),
            mending: Mutex::default(),
            is_closed: AtomicBool::new(false),
        });
        Ok(Self { handle: Arc::new(Handle::new(shared)) })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        self.handle.shared()
    }

    /// Gives `key` the value `value`, as postcard encodes them. A key is its bytes, whatever its type: `1_u32` and
    /// `1_u64` are one key, and so are `1_u64` and `true`, `"ab"` and `b"ab"[..]`, `Some(5_u8)` and `(1_u8, 5_u8)`.
    /// A [`Collection`](crate::Collection) for each type keeps them apart. A key with a `HashMap` or a `HashSet`
    /// in it, whose order is another one each time, is not found again. Two keys of one type that asks the data
    /// what it is, such as an untagged enum or a `serde_json::Value`, may be the same bytes, too:
    /// [`Store::collection`] refuses such types.
    ///
    /// # Errors
    /// Of kind `Encoding` where a key or value cannot be encoded; `Limit` where a value nests deeper than
    /// [`Options::max_decode_depth`], or its sequences have more elements, such as those of a `Vec<()>`, than are
    /// read again; as [`Store::set_bytes`].
    pub fn set<K, V>(&self, key: &K, value: &V) -> Result<()>
    where
        K: Serialize + ?Sized,
        V: Serialize + ?Sized,
    {
        let encoded = self.shared().postcard().encode(value)?;
        self.set_bytes(&encode_key(key)?, &encoded)
    }

    /// The value of `key`, as postcard encodes the key and decodes the value.
    ///
    /// The stored bytes do not tell of which types they are. A key of another type may have the same bytes, and is
    /// then the same key ([`Store::set`]), or others: `7` is `7_i32`, which has those of `14_u64`, and a `[u8; 3]`
    /// has not those of a `[u8]`. A value may decode as a type that it is not: an array of bytes as a `Vec<u8>`, a
    /// `u64` read as `i64` is another number, and fields of one type that have changed places are swapped.
    /// [`Store::collection`] checks types.
    ///
    /// # Errors
    /// Of kind `Encoding` where the stored bytes are no value of type `V`, or more than one, and
    /// `Limit` where they nest deeper than [`Options::max_decode_depth`]; as [`Store::get_bytes`].
    pub fn get<K, V>(&self, key: &K) -> Result<Option<V>>
    where
        K: Serialize + ?Sized,
        V: DeserializeOwned,
    {
        // Decoded from a copy: a `Deserialize` may read from the store, which needs what the lookup
        // holds.
        let value = self.get_bytes(&encode_key(key)?)?;
        value.map(|value| self.shared().postcard().decode(&value)).transpose()
    }

    /// Removes `key`, as postcard encodes it, and says whether it was there.
    ///
    /// # Errors
    /// As [`Store::delete_bytes`].
    pub fn delete<K: Serialize + ?Sized>(&self, key: &K) -> Result<bool> {
        self.delete_bytes(&encode_key(key)?)
    }

    /// Whether `key`, as postcard encodes it, has a value.
    ///
    /// # Errors
    /// As [`Store::get_bytes`].
    pub fn contains<K: Serialize + ?Sized>(&self, key: &K) -> Result<bool> {
        self.contains_bytes(&encode_key(key)?)
    }

    /// Gives `key` the value `value`. It is visible at once, and waits for what the store's
    /// [`Durability`] says.
    ///
    /// # Errors
    /// Of kind `Limit` where the key or value is too long, `ReadOnly`, `Misuse` after `close`, and
    /// `Io` where it, or what filled the buffers before it, cannot be written: then it has not
    /// happened. Only where the sync of a `Synced` store fails has it: it is visible, and whether
    /// the next opening finds it cannot be known.
    pub fn set_bytes(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.set_in(Target::Default, key, value)
    }

    /// The value of `key`. None can have been set of a key over 64 KiB: that is `None`, and no error.
    ///
    /// # Errors
    /// Of kind `Corrupt` where the record is damaged: never a wrong value, never a wrong `None`.
    /// `Limit` where the value is longer than [`Options::max_value_bytes`], `Io` where it cannot be
    /// read.
    pub fn get_bytes(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let shared = self.shared();
        shared.mended(|| shared.get(shared.key(DEFAULT, key)))
    }

    /// Removes `key`, and says whether it was there.
    ///
    /// # Errors
    /// As [`Store::set_bytes`] and [`Store::get_bytes`]: a key whose record is damaged is refused, since nobody
    /// knows whether it was there. It can be set, and [`WriteBatch::delete_bytes`](crate::WriteBatch::delete_bytes)
    /// takes it. One that was set since, and is deleted, is an error
    /// of kind `Corrupt` again once that is in the log.
    pub fn delete_bytes(&self, key: &[u8]) -> Result<bool> {
        self.delete_in(Target::Default, key)
    }

    /// Whether `key` has a value; one over 64 KiB has none.
    ///
    /// # Errors
    /// As [`Store::get_bytes`].
    pub fn contains_bytes(&self, key: &[u8]) -> Result<bool> {
        let shared = self.shared();
        shared.mended(|| shared.contains(shared.key(DEFAULT, key)))
    }

    /// What must hold before anything is written; starts the threads that flush and clean.
    pub(crate) fn before_writing(&self, durability: Durability) -> Result<()> {
        self.handle.start_threads(durability)
    }

    /// How many keys of its own the store has. Named collections have theirs, which are not counted.
    #[must_use]
    pub fn len(&self) -> u64 {
        let shared = self.shared();
        shared.key_count(DEFAULT, || shared.now())
    }

    /// Whether the store has no keys of its own; named collections may have some.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All keys and values of the store's own, as it has them now, in no particular order; those of named
    /// collections are not among them. Writes that come later are not seen, and do not wait for the iteration, so
    /// that what it yields may be deleted on the way; to begin anew for each key looks at all that were deleted
    /// before. Each damaged place yields one error, and what lies behind it comes: see [`IterBytes`].
    ///
    /// From about 1 MiB on, up to three threads help to decompress until all is read or the iteration
    /// is dropped, as far as there are processors and [`Options::max_parallel_reads`] allows; each takes
    /// about 1 MB of memory. With 1 there are none.
    ///
    /// What [`Store::set`] has written is decoded as [`Codec::Postcard`](crate::Codec::Postcard) has it:
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = zkv::Store::open(directory.path().join("pages.zkv"))?;
    /// use zkv::{Codec, DECODE_DEPTH_MAX};
    /// store.set("answer", &42u32)?;
    /// for record in store.iter_bytes() {
    ///     let (key, value) = record?;
    ///     let key: String = Codec::Postcard.decode(&key, DECODE_DEPTH_MAX)?;
    ///     let value: u32 = Codec::Postcard.decode(&value, DECODE_DEPTH_MAX)?;
    ///     assert_eq!((&*key, value), ("answer", 42));
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn iter_bytes(&self) -> IterBytes {
        let shared = self.shared();
        IterBytes::new(shared, shared.now(), DEFAULT)
    }

    /// Hands what waits in buffers to the operating system: it then survives a crash of the
    /// process. Where the store was left with far more dead than [`Options::cleaning`] allows, the first call cleans
    /// about as much as was written, or a segment, for about a second at the most; so does the first write that goes
    /// straight to the log.
    ///
    /// # Errors
    /// Of kind `Io`, or `StorageFull`, where it cannot be written; it then stays in the buffers. `ReadOnly`, `Misuse`
    /// after `close`.
    pub fn flush(&self) -> Result<()> {
        let shared = self.shared();
        shared.check_writable()?;
        shared.pack_ahead()?;
        shared.clean_behind(shared.mended(|| shared.flush_all(&mut *shared.writer()?)))
    }

    /// Flushes, and makes all of it durable: it then survives a power cut.
    ///
    /// # Errors
    /// As [`Store::flush`]. After a failed sync the store refuses to write until it is opened
    /// again, since nothing is known of what the disk holds.
    pub fn sync(&self) -> Result<()> {
        let shared = self.shared();
        shared.check_writable()?;
        shared.pack_ahead()?;
        shared.sync_in_turn()
    }

    /// Makes all that was written as durable as this says.
    pub(crate) fn wait_for(&self, durability: Durability) -> Result<()> {
        match durability {
            Durability::Buffered => Ok(()),
            Durability::Flushed => self.flush(),
            Durability::Synced => self.sync(),
        }
    }

    /// Makes the index anew from the data alone. Reads go on meanwhile, writes wait.
    ///
    /// # Errors
    /// Of kind `Corrupt` where the data is damaged: which keys a damaged block held cannot be
    /// known. Of kind `Io` where the index cannot be written. The store then goes on with the index
    /// that it had; if only the last steps failed, the new file, which is as good, is in its place.
    /// `ReadOnly`, and `Misuse` after `close`.
    pub fn rebuild_index(&self) -> Result<()> {
        let shared = self.shared();
        let mut writer = shared.writer()?;
        let rebuilt = writer.rebuild_index();
        shared.publish_committed(&writer);
        rebuilt.map_err(|error| shared.write_error(error))?;
        shared.flush_all(&mut writer)
    }

    /// Flushes, makes everything durable and closes the store. The index file is brought up to date,
    /// unless it lacks no more than 64 records in 16 KiB of the log: the next opening replays those in
    /// less time than it takes to make the file durable. Where [`Options::cleaning`] is automatic and has
    /// cleaned nothing by then, as much as was written, or a segment, is cleaned first where it is due, for about
    /// a second at the most.
    /// Other handles of it read on, and can write no longer; the files are free for another opening once the
    /// last handle, collection, snapshot, transaction and iteration is dropped. A store that is closed already, or open
    /// to be read, has nothing to do.
    ///
    /// # Errors
    /// As [`Store::sync`], but for `ReadOnly` and `Misuse`. Where what waits in buffers cannot be written, the store stays open, and
    /// other handles can try again. Of kind `Io` also where the index cannot be written: nothing is
    /// lost then, and the next opening makes up for it.
    pub fn close(self) -> Result<()> {
        self.handle.close()
    }
}

/// By hand, as of all that holds a store or records: keys and values stay out of logs, and an index would
/// fill them.
impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Store").field("path", &self.shared().path).finish_non_exhaustive()
    }
}

pub(crate) fn encode_key<K: Serialize + ?Sized>(key: &K) -> Result<Vec<u8>> {
    let mut encoded = Vec::with_capacity(64);
    encode(key, &mut encoded).map_err(of_key)?;
    Ok(encoded)
}
