//! The layout of the data file, as `docs/format/data.md` has it. `cargo xtask format check`
//! compares the two.

#![expect(clippy::cast_possible_truncation, reason = "constants of a few kilobytes")]

use crate::block::BlockKind;

/// One row of a layout: name, offset and size in bytes.
pub type Field = (&'static str, usize, usize);
/// One row of a table of kinds: number and name.
pub type Kind = (u32, &'static str);

/// The newest format version that this crate reads, and the one that it writes.
pub const FORMAT_VERSION: u16 = 1;
/// The first bytes of a data file. The byte above 127 and the line ends show a transfer that took
/// the file for text (as in PNG's signature).
pub const FILE_MAGIC: [u8; 8] = *b"\x8Bzkv\r\n\x1A\n";
/// The first bytes of a segment.
pub const SEGMENT_MAGIC: [u8; 8] = *b"\x8Bzkvseg\n";

/// The file header and its padding; slot 0 starts behind it. One page, so that slots are aligned.
pub const FILE_HEADER_BYTES: u64 = 4096;
/// What file systems cache and write in one piece, nearly everywhere: a closed log ends with one.
pub const PAGE_BYTES: u64 = 4096;
/// The same, as a length in memory.
pub(crate) const FILE_HEADER_PAGE: usize = FILE_HEADER_BYTES as usize;
/// The unit of a [`crate::Location`]: 15 bits name the cell in a slot of 8 MiB.
pub const CELL_BYTES: u32 = 256;
/// The segment header and its padding: the first cell.
pub const SEGMENT_HEADER_BYTES: u32 = CELL_BYTES;
/// The smallest slot: it must hold a seal and some blocks.
pub const SLOT_BYTES_MIN: u32 = 64 << 10;
/// The largest slot: a block's length has 24 bits.
pub const SLOT_BYTES_MAX: u32 = 16 << 20;
/// A block header.
pub const BLOCK_HEADER_BYTES: u32 = 8;
/// The most dictionaries of one segment: their number has four bits, and 0 stands for none.
pub const DICTIONARIES_MAX: usize = 15;
/// The largest dictionary, in bytes before its own compression: twice what is trained.
pub const DICTIONARY_BYTES_MAX: usize = 256 << 10;
/// The longest payload of a block of several entries, decompressed: so many entries can never share
/// a block that reading them takes more memory than they.
pub const SHARED_PAYLOAD_BYTES_MAX: usize = 64 << 10;
/// Sequence numbers and the numbers of commits are below this: nobody counts so far.
pub const NUMBER_MAX: u64 = 1 << 63;

macro_rules! layout {
    ($(#[$doc:meta])* $name:ident, $size:ident { $first:ident: $first_bytes:expr $(, $field:ident: $bytes:expr)* $(,)? }) => {
        $(#[$doc])*
        pub const $name: &[Field] = {
            const SIZES: &[usize] = &[$first_bytes $(, $bytes)*];
            const NAMES: &[&str] = &[stringify!($first) $(, stringify!($field))*];
            const fn fields() -> [Field; SIZES.len()] {
                let mut fields = [("", 0, 0); SIZES.len()];
                let (mut at, mut offset) = (0, 0);
                while at < SIZES.len() {
                    fields[at] = (NAMES[at], offset, SIZES[at]);
                    offset += SIZES[at];
                    at += 1;
                }
                fields
            }
            &fields()
        };
        /// The bytes of the layout of this name.
        pub const $size: usize = $first_bytes $(+ $bytes)*;
    };
}

layout! {
    /// What the file header and each segment header begin with, behind their magic.
    IDENTITY, IDENTITY_BYTES {
        version: 2, reserved: 2, features: 4, store_id: 16, hash_key: 32, slot_bytes: 4,
    }
}

layout! {
    /// The file header, written once.
    FILE_HEADER, FILE_HEADER_FIELD_BYTES {
        magic: 8, identity: IDENTITY_BYTES, first_nonce: 8, checksum: 4,
    }
}

layout! {
    /// A segment's header.
    SEGMENT_HEADER, SEGMENT_HEADER_FIELD_BYTES {
        magic: 8, identity: IDENTITY_BYTES, sequence: 8, slot: 4, nonce: 8,
        roll_call_sequence: 8, roll_call_offset: 4, synced_sequence: 8, synced_offset: 4,
        checksum: 4,
    }
}

layout! {
    /// A block's header.
    BLOCK_HEADER, BLOCK_HEADER_FIELD_BYTES { checksum: 4, tag: 1, payload_bytes: 3 }
}

layout! {
    /// The payload of a commit block.
    COMMIT, COMMIT_BYTES {
        number: 8, sequence: 8, nonce: 8, synced_sequence: 8, synced_offset: 4, chain: 4,
        signature: 8,
    }
}

layout! {
    /// What a roll call and a retire entry hold for each segment.
    MEMBER, MEMBER_BYTES { slot: 4, sequence: 8, nonce: 8 }
}

layout! {
    /// The payload of a seal, before its cell table.
    SEAL, SEAL_FIELD_BYTES {
        sequence: 8, nonce: 8, data_end: 4, block_count: 4, last_commit: 8,
        synced_sequence: 8, synced_offset: 4, next_slot: 4, next_nonce: 8, digest: 32,
        dictionary_offsets: 4 * DICTIONARIES_MAX, header: SEGMENT_HEADER_FIELD_BYTES,
    }
}

layout! {
    /// What an index checkpoint keeps of the log, before its segments.
    CHECKPOINT, CHECKPOINT_FIELD_BYTES {
        last_commit: 8, watermark_sequence: 8, watermark_offset: 4, watermark_checksum: 4,
        roll_call_sequence: 8, roll_call_offset: 4, block_count: 4, chain: 4,
        dictionary_offsets: 4 * DICTIONARIES_MAX, segment_count: 4,
    }
}

layout! {
    /// What an index checkpoint keeps of each segment.
    CHECKPOINT_SEGMENT, CHECKPOINT_SEGMENT_BYTES { sequence: 8, slot: 4, nonce: 8, data_end: 4 }
}

layout! {
    /// The payload of a dictionary block, before its zstd frame.
    DICTIONARY, DICTIONARY_FIELD_BYTES { digest: 32 }
}

/// The kinds of blocks, by their numbers and the page's words.
const BLOCK_KINDS: &[Kind] = &[
    (BlockKind::EntriesRaw as u32, "entries, raw"),
    (BlockKind::EntriesZstd as u32, "entries, zstd"),
    (BlockKind::Dictionary as u32, "dictionary"),
    (BlockKind::RollCall as u32, "roll call"),
    (BlockKind::Retire as u32, "retire"),
    (BlockKind::Commit as u32, "commit"),
    (BlockKind::Seal as u32, "seal"),
];

/// Every table of kinds, as [`ALL`].
pub const KINDS: &[(&str, &[Kind])] = &[("Block kinds", BLOCK_KINDS)];

/// Every layout of this crate, by the heading that it has in `docs/format/data.md`.
pub const ALL: &[(&str, &[Field])] = &[
    ("Identity", IDENTITY),
    ("File header", FILE_HEADER),
    ("Segment header", SEGMENT_HEADER),
    ("Block header", BLOCK_HEADER),
    ("Commit", COMMIT),
    ("Member", MEMBER),
    ("Seal", SEAL),
    ("Dictionary", DICTIONARY),
    ("Log checkpoint", CHECKPOINT),
    ("Checkpoint segment", CHECKPOINT_SEGMENT),
];

const _: () = assert!(BLOCK_HEADER_FIELD_BYTES == BLOCK_HEADER_BYTES as usize);
const _: () = assert!(SEGMENT_HEADER_FIELD_BYTES <= SEGMENT_HEADER_BYTES as usize);
const _: () = assert!(FILE_HEADER_FIELD_BYTES <= FILE_HEADER_BYTES as usize);

/// The bytes that a whole commit block takes.
pub const COMMIT_BLOCK_BYTES: u32 = BLOCK_HEADER_BYTES + COMMIT_BYTES as u32;

/// The bytes of a whole seal block in a slot of `slot_bytes`: one byte a cell stands at its end.
#[must_use]
pub const fn seal_block_bytes(slot_bytes: u32) -> u32 {
    BLOCK_HEADER_BYTES + SEAL_FIELD_BYTES as u32 + slot_bytes / CELL_BYTES
}

/// Where the seal of a segment stands, in bytes from its start: it ends with the slot.
#[must_use]
pub const fn seal_offset(slot_bytes: u32) -> u32 {
    slot_bytes - seal_block_bytes(slot_bytes)
}

/// Where that seal repeats the segment's header: before the cell table, which ends with the slot.
pub(crate) const fn header_copy_offset(slot_bytes: u32) -> u32 {
    slot_bytes - slot_bytes / CELL_BYTES - SEGMENT_HEADER_FIELD_BYTES as u32
}

/// Where slot `slot` starts, in bytes from the file's start.
#[must_use]
pub const fn slot_start(slot: u32, slot_bytes: u32) -> u64 {
    FILE_HEADER_BYTES + slot as u64 * slot_bytes as u64
}

/// How many slots of `slot_bytes` a file of `file_bytes` has room for, the last of them perhaps in part.
pub(crate) fn slot_count(file_bytes: u64, slot_bytes: u32) -> u32 {
    let slots = file_bytes.saturating_sub(FILE_HEADER_BYTES).div_ceil(u64::from(slot_bytes));
    u32::try_from(slots).unwrap_or(u32::MAX)
}

/// The longest entry of a log with slots of `slot_bytes`: alone in a block of its own, stored raw,
/// in a segment of its own, with a commit.
#[must_use]
pub const fn entry_bytes_max(slot_bytes: u32) -> usize {
    // One byte counts the block's entries.
    (seal_offset(slot_bytes) - SEGMENT_HEADER_BYTES - BLOCK_HEADER_BYTES - 1) as usize
}
