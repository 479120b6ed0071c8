//! What salvage says of its work.

/// How many ranges of lost bytes a report lists: the newest ones.
pub(super) const LOST_RANGES_MAX: usize = 1000;

/// What [`salvage`](crate::salvage()) has brought, and what was lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SalvageReport {
    /// Keys that the new store has.
    pub keys: u64,
    /// Bytes of those keys and their values.
    pub bytes: u64,
    /// Segments that were read.
    pub segments: u64,
    /// Segments that belong to the log and of which nothing was found.
    pub missing_segments: u64,
    /// Headers that are lost, of the file and of segments. Alone, that costs nothing.
    pub lost_headers: u64,
    /// Seals that are lost. Where nothing else tells where a segment ended, all that is older
    /// counts as `possibly_superseded`.
    pub lost_seals: u64,
    /// Blocks that could not be read, at the least.
    pub lost_blocks: u64,
    /// Bytes that those took.
    pub lost_bytes: u64,
    /// Where they stood, up to 1,000 ranges, from the newest to the oldest.
    pub lost_ranges: Vec<LostRange>,
    /// Commits that have lost a part.
    pub incomplete_commits: u64,
    /// Keys whose newest value stood in such a commit: others of the same commit may be lost.
    pub keys_of_incomplete_commits: u64,
    /// Keys brought to which something newer may have happened: a block, commit or segment that
    /// came later is lost, and may have held another value of the key, or its deletion.
    pub possibly_superseded: u64,
    /// Values in pieces, not brought since a piece is lost; or since another key has the same pieces, which
    /// only a forged file has.
    pub incomplete_values: u64,
    /// Bytes of those values.
    pub incomplete_value_bytes: u64,
    /// Entries that are whole and no records that this version knows. They were not brought.
    pub unknown_entries: u64,
    /// Collections that have lost their names, or were cleared or dropped, which cannot be told apart.
    /// They are called `recovered-` and a number; see
    /// [`Store::raw_collection`](crate::Store::raw_collection).
    pub recovered_collections: u64,
    /// Records of commits that were never whole, as far as can be known: a crash leaves such. They
    /// were not brought.
    pub uncommitted_records: u64,
}

/// Bytes of the data file in which nothing whole was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostRange {
    /// In bytes from the file's start.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
}

impl SalvageReport {
    /// Whether the new store is known to hold all that the damaged one held.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let lost = [
            self.missing_segments,
            self.lost_blocks,
            self.possibly_superseded,
            self.incomplete_values,
            self.unknown_entries,
            self.uncommitted_records,
        ];
        lost == [0; 6]
    }

    pub(super) fn note_lost(&mut self, lost: &zkv_log::LostBlocks) {
        self.lost_blocks = self.lost_blocks.saturating_add(lost.block_count);
        self.lost_bytes += lost.bytes;
        if self.lost_ranges.len() < LOST_RANGES_MAX {
            self.lost_ranges.push(LostRange { offset: lost.offset, bytes: lost.bytes });
        }
    }
}
