//! Files that somebody has cut, within a full segment that lies behind the last one.

mod common;

use std::path::Path;
use std::sync::Arc;

use zkv_io::{ReadMode, Storage};
use zkv_log::layout::slot_start;
use zkv_log::{Access, Cell, LogError, LogWriter, OpenFile};

use common::{PATH, SLOT, bytes_of, new_log, noise, options, slots, storage_of};

/// Entries of so many bytes: long ones and short ones. With another one they fill more than a slot.
const LENGTHS: [usize; 5] = [20_000, 500, 500, 20_000, 15_000];

fn append(writer: &mut LogWriter, lengths: &[usize]) {
    for length in lengths {
        writer.append(&[&noise(*length as u64, *length)]).unwrap();
    }
    writer.log().sync(writer.end()).unwrap();
}

#[test]
fn what_somebody_has_cut_off_is_damage_to_whoever_reads_it() {
    let (storage, mut writer) = new_log();
    append(&mut writer, &[60_000, 60_000]);
    append(&mut writer, &LENGTHS);
    append(&mut writer, &[60_000]);
    writer.free(&[0, 1]).unwrap();
    writer.log().sync(writer.end()).unwrap();
    append(&mut writer, &[60_000, 60_000, 500]);
    let [.., (last, _)] = slots(&writer.log())[..] else { panic!("no slots") };
    let view = writer.log().view();
    let cut_slot = view.segments().iter().map(|segment| segment.slot).max().unwrap();
    assert!(last < cut_slot, "{:?}", slots(&writer.log()));
    let (mut locations, mut cell) = (Vec::new(), Cell::default());
    let mut scan = view.scan(cut_slot, None).unwrap();
    while scan.next_cell(&mut cell).unwrap() {
        locations.push(cell.location());
    }
    let checkpoint = writer.checkpoint().unwrap();
    let (whole, start) = (bytes_of(&storage), slot_start(cut_slot, SLOT));
    for kept in [1, 300, 19_000, 21_000, 60_000] {
        let cut = &whole[..usize::try_from(start + kept).unwrap()];
        for mode in [ReadMode::Map, ReadMode::Pread] {
            let storage = mode.storage(&(Arc::new(storage_of(cut)) as Arc<dyn Storage>));
            let file = OpenFile::open(storage, Path::new(PATH), Access::ReadOnly, options());
            let view = file.unwrap().recover(Some(&checkpoint)).unwrap().log.view();
            let check = |error: LogError, what: &str| match error {
                LogError::Corrupt { offset, .. } => assert!(offset >= start, "{offset}"),
                error => panic!("{what}, {kept} bytes kept, {mode:?}: {error}"),
            };
            let mut failed = 0;
            for location in &locations {
                if let Err(error) = view.find(*location, |_| Some(())) {
                    failed += 1;
                    check(error, "a lookup");
                }
                view.visit(*location, |_| {}).unwrap_or_else(|error| check(error, "a visit"));
            }
            assert!(0 < failed, "{kept} bytes kept");
            let mut scan = view.scan(cut_slot, None).unwrap();
            let error = loop {
                match scan.next_cell(&mut cell) {
                    Ok(is_there) => assert!(is_there),
                    Err(error) => break error,
                }
            };
            check(error, "a scan");
            let mut behind = scan.go_on_behind();
            loop {
                match behind.next_cell(&mut cell) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => check(error, "a scan behind damage"),
                }
            }
        }
    }
}
