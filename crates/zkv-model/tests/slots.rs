//! Slots of the log that are freed and used again, beside readers.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;
use zkv_log::{Access, LogOptions, LogView, LogWriter, OpenFile, create};
use zkv_model::check;
use zkv_model::sync::ArcSwap;
use zkv_sim::{Image, SimDisk};

const PATH: &str = "log";
/// Two of them fill a slot.
const ENTRY_BYTES: usize = 24 << 10;

fn open() -> LogWriter {
    let disk = SimDisk::from_image(&Image::new(), 1);
    let options = LogOptions { slot_bytes: 64 << 10, compression_threads: 1, ..Default::default() };
    create(&disk, Path::new(PATH), &options).unwrap();
    let file = OpenFile::open(Arc::new(disk), Path::new(PATH), Access::ReadWrite, options);
    file.unwrap().recover(None).unwrap().writer.unwrap()
}

/// Noise, which fills as much of the file as it is long.
fn entry(number: u8) -> Vec<u8> {
    let mut state = u64::from(number) + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    std::iter::once(number).chain((1..ENTRY_BYTES).map(|_| next())).collect()
}

/// The numbers of the entries that a view has of one slot, each read whole.
fn numbers_in(view: &LogView, slot: u32) -> Vec<u8> {
    let mut scan = view.scan(slot, None).unwrap();
    let mut numbers = Vec::new();
    while let Some(block) = scan.next_block().unwrap() {
        for found in block.entries().unwrap() {
            let found = found.unwrap();
            assert_eq!(found, entry(found[0]), "another entry's bytes");
            numbers.push(found[0]);
        }
    }
    numbers
}

#[test]
fn a_slot_is_not_used_again_while_a_view_has_its_segment() {
    let reused = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&reused);
    check(20, move || {
        let mut writer = open();
        for number in 0..3 {
            writer.append(&[&entry(number), &entry(100 + number)]).unwrap();
        }
        let log = writer.log();
        // As a store does, which lends its view to readers.
        let published = Arc::new(ArcSwap::from_pointee(writer.view()));
        let readers = (0..2).map(|reader| {
            let (log, published) = (log.clone(), Arc::clone(&published));
            thread::spawn(move || {
                let lent = published.load();
                let view = if reader == 0 { &log.view() } else { &*lent };
                let slots: Vec<u32> = view.segments().iter().map(|one| one.slot).collect();
                let slot = slots[thread_rng().gen_range(0..slots.len())];
                let first = numbers_in(view, slot);
                let again = numbers_in(view, slot);
                assert!(again.starts_with(&first), "{first:?} became {again:?}");
            })
        });
        let readers: Vec<_> = readers.collect();
        for number in 3..6 {
            let oldest = log.view().segments()[0];
            let freed = writer.free(&[oldest.slot]).unwrap();
            log.sync(freed.end).unwrap();
            published.store(Arc::new(writer.view()));
            writer.append(&[&entry(number), &entry(100 + number)]).unwrap();
            let is_reused = log
                .view()
                .segments()
                .iter()
                .any(|now| now.slot == oldest.slot && now.sequence != oldest.sequence);
            counted.fetch_add(is_reused.into(), Ordering::Relaxed);
        }
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
    assert!(reused.load(Ordering::Relaxed) > 0, "nothing was tried");
}
