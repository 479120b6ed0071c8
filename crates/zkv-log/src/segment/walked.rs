//! A full segment whose seal is damaged, or could not be read: a walk finds what the seal would say.

use std::io;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};

use zkv_io::{StorageFile, is_lost};

use super::{ContentsBuilder, Place};
use crate::error::{LogError, Result};
use crate::image::{Image, UNIT_BYTES};
use crate::layout::{
    BLOCK_HEADER_BYTES, CELL_BYTES, DICTIONARIES_MAX, SEAL_FIELD_BYTES, SEGMENT_HEADER_BYTES,
    seal_offset,
};
use crate::resync::Resync;
use crate::seal::Seal;
use crate::walk::Seeds;

/// What a walk found.
#[derive(Debug)]
pub(super) struct Walked {
    pub dictionary_offsets: [u32; DICTIONARIES_MAX],
    /// For each cell, where in it the first whole block starts; where none was found beside damage, what is
    /// left of the seal says so, and nobody has checked it.
    cells: Vec<u8>,
    /// The cells in which other blocks may be lost, in order.
    lossy: Vec<RangeInclusive<u32>>,
    /// Where runs of pages start that the disk could not read, of a segment of which something is lossy: a disk
    /// that fails once may read them later.
    unread: Vec<u32>,
    /// Counts the looks at those.
    looks: AtomicUsize,
}

impl Walked {
    /// Walks the segment at `place`, whose blocks end at `end`, and goes on behind what is damaged; unless its
    /// seal can be read by now, and is whole.
    ///
    /// # Errors
    /// [`LogError::Io`] where nothing of it can be read, or a page cannot this time: nothing is to be learnt from
    /// what may pass.
    pub fn of(file: &dyn StorageFile, place: Place, end: u32) -> Result<Self> {
        let slot_bytes = place.slot_bytes;
        let file_bytes = place.start + u64::from(slot_bytes);
        let image = Image::read(file, place.start, slot_bytes, file_bytes);
        let Image { bytes: image, unreadable, .. } = image.for_certain()?;
        if !unreadable.is_empty() && image.iter().all(|byte| *byte == 0) {
            let cause = io::Error::other("no page of a segment can be read");
            return Err(LogError::Io { action: "read", cause });
        }
        let seal = image.get(seal_offset(slot_bytes) as usize..);
        if let Some(seal) = seal.and_then(|block| Seal::decode_block(block, &place)) {
            return Ok(Self::told(seal));
        }
        let blocks = &image[..image.len().min(end as usize)];
        let told = told_cells(&image, slot_bytes);
        let starts = (0u32..).zip(told).filter(|(_, within)| **within != 0);
        let starts: Vec<u32> = starts.map(|(cell, within)| start_in(cell, *within)).collect();
        let (mut found, mut lossy) = (ContentsBuilder::new(slot_bytes), Vec::new());
        let (mut seeds, mut resync) = (Seeds::new(place.seed), Resync::new(slot_bytes));
        let mut offset = SEGMENT_HEADER_BYTES;
        while let Some(next) = match resync.block_at(blocks, offset, &seeds) {
            Some(block) => {
                seeds.learn(&block);
                found.note(&block);
                Some(block.end())
            }
            None => {
                let behind = starts[starts.partition_point(|start| *start <= offset)..].iter();
                let next = resync.next_block(blocks, offset, &seeds, behind.copied());
                lossy.extend(next.map(|next| offset / CELL_BYTES..=next / CELL_BYTES));
                next
            }
        } {
            offset = next;
        }
        if offset < end {
            lossy.push(offset / CELL_BYTES..=end / CELL_BYTES);
        }
        let ContentsBuilder { dictionary_offsets, mut cells, .. } = found;
        for cell in lossy.iter().cloned().flatten() {
            if let (Some(within @ 0), Some(told)) =
                (cells.get_mut(cell as usize), told.get(cell as usize))
            {
                *within = *told;
            }
        }
        let unread = match lossy.is_empty() {
            true => Vec::new(),
            false => unreadable.into_iter().map(|run| run.start).collect(),
        };
        Ok(Self { dictionary_offsets, cells, lossy, unread, looks: AtomicUsize::new(0) })
    }

    fn told(seal: Seal) -> Self {
        let Seal { dictionary_offsets, cells, .. } = seal;
        let (lossy, unread, looks) = (Vec::new(), Vec::new(), AtomicUsize::new(0));
        Self { dictionary_offsets, cells, lossy, unread, looks }
    }

    /// Whether what was not found may stand where the disk could not read.
    pub fn may_lack_more(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Whether the disk can read by now what it could not: one look at one place for each call, of one place
    /// after another, since a disk may try for seconds.
    ///
    /// # Errors
    /// [`LogError::Io`] where it cannot be read this time.
    pub fn can_find_more(&self, file: &dyn StorageFile, place: Place) -> Result<bool> {
        if self.unread.is_empty() {
            return Ok(false);
        }
        let look = self.looks.fetch_add(1, Ordering::Relaxed) % self.unread.len();
        let at = place.start + u64::from(self.unread[look]);
        match file.read_at(at, &mut [0; UNIT_BYTES]) {
            Ok(()) => Ok(true),
            Err(error) if is_lost(&error) => Ok(false),
            Err(error) => Err(LogError::io("read")(error)),
        }
    }

    /// Where the first block starts that starts in `cell`.
    pub fn first_block(&self, cell: u32) -> u32 {
        start_in(cell, self.cells.get(cell as usize).copied().unwrap_or(0))
    }

    /// Whether blocks that start in `cell` may be lost.
    pub fn is_lossy(&self, cell: u32) -> bool {
        let before = self.lossy.partition_point(|range| *range.end() < cell);
        self.lossy.get(before).is_some_and(|range| range.contains(&cell))
    }
}

fn start_in(cell: u32, within: u8) -> u32 {
    cell * CELL_BYTES + u32::from(within)
}

/// The cell table of a slot's seal, as far as it can be read.
fn told_cells(image: &[u8], slot_bytes: u32) -> &[u8] {
    let start = (seal_offset(slot_bytes) + BLOCK_HEADER_BYTES) as usize + SEAL_FIELD_BYTES;
    let cells = image.get(start..).unwrap_or(&[]);
    &cells[..cells.len().min((slot_bytes / CELL_BYTES) as usize)]
}
