//! A compressed segment log: entries go in, in commits that are whole or absent, and are found
//! again by a small location. It is what zkv keeps its records in, and is useful alone: for event
//! logs, archives, queues, or under an index of one's own.
//!
//! - Entries are packed into blocks of about a kilobyte and compressed with dictionaries that the
//!   log trains from what it is given.
//! - Every block is bound to its place by a checksum, which each read checks.
//! - Recovery tells a tail that a crash has torn from damage, and never drops what was durable.
//! - Segments can be freed; their slots are used again.
//!
//! It knows no keys and no order but its own, and has one writer at a time. The format is described
//! in `docs/format/data.md`.
//!
//! ```
//! use std::path::Path;
//! use std::sync::Arc;
//! use zkv_io::MemoryStorage;
//! use zkv_log::{Access, LogOptions, OpenFile, create};
//!
//! let storage = Arc::new(MemoryStorage::new());
//! let options = LogOptions::default();
//! create(&*storage, Path::new("events"), &options)?;
//! let file = OpenFile::open(storage, Path::new("events"), Access::ReadWrite, options)?;
//! let mut writer = file.recover(None)?.writer.expect("opened for writing");
//! let addresses = writer.append(&[b"one", b"two"])?;
//! assert_eq!(writer.log().view().read(addresses[1])?, b"two");
//! writer.close()?;
//! # Ok::<(), zkv_log::LogError>(())
//! ```

mod attempt;
mod block;
mod cell;
mod checkpoint;
mod codec;
mod commit;
mod copy;
mod dictionary;
mod entries;
mod error;
mod header;
mod image;
#[doc(hidden)]
pub mod layout;
mod log;
mod mark;
#[doc(hidden)]
pub mod measure;
mod open;
mod options;
mod pack;
mod position;
mod prepacked;
mod read;
mod reclaim;
mod recover;
mod resync;
mod salvage;
mod sampler;
mod scan;
mod seal;
mod segment;
mod slots;
mod sync;
mod train;
mod turn;
mod verify;
mod walk;
mod writer;

pub use cell::Cell;
pub use commit::Commit;
pub use error::{LogError, Result};
pub use header::Identity;
pub use log::{Log, LogView, SegmentInfo};
pub use open::{Access, OpenFile, Recovered, create, create_of_empty};
pub use options::LogOptions;
pub use pack::{PackJob, Packed, Packing};
pub use position::{CellId, EntryAddress, Location, Position, SegmentParts};
pub use prepacked::Prepacked;
pub use reclaim::FreeSlots;
pub use salvage::{
    BlockAddress, LostBlocks, Salvage, SalvageIndex, Salvaged, SalvagedBlock, SalvagedSegment,
};
pub use scan::{DamagedScan, ScannedBlock, SegmentScan};
pub use verify::{LogFinding, LogVerifier, LogVisitor, Severity, VerifiedEntry, VerifiedLog};
pub use writer::{Committed, LogWriter, Room};

/// The README's example is compiled as it stands there.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
