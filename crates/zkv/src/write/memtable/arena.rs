//! Memory for many small records.

use bytes::{Bytes, BytesMut};

/// What is asked of the allocator at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// A longer record has memory of its own: it would waste too much of a chunk's end.
const SHARED_BYTES_MAX: usize = CHUNK_BYTES / 8;

/// Gives records their places, one behind another in chunks that they share: an allocation for each
/// would take as long as the rest of a buffered write. A chunk is freed with its last record.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    /// The part of the newest chunk that no record has.
    rest: BytesMut,
}

impl Arena {
    pub(crate) fn add(&mut self, record: Vec<u8>) -> Bytes {
        if record.len() > SHARED_BYTES_MAX {
            return record.into();
        }
        if self.rest.capacity() < record.len() {
            self.rest = BytesMut::with_capacity(CHUNK_BYTES);
        }
        self.rest.extend_from_slice(&record);
        self.rest.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_any_length_keep_their_bytes() {
        let mut arena = Arena::default();
        let lengths = (0..3000).map(|number: usize| number * number % (3 * SHARED_BYTES_MAX));
        let records: Vec<Vec<u8>> = lengths
            .enumerate()
            .map(|(number, length)| vec![number.to_le_bytes()[0]; length])
            .collect();
        let added: Vec<Bytes> = records.iter().map(|record| arena.add(record.clone())).collect();
        assert_eq!(added, records);
    }
}
