//! Who waits for the cleaning, and for how long.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use zkv_io::MemoryStorage;

use super::{Cleaner, WRITE_WAIT_MAX};
use crate::options::{Cleaning, Options};
use crate::sync::atomic::{AtomicU64, Ordering};

/// What `call` returns; where it hangs, the test fails.
pub(super) fn in_time<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, outcome) = channel();
    std::thread::spawn(move || done.send(call()));
    outcome.recv_timeout(Duration::from_secs(60)).expect("it hangs")
}

/// One that others write faster than.
fn behind() -> Cleaner {
    let cleaner = Cleaner::default();
    cleaner.state().is_running = true;
    cleaner.is_behind.store(true, Ordering::Relaxed);
    cleaner
}

#[test]
fn a_write_waits_for_one_portion_however_many_did_not_have_to_wait() {
    let cleaner = behind();
    cleaner.state().is_waiting = true;
    for _ in 0..50 {
        cleaner.wait_while_behind(WRITE_WAIT_MAX);
    }
    cleaner.state().is_waiting = false;
    let (done, outcome) = channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            cleaner.wait_while_behind(Duration::from_secs(3600));
            done.send(()).unwrap();
        });
        while cleaner.state().waiting == 0 {
            std::thread::yield_now();
        }
        let early = outcome.recv_timeout(Duration::from_millis(20));
        assert_eq!(early, Err(RecvTimeoutError::Timeout));
        cleaner.note_packed();
        outcome.recv().unwrap();
    });
    assert_eq!(cleaner.state().waiting, 0);
}

/// Who wrote behind what had not woken the thread yet did not wait, and behind a batch of half the file wrote another.
#[test]
fn a_thread_that_waits_for_a_write_is_waited_for_as_soon_as_there_is_one() {
    let cleaner = behind();
    let mut state = cleaner.state();
    state.is_waiting = true;
    assert!(!cleaner.is_waited_for(&state));
    state.has_news = true;
    assert!(cleaner.is_waited_for(&state));
    state.has_failed = true;
    assert!(!cleaner.is_waited_for(&state));
}

#[test]
fn whoever_waits_goes_on_where_the_store_is_no_longer_behind() {
    let cleaner = Arc::new(behind());
    let of_write = Arc::clone(&cleaner);
    let write = std::thread::spawn(move || of_write.wait_while_behind(Duration::from_secs(3600)));
    while cleaner.state().waiting == 0 {
        std::thread::yield_now();
    }
    cleaner.set_behind(false);
    assert!(!in_time(move || write.join().unwrap()));
}

#[test]
fn who_commits_for_others_waits_for_those_who_join_meanwhile() {
    const BUFFER: usize = 64 << 10;
    let options =
        Options::new().storage(Arc::new(MemoryStorage::new())).memory_buffer_bytes(BUFFER);
    let store = options.cleaning(Cleaning::Off).open("store.zkv").unwrap();
    let shared = Arc::clone(store.shared());
    shared.cleaner.state().is_running = true;
    shared.cleaner.set_behind(true);
    let asked = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let write = scope.spawn(|| {
            shared.wait_to_commit(|| match asked.fetch_add(1, Ordering::Relaxed) {
                0 => 1,
                _ => 5 * BUFFER as u64,
            });
        });
        while !write.is_finished() {
            shared.cleaner.note_packed();
            std::thread::yield_now();
        }
    });
    // Nothing is left to ask behind the fifth.
    assert_eq!(asked.into_inner(), 6);
    shared.cleaner.state().is_running = false;
}

#[test]
fn nobody_waits_for_a_thread_that_has_panicked() {
    let cleaner = behind();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let _running = cleaner.begin_running();
            assert!(cleaner.is_waited_for(&cleaner.state()));
            panic!("as a bug would");
        });
        thread.join().unwrap_err();
    });
    in_time(move || cleaner.wait_while_behind(Duration::from_secs(3600)));
}

#[test]
fn a_write_waits_for_a_portion_of_a_compaction_only_while_that_moves_records() {
    let cleaner = Arc::new(behind());
    let _compacting = cleaner.begin_compaction();
    let moving = cleaner.begin_moving();
    assert!(cleaner.is_waited_for(&cleaner.state()));
    drop(moving);
    assert!(!cleaner.is_waited_for(&cleaner.state()));
    // However long one portion takes.
    let _moving = cleaner.begin_moving();
    let of_write = Arc::clone(&cleaner);
    assert!(!in_time(move || of_write.wait_while_behind(Duration::from_secs(3600))));
}

#[test]
fn nobody_waits_for_a_thread_that_a_compaction_keeps_away() {
    let cleaner = Arc::new(behind());
    let _compacting = cleaner.begin_compaction();
    let of_write = Arc::clone(&cleaner);
    in_time(move || of_write.wait_while_behind(Duration::from_secs(3600)));
}

/// It stayed until somebody wrote, where it was no more than is kept to be used again: nobody looked.
#[test]
fn what_is_held_at_the_end_is_looked_at_again_however_little_it_is() {
    let options = Options::new().storage(Arc::new(MemoryStorage::new())).slot_bytes(256 << 10);
    let store = options.cleaning(Cleaning::Off).open("store.zkv").unwrap();
    let write_all = |round: u64| {
        for number in 0..20u64 {
            let mut noise = vec![0; 30_000];
            fastrand::Rng::with_seed(round * 20 + number).fill(&mut noise);
            store.set_bytes(&number.to_be_bytes(), &noise).unwrap();
        }
        store.flush().unwrap();
    };
    (0..4).for_each(write_all);
    // To the end, and from there to the front, where the snapshot holds what is left behind.
    let before = store.snapshot();
    store.compact(|_| {}).unwrap();
    drop(before);
    let snapshot = store.snapshot();
    store.compact(|_| {}).unwrap();
    let shared = store.shared();
    let look = || {
        let mut writer = shared.writer().unwrap();
        shared.last_in_the_way(&mut writer, |_| 1000).unwrap();
        let free = writer.log.free_slots();
        (free.held > 0 && free.is_held_behind, shared.cleaner.state().is_unfinished)
    };
    assert_eq!(look(), (true, true));
    drop(snapshot);
    assert_eq!(look(), (false, false));
    assert!(store.stats().unwrap().data_file_bytes < 4 * (256 << 10));
}
