//! Values in pieces.

use zkv_log::layout::{BLOCK_HEADER_BYTES, entry_bytes_max};
use zkv_record::{
    Head, Kind, PIECE_BYTES, PIECE_BYTES_MAX, PIECE_BYTES_MIN, PieceKey, Record, RecordError,
    VALUE_BYTES_INLINE_MAX,
};

use crate::error::{Error, Result};
use crate::read::view::{Committed, KeyRef, LookupError};
use crate::shared::Shared;
use crate::write::append::Append;

/// Pieces of so many bytes are packed together: enough for several threads, and bounded.
const GROUP_BYTES: usize = 8 * PIECE_BYTES;
/// How many pieces a slot holds at least, where the format lets them be that short. Up to the room of one is lost
/// behind a value's last piece, which is shorter. With 15 or 16, text takes 9 to 11 % more room in slots of 1 and 2 MiB
/// than with 4, since each piece is compressed by itself.
const PIECES_PER_SLOT: usize = 8;
/// What a block takes besides its entry: its header, and the count of its entries, which is 1.
const BLOCK_BYTES: usize = BLOCK_HEADER_BYTES as usize + 1;
/// What a piece's record takes besides the piece: flags, the longest number of a collection, and the key with
/// its length.
const PIECE_RECORD_BYTES: usize = 1 + 5 + 1 + 20;
/// What a slot has left for other things than pieces, at most: heads, commits, and the roll calls of a compaction,
/// two of 400 segments. What is longer costs the room of a piece.
const LEFT_BYTES_MAX: usize = 16 << 10;
/// A compaction writes no longer roll calls for each slot that it fills: see `CLEANED_A_ROLL_CALL` there.
const LEFT_SLOT_SHARE: usize = 32;

/// How long the pieces of a value are in slots of `slot_bytes`, so that a whole number of them fills one, with
/// all that belongs to them. Those that compress are shorter in the log: there it does not matter.
#[expect(clippy::cast_possible_truncation, reason = "less than a slot, which is a u32")]
const fn piece_bytes(slot_bytes: u32) -> u32 {
    let wished = slot_bytes as usize / PIECE_BYTES;
    let mut count = if wished < PIECES_PER_SLOT { PIECES_PER_SLOT } else { wished };
    // Not even one fits the smallest slots of the format, which no store is made with.
    while count > 1 && share_of_slot(slot_bytes, count) < PIECE_BYTES_MIN as usize {
        count -= 1;
    }
    share_of_slot(slot_bytes, count) as u32
}

/// How long each of `count` pieces is that fill a slot together.
const fn share_of_slot(slot_bytes: u32, count: usize) -> usize {
    let share = slot_bytes as usize / LEFT_SLOT_SHARE;
    let left = if share < LEFT_BYTES_MAX { share } else { LEFT_BYTES_MAX };
    let room = entry_bytes_max(slot_bytes) + BLOCK_BYTES - left;
    room / count - BLOCK_BYTES - PIECE_RECORD_BYTES
}

// Slots of all lengths that `Options::slot_bytes` takes.
const _: () = {
    let mut slot_bytes = 256 << 10;
    while slot_bytes <= 16 << 20 {
        let bytes = piece_bytes(slot_bytes);
        assert!(PIECE_BYTES_MIN <= bytes && bytes <= PIECE_BYTES_MAX);
        slot_bytes *= 2;
    }
};

impl Shared {
    /// The longest value that is stored in one piece: a slot must hold it beside a key.
    pub(crate) fn inline_bytes_max(&self) -> usize {
        VALUE_BYTES_INLINE_MAX.min(self.log.identity().slot_bytes as usize / 4)
    }

    /// Appends the pieces of a value that is too long for one record, and returns its head's record.
    pub(crate) fn append_large(
        &self,
        append: &mut Append<'_>,
        collection: u32,
        key: &[u8],
        value: &[u8],
    ) -> Result<Vec<u8>> {
        let head = self.new_head(value)?;
        for group in self.piece_groups(head, collection, value) {
            append.add_pieces(&group).map_err(|error| self.write_error(error))?;
        }
        let bytes = head.encode();
        let record = Record { kind: Kind::Head, collection, ..Record::put(key, &bytes) };
        let mut encoded = Vec::with_capacity(record.encoded_bytes());
        record.encode_into(&mut encoded);
        Ok(encoded)
    }

    pub(crate) fn check_value_bytes(&self, bytes: u64) -> Result<()> {
        let max = self.options.value_bytes_max;
        if bytes > max { Err(RecordError::ValueTooLong { bytes, max }.into()) } else { Ok(()) }
    }

    fn new_head(&self, value: &[u8]) -> Result<Head> {
        let mut value_id = [0; 16];
        self.options.storage.random(&mut value_id).map_err(Error::file(&self.path))?;
        let piece_bytes = piece_bytes(self.log.identity().slot_bytes);
        Ok(Head { value_id, value_bytes: value.len() as u64, piece_bytes })
    }

    fn piece_groups<'a>(
        &'a self,
        head: Head,
        collection: u32,
        value: &'a [u8],
    ) -> impl Iterator<Item = Vec<(zkv_index::KeyHash, Vec<u8>)>> + 'a {
        let pieces = (0..).zip(value.chunks(head.piece_bytes as usize));
        let mut records = pieces.map(move |(number, piece)| {
            let key = PieceKey { value_id: head.value_id, number }.encode();
            let record = Record { kind: Kind::Piece, collection, ..Record::put(&key, piece) };
            let mut bytes = Vec::with_capacity(record.encoded_bytes());
            record.encode_into(&mut bytes);
            (self.keys.hash_piece(&key), bytes)
        });
        let count = (GROUP_BYTES / head.piece_bytes as usize).max(1);
        std::iter::from_fn(move || {
            let group: Vec<_> = records.by_ref().take(count).collect();
            (!group.is_empty()).then_some(group)
        })
    }

    /// Gathers the value of a key in `collection` that `head` names, as `committed` has it.
    pub(crate) fn read_pieces(
        &self,
        committed: &Committed,
        collection: u32,
        head: &Head,
    ) -> Result<Vec<u8>> {
        self.check_value_bytes(head.value_bytes)?;
        // It grows only as pieces are found, each as long as the head says.
        let mut value = Vec::new();
        for number in 0..head.piece_count() {
            let key = head.piece_key(number).encode();
            let hash = self.keys.hash_piece(&key);
            let key = KeyRef { hash, key: &key, collection, is_piece: true };
            let piece_bytes = head.piece_bytes_at(number) as usize;
            let found = committed.find(key, |record| {
                let fits = record.value.len() == piece_bytes;
                if fits {
                    value.extend_from_slice(record.value);
                }
                fits
            });
            match found {
                Ok(Some(true)) => {}
                Ok(Some(false) | None) => return Err(self.lookup_error(LookupError::Disagreement)),
                Err(error) => return Err(self.lookup_error(error)),
            }
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use zkv_io::MemoryStorage;
    use zkv_log::layout::seal_block_bytes;

    use super::*;
    use crate::options::Options;

    /// How many slots of `slot_bytes` two values of `value_bytes` take that do not compress, and how many they take
    /// once they are compacted.
    fn slots_of_two_values(slot_bytes: u32, value_bytes: usize) -> [f64; 2] {
        let options = Options::new().storage(Arc::new(MemoryStorage::new()));
        let store = options.slot_bytes(slot_bytes).open("store.zkv").unwrap();
        let mut random = fastrand::Rng::with_seed(1);
        for key in 0..2u8 {
            let mut value = vec![0; value_bytes];
            random.fill(&mut value);
            store.set_bytes(&[key; 150], &value).unwrap();
        }
        let slots = || {
            let bytes = store.stats().unwrap().data_file_bytes;
            u32::try_from(bytes).map_or(f64::MAX, f64::from) / f64::from(slot_bytes)
        };
        let written = slots();
        store.compact(|_| {}).unwrap();
        [written, slots()]
    }

    #[test]
    fn a_whole_number_of_pieces_fills_a_slot() {
        let counts = [(256, 3), (512, 7), (1024, 8), (2048, 8), (8192, 16), (16_384, 32)];
        for (slot_kib, count) in counts {
            let slot_bytes = slot_kib << 10;
            let bytes = piece_bytes(slot_bytes) as usize;
            let filled = f64::from(piece_bytes(slot_bytes) * count);
            let room = f64::from(slot_bytes - seal_block_bytes(slot_bytes));
            assert!(filled > room * 0.965, "{filled} of {room}");
            // Each value fills two slots with its pieces; its head and its commit have to fit the second one.
            let value_bytes = 2 * count as usize * bytes;
            for slots in slots_of_two_values(slot_bytes, value_bytes) {
                assert!(slots < 4.1, "{slots} slots of {slot_kib} KiB");
            }
        }
    }

    #[test]
    fn long_values_that_fit_no_whole_slots_take_little_more_than_they_are_long() {
        for (slot_bytes, value_bytes) in [(256 << 10, 20_000_000), (1 << 20, 20_000_000)] {
            let least = 2.0 * f64::from(value_bytes) / f64::from(slot_bytes);
            for slots in slots_of_two_values(slot_bytes, value_bytes as usize) {
                assert!(slots < least * 1.05, "{slots} slots of {slot_bytes}, not {least}");
            }
        }
    }

    #[test]
    fn a_piece_takes_no_more_than_is_reckoned() {
        let key = PieceKey { value_id: [7; 16], number: u32::MAX }.encode();
        let collection = u32::MAX;
        let record = Record { kind: Kind::Piece, collection, ..Record::put(&key, b"piece") };
        assert_eq!(record.encoded_bytes(), PIECE_RECORD_BYTES + 5);
    }
}
