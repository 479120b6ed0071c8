//! What of a segment is needed: records that the index points at, and marks that still speak of
//! something.

use std::collections::{HashMap, HashSet};

use zkv_index::KeyHash;
use zkv_log::layout::slot_start;
use zkv_log::{Cell, LogError, LogView, Prepacked, SegmentInfo, SegmentScan};
use zkv_record::Record;

use crate::hashed::KeySet;
use crate::keys::Keys;
use crate::metadata::live::raw_bytes;
use crate::open::rebuild::decode_entry;
use crate::read::view::{Committed, KeyRef, LookupError, from_index, to_index};
use crate::write::resolve::{Before, Existing, Resolved};

/// What a record takes in memory besides its own bytes: what is known of it, in a list that doubles,
/// and its allocation.
const RECORD_OVERHEAD_BYTES: usize = 3 * size_of::<Resolved<'_>>() / 2 + 32;

/// Reads the segments that are to be cleaned, one after another.
pub(crate) struct Gatherer<'a> {
    keys: &'a Keys,
    log: LogView,
    /// What is still to be read, the next one last.
    victims: Vec<SegmentInfo>,
    current: Option<Current>,
    cell: Cell,
    keeps_prepacked: bool,
}

struct Current {
    segment: SegmentInfo,
    oldest: Oldest,
    scan: SegmentScan,
}

/// Records that move together, and places that only the index still knows.
#[derive(Default)]
pub(crate) struct Portion {
    pub moved: Vec<Resolved<'static>>,
    /// Those that have blocks of their own, as they were packed, by where they stand.
    pub prepacked: HashMap<(KeyHash, zkv_index::Location), Prepacked>,
    /// Records of collections that were dropped.
    pub forgotten: Vec<Forgotten>,
    /// Segments of which this portion holds the last that is needed.
    pub emptied: Vec<u32>,
    /// Marks that were not kept.
    pub marks_dropped: u64,
    /// The memory of the records.
    pub bytes: usize,
}

/// A record that the index points at, and that nobody needs.
pub(crate) struct Forgotten {
    pub hash: KeyHash,
    pub location: zkv_index::Location,
    pub collection: u32,
    pub raw_bytes: u64,
}

/// What has become of a record since it was gathered.
pub(crate) enum Still {
    Needed,
    /// The index points elsewhere.
    Gone,
    /// The index points at it, and its collection was dropped.
    Dropped(Forgotten),
}

/// How far back the log goes, without the segments that are to go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Oldest(u64);

impl Oldest {
    /// Of the log of `view`, without the segments in `cleaned` and without `current`.
    ///
    /// Those in `cleaned` go in the same commit as the current one, or before it: nothing that a mark
    /// in one of them spoke of can come back without the mark.
    pub(crate) fn of(view: &LogView, cleaned: &HashSet<u32>, current: u32) -> Self {
        let segments = view.segments();
        let mut kept = segments
            .iter()
            .filter(|segment| segment.slot != current && !cleaned.contains(&segment.slot));
        Self(kept.next().map_or(u64::MAX, |segment| segment.sequence))
    }

    /// As if nothing were gone: for who has decided that already.
    pub(crate) fn beginning() -> Self {
        Self(0)
    }

    /// Whether a mark that was first written in the segment `origin` still speaks of something.
    fn needs_mark(self, origin: u64) -> bool {
        self.0 <= origin
    }
}

impl<'a> Gatherer<'a> {
    /// Of the log of `view`, the segments `victims`, in this order.
    pub(crate) fn new(
        keys: &'a Keys,
        log: LogView,
        mut victims: Vec<SegmentInfo>,
        keeps_prepacked: bool,
    ) -> Self {
        victims.reverse();
        Self { keys, log, victims, current: None, cell: Cell::default(), keeps_prepacked }
    }

    /// The next records that are needed, as `committed` has it: about `bytes_max` of them, the last
    /// cell whole. `None` once all segments are read. `looked` is told of each `bytes_max` that were looked at
    /// and are not needed: a segment may have a million of those.
    ///
    /// # Errors
    /// Where a segment is damaged: it cannot be known what is needed of it.
    pub(crate) fn next_portion(
        &mut self,
        committed: &Committed,
        cleaned: &HashSet<u32>,
        bytes_max: usize,
        looked: impl Fn(),
    ) -> Result<Option<Portion>, LookupError> {
        let (mut portion, mut passed_bytes) = (Portion::default(), 0);
        while portion.bytes < bytes_max {
            let Some(current) = &mut self.current else {
                let Some(segment) = self.victims.pop() else { break };
                let gone: HashSet<u32> = cleaned.iter().chain(&portion.emptied).copied().collect();
                // What is gone now stays so, however long this segment takes.
                let oldest = Oldest::of(&self.log, &gone, segment.slot);
                let scan = self.log.scan(segment.slot, None)?;
                let scan = if self.keeps_prepacked { scan.with_prepacked() } else { scan };
                self.current = Some(Current { segment, oldest, scan });
                continue;
            };
            let slot = current.segment.slot;
            let read = current.scan.next_cell(&mut self.cell);
            if read.map_err(|error| damage_of(slot, committed, error))? {
                let needed = Needed { committed, keys: self.keys, oldest: current.oldest };
                let before = portion.bytes;
                let sequence = current.segment.sequence;
                let judged = needed.judge(&mut self.cell, &self.log, sequence, &mut portion);
                judged.map_err(|error| undecided(slot, committed, error))?;
                let cell_bytes =
                    self.cell.payload_bytes() + self.cell.len() * RECORD_OVERHEAD_BYTES;
                passed_bytes += cell_bytes.saturating_sub(portion.bytes - before);
                if passed_bytes >= bytes_max {
                    passed_bytes = 0;
                    looked();
                }
            } else {
                portion.emptied.push(current.segment.slot);
                self.current = None;
            }
        }
        let is_nothing = portion.moved.is_empty() && portion.forgotten.is_empty();
        Ok((!is_nothing || !portion.emptied.is_empty()).then_some(portion))
    }
}

/// A place that the disk cannot read is damage of its segment, as a block is that was changed: others are
/// cleaned without it.
fn damage_of(slot: u32, committed: &Committed, error: LogError) -> LogError {
    if matches!(error, LogError::Corrupt { .. }) || !committed.is_lost(&error) {
        return error;
    }
    let offset = slot_start(slot, committed.log.identity().slot_bytes);
    LogError::Corrupt { offset, what: "a block of this segment, which the disk cannot read" }
}

/// A segment stays as it is, too, where what decides about one of its records is lost elsewhere: moved behind the
/// newest record of its key, which cannot be read now, it would take the place of that.
fn undecided(slot: u32, committed: &Committed, error: LookupError) -> LookupError {
    let LookupError::Log(error) = error else { return error };
    let slot_bytes = committed.log.identity().slot_bytes;
    let offset = slot_start(slot, slot_bytes);
    let is_own = matches!(error, LogError::Corrupt { offset: at, .. }
        if (offset..offset + u64::from(slot_bytes)).contains(&at));
    if is_own || !committed.is_lost(&error) {
        return error.into();
    }
    let what = "a record of this segment, of whose key a newer place cannot be read";
    LogError::Corrupt { offset, what }.into()
}

/// What decides whether a record is needed.
pub(crate) struct Needed<'a> {
    pub committed: &'a Committed,
    pub keys: &'a Keys,
    pub oldest: Oldest,
}

impl Needed<'_> {
    /// All that is needed of a cell goes into one portion: of keys whose hashes begin alike, the index
    /// cannot tell one from the other within it.
    fn judge(
        &self,
        cell: &mut Cell,
        log: &LogView,
        sequence: u64,
        portion: &mut Portion,
    ) -> Result<(), LookupError> {
        let mut seen = KeySet::default();
        // The newest first: of a key that stands in the cell twice, the last record counts.
        for number in (0..cell.len()).rev() {
            let bytes = cell.entry(number);
            let record = decode_entry(bytes, cell.location(), cell.block_of(number), log)?;
            let hash = self.keys.hash_record(&record);
            if !seen.insert(hash) {
                continue;
            }
            if record.is_mark() {
                let origin = record.origin.unwrap_or(sequence);
                let is_needed =
                    self.oldest.needs_mark(origin) && self.is_mark_needed(hash, &record)?;
                if is_needed {
                    portion.push_mark(hash, &record, origin);
                } else {
                    portion.marks_dropped += 1;
                }
                continue;
            }
            let Some(location) = to_index(cell.location()) else { continue };
            if !self.committed.names(key_of(hash, &record), cell.location())? {
                continue;
            }
            if self.committed.catalog.is_alive(record.collection) {
                let bytes = bytes.to_vec();
                portion.push_value(hash, bytes, location, cell.take_prepacked(number));
            } else {
                let (collection, raw_bytes) = (record.collection, raw_bytes(&record));
                portion.forgotten.push(Forgotten { hash, location, collection, raw_bytes });
            }
        }
        Ok(())
    }

    /// Whether the key of a mark has no value: one that has been written since overrules what the mark
    /// does, whatever reads the log.
    ///
    /// # Errors
    /// Also where the key's place cannot be read: a mark that is moved would stand behind a newer value.
    fn is_mark_needed(&self, hash: KeyHash, record: &Record<'_>) -> Result<bool, LookupError> {
        if !self.committed.catalog.is_alive(record.collection) {
            return Ok(false);
        }
        let found = self.committed.find(key_of(hash, record), |found| found.is_mark())?;
        // The mark itself is found where the index leads to its cell from another hash, which begins alike.
        Ok(found != Some(false))
    }

    /// What has become of a record that was gathered a while ago.
    pub(crate) fn look_again(&self, one: &Resolved<'_>) -> Result<Still, LookupError> {
        let Ok(record) = Record::decode(one.record.get()) else { return Ok(Still::Gone) };
        let Some(old) = one.old.existing() else {
            let is_needed = self.is_mark_needed(one.hash, &record)?;
            return Ok(if is_needed { Still::Needed } else { Still::Gone });
        };
        if !self.committed.names(key_of(one.hash, &record), from_index(old.location))? {
            return Ok(Still::Gone);
        }
        if self.committed.catalog.is_alive(record.collection) {
            return Ok(Still::Needed);
        }
        let (hash, collection) = (one.hash, one.collection);
        let (location, raw_bytes) = (old.location, one.raw_bytes);
        Ok(Still::Dropped(Forgotten { hash, location, collection, raw_bytes }))
    }

    /// Whether the index still points at what nobody needed a while ago.
    pub(crate) fn is_to_forget(&self, one: &Forgotten) -> Result<bool, LookupError> {
        self.committed.leads_to(one.hash, one.location)
    }
}

fn key_of<'a>(hash: KeyHash, record: &Record<'a>) -> KeyRef<'a> {
    let is_piece = record.kind == zkv_record::Kind::Piece;
    KeyRef { hash, key: record.key, collection: record.collection, is_piece }
}

impl Portion {
    fn push_value(
        &mut self,
        hash: KeyHash,
        bytes: Vec<u8>,
        location: zkv_index::Location,
        prepacked: Option<Prepacked>,
    ) {
        let Ok(record) = Record::decode(&bytes) else { return };
        if let Some(prepacked) = prepacked {
            self.bytes += prepacked.memory_bytes();
            self.prepacked.insert((hash, location), prepacked);
        }
        let old = Before::At(Existing::at(location, raw_bytes(&record)));
        self.push(hash, bytes, old);
    }

    /// A mark keeps its origin wherever it goes.
    fn push_mark(&mut self, hash: KeyHash, record: &Record<'_>, origin: u64) {
        let moved = Record { origin: Some(origin), ..*record };
        let mut bytes = Vec::with_capacity(moved.encoded_bytes());
        moved.encode_into(&mut bytes);
        self.push(hash, bytes, Before::Nothing);
    }

    fn push(&mut self, hash: KeyHash, bytes: Vec<u8>, old: Before) {
        self.bytes += bytes.len() + RECORD_OVERHEAD_BYTES;
        self.moved.extend(Resolved::made(hash, bytes, old));
    }
}
