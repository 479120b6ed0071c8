//! The entries of one block: their count, their lengths, then their bytes.
//!
//! The last length is not stored, since the payload's own length gives it.

use zkv_io::{Cursor, Overrun, put_varint, varint_bytes};

use crate::layout::SHARED_PAYLOAD_BYTES_MAX;

/// Gathers entries until the next one would overflow the block.
#[derive(Debug, Default)]
pub(crate) struct EntriesBuilder {
    /// The lengths of all entries but the last, as varints.
    lengths: Vec<u8>,
    bytes: Vec<u8>,
    count: u64,
    last_bytes: usize,
}

impl EntriesBuilder {
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Whether `entry_bytes` more fit a payload of `payload_bytes_max`. An empty block takes
    /// anything.
    pub(crate) fn fits(&self, entry_bytes: usize, payload_bytes_max: usize) -> bool {
        self.count == 0
            || varint_bytes(self.count + 1)
                + self.lengths.len()
                + varint_bytes(self.last_bytes as u64)
                + self.bytes.len()
                + entry_bytes
                <= payload_bytes_max
    }

    pub(crate) fn push(&mut self, entry: &[u8]) {
        if self.count > 0 {
            put_varint(&mut self.lengths, self.last_bytes as u64);
        }
        self.bytes.extend_from_slice(entry);
        self.last_bytes = entry.len();
        self.count += 1;
    }

    /// Writes the payload over `into`, and starts anew.
    pub(crate) fn take_into(&mut self, into: &mut Vec<u8>) {
        into.clear();
        put_varint(into, self.count);
        into.extend_from_slice(&self.lengths);
        into.extend_from_slice(&self.bytes);
        self.lengths.clear();
        self.bytes.clear();
        self.count = 0;
        self.last_bytes = 0;
    }
}

/// The entries of a payload, in order. It ends early, without an entry, where lengths do not fit;
/// a payload is only read once its checksum is found right, so that is no accident of the disk.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    lengths: Cursor<'a>,
    bytes: &'a [u8],
    left: u64,
}

impl<'a> Entries<'a> {
    #[inline]
    pub(crate) fn parse(payload: &'a [u8]) -> Result<Self, Overrun> {
        let mut lengths = Cursor::new(payload);
        let count = lengths.varint()?;
        // Each entry but the last takes a byte of length, at the least.
        let is_shared_and_long = count > 1 && payload.len() > SHARED_PAYLOAD_BYTES_MAX;
        if count == 0 || count > payload.len() as u64 || is_shared_and_long {
            return Err(Overrun);
        }
        let mut end_of_lengths = lengths.clone();
        for _ in 1..count {
            end_of_lengths.varint()?;
        }
        Ok(Self { lengths, bytes: end_of_lengths.rest(), left: count })
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<&'a [u8], Overrun>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        if self.left == 0 {
            return Some(Ok(self.bytes));
        }
        let length = self.lengths.varint().ok().and_then(|length| usize::try_from(length).ok());
        let split = length.and_then(|length| self.bytes.split_at_checked(length));
        let Some((entry, rest)) = split else {
            self.left = 0;
            return Some(Err(Overrun));
        };
        self.bytes = rest;
        Some(Ok(entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn built(entries: &[Vec<u8>]) -> Vec<u8> {
        let (mut builder, mut payload) = (EntriesBuilder::default(), Vec::new());
        for entry in entries {
            assert!(builder.fits(entry.len(), usize::MAX / 2));
            builder.push(entry);
        }
        builder.take_into(&mut payload);
        payload
    }

    fn read(payload: &[u8]) -> Result<Vec<Vec<u8>>, Overrun> {
        Entries::parse(payload)?.map(|entry| Ok(entry?.to_vec())).collect()
    }

    proptest! {
        #[test]
        fn entries_round_trip(
            entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..40)
        ) {
            prop_assert_eq!(read(&built(&entries)).unwrap(), entries);
        }

        #[test]
        fn any_bytes_are_read_without_panic(payload in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = read(&payload);
        }

        #[test]
        fn what_fits_is_never_over_the_limit(
            sizes in prop::collection::vec(0usize..200, 1..60), limit in 10usize..1000
        ) {
            let mut builder = EntriesBuilder::default();
            for size in sizes {
                if !builder.fits(size, limit) {
                    break;
                }
                builder.push(&vec![0; size]);
            }
            let count = builder.count();
            let mut payload = Vec::new();
            builder.take_into(&mut payload);
            prop_assert!(count == 1 || payload.len() <= limit);
        }
    }

    #[test]
    fn several_entries_share_64_kib_at_most_and_one_alone_may_be_longer() {
        let entry = vec![7; SHARED_PAYLOAD_BYTES_MAX];
        assert_eq!(read(&built(std::slice::from_ref(&entry))).unwrap()[0], entry);
        assert_eq!(read(&built(&[entry, vec![]])), Err(Overrun));
        // One length byte each, as many entries as bytes: a frame of a few bytes can hold that.
        let mut bomb = Vec::new();
        put_varint(&mut bomb, 16 << 20);
        bomb.resize(16 << 20, 0);
        assert_eq!(read(&bomb), Err(Overrun));
    }

    #[test]
    fn a_truncated_payload_never_yields_another_count() {
        let entries = vec![b"one".to_vec(), b"two".to_vec(), b"three".to_vec()];
        let payload = built(&entries);
        for end in 0..payload.len() {
            if let Ok(read) = read(&payload[..end]) {
                assert_eq!(read[..2], entries[..2]);
                assert!(entries[2].starts_with(&read[2]) && read.len() == 3);
            }
        }
    }
}
