//! Lookups in a full segment whose seal is damaged, alone or beside other damage.

mod common;

use zkv_log::{Access, Cell, Location, LogView, SegmentScan};

use common::{SLOT, bytes_of, new_log, noise, open_file, storage_of};

type Entries = Vec<(Location, Vec<u8>)>;

const FIRST_SLOT: usize = 4096;

/// A log of several segments, what its index would keep of it, and where each entry of the first one is.
struct Filled {
    bytes: Vec<u8>,
    checkpoint: Vec<u8>,
    entries: Entries,
}

fn filled() -> Filled {
    let (storage, mut writer) = new_log();
    for (number, length) in (0..2000).zip([20, 90, 300, 1500].into_iter().cycle()) {
        writer.append(&[&noise(number, length)]).unwrap();
    }
    let mut entries = Entries::new();
    let mut cell = Cell::default();
    let mut scan: SegmentScan = writer.log().view().scan(0, None).unwrap();
    while scan.next_cell(&mut cell).unwrap() {
        entries
            .extend((0..cell.len()).map(|number| (cell.location(), cell.entry(number).to_vec())));
    }
    assert!(entries.len() > 100);
    let checkpoint = writer.checkpoint().unwrap();
    Filled { bytes: bytes_of(&storage), checkpoint, entries }
}

fn view_of(bytes: &[u8], checkpoint: &[u8]) -> LogView {
    let file = open_file(&storage_of(bytes), Access::ReadOnly).unwrap();
    file.recover(Some(checkpoint)).unwrap().log.view()
}

/// How many of the entries cannot be read. None of them is said not to be there.
fn lost(view: &LogView, entries: &Entries) -> usize {
    let is_lost = |(location, entry): &&(Location, Vec<u8>)| {
        let found = view.find(*location, |other| (other == entry).then_some(()));
        found.map(|found| found.expect("an entry is where it was")).is_err()
    };
    entries.iter().filter(is_lost).count()
}

#[test]
fn a_damaged_seal_costs_nothing_and_a_block_beside_it_only_itself() {
    let Filled { bytes, checkpoint, entries } = filled();
    let table = FIRST_SLOT + (SLOT - SLOT / 256) as usize;
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..300 {
        let mut damaged = bytes.clone();
        let in_table = table + random.usize(..(SLOT / 256) as usize);
        damaged[in_table] ^= 1 << random.u8(..8);
        assert_eq!(lost(&view_of(&damaged, &checkpoint), &entries), 0, "{in_table}");
        let in_block = FIRST_SLOT + random.usize(256..60_000);
        damaged[in_block] ^= 1 << random.u8(..8);
        let view = view_of(&damaged, &checkpoint);
        let lost_at_first = lost(&view, &entries);
        // Those of its cell that are older than it cannot be told to count.
        assert!(lost_at_first <= 4, "{lost_at_first} at {in_table} and {in_block}");
        // An iteration looks for whole blocks by what a walk has found, and so do lookups behind it.
        let mut scan = view.scan(0, None).unwrap();
        let mut cell = Cell::default();
        while let Ok(true) = scan.next_cell(&mut cell) {}
        let mut behind = scan.go_on_behind();
        while let Ok(true) = behind.next_cell(&mut cell) {}
        assert!(lost(&view, &entries) <= lost_at_first);
    }
}

#[test]
fn where_blocks_may_be_lost_nothing_is_said_not_to_be_there() {
    let Filled { bytes, checkpoint, entries } = filled();
    let mut damaged = bytes.clone();
    // The seal and a third of the segment.
    damaged[FIRST_SLOT + SLOT as usize - 20] ^= 1;
    damaged[FIRST_SLOT + 20_000..FIRST_SLOT + 40_000].fill(0x11);
    let view = view_of(&damaged, &checkpoint);
    let lost = lost(&view, &entries);
    assert!(lost > entries.len() / 5 && lost < entries.len() / 2, "{lost} of {}", entries.len());
}
