//! Making a log, and opening one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, Weak};

use zkv_io::{
    FileMap, LockKind, OpenMode, Reads, Storage, StorageFile, create_atomically, parent_directory,
    replace_empty_atomically,
};

use crate::error::{LogError, Result};
use crate::header::{FileHeader, Identity, SegmentHeader};
use crate::layout::{FILE_HEADER_BYTES, FILE_HEADER_PAGE, PAGE_BYTES, SEGMENT_HEADER_FIELD_BYTES};
use crate::log::{Log, Shared};
use crate::options::LogOptions;
use crate::position::{FIRST_END, Position};
use crate::recover::recover;
use crate::salvage::identity_by_any_header;
use crate::sync::Mutex;
use crate::writer::LogWriter;

/// What to do about an empty file.
const EMPTY: &str = "whoever opens it to write, and may make a store, makes it one";

/// What a log is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading and writing; excludes every other handle.
    ReadWrite,
    /// Reading; excludes writers, and writes nothing at all.
    ReadOnly,
}

/// A data file that is open and locked, and not yet recovered.
#[derive(Clone)]
pub struct OpenFile {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn StorageFile>,
    pub(crate) map: Arc<dyn FileMap>,
    pub(crate) identity: Identity,
    /// The nonce of the log's first segment, where the file header is whole.
    pub(crate) first_nonce: Option<u64>,
    /// Whether neither the file header nor the one in the first slot is whole: it is verified, never opened.
    pub(crate) is_headless: bool,
    pub(crate) access: Access,
    pub(crate) options: LogOptions,
    /// What was recovered to be written, for as long as anybody has it.
    pub(crate) written: Arc<Mutex<Weak<Shared>>>,
}

/// A log, recovered.
#[derive(Debug)]
pub struct Recovered {
    /// The readers' side.
    pub log: Log,
    /// The writer, where the log was opened for writing.
    pub writer: Option<LogWriter>,
    /// From where on the checkpoint does not know the log; `None` where none was given, or the one
    /// given is not of this log's past: it then tells nothing.
    pub replay_from: Option<Position>,
}

/// Makes an empty log at `path`, durably. It appears whole or not at all.
///
/// # Errors
/// [`LogError::Io`], with [`io::ErrorKind::AlreadyExists`] where `path` exists, and
/// [`LogError::InvalidOption`].
pub fn create(storage: &dyn Storage, path: &Path, options: &LogOptions) -> Result<()> {
    let bytes = empty_log(storage, options)?;
    create_atomically(storage, path, |file| file.write_at(0, &bytes))
        .map_err(LogError::io("create"))
}

/// Makes an empty log of the empty file at `path`, durably: a crash leaves the one or the other. Where somebody
/// else was faster, nothing is done.
///
/// It is made beside that file, and takes its name: of what is written into it, a power cut could leave anything,
/// which the next opening would have to tell from a log that is damaged.
///
/// # Errors
/// [`LogError::Io`], [`LogError::Locked`] where another handle has the file open, and [`LogError::InvalidOption`].
pub fn create_of_empty(storage: &dyn Storage, path: &Path, options: &LogOptions) -> Result<()> {
    let bytes = empty_log(storage, options)?;
    let empty = open_locked(storage, path, Access::ReadWrite)?;
    // Somebody may have given the name to a log since the file was opened. Nobody can from here on: that takes the
    // lock of the file that has the name.
    let named = storage.open(path, OpenMode::ReadOnly).map_err(LogError::io("open"))?;
    for file in [&empty, &named] {
        if 0 < file.len().map_err(LogError::io("measure"))? {
            return Ok(());
        }
    }
    drop(named);
    replace_empty_atomically(storage, path, |file| file.write_at(0, &bytes))
        .map_err(LogError::io("create"))
}

/// The bytes of a log without anything in it.
fn empty_log(storage: &dyn Storage, options: &LogOptions) -> Result<Vec<u8>> {
    options.check()?;
    let mut random = [0; 56];
    storage.random(&mut random).map_err(LogError::io("draw an identity for"))?;
    let (store_id, rest) = random.split_at(16);
    let (hash_key, nonce) = rest.split_at(32);
    let identity = Identity {
        store_id: store_id.try_into().unwrap_or_default(),
        hash_key: hash_key.try_into().unwrap_or_default(),
        slot_bytes: options.slot_bytes,
    };
    let header = SegmentHeader {
        identity: identity.clone(),
        sequence: 1,
        slot: 0,
        nonce: u64::from_le_bytes(nonce.try_into().unwrap_or_default()),
        roll_call: Position::default(),
        synced_upto: Position::default(),
    };
    let file_header = FileHeader { identity, first_nonce: header.nonce };
    let mut bytes = file_header.encode();
    bytes.extend(header.encode_cell());
    let page_bytes = usize::try_from(PAGE_BYTES).unwrap_or(usize::MAX);
    bytes.resize(bytes.len().next_multiple_of(page_bytes), 0);
    Ok(bytes)
}

impl OpenFile {
    /// Opens and locks the data file at `path`, and reads its header. A damaged header is read
    /// from the first segment, which repeats it.
    ///
    /// # Errors
    /// [`LogError::Io`], with [`io::ErrorKind::NotFound`] where there is no file;
    /// [`LogError::Locked`], [`LogError::Empty`], [`LogError::NotALog`], [`LogError::UnsupportedVersion`],
    /// [`LogError::UnsupportedFeatures`], [`LogError::InvalidOption`].
    pub fn open(
        storage: Arc<dyn Storage>,
        path: &Path,
        access: Access,
        options: LogOptions,
    ) -> Result<Self> {
        options.check()?;
        let file = open_locked(&*storage, path, access)?;
        let (identity, first_nonce) = read_identity(&*file)?;
        Self::of(storage, path, access, options, file, (identity, first_nonce, false))
    }

    /// As [`OpenFile::open`] for reading, to be verified: where the file header and the one in the first
    /// slot are both lost, the headers and seals that are left tell whose file it is.
    ///
    /// # Errors
    /// As [`OpenFile::open`]; [`LogError::NotALog`] where no header in the file is whole; [`LogError::Io`] where a
    /// read fails though what it was after may be there.
    pub fn open_to_verify(
        storage: Arc<dyn Storage>,
        path: &Path,
        options: LogOptions,
    ) -> Result<Self> {
        options.check()?;
        let file = open_locked(&*storage, path, Access::ReadOnly)?;
        let reads = Reads::of(&file);
        let told = read_any_identity(&reads);
        reads.check().map_err(LogError::io("read"))?;
        Self::of(storage, path, Access::ReadOnly, options, file, told?)
    }

    fn of(
        storage: Arc<dyn Storage>,
        path: &Path,
        access: Access,
        options: LogOptions,
        file: Arc<dyn StorageFile>,
        (identity, first_nonce, is_headless): (Identity, Option<u64>, bool),
    ) -> Result<Self> {
        let map = options.read_mode.reader_of(&file).map_err(LogError::io("map"))?;
        let path = path.to_owned();
        let written = Arc::default();
        Ok(Self {
            storage,
            path,
            file,
            map,
            identity,
            first_nonce,
            is_headless,
            access,
            options,
            written,
        })
    }

    /// What makes this log this log: an index that names another one is foreign.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The data file's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How long the data file is now.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn file_bytes(&self) -> Result<u64> {
        self.file.len().map_err(LogError::io("measure"))
    }

    /// Finds the log's end, from `checkpoint` (see [`LogWriter::checkpoint`]) or from the log alone.
    ///
    /// What a crash has torn is dropped; it is wiped before the first append, so that opening
    /// writes nothing. Where nothing proves that the log was ever synced, the file's name is made
    /// durable for a writer: whoever made the file may have died, or failed, before that.
    ///
    /// Of a file that is open to be written, and its clones, one log lives at a time: it can be recovered
    /// again once the writer, the [`Log`]s and all views are dropped.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] where the log is damaged below a place that was durable, as far as log
    /// and checkpoint tell. [`LogError::Locked`] where a log of this file that was recovered to be written
    /// lives on. [`LogError::Io`].
    pub fn recover(&self, checkpoint: Option<&[u8]>) -> Result<Recovered> {
        // Two writers would overwrite each other's commits, and the slots that the other's readers hold. The
        // file's lock keeps off other handles alone.
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.strong_count() > 0 {
            return Err(LogError::Locked);
        }
        let recovered = recover(self, checkpoint)?;
        if recovered.writer.is_some() && recovered.log.synced_upto() <= FIRST_END {
            let synced = self.storage.sync_dir(parent_directory(&self.path));
            synced.map_err(LogError::io("sync the folder of"))?;
        }
        if recovered.writer.is_some() {
            *written = Arc::downgrade(&recovered.log.shared);
        }
        Ok(recovered)
    }
}

fn open_locked(storage: &dyn Storage, path: &Path, access: Access) -> Result<Arc<dyn StorageFile>> {
    let (mode, lock) = match access {
        Access::ReadWrite => (OpenMode::ReadWrite, LockKind::Exclusive),
        Access::ReadOnly => (OpenMode::ReadOnly, LockKind::Shared),
    };
    let file = storage.open(path, mode).map_err(LogError::io("open"))?;
    if !file.try_lock(lock).map_err(LogError::io("lock"))? {
        return Err(LogError::Locked);
    }
    Ok(file)
}

fn read_identity(file: &dyn StorageFile) -> Result<(Identity, Option<u64>)> {
    let mut page = [0; FILE_HEADER_PAGE];
    let fault = match file.read_at(0, &mut page) {
        Ok(()) => match FileHeader::decode(&page) {
            Ok(header) => return Ok((header.identity, Some(header.first_nonce))),
            Err(fault) => fault.into_error(),
        },
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            if file.len().map_err(LogError::io("measure"))? == 0 {
                return Err(LogError::Empty { remedy: EMPTY });
            }
            LogError::NotALog
        }
        // What the disk cannot read is lost like anything else that is damaged.
        Err(cause) => LogError::Io { action: "read", cause },
    };
    let mut first_segment = [0; SEGMENT_HEADER_FIELD_BYTES];
    let read = file.read_at(FILE_HEADER_BYTES, &mut first_segment);
    match read.ok().map(|()| SegmentHeader::decode(&first_segment)) {
        // A newer version would have left its mark there, too.
        Some(Ok(header)) => Ok((header.identity, None)),
        _ => Err(fault),
    }
}

/// As [`read_identity`], by whichever headers are whole; and whether neither of the first two is.
fn read_any_identity(file: &dyn StorageFile) -> Result<(Identity, Option<u64>, bool)> {
    match read_identity(file) {
        Ok((identity, first_nonce)) => Ok((identity, first_nonce, false)),
        Err(error @ (LogError::NotALog | LogError::Io { .. })) => {
            let file_bytes = file.len().map_err(LogError::io("measure"))?;
            Ok((identity_by_any_header(file, file_bytes)?.ok_or(error)?, None, true))
        }
        Err(error) => Err(error),
    }
}

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = formatter.debug_struct("OpenFile");
        debug.field("path", &self.path).field("access", &self.access).finish_non_exhaustive()
    }
}
