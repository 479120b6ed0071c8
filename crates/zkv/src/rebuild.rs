//! Making the index from the log alone.

use std::sync::Arc;

use zkv_index::{Rebuild, Rebuilt};
use zkv_log::{LogError, LogView};
use zkv_record::{Kind, Record};

use crate::keys::Keys;
use crate::live::{LiveTable, raw_bytes, slot_of};
use crate::view::{from_index, to_index};
use crate::writer::{IndexPlace, WriteError};

/// Memory for the facts of a rebuild, of 32 bytes each, before they spill to a file.
const MEMORY_BYTES: usize = 32 << 20;
/// Set in a fact's weight where it is that of a piece, which is no key. Records are shorter.
const PIECE_FLAG: u32 = 1 << 31;

/// An index that is ready to be written, and what was counted on the way.
pub(crate) struct RebuiltIndex {
    pub index: Rebuilt,
    pub live: LiveTable,
    pub key_count: u64,
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
    let storage = Arc::clone(&place.scratch_storage);
    let mut rebuild = Rebuild::new(storage, place.scratch.clone(), MEMORY_BYTES);
    let mut live = LiveTable::default();
    for segment in log.segments() {
        let mut scan = log.scan(segment.slot, None)?;
        while let Some(block) = scan.next_block()? {
            for entry in block.entries()? {
                let record = Record::decode(entry).map_err(|_| not_a_record(segment.slot))?;
                let bytes = u32::try_from(raw_bytes(&record)).unwrap_or(PIECE_FLAG - 1);
                let is_piece = record.kind == Kind::Piece;
                let is_gone = record.kind == Kind::Delete || (is_piece && record.value.is_empty());
                let location = if is_gone { None } else { to_index(block.location) };
                let weight = bytes | if is_piece { PIECE_FLAG } else { 0 };
                rebuild.push(keys.hash_record(&record), location, weight)?;
                live.add(segment.slot, bytes.into(), false);
            }
        }
    }
    count_live(rebuild, live, slot_bytes(log))
}

fn count_live(
    rebuild: Rebuild,
    mut live: LiveTable,
    slot_bytes: u32,
) -> Result<RebuiltIndex, WriteError> {
    let mut key_count = 0;
    let index = rebuild.finish(&mut |location, weight| {
        let bytes = u64::from(weight & !PIECE_FLAG);
        live.add_live(slot_of(from_index(location), slot_bytes), bytes);
        key_count += u64::from(weight & PIECE_FLAG == 0);
    })?;
    Ok(RebuiltIndex { index, live, key_count })
}

fn slot_bytes(log: &LogView) -> u32 {
    log.identity().slot_bytes
}

/// An entry that passed its checksum and is no record.
fn not_a_record(slot: u32) -> LogError {
    LogError::Corrupt { offset: u64::from(slot), what: "an entry that is no record" }
}
