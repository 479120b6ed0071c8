//! Writing checkpoints: a first one, and the next one over another.

use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use zkv_io::{Draft, Storage, StorageFile, crc32c};

use crate::bucket::BUCKET_BYTES;
use crate::checkpoint::{Checkpoint, Tail, header_at, may_be_index};
use crate::entry::{EntrySource, Merged, OpenSource, entries_of, measure};
use crate::error::IndexError;
use crate::geometry::Measure;
use crate::header::{Header, Section};
use crate::layout::{HEADER_BYTES, SECTION_BYTES_MAX, SECTIONS_MAX, WATERMARK_BYTES_MAX};
use crate::policy::{Choice, Sizes, Thresholds};
use crate::run::Run;
use crate::table::{Scan, Table};
use crate::table_writer::{Appender, write_table};

/// What a checkpoint holds besides the index itself.
#[derive(Clone, Copy, Debug)]
pub struct CheckpointMeta<'a> {
    /// The store that the index belongs to.
    pub store_id: [u8; 16],
    /// Up to where the log is in this checkpoint, in the facade's own terms; at most 128 bytes.
    pub watermark: &'a [u8],
    /// Up to eight sections of opaque bytes, each with its kind.
    pub sections: &'a [(u32, &'a [u8])],
    /// How many keys the store holds.
    pub key_count: u64,
}

impl CheckpointMeta<'_> {
    fn check_limits(&self) -> Result<(), IndexError> {
        let watermark = self.watermark.len() as u64;
        IndexError::check_limit("bytes of a watermark", watermark, WATERMARK_BYTES_MAX as u64)?;
        IndexError::check_limit("sections", self.sections.len() as u64, SECTIONS_MAX as u64)?;
        let longest = self.sections.iter().map(|(_, bytes)| bytes.len() as u64).max();
        IndexError::check_limit("bytes of a section", longest.unwrap_or(0), SECTION_BYTES_MAX)
    }

    fn sections_bytes(&self) -> u64 {
        self.sections.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }
}

/// Writes a new index file at `path`, in place of any that is there, from changes alone.
///
/// # Errors
/// [`IndexError::Mismatch`] where a change has an `old` location; [`IndexError::TooLarge`] where
/// `meta` or the run is over the format's limits; [`IndexError::Io`]. What was at `path` is then
/// unchanged, unless one of the last steps failed, the sync of the folder or the opening of what was
/// written: the new file is there, and may be gone behind a crash. Whoever has a checkpoint of the
/// older one [retires](Checkpoint::retire) it before.
pub fn write_first(
    storage: &dyn Storage,
    path: &Path,
    changes: &Run,
    meta: &CheckpointMeta<'_>,
) -> Result<Checkpoint, IndexError> {
    write_file(storage, path, &|| Ok(entries_of(changes)), meta, 0)
}

/// Writes a file of one checkpoint numbered `number`, with all that `open` yields as its base.
pub(crate) fn write_file(
    storage: &dyn Storage,
    path: &Path,
    open: &OpenSource<'_>,
    meta: &CheckpointMeta<'_>,
    number: u64,
) -> Result<Checkpoint, IndexError> {
    prepare_file(storage, path, open, meta, number)?.publish(storage, path)
}

fn prepare_file(
    storage: &dyn Storage,
    path: &Path,
    open: &OpenSource<'_>,
    meta: &CheckpointMeta<'_>,
    number: u64,
) -> Result<Prepared, IndexError> {
    meta.check_limits()?;
    check_place(storage, path, meta.store_id)?;
    let salt = random_salt(storage)?;
    let mut failure = None;
    let written = Draft::write(storage, path, path, |file| {
        write_contents(file, open, meta, number, salt).map_err(|error| {
            failure = Some(error);
            io::Error::other("the index file could not be written")
        })
    });
    match (failure, written) {
        (Some(error), _) => Err(error),
        (None, Err(error)) => Err(error.into()),
        (None, Ok((draft, ()))) => Ok(Prepared { draft, store_id: meta.store_id }),
    }
}

/// Refuses to take the place of somebody else's file. What cannot be read may be an index in a bad sector.
fn check_place(storage: &dyn Storage, path: &Path, store_id: [u8; 16]) -> Result<(), IndexError> {
    match may_be_index(storage, path, Some(store_id)) {
        Ok(false) => Err(IndexError::NotAnIndex),
        _ => Ok(()),
    }
}

/// An index file that is written, whole and synced, and not in its place yet.
#[derive(Debug)]
pub struct Prepared {
    draft: Draft,
    store_id: [u8; 16],
}

impl Prepared {
    /// Puts it at `path`, durably. Whoever has a checkpoint of the older file
    /// [retires](Checkpoint::retire) it before.
    ///
    /// # Errors
    /// [`IndexError::Io`]. It may be there all the same, now or behind a crash. [`IndexError::NotAnIndex`] where
    /// somebody else's file has that name, as another store since this one was opened; that stays.
    pub fn publish(self, storage: &dyn Storage, path: &Path) -> Result<Checkpoint, IndexError> {
        // Again: it may have come while this was written.
        if let Err(error) = check_place(storage, path, self.store_id) {
            self.discard(storage);
            return Err(error);
        }
        self.draft.replace(storage, path)?;
        Checkpoint::open(storage, path, self.store_id, true)
    }

    /// Removes it.
    pub fn discard(self, storage: &dyn Storage) {
        self.draft.discard(storage);
    }
}

fn write_contents(
    file: &dyn StorageFile,
    open: &OpenSource<'_>,
    meta: &CheckpointMeta<'_>,
    number: u64,
    salt: u32,
) -> Result<(), IndexError> {
    let base = write_table(file, HEADER_BYTES as u64, salt, open, true)?;
    let header = write_sections(file, 0, vec![base], base_end(&base), meta, number)?;
    // The rename comes after a sync of the whole file, so the order of writes is free.
    file.write_at(0, &header.encode())?;
    Ok(())
}

fn base_end(table: &Table) -> u64 {
    table.bucket_offset(table.buckets_total())
}

/// Writes the sections of the checkpoint at `offset` from `sections_offset` on, where its body ends,
/// and returns its header.
fn write_sections(
    file: &dyn StorageFile,
    offset: u64,
    tables: Vec<Table>,
    sections_offset: u64,
    meta: &CheckpointMeta<'_>,
    number: u64,
) -> Result<Header, IndexError> {
    let mut output = Appender::new(file, sections_offset);
    for (_, bytes) in meta.sections {
        output.write(bytes)?;
    }
    while !output.offset().is_multiple_of(BUCKET_BYTES as u64) {
        output.write(&[0])?;
    }
    output.flush()?;
    let body_end = output.offset();
    // A table that came out empty is no part of the checkpoint.
    if file.len()? > body_end {
        file.set_len(body_end)?;
    }
    let section = |&(kind, bytes): &(u32, &[u8])| Section {
        kind,
        check: crc32c(0, bytes),
        length: bytes.len() as u64,
    };
    Ok(Header {
        store_id: meta.store_id,
        offset,
        number,
        key_count: meta.key_count,
        body_end,
        sections_offset,
        watermark: meta.watermark.to_vec(),
        tables,
        sections: meta.sections.iter().map(section).collect(),
    })
}

fn random_salt(storage: &dyn Storage) -> io::Result<u32> {
    let mut salt = [0; 4];
    storage.random(&mut salt)?;
    Ok(u32::from_le_bytes(salt))
}

impl Checkpoint {
    /// Writes the checkpoint that `changes` make of this one: appended to this file, which is at
    /// `path`, or, where too much would lie behind its base, as a new file in its place.
    ///
    /// Every `old` in `changes` is what this checkpoint holds. Only one writer at a time may do
    /// this to a file; readers of this checkpoint go on undisturbed.
    ///
    /// # Errors
    /// [`IndexError::Foreign`] where `meta` names another store; [`IndexError::Mismatch`] where
    /// `changes` were made over another checkpoint (found when the file is written anew);
    /// [`IndexError::TooLarge`]; [`IndexError::Corrupt`] where a table that had to be read is
    /// damaged; [`IndexError::Io`]. This checkpoint then stands, in memory and in the file; where a
    /// sync failed, or the opening of a new file, the new one may be at `path`, now or behind a
    /// crash. It is whole.
    pub fn write_next(
        &self,
        storage: &dyn Storage,
        path: &Path,
        changes: &Run,
        meta: &CheckpointMeta<'_>,
    ) -> Result<Self, IndexError> {
        self.write_next_with(storage, path, changes, meta, &Thresholds::DEFAULT)
    }

    /// As [`Checkpoint::write_next`], with other thresholds: for tests.
    ///
    /// # Errors
    /// As [`Checkpoint::write_next`].
    #[doc(hidden)]
    pub fn write_next_with(
        &self,
        storage: &dyn Storage,
        path: &Path,
        changes: &Run,
        meta: &CheckpointMeta<'_>,
        thresholds: &Thresholds,
    ) -> Result<Self, IndexError> {
        meta.check_limits()?;
        self.check_store(meta)?;
        let choice = thresholds.choose(&self.sizes_with(changes, meta.sections_bytes())?);
        let mut tail = self.file.tail.lock().unwrap_or_else(PoisonError::into_inner);
        // Closed until all is well: of a failed sync, or a header that has perhaps arrived, nothing is
        // known, and a file that was replaced, or perhaps was, is not the one at `path`.
        let found = std::mem::replace(&mut *tail, Tail::Closed);
        if choice != Choice::Rewrite && self.settle(found)? {
            let (file, end) = (&*self.file.file, self.header.body_end);
            let written = self.write_body(storage, changes, meta, choice);
            let is_body_written = written.is_ok();
            let appended = written.and_then(|header| self.complete(header));
            if let Ok(Some(next)) = appended {
                *tail = Tail::Open { end: next.header.body_end, is_settled: true };
                return Ok(next);
            }
            // Gives back the space.
            let is_cut = file.set_len(end).is_ok();
            if is_cut && !is_body_written {
                // Most likely the disk is full. No sync has failed, which the system might have taken
                // for done, and no header was written that could come up behind a crash: the file is as
                // a crash would leave it, and is settled like that before the next append.
                *tail = Tail::Open { end, is_settled: false };
            }
            appended?;
        }
        self.prepare_next(storage, path, changes, meta)?.publish(storage, path)
    }

    /// Whether [`Checkpoint::write_next`] would write the file anew, with sections as long as this one's.
    ///
    /// # Errors
    /// [`IndexError::TooLarge`].
    #[doc(hidden)]
    pub fn is_to_be_rewritten(
        &self,
        changes: &Run,
        thresholds: &Thresholds,
    ) -> Result<bool, IndexError> {
        let sizes = self.sizes_with(changes, self.sections_bytes())?;
        Ok(thresholds.choose(&sizes) == Choice::Rewrite)
    }

    /// Writes the checkpoint that `changes` make of this one as a new file beside `path`, which takes no
    /// other's place yet. This checkpoint may be appended to meanwhile, and until [`Prepared::publish`]:
    /// the new file then lacks that.
    ///
    /// # Errors
    /// As [`Checkpoint::write_next`]; nothing has changed then.
    pub fn prepare_next(
        &self,
        storage: &dyn Storage,
        path: &Path,
        changes: &Run,
        meta: &CheckpointMeta<'_>,
    ) -> Result<Prepared, IndexError> {
        self.check_store(meta)?;
        let open = || self.merged_with(changes, 0);
        prepare_file(storage, path, &open, meta, self.header.number.wrapping_add(1))
    }

    fn check_store(&self, meta: &CheckpointMeta<'_>) -> Result<(), IndexError> {
        let (expected, found) = (self.header.store_id, meta.store_id);
        if expected == found { Ok(()) } else { Err(IndexError::Foreign { expected, found }) }
    }

    /// Appends nothing more to the file of this checkpoint, which stays readable: the next one is a
    /// new file. For whoever is about to put another file in its place, or to remove it. Even where
    /// that fails, it may have been done, and what is appended to a file without a name is lost.
    pub fn retire(&self) {
        *self.file.tail.lock().unwrap_or_else(PoisonError::into_inner) = Tail::Closed;
    }

    fn sizes_with(&self, changes: &Run, sections_bytes: u64) -> Result<Sizes, IndexError> {
        let (base, appended) = self.header.tables.split_first().ok_or(IndexError::Mismatch)?;
        let added = measure(&|| Ok(entries_of(changes)), false)?;
        let appended_entries = appended.iter().map(|table| table.entry_count);
        let location_bits = appended.iter().map(|table| table.geometry.location_bits).max();
        // An upper bound: what cancels out is not known before the tables are read.
        let merged = Measure {
            entry_count: appended_entries.fold(added.entry_count, u64::saturating_add),
            location_max: added.location_max.max((1 << location_bits.unwrap_or(0)) - 1),
            has_kills: true,
        };
        Ok(Sizes {
            base_bytes: base.bytes(),
            file_bytes: self.header.body_end,
            appended_count: appended.len(),
            chain_length: self.chain_length,
            changes_bytes: added.table_bytes()?,
            merged_bytes: merged.table_bytes()?,
            sections_bytes,
        })
    }

    /// Makes sure that this checkpoint is the file's last and that nothing lies behind it; `false`
    /// where that cannot be had.
    fn settle(&self, tail: Tail) -> Result<bool, IndexError> {
        let Tail::Open { end, is_settled } = tail else { return Ok(false) };
        if end != self.header.body_end {
            return Ok(false);
        }
        let file = &*self.file.file;
        let file_bytes = file.len()?;
        if is_settled && file_bytes == end {
            return Ok(true);
        }
        if file_bytes > end {
            // Another writer's checkpoint is not ours to cut off; Windows cuts no mapped file.
            let is_other = header_at(file, end, file_bytes, self.header.store_id)?.is_some();
            if is_other || file.set_len(end).is_err() {
                return Ok(false);
            }
        }
        // A header that an earlier process wrote here and took back must not come up behind a
        // crash, in front of a body that is not its own.
        Ok(file.sync_all().is_ok())
    }

    /// This checkpoint's tables from the `first` one on, and `changes`.
    fn merged_with<'a>(
        &'a self,
        changes: &'a Run,
        first: usize,
    ) -> Result<Box<dyn EntrySource + 'a>, IndexError> {
        let scan = |table: &Table| -> Box<dyn EntrySource + 'a> {
            Box::new(Scan::new(&*self.file.map, *table))
        };
        let tables = self.header.tables.iter().skip(first).map(scan);
        Ok(Box::new(Merged::new(tables.chain([entries_of(changes)]))?))
    }

    /// Writes `header` in front of its body, which is written. `None` where a sync failed: of what this
    /// file has, nothing is known then, and a new one is better.
    fn complete(&self, header: Header) -> Result<Option<Self>, IndexError> {
        let file = &*self.file.file;
        // A crash before this is done leaves no header here, so the body counts for nothing. With
        // the body durable, the header vouches for it.
        if file.sync_data().is_err() {
            return Ok(None);
        }
        file.write_at(header.offset, &header.encode())?;
        // A crash before this is done leaves either checkpoint.
        if file.sync_data().is_err() {
            return Ok(None);
        }
        let chain_length = self.chain_length + 1;
        Ok(Some(Self { file: Arc::clone(&self.file), header, chain_length }))
    }

    /// Writes what follows the next header, and returns that.
    fn write_body(
        &self,
        storage: &dyn Storage,
        changes: &Run,
        meta: &CheckpointMeta<'_>,
        choice: Choice,
    ) -> Result<Header, IndexError> {
        let file = &*self.file.file;
        let offset = self.header.body_end;
        let mut end = offset + HEADER_BYTES as u64;
        // The first table among those that the new one takes in.
        let first = if choice == Choice::AppendMerged { 1 } else { self.header.tables.len() };
        let mut tables = self.header.tables[..first].to_vec();
        if first < self.header.tables.len() || !changes.is_empty() {
            let open = || self.merged_with(changes, first);
            let table = write_table(file, end, random_salt(storage)?, &open, false)?;
            if table.entry_count > 0 {
                end = base_end(&table);
                tables.push(table);
            }
        }
        write_sections(file, offset, tables, end, meta, self.header.number.wrapping_add(1))
    }
}
