//! A disk that cannot read all of its sectors.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zkv_io::{FileMap, LockKind, MemoryStorage, OpenMode, ReadMode, Storage, StorageFile};
use zkv_log::layout::{FILE_HEADER_BYTES, slot_start};
use zkv_log::{Access, LogError, LogOptions, LogView, OpenFile};

use crate::common::{PATH, SLOT, new_log, options};
use crate::{append, try_salvage};

/// A disk with bad sectors, which must not be mapped or written.
#[derive(Debug)]
struct BadSectors {
    memory: MemoryStorage,
    bad: Vec<Range<u64>>,
}

#[derive(Debug)]
struct BadFile {
    file: Arc<dyn StorageFile>,
    bad: Vec<Range<u64>>,
}

impl Storage for BadSectors {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        assert_eq!(mode, OpenMode::ReadOnly);
        Ok(Arc::new(BadFile { file: self.memory.open(path, mode)?, bad: self.bad.clone() }))
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        unreachable!("nothing is renamed")
    }

    fn rename_new(&self, _: &Path, _: &Path) -> io::Result<()> {
        unreachable!("nothing is renamed")
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        unreachable!("nothing is removed")
    }

    fn list(&self, _: &Path) -> io::Result<Vec<PathBuf>> {
        unreachable!("nothing is listed")
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        unreachable!("nothing is synced")
    }

    fn random(&self, _: &mut [u8]) -> io::Result<()> {
        unreachable!("nothing is drawn")
    }
}

impl StorageFile for BadFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let end = offset + into.len() as u64;
        if self.bad.iter().any(|bad| offset < bad.end && bad.start < end) {
            return Err(io::Error::other("input/output error"));
        }
        self.file.read_at(offset, into)
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        unreachable!("nothing is written")
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        unreachable!("nothing is cut")
    }

    fn sync_data(&self) -> io::Result<()> {
        unreachable!("nothing is synced")
    }

    fn sync_all(&self) -> io::Result<()> {
        unreachable!("nothing is synced")
    }

    fn try_lock(&self, kind: LockKind) -> io::Result<bool> {
        self.file.try_lock(kind)
    }

    fn map(&self) -> io::Result<Arc<dyn FileMap>> {
        unreachable!("nothing is mapped")
    }
}

#[test]
fn sectors_that_cannot_be_read_cost_what_they_held() {
    let (storage, mut writer) = new_log();
    append(&mut writer, 0..300);
    writer.close().unwrap();
    drop(writer);
    let middle = FILE_HEADER_BYTES + u64::from(SLOT) + 5 * 4096;
    for bad in [0..4096, 4096..8192, middle..middle + 4096, middle..middle + 512] {
        let bad = BadSectors { memory: storage.clone(), bad: vec![bad] };
        let found = try_salvage(&bad, None).unwrap();
        let lost = 300 - found.numbers.len();
        assert!(lost <= 6, "{lost} entries are lost for {:?}", bad.bad);
        // A sector holds four or five of them; the file header none.
        assert_eq!(lost == 0, bad.bad[0].start == 0, "{:?}", bad.bad);
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
    let bad = BadSectors { memory: storage, bad: std::iter::once(start..start + 4096).collect() };
    let options = LogOptions { read_mode: ReadMode::Pread, ..options() };
    let file = OpenFile::open(Arc::new(bad), Path::new(PATH), Access::ReadOnly, options).unwrap();
    let (found, end) = scan(&file.recover(Some(&checkpoint)).unwrap().log.view());
    assert!(matches!(end, Some(LogError::Io { .. })), "{end:?}");
    // The block that reaches into the sector is the first that is missing.
    let whole = all.windows(2).filter(|pair| u64::from(pair[1]) <= bad_from).count();
    assert_eq!(found, all[..whole]);
}
