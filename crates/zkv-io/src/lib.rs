//! The ground that every zkv crate stands on: the storage seam, the one memory map, a cursor over
//! hostile bytes, and checksums.
//!
//! Nothing above this crate touches `std::fs`. The log and the index take a [`Storage`]; the real
//! one is [`FileStorage`], and [`MemoryStorage`] keeps everything in memory for tests and tools.
//!
//! It knows nothing of records, blocks or indexes, and holds no format of its own.
//!
//! ```
//! use std::path::Path;
//! use zkv_io::{MemoryStorage, OpenMode, Storage};
//!
//! let storage = MemoryStorage::new();
//! let file = storage.open(Path::new("a"), OpenMode::CreateNew)?;
//! file.write_at(3, b"abc")?;
//! let mut bytes = [0; 6];
//! file.map()?.copy_out(0, &mut bytes)?;
//! assert_eq!(&bytes, b"\0\0\0abc");
//! # Ok::<(), std::io::Error>(())
//! ```

mod atomic;
mod checksum;
mod cursor;
mod extents;
mod file_storage;
mod lost;
mod map;
mod memory_storage;
mod memory_watch;
mod read_around;
mod read_mode;
mod reads;
mod scratch;
mod storage;

pub use atomic::{
    Draft, TEMPORARY_SUFFIX, create_atomically, parent_directory, replace_atomically,
    replace_empty_atomically, temporary_path,
};
pub use checksum::crc32c;
pub use cursor::{Cursor, Overrun, VARINT_BYTES_MAX, put_varint, varint_bytes};
pub use file_storage::FileStorage;
pub use lost::is_lost;
pub use memory_storage::MemoryStorage;
pub use memory_watch::memory_is_scarce;
pub use read_mode::{ReadMode, unmapped};
pub use reads::Reads;
pub use scratch::Scratch;
pub use storage::{FileMap, LockKind, OpenMode, Storage, StorageFile};
