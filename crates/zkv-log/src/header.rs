//! The file header and the segment header.

use zkv_io::{Cursor, Overrun, crc32c};

use crate::error::{LogError, Result};
use crate::layout::{
    FILE_HEADER_BYTES, FILE_HEADER_FIELD_BYTES, FILE_MAGIC, FORMAT_VERSION, NUMBER_MAX,
    SEGMENT_HEADER_BYTES, SEGMENT_HEADER_FIELD_BYTES, SEGMENT_MAGIC, SLOT_BYTES_MAX,
    SLOT_BYTES_MIN, slot_count, slot_start,
};
use crate::position::Position;
use crate::segment::SegmentId;

/// What makes a log this log and no other. The file header holds it, and every segment repeats it.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// Names the store, and signs its commits; random, and a secret as the files are.
    pub store_id: [u8; 16],
    /// Keys the hashes of the store's keys, so that nobody can make them collide; random.
    pub hash_key: [u8; 32],
    /// The bytes of a slot: a power of two.
    pub slot_bytes: u32,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Who knows the id can sign commits, and who knows the key make keys collide.
        formatter
            .debug_struct("Identity")
            .field("slot_bytes", &self.slot_bytes)
            .finish_non_exhaustive()
    }
}

/// Why a header cannot be used. Damage and absence look alike here; the caller knows which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    Damaged,
    Version(u16),
    Features(u32),
}

impl From<Overrun> for HeaderFault {
    fn from(_: Overrun) -> Self {
        Self::Damaged
    }
}

impl HeaderFault {
    pub(crate) fn into_error(self) -> LogError {
        match self {
            Self::Damaged => LogError::NotALog,
            Self::Version(found) => {
                LogError::UnsupportedVersion { found, supported: FORMAT_VERSION }
            }
            Self::Features(bits) => LogError::UnsupportedFeatures(bits),
        }
    }
}

impl Identity {
    fn encode_into(&self, into: &mut Vec<u8>) {
        into.extend(FORMAT_VERSION.to_le_bytes());
        into.extend([0; 2]);
        into.extend(0u32.to_le_bytes());
        into.extend(self.store_id);
        into.extend(self.hash_key);
        into.extend(self.slot_bytes.to_le_bytes());
    }

    /// The version decides how the rest is read, so it is judged before anything else.
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, HeaderFault> {
        let version = cursor.u16()?;
        if !(1..=FORMAT_VERSION).contains(&version) {
            return Err(HeaderFault::Version(version));
        }
        cursor.u16()?;
        let features = cursor.u32()?;
        if features != 0 {
            return Err(HeaderFault::Features(features));
        }
        let (store_id, hash_key, slot_bytes) = (cursor.array()?, cursor.array()?, cursor.u32()?);
        let in_range = (SLOT_BYTES_MIN..=SLOT_BYTES_MAX).contains(&slot_bytes);
        if !in_range || !slot_bytes.is_power_of_two() {
            return Err(HeaderFault::Damaged);
        }
        Ok(Self { store_id, hash_key, slot_bytes })
    }

    /// The file offset at which a slot starts.
    pub(crate) fn slot_start(&self, slot: u32) -> u64 {
        slot_start(slot, self.slot_bytes)
    }

    /// How many slots a file of `file_bytes` has room for, the last of them perhaps in part.
    pub(crate) fn slot_count(&self, file_bytes: u64) -> u32 {
        slot_count(file_bytes, self.slot_bytes)
    }
}

/// The file's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub identity: Identity,
    /// The nonce of the first segment, so that its blocks can be read without its own header.
    pub first_nonce: u64,
}

impl FileHeader {
    /// The file's first page.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(usize_of(FILE_HEADER_BYTES));
        page.extend(FILE_MAGIC);
        self.identity.encode_into(&mut page);
        page.extend(self.first_nonce.to_le_bytes());
        seal_with_checksum(&mut page);
        page.resize(usize_of(FILE_HEADER_BYTES), 0);
        page
    }

    pub(crate) fn decode(page: &[u8]) -> Result<Self, HeaderFault> {
        let fields = page.get(..FILE_HEADER_FIELD_BYTES).ok_or(HeaderFault::Damaged)?;
        let mut cursor = checked_fields(fields, &FILE_MAGIC)?;
        Ok(Self { identity: Identity::decode(&mut cursor)?, first_nonce: cursor.u64()? })
    }
}

/// A segment's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub identity: Identity,
    pub sequence: u64,
    pub slot: u32,
    pub nonce: u64,
    /// Where the newest roll call stood that was durable when the segment began.
    pub roll_call: Position,
    /// Up to where the log was proven durable when the segment began.
    pub synced_upto: Position,
}

impl SegmentHeader {
    /// Whether it is that of a segment of this log in `slot`.
    pub(crate) fn is_of(&self, identity: &Identity, slot: u32) -> bool {
        self.identity == *identity && self.slot == slot
    }

    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_FIELD_BYTES] {
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER_FIELD_BYTES);
        bytes.extend(SEGMENT_MAGIC);
        self.identity.encode_into(&mut bytes);
        bytes.extend(self.sequence.to_le_bytes());
        bytes.extend(self.slot.to_le_bytes());
        bytes.extend(self.nonce.to_le_bytes());
        put_position(&mut bytes, self.roll_call);
        put_position(&mut bytes, self.synced_upto);
        seal_with_checksum(&mut bytes);
        let mut fields = [0; SEGMENT_HEADER_FIELD_BYTES];
        fields.copy_from_slice(&bytes);
        fields
    }

    /// The segment's first cell.
    pub(crate) fn encode_cell(&self) -> Vec<u8> {
        let mut cell = self.encode().to_vec();
        cell.resize(SEGMENT_HEADER_BYTES as usize, 0);
        cell
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let fields = bytes.get(..SEGMENT_HEADER_FIELD_BYTES).ok_or(HeaderFault::Damaged)?;
        let mut cursor = checked_fields(fields, &SEGMENT_MAGIC)?;
        let (identity, sequence) = (Identity::decode(&mut cursor)?, cursor.u64()?);
        if !(1..NUMBER_MAX).contains(&sequence) {
            return Err(HeaderFault::Damaged);
        }
        Ok(Self {
            identity,
            sequence,
            slot: cursor.u32()?,
            nonce: cursor.u64()?,
            roll_call: take_position(&mut cursor)?,
            synced_upto: take_position(&mut cursor)?,
        })
    }

    /// Whether the segment opens with the roll call that this names. It was not durable when the
    /// segment began, and counts only with its commit.
    pub(crate) fn is_base(&self) -> bool {
        self.roll_call == base_roll_call(self.sequence)
    }

    pub(crate) fn id(&self) -> SegmentId {
        SegmentId { sequence: self.sequence, slot: self.slot, nonce: self.nonce }
    }
}

/// Where the roll call stands with which the segment `sequence` opens.
pub(crate) fn base_roll_call(sequence: u64) -> Position {
    Position { sequence, offset: SEGMENT_HEADER_BYTES }
}

pub(crate) fn put_position(into: &mut Vec<u8>, position: Position) {
    into.extend(position.sequence.to_le_bytes());
    into.extend(position.offset.to_le_bytes());
}

pub(crate) fn take_position(cursor: &mut Cursor<'_>) -> Result<Position, Overrun> {
    Ok(Position { sequence: cursor.u64()?, offset: cursor.u32()? })
}

fn seal_with_checksum(fields: &mut Vec<u8>) {
    fields.extend(crc32c(0, fields).to_le_bytes());
}

/// A cursor behind the magic, once magic and checksum are found right. A newer version may place
/// its checksum elsewhere, so a wrong checksum is reported as a version where that is the reason.
fn checked_fields<'a>(fields: &'a [u8], magic: &[u8; 8]) -> Result<Cursor<'a>, HeaderFault> {
    let (checked, checksum) = fields.split_last_chunk::<4>().ok_or(HeaderFault::Damaged)?;
    let mut cursor = Cursor::new(checked);
    if cursor.array::<8>()? != *magic {
        return Err(HeaderFault::Damaged);
    }
    if crc32c(0, checked) != u32::from_le_bytes(*checksum) {
        return match cursor.u16()? {
            version if version > FORMAT_VERSION && version < 256 => {
                Err(HeaderFault::Version(version))
            }
            _ => Err(HeaderFault::Damaged),
        };
    }
    Ok(cursor)
}

fn usize_of(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity { store_id: [3; 16], hash_key: [5; 32], slot_bytes: 8 << 20 }
    }

    fn file_header() -> FileHeader {
        FileHeader { identity: identity(), first_nonce: 8 }
    }

    fn header() -> SegmentHeader {
        SegmentHeader {
            identity: identity(),
            sequence: 77,
            slot: 12,
            nonce: 0x0123_4567_89AB_CDEF,
            roll_call: Position { sequence: 70, offset: 4000 },
            synced_upto: Position { sequence: 76, offset: 300 },
        }
    }

    #[test]
    fn headers_round_trip() {
        assert_eq!(FileHeader::decode(&file_header().encode()), Ok(file_header()));
        assert_eq!(SegmentHeader::decode(&header().encode_cell()), Ok(header()));
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_of_a_header_is_refused() {
        let (file, segment) = (file_header().encode(), header().encode_cell());
        for bit in 0..FILE_HEADER_FIELD_BYTES * 8 {
            let mut flipped = file.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(FileHeader::decode(&flipped).is_err(), "bit {bit}");
        }
        for bit in 0..SEGMENT_HEADER_FIELD_BYTES * 8 {
            let mut flipped = segment.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&flipped).is_err(), "bit {bit}");
        }
        for end in 0..FILE_HEADER_FIELD_BYTES {
            assert!(FileHeader::decode(&file[..end]).is_err());
        }
        for end in 0..SEGMENT_HEADER_FIELD_BYTES {
            assert!(SegmentHeader::decode(&segment[..end]).is_err());
        }
    }

    #[test]
    fn sequences_that_nobody_counts_to_are_refused() {
        for sequence in [0, NUMBER_MAX, u64::MAX] {
            let cell = SegmentHeader { sequence, ..header() }.encode_cell();
            assert_eq!(SegmentHeader::decode(&cell), Err(HeaderFault::Damaged));
        }
    }

    #[test]
    fn a_newer_version_is_named_whatever_else_it_changed() {
        let mut page = file_header().encode();
        page[8] = 2;
        assert_eq!(FileHeader::decode(&page), Err(HeaderFault::Version(2)));
    }

    #[test]
    fn the_hash_key_is_never_printed() {
        assert!(!format!("{:?}", identity()).contains('5'));
    }
}
