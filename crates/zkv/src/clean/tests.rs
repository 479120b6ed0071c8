//! Who waits for the cleaning, and for how long.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use super::{Cleaner, WRITE_WAIT_MAX};
use crate::sync::atomic::Ordering;

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
fn nobody_waits_for_a_thread_that_a_compaction_keeps_away() {
    let cleaner = Arc::new(behind());
    let _compacting = cleaner.begin_compaction();
    let of_write = Arc::clone(&cleaner);
    in_time(move || of_write.wait_while_behind(Duration::from_secs(3600)));
}
