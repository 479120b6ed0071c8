//! What the parts of a segment mean: blocks, losses, and what is neither.

use std::ops::Range;

use crate::layout::{SEGMENT_HEADER_BYTES, seal_offset};

use super::blocks::{FoundBlock, Part};
use super::order::{Member, Order};
use crate::image::Image;
use crate::recover::check_is_read;

/// A part of a segment, or what is known to be lost of it.
#[derive(Clone, Debug)]
pub(super) enum Item {
    Block(FoundBlock),
    /// Blocks stood here.
    Lost {
        range: Range<u32>,
        block_count: u64,
    },
    /// Blocks may have stood here, or in a segment that comes next, or none did.
    Doubt,
    /// What a crash left of a commit that was never whole.
    Torn,
}

/// Says of each part of `member` what it is, the oldest first.
pub(super) fn classify(
    parts: Vec<Part>,
    member: &Member,
    image: &Image,
    order: &Order,
) -> Vec<Item> {
    let blocks_end = parts.iter().rev().find_map(|part| match part {
        Part::Block(block) => Some(block.end()),
        Part::Hole(_) => None,
    });
    let blocks_end = blocks_end.unwrap_or(SEGMENT_HEADER_BYTES);
    let limit = seal_offset(member.place.slot_bytes);
    let known_end = known_end(member, blocks_end, order).min(limit);
    let mut items = Vec::with_capacity(parts.len());
    for part in parts {
        match part {
            Part::Block(block) => items.push(Item::Block(block)),
            Part::Hole(hole) if hole.start < known_end => {
                let range = hole.start..hole.end.min(known_end);
                items.push(Item::Lost { range, block_count: 1 });
            }
            Part::Hole(hole) => items.extend(behind_the_end(hole, member, image)),
        }
    }
    let cut = image.end().max(SEGMENT_HEADER_BYTES);
    if cut < known_end {
        items.push(Item::Lost { range: cut..known_end, block_count: 1 });
    } else if !member.is_newest && member.data_end.is_none() {
        if cut < limit {
            items.push(Item::Lost { range: cut..limit, block_count: 1 });
        } else if !matches!(items.last(), Some(Item::Lost { .. })) {
            // What is lost before the last block says nothing of what came behind it.
            items.push(Item::Doubt);
        }
    }
    count_by_seal(&mut items, member);
    if member.may_go_on {
        items.push(Item::Doubt);
    }
    items
}

/// Up to where the segment held blocks for certain.
fn known_end(member: &Member, blocks_end: u32, order: &Order) -> u32 {
    if let Some(data_end) = member.data_end {
        return data_end;
    }
    if !member.is_newest {
        return blocks_end;
    }
    // Behind the last commit, what is no block was torn.
    let here = order.committed.sequence == member.place.id.sequence;
    if here { order.committed.offset } else { SEGMENT_HEADER_BYTES }
}

/// What a stretch without blocks is that lies behind all that is known of the segment.
fn behind_the_end(hole: Range<u32>, member: &Member, image: &Image) -> Option<Item> {
    if member.data_end.is_some() || image.is_zero(hole.clone()) {
        return None;
    }
    // A full segment ends in a gap that is shorter than a block; without its seal, nobody knows. Nor does anybody
    // where the disk does not give what would be the next block.
    let is_torn = member.is_newest && check_is_read(image, 0, hole.start, member.place).is_ok();
    Some(if is_torn { Item::Torn } else { Item::Lost { range: hole, block_count: 1 } })
}

/// A whole seal knows how many blocks there were, and so how many are lost.
fn count_by_seal(items: &mut [Item], member: &Member) {
    let Some(seal) = member.seal else { return };
    let found = items.iter().filter(|item| matches!(item, Item::Block(_))).count() as u64;
    let mut left = u64::from(seal.block_count).saturating_sub(found);
    let lost = items.iter_mut().rev().filter_map(|item| match item {
        Item::Lost { block_count, .. } => Some(block_count),
        _ => None,
    });
    let mut lost: Vec<&mut u64> = lost.collect();
    left = left.saturating_sub(lost.len() as u64);
    if let Some(first) = lost.first_mut() {
        **first += left;
    }
}
