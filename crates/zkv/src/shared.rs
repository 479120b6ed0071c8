//! What all handles of an open store share, and the order of its locks.
//!
//! `writer` is held while records are compressed, written and indexed; `front` for moments, to put
//! a record into the active buffer or to publish a view; who needs both takes `writer` first.
//! `pipeline` has a lock for packing, which comes behind `writer`, too. Readers take none.

use std::panic::RefUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::AtomicU32 as ProcessId;
use std::sync::{Arc, PoisonError, TryLockError, Weak};
use std::time::Instant;

use zkv_log::{Log, LogView};

use crate::clean::Cleaner;
use crate::collections::Collections;
use crate::error::{Error, Result};
use crate::keys::Keys;
use crate::metadata::counts::KeyCounts;
use crate::metadata::live::LiveTable;
use crate::open::rebuild;
use crate::options::Options;
use crate::read::cache::ValueCache;
use crate::read::view::{KeyRef, LookupError, Moment, View};
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::sync::{ArcSwap, Condvar, Mutex, MutexGuard};
use crate::write::group::Queues;
use crate::write::memtable::{Arena, Memtable};
use crate::write::pipeline::Pipeline;
use crate::write::recent::Recent;
use crate::write::reserve::Reserved;
use crate::write::rewrite::RewriteThread;
use crate::write::writer::{IndexPlace, WriteError, Writer};

pub(crate) struct Shared {
    /// For threads that outlive the call that starts them.
    pub itself: Weak<Self>,
    pub path: PathBuf,
    /// The process that has opened the store. Nothing but tests changes it, and no model has two.
    pub process: ProcessId,
    pub index: IndexPlace,
    pub options: Options,
    pub keys: Keys,
    pub log: Log,
    pub view: ArcSwap<View>,
    pub front: Mutex<Front>,
    /// Tells the flushing thread that there is work, or that it shall end.
    pub wake: Condvar,
    /// `None` where the store is open read-only.
    pub writer: Option<Mutex<Writer>>,
    pub pipeline: Pipeline,
    pub cleaner: Cleaner,
    /// Commits that wait for the log.
    pub queues: Queues,
    /// The named collections that somebody has opened.
    pub collections: Collections,
    /// What of each segment was in use when the store was opened.
    pub live_at_opening: LiveTable,
    pub cache: ValueCache,
    /// How many snapshots live.
    pub snapshots: AtomicU64,
    /// How often a damaged index is still made anew without being asked.
    pub mends_left: AtomicU32,
    /// Threads that write index files.
    pub rewriting: Mutex<Vec<RewriteThread>>,
    /// Whoever holds it makes a damaged index anew.
    pub mending: Mutex<()>,
    pub is_closed: AtomicBool,
}

/// A panic leaves nothing half done that others would go on with: locks are taken whether they are poisoned or not,
/// since what they hold is put in its place whole, or taken back as what was begun is dropped.
impl RefUnwindSafe for Shared {}

/// What changes with every buffered record.
pub(crate) struct Front {
    /// The active buffer, as the view has it.
    pub active: Arc<Memtable>,
    /// When its first record came.
    pub active_since: Option<Instant>,
    /// Where its records lie.
    pub arena: Arena,
    pub recent: Recent,
    /// Buffers that are in the log, for as long as somebody still reads them.
    pub written: Vec<Weak<Memtable>>,
    /// What a commit that is being written has read and writes: others leave it alone meanwhile.
    pub reserved: Option<Reserved>,
    /// Whether somebody closes the store, and has not yet.
    pub is_closing: bool,
    pub is_ending: bool,
}

impl Shared {
    pub(crate) fn front(&self) -> MutexGuard<'_, Front> {
        self.front.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Shared::front`], for a write: where somebody holds it, that may be a thread which the child of
    /// a forked process has not. To ask for the process each time would cost a tenth of a write.
    pub(crate) fn front_to_write(&self) -> Result<MutexGuard<'_, Front>> {
        match self.front.try_lock() {
            Ok(front) => Ok(front),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {
                self.check_writable()?;
                Ok(self.front())
            }
        }
    }

    /// Whether this is the child of the process that has opened the store: it has none of the store's threads,
    /// a copy of its buffers, and shares the files and their lock with a parent that may go on to write.
    pub(crate) fn is_forked(&self) -> bool {
        self.process.load(Ordering::Relaxed) != std::process::id()
    }

    pub(crate) fn writer(&self) -> Result<MutexGuard<'_, Writer>> {
        let writer = self.writer.as_ref().ok_or(Error::ReadOnly)?;
        // Before the lock: who held it when the process was forked never gives it back here.
        if self.is_forked() {
            return Err(Error::Forked);
        }
        let writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(writer) }
    }

    /// # Errors
    /// Where nothing can be written.
    pub(crate) fn check_writable(&self) -> Result<()> {
        match &self.writer {
            None => Err(Error::ReadOnly),
            Some(_) if self.is_forked() => Err(Error::Forked),
            Some(_) if self.is_closed.load(Ordering::Acquire) => Err(Error::Closed),
            Some(_) => Ok(()),
        }
    }

    /// How much of each segment is in use, without what waits in buffers, and the log of that moment.
    pub(crate) fn live(&self) -> (LiveTable, LogView) {
        match &self.writer {
            Some(writer) => {
                let writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
                (writer.live.clone(), writer.committed.log.clone())
            }
            None => (self.live_at_opening.clone(), self.view.load().committed.log.clone()),
        }
    }

    /// The memory of buffers that are in the log already and are still read.
    pub(crate) fn held_bytes(&self) -> u64 {
        let held = self.front().written.iter().filter_map(Weak::upgrade).collect::<Vec<_>>();
        held.iter().map(|table| table.held_bytes() as u64).sum()
    }

    #[inline]
    pub(crate) fn key<'a>(&self, collection: u32, key: &'a [u8]) -> KeyRef<'a> {
        KeyRef { hash: self.keys.hash(collection, key), key, collection, is_piece: false }
    }

    /// The store as readers see it now.
    pub(crate) fn now(&self) -> Moment {
        Moment::now(&self.view)
    }

    /// Makes `attempt`, and where it finds the index damaged, makes the index anew and tries once
    /// more. The caller holds no lock.
    #[inline]
    pub(crate) fn mended<T>(&self, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        let mends_left = self.mends_left();
        match attempt() {
            Err(error) if error.is_index_damage() => {
                self.mend_since(mends_left, error)?;
                attempt()
            }
            done => done,
        }
    }

    /// How often a damaged index may still be made anew without being asked.
    pub(crate) fn mends_left(&self) -> u32 {
        self.mends_left.load(Ordering::Acquire)
    }

    /// The same moment, with an index that is made anew, in memory, for who has found it damaged as `error`
    /// says, and looked first when `mends_left` was so many. Those who look later find the store mended.
    #[cold]
    pub(crate) fn mended_moment(
        &self,
        moment: &Moment,
        mends_left: u32,
        error: Error,
    ) -> Result<Moment> {
        self.mend_since(mends_left, error)?;
        let log = &moment.committed().log;
        let rebuilt = rebuild::in_memory(log, &self.keys, &self.index);
        let rebuilt = rebuilt.map_err(|error| self.write_error(error))?;
        Ok(moment.with_committed(rebuilt.committed))
    }

    /// Makes the index anew, unless somebody has done so since `mends_left` was so many.
    ///
    /// # Errors
    /// `found` where that was done too often: an index that is damaged again and again is not the one to
    /// blame. A forged log may contradict itself, and each attempt reads all of it.
    #[cold]
    fn mend_since(&self, mends_left: u32, found: Error) -> Result<()> {
        let _mending = self.mending.lock().unwrap_or_else(PoisonError::into_inner);
        if self.mends_left() != mends_left {
            return Ok(());
        }
        let left = mends_left.checked_sub(1).ok_or(found)?;
        let mended = self.mend_index();
        // Only now: who looks meanwhile finds the old one.
        self.mends_left.store(left, Ordering::Release);
        mended
    }

    /// Makes the index of what is in the log anew, in memory where no file can be written.
    fn mend_index(&self) -> Result<()> {
        match self.writer() {
            Ok(mut writer) => {
                let mended = writer.mend_index();
                self.publish_committed(&writer);
                return mended.map_err(|error| self.write_error(error));
            }
            // Reading goes on.
            Err(Error::ReadOnly | Error::Closed) => {}
            Err(error) => return Err(error),
        }
        let view = self.view.load_full();
        let rebuilt = rebuild::in_memory(&view.committed.log, &self.keys, &self.index);
        let rebuilt = rebuilt.map_err(|error| self.write_error(error))?;
        let _front = self.front();
        self.publish(|view| view.committed = rebuilt.committed);
        Ok(())
    }

    /// Publishes what the writer has committed. Takes `front` for a moment.
    pub(crate) fn publish_committed(&self, writer: &Writer) {
        let _front = self.front();
        self.publish(|view| view.committed = writer.committed_view());
    }

    /// The caller holds `front`, or is alone.
    pub(crate) fn publish(&self, change: impl FnOnce(&mut View)) {
        let mut view = View::clone(&self.view.load());
        change(&mut view);
        self.view.store(Arc::new(view));
    }

    /// How many keys a collection has at `moment`, exactly, unless the index is damaged and cannot be
    /// made anew: then without those in buffers.
    pub(crate) fn key_count(&self, collection: u32, moment: impl Fn() -> Moment) -> u64 {
        let counted = self
            .mended(|| moment().count_keys(collection).map_err(|error| self.lookup_error(error)));
        counted.unwrap_or_else(|_| moment().committed().counts.of(collection))
    }

    /// As [`Shared::key_count`], of all collections.
    pub(crate) fn key_counts(&self, moment: &Moment) -> KeyCounts {
        let counted =
            self.mended(|| moment.count_all_keys().map_err(|error| self.lookup_error(error)));
        counted.unwrap_or_else(|_| KeyCounts::clone(&moment.committed().counts))
    }

    pub(crate) fn write_error(&self, error: WriteError) -> Error {
        error.of(&self.path, &self.index.path)
    }

    pub(crate) fn lookup_error(&self, error: LookupError) -> Error {
        error.of(&self.path, &self.index.path)
    }
}

#[cfg(all(test, not(zkv_model)))]
mod tests {
    use std::sync::Arc;

    use zkv_io::{MemoryStorage, Storage};

    use super::*;
    use crate::options::Durability;

    #[test]
    fn the_child_of_a_forked_process_writes_nothing() {
        let storage = Arc::new(MemoryStorage::new());
        for durability in [Durability::Buffered, Durability::Flushed] {
            let options = Options::new().storage(Arc::clone(&storage) as Arc<dyn Storage>);
            let store = options.durability(durability).open("store.zkv").unwrap();
            store.set_bytes(b"a", b"1").unwrap();
            let process = &store.shared().process;
            let parent = process.fetch_add(1, Ordering::Relaxed);
            assert_eq!(store.get_bytes(b"a").unwrap().unwrap(), b"1");
            if durability != Durability::Buffered {
                assert!(matches!(store.set_bytes(b"b", b"2"), Err(Error::Forked)));
            }
            // Another thread may have been within a write.
            let front = store.shared().front();
            assert!(matches!(store.set_bytes(b"b", b"2"), Err(Error::Forked)));
            assert!(matches!(store.flush(), Err(Error::Forked)));
            assert!(matches!(store.sync(), Err(Error::Forked)));
            drop(front);
            assert!(matches!(store.begin(), Err(Error::Forked)));
            assert!(matches!(store.delete_bytes(b"a"), Err(Error::Forked)));
            assert!(matches!(store.sync(), Err(Error::Forked)));
            assert!(matches!(store.compact(|_| {}), Err(Error::Forked)));
            assert!(matches!(store.clone().close(), Err(Error::Forked)));
            process.store(parent, Ordering::Relaxed);
            store.close().unwrap();
        }
    }
}
