//! The entries of one block: their count, their lengths, then their bytes.
//!
//! The last length is not stored, since the payload's own length gives it.

use zkv_io::{Cursor, Overrun, put_varint, varint_bytes};

use crate::layout::SHARED_PAYLOAD_BYTES_MAX;

/// Cuts `entries` into blocks, in their order: each holds as many as a payload of
/// `payload_bytes_max` does, and one at the least.
pub(crate) fn cut<'a, 'b>(
    mut entries: &'a [&'b [u8]],
    payload_bytes_max: usize,
) -> impl Iterator<Item = &'a [&'b [u8]]> {
    std::iter::from_fn(move || {
        let (block, rest) = entries.split_at(count_that_fit(entries, payload_bytes_max));
        entries = rest;
        (!block.is_empty()).then_some(block)
    })
}

fn count_that_fit(entries: &[&[u8]], payload_bytes_max: usize) -> usize {
    let Some((first, others)) = entries.split_first() else { return 0 };
    let (mut lengths_bytes, mut bytes, mut last_bytes) = (0, first.len(), first.len());
    let mut count = 1;
    for entry in others {
        lengths_bytes += varint_bytes(last_bytes as u64);
        bytes += entry.len();
        last_bytes = entry.len();
        if varint_bytes(count as u64 + 1) + lengths_bytes + bytes > payload_bytes_max {
            break;
        }
        count += 1;
    }
    count
}

/// Writes the payload of a block that holds `entries` over `into`.
pub(crate) fn write_payload(entries: &[&[u8]], into: &mut Vec<u8>) {
    into.clear();
    put_varint(into, entries.len() as u64);
    if let Some((_, all_but_last)) = entries.split_last() {
        for entry in all_but_last {
            put_varint(into, entry.len() as u64);
        }
    }
    for entry in entries {
        into.extend_from_slice(entry);
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

    /// How many bytes the entries have that are still to come.
    pub(crate) fn bytes_left(&self) -> usize {
        self.bytes.len()
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
        let mut payload = b"of before".to_vec();
        write_payload(&slices(entries), &mut payload);
        payload
    }

    fn slices(entries: &[Vec<u8>]) -> Vec<&[u8]> {
        entries.iter().map(Vec::as_slice).collect()
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
        fn blocks_hold_what_fits_and_no_more(
            sizes in prop::collection::vec(0usize..200, 0..200), limit in 1usize..1000
        ) {
            let entries: Vec<Vec<u8>> = sizes.iter().map(|size| vec![7; *size]).collect();
            let slices = slices(&entries);
            let payload_bytes = |block: &[&[u8]]| {
                let mut payload = Vec::new();
                write_payload(block, &mut payload);
                payload.len()
            };
            let mut start = 0;
            for block in cut(&slices, limit) {
                prop_assert_eq!(block, &slices[start..start + block.len()]);
                prop_assert!(block.len() == 1 || payload_bytes(block) <= limit);
                let one_more = &slices[start..slices.len().min(start + block.len() + 1)];
                prop_assert!(one_more.len() == block.len() || payload_bytes(one_more) > limit);
                start += block.len();
            }
            prop_assert_eq!(start, slices.len());
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
