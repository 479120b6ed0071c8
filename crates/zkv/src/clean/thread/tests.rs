//! What the thread cleans, and when.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use zkv_index::Thresholds;
use zkv_io::{MemoryStorage, Storage, TEMPORARY_SUFFIX};
use zkv_sim::{Act, Watched};

use super::super::tests::in_time;
use super::*;
use crate::options::{Durability, Options};

const SLOT: u64 = 256 << 10;

/// Who asked for it was told that the store was closed, and it was not.
#[test]
fn a_close_that_fails_cuts_no_cleaning_short() {
    let is_held = Arc::new(AtomicBool::new(false));
    let (has_begun, begun) = channel();
    let (go_on, may_go_on) = channel();
    let (of_disk, may_go_on) = (Arc::clone(&is_held), Mutex::new(may_go_on));
    let storage = Watched::new(Arc::new(MemoryStorage::new()), move |act, _| {
        if act == Act::Write && of_disk.swap(false, Ordering::SeqCst) {
            has_begun.send(()).unwrap();
            may_go_on.lock().unwrap().recv().unwrap();
        }
        Ok(())
    });
    let options = Options::new().storage(Arc::new(storage)).slot_bytes(256 << 10);
    let options = options.memory_buffer_bytes(64 << 10);
    let store = options.cleaning(Cleaning::Off).open("store.zkv").unwrap();
    for number in 0..100u64 {
        let mut noise = vec![0; 40_000];
        fastrand::Rng::with_seed(number).fill(&mut noise);
        store.set_bytes(&(number % 10).to_be_bytes(), &noise).unwrap();
    }
    store.flush().unwrap();
    let cleaner = &store.shared().cleaner;
    is_held.store(true, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let cleaning = scope.spawn(|| store.clean());
        begun.recv().unwrap();
        // As whoever closes the store has it while it stops the cleaning thread.
        let closing = cleaner.begin_closing();
        cleaner.state().is_ending = true;
        go_on.send(()).unwrap();
        // Once whoever cleans has left the rest to the one who closes.
        drop(cleaner.take_turn());
        cleaner.state().is_ending = false;
        drop(closing);
        cleaning.join().unwrap().unwrap();
    });
    assert_eq!(store.len(), 10);
    assert_eq!(store.verify(|_| {}).unwrap().findings, []);
}

#[test]
fn nobody_waits_for_segments_that_cannot_be_cleaned() {
    let options = Options::new().storage(Arc::new(MemoryStorage::new())).slot_bytes(256 << 10);
    let store = options.memory_buffer_bytes(64 << 10).open("store.zkv").unwrap();
    let shared = store.shared();
    let _turn = shared.cleaner.take_turn();
    shared.cleaner.state().damaged.extend(0..1000);
    for number in 0..200u64 {
        let mut noise = vec![0; 40_000];
        fastrand::fill(&mut noise);
        store.set_bytes(&(number % 10).to_be_bytes(), &noise).unwrap();
    }
    store.flush().unwrap();
    let is_behind = || {
        shared.survey(&shared.writer().unwrap());
        shared.cleaner.is_behind.load(Ordering::Relaxed)
    };
    assert!(!is_behind());
    shared.cleaner.state().damaged.clear();
    assert!(is_behind());
}

/// As a `clean()` leaves the store that has failed: whoever writes waited for a thread that slept.
#[test]
fn nobody_waits_for_a_thread_that_has_nothing_to_do() {
    let options = Options::new().storage(Arc::new(MemoryStorage::new())).slot_bytes(256 << 10);
    let store = options.durability(Durability::Flushed).open("store.zkv").unwrap();
    store.set_bytes(b"first", b"1").unwrap();
    let cleaner = &store.shared().cleaner;
    let is_asleep = || {
        let state = cleaner.state();
        state.first_share == FirstShare::Done && !state.has_news
    };
    while !is_asleep() {
        std::thread::yield_now();
    }
    cleaner.is_behind.store(true, Ordering::Relaxed);
    let shared = Arc::clone(store.shared());
    in_time(move || shared.cleaner.wait_while_behind(Duration::from_secs(3600)));
    assert!(!cleaner.is_behind.load(Ordering::Relaxed));
}

#[test]
fn what_is_packed_waits_for_the_end_of_a_segment_while_others_write() {
    let options = Options::new().storage(Arc::new(MemoryStorage::new())).slot_bytes(256 << 10);
    let store = options.cleaning(Cleaning::Off).open("store.zkv").unwrap();
    let shared = store.shared();
    let mut budget = Budget::new(25, 50);
    // Too little to fill a segment, or nobody writes.
    budget.wait_for_segment(shared, SLOT / 4).unwrap();
    budget.wait_for_segment(shared, SLOT).unwrap();
    let mut bytes_meanwhile = || {
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| budget.wait_for_segment(shared, SLOT).unwrap());
            let mut commits = 0;
            while !waiting.is_finished() {
                let mut noise = vec![0; 4_000];
                fastrand::fill(&mut noise);
                store.set_bytes(&fastrand::u64(..).to_be_bytes(), &noise).unwrap();
                store.flush().unwrap();
                commits += 1;
            }
            commits * 4_000
        })
    };
    // A machine that is busy may keep the writer from writing for so long that it seems to be idle.
    assert!((0..10).any(|_| bytes_meanwhile() >= SLOT / 2));
}

/// Where it did, who begins to write would wait for the whole file.
#[test]
fn the_thread_does_not_write_a_large_index_file_itself_where_nobody_writes() {
    let writers = Arc::new(Mutex::new(Vec::new()));
    let of_disk = Arc::clone(&writers);
    let storage = Watched::new(Arc::new(MemoryStorage::new()), move |act, path| {
        if act == Act::Write && path.to_string_lossy().ends_with(TEMPORARY_SUFFIX) {
            of_disk.lock().unwrap().push(std::thread::current().name().map(str::to_owned));
        }
        Ok(())
    });
    let thresholds =
        Thresholds { base_bytes_least: 0, besides_base_eighths_max: 0, aside_bytes_least: 0 };
    let options = Options::new().storage(Arc::new(storage)).slot_bytes(256 << 10);
    let options = options.index_thresholds(thresholds).cleaning(Cleaning::Off);
    let store = options.open("store.zkv").unwrap();
    for number in 0..40u64 {
        let mut noise = vec![0; 20_000];
        fastrand::Rng::with_seed(number).fill(&mut noise);
        store.set_bytes(&number.to_be_bytes(), &noise).unwrap();
    }
    store.flush().unwrap();
    let shared = store.shared();
    shared.checkpoint(&mut shared.writer().unwrap()).unwrap();
    let mut full = shared.view.load().committed.log.segments();
    full.retain(|segment| segment.is_sealed);
    shared.move_all(full).unwrap();
    assert!(!shared.writer().unwrap().cleaned.is_empty());
    writers.lock().unwrap().clear();
    let mut budget = Budget::new(25, 50);
    budget.look(&shared.cleaner);
    // As if nobody had written for so long.
    budget.changed_at -= IDLE;
    let victims = shared.next_victims(25, &mut Asker::Thread(&mut budget, None)).unwrap();
    assert!(victims.is_empty());
    shared.join_rewriting();
    assert!(shared.writer().unwrap().cleaned.is_empty());
    let writers = writers.lock().unwrap();
    assert!(!writers.is_empty());
    assert!(writers.iter().all(|name| name.as_deref() == Some("zkv-index")), "{writers:?}");
}

/// Whether a portion is packed while a write waits for the thread, which first frees what was cleaned, on a disk that
/// refuses so many writes of the index file.
fn is_packed_beside_refusals(refusals: usize) -> bool {
    let left = Arc::new(AtomicUsize::new(0));
    let of_disk = Arc::clone(&left);
    let storage = Watched::new(Arc::new(MemoryStorage::new()), move |act, path| {
        let is_index = act == Act::Write && path.to_string_lossy().contains(".idx");
        let fewer = |left: usize| left.checked_sub(1);
        let is_refused =
            is_index && of_disk.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer).is_ok();
        if is_refused { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
    });
    let storage: Arc<dyn Storage> = Arc::new(storage);
    let options = || Options::new().storage(Arc::clone(&storage)).slot_bytes(256 << 10);
    let store = options().cleaning(Cleaning::Off).open("store.zkv").unwrap();
    for number in 0..500u64 {
        let mut noise = vec![0; 30_000];
        fastrand::Rng::with_seed(number).fill(&mut noise);
        store.set_bytes(&(number % 100).to_be_bytes(), &noise).unwrap();
    }
    store.close().unwrap();
    let store = options().flush_interval(Duration::from_secs(3600)).open("store.zkv").unwrap();
    let shared = Arc::clone(store.shared());
    let mut full = shared.view.load().committed.log.segments();
    full.truncate(3);
    shared.move_all(full).unwrap();
    shared.survey(&shared.writer().unwrap());
    assert!(shared.cleaner.is_behind.load(Ordering::Relaxed));
    left.store(refusals, Ordering::SeqCst);
    let turn = shared.cleaner.take_turn();
    // The thread is there from the first write on, and waits for the turn.
    store.set_bytes(b"news", b"").unwrap();
    while !shared.cleaner.state().is_running {
        std::thread::yield_now();
    }
    let of_write = Arc::clone(&shared);
    let write =
        std::thread::spawn(move || of_write.cleaner.wait_while_behind(Duration::from_secs(3600)));
    while shared.cleaner.state().waiting == 0 {
        std::thread::yield_now();
    }
    drop(turn);
    let is_packed = in_time(move || write.join().unwrap());
    left.store(0, Ordering::SeqCst);
    is_packed
}

/// Whoever wrote went on at once, and nothing was cleaned for a second: a file grew by ten times what was live.
#[test]
fn a_write_waits_while_the_thread_tries_again_what_has_failed_for_a_moment() {
    assert!(is_packed_beside_refusals(2));
}

#[test]
fn nobody_waits_for_a_thread_that_fails_again_and_again() {
    assert!(!is_packed_beside_refusals(usize::MAX));
}

/// Beside writers the thread may never be done between two of them: it counted all that there ever were.
#[test]
fn a_failure_is_the_first_one_again_once_a_segment_was_cleaned() {
    let mut failures = Failures::default();
    assert_eq!([0, 0, 1, 1, 1, 4].map(|cleaned| failures.note(cleaned)), [1, 2, 1, 2, 3, 1]);
}

#[test]
fn what_fails_again_and_again_is_tried_ever_more_seldom() {
    let pauses = [1, 2, 3, 4, 5, 6, 7, 40, u32::MAX].map(|count| pause_behind(count).as_millis());
    assert_eq!(pauses, [50, 100, 200, 400, 800, 1000, 1000, 1000, 1000]);
}
