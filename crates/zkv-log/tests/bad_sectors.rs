//! Opening a log whose disk cannot read some of its sectors.

mod common;

use std::io;
use std::path::Path;
use std::sync::Arc;

use zkv_io::{MemoryStorage, ReadMode};
use zkv_log::layout::{SEGMENT_HEADER_BYTES, slot_start};
use zkv_log::{Access, LogError, LogOptions, LogWriter, OpenFile, Position, Result};
use zkv_sim::{Act, Watched};

use common::{PATH, SLOT, all, bytes_of, new_log, noise, options, slots, storage_of, try_open};

const SECTOR: u32 = 4096;

/// The log in `storage`, on a disk that cannot read one sector of the slot.
fn open_beside(
    storage: &MemoryStorage,
    slot: u32,
    sector: u32,
    checkpoint: Option<&[u8]>,
) -> Result<LogWriter> {
    let bad = slot_start(slot, SLOT) + u64::from(sector * SECTOR);
    let disk = Watched::new(Arc::new(storage.clone()), move |act, _| match act {
        Act::Read { offset, bytes }
            if offset < bad + u64::from(SECTOR) && bad < offset + bytes as u64 =>
        {
            Err(io::Error::other("the sector is bad"))
        }
        _ => Ok(()),
    });
    let options = LogOptions { read_mode: ReadMode::Pread, ..options() };
    let file = OpenFile::open(Arc::new(disk), Path::new(PATH), Access::ReadWrite, options)?;
    Ok(file.recover(checkpoint)?.writer.unwrap())
}

/// A log whose last segment lies in slot 1, which another one had filled, and ends within it: its bytes, where
/// that is, and checkpoints from before that segment and from the end.
struct Reused {
    storage: MemoryStorage,
    end: Position,
    older: Vec<u8>,
    newer: Vec<u8>,
}

fn reused() -> Reused {
    let (storage, mut writer) = new_log();
    (0..4).for_each(|seed| drop(writer.append(&[&noise(seed, 40_000)]).unwrap()));
    let older = writer.checkpoint().unwrap();
    writer.free(&[1]).unwrap();
    writer.log().sync(writer.end()).unwrap();
    (10..20).for_each(|seed| drop(writer.append(&[&noise(seed, 5_000)]).unwrap()));
    let newer = writer.checkpoint().unwrap();
    writer.close().unwrap();
    assert_eq!(slots(&writer.log()).last().unwrap().0, 1);
    let end = writer.end();
    Reused { storage, end, older, newer }
}

#[test]
fn a_bad_sector_behind_the_end_of_a_log_costs_nothing() {
    let log = reused();
    let ends_in = log.end.offset / SECTOR;
    assert!(5 < ends_in && ends_in < 14 && !log.end.offset.is_multiple_of(SECTOR), "{:?}", log.end);
    for checkpoint in [None, Some(&*log.older), Some(&*log.newer)] {
        for sector in ends_in + 1..SLOT / SECTOR {
            let storage = storage_of(&bytes_of(&log.storage));
            let mut writer = open_beside(&storage, 1, sector, checkpoint).unwrap();
            assert_eq!(writer.end(), log.end, "sector {sector}");
            // Over the bad sector, and into the next segment.
            let (first, second) = (noise(20, 40_000), noise(21, 40_000));
            writer.append(&[&first]).unwrap();
            drop(writer);
            let opened = try_open(&storage, None).unwrap();
            assert_eq!(*all(&opened.log).last().unwrap(), first, "sector {sector}");
            let mut writer = opened.writer.unwrap();
            writer.append(&[&second]).unwrap();
            assert_eq!(*all(&writer.log()).last().unwrap(), second, "sector {sector}");
        }
    }
}

#[test]
fn a_bad_sector_where_a_log_goes_on_or_may_do_so_is_damage() {
    let log = reused();
    for sector in 0..=log.end.offset / SECTOR {
        let opened = open_beside(&log.storage, 1, sector, None);
        let Err(LogError::Corrupt { offset, .. }) = opened else { panic!("sector {sector}") };
        let start = slot_start(1, SLOT);
        // Where the block starts that reaches into it.
        let at = u32::try_from(offset - start).unwrap();
        assert!(at < (sector + 1) * SECTOR && sector * SECTOR < at + 6_000, "{sector}: {at}");
        // What the index knows is not read to open it.
        let newer = open_beside(&log.storage, 1, sector, Some(&log.newer));
        let is_read = sector == log.end.offset / SECTOR;
        assert_eq!(newer.is_err(), is_read, "sector {sector}");
    }
}

#[test]
fn a_bad_sector_where_the_next_segment_should_begin_is_damage() {
    let (storage, mut writer) = new_log();
    (0..2).for_each(|seed| drop(writer.append(&[&noise(seed, 40_000)]).unwrap()));
    assert_eq!(slots(&writer.log()), [(0, 1), (1, 2)]);
    drop(writer);
    let opened = open_beside(&storage, 1, 0, None);
    let start = slot_start(1, SLOT) + u64::from(SEGMENT_HEADER_BYTES);
    assert!(matches!(opened, Err(LogError::Corrupt { offset, .. }) if offset == start));
}

/// The last segment of before the base is full, and leads to a slot that was cut off.
#[test]
fn a_bad_sector_where_a_base_may_stand_is_damage() {
    let (storage, mut writer) = new_log();
    (0..3).for_each(|seed| drop(writer.append(&[&noise(seed, 40_000)]).unwrap()));
    // Where the base will be, nothing else shall.
    let first = writer.log().view();
    let freed = writer.free(&[0]).unwrap();
    writer.log().sync(freed.end).unwrap();
    writer.append(&[&noise(3, 40_000)]).unwrap();
    let before_base = writer.log().view();
    writer.append(&[&noise(4, 40_000)]).unwrap();
    assert_eq!(slots(&writer.log()), [(1, 2), (2, 3), (3, 4), (4, 5)]);
    drop(first);
    writer.rebase().unwrap();
    let freed = writer.free(&[1, 2, 3, 4]).unwrap();
    writer.log().sync(freed.end).unwrap();
    assert_eq!(writer.cut().unwrap(), u64::from(SLOT), "but the last slot, all are held");
    assert_eq!(slots(&writer.log()), [(0, 6)]);
    drop((before_base, writer));
    let opened = open_beside(&storage, 0, 0, None);
    let Err(LogError::Corrupt { offset, .. }) = opened else { panic!("an older log was opened") };
    assert_eq!(offset, slot_start(0, SLOT));
}
