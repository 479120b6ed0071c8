//! The layouts of `docs/format/record.md`, as constants that `cargo xtask format check` holds
//! against the page's tables.

/// One row: name, offset, size. In bytes, but for the flags, where it is in bits.
pub type Row = (&'static str, usize, usize);

/// The flags byte, in bits. The bits behind the last one are zero.
pub const FLAGS: &[Row] =
    &[("kind", 0, 2), ("collection", 2, 1), ("expiry", 3, 1), ("origin", 4, 1)];

/// The value of a head record.
pub const HEAD: &[Row] = &[("value_id", 0, 16), ("value_bytes", 16, 8), ("piece_bytes", 24, 4)];

/// The key of a piece record.
pub const PIECE_KEY: &[Row] = &[("value_id", 0, 16), ("number", 16, 4)];

/// Every layout, by the heading of its table.
pub const ALL: &[(&str, &[Row])] = &[("Flags", FLAGS), ("Head", HEAD), ("Piece key", PIECE_KEY)];

/// Where the last row ends. Rows with gaps or overlaps do not compile.
pub(crate) const fn end(rows: &[Row]) -> usize {
    let mut end = 0;
    let mut number = 0;
    while number < rows.len() {
        assert!(rows[number].1 == end, "a row starts where the one before it ends");
        end += rows[number].2;
        number += 1;
    }
    end
}

/// The flag of one bit that starts at row `number` of [`FLAGS`].
pub(crate) const fn flag(number: usize) -> u8 {
    assert!(FLAGS[number].2 == 1);
    1 << FLAGS[number].1
}
