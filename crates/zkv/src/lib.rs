//! An embedded key-value store: two files, typed keys and values, transparent zstd compression.
//!
//! Open a path, set and get. Values are compressed in small blocks with a dictionary that the store
//! trains from its own data, so that a single read decompresses about a kilobyte and the whole is
//! nearly as small as large blocks would make it. The index is mapped, not loaded: memory does not grow
//! with the number of keys. Every block is checked on every read.
//!
//! ```
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize, PartialEq, Debug)]
//! struct Page {
//!     title: String,
//!     body: String,
//! }
//!
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("pages.zkv");
//! let store = zkv::Store::open(&path)?;
//! let page = Page { title: "Home".into(), body: "Welcome".into() };
//! store.set("https://example.org/", &page)?;
//! let found: Option<Page> = store.get("https://example.org/")?;
//! assert_eq!(found, Some(page));
//! assert!(store.delete("https://example.org/")?);
//! store.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A write is in memory for up to a second, and then until it is compressed, or until [`Store::flush`],
//! [`Store::sync`] or [`Store::close`], or is as durable as [`Options::durability`] says when it returns.
//! [`Store::collection`] opens named parts with types of their own, which can be iterated;
//! [`Store::transaction`] and [`WriteBatch`] change several keys at once; [`Store::snapshot`] reads one moment. All
//! calls block: in async programs they belong in `spawn_blocking`.
//!
//! A store can be open in one place that writes, or in any number that only read; any other opening fails, at once or
//! when [`Options::lock_wait`] is over.
//! It has no queries, no order of keys, no expiry and no bound on its size. The formats of both files are described in `docs/format/`.

mod atomic;
mod backup;
mod batch;
mod clean;
mod coding;
mod collection;
mod collections;
#[cfg(test)]
mod collisions;
mod error;
mod handle;
mod hashed;
mod keys;
#[doc(hidden)]
pub mod layout;
mod metadata;
mod open;
mod options;
mod private;
mod read;
mod salvage;
mod shared;
mod snapshot;
mod stats;
mod store;
mod sync;
mod transaction;
mod verify;
mod write;

pub use batch::WriteBatch;
pub use clean::{CleaningStats, CompactOptions, CompactProgress};
pub use collection::{
    Collection, CollectionInfo, CollectionIter, CollectionKeys, CollectionOptions, RawCollection,
    RawSnapshotCollection, RawTransactionCollection, SnapshotCollection, TransactionCollection,
};
pub use error::{Error, ErrorKind, Result};
pub use options::{Cleaning, Durability, Options};
pub use read::iter::{IterBytes, KeysBytes};
pub use salvage::{LostRange, SalvageEvent, SalvageReport, salvage};
pub use snapshot::Snapshot;
pub use stats::Stats;
pub use store::Store;
pub use transaction::{Transaction, TransactionIter, TransactionKeys};
pub use verify::{Finding, IndexState, StoreFile, VerifyProgress, VerifyReport, verify};
pub use zkv_index::IndexError;
pub use zkv_io::{
    FileMap, FileStorage, LockKind, MemoryStorage, OpenMode, ReadMode, Storage, StorageFile,
};
pub use zkv_log::{LogError, Severity};
pub use zkv_record::{Codec, DECODE_DEPTH_MAX, KEY_BYTES_MAX, RecordError, VALUE_BYTES_MAX};

/// The README's example is compiled as it stands there.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
