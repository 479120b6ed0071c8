//! Where each field of a header lies. `docs/format/index.md` carries the same tables, and a check
//! compares the two.

/// A row of a layout: name, offset, size in bytes.
pub type Row = (&'static str, usize, usize);

/// The version that is written, and all that is read: version 1, of before the first release, had other key hashes.
pub const FORMAT_VERSION: u32 = 2;
/// The length of a header.
pub const HEADER_BYTES: usize = 512;
/// How many tables are live at once: the base and four appended ones.
pub const TABLES_MAX: usize = 5;
/// How many sections a checkpoint holds.
pub const SECTIONS_MAX: usize = 8;
/// The longest section, 1 GiB: what a reader allocates at the most, whatever a file claims.
pub const SECTION_BYTES_MAX: u64 = 1 << 30;
/// The longest watermark.
pub const WATERMARK_BYTES_MAX: usize = 128;

/// The header of a checkpoint.
pub const HEADER: &[Row] = &[
    ("magic", 0, 8),
    ("version", 8, 4),
    ("check", 12, 4),
    ("store_id", 16, 16),
    ("required_features", 32, 8),
    ("offset", 40, 8),
    ("number", 48, 8),
    ("key_count", 56, 8),
    ("body_end", 64, 8),
    ("sections_offset", 72, 8),
    ("table_count", 80, 1),
    ("section_count", 81, 1),
    ("watermark_bytes", 82, 1),
    ("reserved", 83, 5),
    ("watermark", 88, 128),
    ("tables", 216, 160),
    ("sections", 376, 128),
    ("reserved_end", 504, 8),
];

/// One of the header's tables, relative to its start.
pub const TABLE: &[Row] = &[
    ("first_bucket", 0, 4),
    ("bucket_count", 4, 4),
    ("entry_count", 8, 8),
    ("spill_count", 16, 2),
    ("displacement_max", 18, 2),
    ("prefix_bits", 20, 1),
    ("location_bits", 21, 1),
    ("kill_bits", 22, 1),
    ("reserved", 23, 1),
    ("salt", 24, 4),
    ("check", 28, 4),
];

/// One of the header's sections, relative to its start.
pub const SECTION: &[Row] = &[("kind", 0, 4), ("check", 4, 4), ("length", 8, 8)];

/// One bucket of a table.
pub const BUCKET: &[Row] = &[("entries", 0, 62), ("check", 62, 2)];

/// Every layout, by the heading of its table.
pub const ALL: &[(&str, &[Row])] =
    &[("Header", HEADER), ("Table record", TABLE), ("Section record", SECTION), ("Bucket", BUCKET)];

const _: () = assert!(end_of(HEADER) == HEADER_BYTES);
const _: () = assert!(end_of(TABLE) * TABLES_MAX == Field::of(HEADER, "tables").bytes);
const _: () = assert!(end_of(SECTION) * SECTIONS_MAX == Field::of(HEADER, "sections").bytes);
const _: () = assert!(WATERMARK_BYTES_MAX == Field::of(HEADER, "watermark").bytes);
const _: () = assert!(end_of(BUCKET) == 64);

/// Where `rows` end; does not compile unless each starts where the one before it ends.
const fn end_of(rows: &[Row]) -> usize {
    let mut end = 0;
    let mut index = 0;
    while index < rows.len() {
        assert!(rows[index].1 == end, "a field starts where the last one ends");
        end += rows[index].2;
        index += 1;
    }
    end
}

/// Where one field lies.
#[derive(Clone, Copy)]
pub(crate) struct Field {
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
}

impl Field {
    /// The field `name` of `rows`; does not compile where there is none.
    pub(crate) const fn of(rows: &[Row], name: &str) -> Self {
        let mut index = 0;
        while !same(rows[index].0, name) {
            index += 1;
        }
        Self { offset: rows[index].1, bytes: rows[index].2 }
    }

    /// The field's bytes in a record that starts at the front of `record`.
    pub(crate) fn slice(self, record: &[u8]) -> &[u8] {
        &record[self.offset..self.offset + self.bytes]
    }

    /// The field as an array, whose length is the field's.
    pub(crate) fn array<const N: usize>(self, record: &[u8]) -> [u8; N] {
        let mut array = [0; N];
        array.copy_from_slice(self.slice(record));
        array
    }

    /// Puts `bytes`, which are as long as the field, into a record.
    pub(crate) fn put(self, record: &mut [u8], bytes: &[u8]) {
        record[self.offset..self.offset + self.bytes].copy_from_slice(bytes);
    }
}

/// `left == right`, which no constant may say yet.
const fn same(left: &str, right: &str) -> bool {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    if left.len() != right.len() {
        return false;
    }
    let mut index = 0;
    while index < left.len() {
        if left[index] != right[index] {
            return false;
        }
        index += 1;
    }
    true
}
