//! A simulated disk behind the storage seam: deterministic, and as hostile as a real one may be.
//!
//! - [`SimDisk`] is a [`Storage`](zkv_io::Storage) in memory that writes down each change. A seed
//!   decides all that is random, so that a run can be replayed.
//! - [`PowerCut`] follows what was written down and yields the [`Image`]s that a power cut may leave
//!   at any moment: unsynced changes kept, lost, reordered or torn, lengths without their bytes,
//!   names without their directory's sync.
//! - [`Fault`] makes one call fail, or all from one on; syncs fail in three manners.
//! - A [`BadSector`] cannot be read: for ever, until it is written, or for a while.
//!
//! It is for tests and tasks alone: it knows nothing of what the files hold. The model of what a
//! disk may do stands in `docs/testing.md`.
//!
//! ```
//! use std::path::Path;
//! use zkv_io::{OpenMode, Storage};
//! use zkv_sim::{PowerCut, SimDisk};
//!
//! let disk = SimDisk::recording(1);
//! let file = disk.open(Path::new("a"), OpenMode::CreateNew)?;
//! disk.sync_dir(Path::new("."))?;
//! file.write_at(0, b"unsynced")?;
//! let mut cut = PowerCut::new();
//! for event in disk.events(0) {
//!     cut.follow(&event);
//! }
//! // The write is there, or it is not.
//! let cuts = cut.cuts(false, 100, &mut fastrand::Rng::with_seed(1));
//! let lens = cuts.iter().map(|way| cut.image(way).get(Path::new("a")).map(<[u8]>::len));
//! assert_eq!(lens.collect::<std::collections::BTreeSet<_>>().len(), 2);
//! # Ok::<(), std::io::Error>(())
//! ```

mod cut;
mod disk;
mod event;
mod fault;
mod file;
mod image;
mod power_cut;
mod sectors;
mod watched;

pub use cut::{Cut, Growth, Sectors, Tear};
pub use disk::SimDisk;
pub use event::{Event, FileId};
pub use fault::{Calls, Fault, SyncFailure, WriteFailure};
pub use image::Image;
pub use power_cut::PowerCut;
pub use sectors::{BadSector, Lasts};
pub use watched::{Act, Watched};
