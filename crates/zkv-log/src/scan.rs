//! Reading a segment's entries in the order of the log.

use std::sync::Arc;

use crate::codec::Decoder;
use crate::entries::Entries;
use crate::error::Result;
use crate::layout::{BLOCK_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use crate::log::LogView;
use crate::position::{Location, Position};
use crate::segment::Segment;

/// Goes through one segment. Each block is read through the map and checked.
pub struct SegmentScan {
    view: LogView,
    segment: Arc<Segment>,
    offset: u32,
    decoder: Decoder,
}

/// A block of entries that a scan has reached.
#[derive(Debug)]
pub struct ScannedBlock<'a> {
    /// Where the block's entries are found again.
    pub location: Location,
    /// Where the block stands in the order of the log.
    pub position: Position,
    payload: &'a [u8],
    segment: &'a Segment,
}

impl<'a> ScannedBlock<'a> {
    /// The block's entries.
    ///
    /// # Errors
    /// [`LogError::Corrupt`](crate::LogError::Corrupt) where they do not fit the block.
    pub fn entries(&self) -> Result<impl Iterator<Item = Result<&'a [u8]>> + use<'a>> {
        let (segment, offset) = (self.segment, self.position.offset);
        let damaged = move |_| segment.damaged(offset, "a block's entries");
        let entries = Entries::parse(self.payload).map_err(damaged)?;
        Ok(entries.map(move |entry| entry.map_err(damaged)))
    }
}

impl SegmentScan {
    pub(crate) fn new(view: &LogView, segment: Arc<Segment>, from: u32) -> Result<Self> {
        let offset = from.max(SEGMENT_HEADER_BYTES);
        Ok(Self { view: view.clone(), segment, offset, decoder: Decoder::new() })
    }

    /// The next block of entries; `None` at the segment's end.
    ///
    /// # Errors
    /// [`LogError::Corrupt`](crate::LogError::Corrupt) where a block is damaged, and [`LogError::Io`](crate::LogError::Io).
    pub fn next_block(&mut self) -> Result<Option<ScannedBlock<'_>>> {
        while self.offset < self.view.end_of(&self.segment) {
            let offset = self.offset;
            let with_entries = self.view.load_block(&self.segment, offset, &mut self.decoder)?;
            self.offset += self.loaded_bytes()?;
            if with_entries {
                let slot = self.segment.place.id.slot;
                let location = Location::new(slot, offset, self.segment.place.slot_bytes);
                let location =
                    location.ok_or_else(|| self.segment.damaged(offset, "a block's place"))?;
                return Ok(Some(ScannedBlock {
                    location,
                    position: Position { sequence: self.segment.place.id.sequence, offset },
                    payload: &self.decoder.payload,
                    segment: &self.segment,
                }));
            }
        }
        Ok(None)
    }

    /// The length of the block just loaded: decompressing it changes its header, not its length.
    fn loaded_bytes(&self) -> Result<u32> {
        u32::try_from(self.decoder.block.len())
            .ok()
            .filter(|bytes| *bytes >= BLOCK_HEADER_BYTES)
            .ok_or_else(|| self.segment.damaged(self.offset, "a block"))
    }
}

impl std::fmt::Debug for SegmentScan {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = formatter.debug_struct("SegmentScan");
        debug
            .field("slot", &self.segment.place.id.slot)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}
