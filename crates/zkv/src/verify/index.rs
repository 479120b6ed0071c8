//! The index: checked for itself, and held against the records.

use std::io;

use zkv_index::{Checkpoint, Difference, IndexError, IndexFinding, VerifiedIndex};
use zkv_io::{OpenMode, is_lost};
use zkv_log::layout::{CELL_BYTES, FILE_HEADER_BYTES, slot_start};

use crate::metadata::catalog::Catalog;
use crate::metadata::counts::KeyCounts;
use crate::metadata::sections::{self, Tables, section_of};
use crate::open::check_is_index;
use crate::open::rebuild::RebuiltIndex;

use super::{
    Error, Facts, IndexState, LOG_SECTION, LiveTable, Opened, Result, Run, Severity, StoreFile,
    Work, index_path, merge_all,
};

/// What an index says, to be held against the records.
pub(super) struct KnownIndex {
    checkpoint: Option<Checkpoint>,
    /// What came behind the checkpoint.
    changes: Run,
    pub(super) live: LiveTable,
    counts: KeyCounts,
    catalog: Catalog,
    /// What the checkpoint keeps of the log; empty where it keeps nothing.
    pub log_section: Vec<u8>,
    /// Whether it is what stands in the file, and so the index of an earlier moment.
    pub is_of_file: bool,
    is_whole: bool,
}

impl Work<'_> {
    /// Checks the index file; `None` where it cannot be used.
    pub(super) fn check_index_file(&mut self, store_id: [u8; 16]) -> Result<Option<KnownIndex>> {
        if !self.options.use_index_file {
            return Ok(None);
        }
        let (path, options) = (index_path(self.path), self.options);
        if check_is_index(&*options.storage, &path, Some(store_id)).is_err() {
            self.report.index = IndexState::SetAside;
            let what = "it is no index file of zkv; opening the store to write is refused until it is moved \
                        or renamed";
            self.add_in(StoreFile::Index, 0, what, Severity::Mendable);
            return Ok(None);
        }
        let data = options.storage.open(self.path, OpenMode::ReadOnly);
        let data_bytes = data.and_then(|data| data.len()).map_err(Error::file(self.path))?;
        let verified = zkv_index::verify(&options.storage, &path, store_id, &mut |found| {
            self.add_index_finding(found);
        });
        let known = verified.and_then(|verified| self.known_of(verified, data_bytes));
        let set_aside = match known {
            Ok(known) => return Ok(known),
            Err(IndexError::Missing) => return Ok(None),
            Err(IndexError::Foreign { .. }) => {
                "it is of another store; opening the store sets it aside"
            }
            Err(IndexError::UnsupportedVersion { .. } | IndexError::UnsupportedFeatures { .. }) => {
                "another version wrote it; opening the store sets it aside"
            }
            Err(IndexError::Io(error)) => {
                self.add_unreadable_index(&error);
                return Ok(None);
            }
            Err(error) => return Err(Error::index(&path)(error)),
        };
        self.report.index = IndexState::SetAside;
        self.add_in(StoreFile::Index, 0, set_aside, Severity::Notice);
        Ok(None)
    }

    fn add_unreadable_index(&mut self, error: &io::Error) {
        self.report.index = IndexState::NotCompared;
        // A file that this user may not read, or not now, is as good as ever.
        let severity = if is_lost(error) { Severity::Mendable } else { Severity::Notice };
        let what = format!("the index file cannot be read: {error}");
        self.add_in(StoreFile::Index, 0, what, severity);
    }

    fn add_index_finding(&mut self, finding: IndexFinding) {
        let severity = if finding.is_damage { Severity::Mendable } else { Severity::Notice };
        self.add_in(StoreFile::Index, finding.offset, finding.what, severity);
    }

    fn count_index(&mut self, verified: &VerifiedIndex) {
        self.report.index_buckets = verified.buckets;
        self.report.bytes += verified.bytes;
        self.report.index = IndexState::NotCompared;
        self.bytes_total = self.bytes_done + verified.bytes;
        self.done(verified.bytes);
    }

    fn known_of(
        &mut self,
        verified: VerifiedIndex,
        data_bytes: u64,
    ) -> Result<Option<KnownIndex>, IndexError> {
        self.count_index(&verified);
        let is_whole = verified.is_whole;
        let Some(checkpoint) = verified.checkpoint else { return Ok(None) };
        if !sections::may_be_of(&checkpoint, data_bytes) {
            let what = "the index file's sections are longer than any of such a data file";
            self.add_in(StoreFile::Index, checkpoint.file_bytes(), what, Severity::Mendable);
            return Ok(None);
        }
        // Damage to the sections is found already.
        let (section, tables) = (section_of(&checkpoint, LOG_SECTION)?, Tables::read(&checkpoint)?);
        let (Some(log_section), Some(tables)) = (section, tables) else {
            if is_whole {
                let what = "the index file lacks a section";
                self.add_in(StoreFile::Index, checkpoint.file_bytes(), what, Severity::Mendable);
            }
            return Ok(None);
        };
        if checkpoint.key_count() != tables.counts.total() {
            let what = "the index file's header counts more or fewer keys than its section";
            self.add_in(StoreFile::Index, 0, what, Severity::Mendable);
        }
        Ok(Some(KnownIndex {
            changes: Run::from_changes(Vec::new()),
            live: tables.live,
            counts: tables.counts,
            catalog: tables.catalog,
            log_section,
            is_of_file: true,
            is_whole,
            checkpoint: Some(checkpoint),
        }))
    }

    /// Checks the index of a store that is open for writing; `None` where it cannot be read.
    pub(super) fn check_open_index(&mut self, opened: Opened) -> Result<Option<KnownIndex>> {
        match self.known_of_open(opened) {
            Ok(known) => Ok(Some(known)),
            Err(IndexError::Io(error)) => {
                self.add_unreadable_index(&error);
                Ok(None)
            }
            Err(error) => Err(Error::index(&self.place.path)(error)),
        }
    }

    fn known_of_open(&mut self, opened: Opened) -> Result<KnownIndex, IndexError> {
        let Opened { committed, live } = opened;
        let verified = match committed.checkpoint {
            Some(checkpoint) => {
                checkpoint.verify_with(&mut |found| self.add_index_finding(found))?
            }
            None => VerifiedIndex::default(),
        };
        self.count_index(&verified);
        let checkpoint = verified.checkpoint;
        let section = match &checkpoint {
            Some(checkpoint) => section_of(checkpoint, LOG_SECTION)?,
            None => None,
        };
        Ok(KnownIndex {
            changes: merge_all(&committed.runs),
            live,
            counts: KeyCounts::clone(&committed.counts),
            catalog: Catalog::clone(&committed.catalog),
            log_section: section.unwrap_or_default(),
            is_of_file: false,
            is_whole: verified.is_whole,
            checkpoint,
        })
    }

    /// Holds the index against what the records say.
    pub(super) fn compare(
        &mut self,
        known: &KnownIndex,
        facts: Facts,
        slot_bytes: u32,
    ) -> Result<(), IndexError> {
        // What damaged blocks hold, and what it supersedes, cannot be known.
        if !known.is_whole || self.report.worst == Some(Severity::Loss) {
            return Ok(());
        }
        let RebuiltIndex { index, live, counts, catalog } = facts.finish(slot_bytes)?;
        let mut differ = |difference| {
            let (location, what) = match difference {
                Difference::Unknown(location) => {
                    (location, "a live record that the index does not know")
                }
                Difference::Untrue(location) => {
                    (location, "a place that the index names, and that holds no live record")
                }
                _ => return,
            };
            let offset = FILE_HEADER_BYTES + location.get().saturating_mul(CELL_BYTES.into());
            self.add_differing(offset, what);
        };
        let compared = index.compare(known.checkpoint.as_ref(), &known.changes, &mut differ);
        if let Err(error) = compared {
            // Nothing is known of what may be there.
            if matches!(&error, IndexError::Io(error) if !is_lost(error)) {
                return Err(error);
            }
            let what = "the index file has changed, or cannot be read any longer";
            self.add_in(StoreFile::Index, 0, what, Severity::Mendable);
            return Ok(());
        }
        if counts != known.counts {
            let what = "the index counts more or fewer keys than there are";
            self.add_in(StoreFile::Index, 0, what, Severity::Mendable);
        }
        if catalog != known.catalog {
            let what = "the index knows other collections than there are";
            self.add_in(StoreFile::Index, 0, what, Severity::Mendable);
        }
        for slot in live.differing_slots(&known.live) {
            let what = "the index counts other records in this segment than there are";
            self.add_differing(slot_start(slot, slot_bytes), what);
        }
        self.report.index = IndexState::Compared;
        Ok(())
    }
}
