//! Values in pieces.

use zkv_record::{Head, Kind, PIECE_BYTES, PieceKey, Record, RecordError, VALUE_BYTES_INLINE_MAX};

use crate::error::{Error, Result};
use crate::operation::Operation;
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

    /// Stores a value that is too long for one record: at once, behind what waits in buffers.
    pub(crate) fn put_large(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.check_value_bytes(value.len() as u64)?;
        self.mended(|| {
            let head = self.new_head(value)?;
            let key = self.user_key(key);
            let mut record = Vec::new();
            let bytes = head.encode();
            let of_head = Record { kind: Kind::Head, ..Record::put(key.key, &bytes) };
            of_head.encode_into(&mut record);
            let mut writer = self.writer()?;
            self.flush_all(&mut writer)?;
            let operation = Operation::new(key.hash, &record);
            let groups = self.piece_groups(head, value);
            let committed = writer.commit_large(operation.as_slice(), groups, self.room());
            let end = committed.map_err(|error| self.write_error(error))?;
            self.finish_commit(writer, key.hash, end)
        })
    }

    fn check_value_bytes(&self, bytes: u64) -> Result<()> {
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
        value: &'a [u8],
    ) -> impl Iterator<Item = Vec<(zkv_index::KeyHash, Vec<u8>)>> + 'a {
        let pieces = (0..).zip(value.chunks(head.piece_bytes as usize));
        let mut records = pieces.map(move |(number, piece)| {
            let key = PieceKey { value_id: head.value_id, number }.encode();
            let record = Record { kind: Kind::Piece, ..Record::put(&key, piece) };
            let mut bytes = Vec::with_capacity(record.encoded_bytes());
            record.encode_into(&mut bytes);
            (self.keys.hash_piece(&key), bytes)
        });
        std::iter::from_fn(move || {
            let group: Vec<_> = records.by_ref().take(PIECES_PER_GROUP).collect();
            (!group.is_empty()).then_some(group)
        })
    }

    /// Gathers the value that `head` names, as `committed` has it.
    pub(crate) fn read_pieces(&self, committed: &Committed, head: &Head) -> Result<Vec<u8>> {
        self.check_value_bytes(head.value_bytes)?;
        // It grows only as pieces are found, each as long as the head says.
        let mut value = Vec::new();
        for number in 0..head.piece_count() {
            let key = head.piece_key(number).encode();
            let hash = self.keys.hash_piece(&key);
            let key = KeyRef { hash, key: &key, is_piece: true };
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
