//! What the slots of a log's file say of the segments in them: the header at a slot's start, and the copy of it in
//! the seal at its end.

use std::io;

use zkv_io::StorageFile;

use crate::error::{LogError, Result};
use crate::header::{Identity, SegmentHeader};
use crate::layout::{
    SEGMENT_HEADER_BYTES, SEGMENT_HEADER_FIELD_BYTES, header_copy_offset, seal_block_bytes,
    seal_offset,
};
use crate::log::Shared;
use crate::open::OpenFile;
use crate::seal::Seal;
use crate::segment::Place;

/// The least that a disk loses at once.
const SECTOR_BYTES: usize = 512;

/// The slots of the file of one log.
#[derive(Clone, Copy)]
pub(crate) struct Slots<'a> {
    file: &'a dyn StorageFile,
    identity: &'a Identity,
}

impl OpenFile {
    pub(crate) fn slots(&self) -> Slots<'_> {
        Slots::new(&*self.file, &self.identity)
    }
}

impl Shared {
    pub(crate) fn slots(&self) -> Slots<'_> {
        Slots::new(&*self.file, &self.identity)
    }
}

impl<'a> Slots<'a> {
    pub(crate) fn new(file: &'a dyn StorageFile, identity: &'a Identity) -> Self {
        Self { file, identity }
    }

    /// The header of this log in `slot`, where it or its copy is whole. What cannot be read is not there.
    pub(crate) fn header(self, slot: u32) -> Option<SegmentHeader> {
        self.try_header(slot).ok().flatten()
    }

    /// As [`Slots::header`], for who must not take what cannot be read for what is not there.
    pub(crate) fn try_header(self, slot: u32) -> Result<Option<SegmentHeader>> {
        let header = match self.decode_start(slot)? {
            Some(header) => Some(header),
            None => self.header_in_seal(slot)?,
        };
        Ok(header.filter(|header| header.is_of(self.identity, slot)))
    }

    /// The header of this log with which `slot` begins, where it can be read and is whole.
    pub(crate) fn header_at_start(self, slot: u32) -> Option<SegmentHeader> {
        let header = self.decode_start(slot).ok().flatten()?;
        header.is_of(self.identity, slot).then_some(header)
    }

    /// What `slot` begins with, where that is a header, be it another log's.
    pub(crate) fn decode_start(self, slot: u32) -> Result<Option<SegmentHeader>> {
        self.decode_at(slot, 0)
    }

    /// The header that the seal in `slot` repeats, where that is whole.
    pub(crate) fn header_in_seal(self, slot: u32) -> Result<Option<SegmentHeader>> {
        let header = self.decode_copy(slot)?.filter(|header| header.slot == slot);
        let Some(header) = header else { return Ok(None) };
        let place = Place::new(self.identity, header.id());
        let slot_bytes = self.identity.slot_bytes;
        let mut block = vec![0; seal_block_bytes(slot_bytes) as usize];
        self.read_or_zeros(slot, seal_offset(slot_bytes), &mut block)?;
        Ok(Seal::decode_block(&block, &place).map(|seal| seal.header))
    }

    /// Whether `slot` begins with the header that its seal repeats.
    pub(crate) fn is_in_both_places(self, slot: u32) -> Result<bool> {
        let first = self.decode_start(slot)?;
        Ok(first.is_some() && first == self.decode_copy(slot)?)
    }

    /// Whether zeros stand in the place of the header of `slot`, or the file ends before it.
    pub(crate) fn is_header_zero(self, slot: u32) -> Result<bool> {
        let mut header = [0; SEGMENT_HEADER_FIELD_BYTES];
        self.read_or_zeros(slot, 0, &mut header)?;
        Ok(is_zero(&header))
    }

    /// Whether the header of `slot` was wiped, as one of a commit that was given up: with zeros up to its first
    /// block, where a disk that loses it loses more.
    pub(crate) fn was_wiped(self, slot: u32) -> bool {
        let mut sector = [0; SECTOR_BYTES];
        let read = self.read_or_zeros(slot, 0, &mut sector);
        let (header, behind) = sector.split_at(SEGMENT_HEADER_BYTES as usize);
        read.is_ok() && is_zero(header) && !is_zero(behind)
    }

    /// What stands where a seal repeats the header, whether that seal is whole or not, be it another log's.
    fn decode_copy(self, slot: u32) -> Result<Option<SegmentHeader>> {
        self.decode_at(slot, header_copy_offset(self.identity.slot_bytes))
    }

    fn decode_at(self, slot: u32, offset: u32) -> Result<Option<SegmentHeader>> {
        let mut bytes = [0; SEGMENT_HEADER_FIELD_BYTES];
        self.read_or_zeros(slot, offset, &mut bytes)?;
        Ok(SegmentHeader::decode(&bytes).ok())
    }

    /// Reads what the file has of a place; behind its end are zeros.
    fn read_or_zeros(self, slot: u32, offset: u32, into: &mut [u8]) -> Result<()> {
        match self.file.read_at(self.identity.slot_start(slot) + u64::from(offset), into) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                into.fill(0);
                Ok(())
            }
            read => read.map_err(LogError::io("read")),
        }
    }
}

/// The copy of a header of this log where the seal stands in `image`, which is all of `slot`, whether that seal is
/// whole or not.
pub(crate) fn header_copy_in(
    image: &[u8],
    identity: &Identity,
    slot: u32,
) -> Option<SegmentHeader> {
    let copy = image.get(header_copy_offset(identity.slot_bytes) as usize..)?;
    SegmentHeader::decode(copy).ok().filter(|header| header.is_of(identity, slot))
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
