//! The layout of what the store keeps in its index file, as `docs/format/store.md` has it.
//! `cargo xtask format check` compares the two.

/// One row of a layout: name, offset and size in bytes.
pub type Field = (&'static str, usize, usize);

/// What the index keeps of each segment.
pub const SEGMENT_USE: &[Field] = &[
    ("slot", 0, 4),
    ("records", 4, 4),
    ("live_records", 8, 4),
    ("raw_bytes", 12, 8),
    ("live_raw_bytes", 20, 8),
];

/// The bytes of a segment's use.
pub const SEGMENT_USE_BYTES: usize = 28;

const _: () = {
    let (_, offset, bytes) = SEGMENT_USE[SEGMENT_USE.len() - 1];
    assert!(offset + bytes == SEGMENT_USE_BYTES);
};

/// Every layout of this crate, by the heading that it has in `docs/format/store.md`.
pub const ALL: &[(&str, &[Field])] = &[("Segment use", SEGMENT_USE)];
