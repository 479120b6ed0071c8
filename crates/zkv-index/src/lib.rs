//! The index of zkv: from the hash of a key to the places where it may lie.
//!
//! A [`Checkpoint`] is an index file as it was written at one moment: tables of 64-byte buckets,
//! mapped and never loaded, at about 5.8 bytes a key. What has changed since lies over it in
//! memory, as sorted [`Run`]s. [`Checkpoint::write_next`] adds a run to the file: as a table behind
//! the others, or, when these have grown to an eighth of the first, by writing all of them anew as
//! one, as a stream. [`Rebuild`] makes an index from the facts that a log holds, in bounded memory.
//!
//! The index never sees a key, and does not know what a [`Location`] means. It keeps 36 bits of a
//! hash, so a lookup yields candidates: the place of the key, if there is one, and now and then that
//! of another key. Whoever reads there compares the key.
//!
//! Nothing here is the only copy of anything. Damage is an error, never a key that is missing in
//! silence; the remedy is a rebuild. The format is described in `docs/format/index.md`.
//!
//! ```
//! use std::path::Path;
//! use zkv_index::{Candidates, Change, CheckpointMeta, KeyHash, Location, Run, write_first};
//! use zkv_io::MemoryStorage;
//!
//! let (storage, path) = (MemoryStorage::new(), Path::new("store.idx"));
//! let (apple, pear) = (KeyHash(7 << 100), KeyHash(9 << 100));
//! let meta = CheckpointMeta { store_id: [1; 16], watermark: b"", sections: &[], key_count: 1 };
//!
//! let put = Change { hash: apple, old: None, new: Location::new(40) };
//! let first = write_first(&storage, path, &Run::from_changes(vec![put]), &meta)?;
//! let moved = Change { hash: apple, old: Location::new(40), new: Location::new(41) };
//! let next = first.write_next(&storage, path, &Run::from_changes(vec![moved]), &meta)?;
//!
//! let mut candidates = Candidates::new();
//! next.candidates(apple, &mut candidates)?;
//! assert_eq!(*candidates, [Location::new(41).unwrap()]);
//! next.candidates(pear, &mut candidates)?;
//! assert!(candidates.is_empty());
//! # Ok::<(), zkv_index::IndexError>(())
//! ```

mod bucket;
mod candidates;
mod checkpoint;
mod compare;
mod entry;
mod error;
mod geometry;
mod header;
mod key;
#[doc(hidden)]
pub mod layout;
mod policy;
mod rebuild;
mod run;
mod table;
mod table_writer;
mod verify;
mod write;

pub use candidates::Candidates;
pub use checkpoint::{Checkpoint, may_be_index};
pub use compare::Difference;
pub use error::IndexError;
pub use key::{HASH_BITS, KeyHash, Location};
#[doc(hidden)]
pub use policy::Thresholds;
pub use rebuild::{Rebuild, Rebuilt};
pub use run::{Change, RUNS_MAX, Run, push_run};
pub use verify::{IndexFinding, VerifiedIndex, verify};
pub use write::{CheckpointMeta, Prepared, write_first};
