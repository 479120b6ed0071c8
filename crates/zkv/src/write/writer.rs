//! The store's only writer, and the index files that it writes.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zkv_index::{Checkpoint, IndexError, Run, Thresholds, write_first};
use zkv_io::{MemoryStorage, Storage, parent_directory};
use zkv_log::{LogError, LogWriter};

use crate::error::{Error, is_without_room};
use crate::keys::Keys;
use crate::metadata::live::LiveTable;
use crate::metadata::sections::Sections;
use crate::open::rebuild::{self, Indexed, RebuiltIndex};
use crate::read::cache::CheckpointId;
use crate::read::view::{Committed, LookupError};
use crate::write::rewrite::Rewrite;
use crate::write::tail::Tail;

/// Why a commit failed. Nothing of it is visible then.
#[derive(Debug)]
pub(crate) enum WriteError {
    Log(LogError),
    Index(IndexError),
    Lookup(LookupError),
}

impl WriteError {
    /// As the error of the store whose files these are.
    pub(crate) fn of(self, path: &Path, index_path: &Path) -> Error {
        match self {
            Self::Log(error) => Error::data(path)(error),
            Self::Index(error) => Error::index(index_path)(error),
            Self::Lookup(error) => error.of(path, index_path),
        }
    }

    /// Whether nothing is wrong but that files cannot be written.
    fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Log(LogError::Io { .. } | LogError::SyncFailed { .. })
                | Self::Index(IndexError::Io(_) | IndexError::NotAnIndex)
        )
    }

    /// Whether the index file cannot grow, or be made, and most likely cannot in a moment, either: there is
    /// no room, it may not be written, or something else has its name.
    fn is_index_refused(&self) -> bool {
        match self {
            Self::Index(IndexError::Io(error)) => {
                let kinds = [io::ErrorKind::PermissionDenied, io::ErrorKind::IsADirectory];
                is_without_room(error) || kinds.contains(&error.kind())
            }
            Self::Index(IndexError::NotAnIndex) => true,
            _ => false,
        }
    }
}

impl From<LogError> for WriteError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<IndexError> for WriteError {
    fn from(error: IndexError) -> Self {
        Self::Index(error)
    }
}

impl From<LookupError> for WriteError {
    fn from(error: LookupError) -> Self {
        Self::Lookup(error)
    }
}

/// Where the index checkpoints go.
#[derive(Clone, Debug)]
pub(crate) struct IndexPlace {
    pub storage: Arc<dyn Storage>,
    pub path: PathBuf,
    /// Where a rebuild that does not fit memory spills to.
    pub scratch_storage: Arc<dyn Storage>,
    pub scratch: PathBuf,
    /// Whether it is a file that outlives the process.
    pub is_lasting: bool,
    pub thresholds: Thresholds,
}

impl IndexPlace {
    /// A place that lasts no longer than what is put there.
    pub(crate) fn in_memory(&self) -> Self {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        Self { storage, is_lasting: false, ..self.clone() }
    }

    /// The same, where not even a scratch file can be written.
    pub(crate) fn without_files(&self) -> Self {
        let place = self.in_memory();
        Self { scratch_storage: Arc::clone(&place.storage), ..place }
    }
}

/// Whoever holds this is the store's only writer.
#[derive(Debug)]
pub(crate) struct Writer {
    pub log: LogWriter,
    pub keys: Keys,
    pub committed: Committed,
    pub live: LiveTable,
    pub index: IndexPlace,
    /// Slots of segments of which nothing is needed any longer; an index file may still lead there.
    pub cleaned: HashSet<u32>,
    /// Segments, by sequence, to which cleaning has moved something since the store was opened: that is packed
    /// as well as it can be, whatever it looks like.
    pub moved_to: HashSet<u64>,
    /// What came behind the last checkpoint; its `changes` are those of the runs.
    pub tail: Tail,
    /// What that was when a checkpoint was attempted last, and failed or goes on.
    pub attempted: Tail,
    /// The index file that is being written beside this, if one is.
    pub rewrite: Option<Rewrite>,
    /// Whether the last one could not be: the next one is written here, and whoever asked for it is told.
    pub has_rewrite_failed: bool,
    /// Whether the index is in memory because its file could not be written.
    is_index_file_missing: bool,
    /// Whether the index file was removed, or has lost its name, and the next one could not be written.
    is_index_file_removed: bool,
    /// Set while the index learns of a commit. It stays set where that panics: the index then lacks
    /// what the log has.
    pub is_applying: bool,
}

impl Writer {
    pub(crate) fn new(
        log: LogWriter,
        keys: Keys,
        committed: Committed,
        live: LiveTable,
        index: IndexPlace,
        tail: Tail,
    ) -> Self {
        Self {
            log,
            keys,
            committed,
            live,
            index,
            cleaned: HashSet::new(),
            moved_to: HashSet::new(),
            tail,
            attempted: Tail::default(),
            rewrite: None,
            has_rewrite_failed: false,
            is_index_file_missing: false,
            is_index_file_removed: false,
            is_applying: false,
        }
    }

    /// Makes the index anew where a panic has kept it from learning of the last commit.
    pub(crate) fn catch_up(&mut self) -> Result<(), WriteError> {
        if self.is_applying { self.rebuild_index() } else { Ok(()) }
    }

    /// What readers may see: nothing behind the last commit.
    pub(crate) fn committed_view(&self) -> Committed {
        Committed { known: self.live.known(), ..self.committed.clone() }
    }

    /// Whether a crash now would make the next opening slow.
    pub(crate) fn is_checkpoint_due(&self) -> bool {
        match self.rewrite {
            None => self.tail_now().is_due(&self.attempted),
            Some(_) => self.tail_now().is_overdue(&self.attempted),
        }
    }

    pub(crate) fn tail_now(&self) -> Tail {
        let changes = self.committed.runs.iter().map(|run| run.len()).sum();
        Tail { changes, ..self.tail }
    }

    /// Whether a closing store writes a checkpoint: the index file lacks something, and more than the next
    /// opening replays at once.
    pub(crate) fn is_checkpoint_due_to_close(&self) -> bool {
        let is_file_behind = !self.goes_by_its_file() || self.rewrite.is_some();
        let tail = self.tail_now();
        is_file_behind || !self.cleaned.is_empty() || !tail.may_be_left()
    }

    /// Whether the index is that of the index file, and of what came behind it.
    pub(crate) fn goes_by_its_file(&self) -> bool {
        self.committed.checkpoint.is_some()
            && !self.is_index_file_missing
            && !self.is_index_file_removed
            && !self.is_applying
    }

    /// Writes the index of everything up to now, after making the log durable, and frees the segments
    /// that it shows to be empty.
    pub(crate) fn checkpoint(&mut self) -> Result<(), WriteError> {
        self.write_checkpoint()?;
        self.free_cleaned()
    }

    /// Frees what was cleaned without an index file, where a checkpoint has failed since none can be
    /// written: otherwise the data file would grow for as long as that lasts.
    /// [`Writer::restore_index_file`] makes up for it.
    pub(crate) fn free_instead(&mut self, error: WriteError) -> Result<(), WriteError> {
        let may_go = error.is_index_refused() && !self.cleaned.is_empty();
        if !may_go || self.is_applying || self.remove_index_file().is_err() {
            return Err(error);
        }
        self.free_cleaned()
    }

    /// Removes the index file, so that no opening finds one that leads into segments which are freed
    /// next. What is open of it stays readable. What has its name and is none stays, too.
    fn remove_index_file(&mut self) -> io::Result<()> {
        let (storage, path) = (&*self.index.storage, &*self.index.path);
        self.retire_checkpoint();
        let store_id = self.log.log().identity().store_id;
        let is_foreign = match zkv_index::may_be_index(storage, path, Some(store_id)) {
            Ok(may_be) => !may_be,
            Err(IndexError::Io(error)) => error.kind() == io::ErrorKind::IsADirectory,
            Err(_) => false,
        };
        if !is_foreign {
            match storage.remove(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.is_index_file_removed = true;
        // Also where somebody else has removed it: a crash could bring it back.
        storage.sync_dir(parent_directory(path))
    }

    /// Whether the index file has gone to let segments go.
    pub(crate) fn is_index_file_removed(&self) -> bool {
        self.is_index_file_removed
    }

    /// Writes the index file again that was removed.
    pub(crate) fn restore_index_file(&mut self) -> Result<(), WriteError> {
        self.write_checkpoint()
    }

    /// Bytes that are enough for the next index file, beside the present one.
    pub(crate) fn index_room_bytes(&self) -> u64 {
        const CHANGE_BYTES: u64 = 32; // A table's entry takes 12 at the most, and half as many are free.
        const SECTIONS_BYTES: u64 = 128 << 10;
        if !self.index.is_lasting {
            return 0;
        }
        let present = self.committed.checkpoint.as_ref().map_or(0, |present| present.file_bytes());
        let changes: u64 = self.committed.runs.iter().map(|run| run.len() as u64).sum();
        present + CHANGE_BYTES * changes + SECTIONS_BYTES
    }

    fn write_checkpoint(&mut self) -> Result<(), WriteError> {
        self.finish_rewrite();
        self.attempted = self.tail_now();
        if self.is_index_file_missing || self.is_applying {
            return self.rebuild_index();
        }
        let log_section = self.log.checkpoint()?;
        let run = merge_all(&self.committed.runs);
        let sections = self.sections(log_section);
        let (storage, path) = (&*self.index.storage, &*self.index.path);
        let next = sections.write_with(|meta| match &self.committed.checkpoint {
            Some(checkpoint) => {
                checkpoint.write_next_with(storage, path, &run, meta, &self.index.thresholds)
            }
            None => write_first(storage, path, &run, meta),
        });
        match next {
            Ok(next) => self.set_checkpoint(next),
            // The file beneath is damaged: the log knows better.
            Err(IndexError::Corrupt { .. } | IndexError::Mismatch) => self.rebuild_index()?,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// What the index file holds besides the index.
    pub(crate) fn sections(&self, log_section: Vec<u8>) -> Sections {
        let Committed { counts, catalog, .. } = &self.committed;
        let store_id = self.log.log().identity().store_id;
        Sections::new(store_id, log_section, &self.live, counts, catalog)
    }

    /// Makes the index anew from the log alone, in memory where its file cannot be written: reading
    /// does not need that, and the next checkpoint makes up for it.
    pub(crate) fn mend_index(&mut self) -> Result<(), WriteError> {
        match self.rebuild_index() {
            Err(error) if error.is_refusal() => {
                let indexed = rebuild::in_memory(&self.log.view(), &self.keys, &self.index);
                // Behind a sync that failed, the system may read what is older: no damage.
                let Ok(Indexed { committed, mut live }) = indexed else { return Err(error) };
                self.cleaned.iter().for_each(|slot| live.forget(*slot));
                (self.committed, self.live) = (committed, live);
                (self.is_index_file_missing, self.is_applying) = (true, false);
                Ok(())
            }
            rebuilt => rebuilt,
        }
    }

    /// Makes the index anew from the log alone.
    pub(crate) fn rebuild_index(&mut self) -> Result<(), WriteError> {
        self.drop_rewrite();
        let log_section = self.log.checkpoint()?;
        let view = self.log.view();
        let rebuilt = rebuild::from_log(&view, &self.keys, &self.index)?;
        let RebuiltIndex { index, mut live, counts, catalog } = rebuilt;
        self.cleaned.iter().for_each(|slot| live.forget(*slot));
        let store_id = self.log.log().identity().store_id;
        let sections = Sections::new(store_id, log_section, &live, &counts, &catalog);
        let (storage, path) = (&*self.index.storage, &*self.index.path);
        self.retire_checkpoint();
        let written = sections.write_with(|meta| index.write(storage, path, meta))?;
        self.committed.counts = Arc::new(counts);
        self.committed.catalog = Arc::new(catalog);
        self.live = live;
        self.set_checkpoint(written);
        Ok(())
    }

    /// Lets no later checkpoint go to the file of the present one, which is about to lose its name.
    pub(crate) fn retire_checkpoint(&self) {
        if let Some(checkpoint) = &self.committed.checkpoint {
            checkpoint.retire();
        }
    }

    pub(crate) fn set_checkpoint(&mut self, checkpoint: Checkpoint) {
        self.committed.checkpoint = Some(Arc::new(checkpoint));
        self.committed.checkpoint_id = CheckpointId::next();
        self.committed.checkpoint_end = self.log.end();
        self.committed.runs = Vec::new();
        self.committed.log = self.log.view();
        (self.tail, self.attempted) = (Tail::default(), Tail::default());
        (self.is_index_file_missing, self.is_applying) = (false, false);
        (self.is_index_file_removed, self.has_rewrite_failed) = (false, false);
    }
}

pub(crate) fn merge_all(runs: &[Arc<Run>]) -> Run {
    let mut newest_first = runs.iter();
    let Some(newest) = newest_first.next() else { return Run::from_changes(Vec::new()) };
    newest_first.fold((**newest).clone(), |newer, older| Run::merge(&newer, older))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use zkv_io::MemoryStorage;

    use crate::options::{Cleaning, Options};

    #[test]
    fn a_commit_that_the_index_has_not_learnt_of_is_found_by_the_next_one() {
        let storage = Arc::new(MemoryStorage::new());
        let store = Options::new().storage(storage).open("store.zkv").unwrap();
        store.set_bytes(b"a", b"1").unwrap();
        store.flush().unwrap();
        {
            // As a panic would leave it.
            let mut writer = store.shared().writer().unwrap();
            writer.committed.runs.clear();
            writer.committed.counts = Arc::default();
            writer.is_applying = true;
        }
        store.set_bytes(b"b", b"2").unwrap();
        store.flush().unwrap();
        assert_eq!(store.get_bytes(b"a").unwrap().unwrap(), b"1");
        assert_eq!(store.get_bytes(b"b").unwrap().unwrap(), b"2");
        assert_eq!(store.len(), 2);
    }

    #[test]
    fn what_a_session_has_written_and_deleted_is_not_left_to_the_next_opening() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("queue.zkv");
        let open = || Options::new().cleaning(Cleaning::Off).open(&path).unwrap();
        open().close().unwrap();
        let store = open();
        for number in 0..100u32 {
            store.set(&number, &number).unwrap();
        }
        store.flush().unwrap();
        for number in 0..100u32 {
            store.delete(&number).unwrap();
        }
        store.close().unwrap();
        let store = open();
        let records = store.shared().writer().unwrap().tail.records;
        assert!(records <= 64, "{records}");
    }
}
