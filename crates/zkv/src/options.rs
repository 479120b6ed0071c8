//! What a store can be told.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use zkv_index::Thresholds;
use zkv_io::{FileStorage, ReadMode, Storage};
use zkv_log::LogOptions;
use zkv_record::{DECODE_DEPTH_MAX, VALUE_BYTES_INLINE_MAX, VALUE_BYTES_MAX};

use crate::error::{Error, Result};
use crate::store::Store;

/// What a write has to wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// Nothing: it is in this process's memory, and is handed to the operating system when the
    /// buffer is full, after the flush interval, or by `flush`, `sync` or `close`, as dropping the last
    /// handle does. A crash of the process loses what was not, and so does `std::process::exit`, which drops
    /// nothing; a power cut what was not synced. The order is kept, so that what is found again is the
    /// store as it was at some earlier moment. So call `close` or `sync` before `main` ends where a handle
    /// is in a `static`, or in a thread that still runs: neither is dropped.
    #[default]
    Buffered,
    /// The operating system has it: it survives a crash of the process. What is written a record at a time
    /// is also packed a record at a time, and takes up to four times as much room, until cleaning has packed it
    /// together ([`Options::cleaning`](Options::cleaning)), or [`Store::compact`].
    Flushed,
    /// It is on stable storage: it survives a power cut. As `Flushed`, it takes more room for a while.
    Synced,
}

/// Whether space that overwritten and deleted records take comes back by itself.
///
/// ```
/// use zkv::{Cleaning, Options};
///
/// // No more than a tenth of the file dead, for twice as much moving.
/// let options = Options::new().cleaning(Cleaning::automatic().dead_percent(10));
/// let only_when_asked = Options::new().cleaning(Cleaning::Off);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cleaning {
    /// Never: the file grows with all that is written, until [`Store::compact`] is called.
    Off,
    /// In the background: what is needed of segments that are mostly dead moves to others, and their
    /// slots are used again, or cut off the file's end. [`Cleaning::automatic`] makes it.
    #[non_exhaustive]
    Automatic {
        /// How much of the file may be dead, in percent: 5 to 90, default 25, but no less than one slot. That is what
        /// cleaning aims at, and what a store has that stays open behind its last write until it is reached.
        /// While it is written, more is dead by what the buffers hold and what is being moved: where slots are
        /// small, take small buffers, too. Closing does not wait for the rest, so that a store that is closed
        /// soon behind its writes may have more: the next writes go on, or [`Store::clean`]. With 10,
        /// twice as much is moved as with 25; with 50 half as much, and the file is twice as long as
        /// what it holds.
        dead_percent: u8,
        /// How much of what is written to the file may be for cleaning while others write, in percent:
        /// 10 to 90, default 67. Where that is too little to keep dead space within its bound, writes wait.
        write_percent: u8,
    },
}

/// How much may be dead where nothing else is said.
pub(crate) const DEAD_PERCENT: u8 = 25;
/// And how much of what is written may be for cleaning.
const WRITE_PERCENT: u8 = 67;

impl Cleaning {
    /// [`Cleaning::Automatic`] with its defaults.
    #[must_use]
    pub fn automatic() -> Self {
        Self::Automatic { dead_percent: DEAD_PERCENT, write_percent: WRITE_PERCENT }
    }

    /// With another `dead_percent`, where it is automatic.
    #[must_use]
    pub fn dead_percent(self, percent: u8) -> Self {
        match self {
            Self::Automatic { write_percent, .. } => {
                Self::Automatic { dead_percent: percent, write_percent }
            }
            Self::Off => self,
        }
    }

    /// With another `write_percent`, where it is automatic.
    #[must_use]
    pub fn write_percent(self, percent: u8) -> Self {
        match self {
            Self::Automatic { dead_percent, .. } => {
                Self::Automatic { dead_percent, write_percent: percent }
            }
            Self::Off => self,
        }
    }
}

impl Default for Cleaning {
    fn default() -> Self {
        Self::automatic()
    }
}

/// How to open a store. Every option may differ from one opening to the next, but `slot_bytes`,
/// which counts when the store is made.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("pages.zkv");
/// let store = zkv::Options::new().compression_level(9).open(&path)?;
/// # store.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Options {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) log: LogOptions,
    pub(crate) memory_buffer_bytes: usize,
    pub(crate) cache_bytes: usize,
    pub(crate) use_index_file: bool,
    pub(crate) index_thresholds: Thresholds,
    pub(crate) durability: Durability,
    pub(crate) flush_interval: Duration,
    pub(crate) decode_depth_max: u32,
    pub(crate) value_bytes_max: u64,
    pub(crate) cleaning: Cleaning,
    pub(crate) create: bool,
    pub(crate) read_only: bool,
    pub(crate) lock_wait: Duration,
}

/// What fjall and RocksDB give to theirs where nothing is said.
const CACHE_BYTES: usize = 32 << 20;
/// 800,000 values of 50 bytes.
const FAST_CACHE_BYTES: usize = 64 << 20;
/// A few small records: half as much takes 10 % more room and is read 3 to 5 % faster, since all that
/// starts in one cell of the log is looked at together.
const FAST_BLOCK_BYTES: u32 = 512;
/// Half as much takes 2 to 7 % more room, and halves the time of a read.
const SMALL_BLOCK_BYTES: u32 = 4096;

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

impl Options {
    /// The defaults, which suit most stores: see [`Options::fast`] and [`Options::small`] for others.
    pub fn new() -> Self {
        Self {
            storage: Arc::new(FileStorage),
            log: LogOptions::default(),
            memory_buffer_bytes: 4 << 20,
            cache_bytes: CACHE_BYTES,
            use_index_file: true,
            index_thresholds: Thresholds::DEFAULT,
            durability: Durability::default(),
            flush_interval: Duration::from_secs(1),
            decode_depth_max: DECODE_DEPTH_MAX,
            value_bytes_max: VALUE_BYTES_MAX,
            cleaning: Cleaning::default(),
            create: true,
            read_only: false,
            lock_wait: Duration::ZERO,
        }
    }

    /// Settings for speed: level -1, blocks of 512 bytes, and a cache of 64 MiB. Records of a hundred bytes are
    /// read in half of the time; records of a kilobyte are read in four fifths of it, and written in two
    /// thirds. They take a sixth to a third more room.
    ///
    /// Settings count for what is written with them, by cleaning and compacting, too: a store may be
    /// opened with others each time.
    pub fn fast() -> Self {
        let options = Self::new().compression_level(-1).block_bytes(FAST_BLOCK_BYTES);
        options.cache_bytes(FAST_CACHE_BYTES)
    }

    /// Settings for what is seldom read: level 9 and blocks of 4 KiB. It takes 16 to 22 % less room
    /// after [`Store::compact`]; writing takes ten times as long, a read two to four times. A process that is
    /// killed loses what was being compressed, which may be what it has written for some seconds.
    pub fn small() -> Self {
        Self::new().compression_level(9).block_bytes(SMALL_BLOCK_BYTES)
    }

    /// How many reads may decompress at once: 1 to 4,096, default 64. Further ones wait for one of
    /// them. Each takes about 200 KB of memory; too few leave cores idle. As many threads at the most
    /// decompress for one iteration.
    pub fn max_parallel_reads(mut self, count: u32) -> Self {
        self.log.parallel_reads_max = count;
        self
    }

    /// How many threads compress a full buffer, a batch, or what cleaning moves: 1 to 256, by default as many as
    /// the process may use processors. Fewer leave processors to the rest of the program, and imports take
    /// longer by as much: with 1, one thread compresses, and only those whose writes would wait for it help. More
    /// than there are processors gain nothing, and each keeps a compressor's memory. Reads have
    /// [`Options::max_parallel_reads`].
    pub fn compression_threads(mut self, count: u32) -> Self {
        self.log.compression_threads = count;
        self
    }

    /// zstd's level, -7 to 22 but for 0, default 5. Level 3 writes twice as fast and takes about 4 % more
    /// room. From 9 on, small blocks are parsed optimally: 8 to 9 % less room, and ten times the
    /// time, which suits [`Store::compact_with`] better than writing. Reads are as fast at each level above 0, and
    /// faster below: see [`Options::fast`]. At 4 and 5, commits of up to 128 KiB for which a thread waits
    /// ([`Durability::Flushed`], [`Durability::Synced`]) are written at level 3, until they are compressed again:
    /// all by compaction, and by cleaning those of less than about half of [`Options::block_bytes`].
    pub fn compression_level(mut self, level: i32) -> Self {
        self.log.compression_level = level;
        self
    }

    /// Bytes of keys and values, and 96 for each of them, that gather in memory before they are compressed
    /// together: 64 KiB to 1 GiB, default 4 MiB. Up to three such buffers exist at a time. A batch or
    /// transaction that takes more than one is written at once. Larger ones compress a
    /// little better; a smaller one bounds what a crash of the process can lose.
    pub fn memory_buffer_bytes(mut self, bytes: usize) -> Self {
        self.memory_buffer_bytes = bytes;
        self
    }

    /// Compressed bytes that gather before one system call writes them: 4 KiB to 64 MiB, default
    /// 1 MiB. Small ones cost system calls.
    pub fn disk_buffer_bytes(mut self, bytes: u32) -> Self {
        self.log.write_buffer_bytes = bytes;
        self
    }

    /// Bytes of memory for values that were read lately: up to 1 TiB, default 32 MiB; 0 keeps none. Reading one
    /// of them again takes a fifth to a ninth of the time: that pays where some keys are read far more often
    /// than others, or where it holds a good part of all values. It grows as it fills. The limit
    /// includes about 50 bytes for each value and a 13th for tables, and may be exceeded by a few bytes in a
    /// thousand. It keeps values shorter than a 64th of it and than about 128 KiB, from 32 MiB on those shorter
    /// than a 256th of it; and never one that is stored in pieces, which is longer than 1 MiB or a quarter of
    /// [`Options::slot_bytes`]. Once it is full, it takes in what is read a second time.
    ///
    /// Where reads go on to wait for the disk, since there is less memory than the file takes, the system's page
    /// cache, which holds the file as it is compressed, makes more of it: from then on until the store is closed, the
    /// cache takes no more than about a 64th of the file's length, or its limit where that is less.
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Whether the index is kept in a file beside the data, default true. Without it, every
    /// opening reads the whole data file, and the index takes about 6 bytes of memory a key.
    pub fn use_index_file(mut self, yes: bool) -> Self {
        self.use_index_file = yes;
        self
    }

    /// When the index file is appended to, and when it is written anew: for tests of small stores.
    #[doc(hidden)]
    pub fn index_thresholds(mut self, thresholds: Thresholds) -> Self {
        self.index_thresholds = thresholds;
        self
    }

    /// Bytes of records that are compressed together: 64 to 65,536, default 1,024. A read
    /// decompresses one such block. Smaller ones read faster, larger ones take less room: 512 bytes
    /// read in 60 % of the time and take up to 8 % more, 4 KiB in 3 to 4 times the time and take
    /// 5 to 9 % less.
    pub fn block_bytes(mut self, bytes: u32) -> Self {
        self.log.block_bytes = bytes;
        self
    }

    /// Bytes of a segment in a new store: a power of two from 256 KiB to 16 MiB, default 8 MiB.
    /// Space is reclaimed by segments: smaller ones come back sooner, and cost more for the
    /// dictionaries that each repeats. No record spans two segments, so each ends with a gap where the next
    /// record did not fit. Values longer than 1 MiB, or than a quarter of a slot, are cut into pieces: 3 fill a slot
    /// of 256 KiB, 7 one of 512 KiB, 8 one of 1 to 4 MiB, and 16 one of 8 MiB. Where those do not compress, they fill
    /// the file but for 5 % with slots of 256 KiB, and for 1 % with the default. Values of a few pieces or less leave
    /// longer gaps, of up to a quarter of a slot where they are not much longer or shorter than that.
    pub fn slot_bytes(mut self, bytes: u32) -> Self {
        self.log.slot_bytes = bytes;
        self
    }

    /// What a write waits for, default [`Durability::Buffered`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How long a buffered write may stay in memory before it is compressed and handed to the operating
    /// system, behind what came before it: 1 ms to 1 hour, default 1 s. A short one costs
    /// compression, since small buffers compress worse, as they do where little is written: cleaning makes
    /// up for that once there is a slot's worth ([`Options::cleaning`]).
    pub fn flush_interval(mut self, interval: Duration) -> Self {
        self.flush_interval = interval;
        self
    }

    /// How many levels of structs, tuples, sequences, maps, options and enums a value may nest: 1 to
    /// 65,536, default 128. A deeper one is refused by `set`, and by `get`: what a forged file nests deeper
    /// would overflow the stack, of which each level takes some hundred bytes, or more for large types. In JSON,
    /// an enum's variant with fields counts two levels where it is set. A key may nest 128 levels.
    pub fn max_decode_depth(mut self, levels: u32) -> Self {
        self.decode_depth_max = levels;
        self
    }

    /// The longest value that is stored and read, encoded: 1 MiB to 4 GiB - 1, the default. A file
    /// of a few megabytes can hold a value of gigabytes: where files come from strangers, a lower
    /// limit bounds what reading one value takes.
    pub fn max_value_bytes(mut self, bytes: u64) -> Self {
        self.value_bytes_max = bytes;
        self
    }

    /// Whether dead space comes back by itself, default [`Cleaning::Automatic`] with at most 25 % of
    /// the file dead, or one slot where that is more: see [`Options::slot_bytes`]. What commits of a record
    /// or two have packed loosely counts with what is dead: it is packed together.
    pub fn cleaning(mut self, cleaning: Cleaning) -> Self {
        self.cleaning = cleaning;
        self
    }

    /// Whether a store that does not exist is made, or one of an empty file; default true. Whoever makes one of a
    /// temporary file removes its index file, too, or makes none ([`Options::use_index_file`]).
    pub fn create(mut self, yes: bool) -> Self {
        self.create = yes;
        self
    }

    /// How long an opening waits where another process, or another handle in this one, has the store open and
    /// may not share it, before it fails with [`Error::Locked`]: by default not at all. Who waits asks
    /// again, up to 32 ms later, and not in turn.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("jobs.zkv");
    /// use std::time::Duration;
    /// // Each of several processes opens the store for a moment.
    /// let store = zkv::Options::new().lock_wait(Duration::from_secs(5)).open(&path)?;
    /// store.set("job 17", "done")?;
    /// store.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lock_wait(mut self, wait: Duration) -> Self {
        self.lock_wait = wait;
        self
    }

    /// How the files are read, default [`ReadMode::Map`]. With [`ReadMode::Pread`], a file that
    /// another program cuts, or a sector that the disk cannot read, is an error of the read that
    /// meets it, where a map would end the process; each read then takes a system call or two. It
    /// suits programs that must outlive a failing disk.
    pub fn read_mode(mut self, mode: ReadMode) -> Self {
        self.log.read_mode = mode;
        self
    }

    /// Where the files are: the operating system's file system ([`FileStorage`]) by default, memory
    /// ([`MemoryStorage`](crate::MemoryStorage)), or another implementation of [`Storage`].
    pub fn storage(mut self, storage: Arc<dyn Storage>) -> Self {
        self.storage = storage;
        self
    }

    /// Opens the store at `path`; its index lies beside it, as `path` with `.idx` appended.
    ///
    /// A relative path is taken from the folder in which the process is now, and stays what it was when
    /// that changes.
    ///
    /// # Errors
    /// [`Error::InvalidOption`]; [`Error::Locked`] where it is open elsewhere ([`Options::lock_wait`]); [`Error::Data`], of kind
    /// `NotFound` where there is no store and none is to be made, or no folder for it, `Corrupt` where it is
    /// damaged, `UnsupportedVersion` where a newer version wrote it, and `Io`.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Store> {
        self.check()?;
        Store::open_with(path.as_ref(), self)
    }

    /// Opens the store at `path` to read it. Nothing is written beside it, not even an index: the
    /// files and their folder may be read-only. Only where the index has to be made anew from more
    /// than 700,000 records are some bytes of each put into the system's folder for temporary
    /// files meanwhile.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open_read_only(mut self, path: impl AsRef<Path>) -> Result<Store> {
        self.read_only = true;
        self.create = false;
        self.open(path)
    }

    /// The storage of the index file, which is read as the data file is.
    pub(crate) fn index_storage(&self) -> Arc<dyn Storage> {
        self.log.read_mode.storage(&self.storage)
    }

    fn check(&self) -> Result<()> {
        let check = |option, value: u64, range: std::ops::RangeInclusive<u64>, allowed| {
            if range.contains(&value) {
                Ok(())
            } else {
                let value = i64::try_from(value).unwrap_or(i64::MAX);
                Err(Error::InvalidOption { option, value, allowed })
            }
        };
        let buffer = self.memory_buffer_bytes as u64;
        let range = "from 65536 to 1073741824";
        check("memory_buffer_bytes", buffer, 64 << 10..=1 << 30, range)?;
        let cache = self.cache_bytes as u64;
        check("cache_bytes", cache, 0..=1 << 40, "from 0 to 1099511627776")?;
        let slot_range = "a power of two from 262144 to 16777216";
        let slot_bytes = self.log.slot_bytes;
        // One that is no power of two is as wrong as none.
        let slot = if slot_bytes.is_power_of_two() { slot_bytes } else { 0 };
        if !(256 << 10..=16 << 20).contains(&slot) {
            let (option, value) = ("slot_bytes", slot_bytes.into());
            return Err(Error::InvalidOption { option, value, allowed: slot_range });
        }
        let interval = u64::try_from(self.flush_interval.as_millis()).unwrap_or(u64::MAX);
        check("flush_interval (ms)", interval, 1..=3_600_000, "from 1 to 3600000")?;
        let depth = u64::from(self.decode_depth_max);
        check("max_decode_depth", depth, 1..=65_536, "from 1 to 65536")?;
        let value_range = VALUE_BYTES_INLINE_MAX as u64..=VALUE_BYTES_MAX;
        let allowed = "from 1048576 to 4294967295";
        check("max_value_bytes", self.value_bytes_max, value_range, allowed)?;
        if let Cleaning::Automatic { dead_percent, write_percent } = self.cleaning {
            check("dead_percent", dead_percent.into(), 5..=90, "from 5 to 90")?;
            check("write_percent", write_percent.into(), 10..=90, "from 10 to 90")?;
        }
        self.log.check().map_err(Error::data(Path::new("")))
    }
}
