//! The threads of an open store, and how it is closed.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::clean;
use crate::error::{Error, Result};
use crate::options::{Cleaning, Durability};
use crate::shared::Shared;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::thread::JoinHandle;
use crate::sync::{Mutex, MutexGuard};
use crate::write::flusher;

/// Where the system has no thread for the cleaning, a write asks again behind this.
const THREAD_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// What the last handle's drop ends.
pub(crate) struct Handle {
    shared: Arc<Shared>,
    threads: Mutex<Threads>,
    /// Whether all threads that writes of each kind need are running.
    has_flusher: AtomicBool,
    has_cleaner: AtomicBool,
}

#[derive(Default)]
struct Threads {
    /// Started by the first buffered write.
    flusher: Option<JoinHandle<()>>,
    /// Started by the first write, where cleaning is automatic.
    cleaner: Option<JoinHandle<()>>,
    /// When the system had no thread for it.
    no_cleaner_since: Option<Instant>,
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            threads: Mutex::default(),
            has_flusher: AtomicBool::new(false),
            has_cleaner: AtomicBool::new(false),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// What must hold before anything is written; starts the threads that flush and clean.
    pub(crate) fn start_threads(&self, durability: Durability) -> Result<()> {
        let shared = &self.shared;
        if shared.writer.is_none() {
            return Err(Error::ReadOnly);
        }
        let is_buffered = durability == Durability::Buffered;
        let has_flusher = !is_buffered || self.has_flusher.load(Ordering::Acquire);
        let is_cleaned = shared.options.cleaning != Cleaning::Off;
        let has_cleaner = !is_cleaned || self.has_cleaner.load(Ordering::Acquire);
        if has_flusher && has_cleaner {
            return Ok(());
        }
        if shared.is_forked() {
            return Err(Error::Forked);
        }
        let mut threads = self.threads();
        if shared.is_closed.load(Ordering::Acquire) {
            return Ok(());
        }
        if !has_flusher && threads.flusher.is_none() {
            threads.flusher = Some(flusher::start(shared)?);
            self.has_flusher.store(true, Ordering::Release);
        }
        if !has_cleaner && threads.cleaner.is_none() {
            // Where the system has no more threads, the file grows until it has.
            let is_early = threads
                .no_cleaner_since
                .is_some_and(|since| since.elapsed() < THREAD_RETRY_INTERVAL);
            if !is_early {
                threads.cleaner = clean::start(shared);
                threads.no_cleaner_since = threads.cleaner.is_none().then(Instant::now);
            }
            self.has_cleaner.store(threads.cleaner.is_some(), Ordering::Release);
        }
        Ok(())
    }

    /// As [`Store::close`](crate::Store::close).
    pub(crate) fn close(&self) -> Result<()> {
        let shared = &self.shared;
        if shared.is_forked() && shared.writer.is_some() {
            return Err(Error::Forked);
        }
        shared.pack_ahead()?;
        let closing = shared.cleaner.begin_closing();
        if self.stop_cleaner() {
            // What cannot be cleaned now is looked at by whoever writes next, and what cannot be flushed fails
            // below.
            let _ = shared.clean_in_closing();
        }
        let mut writer = match shared.mended(|| shared.stop_writing()) {
            Ok(writer) => writer,
            Err(Error::ReadOnly) => return Ok(()),
            Err(Error::Closed) => return self.close_log(),
            Err(error) => return Err(error),
        };
        drop(closing);
        let checkpointed = if writer.index.is_lasting && writer.is_checkpoint_due_to_close() {
            shared.checkpoint(&mut writer)
        } else {
            Ok(())
        };
        let checkpointed = checkpointed.and_then(|()| match writer.is_index_file_removed() {
            true => shared.restore_index_file(&mut writer),
            false => Ok(()),
        });
        // An index that ends with the process needs no file, and nothing is freed any more.
        writer.drop_rewrite();
        let closed = writer.log.close().map_err(Error::data(&shared.path));
        drop(writer);
        self.stop_flusher();
        shared.join_rewriting();
        // Another handle may have started one meanwhile.
        self.stop_cleaner();
        // Without an index file nothing is lost.
        closed.and(checkpointed)
    }

    /// Behind another handle's close, which may have failed when all was handed over, and nothing synced.
    fn close_log(&self) -> Result<()> {
        let Some(writer) = &self.shared.writer else { return Ok(()) };
        let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.log.close().map_err(Error::data(&self.shared.path))
    }

    /// None is started any more once the store is closed.
    fn stop_flusher(&self) {
        let mut threads = self.threads();
        if let Some(thread) = threads.flusher.take() {
            flusher::stop(&self.shared, thread);
        }
    }

    /// Whether there was one. It is started again where closing fails and somebody writes on.
    fn stop_cleaner(&self) -> bool {
        let mut threads = self.threads();
        let Some(thread) = threads.cleaner.take() else { return false };
        clean::stop(&self.shared.cleaner, thread);
        self.has_cleaner.store(false, Ordering::Release);
        true
    }

    fn threads(&self) -> MutexGuard<'_, Threads> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.shared.is_forked() {
            // What is buffered is the parent's to write, and its threads are not here.
            let threads = self.threads.get_mut().unwrap_or_else(PoisonError::into_inner);
            std::mem::forget(std::mem::take(threads));
            return;
        }
        // Who wants to know calls `close`.
        let _ = self.close();
        self.stop_flusher();
        self.shared.join_rewriting();
    }
}
