//! The thread that writes what waits in buffers.

use std::sync::{Arc, PoisonError};

use crate::error::{Error, Result};
use crate::shared::Shared;
use crate::sync::thread::{Builder, JoinHandle};

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
    loop {
        let interval_is_over = {
            let front = shared.front();
            if front.is_ending {
                return;
            }
            // After a failure only the interval leads to another attempt.
            let has_work = !last_failed && !shared.view.load().frozen.is_empty();
            if has_work {
                false
            } else {
                let waited = shared.wake.wait_timeout(front, shared.options.flush_interval);
                let (front, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                if front.is_ending {
                    return;
                }
                timeout.timed_out()
            }
        };
        last_failed = !flush(shared, interval_is_over);
    }
}

/// Whether it worked. Nobody is told otherwise here: what could not be written stays in memory, and
/// `flush`, `sync`, `close` and writes that find the buffers full try again and report.
fn flush(shared: &Shared, everything: bool) -> bool {
    shared.cleaner.wait_while_behind();
    // Who needs the writer does not wait for what needs none.
    if shared.pack_oldest().is_err() {
        return false;
    }
    let Ok(mut writer) = shared.writer() else { return false };
    let flushed =
        if everything { shared.flush_all(&mut writer) } else { shared.flush_oldest(&mut writer) };
    flushed.is_ok()
}
