//! A disk that cannot read all of its sectors.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use zkv_io::{MemoryStorage, ReadMode};
use zkv_log::layout::{FILE_HEADER_BYTES, slot_start};
use zkv_log::{Access, LogError, LogOptions, LogView, OpenFile};
use zkv_sim::{Act, Watched};

use crate::common::{PATH, SLOT, new_log, options};
use crate::{append, try_salvage};

/// A disk with bad sectors, which must not be mapped or written.
fn with_bad_sectors(storage: MemoryStorage, bad: Range<u64>) -> Watched {
    Watched::new(Arc::new(storage), move |act, _| match act {
        Act::Read { offset, bytes } if offset < bad.end && bad.start < offset + bytes as u64 => {
            Err(io::Error::other("input/output error"))
        }
        Act::Read { .. } => Ok(()),
        act => unreachable!("{act:?} of a damaged file"),
    })
}

#[test]
fn sectors_that_cannot_be_read_cost_what_they_held() {
    let (storage, mut writer) = new_log();
    append(&mut writer, 0..300);
    writer.close().unwrap();
    drop(writer);
    let middle = FILE_HEADER_BYTES + u64::from(SLOT) + 5 * 4096;
    for bad in [0..4096, 4096..8192, middle..middle + 4096, middle..middle + 512] {
        let found = try_salvage(&with_bad_sectors(storage.clone(), bad.clone()), None).unwrap();
        let lost = 300 - found.numbers.len();
        assert!(lost <= 6, "{lost} entries are lost for {bad:?}");
        // A sector holds four or five of them; the file header none.
        assert_eq!(lost == 0, bad.start == 0, "{bad:?}");
        assert_eq!(found.is_certain(), lost == 0);
    }
}

/// Where the blocks of the segment in slot 1 start, as far as they can be read, and what comes then.
fn scan(view: &LogView) -> (Vec<u32>, Option<LogError>) {
    let (mut scan, mut starts) = (view.scan(1, None).unwrap(), Vec::new());
    loop {
        match scan.next_block() {
            Ok(Some(block)) => starts.push(block.position.offset),
            Ok(None) => return (starts, None),
            Err(error) => return (starts, Some(error)),
        }
    }
}

#[test]
fn what_stands_before_a_bad_sector_is_scanned() {
    let (storage, mut writer) = new_log();
    append(&mut writer, 0..300);
    let (all, end) = scan(&writer.log().view());
    assert!(end.is_none() && 50 < all.len(), "{all:?}");
    // With it, opening reads nothing of that segment.
    let checkpoint = writer.checkpoint().unwrap();
    writer.close().unwrap();
    drop(writer);
    let bad_from = 5 * 4096;
    let start = slot_start(1, SLOT) + bad_from;
    let bad = with_bad_sectors(storage, start..start + 4096);
    let options = LogOptions { read_mode: ReadMode::Pread, ..options() };
    let file = OpenFile::open(Arc::new(bad), Path::new(PATH), Access::ReadOnly, options).unwrap();
    let (found, end) = scan(&file.recover(Some(&checkpoint)).unwrap().log.view());
    assert!(matches!(end, Some(LogError::Io { .. })), "{end:?}");
    // The block that reaches into the sector is the first that is missing.
    let whole = all.windows(2).filter(|pair| u64::from(pair[1]) <= bad_from).count();
    assert_eq!(found, all[..whole]);
}
