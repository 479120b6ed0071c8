//! Values in pieces.

use zkv_record::{Head, Kind, PIECE_BYTES, PieceKey, Record, RecordError, VALUE_BYTES_INLINE_MAX};

use crate::append::Append;
use crate::error::{Error, Result};
use crate::shared::Shared;
use crate::view::{Committed, KeyRef, LookupError};

/// Pieces that are packed together: enough for several threads, and bounded.
const PIECES_PER_GROUP: usize = 8;

impl Shared {
    /// The longest value that is stored in one piece: a slot must hold it beside a key.
    pub(crate) fn inline_bytes_max(&self) -> usize {
        VALUE_BYTES_INLINE_MAX.min(self.slot_share())
    }

    fn slot_share(&self) -> usize {
        self.log.identity().slot_bytes as usize / 4
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
        let piece_bytes = u32::try_from(PIECE_BYTES.min(self.slot_share())).unwrap_or(u32::MAX);
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
        std::iter::from_fn(move || {
            let group: Vec<_> = records.by_ref().take(PIECES_PER_GROUP).collect();
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
