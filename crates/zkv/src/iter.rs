//! Going through all records.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use zkv_index::{Candidates, KeyHash};
use zkv_log::{Location, LogError, SegmentScan};
use zkv_record::{Head, Kind, Record};

use crate::error::{Error, Result};
use crate::shared::Shared;
use crate::view::{LookupError, View, from_index};

/// All keys and values of a store at one moment, in no particular order. See
/// [`Store::iter_bytes`](crate::Store::iter_bytes).
///
/// After an error in one part of the file, the iteration goes on with the next part.
pub struct IterBytes {
    shared: Arc<Shared>,
    view: Arc<View>,
    /// Slots of the segments still to read, in the order of the log.
    slots: VecDeque<u32>,
    scan: Option<SegmentScan>,
    /// Live records, encoded: a value in pieces is gathered when its turn comes.
    ready: VecDeque<Result<Vec<u8>>>,
    /// Live records of the cell being read, which may have several blocks.
    cell: Option<Cell>,
}

/// The records of the blocks that start in one cell, the oldest first.
struct Cell {
    location: Location,
    records: Vec<(KeyHash, Vec<u8>)>,
}

impl IterBytes {
    /// Goes through the log of `view`, or yields only `refused`.
    pub(crate) fn new(shared: &Arc<Shared>, view: Arc<View>, refused: Option<Error>) -> Self {
        let segments = view.committed.log.segments();
        let slots = match refused {
            Some(_) => VecDeque::new(),
            None => segments.iter().map(|segment| segment.slot).collect(),
        };
        let (shared, ready) = (Arc::clone(shared), refused.map(Err).into_iter().collect());
        Self { shared, view, slots, scan: None, ready, cell: None }
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
                    self.ready.push_back(Err(Error::data(&self.shared.path)(error)));
                }
            }
        }
        true
    }

    fn next_segment(&mut self) -> bool {
        let Some(slot) = self.slots.pop_front() else { return false };
        match self.view.committed.log.scan(slot, None) {
            Ok(scan) => self.scan = Some(scan),
            Err(error) => self.ready.push_back(Err(Error::data(&self.shared.path)(error))),
        }
        true
    }

    fn next_block(&mut self) -> Result<bool, LogError> {
        let Some(scan) = &mut self.scan else { return Ok(true) };
        let Some(block) = scan.next_block()? else { return Ok(false) };
        let mut records = Vec::new();
        for entry in block.entries()? {
            if let Ok(record) = Record::decode(entry)
                && record.kind != Kind::Piece
            {
                records.push((self.shared.keys.hash_record(&record), entry.to_vec()));
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
            let entry = match self.is_live(hash, cell.location) {
                Ok(true) => Ok(bytes),
                Ok(false) => continue,
                Err(error) => Err(self.shared.lookup_error(error)),
            };
            self.ready.push_back(entry);
        }
        self.ready.make_contiguous()[start..].reverse();
    }

    /// Whether the index names this place for the key.
    fn is_live(&self, hash: KeyHash, location: Location) -> Result<bool, LookupError> {
        let committed = &self.view.committed;
        if let Some(change) = committed.change(hash) {
            return Ok(change.new.map(from_index) == Some(location));
        }
        let Some(checkpoint) = &committed.checkpoint else { return Ok(false) };
        let mut candidates = Candidates::new();
        checkpoint.candidates(hash, &mut candidates)?;
        Ok(candidates.iter().any(|candidate| from_index(*candidate) == location))
    }

    fn key_and_value(&self, record: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
        let record = Record::decode(record)?;
        let value = match record.kind {
            Kind::Head => self.shared.read_pieces(&self.view, &Head::decode(record.value)?)?,
            _ => record.value.to_vec(),
        };
        Ok((record.key.to_vec(), value))
    }
}

impl Iterator for IterBytes {
    type Item = Result<(Vec<u8>, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty() && !self.advance() {
            self.finish_cell();
        }
        self.ready.pop_front().map(|record| self.key_and_value(&record?))
    }
}

impl std::fmt::Debug for IterBytes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = formatter.debug_struct("IterBytes");
        debug.field("segments_left", &self.slots.len()).finish_non_exhaustive()
    }
}
