//! Cleaning ends, whatever it finds.

use super::*;

/// The file cannot be cut where a snapshot reads it, wherever the log goes on: each segment that was begun
/// for that was one more with nothing in it, which was cleaned, and so on for ever.
#[test]
fn cleaning_ends_while_a_snapshot_reads_the_end_of_the_file() {
    let fill = |first, count, bytes| Step::Fill(DEFAULT, first, count, bytes);
    let steps = [
        fill(0, 7, 19174),
        fill(0, 16, 23008),
        fill(0, 5, 15000),
        fill(0, 6, 15000),
        fill(0, 9, 20914),
        Step::SwitchIndex,
        fill(0, 7, 22994),
        fill(0, 20, 18006),
        fill(0, 16, 22902),
        fill(4, 35, 20666),
        Step::Snapshot,
        fill(0, 26, 18138),
        fill(31, 14, 16756),
        Step::Batch(vec![(DEFAULT, 7, None), (DEFAULT, 5, None), (DEFAULT, 8, None)], None),
        Step::Set(DEFAULT, 9, Value { byte: 0, bytes: 0 }),
        Step::Clean,
        Step::Snapshot,
        Step::Clean,
    ];
    run(&steps, settings(Durability::Buffered, true));
}
