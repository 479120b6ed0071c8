//! The records, one after another.

use std::collections::HashSet;

use zkv_index::{IndexError, KeyHash};
use zkv_log::{LogFinding, LogVisitor, Position, Severity, VerifiedEntry};
use zkv_record::{Record, RecordError};

use super::values::Values;
use super::{Facts, Keys, StoreFile, Work};

/// Checks each record that the log tells of, and gathers what they say together.
pub(super) struct Records<'a, 'work> {
    work: &'a mut Work<'work>,
    keys: &'a Keys,
    /// What the index should say; only where there is one.
    facts: Option<Facts>,
    /// What stands from here on came behind the index.
    until: Option<Position>,
    values: Values,
    /// The block that is being read, and whose keys it holds.
    block: Position,
    hashes: HashSet<KeyHash>,
    failure: Option<IndexError>,
}

impl<'a, 'work> Records<'a, 'work> {
    pub(super) fn new(
        work: &'a mut Work<'work>,
        keys: &'a Keys,
        facts: Option<Facts>,
        until: Option<Position>,
    ) -> Self {
        Self {
            work,
            keys,
            facts,
            until,
            values: Values::default(),
            block: Position::default(),
            hashes: HashSet::new(),
            failure: None,
        }
    }

    fn loss(&mut self, offset: u64, what: &'static str) {
        self.work.add_in(StoreFile::Data, offset, what, Severity::Loss);
    }

    /// What is known once all records are; and what the index should say.
    pub(super) fn finish(self) -> Result<Option<Facts>, IndexError> {
        let is_lost = self.work.report.worst == Some(Severity::Loss);
        let work = self.work;
        self.values.check(!is_lost, &mut |offset, what, severity| {
            work.add_in(StoreFile::Data, offset, what, severity);
        });
        match self.failure {
            Some(error) => Err(error),
            None => Ok(self.facts),
        }
    }

    fn check(&mut self, record: &Record<'_>, entry: &VerifiedEntry<'_>) {
        let hash = self.keys.hash_record(record);
        if self.block != entry.position {
            self.block = entry.position;
            self.hashes.clear();
        }
        if !self.hashes.insert(hash) {
            self.loss(entry.offset, "a block that holds a key twice");
        }
        if self.values.note(record, hash, entry.offset).is_err() {
            self.loss(entry.offset, "a record that names pieces of a value, and cannot be");
        }
        let is_known = self.until.is_none_or(|until| entry.position < until);
        if let Some(facts) = self.facts.as_mut().filter(|_| is_known) {
            let added = facts.add(record, hash, entry.location, entry.slot);
            if let Err(error) = added {
                self.facts = None;
                self.failure = Some(error);
            }
        }
    }
}

impl LogVisitor for Records<'_, '_> {
    fn finding(&mut self, finding: LogFinding) {
        let LogFinding { offset, what, severity, .. } = finding;
        self.work.add_in(StoreFile::Data, offset, what, severity);
    }

    fn entry(&mut self, entry: &VerifiedEntry<'_>) {
        match Record::decode(entry.bytes) {
            Ok(record) => self.check(&record, entry),
            Err(RecordError::UnsupportedFlags { .. }) => {
                self.loss(entry.offset, "a record that only a newer version can read");
            }
            Err(_) => self.loss(entry.offset, "an entry that is no record"),
        }
    }

    fn done(&mut self, bytes: u64) {
        self.work.done(bytes);
    }
}
