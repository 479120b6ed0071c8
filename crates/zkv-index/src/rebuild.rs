//! Building an index from facts in log order, in bounded memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use zkv_io::{Cursor, Scratch, Storage, StorageFile, crc32c};

use crate::bucket::Sign;
use crate::checkpoint::Checkpoint;
use crate::entry::{Entries, Entry, EntrySource, Grouped};
use crate::error::IndexError;
use crate::key::{KeyHash, Location, Prefix};

use crate::table_writer::Appender;
use crate::write::{CheckpointMeta, write_file};

/// Facts are told apart by the top bits of their hashes, and one part of them at a time is brought
/// together: a 256th of a hundred million facts takes 18 MiB.
const PARTITION_BITS: u32 = 8;
const PARTITION_COUNT: usize = 1 << PARTITION_BITS;
/// Below this, parts of a part would be written a few bytes at a time.
const FACTS_LEAST: usize = 256;
/// A fact in the scratch file: hash, location or 0, weight.
const FACT_BYTES: usize = 16 + 8 + 8;
/// A surviving entry in the scratch file: prefix, location with [`OPTIONAL`].
const SURVIVOR_BYTES: usize = 8 + 8;
/// Set beside the location of an entry that the index may lack. Locations are shorter.
const OPTIONAL: u64 = 1 << 63;
/// How many survivors are read at a time.
const SURVIVORS_A_CHUNK: usize = 4096;
/// What is wrong where the scratch file does not hold what was written there.
const CHANGED: &str = "the scratch file has changed";

/// What a log says of a key at one point.
#[derive(Clone, Copy, Debug)]
struct Fact {
    hash: KeyHash,
    location: Option<Location>,
    weight: u64,
    /// Which of the facts in memory came first; takes the room that alignment leaves.
    order: u32,
}

/// Builds an index from facts in log order: of all facts about a key, the last one counts.
///
/// Facts are held in memory until they take `memory_bytes`, then sorted and written to a scratch
/// file. In the end, a 256th of them is held at a time.
///
/// ```
/// use std::{path::Path, sync::Arc};
/// use zkv_index::{Candidates, CheckpointMeta, KeyHash, Location, Rebuild};
/// use zkv_io::MemoryStorage;
///
/// let storage = Arc::new(MemoryStorage::new());
/// let mut rebuild = Rebuild::new(storage.clone(), "scratch".into(), 64 << 20);
/// rebuild.push(KeyHash(1 << 100), Location::new(7), 80)?;
/// rebuild.push(KeyHash(1 << 100), Location::new(9), 90)?;
/// rebuild.push(KeyHash(2 << 100), Location::new(8), 10)?;
/// rebuild.push(KeyHash(2 << 100), None, 0)?;
///
/// let mut live_bytes = 0;
/// let rebuilt = rebuild.finish(&mut |_location, weight| {
///     live_bytes += weight;
///     true
/// })?;
/// assert_eq!((rebuilt.key_count(), live_bytes), (1, 90));
///
/// let key_count = rebuilt.key_count();
/// let meta = CheckpointMeta { store_id: [0; 16], watermark: b"", sections: &[], key_count };
/// let checkpoint = rebuilt.write(&*storage, Path::new("store.idx"), &meta)?;
/// let mut candidates = Candidates::new();
/// checkpoint.candidates(KeyHash(1 << 100), &mut candidates)?;
/// assert_eq!(*candidates, [Location::new(9).unwrap()]);
/// # Ok::<(), zkv_index::IndexError>(())
/// ```
#[derive(Debug)]
pub struct Rebuild {
    storage: Arc<dyn Storage>,
    scratch_beside: PathBuf,
    facts: Vec<Fact>,
    facts_max: usize,
    spilled: Option<Spilled>,
}

/// Facts in the scratch file.
#[derive(Debug)]
struct Spilled {
    scratch: Scratch,
    /// Where the next byte goes.
    end: u64,
    /// Of each partition, where its parts lie, in log order.
    parts: Vec<Vec<Part>>,
}

#[derive(Clone, Copy, Debug)]
struct Part {
    offset: u64,
    count: u32,
    /// The CRC32C of its bytes: a fact that has changed would be a key that is missing in silence.
    check: u32,
}

impl Rebuild {
    /// Starts without facts. The scratch file is made beside `scratch`, under a temporary name,
    /// once `memory_bytes` do not suffice; it is removed when this value, or what it becomes, is
    /// dropped.
    ///
    /// Less than 8 KiB of memory is as good as 8 KiB. With much less than a 256th of what the facts
    /// take (48 bytes each), that part is the bound.
    #[must_use]
    pub fn new(storage: Arc<dyn Storage>, scratch: PathBuf, memory_bytes: usize) -> Self {
        let facts_max = (memory_bytes / size_of::<Fact>()).clamp(FACTS_LEAST, u32::MAX as usize);
        Self { storage, scratch_beside: scratch, facts: Vec::new(), facts_max, spilled: None }
    }

    /// Says where the key `hash` is from here on; `None`: nowhere. `weight` is handed back with the
    /// fact if it survives.
    ///
    /// # Errors
    /// [`IndexError::Io`] where the scratch file cannot be written.
    pub fn push(
        &mut self,
        hash: KeyHash,
        location: Option<Location>,
        weight: u64,
    ) -> Result<(), IndexError> {
        if self.facts.len() == self.facts_max {
            self.spill()?;
        }
        #[expect(clippy::cast_possible_truncation, reason = "below `facts_max`, which fits")]
        let order = self.facts.len() as u32;
        self.facts.push(Fact { hash, location, weight, order });
        Ok(())
    }

    /// Finds the facts that survive and tells `live` the location and weight of each. That says whether
    /// the index needs the entry: one that it does not is not written, and no difference to an index,
    /// whether that has it or not.
    ///
    /// # Errors
    /// [`IndexError::Io`] where the scratch file cannot be read or written; [`IndexError::Corrupt`] where it
    /// does not hold what was written there.
    pub fn finish(
        mut self,
        live: &mut dyn FnMut(Location, u64) -> bool,
    ) -> Result<Rebuilt, IndexError> {
        let Some(mut spilled) = self.take_spilled()? else {
            let mut facts = self.facts;
            keep_last(&mut facts);
            let survivors = survivors_of(&facts, live).collect::<Vec<_>>();
            let needed_count = survivors.iter().filter(|survivor| survivor.is_needed()).count();
            return Ok(Rebuilt {
                needed_count: needed_count as u64,
                survivors: Survivors::Held(survivors),
            });
        };
        let start = spilled.end;
        let (mut count, mut needed_count, mut check) = (0, 0, 0);
        let mut output = Appender::new(spilled.scratch.file()?, start);
        for parts in std::mem::take(&mut spilled.parts) {
            let facts = load(spilled.scratch.file()?, &parts)?;
            for survivor in survivors_of(&facts, live) {
                let bytes = survivor.encode();
                output.write(&bytes)?;
                check = crc32c(check, &bytes);
                count += 1;
                needed_count += u64::from(survivor.is_needed());
            }
        }
        output.flush()?;
        drop(output);
        let survivors = Survivors::Spilled { scratch: spilled.scratch, start, count, check };
        Ok(Rebuilt { needed_count, survivors })
    }

    /// The spilled facts, where there are any; then all are.
    fn take_spilled(&mut self) -> Result<Option<Spilled>, IndexError> {
        if self.spilled.is_some() {
            self.spill()?;
            self.facts = Vec::new();
        }
        Ok(self.spilled.take())
    }

    /// Moves the facts in memory to the scratch file, sorted, each key once.
    fn spill(&mut self) -> Result<(), IndexError> {
        let spilled = match &mut self.spilled {
            Some(spilled) => spilled,
            none => none.insert(Spilled {
                scratch: Scratch::create(Arc::clone(&self.storage), &self.scratch_beside)?,
                end: 0,
                parts: vec![Vec::new(); PARTITION_COUNT],
            }),
        };
        keep_last(&mut self.facts);
        let mut output = Appender::new(spilled.scratch.file()?, spilled.end);
        for part in self.facts.chunk_by(|left, right| partition(left) == partition(right)) {
            let count = u32::try_from(part.len()).unwrap_or(u32::MAX);
            let (offset, mut check) = (output.offset(), 0);
            for bytes in part.iter().map(encode) {
                output.write(&bytes)?;
                check = crc32c(check, &bytes);
            }
            spilled.parts[partition(&part[0])].push(Part { offset, count, check });
        }
        output.flush()?;
        spilled.end = output.offset();
        self.facts.clear();
        Ok(())
    }
}

/// Which partition a fact belongs to.
fn partition(fact: &Fact) -> usize {
    (fact.hash.0 >> (u128::BITS - PARTITION_BITS)) as usize
}

/// Sorts by hash, and keeps the last fact of each.
fn keep_last(facts: &mut Vec<Fact>) {
    // A stable sort by hash alone would need half as much memory again.
    facts.sort_unstable_by_key(|fact| (fact.hash, std::cmp::Reverse(fact.order)));
    facts.dedup_by_key(|fact| fact.hash);
}

/// The entries of those facts that put something, which `live` is told of.
fn survivors_of<'a>(
    facts: &'a [Fact],
    live: &'a mut dyn FnMut(Location, u64) -> bool,
) -> impl Iterator<Item = Survivor> + 'a {
    facts.iter().filter_map(|fact| {
        let location = fact.location?;
        let optional = if live(location, fact.weight) { 0 } else { OPTIONAL };
        Some(Survivor { prefix: fact.hash.prefix(), place: location.get() | optional })
    })
}

fn encode(fact: &Fact) -> [u8; FACT_BYTES] {
    let mut bytes = [0; FACT_BYTES];
    bytes[..16].copy_from_slice(&fact.hash.0.to_le_bytes());
    bytes[16..24].copy_from_slice(&fact.location.map_or(0, Location::get).to_le_bytes());
    bytes[24..].copy_from_slice(&fact.weight.to_le_bytes());
    bytes
}

/// Loads the parts of a partition, and keeps the last fact of each key.
fn load(file: &dyn StorageFile, parts: &[Part]) -> Result<Vec<Fact>, IndexError> {
    let total = parts.iter().map(|part| part.count as usize).sum();
    let mut facts: Vec<Fact> = Vec::with_capacity(total);
    let mut bytes = Vec::new();
    for part in parts {
        bytes.resize(part.count as usize * FACT_BYTES, 0);
        file.read_at(part.offset, &mut bytes)?;
        if crc32c(0, &bytes) != part.check {
            return Err(IndexError::corrupt(part.offset, CHANGED));
        }
        for fact in bytes.as_chunks::<FACT_BYTES>().0 {
            let order = u32::try_from(facts.len()).unwrap_or(u32::MAX);
            let damaged = |_| IndexError::corrupt(part.offset, CHANGED);
            facts.push(decode(fact, order).map_err(damaged)?);
        }
    }
    keep_last(&mut facts);
    Ok(facts)
}

fn decode(bytes: &[u8], order: u32) -> Result<Fact, zkv_io::Overrun> {
    let mut cursor = Cursor::new(bytes);
    let hash = KeyHash(u128::from_le_bytes(cursor.array()?));
    let location = Location::new(cursor.u64()?);
    let weight = cursor.u64()?;
    cursor.finish()?;
    Ok(Fact { hash, location, weight, order })
}

/// An index that is ready to be written.
#[derive(Debug)]
pub struct Rebuilt {
    survivors: Survivors,
    needed_count: u64,
}

/// An entry.
#[derive(Clone, Copy, Debug)]
struct Survivor {
    prefix: Prefix,
    /// The location, with [`OPTIONAL`].
    place: u64,
}

impl Survivor {
    fn is_needed(self) -> bool {
        self.place & OPTIONAL == 0
    }

    fn encode(self) -> [u8; SURVIVOR_BYTES] {
        let mut bytes = [0; SURVIVOR_BYTES];
        bytes[..8].copy_from_slice(&self.prefix.get().to_le_bytes());
        bytes[8..].copy_from_slice(&self.place.to_le_bytes());
        bytes
    }

    fn entry(self) -> Option<Entry> {
        let location = Location::new(self.place & !OPTIONAL)?;
        Some(Entry { prefix: self.prefix, location, sign: Sign::Put })
    }
}

/// Entries sorted by prefix.
#[derive(Debug)]
enum Survivors {
    Held(Vec<Survivor>),
    Spilled { scratch: Scratch, start: u64, count: u64, check: u32 },
}

impl Rebuilt {
    /// How many facts have survived and are needed.
    #[must_use]
    pub fn key_count(&self) -> u64 {
        self.needed_count
    }

    /// Those that are needed, or all others, in order.
    pub(crate) fn entries(&self, are_needed: bool) -> Result<Entries<'_>, IndexError> {
        self.survivors.open(are_needed).map(Entries::of)
    }

    /// Writes the index to `path`, in place of any that is there.
    ///
    /// # Errors
    /// As [`write_first`](crate::write_first); [`IndexError::Corrupt`] as [`Rebuild::finish`]. Where the last
    /// steps fail, the new file may be at `path`: whoever has a checkpoint of the older one
    /// [retires](Checkpoint::retire) it before.
    pub fn write(
        self,
        storage: &dyn Storage,
        path: &Path,
        meta: &CheckpointMeta<'_>,
    ) -> Result<Checkpoint, IndexError> {
        write_file(storage, path, &|| self.survivors.open(true), meta, 0)
    }
}

impl Survivors {
    fn open(&self, are_needed: bool) -> Result<Box<dyn EntrySource + '_>, IndexError> {
        match self {
            Self::Held(survivors) => {
                let those = survivors.iter().filter(move |one| one.is_needed() == are_needed);
                Ok(Box::new(Grouped::new(those.filter_map(|one| one.entry().map(Ok)))))
            }
            Self::Spilled { scratch, start, count, check } => {
                let read = SpilledSurvivors {
                    file: scratch.file()?,
                    offset: *start,
                    left: *count,
                    expected: *check,
                    check: 0,
                    chunk: Vec::new(),
                    at: 0,
                };
                let those = read.filter_map(move |one| match one {
                    Ok(one) if one.is_needed() != are_needed => None,
                    Ok(one) => one.entry().map(Ok),
                    Err(error) => Some(Err(error)),
                });
                Ok(Box::new(Grouped::new(those)))
            }
        }
    }
}

/// Reads survivors from the scratch file.
struct SpilledSurvivors<'a> {
    file: &'a dyn StorageFile,
    offset: u64,
    left: u64,
    /// The CRC32C of all survivors, and of those that were read.
    expected: u32,
    check: u32,
    chunk: Vec<u8>,
    at: usize,
}

impl SpilledSurvivors<'_> {
    fn read_chunk(&mut self) -> Result<(), IndexError> {
        let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(SURVIVORS_A_CHUNK);
        self.chunk.resize(count * SURVIVOR_BYTES, 0);
        self.file.read_at(self.offset, &mut self.chunk)?;
        self.check = crc32c(self.check, &self.chunk);
        if count as u64 == self.left && self.check != self.expected {
            return Err(IndexError::corrupt(self.offset, CHANGED));
        }
        self.offset += self.chunk.len() as u64;
        self.at = 0;
        Ok(())
    }

    fn read(&mut self) -> Result<Survivor, IndexError> {
        if self.at == self.chunk.len() {
            self.read_chunk()?;
        }
        let changed = || IndexError::corrupt(self.offset, CHANGED);
        let mut cursor = Cursor::new(&self.chunk[self.at..]);
        let prefix = cursor.u64().ok().and_then(Prefix::new).ok_or_else(changed)?;
        let place = cursor.u64().ok();
        let is_location = |place: &u64| Location::new(place & !OPTIONAL).is_some();
        let place = place.filter(is_location).ok_or_else(changed)?;
        self.at += SURVIVOR_BYTES;
        Ok(Survivor { prefix, place })
    }
}

impl Iterator for SpilledSurvivors<'_> {
    type Item = Result<Survivor, IndexError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let survivor = self.read();
        self.left -= 1;
        Some(survivor)
    }
}
