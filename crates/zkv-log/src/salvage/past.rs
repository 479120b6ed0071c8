//! Whether an index file is of the past of this file, or of a copy that went another way: both have segments
//! of the same names.

use crate::block::BlockKind;
use crate::checkpoint::{CheckpointSegment, LogCheckpoint};
use crate::layout::CELL_BYTES;
use crate::segment::SegmentId;

use super::blocks::{FoundBlock, Part};
use super::survey::SealFacts;

/// Whether what was found of the segment `id`, its seal and the parts of `image`, cannot be where `index` is of
/// its past. What is lost contradicts nothing.
pub(super) fn contradicts(
    index: &LogCheckpoint,
    id: SegmentId,
    seal: Option<SealFacts>,
    parts: &[Part],
    image: &[u8],
) -> bool {
    let found = index.segments.binary_search_by_key(&id.sequence, |listed| listed.id.sequence);
    let Ok(number) = found else { return false };
    let CheckpointSegment { id: listed, data_end: end } = index.segments[number];
    if listed != id {
        return false;
    }
    let blocks = || parts.iter().filter_map(Part::block);
    match index.segments.get(number + 1) {
        // It was full.
        Some(next) => {
            let goes_elsewhere =
                |seal: SealFacts| next.id.sequence == seal.next.sequence && next.id != seal.next;
            seal.is_some_and(|seal| seal.data_end != end || goes_elsewhere(seal))
                || blocks().any(|block| end < block.end())
        }
        None => {
            let spans_the_end = |block: &FoundBlock| block.offset < end && end < block.end();
            seal.is_some_and(|seal| seal.data_end < end)
                || blocks().any(|block| spans_the_end(block) || ends_otherwise(index, block, image))
                || starts_elsewhere(index, parts)
        }
    }
}

/// Whether `block` is another commit than the one that ends at the watermark.
fn ends_otherwise(index: &LogCheckpoint, block: &FoundBlock, image: &[u8]) -> bool {
    let checksum = image.get(block.offset as usize..).and_then(|block| block.first_chunk());
    let is_same = block.tag.kind == BlockKind::Commit
        && checksum.is_some_and(|sum| u32::from_le_bytes(*sum) == index.watermark_checksum);
    block.end() == index.watermark.offset && !is_same
}

/// Whether a block that is certainly the first of its cell, since the one before it starts in another, starts
/// elsewhere than the index's table says.
fn starts_elsewhere(index: &LogCheckpoint, parts: &[Part]) -> bool {
    parts.windows(2).any(|pair| {
        let [Part::Block(before), Part::Block(block)] = pair else { return false };
        let (cell, within) = (block.offset / CELL_BYTES, block.offset % CELL_BYTES);
        let listed = index.cells.get(cell as usize).map(|within| u32::from(*within));
        let is_first = before.offset / CELL_BYTES < cell && block.offset < index.watermark.offset;
        is_first && listed.is_some_and(|listed| listed != within)
    })
}
