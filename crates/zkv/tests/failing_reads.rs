//! Reads that fail for want of memory, of a store that is whole: whoever looks for damage finds none.

mod common;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use zkv::{ErrorKind, Options, Severity, VerifyReport};
use zkv_io::{MemoryStorage, OpenMode, Storage};

use common::faulty::{Act, FaultyStorage, INDEX, PATH, noise, options};

const SLOT: u32 = 256 << 10;
const OTHER: &str = "dir/other.zkv";
const KEYS: u64 = 1202;

/// A closed store of some segments, with blocks that need a dictionary, a value in pieces, and a collection.
fn filled() -> MemoryStorage {
    let memory = MemoryStorage::new();
    let store = options(&memory).slot_bytes(SLOT).open(PATH).unwrap();
    for number in 0..600_u64 {
        store.set_bytes(&number.to_be_bytes(), &noise(number, 400)).unwrap();
    }
    store.collection::<u64, String>("named").unwrap().set(&1, &"one".to_owned()).unwrap();
    for number in 600..1200_u64 {
        let text = format!("the user {number} has so many friends: {}, ", number * 7919).repeat(9);
        store.set_bytes(&number.to_be_bytes(), text.as_bytes()).unwrap();
    }
    store.set_bytes(b"in pieces", &noise(1, 1 << 21)).unwrap();
    store.close().unwrap();
    memory
}

/// Which reads of a file fail: one that comes after so many others, and from then on each that wants the byte in its
/// middle.
#[derive(Default)]
enum Fault {
    #[default]
    None,
    After(u32),
    At(u64),
}

impl Fault {
    fn hits(&mut self, offset: u64, bytes: usize) -> bool {
        let end = offset + bytes as u64;
        match self {
            Self::After(0) => *self = Self::At(u64::midpoint(offset, end)),
            Self::After(left) => *left -= 1,
            Self::None | Self::At(_) => {}
        }
        matches!(self, Self::At(byte) if (offset..end).contains(byte))
    }
}

/// A disk on which reads of the file at one path fail.
struct Disk {
    storage: FaultyStorage,
    fault: Arc<Mutex<Fault>>,
}

impl Disk {
    fn new(memory: &MemoryStorage, failing: &'static str) -> Self {
        let fault: Arc<Mutex<Fault>> = Arc::default();
        let hits = Arc::clone(&fault);
        let storage = FaultyStorage::new(memory, move |act, path| match act {
            Act::Read { offset, bytes } if bytes > 0 && path == Path::new(failing) => {
                match hits.lock().unwrap().hits(offset, bytes) {
                    true => Err(io::ErrorKind::OutOfMemory.into()),
                    false => Ok(()),
                }
            }
            _ => Ok(()),
        });
        Self { storage, fault }
    }

    fn options(&self) -> Options {
        self.storage.options().slot_bytes(SLOT)
    }

    /// Lets each read fail in turn that `act` does, and shows `check` which one it was and what came of it.
    fn fail_each<T>(
        &self,
        act: impl Fn() -> zkv::Result<T>,
        check: impl Fn(u32, zkv::Result<T>),
    ) -> u32 {
        let mut number = 0;
        loop {
            *self.fault.lock().unwrap() = Fault::After(number);
            let done = act();
            match std::mem::take(&mut *self.fault.lock().unwrap()) {
                Fault::At(_) => check(number, done),
                _ => return number,
            }
            number += 1;
        }
    }
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(number: u32, done: zkv::Result<T>) {
    let error = done.expect_err(&format!("read {number}"));
    assert_eq!(error.kind(), ErrorKind::Io, "read {number}: {error}");
}

/// A verification without the index is one all the same.
#[track_caller]
fn assert_nothing_found(number: u32, done: zkv::Result<VerifyReport>) {
    match done {
        Ok(report) => {
            assert!(report.is_sound(), "read {number}: {:?}", report.findings);
            assert_eq!(report.worst, Some(Severity::Notice), "read {number}: not told");
        }
        failed => assert_refused(number, failed),
    }
}

#[test]
fn a_verification_of_which_a_read_had_no_memory_finds_no_damage() {
    let memory = filled();
    let verify = |disk: &Disk| zkv::verify(PATH, disk.options(), |_| {});
    let disk = Disk::new(&memory, PATH);
    assert!(disk.fail_each(|| verify(&disk), assert_refused) > 5);
    let disk = Disk::new(&memory, INDEX);
    assert!(disk.fail_each(|| verify(&disk), assert_nothing_found) > 5);
}

#[test]
fn a_verification_of_an_open_store_of_which_a_read_had_no_memory_finds_no_damage() {
    let memory = filled();
    for (path, check) in [
        (PATH, assert_refused as fn(u32, zkv::Result<VerifyReport>)),
        (INDEX, assert_nothing_found),
    ] {
        let disk = Disk::new(&memory, path);
        for open in [Options::open, Options::open_read_only] {
            let store = open(disk.options(), PATH).unwrap();
            assert!(disk.fail_each(|| store.verify(|_| {}), check) > 2);
            store.close().unwrap();
        }
    }
}

#[test]
fn a_salvage_of_which_a_read_had_no_memory_brings_nothing_and_the_next_one_all() {
    let memory = filled();
    for path in [PATH, INDEX] {
        let disk = Disk::new(&memory, path);
        let salvage = || zkv::salvage(PATH, OTHER, disk.options(), |_| {});
        let reads = disk.fail_each(salvage, |number, done| {
            assert_refused(number, done);
            for path in [OTHER, "dir/other.zkv.idx"] {
                assert!(memory.open(Path::new(path), OpenMode::ReadOnly).is_err());
            }
        });
        assert!(reads > 3, "{reads}");
        let store = disk.options().open(OTHER).unwrap();
        assert_eq!(store.len() + 1, KEYS);
        store.close().unwrap();
        memory.remove(Path::new(OTHER)).unwrap();
        memory.remove(Path::new("dir/other.zkv.idx")).unwrap();
    }
}
