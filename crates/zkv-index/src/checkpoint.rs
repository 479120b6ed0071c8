//! An open checkpoint: the chain of headers, and what is read through the last one.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::{fmt, io};

use zkv_io::{FileMap, OpenMode, Storage, StorageFile, crc32c, unmapped};

use crate::bucket::Bucket;
use crate::candidates::Candidates;
use crate::error::IndexError;
use crate::header::{Header, Parsed, may_start_index};
use crate::key::KeyHash;
use crate::layout::{HEADER_BYTES, TABLES_MAX};
use crate::policy::CHAIN_LENGTH_MAX;

/// How much is copied or summed at a time.
const CHUNK_BYTES: u64 = 64 * 1024;

/// An index file as one checkpoint left it. It never changes; a later checkpoint is another value.
///
/// Any number of threads may read it. It stays readable when the file is appended to or replaced.
pub struct Checkpoint {
    pub(crate) file: Arc<IndexFile>,
    pub(crate) header: Header,
    /// How many checkpoints the file holds up to this one.
    pub(crate) chain_length: u32,
}

/// A file that the checkpoints in it share.
#[derive(Debug)]
pub(crate) struct IndexFile {
    pub(crate) file: Arc<dyn StorageFile>,
    pub(crate) map: Arc<dyn FileMap>,
    pub(crate) tail: Mutex<Tail>,
}

/// What may be written behind the last checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// A checkpoint, at the end of the one that ends at `end`. Until the first append, and behind one that
    /// has failed, what may have been left there has not been dealt with.
    Open { end: u64, is_settled: bool },
    /// Nothing: the file is read-only, it has been replaced, or a sync of it has failed, or the write of
    /// a header.
    Closed,
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Checkpoint").field("header", &self.header).finish_non_exhaustive()
    }
}

impl Checkpoint {
    /// Opens the last whole checkpoint of the file at `path`.
    ///
    /// Where the last one written was cut short or its header is damaged, this is an earlier one:
    /// the caller replays from its [`Checkpoint::watermark`]. Only `writable` files are appended
    /// to; others are replaced by [`Checkpoint::write_next`]. Nothing is written here.
    ///
    /// # Errors
    /// [`IndexError::Missing`] where there is no file; [`IndexError::Foreign`],
    /// [`IndexError::UnsupportedVersion`] and [`IndexError::UnsupportedFeatures`] where this build
    /// must not use it; [`IndexError::Corrupt`] where no header is whole, or one says what cannot
    /// be; [`IndexError::Io`].
    pub fn open(
        storage: &dyn Storage,
        path: &Path,
        store_id: [u8; 16],
        writable: bool,
    ) -> Result<Self, IndexError> {
        let mode = if writable { OpenMode::ReadWrite } else { OpenMode::ReadOnly };
        let file = storage.open(path, mode).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => IndexError::Missing,
            _ => IndexError::Io(error),
        })?;
        let (header, chain_length) = last_header(&*file, store_id)?;
        let end = header.body_end;
        let tail = if writable { Tail::Open { end, is_settled: false } } else { Tail::Closed };
        // Windows may refuse to put a new file in the place of one of which somebody has a map.
        let map = if cfg!(windows) { unmapped(&file) } else { file.map()? };
        let file = Arc::new(IndexFile { file, map, tail: Mutex::new(tail) });
        Ok(Self { file, header, chain_length })
    }

    /// The bytes that the facade gave: up to where the log is in this checkpoint.
    #[must_use]
    pub fn watermark(&self) -> &[u8] {
        &self.header.watermark
    }

    /// How many keys the store held.
    #[must_use]
    pub fn key_count(&self) -> u64 {
        self.header.key_count
    }

    /// How many checkpoints were written before this one.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.header.number
    }

    /// The file's length up to this checkpoint's end.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.header.body_end
    }

    /// How many tables a lookup passes: 1 to 5.
    #[must_use]
    pub fn run_count(&self) -> usize {
        self.header.tables.len()
    }

    /// Puts all places where the key `hash` may lie into `into`, in place of what was there: those of newer
    /// tables first, and of one table in no order of age.
    ///
    /// A key that the checkpoint holds is always among them. A key that it does not hold yields
    /// places of other keys now and then: the reader compares the key that it finds.
    ///
    /// # Errors
    /// [`IndexError::Corrupt`] where a bucket is not what was written; [`IndexError::Io`].
    #[inline]
    pub fn candidates(&self, hash: KeyHash, into: &mut Candidates) -> Result<(), IndexError> {
        into.clear();
        let prefix = hash.prefix();
        let (map, tables) = (&*self.file.map, &self.header.tables);
        // Nothing here depends on what is copied, so the processor waits for all tables at once.
        let mut homes = [const { Bucket::empty() }; TABLES_MAX];
        for (table, home) in tables.iter().zip(&mut homes) {
            table.load_home(map, prefix, home)?;
        }
        for (table, home) in tables.iter().zip(&mut homes).rev() {
            table.find(map, prefix, home, into)?;
        }
        Ok(())
    }

    /// Asks for what [`Checkpoint::candidates`] of this key reads first: where several keys are looked
    /// up, the processor then waits for all of them at once. It changes nothing.
    pub fn prefetch(&self, hash: KeyHash) {
        for table in &self.header.tables {
            table.prefetch_home(&*self.file.map, hash.prefix());
        }
    }

    /// The length of all sections together, as the header has it: what reading them allocates.
    #[must_use]
    pub fn sections_bytes(&self) -> u64 {
        // Each is no longer than a header allows.
        self.header.sections.iter().map(|section| section.length).sum()
    }

    /// The first section of this `kind`, held against its checksum. It is read, not mapped: salvage
    /// asks a disk that may fail.
    ///
    /// # Errors
    /// [`IndexError::Corrupt`] where it is not what was written; [`IndexError::Io`].
    pub fn section(&self, kind: u32) -> Result<Option<Vec<u8>>, IndexError> {
        let Some((offset, section)) =
            self.header.sections().find(|(_, section)| section.kind == kind)
        else {
            return Ok(None);
        };
        let length = usize::try_from(section.length)
            .map_err(|_| IndexError::corrupt(offset, "a section does not fit into memory"))?;
        // No more than the limit, to which a header is held.
        let mut bytes = vec![0; length];
        self.file.file.read_at(offset, &mut bytes)?;
        if crc32c(0, &bytes) == section.check {
            Ok(Some(bytes))
        } else {
            Err(IndexError::corrupt(offset, "a section does not match its checksum"))
        }
    }

    /// Writes the file, up to this checkpoint's end, into `file`: the copy opens as this checkpoint.
    /// Appending may go on meanwhile.
    ///
    /// # Errors
    /// [`IndexError::Io`]. The bytes are not held against their checksums: a copy is as good as its
    /// original.
    pub fn copy_to(&self, file: &dyn StorageFile) -> Result<(), IndexError> {
        self.for_each_chunk(0, self.header.body_end, |at, chunk| Ok(file.write_at(at, chunk)?))
    }

    fn for_each_chunk(
        &self,
        offset: u64,
        length: u64,
        mut each: impl FnMut(u64, &[u8]) -> Result<(), IndexError>,
    ) -> Result<(), IndexError> {
        let mut chunk = Vec::new();
        let (mut at, end) = (offset, offset + length);
        while at < end {
            let count = (end - at).min(CHUNK_BYTES);
            chunk.resize(count as usize, 0);
            self.file.map.copy_out(at, &mut chunk)?;
            each(at, &chunk)?;
            at += count;
        }
        Ok(())
    }
}

/// Whether the file at `path` may be an index, whole or damaged, of any store: it is empty, or starts with the
/// magic of one, or, where that is damaged, with zeros up to the end of its first header, or with a header that
/// has `store_id` in its place. Anything else is somebody else's file, which is not to be replaced.
///
/// # Errors
/// [`IndexError::Missing`] where there is no file; [`IndexError::Io`].
pub fn may_be_index(
    storage: &dyn Storage,
    path: &Path,
    store_id: Option<[u8; 16]>,
) -> Result<bool, IndexError> {
    let file = match storage.open(path, OpenMode::ReadOnly) {
        Ok(file) => file,
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => return Err(IndexError::Missing),
            // A pipe, a socket or a device: no file at all.
            io::ErrorKind::InvalidInput => return Ok(false),
            _ => return Err(IndexError::Io(error)),
        },
    };
    let mut start = [0; HEADER_BYTES];
    let length = usize::try_from(file.len()?).unwrap_or(HEADER_BYTES).min(HEADER_BYTES);
    file.read_at(0, &mut start[..length])?;
    Ok(may_start_index(&start[..length], store_id))
}

/// Follows the chain from the file's start, and returns the last header and how many there are.
fn last_header(file: &dyn StorageFile, store_id: [u8; 16]) -> Result<(Header, u32), IndexError> {
    let file_bytes = file.len()?;
    let Some(mut last) = header_at(file, 0, file_bytes, store_id)? else {
        return Err(IndexError::corrupt(0, "the file does not start with a whole header"));
    };
    let mut chain_length = 1;
    while let Some(next) = header_at(file, last.body_end, file_bytes, store_id)? {
        if next.number != last.number.wrapping_add(1) {
            return Err(IndexError::corrupt(next.offset, "checkpoints are not numbered in order"));
        }
        if chain_length == CHAIN_LENGTH_MAX {
            return Err(IndexError::corrupt(next.offset, "the file has too many checkpoints"));
        }
        chain_length += 1;
        last = next;
    }
    Ok((*last, chain_length))
}

/// The header at `offset`; `None` where none was ever completed there.
pub(crate) fn header_at(
    file: &dyn StorageFile,
    offset: u64,
    file_bytes: u64,
    store_id: [u8; 16],
) -> Result<Option<Box<Header>>, IndexError> {
    let mut bytes = [0; HEADER_BYTES];
    if file_bytes.saturating_sub(offset) < HEADER_BYTES as u64 {
        return Ok(None);
    }
    file.read_at(offset, &mut bytes)?;
    match Header::parse(&bytes, offset, file_bytes, store_id)? {
        Parsed::Header(header) => Ok(Some(header)),
        Parsed::Absent => Ok(None),
    }
}
