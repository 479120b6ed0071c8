//! Going through all records.

mod ahead;
mod cells;
mod judge;
mod keys;

use std::collections::HashSet;
use std::sync::Arc;

use zkv_index::KeyHash;
use zkv_log::{LogError, Position};
use zkv_record::{Head, Kind, Record};

use crate::error::{Error, Result};
use crate::hashed::KeySet;
use crate::read::view::{LookupError, Moment};
use crate::shared::Shared;
use cells::Cells;
use judge::{Judge, JudgedCell, Verdict};
pub use keys::KeysBytes;

/// All keys and values of a store at one moment, in no particular order. See
/// [`Store::iter_bytes`](crate::Store::iter_bytes).
///
/// Where the file is damaged, each damaged place yields one error, however many records it costs, and the
/// iteration goes on behind it. All that [`Store::get_bytes`](crate::Store::get_bytes) can read is yielded,
/// once; so is a record that it cannot tell from one in a damaged place, one of billions. The error comes, too,
/// where all records of the place have been overwritten or deleted since: what it held is not known. A long
/// value in pieces that cannot be put together yields an error of its own. Bytes that somebody has forged may
/// cost the rest of their segment, of up to 16 MiB.
pub struct IterBytes {
    judge: Judge,
    /// What is still to be read of the buffers.
    buffered: Buffered,
    /// Whether the index was damaged, and made anew or found to be beyond that.
    is_mended: bool,
    /// As [`Shared::mends_left`] was when this began.
    mends_left: u32,
    /// What is still to be read of the log, in its order.
    cells: Cells,
    /// Whether all values of the cell are to be yielded, without another look.
    is_seen_enough: bool,
    /// The cell being read, and the next of its records.
    judged: JudgedCell,
    next_in_cell: usize,
    /// The last block of which was told that something in it is no record.
    told: Option<Position>,
    /// The values in pieces met so far. Each has one head; a forged log may name one value of
    /// gigabytes in any number of them.
    values: HashSet<[u8; 16]>,
    /// The value in pieces that was yielded last.
    gathered: Vec<u8>,
}

/// How far the buffers are read, from the newest record down.
struct Buffered {
    table: usize,
    /// Where what was read of that buffer begins.
    end: u32,
    /// Keys whose newest record was read.
    met: KeySet,
}

/// A record to yield.
#[derive(Clone, Copy)]
struct Yielded {
    source: Source,
    kind: Kind,
    /// Its key stands before its value, which fills the rest.
    key_bytes: usize,
    value_bytes: usize,
}

#[derive(Clone, Copy)]
enum Source {
    /// A buffer's number, and the record's in it.
    Buffer(usize, u32),
    /// The record's number in the cell.
    Cell(usize),
}

impl Yielded {
    #[inline]
    fn new(source: Source, record: &Record<'_>) -> Self {
        let (key_bytes, value_bytes) = (record.key.len(), record.value.len());
        Self { source, kind: record.kind, key_bytes, value_bytes }
    }

    /// Key and value of the record with these bytes.
    #[inline]
    fn split(self, record: &[u8]) -> (&[u8], &[u8]) {
        let (rest, value) = record.split_at(record.len() - self.value_bytes);
        (&rest[rest.len() - self.key_bytes..], value)
    }
}

impl IterBytes {
    /// Goes through the buffers and the log of `moment`.
    pub(crate) fn new(shared: &Arc<Shared>, moment: Moment, collection: u32) -> Self {
        let cells = Cells::new(moment.committed(), collection);
        Self {
            judge: Judge::new(shared, moment, collection),
            buffered: Buffered { table: 0, end: u32::MAX, met: KeySet::default() },
            is_mended: false,
            mends_left: shared.mends_left(),
            cells,
            is_seen_enough: false,
            judged: JudgedCell::default(),
            next_in_cell: 0,
            told: None,
            values: HashSet::new(),
            gathered: Vec::new(),
        }
    }

    /// As [`Iterator::next`], lending key and value until the next call: several times faster for
    /// short records, since nothing is copied or allocated.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = zkv::Store::open(directory.path().join("pages.zkv"))?;
    /// store.set_bytes(b"home", b"Welcome")?;
    /// let (mut records, mut bytes) = (store.iter_bytes(), 0);
    /// while let Some(record) = records.next_borrowed() {
    ///     let (key, value) = record?;
    ///     bytes += key.len() + value.len();
    /// }
    /// assert_eq!(bytes, 11);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::get_bytes`](crate::Store::get_bytes).
    #[inline]
    pub fn next_borrowed(&mut self) -> Option<Result<(&[u8], &[u8])>> {
        let yielded = match self.advance()? {
            Ok(yielded) => yielded,
            Err(error) => return Some(Err(error)),
        };
        let (key, value) = yielded.split(self.record(yielded.source));
        Some(Ok(if yielded.kind == Kind::Head { (key, &self.gathered) } else { (key, value) }))
    }

    #[inline]
    fn record(&self, source: Source) -> &[u8] {
        match source {
            Source::Cell(number) => self.judged.cell.entry(number),
            Source::Buffer(table, number) => {
                let table = self.judge.moment.tables().nth(table);
                table.and_then(|(table, _)| table.record(number)).unwrap_or_default()
            }
        }
    }

    /// Goes on to the next record to yield, and gathers its value where that lies in pieces.
    #[inline]
    fn advance(&mut self) -> Option<Result<Yielded>> {
        let yielded = match self.next_yielded()? {
            Ok(yielded) => yielded,
            Err(error) => return Some(Err(error)),
        };
        if yielded.kind != Kind::Head {
            return Some(Ok(yielded));
        }
        Some(self.gather(yielded).map(|()| yielded))
    }

    /// Goes on to the next record to yield.
    #[inline]
    fn next_yielded(&mut self) -> Option<Result<Yielded>> {
        match self.next_buffered() {
            Some(yielded) => Some(Ok(yielded)),
            None => self.next_logged(),
        }
    }

    /// The next value from the buffers.
    fn next_buffered(&mut self) -> Option<Yielded> {
        if !self.judge.has_buffered {
            return None;
        }
        let Judge { moment, collection, .. } = &self.judge;
        let Buffered { table: number, end, met } = &mut self.buffered;
        while let Some((table, seen)) = moment.tables().nth(*number) {
            while let Some(newest) = table.newest_below(table.count(seen).min(*end), met) {
                *end = newest;
                let record = table.record(newest).unwrap_or_default();
                let Ok(record) = Record::decode(record) else { continue };
                if record.collection == *collection && record.kind != Kind::Delete {
                    return Some(Yielded::new(Source::Buffer(*number, newest), &record));
                }
            }
            (*number, *end) = (*number + 1, u32::MAX);
        }
        *met = KeySet::default();
        None
    }

    /// The next value from the log.
    #[inline]
    fn next_logged(&mut self) -> Option<Result<Yielded>> {
        loop {
            while self.next_in_cell < self.judged.cell.len() {
                let number = self.next_in_cell;
                self.next_in_cell += 1;
                match self.judge(number) {
                    Ok(Some(yielded)) => return Some(Ok(yielded)),
                    Ok(None) => {}
                    Err(error) => return Some(Err(error)),
                }
            }
            match self.next_cell() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// The record of this number in the cell, where it is to be yielded.
    #[inline]
    fn judge(&mut self, number: usize) -> Result<Option<Yielded>> {
        let record = match self.judge.decode(&self.judged.cell, number) {
            Ok(record) => record,
            Err(error) => {
                let block = Some(self.judged.cell.block_of(number));
                let was_told = std::mem::replace(&mut self.told, block) == block;
                return if was_told { Ok(None) } else { Err(self.data_error(error)) };
            }
        };
        let is_value = matches!(record.kind, Kind::Put | Kind::Head);
        if !is_value || record.collection != self.judge.collection {
            return Ok(None);
        }
        let yielded = Yielded::new(Source::Cell(number), &record);
        if self.is_seen_enough {
            return Ok(Some(yielded));
        }
        let is_newest = match self.judged.verdict(number) {
            Some(Verdict::Newest) => true,
            Some(Verdict::Hidden) | None => false,
            Some(Verdict::Open(hash)) => self.look_up(yielded, number, hash)?,
        };
        Ok(is_newest.then_some(yielded))
    }

    fn look_up(&mut self, yielded: Yielded, number: usize, hash: KeyHash) -> Result<bool> {
        self.mended(|iter| {
            let cell = &iter.judged.cell;
            let (key, _) = yielded.split(cell.entry(number));
            let is_newest = iter.judge.is_newest(cell, hash, key);
            is_newest.map_err(|error| iter.judge.shared.lookup_error(error))
        })
    }

    /// Reads the next cell; `false` where all of the log is read.
    fn next_cell(&mut self) -> Result<bool> {
        self.next_in_cell = 0;
        let read = self.cells.next(&self.judge, &mut self.judged);
        let Ok(Some(slot)) = read else {
            // What was read of it is of no use.
            self.judged = JudgedCell::default();
            return read.map(|_| false).map_err(|error| self.data_error(error));
        };
        self.is_seen_enough = self.judge.is_seen_enough(slot, &self.judged);
        if !self.is_seen_enough && !self.judged.is_looked_at() {
            self.judge.look(slot, &mut self.judged);
        }
        Ok(true)
    }

    fn data_error(&self, error: LogError) -> Error {
        Error::data(&self.judge.shared.path)(error)
    }

    /// Makes `attempt`, and once more with an index that is made anew where this one is damaged: of
    /// the log as this iteration sees it, and nothing newer.
    fn mended<T>(&mut self, attempt: impl Fn(&Self) -> Result<T>) -> Result<T> {
        match attempt(self) {
            Err(error) if error.is_index_damage() && !self.is_mended => {
                self.is_mended = true;
                let Judge { shared, moment, .. } = &self.judge;
                self.judge.moment = shared.mended_moment(moment, self.mends_left, error)?;
                attempt(self)
            }
            done => done,
        }
    }

    #[cold]
    fn gather(&mut self, yielded: Yielded) -> Result<()> {
        // The last one may have gigabytes.
        self.gathered = Vec::new();
        let (_, head) = yielded.split(self.record(yielded.source));
        let head = Head::decode(head)?;
        if !self.values.insert(head.value_id) {
            return Err(self.judge.shared.lookup_error(LookupError::Disagreement));
        }
        self.gathered = self.mended(|iter| {
            let Judge { shared, moment, collection, .. } = &iter.judge;
            shared.read_pieces(moment.committed(), *collection, &head)
        })?;
        Ok(())
    }
}

impl Iterator for IterBytes {
    type Item = Result<(Vec<u8>, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let yielded = match self.advance()? {
            Ok(yielded) => yielded,
            Err(error) => return Some(Err(error)),
        };
        let (key, value) = yielded.split(self.record(yielded.source));
        let (key, value) = (key.to_vec(), value.to_vec());
        if yielded.kind == Kind::Head {
            return Some(Ok((key, std::mem::take(&mut self.gathered))));
        }
        Some(Ok((key, value)))
    }
}

impl std::fmt::Debug for IterBytes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = formatter.debug_struct("IterBytes");
        debug.field("segments_left", &self.cells.segments_left()).finish_non_exhaustive()
    }
}
