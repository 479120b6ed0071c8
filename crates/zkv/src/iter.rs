//! Going through all records.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use zkv_index::KeyHash;
use zkv_log::{Location, SegmentScan};
use zkv_record::{Head, Kind, Record};

use crate::error::{Error, Result};
use crate::memtable::{Memtable, Seen};
use crate::rebuild::decode_entry;
use crate::shared::Shared;
use crate::view::{KeyRef, LookupError, Moment};

/// All keys and values of a store at one moment, in no particular order. See
/// [`Store::iter_bytes`](crate::Store::iter_bytes).
///
/// After an error in one part of the file, the iteration goes on with the next part.
pub struct IterBytes {
    shared: Arc<Shared>,
    moment: Moment,
    collection: u32,
    /// The buffer that is being read, and the next of its records.
    buffered: (usize, u32),
    /// Whether the index was damaged, and made anew or found to be beyond that.
    is_mended: bool,
    /// Slots of the segments still to read, in the order of the log.
    slots: VecDeque<u32>,
    scan: Option<SegmentScan>,
    /// Live records, encoded: a value in pieces is gathered when its turn comes.
    ready: VecDeque<Result<Vec<u8>>>,
    /// Live records of the cell being read, which may have several blocks.
    cell: Option<Cell>,
    /// The values in pieces met so far. Each has one head; a forged log may name one value of
    /// gigabytes in any number of them.
    values: HashSet<[u8; 16]>,
}

/// The records of the blocks that start in one cell, the oldest first.
struct Cell {
    location: Location,
    records: Vec<(KeyHash, Vec<u8>)>,
}

impl IterBytes {
    /// Goes through the buffers and the log of `moment`.
    pub(crate) fn new(shared: &Arc<Shared>, moment: Moment, collection: u32) -> Self {
        let segments = moment.committed().log.segments();
        Self {
            shared: Arc::clone(shared),
            slots: segments.iter().map(|segment| segment.slot).collect(),
            moment,
            collection,
            buffered: (0, 0),
            is_mended: false,
            scan: None,
            ready: VecDeque::new(),
            cell: None,
            values: HashSet::new(),
        }
    }

    /// The next value from the buffers.
    fn next_buffered(&mut self) -> Option<Vec<u8>> {
        let (number, next) = &mut self.buffered;
        while let Some((table, seen)) = self.moment.tables().nth(*number) {
            while *next < table.count(seen) {
                let newest = table.newest_at(*next, seen);
                *next += 1;
                let Some((hash, record)) = newest else { continue };
                let is_value = is_put_in(record, self.collection);
                if is_value && !is_in(self.moment.tables().take(*number), hash) {
                    return Some(record.to_vec());
                }
            }
            (*number, *next) = (*number + 1, 0);
        }
        None
    }

    /// Reads on until something is ready, or all is read.
    fn advance(&mut self) -> bool {
        while self.ready.is_empty() {
            if self.scan.is_none() && !self.next_segment() {
                return false;
            }
            match self.next_block() {
                Ok(true) => {}
                Ok(false) => {
                    self.scan = None;
                    self.finish_cell();
                }
                Err(error) => {
                    self.scan = None;
                    self.finish_cell();
                    self.ready.push_back(Err(error));
                }
            }
        }
        true
    }

    fn next_segment(&mut self) -> bool {
        let Some(slot) = self.slots.pop_front() else { return false };
        match self.moment.committed().log.scan(slot, None) {
            Ok(scan) => self.scan = Some(scan),
            Err(error) => self.ready.push_back(Err(Error::data(&self.shared.path)(error))),
        }
        true
    }

    fn next_block(&mut self) -> Result<bool> {
        let damaged = |error| Error::data(&self.shared.path)(error);
        let Some(scan) = &mut self.scan else { return Ok(true) };
        let Some(block) = scan.next_block().map_err(damaged)? else { return Ok(false) };
        let mut records = Vec::new();
        for entry in block.entries().map_err(damaged)? {
            let entry = entry.map_err(damaged)?;
            let record =
                decode_entry(entry, &block, &self.moment.committed().log).map_err(damaged)?;
            if record.kind == Kind::Piece || record.collection != self.collection {
                continue;
            }
            let hash = self.shared.keys.hash_record(&record);
            if !is_in(self.moment.tables(), hash) {
                records.push((hash, entry.to_vec()));
            }
        }
        let location = block.location;
        match &mut self.cell {
            Some(cell) if cell.location == location => cell.records.extend(records),
            _ => {
                self.finish_cell();
                self.cell = Some(Cell { location, records });
            }
        }
        Ok(true)
    }

    /// Makes the live records of the cell ready.
    fn finish_cell(&mut self) {
        let Some(cell) = self.cell.take() else { return };
        let mut seen = HashSet::new();
        let start = self.ready.len();
        // The newest first: of a key that stands in the cell twice, the last record counts.
        for (hash, bytes) in cell.records.into_iter().rev() {
            let Ok(record) = Record::decode(&bytes) else { continue };
            if !seen.insert(hash) || record.kind == Kind::Delete {
                continue;
            }
            let collection = self.collection;
            let key = KeyRef { hash, key: record.key, collection, is_piece: false };
            let is_live = self.mended(|iter| {
                let is_live = iter.moment.committed().names(key, cell.location);
                is_live.map_err(|error| iter.shared.lookup_error(error))
            });
            let entry = match is_live {
                Ok(true) => Ok(bytes),
                Ok(false) => continue,
                Err(error) => Err(error),
            };
            self.ready.push_back(entry);
        }
        self.ready.make_contiguous()[start..].reverse();
    }

    /// Makes `attempt`, and once more with an index that is made anew where this one is damaged: of
    /// the log as this iteration sees it, and nothing newer.
    fn mended<T>(&mut self, attempt: impl Fn(&Self) -> Result<T>) -> Result<T> {
        match attempt(self) {
            Err(error) if error.is_index_damage() && !self.is_mended => {
                self.is_mended = true;
                self.moment = self.shared.mended_moment(&self.moment)?;
                attempt(self)
            }
            done => done,
        }
    }

    fn key_and_value(&mut self, record: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
        let record = Record::decode(record)?;
        let value = match record.kind {
            Kind::Head => {
                let head = Head::decode(record.value)?;
                if !self.values.insert(head.value_id) {
                    return Err(self.shared.lookup_error(LookupError::Disagreement));
                }
                self.mended(|iter| {
                    let committed = iter.moment.committed();
                    iter.shared.read_pieces(committed, iter.collection, &head)
                })?
            }
            _ => record.value.to_vec(),
        };
        Ok((record.key.to_vec(), value))
    }
}

impl Iterator for IterBytes {
    type Item = Result<(Vec<u8>, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(record) = self.next_buffered() {
            return Some(self.key_and_value(&record));
        }
        if self.ready.is_empty() && !self.advance() {
            self.finish_cell();
        }
        self.ready.pop_front().map(|record| self.key_and_value(&record?))
    }
}

fn is_in<'a>(mut tables: impl Iterator<Item = (&'a Arc<Memtable>, Seen)>, hash: KeyHash) -> bool {
    tables.any(|(table, seen)| table.contains(hash, seen))
}

fn is_put_in(record: &[u8], collection: u32) -> bool {
    let decoded = Record::decode(record);
    decoded.is_ok_and(|record| record.collection == collection && record.kind != Kind::Delete)
}

impl std::fmt::Debug for IterBytes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = formatter.debug_struct("IterBytes");
        debug.field("segments_left", &self.slots.len()).finish_non_exhaustive()
    }
}
