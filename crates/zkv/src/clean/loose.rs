//! Segments that are packed loosely: by commits of a record or two, each of which is packed by itself.
//! Moved together, their records fill blocks.

use zkv_log::{LogView, SegmentInfo};

use crate::metadata::live::SegmentUse;
use crate::shared::Shared;

/// Blocks that hold less than this, before compression, are loose, or less than a quarter of what blocks are
/// filled up to, where that is less: those that are packed anew must not be. A commit has a block of its own
/// besides those of its records.
const LOOSE_BLOCK_BYTES: u64 = 256;
/// Shorter than this are the records of such blocks, each of which holds one at the least.
const LOOSE_RECORD_BYTES: u64 = 2 * LOOSE_BLOCK_BYTES;
const LOOSE_BLOCK_SHARE: u64 = 4;
/// Where as much is held for each byte of the file, another packing gains little.
const PACKED_RATIO: u64 = 4;
/// Seals that are read at once: who closes a store waits for it.
pub(super) const SEALS_READ_MAX: usize = 64;

/// Whether the segment is one that may be packed loosely, by what is known of it without its seal.
fn may_be_loose(segment: &SegmentInfo, used: &SegmentUse) -> bool {
    let (written_bytes, records) = (used.weight(), used.records());
    segment.is_sealed
        && u64::from(segment.data_bytes) * PACKED_RATIO >= written_bytes
        && written_bytes < records * LOOSE_RECORD_BYTES
}

/// Of a segment's `live_bytes`, those that another packing spares: all but the share that its blocks hold of
/// what makes them loose. JSON of 120 bytes, a commit for each record, comes to 0.76, and 0.72 is gained.
pub(super) fn loose_bytes(
    log: &LogView,
    segment: &SegmentInfo,
    used: &SegmentUse,
    live_bytes: u64,
) -> u64 {
    if !may_be_loose(segment, used) {
        return 0;
    }
    let Some(block_count) = log.block_count(segment.slot) else { return 0 };
    let block_bytes = (log.block_bytes() as u64 / LOOSE_BLOCK_SHARE).min(LOOSE_BLOCK_BYTES);
    let full_bytes = u64::from(block_count) * block_bytes;
    let missing = u128::from(full_bytes.saturating_sub(used.weight()));
    let spared = u128::from(live_bytes) * missing / u128::from(full_bytes.max(1));
    u64::try_from(spared).unwrap_or(live_bytes)
}

impl Shared {
    /// Reads what a survey asks for, since a survey holds up others: the seals of segments that may be packed
    /// loosely, `seals_max` of them at the most.
    pub(super) fn learn_what_is_loose(&self, seals_max: usize) {
        let (live, log) = self.live();
        let is_asked_for = |segment: &SegmentInfo| {
            let used = live.segment(segment.slot).copied().unwrap_or_default();
            may_be_loose(segment, &used) && log.block_count(segment.slot).is_none()
        };
        // The newest first: who opens the store for a few writes has made those.
        let asked_for = log.segments().into_iter().rev().filter(is_asked_for);
        for segment in asked_for.take(seals_max) {
            log.learn_block_count(segment.slot);
        }
    }
}
