//! A table in the file: looked up bucket by bucket, or read from end to end.

use zkv_io::{FileMap, crc32c, is_lost};

use crate::bucket::{BUCKET_BYTES, Bucket, Sign};
use crate::candidates::Candidates;
use crate::entry::{BATCH, Entry, EntrySource};
use crate::error::IndexError;
use crate::geometry::Geometry;
use crate::key::Prefix;

/// How much of a table a scan copies at a time.
const CHUNK_BUCKETS: u32 = 1024;

/// Where a table lies in the file, and how to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    /// Where the table starts, in buckets from the file's start.
    pub(crate) first_bucket: u32,
    pub(crate) geometry: Geometry,
    /// How many buckets follow the last home, for what found no room before.
    pub(crate) spill_count: u16,
    /// How far from home the most displaced entry lies, in buckets.
    pub(crate) displacement_max: u16,
    pub(crate) entry_count: u64,
    /// Drawn at random, so that a bucket of another table does not pass for one of this.
    pub(crate) salt: u32,
    /// The CRC32C of all buckets.
    pub(crate) check: u32,
}

impl Table {
    /// All buckets, homes and spill.
    #[inline]
    pub(crate) fn buckets_total(&self) -> u32 {
        self.geometry.bucket_count + u32::from(self.spill_count)
    }

    /// How many bytes the table takes.
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.buckets_total()) * BUCKET_BYTES as u64
    }

    /// Where bucket `number` starts, in bytes from the file's start.
    #[inline]
    pub(crate) fn bucket_offset(&self, number: u32) -> u64 {
        (u64::from(self.first_bucket) + u64::from(number)) * BUCKET_BYTES as u64
    }

    /// Whether a bucket of this table is one of `other`, too.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let end = |table: &Self| table.bucket_offset(table.buckets_total());
        self.bucket_offset(0) < end(other) && other.bucket_offset(0) < end(self)
    }

    fn corrupt(&self, bucket: u32, what: &'static str) -> IndexError {
        IndexError::corrupt(self.bucket_offset(bucket), what)
    }

    /// Asks for the bucket in which the search for `prefix` starts.
    #[inline]
    pub(crate) fn prefetch_home(&self, map: &dyn FileMap, prefix: Prefix) {
        // A bucket fills one cache line.
        map.prefetch(self.bucket_offset(self.geometry.home(prefix)), 1);
    }

    /// Copies the bucket in which the search for `prefix` starts.
    #[inline]
    pub(crate) fn load_home(
        &self,
        map: &dyn FileMap,
        prefix: Prefix,
        bucket: &mut Bucket,
    ) -> Result<(), IndexError> {
        self.load(map, self.geometry.home(prefix), bucket.bytes_mut())
    }

    /// Copies buckets from `number` on. What the disk has lost is as good as damaged: it can be made anew.
    #[inline]
    fn load(&self, map: &dyn FileMap, number: u32, into: &mut [u8]) -> Result<(), IndexError> {
        let read = map.copy_out(self.bucket_offset(number), into);
        read.map_err(|error| match is_lost(&error) {
            true => self.corrupt(number, "a bucket cannot be read"),
            false => IndexError::Io(error),
        })
    }

    /// Adds what the table says of `prefix`, whose home is in `bucket` already.
    #[inline]
    pub(crate) fn find(
        &self,
        map: &dyn FileMap,
        prefix: Prefix,
        bucket: &mut Bucket,
        into: &mut Candidates,
    ) -> Result<(), IndexError> {
        let geometry = self.geometry;
        let (slots, low) = (geometry.slots(), geometry.low_bits(prefix));
        let home = geometry.home(prefix);
        let last = home + u32::from(self.displacement_max);
        let last = last.min(self.buckets_total() - 1);
        let mut number = home;
        loop {
            if !bucket.is_whole(self.salt, number) {
                return Err(self.corrupt(number, "a bucket does not match its check bits"));
            }
            for index in 0..slots {
                match bucket.slot_with(geometry, index, low) {
                    Some(slot) if slot.sign == Sign::Put => into.put(slot.location),
                    Some(slot) => into.kill(slot.location),
                    None => {}
                }
            }
            if into.is_flooded() {
                return Err(self.corrupt(number, "a hash has more places than there can be"));
            }
            // Entries lie in order, and go on to the next bucket only where this one is full.
            let Some(slot) = bucket.slot(geometry, slots - 1) else { return Ok(()) };
            let least = geometry.least_prefix(number, self.displacement_max);
            let highest = geometry.recover(number, least, slot.prefix_low);
            if number == last || highest.is_some_and(|highest| highest > prefix) {
                return Ok(());
            }
            number += 1;
            self.load(map, number, bucket.bytes_mut())?;
        }
    }
}

/// Reads a table in order, and holds every bucket against the format's rules.
pub(crate) struct Scan<'a> {
    map: &'a dyn FileMap,
    table: Table,
    chunk: Vec<u8>,
    chunk_at: usize,
    bucket: Bucket,
    /// The bucket in `bucket` is the one before this.
    next_bucket: u32,
    /// That of the last entry; 0, which is none's, before the first.
    last_order: u128,
    count: u64,
    check: u32,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(map: &'a dyn FileMap, table: Table) -> Self {
        Self {
            map,
            table,
            chunk: Vec::new(),
            chunk_at: 0,
            bucket: Bucket::empty(),
            next_bucket: 0,
            last_order: 0,
            count: 0,
            check: 0,
        }
    }

    /// Loads the next bucket; `false` behind the last one.
    fn advance(&mut self) -> Result<bool, IndexError> {
        let number = self.next_bucket;
        let left = self.table.buckets_total() - number;
        if left == 0 {
            return Ok(false);
        }
        if self.chunk_at == self.chunk.len() {
            self.chunk.resize(left.min(CHUNK_BUCKETS) as usize * BUCKET_BYTES, 0);
            self.table.load(self.map, number, &mut self.chunk)?;
            self.check = crc32c(self.check, &self.chunk);
            self.chunk_at = 0;
        }
        let bytes = &self.chunk[self.chunk_at..self.chunk_at + BUCKET_BYTES];
        self.bucket.bytes_mut().copy_from_slice(bytes);
        self.chunk_at += BUCKET_BYTES;
        if !self.bucket.is_whole(self.table.salt, number) {
            return Err(self.table.corrupt(number, "a bucket does not match its check bits"));
        }
        self.next_bucket += 1;
        Ok(true)
    }

    /// The entries of the present bucket.
    fn take_bucket(&mut self, into: &mut Vec<Entry>) -> Result<(), IndexError> {
        let (table, number) = (self.table, self.next_bucket - 1);
        let least = table.geometry.least_prefix(number, table.displacement_max);
        for index in 0..table.geometry.slots() {
            let Some(slot) = self.bucket.slot(table.geometry, index) else { break };
            let recovered = table.geometry.recover(number, least, slot.prefix_low);
            let Some(prefix) = recovered else {
                return Err(table.corrupt(number, "an entry lies where no prefix leads"));
            };
            let entry = Entry { prefix, location: slot.location, sign: slot.sign };
            if entry.order() < self.last_order {
                return Err(table.corrupt(number, "entries are out of order"));
            }
            self.last_order = entry.order();
            self.count += 1;
            into.push(entry);
        }
        Ok(())
    }

    /// What is known at the end only.
    fn finish(&self) -> Result<(), IndexError> {
        let corrupt = |what| Err(self.table.corrupt(0, what));
        if self.count != self.table.entry_count {
            return corrupt("a table holds more or fewer entries than its header says");
        }
        if self.check != self.table.check {
            return corrupt("a table does not match its checksum");
        }
        Ok(())
    }
}

impl EntrySource for Scan<'_> {
    fn read(&mut self, into: &mut Vec<Entry>) -> Result<(), IndexError> {
        let full = into.len() + BATCH;
        while into.len() < full {
            if !self.advance()? {
                return self.finish();
            }
            self.take_bucket(into)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use zkv_io::MemoryStorage;

    use super::*;
    use crate::{Change, CheckpointMeta, KeyHash, Location, Run, write_first};

    /// Counts what is copied.
    #[derive(Debug)]
    struct Counting(Arc<dyn FileMap>, AtomicU32);

    impl FileMap for Counting {
        fn copy_out(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.copy_out(offset, into)
        }
    }

    #[test]
    fn a_lookup_ends_where_its_prefix_would_lie() {
        const COUNT: u64 = 100_000;
        // As uneven as real hashes are: SplitMix64's first step would spread them evenly.
        let hash = |key: u64| {
            let first = key.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            KeyHash(u128::from((first ^ first >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9)) << 64)
        };
        let new = Location::new(1);
        let changes = (0..COUNT).map(|key| Change { hash: hash(key), old: None, new });
        let run = Run::from_changes(changes.collect());
        let meta =
            CheckpointMeta { store_id: [0; 16], watermark: &[], sections: &[], key_count: COUNT };
        let storage = MemoryStorage::new();
        let checkpoint = write_first(&storage, Path::new("index"), &run, &meta).unwrap();
        let [table] = *checkpoint.header.tables else { panic!("not one table") };
        let map = Counting(Arc::clone(&checkpoint.file.map), AtomicU32::new(0));
        for key in 0..2 * COUNT {
            let (prefix, mut home) = (hash(key).prefix(), Bucket::empty());
            let mut found = Candidates::new();
            table.load_home(&map, prefix, &mut home).unwrap();
            table.find(&map, prefix, &mut home, &mut found).unwrap();
            assert_eq!(found.first().copied(), new.filter(|_| key < COUNT));
        }
        let buckets_a_lookup = f64::from(map.1.into_inner()) / (2 * COUNT) as f64;
        assert!(buckets_a_lookup < 2.0, "{buckets_a_lookup}");
    }
}
