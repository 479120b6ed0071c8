//! When a checkpoint is appended, and when the file is written anew.

use crate::layout::{HEADER_BYTES, TABLES_MAX};

/// What a checkpoint would add to which file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// The live base table.
    pub(crate) base_bytes: u64,
    /// The file, up to the present checkpoint's end.
    pub(crate) file_bytes: u64,
    /// The live tables besides the base.
    pub(crate) appended_count: usize,
    /// The checkpoints in the file.
    pub(crate) chain_length: u32,
    /// A table of the new changes alone.
    pub(crate) changes_bytes: u64,
    /// A table of the new changes and those of all appended tables.
    pub(crate) merged_bytes: u64,
    /// The new sections.
    pub(crate) sections_bytes: u64,
}

/// What to do with new changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Append a table of the changes.
    Append,
    /// Append one table of the changes and of all appended tables, which it replaces.
    AppendMerged,
    /// Write a new file with one table.
    Rewrite,
}

/// The numbers that the choice depends on. Tests use others, so that small files grow chains.
#[derive(Clone, Copy, Debug)]
pub struct Thresholds {
    /// A base below this is written anew each time.
    pub base_bytes_least: u64,
    /// All bytes that are not the base's, live or not, stay within this many eighths of the base's.
    pub besides_base_eighths_max: u64,
    /// Where the file is written anew, and is no shorter than this, whoever writes to the store shall not
    /// wait for it.
    pub aside_bytes_least: u64,
}

/// The most checkpoints in one file. Opening reads the header of each, one page a header: 64 of
/// them take less than a millisecond from a warm cache and a few from a cold one.
pub(crate) const CHAIN_LENGTH_MAX: u32 = 64;

impl Thresholds {
    /// Writing 1 MiB anew takes about as long as the two syncs of an append. An eighth keeps the file
    /// within 112.5 % of its base; the base is written anew once for an eighth of its bytes in
    /// changes, so that each byte of changes costs about nine.
    /// Writing 4 MiB anew takes about 50 ms.
    pub const DEFAULT: Self =
        Self { base_bytes_least: 1 << 20, besides_base_eighths_max: 1, aside_bytes_least: 4 << 20 };

    /// Chooses by sizes alone.
    pub(crate) fn choose(&self, sizes: &Sizes) -> Choice {
        let (choice, table_bytes) = if sizes.appended_count < TABLES_MAX - 1 {
            (Choice::Append, sizes.changes_bytes)
        } else {
            (Choice::AppendMerged, sizes.merged_bytes)
        };
        let added = HEADER_BYTES as u64 + table_bytes + sizes.sections_bytes;
        let besides_base = (sizes.file_bytes + added).saturating_sub(sizes.base_bytes);
        let may_append = sizes.base_bytes >= self.base_bytes_least
            && besides_base.saturating_mul(8)
                <= sizes.base_bytes.saturating_mul(self.besides_base_eighths_max)
            && sizes.chain_length < CHAIN_LENGTH_MAX;
        if may_append { choice } else { Choice::Rewrite }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_choice_follows_the_sizes() {
        let sizes = Sizes {
            base_bytes: 80 * MIB,
            file_bytes: 82 * MIB,
            appended_count: 2,
            chain_length: 3,
            changes_bytes: MIB,
            merged_bytes: 3 * MIB,
            sections_bytes: 1000,
        };
        let cases = [
            (sizes, Choice::Append),
            (Sizes { appended_count: 4, ..sizes }, Choice::AppendMerged),
            // The eighth, exactly and one byte more.
            (Sizes { changes_bytes: 8 * MIB - 1512, ..sizes }, Choice::Append),
            (Sizes { changes_bytes: 8 * MIB - 1511, ..sizes }, Choice::Rewrite),
            (Sizes { appended_count: 4, merged_bytes: 8 * MIB, ..sizes }, Choice::Rewrite),
            (Sizes { file_bytes: 90 * MIB, ..sizes }, Choice::Rewrite),
            (Sizes { chain_length: 64, ..sizes }, Choice::Rewrite),
            (Sizes { sections_bytes: 8 * MIB, ..sizes }, Choice::Rewrite),
            (
                Sizes { base_bytes: MIB - 64, file_bytes: MIB, changes_bytes: 0, ..sizes },
                Choice::Rewrite,
            ),
        ];
        for (sizes, choice) in cases {
            assert_eq!(Thresholds::DEFAULT.choose(&sizes), choice, "{sizes:?}");
        }
    }
}
