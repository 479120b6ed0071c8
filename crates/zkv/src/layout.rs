//! The layout of what the store keeps in its index file, as `docs/format/store.md` has it.
//! `cargo xtask format check` compares the two.

use crate::metadata::counts;
use crate::metadata::live::{LIVE_SECTION, SEGMENTS_SECTION};
use crate::metadata::sections::{CATALOG_SECTION, LOG_SECTION};

/// One row of a layout: name, offset and size in bytes.
pub type Field = (&'static str, usize, usize);
/// One row of a table of kinds: number and name.
pub type Kind = (u32, &'static str);

/// What the index keeps of each segment.
pub const SEGMENT_USE: &[Field] = &[
    ("slot", 0, 4),
    ("records", 4, 4),
    ("raw_bytes", 8, 8),
    ("marks", 16, 4),
    ("mark_bytes", 20, 8),
];

/// The bytes of a segment's use.
pub const SEGMENT_USE_BYTES: usize = 28;

/// What the index keeps of each collection's share of a segment.
pub const LIVE_SHARE: &[Field] = &[
    ("slot", 0, 4),
    ("collection", 4, 4),
    ("live_records", 8, 4),
    ("live_raw_bytes", 12, 8),
    ("parts", 20, 8),
];

/// The bytes of a live share.
pub const LIVE_SHARE_BYTES: usize = 28;

/// What the index keeps of each collection.
pub const KEY_COUNT: &[Field] = &[("collection", 0, 4), ("keys", 4, 8)];

/// The bytes of a key count.
pub const KEY_COUNT_BYTES: usize = 12;

/// Whether each field starts where the one before it ends, and the last one ends at `bytes`.
const fn is_whole(fields: &[Field], bytes: usize) -> bool {
    let (mut end, mut number) = (0, 0);
    while number < fields.len() {
        let (_, offset, size) = fields[number];
        if offset != end {
            return false;
        }
        end += size;
        number += 1;
    }
    end == bytes
}

const _: () = {
    assert!(is_whole(SEGMENT_USE, SEGMENT_USE_BYTES));
    assert!(is_whole(LIVE_SHARE, LIVE_SHARE_BYTES));
    assert!(is_whole(KEY_COUNT, KEY_COUNT_BYTES));
};

/// Every layout of this crate, by the heading that it has in `docs/format/store.md`.
pub const ALL: &[(&str, &[Field])] =
    &[("Segment use", SEGMENT_USE), ("Live share", LIVE_SHARE), ("Key count", KEY_COUNT)];

/// The kinds of the index file's sections.
const SECTIONS: &[Kind] = &[
    (LOG_SECTION, "log checkpoint"),
    (SEGMENTS_SECTION, "segment uses"),
    (LIVE_SECTION, "live shares"),
    (counts::SECTION, "key counts"),
    (CATALOG_SECTION, "catalog"),
];

/// Every table of kinds, as [`ALL`].
pub const KINDS: &[(&str, &[Kind])] = &[("What the index file's sections hold", SECTIONS)];
