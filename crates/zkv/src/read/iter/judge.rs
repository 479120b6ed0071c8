//! Which records of a cell are to be yielded.

use std::sync::Arc;

use zkv_index::KeyHash;
use zkv_log::{Cell, LogError};
use zkv_record::{Kind, Record};

use crate::hashed::KeySet;
use crate::open::rebuild::decode_entry;
use crate::read::view::{KeyRef, LookupError, Moment};
use crate::shared::Shared;

/// What an iteration sees, and what it is after.
#[derive(Clone)]
pub(super) struct Judge {
    pub shared: Arc<Shared>,
    pub moment: Moment,
    pub collection: u32,
    /// Whether buffers have records: these hide those of the log.
    pub has_buffered: bool,
}

/// What is known of a record.
#[derive(Clone, Copy)]
pub(super) enum Verdict {
    /// It is no value, another collection's, or hidden by a newer one.
    Hidden,
    /// The index says whether it is its key's newest.
    Open(KeyHash),
    /// It is its key's newest.
    Newest,
}

/// A cell, and what is known of its records.
#[derive(Default)]
pub(super) struct JudgedCell {
    pub cell: Cell,
    /// It was found behind damage, where what looks like a block may stand within another one: only the
    /// index tells what is to be yielded of it.
    pub is_in_doubt: bool,
    /// Of each record; of none where nobody has looked.
    verdicts: Vec<Verdict>,
}

impl JudgedCell {
    /// Forgets what was known: another cell is read into this.
    pub fn start(&mut self) -> &mut Cell {
        self.verdicts.clear();
        self.is_in_doubt = false;
        &mut self.cell
    }

    /// Whether somebody has looked at its records.
    pub fn is_looked_at(&self) -> bool {
        self.verdicts.len() == self.cell.len()
    }

    /// What is known of the record `number`; `None` where nobody has looked.
    #[inline]
    pub fn verdict(&self, number: usize) -> Option<Verdict> {
        self.verdicts.get(number).copied()
    }
}

impl Judge {
    pub fn new(shared: &Arc<Shared>, moment: Moment, collection: u32) -> Self {
        let has_buffered = moment.tables().any(|(table, seen)| table.count(seen) > 0);
        Self { shared: Arc::clone(shared), moment, collection, has_buffered }
    }

    /// Whether all values of the collection in a cell of the segment in `slot` are to be yielded, without
    /// a look.
    pub fn is_seen_enough(&self, slot: u32, judged: &JudgedCell) -> bool {
        !self.has_buffered && self.is_untouched(slot, judged)
    }

    /// Whether each record of the cell is its key's newest in the log.
    fn is_untouched(&self, slot: u32, judged: &JudgedCell) -> bool {
        !judged.is_in_doubt && self.moment.committed().known.is_untouched(slot)
    }

    #[inline]
    pub fn decode<'c>(&self, cell: &'c Cell, number: usize) -> Result<Record<'c>, LogError> {
        let log = &self.moment.committed().log;
        decode_entry(cell.entry(number), cell.location(), cell.block_of(number), log)
    }

    /// Finds out which records of a cell the buffers hide, or later ones in the cell itself, where it is
    /// not enough to see a record. What is no record is for whoever yields the others to report.
    pub fn look(&self, slot: u32, judged: &mut JudgedCell) {
        let (is_seen_enough, is_untouched) =
            (self.is_seen_enough(slot, judged), self.is_untouched(slot, judged));
        let JudgedCell { cell, verdicts, .. } = judged;
        verdicts.clear();
        if is_seen_enough {
            return;
        }
        let mut later = KeySet::default();
        for number in (0..cell.len()).rev() {
            let Ok(record) = self.decode(cell, number) else {
                verdicts.push(Verdict::Hidden);
                continue;
            };
            let is_ours = record.collection == self.collection && record.kind != Kind::Piece;
            let hash = is_ours.then(|| self.shared.keys.hash_record(&record));
            // The newest first: of a key that stands in the cell twice, the last record counts.
            let is_last = |hash: &KeyHash| cell.block_count() == 1 || later.insert(*hash);
            let hash = hash.filter(is_last).filter(|hash| {
                !self.moment.tables().any(|(table, seen)| table.contains(*hash, seen))
            });
            verdicts.push(match hash {
                None => Verdict::Hidden,
                Some(_) if record.is_mark() => Verdict::Hidden,
                Some(_) if is_untouched => Verdict::Newest,
                Some(hash) => {
                    self.moment.committed().prefetch(hash);
                    Verdict::Open(hash)
                }
            });
        }
        verdicts.reverse();
    }

    /// As [`Judge::look`], and asks the index of what is open then. What cannot be found out stays so:
    /// whoever yields the records reports it.
    pub fn look_up(&self, slot: u32, judged: &mut JudgedCell) {
        self.look(slot, judged);
        let JudgedCell { cell, verdicts, .. } = judged;
        for (number, verdict) in verdicts.iter_mut().enumerate() {
            let Verdict::Open(hash) = *verdict else { continue };
            let Ok(record) = self.decode(cell, number) else { continue };
            match self.is_newest(cell, hash, record.key) {
                Ok(true) => *verdict = Verdict::Newest,
                Ok(false) => *verdict = Verdict::Hidden,
                Err(_) => {}
            }
        }
    }

    /// Whether the index leads from the key to the cell, which holds it.
    pub fn is_newest(&self, cell: &Cell, hash: KeyHash, key: &[u8]) -> Result<bool, LookupError> {
        let key = KeyRef { hash, key, collection: self.collection, is_piece: false };
        let committed = self.moment.committed();
        match committed.names(key, cell.location()) {
            // A newer place cannot be read, which is told of where it stands.
            Err(LookupError::Log(error)) if committed.is_lost(&error) => Ok(false),
            named => named,
        }
    }
}
