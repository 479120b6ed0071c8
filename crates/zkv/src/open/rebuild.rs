//! Making the index from the log alone.

use std::collections::HashSet;
use std::sync::Arc;

use zkv_index::{CheckpointMeta, IndexError, KeyHash, Rebuild, Rebuilt};
use zkv_log::{Location, LogError, LogView, Position, layout};
use zkv_record::{Kind, Record, RecordError};

use crate::keys::Keys;
use crate::metadata::catalog::{CATALOG, Catalog};
use crate::metadata::counts::KeyCounts;
use crate::metadata::live::{LiveTable, Place, Weight, raw_bytes, slot_of};
use crate::read::view::{Committed, from_index, to_index};
use crate::write::writer::{IndexPlace, WriteError};

/// Memory for the facts of a rebuild, of 48 bytes each, before they spill to a file.
const MEMORY_BYTES: usize = 32 << 20;
/// A fact's weight is the bytes of its record; from bit 32 on its collection;
const COLLECTION_SHIFT: u32 = 32;
/// and this, where it is a piece, which is no key. Records are shorter.
const PIECE_FLAG: u64 = 1 << 31;

/// An index that is ready to be written, and what was counted on the way.
pub(crate) struct RebuiltIndex {
    pub index: Rebuilt,
    pub live: LiveTable,
    pub counts: KeyCounts,
    pub catalog: Catalog,
}

/// What is in the log, and how much of it is in use.
pub(crate) struct Indexed {
    pub committed: Committed,
    pub live: LiveTable,
}

/// Makes an index of `log` that lives as long as the process. Where what does not fit memory cannot be
/// spilled, it stays there after all: 32 bytes a record, rather than a store that nobody can read.
pub(crate) fn in_memory(
    log: &LogView,
    keys: &Keys,
    place: &IndexPlace,
) -> Result<Indexed, WriteError> {
    let place = place.in_memory();
    let rebuilt = match from_log(log, keys, &place) {
        Err(WriteError::Index(IndexError::Io(_))) => from_log(log, keys, &place.without_files())?,
        rebuilt => rebuilt?,
    };
    let meta = CheckpointMeta {
        store_id: log.identity().store_id,
        watermark: &[],
        sections: &[],
        key_count: rebuilt.counts.total(),
    };
    let checkpoint = rebuilt.index.write(&*place.storage, &place.path, &meta)?;
    let committed = Committed {
        checkpoint: Some(Arc::new(checkpoint)),
        counts: Arc::new(rebuilt.counts),
        catalog: Arc::new(rebuilt.catalog),
        known: rebuilt.live.known(),
        ..Committed::nothing_of(log.clone())
    };
    Ok(Indexed { committed, live: rebuilt.live })
}

/// Reads the whole log.
///
/// A damaged block fails it: which keys that block held, and what older versions it superseded,
/// cannot be known.
pub(crate) fn from_log(
    log: &LogView,
    keys: &Keys,
    place: &IndexPlace,
) -> Result<RebuiltIndex, WriteError> {
    let mut facts = Facts::new(place);
    for segment in log.segments() {
        let mut scan = log.scan(segment.slot, None)?;
        while let Some(block) = scan.next_block()? {
            for entry in block.entries()? {
                let record = decode_entry(entry?, block.location, block.position, log)?;
                let hash = keys.hash_record(&record);
                facts.add(&record, hash, block.location, segment.slot)?;
            }
        }
    }
    Ok(facts.finish(slot_bytes(log))?)
}

/// What the records of a log say, in their order.
pub(crate) struct Facts {
    rebuild: Rebuild,
    live: LiveTable,
    catalog: Catalog,
}

impl Facts {
    /// None yet; those that do not fit memory spill to `place`.
    pub(crate) fn new(place: &IndexPlace) -> Self {
        let storage = Arc::clone(&place.scratch_storage);
        let rebuild = Rebuild::new(storage, place.scratch.clone(), MEMORY_BYTES);
        Self { rebuild, live: LiveTable::default(), catalog: Catalog::default() }
    }

    /// Adds a record that stands at `location`, in `slot`, behind all added before.
    pub(crate) fn add(
        &mut self,
        record: &Record<'_>,
        hash: KeyHash,
        location: Location,
        slot: u32,
    ) -> Result<(), IndexError> {
        let bytes = raw_bytes(record).min(PIECE_FLAG - 1);
        let is_piece = record.kind == Kind::Piece;
        let location = if record.is_mark() { None } else { to_index(location) };
        let collection = u64::from(record.collection) << COLLECTION_SHIFT;
        let weight = collection | bytes | if is_piece { PIECE_FLAG } else { 0 };
        self.live.add(slot, Weight::of(record));
        if record.collection == CATALOG {
            self.catalog.apply(record);
        }
        self.rebuild.push(hash, location, weight)
    }

    /// Of all that was said of a key, the last counts. What is left of collections that were dropped is
    /// not in the index: a segment that was cleaned may still hold it, and be freed.
    pub(crate) fn finish(self, slot_bytes: u32) -> Result<RebuiltIndex, IndexError> {
        let Self { rebuild, mut live, catalog } = self;
        let mut counts = KeyCounts::default();
        let alive: HashSet<u32> = catalog.alive().collect();
        let index = rebuild.finish(&mut |location, weight| {
            let collection = u32::try_from(weight >> COLLECTION_SHIFT).unwrap_or(u32::MAX);
            let is_alive = alive.contains(&collection);
            if is_alive {
                let bytes = weight & (PIECE_FLAG - 1);
                live.add_live(Place::of(from_index(location), slot_bytes), collection, bytes);
                counts.add(collection, i64::from(weight & PIECE_FLAG == 0));
            }
            is_alive
        })?;
        live.learn_segments();
        Ok(RebuiltIndex { index, live, counts, catalog })
    }
}

fn slot_bytes(log: &LogView) -> u32 {
    log.identity().slot_bytes
}

/// The record that an entry at `location` is, in `block`. One that passed its checksum and is none
/// cannot be passed over: whose it is, and what it supersedes, cannot be known.
pub(crate) fn decode_entry<'a>(
    entry: &'a [u8],
    location: Location,
    block: Position,
    log: &LogView,
) -> Result<Record<'a>, LogError> {
    Record::decode(entry).map_err(|error| match error {
        RecordError::UnsupportedFlags { flags, known } => {
            LogError::UnsupportedFeatures(u32::from(flags & !known))
        }
        _ => {
            let slot_bytes = slot_bytes(log);
            let start = layout::slot_start(slot_of(location, slot_bytes), slot_bytes);
            let offset = start + u64::from(block.offset);
            LogError::Corrupt { offset, what: "an entry that is no record" }
        }
    })
}
