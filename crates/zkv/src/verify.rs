//! Finding out what is wrong with a store.

mod index;
mod records;
mod values;

use std::borrow::Cow;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use zkv_index::Run;
use zkv_io::ReadMode;
use zkv_log::{LogError, LogVerifier, OpenFile, Severity};

use crate::error::{Error, Result, is_lost};
use crate::keys::Keys;
use crate::metadata::live::LiveTable;
use crate::metadata::sections::LOG_SECTION;
use crate::open::rebuild::Facts;
use crate::open::{index_path, index_place, open_empty, when_unlocked};
use crate::options::Options;
use crate::read::view::Committed;
use crate::shared::Shared;
use crate::store::Store;
use crate::write::writer::{IndexPlace, Writer, merge_all};

use self::index::KnownIndex;
use self::records::Records;

/// How many findings are kept: a file of noise has one in every block.
const FINDINGS_MAX: usize = 1000;

/// One of a store's two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreFile {
    /// The data file.
    Data,
    /// The index file, which can be made anew from the data file.
    Index,
}

/// One thing that is wrong with a store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// Where.
    pub file: StoreFile,
    /// Where in that file, in bytes from its start.
    pub offset: u64,
    /// What it is, and what the system has said where it refused something.
    pub what: Cow<'static, str>,
    /// How bad it is.
    pub severity: Severity,
    /// Whether it is the index that is at fault, wherever the place is: [`Store::rebuild_index`] mends that, and
    /// a compaction, which goes by the index, would lose what that does not know.
    pub is_of_index: bool,
}

/// What became of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IndexState {
    /// There is no index file, or none is used: no damage, since it is made anew.
    Missing,
    /// It is of another store, of another state than the log's past, or of a newer version: opening
    /// the store sets it aside. Or it is no index file at all, which opening to write refuses.
    SetAside,
    /// It was not held against the records, since it or the data is damaged: what the damage holds
    /// cannot be known. Or it could not be read.
    NotCompared,
    /// It was checked and held against the records, as of when it was written.
    Compared,
}

/// How far a verification is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyProgress {
    /// Bytes of both files that are done.
    pub bytes_done: u64,
    /// About how many there are.
    pub bytes_total: u64,
}

/// What a verification found. See [`verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// What is wrong, in the order in which it was found: the first thousand of it.
    pub findings: Vec<Finding>,
    /// How many more findings there are.
    pub findings_left_out: u64,
    /// The worst of all findings.
    pub worst: Option<Severity>,
    /// What became of the index.
    pub index: IndexState,
    /// Segments that were read.
    pub segments: u64,
    /// Whole blocks of the data file.
    pub blocks: u64,
    /// Records in those blocks, live or not.
    pub records: u64,
    /// Buckets of the index file.
    pub index_buckets: u64,
    /// Bytes of both files that were read.
    pub bytes: u64,
}

impl VerifyReport {
    /// Whether nothing is damaged. There may be findings all the same: [`Severity::Notice`].
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.worst.is_none_or(|worst| worst == Severity::Notice)
    }

    /// A sound store may depend on its index all the same: until a later header names a newer roll call, the log
    /// alone is read through segments that were freed since.
    fn check_without_index(&mut self, file: &OpenFile) -> Result<(), LogError> {
        let has_index = matches!(self.index, IndexState::Compared | IndexState::NotCompared);
        if !has_index || !self.is_sound() {
            return Ok(());
        }
        match file.recover(None) {
            Err(LogError::Corrupt { offset, .. }) => {
                let what = "a segment that was freed; without the index file the store does not open, until \
                        another segment is begun";
                let severity = Severity::Mendable;
                let (file, what) = (StoreFile::Data, what.into());
                self.findings.push(Finding { file, offset, what, severity, is_of_index: false });
                self.worst = Some(severity);
                Ok(())
            }
            // Nothing is known of what may be there.
            Err(error @ LogError::Io { .. }) if !is_lost(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Reads the whole store at `path`, writing nothing, and reports everything that is wrong with it,
/// in whatever state it is: a store that does not open for its damage is read as far as anything
/// tells of it. Of `options` only those count that say where and how the files are.
///
/// Every bit of both files that is in use is held against something: each header with the zeros
/// behind it, each block, each seal with its digest, each bucket and section of the index; what
/// records, values in pieces, commits, roll calls, seals and segments say of each other; and the
/// index and its counts against the records, as of when the index was written. What a crash may
/// have torn behind the log's end is no damage, and a [`Severity::Notice`]; rot in what was written
/// since the last sync before a crash looks the same, and is one, too. Not looked at are gaps between
/// the last block of a segment and its seal, which nothing ever reads, and free slots, which nothing reads
/// either, but for those through which an opening without the index would be led for a while: where that is
/// refused for them, it is [`Severity::Mendable`].
///
/// The files are read in [`ReadMode::Pread`]: what the disk cannot read is a finding.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("pages.zkv");
/// # zkv::Store::open(&path)?.close()?;
/// let report = zkv::verify(&path, zkv::Options::new(), |_| {})?;
/// assert!(report.is_sound() && report.findings.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Of kind `Locked` where the store is open for writing, and stays so for [`Options::lock_wait`]:
/// [`Store::verify`] serves its holder.
/// `NotFound`; `Corrupt` where no header in the file says that it is a data file; `UnsupportedVersion`; `Io`
/// where a file cannot be opened, or there is no room for temporary files; or where a read of the data file fails
/// though what it was after may be there, as for want of memory: nothing is known of that, and another verification
/// may tell. One of the index file is a [`Severity::Notice`], or such an error.
pub fn verify(
    path: impl AsRef<Path>,
    options: Options,
    mut progress: impl FnMut(VerifyProgress),
) -> Result<VerifyReport> {
    let path = path.as_ref();
    let mut options = options.read_mode(ReadMode::Pread);
    options.read_only = true;
    options.create = false;
    let open = || {
        let (storage, log_options) = (Arc::clone(&options.storage), options.log.clone());
        OpenFile::open_to_verify(storage, path, log_options)
    };
    let file = when_unlocked(options.lock_wait, || match open() {
        Err(LogError::Empty { .. }) => open_empty(path, &options, open),
        opened => opened.map_err(Error::data(path)),
    })?;
    let mut work = Work::new(path, &options, &mut progress);
    let store_id = file.identity().store_id;
    let known = work.check_index_file(store_id)?;
    let verifier = file.verifier(known.as_ref().map(|known| &*known.log_section));
    let mut report = work.check_all(&verifier, &Keys::new(file.identity().hash_key), known)?;
    report.check_without_index(&file).map_err(Error::data(path))?;
    Ok(report)
}

impl Store {
    /// As [`verify`](crate::verify), for a store that this process has open. What waits in buffers
    /// is flushed first; then it is the store of this moment that is read. Writes go on meanwhile.
    ///
    /// # Errors
    /// As [`Store::flush`]; of kind `StorageFull` where there is no room for temporary files, `Io` where a read
    /// fails as there.
    pub fn verify(&self, mut progress: impl FnMut(VerifyProgress)) -> Result<VerifyReport> {
        let shared = self.shared();
        let mut work = Work::new(&shared.path, &shared.options, &mut progress);
        let Some(opened) = shared.opened()? else {
            let log = shared.view.load_full().committed.log.clone();
            let known = work.check_index_file(log.identity().store_id)?;
            let section = known.as_ref().map(|known| &*known.log_section);
            return work.check_all(&log.verifier(section, false), &shared.keys, known);
        };
        let log = opened.committed.log.clone();
        let known = work.check_open_index(opened)?;
        let section = known.as_ref().map(|known| &*known.log_section);
        let verifier = log.verifier(section.filter(|section| !section.is_empty()), true);
        work.check_all(&verifier, &shared.keys, known)
    }
}

/// A store that is open for writing, at one moment.
struct Opened {
    committed: Committed,
    live: LiveTable,
}

impl Shared {
    /// Flushes, and takes what is then in the log; `None` where the store is open read-only.
    fn opened(&self) -> Result<Option<Opened>> {
        let of = |writer: &Writer| {
            Some(Opened { committed: writer.committed_view(), live: writer.live.clone() })
        };
        let flushed = self.mended(|| {
            let mut writer = self.writer()?;
            self.flush_all(&mut writer)?;
            Ok(of(&writer))
        });
        match flushed {
            Err(Error::ReadOnly) => Ok(None),
            // Another handle has closed the store, with everything flushed.
            Err(Error::Closed) => Ok(self
                .writer
                .as_ref()
                .and_then(|writer| of(&writer.lock().unwrap_or_else(PoisonError::into_inner)))),
            flushed => flushed,
        }
    }
}

/// A verification that is going on.
struct Work<'a> {
    path: &'a Path,
    options: &'a Options,
    place: IndexPlace,
    report: VerifyReport,
    progress: &'a mut dyn FnMut(VerifyProgress),
    bytes_done: u64,
    bytes_total: u64,
}

impl<'a> Work<'a> {
    fn new(
        path: &'a Path,
        options: &'a Options,
        progress: &'a mut dyn FnMut(VerifyProgress),
    ) -> Self {
        let report = VerifyReport {
            findings: Vec::new(),
            findings_left_out: 0,
            worst: None,
            index: IndexState::Missing,
            segments: 0,
            blocks: 0,
            records: 0,
            index_buckets: 0,
            bytes: 0,
        };
        let place = index_place(path, options);
        Self { path, options, place, report, progress, bytes_done: 0, bytes_total: 0 }
    }

    fn add(&mut self, finding: Finding) {
        self.report.worst = self.report.worst.max(Some(finding.severity));
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(finding);
        } else {
            self.report.findings_left_out += 1;
        }
    }

    fn add_in(
        &mut self,
        file: StoreFile,
        offset: u64,
        what: impl Into<Cow<'static, str>>,
        severity: Severity,
    ) {
        let is_of_index = file == StoreFile::Index;
        self.add(Finding { file, offset, what: what.into(), severity, is_of_index });
    }

    /// Adds a place in the data file of which the index says something else.
    fn add_differing(&mut self, offset: u64, what: &'static str) {
        let (file, severity) = (StoreFile::Data, Severity::Mendable);
        self.add(Finding { file, offset, what: what.into(), severity, is_of_index: true });
    }

    fn done(&mut self, bytes: u64) {
        self.bytes_done += bytes;
        // What is reported of a file that is damaged is an estimate.
        let bytes_total = self.bytes_total.max(self.bytes_done);
        (self.progress)(VerifyProgress { bytes_done: self.bytes_done, bytes_total });
    }

    /// Reads the log, and holds the index against it.
    fn check_all(
        mut self,
        verifier: &LogVerifier,
        keys: &Keys,
        known: Option<KnownIndex>,
    ) -> Result<VerifyReport> {
        let path = self.path;
        self.bytes_total = self.bytes_done + verifier.bytes();
        let known = known.filter(|known| self.is_of_log(known, verifier));
        let until = known.as_ref().and_then(|known| known.is_of_file.then(|| verifier.watermark()));
        let facts = known.is_some().then(|| Facts::new(&self.place));
        let mut records = Records::new(&mut self, keys, facts, until.flatten());
        let read = verifier.run(&mut records).map_err(Error::data(path))?;
        let facts = records.finish().map_err(Error::index(&self.place.scratch))?;
        self.report.segments = read.segments;
        self.report.blocks = read.blocks;
        self.report.records = read.entries;
        self.report.bytes += read.bytes;
        if read.is_checkpoint_right == Some(false) {
            let what = "what the index keeps of the log is not what the log says";
            self.add_in(StoreFile::Index, 0, what, Severity::Mendable);
        }
        if let (Some(known), Some(facts)) = (known, facts) {
            let slot_bytes = verifier.slot_bytes();
            self.compare(&known, facts, slot_bytes).map_err(Error::index(&self.place.path))?;
        }
        Ok(self.report)
    }

    /// Whether the index knows a state of the log that can still be told.
    fn is_of_log(&mut self, known: &KnownIndex, verifier: &LogVerifier) -> bool {
        let leads_there = |watermark| !known.live.has_others(verifier.slots_until(watermark));
        let is_of_log = !known.is_of_file || verifier.watermark().is_some_and(leads_there);
        if !is_of_log {
            self.report.index = IndexState::SetAside;
            let what = "it knows another state of the log than this one or its past; opening the \
                        store sets it aside";
            self.add_in(StoreFile::Index, 0, what, Severity::Notice);
        }
        is_of_log
    }
}
