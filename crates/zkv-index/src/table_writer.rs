//! Writing a table as a stream, in bounded memory.

use std::io;

use zkv_io::{StorageFile, crc32c};

use crate::bucket::{BUCKET_BYTES, Bucket, Slot};
use crate::entry::{BATCH, Entry, OpenSource, measure};
use crate::error::IndexError;
use crate::geometry::{DISPLACEMENT_MAX, Geometry};
use crate::table::Table;

/// How much is written at a time.
const BUFFER_BYTES: usize = 256 * 1024;

/// Writes to a file from an offset on.
pub(crate) struct Appender<'a> {
    file: &'a dyn StorageFile,
    offset: u64,
    buffer: Vec<u8>,
}

impl<'a> Appender<'a> {
    pub(crate) fn new(file: &'a dyn StorageFile, offset: u64) -> Self {
        Self { file, offset, buffer: Vec::new() }
    }

    /// Where the next byte goes.
    pub(crate) fn offset(&self) -> u64 {
        self.offset + self.buffer.len() as u64
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        for part in bytes.chunks(BUFFER_BYTES) {
            if self.buffer.len() + part.len() > BUFFER_BYTES {
                self.flush()?;
            }
            self.buffer.extend_from_slice(part);
        }
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.file.write_at(self.offset, &self.buffer)?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// Writes a table at `offset`, a multiple of 64, of what `open` yields.
///
/// A base holds no kills; an appended table may.
pub(crate) fn write_table(
    file: &dyn StorageFile,
    offset: u64,
    salt: u32,
    open: &OpenSource<'_>,
    for_base: bool,
) -> Result<Table, IndexError> {
    let first_bucket = offset / BUCKET_BYTES as u64;
    let measured = measure(open, for_base)?;
    let mut displacement_least = 0;
    loop {
        let geometry = Geometry::plan(&measured, displacement_least)?;
        let end = first_bucket + u64::from(geometry.bucket_count) + u64::from(u16::MAX);
        IndexError::check_limit("buckets in an index file", end, u64::from(u32::MAX))?;
        let writer = TableWriter::new(Appender::new(file, offset), geometry, salt);
        match writer.fill(open)? {
            Filled::Whole(table) => return Ok(table),
            // The hashes fell worse than planned: one table in a hundred.
            Filled::Crowded => {
                let limit = writer_limit(geometry);
                let wider = (2 * limit + 1).min(u32::from(DISPLACEMENT_MAX));
                // At the widest there is, the plan is refused.
                displacement_least = wider.max(limit + 1);
            }
        }
    }
}

fn writer_limit(geometry: Geometry) -> u32 {
    geometry.displacement_limit().unwrap_or(0)
}

enum Filled {
    Whole(Table),
    /// An entry would lie too far from home to be told from others.
    Crowded,
}

struct TableWriter<'a> {
    output: Appender<'a>,
    table: Table,
    displacement_limit: u32,
    bucket: Bucket,
    /// The number of the bucket that is being filled, and of its next free slot.
    number: u32,
    next_slot: u32,
}

impl<'a> TableWriter<'a> {
    fn new(output: Appender<'a>, geometry: Geometry, salt: u32) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the caller has checked it")]
        let first_bucket = (output.offset() / BUCKET_BYTES as u64) as u32;
        let table = Table {
            first_bucket,
            geometry,
            spill_count: 0,
            displacement_max: 0,
            entry_count: 0,
            salt,
            check: 0,
        };
        let displacement_limit = writer_limit(geometry);
        Self { output, table, displacement_limit, bucket: Bucket::empty(), number: 0, next_slot: 0 }
    }

    fn fill(mut self, open: &OpenSource<'_>) -> Result<Filled, IndexError> {
        let mut source = open()?;
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            source.read(&mut batch)?;
            if batch.is_empty() {
                return Ok(Filled::Whole(self.finish()?));
            }
            for entry in batch.drain(..) {
                if !self.push(&entry)? {
                    return Ok(Filled::Crowded);
                }
            }
        }
    }

    /// Puts `entry` into its home, or into the first bucket behind it with room; `false` where that
    /// is too far.
    fn push(&mut self, entry: &Entry) -> io::Result<bool> {
        let geometry = self.table.geometry;
        let home = geometry.home(entry.prefix);
        while self.number < home || self.next_slot == geometry.slots() {
            self.next_bucket()?;
        }
        let displacement = self.number - home;
        if displacement > self.displacement_limit {
            return Ok(false);
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most DISPLACEMENT_MAX, a u16")]
        let displacement = displacement as u16;
        self.table.displacement_max = self.table.displacement_max.max(displacement);
        let prefix_low = geometry.low_bits(entry.prefix);
        let slot = Slot { prefix_low, location: entry.location, sign: entry.sign };
        self.bucket.put(geometry, self.next_slot, &slot);
        self.next_slot += 1;
        self.table.entry_count += 1;
        Ok(true)
    }

    fn next_bucket(&mut self) -> io::Result<()> {
        self.bucket.seal(self.table.salt, self.number);
        self.table.check = crc32c(self.table.check, self.bucket.bytes());
        self.output.write(self.bucket.bytes())?;
        self.bucket = Bucket::empty();
        self.number += 1;
        self.next_slot = 0;
        Ok(())
    }

    fn finish(mut self) -> io::Result<Table> {
        let bucket_count = self.table.geometry.bucket_count;
        while self.number < bucket_count || self.next_slot > 0 {
            self.next_bucket()?;
        }
        self.output.flush()?;
        // No entry lies further than DISPLACEMENT_MAX buckets behind the last home.
        self.table.spill_count = u16::try_from(self.number - bucket_count).unwrap_or(u16::MAX);
        Ok(self.table)
    }
}
