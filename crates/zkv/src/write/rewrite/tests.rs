//! Writing an index file anew, held up, failing, overtaken, and cut short.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use zkv_index::Thresholds;
use zkv_io::{MemoryStorage, Storage, TEMPORARY_SUFFIX};
use zkv_sim::{Act, PowerCut, SimDisk, Watched};

use super::*;
use crate::batch::WriteBatch;
use crate::metadata::counts::KeyCounts;
use crate::options::{Durability, Options};
use crate::store::Store;

const PATH: &str = "dir/store.zkv";

/// Of a store whose index file is always written anew, beside the writer where a test asks for that.
fn options(storage: Arc<dyn Storage>) -> Options {
    let thresholds =
        Thresholds { base_bytes_least: 0, besides_base_eighths_max: 0, aside_bytes_least: 0 };
    let options = Options::new().storage(storage).cleaning(Cleaning::Off);
    options.index_thresholds(thresholds).slot_bytes(256 << 10)
}

fn open(storage: Arc<dyn Storage>) -> Store {
    options(storage).open(PATH).unwrap()
}

fn set(store: &Store, number: u8) {
    store.set_bytes(&[number], &[number; 100]).unwrap();
    store.flush().unwrap();
}

fn begin(store: &Store) -> (Contents, Arc<File>) {
    let mut writer = store.shared().writer().unwrap();
    let contents = writer.begin_rewrite().unwrap().unwrap();
    let file = Arc::clone(&writer.rewrite.as_ref().unwrap().file);
    store.shared().publish_committed(&writer);
    (contents, file)
}

fn checkpoint(store: &Store) {
    store.shared().checkpoint(&mut store.shared().writer().unwrap()).unwrap();
}

fn checkpoint_aside(store: &Store) -> Result<()> {
    store.shared().checkpoint_aside(&mut store.shared().writer().unwrap())
}

/// Moves all that is needed of the oldest segment, and frees nothing.
fn clean_one(store: &Store) {
    let shared = store.shared();
    let mut full = shared.view.load().committed.log.segments();
    let cleaned = shared.writer().unwrap().cleaned.clone();
    full.retain(|segment| segment.is_sealed && !cleaned.contains(&segment.slot));
    full.truncate(1);
    shared.move_all(full).unwrap();
}

fn file_names(storage: &dyn Storage) -> Vec<String> {
    let files = storage.list(Path::new("dir")).unwrap();
    files.iter().map(|file| file.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

fn noise(seed: u64) -> Vec<u8> {
    let mut noise = vec![0; 20_000];
    fastrand::Rng::with_seed(seed).fill(&mut noise);
    noise
}

/// A store of many versions of eight keys, each commit of which says how many there were. A power cut
/// leaves one of those that were begun, and none of those that were acknowledged is missing.
struct Counted {
    store: Store,
    disk: SimDisk,
    /// How many events there were when each commit began, and when it was durable.
    commits: Vec<(usize, usize)>,
}

impl Counted {
    fn new(seed: u64) -> Self {
        let disk = SimDisk::recording(seed);
        Self { store: open(Arc::new(disk.clone())), disk, commits: Vec::new() }
    }

    fn value(count: u8) -> Vec<u8> {
        noise(count.into())
    }

    /// A key that the commit `count` deletes, unless it sets it, too.
    fn deleted(count: u8) -> u8 {
        count.wrapping_mul(5) % 8 + 8
    }

    fn commit(&mut self, times: usize) {
        for _ in 0..times {
            let begun = self.disk.event_count();
            let count = u8::try_from(self.commits.len()).unwrap();
            let mut batch = WriteBatch::new();
            batch.set_bytes(b"count", &[count]);
            batch.set_bytes(&[count % 8], &Self::value(count));
            batch.delete_bytes(&[Self::deleted(count)]);
            batch.set_bytes(&[count % 8 + 8], b"short");
            self.store.write_with(batch, Durability::Synced).unwrap();
            self.commits.push((begun, self.disk.event_count()));
        }
    }

    /// How many commits `store` has, all that they left being there.
    fn check(store: &Store) -> usize {
        let Some(last) = store.get_bytes(b"count").unwrap() else { return 0 };
        let mut expected = BTreeMap::new();
        for count in 0..=last[0] {
            expected.insert(count % 8, Self::value(count));
            expected.remove(&Self::deleted(count));
            expected.insert(count % 8 + 8, b"short".to_vec());
        }
        for key in 0..16 {
            assert_eq!(store.get_bytes(&[key]).unwrap().as_ref(), expected.get(&key));
        }
        assert_eq!(store.len(), expected.len() as u64 + 1);
        usize::from(last[0]) + 1
    }

    /// Cuts the power at each moment behind event `first`.
    fn check_cuts(&self, first: usize) {
        let (mut cut, mut random) = (PowerCut::new(), fastrand::Rng::with_seed(1));
        for (number, event) in self.disk.events(0).iter().enumerate() {
            let is_new = cut.follow(event);
            if number < first {
                continue;
            }
            let acknowledged = self.commits.iter().filter(|(_, end)| *end <= number).count();
            let begun = self.commits.iter().filter(|(begun, _)| *begun <= number).count();
            for way in cut.cuts(is_new, 4, &mut random) {
                let image = SimDisk::from_image(&cut.image(&way), 2);
                let found = Self::check(&open(Arc::new(image)));
                assert!((acknowledged..=begun).contains(&found), "{event}, {way:?}");
            }
        }
    }
}

#[test]
fn a_power_cut_beside_a_file_that_is_being_written_loses_nothing() {
    let mut counted = Counted::new(1);
    counted.commit(30);
    clean_one(&counted.store);
    checkpoint(&counted.store);
    counted.commit(20);
    clean_one(&counted.store);
    let first = counted.disk.event_count();
    let (contents, file) = begin(&counted.store);
    counted.commit(12);
    clean_one(&counted.store);
    contents.write(&file);
    counted.commit(12);
    Counted::check(&counted.store);
    let cleaned = counted.store.shared().writer().unwrap().cleaned.len();
    counted.store.shared().take_up(&file);
    // What has been cleaned meanwhile is in the new file still.
    let left = counted.store.shared().writer().unwrap().cleaned.len();
    assert!(0 < left && left < cleaned, "{left} of {cleaned}");
    Counted::check(&counted.store);
    counted.commit(12);
    assert_eq!(counted.store.verify(|_| {}).unwrap().findings, []);
    counted.check_cuts(first);
    let killed = counted.disk.kill();
    assert_eq!(Counted::check(&open(Arc::new(killed))), 86);
}

#[test]
fn what_is_committed_meanwhile_lies_over_the_new_file() {
    let store = open(Arc::new(MemoryStorage::new()));
    (0..50).for_each(|number| set(&store, number));
    checkpoint(&store);
    (50..100).for_each(|number| set(&store, number));
    let before = store.shared().now().committed().checkpoint.as_ref().unwrap().number();
    let (contents, file) = begin(&store);
    for number in 0..150 {
        match number % 3 {
            0 => set(&store, number),
            1 => drop(store.delete_bytes(&[number]).unwrap()),
            _ => continue,
        }
        store.flush().unwrap();
    }
    let check = || {
        for number in 0..150 {
            let is_there = number % 3 == 0 || (number % 3 == 2 && number < 100);
            assert_eq!(store.contains_bytes(&[number]).unwrap(), is_there, "{number}");
        }
    };
    check();
    contents.write(&file);
    store.shared().take_up(&file);
    check();
    {
        let writer = store.shared().writer().unwrap();
        assert_eq!(writer.committed.checkpoint.as_ref().unwrap().number(), before + 1);
        let changes: usize = writer.committed.runs.iter().map(|run| run.len()).sum();
        assert_eq!(changes, 83, "50 that are set, and 33 deletes of what there was");
        assert!(writer.tail.records >= 83 && writer.tail.records <= 100);
    }
    assert_eq!(store.verify(|_| {}).unwrap().findings, []);
    checkpoint(&store);
    check();
}

#[test]
fn commits_do_not_wait_for_the_file_and_closing_does() {
    let memory = MemoryStorage::new();
    let (holds, is_held) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let of_disk = (Arc::clone(&holds), Arc::clone(&is_held));
    let storage = Watched::new(Arc::new(memory.clone()), move |act, path| {
        let is_draft = path.to_string_lossy().ends_with(TEMPORARY_SUFFIX);
        while act == Act::Write && is_draft && of_disk.0.load(Ordering::SeqCst) {
            of_disk.1.store(true, Ordering::SeqCst);
            std::thread::yield_now();
        }
        Ok(())
    });
    let store = open(Arc::new(storage));
    (0..50).for_each(|number| set(&store, number));
    checkpoint(&store);
    (50..100).for_each(|number| set(&store, number));
    holds.store(true, Ordering::SeqCst);
    checkpoint_aside(&store).unwrap();
    while !is_held.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    (100..150).for_each(|number| set(&store, number));
    store.sync().unwrap();
    assert_eq!(store.shared().writer().unwrap().kept_runs(), 1);
    holds.store(false, Ordering::SeqCst);
    store.close().unwrap();
    assert_eq!(file_names(&memory), ["store.zkv", "store.zkv.idx"]);
    let store = open(Arc::new(memory));
    assert_eq!(store.shared().writer().unwrap().tail.records, 0);
    assert_eq!(store.len(), 150);
}

#[test]
fn a_thread_takes_the_file_up_without_being_asked() {
    let memory = MemoryStorage::new();
    let store = open(Arc::new(memory.clone()));
    set(&store, 1);
    checkpoint(&store);
    set(&store, 2);
    checkpoint_aside(&store).unwrap();
    store.shared().join_rewriting();
    let writer = store.shared().writer().unwrap();
    assert_eq!((writer.tail, writer.kept_runs()), (Tail::default(), 0));
    assert!(writer.committed.runs.is_empty());
    assert_eq!(file_names(&memory), ["store.zkv", "store.zkv.idx"]);
}

#[test]
fn an_index_that_is_made_anew_meanwhile_stays() {
    let memory = MemoryStorage::new();
    let store = open(Arc::new(memory.clone()));
    set(&store, 1);
    checkpoint(&store);
    set(&store, 2);
    let (contents, file) = begin(&store);
    set(&store, 3);
    store.rebuild_index().unwrap();
    contents.write(&file);
    store.shared().take_up(&file);
    assert_eq!(file_names(&memory), ["store.zkv", "store.zkv.idx"]);
    assert_eq!(store.shared().writer().unwrap().tail, Tail::default());
    drop(store);
    assert_eq!(open(Arc::new(memory)).len(), 3);
}

#[test]
fn whoever_comes_behind_a_file_that_could_not_be_written_is_told() {
    let memory = MemoryStorage::new();
    let is_full = Arc::new(AtomicBool::new(false));
    let of_disk = Arc::clone(&is_full);
    let storage = Watched::new(Arc::new(memory.clone()), move |act, path| {
        let is_draft = path.to_string_lossy().ends_with(TEMPORARY_SUFFIX);
        let fails = act == Act::Write && is_draft && of_disk.load(Ordering::SeqCst);
        if fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    });
    let store = open(Arc::new(storage));
    set(&store, 1);
    checkpoint(&store);
    set(&store, 2);
    is_full.store(true, Ordering::SeqCst);
    checkpoint_aside(&store).unwrap();
    store.shared().join_rewriting();
    set(&store, 3);
    // It does not go on to fail where nobody sees it.
    assert!(checkpoint_aside(&store).unwrap_err().is_without_room());
    is_full.store(false, Ordering::SeqCst);
    checkpoint_aside(&store).unwrap();
    assert_eq!(store.shared().writer().unwrap().tail, Tail::default());
    set(&store, 4);
    checkpoint_aside(&store).unwrap();
    assert!(store.shared().writer().unwrap().rewrite.is_some());
    drop(store);
    assert_eq!(open(Arc::new(memory)).len(), 4);
}

#[test]
fn a_file_that_a_panic_keeps_from_being_written_is_in_nobodys_way() {
    let panics = Arc::new(AtomicBool::new(false));
    let of_disk = Arc::clone(&panics);
    let storage = Watched::new(Arc::new(MemoryStorage::new()), move |act, path| {
        let is_draft = path.to_string_lossy().ends_with(TEMPORARY_SUFFIX);
        let panics = act == Act::Write && is_draft && of_disk.load(Ordering::SeqCst);
        if panics { panic!("as a user's storage may") } else { Ok(()) }
    });
    let store = open(Arc::new(storage));
    set(&store, 1);
    checkpoint(&store);
    set(&store, 2);
    panics.store(true, Ordering::SeqCst);
    checkpoint_aside(&store).unwrap();
    store.shared().join_rewriting();
    assert!(store.shared().writer().unwrap().rewrite.is_none());
    panics.store(false, Ordering::SeqCst);
    checkpoint_aside(&store).unwrap();
    assert_eq!(store.shared().writer().unwrap().tail, Tail::default());
}

#[test]
fn nothing_is_freed_once_the_store_is_closed() {
    let disk = SimDisk::recording(1);
    // Closing waits for no index that ends with the process.
    let open = || options(Arc::new(disk.clone())).use_index_file(false).open(PATH).unwrap();
    let store = open();
    for number in 0..40u64 {
        store.set_bytes(&number.to_be_bytes(), &noise(number)).unwrap();
    }
    store.flush().unwrap();
    checkpoint(&store);
    clean_one(&store);
    let (contents, file) = begin(&store);
    let shared = Arc::clone(store.shared());
    store.close().unwrap();
    let events = disk.event_count();
    contents.write(&file);
    shared.take_up(&file);
    assert_eq!(disk.event_count(), events);
    drop(shared);
    assert_eq!(open().len(), 40);
}

/// As a panic between the log and the index leaves it.
fn forget_the_last_commit(store: &Store, counts: &Arc<KeyCounts>) {
    let mut writer = store.shared().writer().unwrap();
    writer.committed.runs.remove(0);
    writer.committed.counts = Arc::clone(counts);
    writer.is_applying = true;
}

#[test]
fn a_commit_that_the_index_has_not_learnt_of_is_found_behind_a_file_that_was_begun_before() {
    for is_taken_up in [false, true] {
        let memory = MemoryStorage::new();
        let store = open(Arc::new(memory.clone()));
        set(&store, 1);
        checkpoint(&store);
        set(&store, 2);
        let (contents, file) = begin(&store);
        let counts = Arc::clone(&store.shared().writer().unwrap().committed.counts);
        set(&store, 3);
        forget_the_last_commit(&store, &counts);
        contents.write(&file);
        if is_taken_up {
            store.shared().take_up(&file);
            set(&store, 4);
            assert!((1..5).all(|key| store.contains_bytes(&[key]).unwrap()));
            assert_eq!(store.len(), 4);
        }
        store.close().unwrap();
        let store = open(Arc::new(memory));
        let last = if is_taken_up { 4 } else { 3 };
        assert!((1..=last).all(|key| store.contains_bytes(&[key]).unwrap()));
        assert_eq!(store.len(), u64::from(last));
    }
}
