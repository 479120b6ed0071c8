//! The cells of a log, one after another.

use std::collections::VecDeque;

use zkv_log::{DamagedScan, LogError, LogView, SegmentParts, SegmentScan};

use super::ahead::{Ahead, Batch};
use super::judge::{Judge, JudgedCell};
use crate::read::view::Committed;

/// Behind so many cells, about 1 MiB, there is enough to read to begin threads for it.
const CELLS_ALONE: usize = 1024;

/// Goes through the cells of a log in their order: alone at first, then with threads that decompress
/// ahead. The log's file is read by whoever asks, and by nobody else, and so is what is left of a segment
/// behind damage.
pub(super) struct Cells {
    log: LogView,
    /// Segments that nobody has looked at, and what to look at.
    slots: VecDeque<(u32, SegmentParts)>,
    /// The segment of which not all is read.
    scan: Option<(u32, SegmentScan)>,
    /// A segment in which damage was met: its rest comes before all else.
    damaged: Option<(u32, DamagedScan)>,
    /// The slot of the segment of which `batch` is.
    slot: u32,
    read_alone: usize,
    ahead: Option<Ahead>,
    /// What the threads have read, and the next of its cells.
    batch: Batch,
    next_in_batch: usize,
}

impl Cells {
    /// Of those parts of segments that may have something of `collection`.
    pub fn new(committed: &Committed, collection: u32) -> Self {
        let segments = committed.log.segments().into_iter();
        let slots = segments
            .map(|segment| (segment.slot, committed.known.parts_of(segment.slot, collection)));
        let slots = slots.filter(|(_, parts)| *parts != SegmentParts::NONE).collect();
        Self {
            log: committed.log.clone(),
            slots,
            scan: None,
            damaged: None,
            slot: 0,
            read_alone: 0,
            ahead: None,
            batch: Batch::default(),
            next_in_batch: 0,
        }
    }

    /// How many segments nobody has looked at.
    pub fn segments_left(&self) -> usize {
        self.slots.len()
    }

    /// Puts the next cell into `cell`, and says which slot it is of; `None` behind the last one. Behind
    /// an error it goes on with the next whole cell. Where threads read ahead, they look it up as `judge`
    /// does; before, and behind damage, nobody has looked.
    pub fn next(&mut self, judge: &Judge, cell: &mut JudgedCell) -> Result<Option<u32>, LogError> {
        if let Some((slot, scan)) = &mut self.damaged {
            if scan.next_cell(cell.start())? {
                cell.is_in_doubt = true;
                return Ok(Some(*slot));
            }
            self.damaged = None;
        }
        if self.read_alone == CELLS_ALONE && self.ahead.is_none() {
            self.read_alone += 1;
            self.ahead = Ahead::begin(self.log.read_threads(), judge);
        }
        if self.ahead.is_some() { self.next_ahead(cell) } else { self.next_alone(cell) }
    }

    fn next_alone(&mut self, cell: &mut JudgedCell) -> Result<Option<u32>, LogError> {
        loop {
            if let Some((slot, scan)) = &mut self.scan {
                let slot = *slot;
                match scan.next_cell(cell.start()) {
                    Ok(true) => {
                        self.read_alone += 1;
                        return Ok(Some(slot));
                    }
                    Ok(false) => {}
                    Err(error) => {
                        let scan = self.scan.take();
                        self.damaged = scan.map(|(slot, scan)| (slot, scan.go_on_behind()));
                        return Err(error);
                    }
                }
            }
            if !self.begin_segment()? {
                return Ok(None);
            }
        }
    }

    fn begin_segment(&mut self) -> Result<bool, LogError> {
        self.scan = None;
        let Some((slot, parts)) = self.slots.pop_front() else { return Ok(false) };
        self.scan = Some((slot, self.log.scan(slot, None)?.only(parts)));
        Ok(true)
    }

    fn next_ahead(&mut self, cell: &mut JudgedCell) -> Result<Option<u32>, LogError> {
        loop {
            if self.next_in_batch < self.batch.count {
                std::mem::swap(cell, &mut self.batch.cells[self.next_in_batch]);
                self.next_in_batch += 1;
                return Ok(Some(self.slot));
            }
            if let Some((error, scan)) = self.batch.damage.take() {
                self.drop_parts();
                self.damaged = Some((self.slot, scan.go_on_behind()));
                return Err(error);
            }
            self.add_parts()?;
            let used = std::mem::take(&mut self.batch);
            let Some((slot, batch)) = self.ahead.as_mut().and_then(|ahead| ahead.next(used)) else {
                // Nothing is left to do for the threads.
                self.ahead = None;
                return Ok(None);
            };
            (self.slot, self.batch, self.next_in_batch) = (slot, batch, 0);
        }
    }

    /// Gives the threads something to do.
    fn add_parts(&mut self) -> Result<(), LogError> {
        while self.ahead.as_ref().is_some_and(Ahead::has_room) {
            let Some((slot, part)) = self.split()? else { break };
            if let Some(ahead) = &self.ahead {
                ahead.add(slot, part);
            }
        }
        Ok(())
    }

    fn split(&mut self) -> Result<Option<(u32, SegmentScan)>, LogError> {
        loop {
            if let Some((slot, scan)) = &mut self.scan
                && let Some(part) = scan.split()
            {
                return Ok(Some((*slot, part)));
            }
            if !self.begin_segment()? {
                return Ok(None);
            }
        }
    }

    /// Drops what other parts there are of the segment of which `batch` is: behind damage nobody knows where
    /// they begin.
    fn drop_parts(&mut self) {
        if let Some(ahead) = &self.ahead {
            ahead.skip(self.slot);
        }
        if self.scan.as_ref().is_some_and(|(slot, _)| *slot == self.slot) {
            self.scan = None;
        }
    }
}
