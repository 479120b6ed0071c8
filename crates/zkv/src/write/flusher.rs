//! The thread that writes what waits in buffers.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::shared::Shared;
use crate::sync::thread::{Builder, JoinHandle};

/// What is overdue waits no longer for the cleaning to catch up.
const CLEANING_WAIT_MAX: Duration = Duration::from_secs(1);

/// Starts the thread. It ends when `Front::is_ending` is set.
pub(crate) fn start(shared: &Arc<Shared>) -> Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    let thread = Builder::new().name("zkv-flush".to_owned());
    thread.spawn(move || run(&shared)).map_err(Error::Thread)
}

/// Asks the thread to end, and waits until it has.
pub(crate) fn stop(shared: &Shared, thread: JoinHandle<()>) {
    shared.front().is_ending = true;
    shared.wake.notify_all();
    // A panic there has left the buffers as they were; the caller flushes them.
    let _ = thread.join();
}

fn run(shared: &Shared) {
    let mut last_failed = false;
    while wait(shared, last_failed) {
        // What cannot be written does not pile up in small buffers.
        if !last_failed || shared.view.load().frozen.is_empty() {
            shared.freeze_overdue();
        }
        last_failed = !flush(shared);
    }
}

/// Waits until something is to be written; `false` where the thread shall end.
fn wait(shared: &Shared, last_failed: bool) -> bool {
    let mut front = shared.front();
    if last_failed && !front.is_ending {
        // Only the interval leads to another attempt, or somebody who makes more to write.
        let interval = shared.options.flush_interval;
        let waited = shared.wake.wait_timeout(front, interval);
        return !waited.unwrap_or_else(PoisonError::into_inner).0.is_ending;
    }
    while !front.is_ending {
        let is_frozen = !shared.view.load().frozen.is_empty();
        let left = if is_frozen { Some(Duration::ZERO) } else { shared.time_left(&front) };
        front = match left {
            Some(Duration::ZERO) => return true,
            Some(left) => {
                let waited = shared.wake.wait_timeout(front, left);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            // The first record that is buffered tells.
            None => shared.wake.wait(front).unwrap_or_else(PoisonError::into_inner),
        };
    }
    false
}

/// Writes the oldest buffer that is frozen. Whether it worked: nobody is told otherwise here. What could
/// not be written stays in memory, and `flush`, `sync`, `close` and writes that find the buffers full
/// try again and report.
fn flush(shared: &Shared) -> bool {
    shared.cleaner.wait_while_behind(CLEANING_WAIT_MAX);
    // Who needs the writer does not wait for what needs none.
    if shared.pack_oldest().is_err() {
        return false;
    }
    let Ok(mut writer) = shared.writer() else { return false };
    shared.flush_oldest(&mut writer).is_ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::options::Options;

    const INTERVAL: Duration = Duration::from_millis(100);

    #[test]
    fn what_is_overdue_is_frozen_behind_what_is_frozen_already() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.zkv");
        let store = Options::new().flush_interval(INTERVAL).open(path).unwrap();
        let shared = store.shared();
        // The thread cannot write meanwhile.
        let writer = shared.writer().unwrap();
        for (key, frozen_count) in [(b"a", 1), (b"b", 2), (b"c", 3)] {
            store.set_bytes(key, b"1").unwrap();
            // As if it had come so long ago, unless the thread was faster.
            shared.front().active_since.iter_mut().for_each(|since| *since -= INTERVAL);
            shared.freeze_overdue();
            assert_eq!(shared.view.load().frozen.len(), frozen_count);
        }
        shared.front().active_since = None;
        shared.freeze_overdue();
        assert_eq!(shared.view.load().frozen.len(), 3);
        drop(writer);
        store.close().unwrap();
    }
}
