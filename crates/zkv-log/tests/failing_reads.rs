//! Reads that fail while a log is open: for once, some times, or for ever.

mod common;

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};

use zkv_io::{MemoryStorage, ReadMode, Storage};
use zkv_log::layout::slot_start;
use zkv_log::{
    Access, EntryAddress, LogError, LogFinding, LogOptions, LogView, LogVisitor, OpenFile, Salvage,
    Salvaged, VerifiedEntry, create,
};
use zkv_sim::{Act, Watched};

use common::PATH;

const SLOT: u32 = 256 << 10;

/// Which reads of the file fail, with what, and how many have.
#[derive(Default)]
struct Faults {
    error: Option<io::ErrorKind>,
    /// So many more do, wherever they are.
    left: u32,
    /// Those that touch one of these bytes do.
    bad: Vec<Range<u64>>,
    failed: u32,
}

/// A log whose blocks need a dictionary, where the entries of its first segment are, and what it was closed with.
struct Filled {
    storage: MemoryStorage,
    checkpoint: Vec<u8>,
    entries: Vec<(EntryAddress, Vec<u8>)>,
}

fn options() -> LogOptions {
    LogOptions { slot_bytes: SLOT, ..LogOptions::default() }
}

fn filled() -> Filled {
    let storage = MemoryStorage::new();
    create(&storage, Path::new(PATH), &options()).unwrap();
    let file =
        OpenFile::open(Arc::new(storage.clone()), Path::new(PATH), Access::ReadWrite, options());
    let mut writer = file.unwrap().recover(None).unwrap().writer.unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    let words: Vec<String> =
        (0..500).map(|_| (0..random.usize(3..9)).map(|_| random.lowercase()).collect()).collect();
    let mut sentence = || (0..20).flat_map(|_| [&*words[random.usize(..500)], " "]).collect();
    let sentences: Vec<String> = (0..20_000).map(|_| sentence()).collect();
    let slices: Vec<&[u8]> = sentences.iter().map(String::as_bytes).collect();
    let addresses = writer.append(&slices).unwrap();
    let sentences = sentences.iter().map(|sentence| sentence.clone().into_bytes());
    let mut entries: Vec<_> = addresses.into_iter().zip(sentences).collect();
    entries.retain(|(address, _)| address.slot == 0);
    assert!(entries.len() > 500 && writer.log().view().segments().len() > 2);
    assert!(writer.log().view().dictionary_count().unwrap() > 0);
    let checkpoint = writer.checkpoint().unwrap();
    Filled { storage, checkpoint, entries }
}

impl Filled {
    fn watched(&self, faults: &Arc<Mutex<Faults>>) -> Watched {
        let faults = Arc::clone(faults);
        Watched::new(Arc::new(self.storage.clone()), move |act, _| {
            let mut faults = faults.lock().unwrap();
            let (Act::Read { offset, bytes }, Some(error)) = (act, faults.error) else {
                return Ok(());
            };
            let end = offset + bytes as u64;
            let is_bad = faults.bad.iter().any(|bad| bad.start < end && offset < bad.end);
            if faults.left == 0 && !is_bad {
                return Ok(());
            }
            faults.left = faults.left.saturating_sub(1);
            faults.failed += 1;
            Err(error.into())
        })
    }

    fn open(&self, mode: ReadMode, faults: &Arc<Mutex<Faults>>) -> LogView {
        let storage = self.watched(faults);
        let storage = mode.storage(&(Arc::new(storage) as Arc<dyn Storage>));
        let file = OpenFile::open(storage, Path::new(PATH), Access::ReadOnly, options()).unwrap();
        file.recover(Some(&self.checkpoint)).unwrap().log.view()
    }

    /// Reads some of the entries, and says of each whether that failed.
    fn read<'a>(&'a self, view: &'a LogView) -> impl Iterator<Item = Result<(), LogError>> + 'a {
        self.entries.iter().step_by(37).map(|(address, entry)| {
            view.read(*address).map(|found| assert!(found == *entry, "a wrong entry"))
        })
    }
}

#[test]
fn reads_that_fail_for_once_cost_nothing_later() {
    let filled = filled();
    for mode in [ReadMode::Map, ReadMode::Pread] {
        // A bad sector's error, as of a disk that was away for a moment, and one that says nothing of the disk.
        for error in [io::ErrorKind::Other, io::ErrorKind::OutOfMemory] {
            for left in 1..12 {
                let faults = Arc::default();
                let view = filled.open(mode, &faults);
                *faults.lock().unwrap() = Faults { error: Some(error), left, ..Faults::default() };
                for read in filled.read(&view) {
                    if let Err(told) = read {
                        assert!(
                            matches!(told, LogError::Io { .. }),
                            "{mode:?}, {error}, {left}: {told}"
                        );
                    }
                }
                assert_eq!(faults.lock().unwrap().left, 0);
                let failed = filled.read(&view).filter(Result::is_err).count();
                assert_eq!(failed, 0, "{mode:?}, {error}, {left}");
                assert!(view.dictionary_count().unwrap() > 0);
            }
        }
    }
}

#[test]
fn what_the_disk_cannot_read_is_looked_for_in_one_place_at_a_time_and_found_once_it_can() {
    let filled = filled();
    let (start, seal) = (slot_start(0, SLOT), slot_start(1, SLOT) - 100);
    // The dictionary stands in front.
    let bad = vec![start..start + 10_000, seal..seal + 1];
    let faults: Arc<Mutex<Faults>> = Arc::default();
    let view = filled.open(ReadMode::Map, &faults);
    *faults.lock().unwrap() =
        Faults { error: Some(io::ErrorKind::Other), bad, ..Faults::default() };
    let first = filled.read(&view).next().unwrap().unwrap_err();
    assert!(matches!(first, LogError::Io { .. }), "{first}");
    faults.lock().unwrap().failed = 0;
    for _ in filled.read(&view) {
        let failed = std::mem::take(&mut faults.lock().unwrap().failed);
        assert!(failed <= 2, "{failed} for one entry");
    }
    *faults.lock().unwrap() = Faults::default();
    assert!(filled.read(&view).all(|read| read.is_ok()));
}

/// Counts what a verification tells of.
#[derive(Default)]
struct Findings(usize);

impl LogVisitor for Findings {
    fn finding(&mut self, _: LogFinding) {
        self.0 += 1;
    }
    fn entry(&mut self, _: &VerifiedEntry<'_>) {}
    fn done(&mut self, _: u64) {}
}

#[test]
fn a_verification_fails_where_a_page_cannot_be_read_for_want_of_memory_and_finds_nothing() {
    let filled = filled();
    let faults: Arc<Mutex<Faults>> = Arc::default();
    let view = filled.open(ReadMode::Pread, &faults);
    let verifier = view.verifier(Some(&filled.checkpoint), false);
    let page = slot_start(1, SLOT) + 40_000;
    let bad = std::iter::once(page..page + 1).collect();
    let kind = io::ErrorKind::OutOfMemory;
    *faults.lock().unwrap() = Faults { error: Some(kind), bad, ..Faults::default() };
    let mut findings = Findings::default();
    let error = verifier.run(&mut findings).unwrap_err();
    assert!(matches!(&error, LogError::Io { cause, .. } if cause.kind() == kind), "{error}");
    *faults.lock().unwrap() = Faults::default();
    assert!(verifier.run(&mut findings).is_err(), "nobody knows what it was told before");
    view.verifier(Some(&filled.checkpoint), false).run(&mut findings).unwrap();
    assert_eq!(findings.0, 0);
}

#[test]
fn a_salvage_of_which_a_read_had_no_memory_fails_from_then_on() {
    let filled = filled();
    let faults: Arc<Mutex<Faults>> = Arc::default();
    let storage = filled.watched(&faults);
    let begin = || Salvage::open(&storage, Path::new(PATH), None, &mut |_, _| {});
    let fail = |left| {
        let error = Some(io::ErrorKind::OutOfMemory);
        *faults.lock().unwrap() = Faults { error, left, ..Faults::default() };
    };
    fail(1);
    assert!(matches!(begin(), Err(LogError::Io { .. })));
    let mut salvage = begin().unwrap();
    let mut newest = None;
    while newest.is_none() {
        if let Salvaged::Block(block) = salvage.next_older().unwrap().unwrap() {
            newest = Some(block.address);
        }
    }
    let address = newest.unwrap();
    assert!(salvage.read(address).unwrap().is_some());
    fail(1);
    assert!(matches!(salvage.read(address), Err(LogError::Io { .. })));
    assert!(matches!(salvage.next_older(), Err(LogError::Io { .. })));
    assert!(matches!(salvage.read(address), Err(LogError::Io { .. })));
    let mut anew = begin().unwrap();
    while let Some(found) = anew.next_older().unwrap() {
        assert!(!matches!(
            found,
            Salvaged::Lost(_) | Salvaged::MissingSegments(_) | Salvaged::Doubt
        ));
    }
}
