//! Opening a store: the log's end, the index, and what the index does not know yet.

pub(crate) mod rebuild;
pub(crate) mod replay;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use zkv_index::{Checkpoint, IndexError};
use zkv_io::{LockKind, MemoryStorage, OpenMode, Storage, TEMPORARY_SUFFIX, parent_directory};
use zkv_log::layout::FILE_MAGIC;
use zkv_log::{Access, LogError, LogView, OpenFile, Position, Recovered};

use crate::error::{Error, Result, is_exhausted};
use crate::keys::Keys;
use crate::metadata::live::LiveTable;
use crate::metadata::sections::{self, LOG_SECTION, Tables};
use crate::options::Options;
use crate::private::PrivateStorage;
use crate::read::view::{Committed, LookupError};
use crate::sync::thread;
use crate::write::tail::Tail;
use crate::write::writer::{IndexPlace, WriteError, Writer};
use rebuild::Indexed;
use replay::Replay;

/// How long an opening that finds the store locked waits before it asks again, at first and at the most:
/// systems do not tell when a lock ends.
const LOCK_PAUSE_MIN: Duration = Duration::from_millis(1);
const LOCK_PAUSE_MAX: Duration = Duration::from_millis(32);
/// Why no file can be made, and what to do.
pub(crate) const WITHOUT_FOLDER: &str = "the folder for it does not exist: make it first";
/// What an empty data file beside an index file is, and what to do.
const LOST: &str = "its index file is there, so it was a store, which is lost; put a copy of the store in its place, or \
     remove both files to begin a new one";

/// What opening a store yields.
pub(crate) struct Opened {
    pub index: IndexPlace,
    pub keys: Keys,
    pub log: zkv_log::Log,
    pub committed: Committed,
    pub live: LiveTable,
    pub writer: Option<Writer>,
}

/// An index file that fits the log.
struct UsableCheckpoint {
    checkpoint: Checkpoint,
    tables: Tables,
}

impl UsableCheckpoint {
    /// Whether it leads into segments that were freed since. No index file of this store does that, but
    /// for a copy of an older one, or one that was set aside for a while.
    fn leads_astray(&self, recovered: &Recovered, watermark: Position) -> bool {
        let segments = recovered.log.view().segments();
        let still_there = segments.iter().filter(|one| one.sequence <= watermark.sequence);
        self.tables.live.has_others(still_there.map(|segment| segment.slot))
    }
}

/// The index file of the store at `path`.
pub(crate) fn index_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".idx");
    PathBuf::from(name)
}

pub(crate) fn open(path: &Path, options: &Options) -> Result<Opened> {
    let file = open_file(path, options)?;
    if !options.read_only {
        remove_temporaries(&*options.storage, path);
    }
    let keys = Keys::new(file.identity().hash_key);
    let (recovered, usable) = recover(&file, path, options)?;
    let place = index_place(path, options);
    let Recovered { log, writer, replay_from } = recovered;
    let write = |error: WriteError| error.of(path, &place.path);
    let mut tail = Tail::default();
    let from = replay_from.unwrap_or_default();
    // What is appended later may stand in the cell in which the log ends now.
    let view = match &writer {
        Some(writer) => writer.view(),
        None => log.view(),
    };
    let replay = |usable| replay(usable, &view, from, &keys, &mut tail);
    let indexed = usable.map(replay).transpose();
    let (indexed, writer) = match (indexed, writer) {
        (Ok(Some(indexed)), writer) => {
            let writer = writer.map(|log| {
                let (committed, live) = (indexed.committed.clone(), indexed.live.clone());
                Writer::new(log, keys.clone(), committed, live, place.clone(), tail)
            });
            (indexed, writer)
        }
        // A damaged index is as good as none.
        (Ok(None) | Err(LookupError::Index(_) | LookupError::Disagreement), Some(log)) => {
            let committed = Committed::nothing_of(log.view());
            let live = LiveTable::default();
            let is_empty = log.last_commit() == 0;
            let mut writer =
                Writer::new(log, keys.clone(), committed, live, place.clone(), Tail::default());
            if !is_empty {
                writer.mend_index().map_err(write)?;
            }
            let (committed, live) = (writer.committed.clone(), writer.live.clone());
            (Indexed { committed, live }, Some(writer))
        }
        (Ok(None) | Err(LookupError::Index(_) | LookupError::Disagreement), None) => {
            (rebuild::in_memory(&log.view(), &keys, &place).map_err(write)?, None)
        }
        (Err(error), _) => return Err(error.of(path, &place.path)),
    };
    let Indexed { mut committed, live } = indexed;
    committed.known = live.known();
    Ok(Opened { index: place, keys, log, committed, live, writer })
}

/// Opens the data file, or makes it. The time that others may take is waited for.
fn open_file(path: &Path, options: &Options) -> Result<OpenFile> {
    when_unlocked(options.lock_wait, || open_file_at_once(path, options))
}

/// What `open` yields, which is asked again for as long as somebody else has the store, and no longer than
/// `wait`.
pub(crate) fn when_unlocked<T>(wait: Duration, mut open: impl FnMut() -> Result<T>) -> Result<T> {
    let (start, mut pause) = (Instant::now(), LOCK_PAUSE_MIN);
    loop {
        let opened = open();
        let left = wait.saturating_sub(start.elapsed());
        if left.is_zero() || !matches!(opened, Err(Error::Locked { .. })) {
            return opened;
        }
        thread::sleep(pause.min(left));
        pause = (2 * pause).min(LOCK_PAUSE_MAX);
    }
}

fn open_file_at_once(path: &Path, options: &Options) -> Result<OpenFile> {
    let access = if options.read_only { Access::ReadOnly } else { Access::ReadWrite };
    let open = || OpenFile::open(Arc::clone(&options.storage), path, access, options.log.clone());
    match open() {
        Err(LogError::Io { cause, .. })
            if cause.kind() == io::ErrorKind::NotFound && options.create =>
        {
            if options.use_index_file {
                // Where it would have to be refused, nothing is made.
                check_is_index(&*options.index_storage(), &index_path(path), None)?;
            }
            let without = match zkv_log::create(&*options.storage, path, &options.log) {
                Err(LogError::Io { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
                    WITHOUT_FOLDER
                }
                // What has the name, and cannot be found, is a link.
                Err(LogError::Io { cause, .. }) if cause.kind() == io::ErrorKind::AlreadyExists => {
                    "it is a link, and what that leads to does not exist"
                }
                created => return created.and_then(|()| open()).map_err(Error::data(path)),
            };
            // Or else somebody was faster, whose store is as good, and has removed what this one was made of.
            open().map_err(|error| Error::data(path)(missing(error, without)))
        }
        Err(LogError::Empty { .. }) => open_empty(path, options, open),
        opened => opened.map_err(Error::data(path)),
    }
}

/// Makes a store of an empty file where one may be made and none was lost. An index file is made behind the data:
/// one that is there before that is seen to be empty is of a store that is gone.
pub(crate) fn open_empty(
    path: &Path,
    options: &Options,
    open: impl Fn() -> Result<OpenFile, LogError>,
) -> Result<OpenFile> {
    let (storage, index) = (options.index_storage(), index_path(path));
    let remedy = match zkv_index::may_be_index(&*storage, &index, None) {
        Ok(true) => Some(LOST),
        Ok(false) if options.create && options.use_index_file => {
            check_is_index(&*storage, &index, None)?;
            None
        }
        Ok(false) | Err(IndexError::Missing) => None,
        Err(error) => return Err(Error::index(&index)(error)),
    };
    let opened = match remedy {
        None if options.create => {
            zkv_log::create_of_empty(&*options.storage, path, &options.log).and_then(|()| open())
        }
        _ => open(),
    };
    opened
        .map_err(|error| match (error, remedy) {
            (LogError::Empty { .. }, Some(remedy)) => LogError::Empty { remedy },
            (error, _) => error,
        })
        .map_err(Error::data(path))
}

/// Tells what is missing, where the system only says that something is.
fn missing(error: LogError, what: &str) -> LogError {
    match error {
        LogError::Io { action, cause } if cause.kind() == io::ErrorKind::NotFound => {
            let cause = io::Error::new(cause.kind(), format!("{what} ({cause})"));
            LogError::Io { action, cause }
        }
        error => error,
    }
}

/// Removes what crashes have left beside the store. Its lock is held, so nobody is writing them.
fn remove_temporaries(storage: &dyn Storage, path: &Path) {
    for (file, _) in temporaries(storage, path) {
        // What cannot be removed does no harm.
        let _ = storage.remove(&file);
    }
}

/// Removes what others have left that were making something of the name `path`, which nothing has. Who still does
/// has the lock of what is written.
pub(crate) fn remove_abandoned(storage: &dyn Storage, path: &Path) {
    let mut found = temporaries(storage, path);
    // The index of what is made goes with it, or behind it.
    found.sort();
    for (file, locked) in found {
        let is_abandoned = match storage.open(&locked, OpenMode::ReadWrite) {
            // One without a byte was perhaps made this moment, and is not locked yet.
            Ok(opened) => {
                opened.len().is_ok_and(|bytes| bytes > 0)
                    && matches!(opened.try_lock(LockKind::Exclusive), Ok(true))
            }
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if is_abandoned {
            // What cannot be removed does no harm.
            let _ = storage.remove(&file);
        }
    }
}

/// The temporary files of the store at `path`, each with the one whose lock tells whether it is still written.
fn temporaries(storage: &dyn Storage, path: &Path) -> Vec<(PathBuf, PathBuf)> {
    let Some(name) = path.file_name() else { return Vec::new() };
    let files = storage.list(parent_directory(path)).unwrap_or_default();
    let ours = files.into_iter().filter_map(|file| {
        // As they are: of two names that are no UTF-8, each may be shown as the other one.
        let found = file.file_name()?.as_encoded_bytes().strip_prefix(name.as_encoded_bytes())?;
        let ending =
            std::str::from_utf8(found).ok().filter(|ending| is_temporary_ending(ending))?;
        let mut locked = OsString::from(path);
        locked.push(&ending[..ending.find(TEMPORARY_SUFFIX)? + TEMPORARY_SUFFIX.len()]);
        Some((file, PathBuf::from(locked)))
    });
    ours.collect()
}

/// Whether a name goes on, behind the store's own, as those of temporary files do: `.` or `.idx.`,
/// 16 hexadecimal digits, and the suffix. A backup that is being made is a store under such a name,
/// with an index and temporary files of its own.
fn is_temporary_ending(ending: &str) -> bool {
    let without_index = ending.strip_suffix(".idx").unwrap_or(ending);
    let named = without_index.strip_suffix(TEMPORARY_SUFFIX).and_then(|rest| rest.rsplit_once('.'));
    named.is_some_and(|(before, digits)| {
        digits.len() == 16
            && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
            && (matches!(before, "" | ".idx") || is_temporary_ending(before))
    })
}

/// Recovers the log, from the index file's checkpoint where there is one that fits.
fn recover(
    file: &OpenFile,
    path: &Path,
    options: &Options,
) -> Result<(Recovered, Option<UsableCheckpoint>)> {
    if !options.use_index_file {
        if !options.read_only {
            remove_foreign_index_unused(file, path, options)?;
        }
        let recovered = file.recover(None).map_err(Error::data(path))?;
        return Ok((recovered, None));
    }
    let found = load_checkpoint(file, path, options)?;
    if found.is_none() && !options.read_only {
        let store_id = file.identity().store_id;
        check_is_index(&*options.index_storage(), &index_path(path), Some(store_id))?;
    }
    let (mut usable, log_section) = found.unzip();
    let recovered = file.recover(log_section.as_deref()).map_err(Error::data(path))?;
    if let Some(from) = recovered.replay_from {
        usable.take_if(|usable| usable.leads_astray(&recovered, from));
    } else if usable.take().is_some() && !options.read_only {
        remove_foreign_index(path, options)?;
    }
    Ok((recovered, usable))
}

/// Refuses to replace, as an index, what is none: another store's data, as of stores that are called `a` and
/// `a.idx`, or some file of another program. What cannot be read may be an index in a bad sector.
pub(crate) fn check_is_index(
    storage: &dyn Storage,
    index: &Path,
    store_id: Option<[u8; 16]>,
) -> Result<()> {
    let mut magic = [0; FILE_MAGIC.len()];
    let read = storage.open(index, OpenMode::ReadOnly).and_then(|file| file.read_at(0, &mut magic));
    let refused = if read.is_ok() && magic == FILE_MAGIC {
        "it is the data file of another store: one of the two needs another name"
    } else if matches!(zkv_index::may_be_index(storage, index, store_id), Ok(false)) {
        "it is no index file of zkv, for which the store needs this name: move or rename it, or give the \
         store another name"
    } else {
        return Ok(());
    };
    Err(Error::file(index)(io::Error::new(io::ErrorKind::AlreadyExists, refused)))
}

/// Removes an index file that is of another state than the log's past, before anything is appended:
/// what a crash tears then would stand below a place that this file knows to be durable, and would be
/// taken for damage.
fn remove_foreign_index(path: &Path, options: &Options) -> Result<()> {
    let (storage, index) = (options.index_storage(), index_path(path));
    let removed = storage.remove(&index).and_then(|()| storage.sync_dir(parent_directory(&index)));
    removed.map_err(Error::file(&index))
}

/// As [`remove_foreign_index`], where the index file is not used now: it may be, by the next opening.
fn remove_foreign_index_unused(file: &OpenFile, path: &Path, options: &Options) -> Result<()> {
    let Some((_, log_section)) = load_checkpoint(file, path, options)? else { return Ok(()) };
    match file.recover(Some(&log_section)) {
        Ok(Recovered { replay_from: None, .. }) => remove_foreign_index(path, options),
        // Where the two do not go together because the log is damaged, the file still proves it.
        _ => Ok(()),
    }
}

/// The index file, where it is whole and this store's. Anything else is set aside: the log has all
/// that it has.
///
/// # Errors
/// Where there are no more file handles, or no more memory: the file may be as good as ever then.
fn load_checkpoint(
    file: &OpenFile,
    path: &Path,
    options: &Options,
) -> Result<Option<(UsableCheckpoint, Vec<u8>)>> {
    let store_id = file.identity().store_id;
    let (storage, index) = (options.index_storage(), index_path(path));
    match Checkpoint::open(&*storage, &index, store_id, !options.read_only) {
        Ok(checkpoint) => Ok(use_checkpoint(checkpoint, file)),
        Err(IndexError::Io(error)) if is_exhausted(&error) => {
            Err(Error::index(&index)(IndexError::Io(error)))
        }
        Err(_) => Ok(None),
    }
}

fn use_checkpoint(checkpoint: Checkpoint, file: &OpenFile) -> Option<(UsableCheckpoint, Vec<u8>)> {
    if !sections::may_be_of(&checkpoint, file.file_bytes().ok()?) {
        return None;
    }
    let log_section = checkpoint.section(LOG_SECTION).ok()??;
    let tables = Tables::read(&checkpoint).ok()??;
    Some((UsableCheckpoint { checkpoint, tables }, log_section))
}

pub(crate) fn index_place(path: &Path, options: &Options) -> IndexPlace {
    let is_lasting = options.use_index_file && !options.read_only;
    let storage: Arc<dyn Storage> = match is_lasting {
        true => Arc::new(PrivateStorage::new(options.index_storage(), path)),
        false => Arc::new(MemoryStorage::new()),
    };
    let scratch = if options.read_only {
        // The store's own folder may be read-only.
        std::env::temp_dir().join("zkv-index")
    } else {
        index_path(path)
    };
    IndexPlace {
        storage,
        path: index_path(path),
        scratch_storage: Arc::clone(&options.storage),
        scratch,
        is_lasting,
        thresholds: options.index_thresholds,
    }
}

/// Applies what came behind the checkpoint, and measures it.
fn replay(
    usable: UsableCheckpoint,
    log: &LogView,
    from: Position,
    keys: &Keys,
    tail: &mut Tail,
) -> Result<Indexed, LookupError> {
    let UsableCheckpoint { checkpoint, tables: Tables { mut live, counts, catalog } } = usable;
    let mut committed = Committed {
        checkpoint: Some(Arc::new(checkpoint)),
        counts: Arc::new(counts),
        catalog: Arc::new(catalog),
        ..Committed::nothing_of(log.clone())
    };
    let mut replay = Replay::new(keys, &mut committed, &mut live, log.identity().slot_bytes);
    for segment in log.segments() {
        if segment.sequence < from.sequence {
            continue;
        }
        let first = (segment.sequence == from.sequence).then_some(from.offset);
        tail.bytes += u64::from(segment.data_bytes.saturating_sub(first.unwrap_or(0)));
        let mut scan = log.scan(segment.slot, first)?;
        while let Some(block) = scan.next_block()? {
            replay.reach(block.position);
            for entry in block.entries()? {
                let record = rebuild::decode_entry(entry?, block.location, block.position, log)?;
                replay.apply(&record, block.location)?;
                tail.records += 1;
            }
        }
    }
    replay.finish();
    committed.log = log.clone();
    Ok(Indexed { committed, live })
}

#[cfg(test)]
mod tests {
    use super::is_temporary_ending;

    #[test]
    fn only_names_of_temporary_files_are_removed() {
        let temporary = ".0123456789abcdef.zkv-tmp";
        for before in ["", ".idx", temporary, &format!("{temporary}.idx")] {
            assert!(is_temporary_ending(&format!("{before}{temporary}")), "{before}");
        }
        assert!(is_temporary_ending(&format!("{temporary}.idx")));
        let others =
            [".idx", "", ".zkv-tmp", ".0123.zkv-tmp", "x.0123456789abcdef.zkv-tmp", ".idx.idx"];
        for other in others {
            assert!(!is_temporary_ending(other), "{other}");
            assert!(!is_temporary_ending(&format!("{other}x{temporary}")), "{other}");
        }
    }
}
