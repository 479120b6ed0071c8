//! Reading a whole index file to find out what is wrong with it.
//!
//! It goes on after damage. Every byte is read from the file, none through a map, so that what
//! cannot be read is a finding like any other; unless it may be there, and could not be read this time: then
//! nothing can be said of it.

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};

use zkv_io::{ReadMode, Reads, Storage, StorageFile, crc32c, unmapped};

use crate::bucket::{BUCKET_BYTES, Bucket};
use crate::checkpoint::{Checkpoint, IndexFile, Tail, header_at};
use crate::entry::Entry;
use crate::error::IndexError;
use crate::header::{Header, MAGIC, Section};
use crate::key::Prefix;
use crate::layout::HEADER_BYTES;
use crate::table::Table;

/// How much is read at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// What a disk writes whole.
const SECTOR_BYTES: u64 = 512;

/// One thing that is wrong with an index file. None loses a record: the index can be made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexFinding {
    /// Where, in bytes from the file's start.
    pub offset: u64,
    /// What it is.
    pub what: &'static str,
    /// Whether it is damage; else it is what a crash has left behind.
    pub is_damage: bool,
}

/// What was read.
#[derive(Debug)]
#[non_exhaustive]
pub struct VerifiedIndex {
    /// The file's last whole checkpoint, read without a map; `None` where there is none.
    pub checkpoint: Option<Checkpoint>,
    /// Buckets of all tables.
    pub buckets: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Whether nothing is damaged.
    pub is_whole: bool,
}

impl Default for VerifiedIndex {
    /// Of no index at all.
    fn default() -> Self {
        Self { checkpoint: None, buckets: 0, bytes: 0, is_whole: true }
    }
}

/// Reads the whole index file at `path` and tells `found` of everything that is not what was
/// written: headers, buckets, sections, the zeros behind these, and what the format's rules say of
/// them, of all checkpoints that the file holds.
///
/// # Errors
/// As [`Checkpoint::open`], but for damage. [`IndexError::Io`] where a read fails though what it was after may be
/// there, as for want of memory: nothing is found on the ground of it.
pub fn verify(
    storage: &Arc<dyn Storage>,
    path: &Path,
    store_id: [u8; 16],
    found: &mut dyn FnMut(IndexFinding),
) -> Result<VerifiedIndex, IndexError> {
    let storage = ReadMode::Pread.storage(storage);
    let checkpoint = match Checkpoint::open(&*storage, path, store_id, false) {
        Ok(checkpoint) => checkpoint,
        Err(IndexError::Corrupt { offset, what }) => {
            found(IndexFinding { offset, what, is_damage: true });
            return Ok(VerifiedIndex { is_whole: false, ..VerifiedIndex::default() });
        }
        Err(error) => return Err(error),
    };
    let file = Reads::of(&checkpoint.file.file);
    let mut check = Check::new(&file, found);
    check.all(&checkpoint.header);
    check.check_behind(checkpoint.header.body_end);
    check.finish(Some(checkpoint))
}

impl Checkpoint {
    /// As [`verify`], of the file up to this checkpoint's end. Appending may go on meanwhile.
    ///
    /// # Errors
    /// [`IndexError::Io`] where a read fails though what it was after may be there.
    pub fn verify_with(
        &self,
        found: &mut dyn FnMut(IndexFinding),
    ) -> Result<VerifiedIndex, IndexError> {
        let file = Reads::of(&self.file.file);
        let mut check = Check::new(&file, found);
        check.all(&self.header);
        check.finish(Some(self.unmapped()))
    }

    /// Reads the whole file up to this checkpoint's end and holds it against its checksums and the
    /// format's rules.
    ///
    /// # Errors
    /// [`IndexError::Corrupt`] for the first thing that is not what was written; as [`Checkpoint::verify_with`].
    pub fn verify(&self) -> Result<(), IndexError> {
        let mut first = None;
        self.verify_with(&mut |finding| {
            first.get_or_insert(finding);
        })?;
        match first {
            Some(IndexFinding { offset, what, .. }) => Err(IndexError::corrupt(offset, what)),
            None => Ok(()),
        }
    }

    /// The same checkpoint, read without a map and never written.
    fn unmapped(&self) -> Self {
        let file = Arc::clone(&self.file.file);
        let map = unmapped(&file);
        let file = Arc::new(IndexFile { file, map, tail: Mutex::new(Tail::Closed) });
        Self { file, header: self.header.clone(), chain_length: self.chain_length }
    }
}

struct Check<'a> {
    file: &'a Reads,
    found: &'a mut dyn FnMut(IndexFinding),
    buckets: u64,
    bytes: u64,
    is_whole: bool,
}

impl<'a> Check<'a> {
    fn new(file: &'a Reads, found: &'a mut dyn FnMut(IndexFinding)) -> Self {
        Self { file, found, buckets: 0, bytes: 0, is_whole: true }
    }

    fn finish(self, checkpoint: Option<Checkpoint>) -> Result<VerifiedIndex, IndexError> {
        self.file.check()?;
        let Self { buckets, bytes, is_whole, .. } = self;
        Ok(VerifiedIndex { checkpoint, buckets, bytes, is_whole })
    }

    fn tell(&mut self, finding: IndexFinding) {
        // What a read that failed was after may be as it should be.
        if !self.file.has_failed() {
            (self.found)(finding);
        }
    }

    fn damage(&mut self, offset: u64, what: &'static str) {
        self.is_whole = false;
        self.tell(IndexFinding { offset, what, is_damage: true });
    }

    /// Checks every checkpoint of the file up to the one with `last` for its header.
    fn all(&mut self, last: &Header) {
        self.bytes = last.body_end;
        let mut tables: Vec<Table> = Vec::new();
        let mut offset = 0;
        while offset < last.body_end {
            let header = header_at(self.file, offset, last.body_end, last.store_id);
            let is_last = offset == last.offset;
            let Some(header) = header.ok().flatten().filter(|header| !is_last || **header == *last)
            else {
                return self.damage(offset, "a header has changed");
            };
            let new = header.tables.iter().filter(|table| !tables.contains(table));
            let new: Vec<Table> = new.copied().collect();
            for table in new {
                // Nothing that was written is overwritten. A forged file is so not read many times over.
                if tables.iter().any(|other| other.overlaps(&table)) {
                    self.damage(table.bucket_offset(0), "a table overlaps an earlier one");
                } else {
                    TableCheck::new(self, table).all();
                    tables.push(table);
                }
            }
            self.check_sections(&header);
            offset = header.body_end;
        }
    }

    fn check_sections(&mut self, header: &Header) {
        let mut end = header.sections_offset;
        for (offset, Section { check, length, .. }) in header.sections() {
            end = offset + length;
            let mut found = 0;
            let read =
                self.for_each_chunk(offset, *length, |_, chunk| found = crc32c(found, chunk));
            if read && found != *check {
                self.damage(offset, "a section does not match its checksum");
            }
        }
        let mut nonzero = None;
        self.for_each_chunk(end, header.body_end - end, |at, chunk| {
            let found = (at..).zip(chunk).find(|(_, byte)| **byte != 0);
            nonzero = nonzero.or(found.map(|(at, _)| at));
        });
        if let Some(at) = nonzero {
            self.damage(at, "the zeros behind the sections");
        }
    }

    /// What lies behind the last checkpoint was never completed, or its header is damaged.
    fn check_behind(&mut self, end: u64) {
        let Ok(file_bytes) = self.file.len() else {
            return self.damage(end, "the file cannot be measured");
        };
        if file_bytes <= end {
            return;
        }
        let header_end = file_bytes.min(end + HEADER_BYTES as u64);
        self.bytes = file_bytes;
        // It may lie in two sectors, of which a crash may have left one.
        let border = header_end.min(end.next_multiple_of(SECTOR_BYTES));
        let parts = [end..border, border..header_end].into_iter().filter(|part| !part.is_empty());
        let parts: Option<Vec<bool>> = parts.map(|part| self.has_bytes(part)).collect();
        let Some(parts) = parts else { return };
        let what = if parts.iter().all(|has_bytes| *has_bytes) {
            // A header is written last, when all that it describes is durable.
            if self.looks_like_header(end) {
                return self.damage(end, "a header behind the last checkpoint that is whole");
            }
            "bytes that a crash has left in the place of a header"
        } else if parts.contains(&true) {
            "a header that a crash has torn"
        } else {
            "the body of a checkpoint that was never completed"
        };
        self.tell(IndexFinding { offset: end, what, is_damage: false });
    }

    /// Whether a header's magic stands there, but for one byte at the most.
    fn looks_like_header(&self, offset: u64) -> bool {
        let mut found = [0; MAGIC.len()];
        let is_read = self.file.read_at(offset, &mut found).is_ok();
        is_read && found.iter().zip(&MAGIC).filter(|(found, right)| found != right).count() <= 1
    }

    /// Whether anything but zeros stands there; `None` where that cannot be read, which is reported.
    fn has_bytes(&mut self, range: Range<u64>) -> Option<bool> {
        let mut has_bytes = false;
        let is_read = self.for_each_chunk(range.start, range.end - range.start, |_, chunk| {
            has_bytes |= chunk.iter().any(|byte| *byte != 0);
        });
        is_read.then_some(has_bytes)
    }

    /// Shows `length` bytes from `offset` on to `each`; `false` where some cannot be read, which is
    /// reported.
    fn for_each_chunk(
        &mut self,
        offset: u64,
        length: u64,
        mut each: impl FnMut(u64, &[u8]),
    ) -> bool {
        let mut chunk = Vec::new();
        let (mut at, end) = (offset, offset + length);
        let mut is_read = true;
        while at < end {
            chunk.resize(usize::try_from(end - at).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES), 0);
            match self.file.read_at(at, &mut chunk) {
                Ok(()) => each(at, &chunk),
                Err(_) => {
                    is_read = false;
                    self.damage(at, "bytes that the disk cannot read");
                }
            }
            at += chunk.len() as u64;
        }
        is_read
    }
}

/// Checks a table from its first bucket to its last.
struct TableCheck<'a, 'check> {
    check: &'a mut Check<'check>,
    table: Table,
    last: Option<Entry>,
    /// The last bucket that has room: what is at home there or before it lies there or before it.
    last_with_room: Option<u32>,
    entry_count: u64,
    checksum: u32,
    is_whole: bool,
}

impl<'a, 'check> TableCheck<'a, 'check> {
    fn new(check: &'a mut Check<'check>, table: Table) -> Self {
        Self {
            check,
            table,
            last: None,
            last_with_room: None,
            entry_count: 0,
            checksum: 0,
            is_whole: true,
        }
    }

    fn damage(&mut self, bucket: u32, what: &'static str) {
        self.is_whole = false;
        self.check.damage(self.table.bucket_offset(bucket), what);
    }

    fn all(mut self) {
        let table = self.table;
        let buckets_a_chunk = CHUNK_BYTES / BUCKET_BYTES;
        let mut chunk = Vec::new();
        for first in (0..table.buckets_total()).step_by(buckets_a_chunk) {
            let left = (table.buckets_total() - first) as usize;
            chunk.resize(left.min(buckets_a_chunk) * BUCKET_BYTES, 0);
            if self.check.file.read_at(table.bucket_offset(first), &mut chunk).is_err() {
                self.damage(first, "buckets that the disk cannot read");
                continue;
            }
            self.checksum = crc32c(self.checksum, &chunk);
            for (number, bytes) in (first..).zip(chunk.as_chunks::<BUCKET_BYTES>().0) {
                self.check_bucket(number, bytes);
            }
        }
        self.check.buckets += u64::from(table.buckets_total());
        // Where a bucket is damaged, that is why.
        if self.is_whole && self.entry_count != table.entry_count {
            self.damage(0, "a table holds more or fewer entries than its header says");
        }
        if self.is_whole && self.checksum != table.check {
            self.damage(0, "a table does not match its checksum");
        }
    }

    fn check_bucket(&mut self, number: u32, bytes: &[u8]) {
        let geometry = self.table.geometry;
        let mut bucket = Bucket::empty();
        bucket.bytes_mut().copy_from_slice(bytes);
        if !bucket.is_whole(self.table.salt, number) {
            return self.damage(number, "a bucket does not match its check bits");
        }
        let slots = 0..geometry.slots();
        let used = slots.clone().take_while(|slot| bucket.slot(geometry, *slot).is_some()).count();
        if slots.clone().skip(used).any(|slot| bucket.slot(geometry, slot).is_some()) {
            self.damage(number, "a bucket has an empty slot before an entry");
        }
        let least = geometry.least_prefix(number, self.table.displacement_max);
        for slot in slots.take(used).filter_map(|slot| bucket.slot(geometry, slot)) {
            match geometry.recover(number, least, slot.prefix_low) {
                Some(prefix) => {
                    let entry = Entry { prefix, location: slot.location, sign: slot.sign };
                    self.check_entry(number, entry);
                }
                None => self.damage(number, "an entry lies where no prefix leads"),
            }
        }
        if used < geometry.slots() as usize {
            self.last_with_room = Some(number);
        }
    }

    fn check_entry(&mut self, number: u32, entry: Entry) {
        self.entry_count += 1;
        if self.is_behind_room(entry.prefix) {
            self.damage(number, "an entry lies behind a bucket with room for it");
        }
        let (order, sign) = (entry.order(), entry.sign);
        match self.last.replace(entry) {
            Some(last) if order < last.order() => {
                self.damage(number, "entries are out of order");
            }
            Some(last) if order == last.order() && sign != last.sign => {
                self.damage(number, "an entry is both put and killed");
            }
            _ => {}
        }
    }

    /// A lookup ends at the first bucket with room.
    fn is_behind_room(&self, prefix: Prefix) -> bool {
        let home = self.table.geometry.home(prefix);
        self.last_with_room.is_some_and(|with_room| home <= with_room)
    }
}
