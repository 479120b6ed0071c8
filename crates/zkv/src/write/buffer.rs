//! Writes that wait in memory, and their way into the log.

use std::mem::take;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clean::WRITE_WAIT_MAX;
use crate::error::{Error, Result};
use crate::read::view::View;
use crate::shared::{Front, Shared};
use crate::sync::MutexGuard;
use crate::sync::atomic::Ordering;
use crate::write::memtable::Memtable;
use crate::write::write_set::{Body, Condition, Numbered, Write};
use crate::write::writer::Writer;

/// Frozen buffers that may wait; who fills one more writes the oldest itself.
const FROZEN_MAX: usize = 2;

/// Somebody closes the store, and has not yet: who buffers a record waits for the outcome, which may be that
/// it stays open.
struct Closing<'a>(&'a Shared);

impl<'a> Closing<'a> {
    fn begin(shared: &'a Shared) -> Self {
        shared.front().is_closing = true;
        Self(shared)
    }
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.front().is_closing = false;
    }
}

impl Shared {
    /// Puts writes into the active buffer, all at once, where what they depend on is still so. Their
    /// records are taken, unless this fails.
    pub(crate) fn buffer(&self, writes: &mut [Write<'_>], on: Condition<'_>) -> Result<()> {
        loop {
            {
                let mut front = self.front_to_write()?;
                let is_reserved =
                    front.reserved.as_ref().is_some_and(|reserved| reserved.concerns(writes));
                if is_reserved || front.is_closing {
                    drop(front);
                    // Until the commit that has reserved them is done, or the store is closed, or is not.
                    drop(self.writer()?);
                    continue;
                }
                if self.make_room(&mut front)? {
                    check(&front, on)?;
                    let is_first = front.active_since.is_none();
                    insert(&mut front, writes);
                    if is_first {
                        // Its time runs from now on.
                        self.wake.notify_one();
                    }
                    return Ok(());
                }
            }
            // Who is to make room may not be there.
            self.check_writable()?;
            self.mended(|| self.help_flushing())?;
        }
    }

    /// Whether the active buffer takes one more record, after freezing a full one.
    fn make_room(&self, front: &mut Front) -> Result<bool> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        if self.log.is_sync_failed() {
            return Err(Error::data(&self.path)(self.log.sync_failure()));
        }
        let is_full = front.active.bytes() >= self.options.memory_buffer_bytes;
        let frozen_count = self.view.load().frozen.len();
        // One more may be frozen early, by a flush or an iteration.
        if frozen_count > FROZEN_MAX || (is_full && frozen_count == FROZEN_MAX) {
            return Ok(false);
        }
        if !is_full {
            return Ok(true);
        }
        self.freeze(front);
        self.wake.notify_one();
        Ok(true)
    }

    /// Makes the active buffer a frozen one. The caller holds `front`.
    fn freeze(&self, front: &mut Front) {
        let view = self.view.load_full();
        let mut frozen = vec![Arc::clone(&view.active)];
        frozen.extend(view.frozen.iter().cloned());
        let active = Arc::new(Memtable::like(&view.active));
        front.active = Arc::clone(&active);
        front.active_since = None;
        self.view.store(Arc::new(View { active, frozen, committed: view.committed.clone() }));
    }

    /// Makes what is buffered immutable, where something is frozen already, but not much. How many
    /// buffers are frozen then.
    pub(crate) fn freeze_early(&self) -> usize {
        let mut front = self.front();
        let view = self.view.load();
        let frozen_count = view.frozen.len();
        if view.active.is_empty() || frozen_count == 0 || frozen_count > FROZEN_MAX {
            return frozen_count;
        }
        self.freeze(&mut front);
        frozen_count + 1
    }

    /// Makes what is buffered immutable, once its first record has waited for the flush interval.
    pub(crate) fn freeze_overdue(&self) {
        let mut front = self.front();
        if self.time_left(&front) == Some(Duration::ZERO)
            && self.view.load().frozen.len() <= FROZEN_MAX
        {
            self.freeze(&mut front);
        }
    }

    /// How long what is buffered may still wait; `None` where that is nothing.
    pub(crate) fn time_left(&self, front: &Front) -> Option<Duration> {
        let since = front.active_since?;
        Some(self.options.flush_interval.saturating_sub(since.elapsed()))
    }

    /// Makes all that is buffered immutable.
    pub(crate) fn freeze_active(&self) {
        let mut front = self.front();
        if !self.view.load().active.is_empty() {
            self.freeze(&mut front);
        }
    }

    /// Does some of what stands before the next room in the caller's own time: it writes faster than
    /// one thread compresses.
    fn help_flushing(&self) -> Result<()> {
        self.cleaner.wait_while_behind(WRITE_WAIT_MAX);
        if self.pack_next()? {
            return Ok(());
        }
        let mut writer = self.writer()?;
        if self.view.load().frozen.len() >= FROZEN_MAX {
            self.flush_oldest(&mut writer)?;
        }
        Ok(())
    }

    /// Hands everything buffered to the operating system.
    pub(crate) fn flush_all(&self, writer: &mut Writer) -> Result<()> {
        // Those that are frozen come first: where they cannot be written, no more pile up.
        self.flush_frozen(writer)?;
        self.freeze_active();
        self.flush_frozen(writer)
    }

    /// Commits the buffers that are frozen now, not those that others freeze meanwhile.
    fn flush_frozen(&self, writer: &mut Writer) -> Result<()> {
        for _ in 0..self.view.load().frozen.len() {
            self.flush_oldest(writer)?;
        }
        Ok(())
    }

    /// Writes what is buffered, and lets nothing more in. Where it cannot be written, the store stays
    /// open: it is all still there, for another attempt.
    pub(crate) fn stop_writing(&self) -> Result<MutexGuard<'_, Writer>> {
        let mut writer = self.writer()?;
        let _closing = Closing::begin(self);
        self.flush_all(&mut writer)?;
        // Whoever buffers a record looks at this under `front`.
        let _front = self.front();
        self.is_closed.store(true, Ordering::Release);
        Ok(writer)
    }

    /// Commits the oldest frozen buffer, and publishes it as part of the log in the same moment.
    pub(crate) fn flush_oldest(&self, writer: &mut Writer) -> Result<()> {
        let Some(oldest) = self.view.load().frozen.last().cloned() else { return Ok(()) };
        let packed = self.packed(&oldest)?;
        if let Err(error) = writer.commit_buffer(&packed) {
            self.pipeline.put_back(packed);
            return Err(self.write_error(error));
        }
        drop(packed);
        {
            let mut front = self.front();
            front.written.retain(|table| table.strong_count() > 0);
            front.written.push(Arc::downgrade(&oldest));
            self.publish(|view| {
                view.frozen.pop();
                view.committed = writer.committed_view();
            });
        }
        // A checkpoint takes memory of its own.
        drop(oldest);
        self.after_commit(writer);
        Ok(())
    }

    /// What a commit may have made due.
    pub(crate) fn after_commit(&self, writer: &mut Writer) {
        self.checkpoint_if_due(writer);
        self.note_written(writer);
    }

    pub(crate) fn checkpoint_if_due(&self, writer: &mut Writer) {
        // A checkpoint only shortens the next opening, and makes room: it is tried again when as
        // much has come again, and `close` reports what stands in its way.
        if writer.is_checkpoint_due() && writer.rewrite.is_some() {
            // So much was written meanwhile that it is waited for.
            let _ = self.finish_rewrite(writer);
        }
        if writer.is_checkpoint_due() {
            let _ = self.checkpoint_aside(writer);
        }
    }
}

/// What must still be so when a commit takes effect. The caller holds `front`.
#[inline]
pub(crate) fn check(front: &Front, on: Condition<'_>) -> Result<()> {
    let is_numbered = on.collections.iter().all(Numbered::is_current);
    let is_current = on.reads.is_none_or(|reads| front.recent.is_current(reads));
    if is_numbered && is_current { Ok(()) } else { Err(Error::Conflict) }
}

#[inline]
fn insert(front: &mut Front, writes: &mut [Write<'_>]) {
    if !writes.is_empty() {
        front.active_since.get_or_insert_with(Instant::now);
    }
    front.recent.note(writes.iter().map(|write| (write.hash, write.collection)));
    if writes.len() > 1 {
        // Several come in the order of their hashes.
        front.active.reserve(writes.len());
    }
    for write in writes {
        // Whoever calls this has only records.
        if let Body::Record(record) = &mut write.body {
            front.active.insert(write.hash, front.arena.add(take(record)));
        }
    }
    front.active.publish();
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Barrier;

    use zkv_io::MemoryStorage;
    use zkv_sim::{Act, Watched};

    use super::*;
    use crate::batch::WriteBatch;
    use crate::options::{Cleaning, Durability, Options};
    use crate::store::Store;
    use crate::sync::atomic::AtomicBool;

    /// A store of two handles, with a record that is handed over and not synced, whose next commit the disk
    /// refuses for as long as the flag is set.
    fn two_handles(refused: Act, kind: io::ErrorKind) -> (Store, Store, Arc<AtomicBool>) {
        let fails = Arc::new(AtomicBool::new(false));
        let of_disk = Arc::clone(&fails);
        let storage = Watched::new(Arc::new(MemoryStorage::new()), move |act, path| {
            let is_refused = act == refused && path.ends_with("store.zkv");
            if is_refused && of_disk.load(Ordering::SeqCst) { Err(kind.into()) } else { Ok(()) }
        });
        let options = Options::new().storage(Arc::new(storage)).cleaning(Cleaning::Off);
        let one = options.durability(Durability::Flushed).open("store.zkv").unwrap();
        one.set_bytes(b"a", b"1").unwrap();
        (one.clone(), one, fails)
    }

    #[test]
    fn a_batch_has_room_made_for_all_of_its_keys_before_they_are_put_in_order() {
        let options = Options::new().flush_interval(Duration::from_secs(3600));
        let storage = Arc::new(MemoryStorage::new());
        let store = options.storage(storage).open("store.zkv").unwrap();
        store.set_bytes(b"before", b"1").unwrap();
        let tables = || store.shared().front().active.table_count();
        assert_eq!(tables(), 1);
        let mut batch = WriteBatch::new();
        for key in 0..10_000u32 {
            batch.set_bytes(&key.to_le_bytes(), b"");
        }
        store.write(batch).unwrap();
        // In each one between, all that came so far would have crowded into the beginning.
        assert_eq!(tables(), 2);
        assert_eq!(store.len(), 10_001);
    }

    #[test]
    fn a_batch_of_short_records_that_take_more_than_a_buffer_goes_to_the_log() {
        const BYTES: usize = 64 << 10;
        let storage = Arc::new(MemoryStorage::new());
        let options = Options::new().storage(storage).memory_buffer_bytes(BYTES);
        let store = options.flush_interval(Duration::from_secs(3600)).open("store.zkv").unwrap();
        let buffered = || store.shared().front().active.bytes();
        for (keys, is_buffered) in [(0..100, true), (1000..3000u32, false)] {
            let before = buffered();
            let mut batch = WriteBatch::new();
            for key in keys.clone() {
                batch.set_bytes(&key.to_le_bytes(), b"");
            }
            store.write(batch).unwrap();
            let behind = buffered();
            assert_eq!(behind > before, is_buffered, "a batch: {before}, then {behind}");
            let keys = keys.map(|key| (key + 10_000).to_le_bytes());
            store
                .transaction(|tx| keys.clone().try_for_each(|key| tx.set_bytes(&key, b"")))
                .unwrap();
            let last = buffered();
            assert_eq!(last > behind, is_buffered, "a transaction: {behind}, then {last}");
        }
        assert!(buffered() < BYTES);
        assert_eq!(store.len(), 4200);
    }

    #[test]
    fn a_close_behind_one_that_could_not_sync_fails_as_well() {
        let (one, other, fails) = two_handles(Act::Sync, io::ErrorKind::Other);
        fails.store(true, Ordering::SeqCst);
        assert!(one.close().is_err());
        assert!(other.close().is_err());
    }

    #[test]
    fn a_close_behind_one_that_had_no_room_syncs_what_was_written() {
        let (one, other, fails) = two_handles(Act::Write, io::ErrorKind::StorageFull);
        fails.store(true, Ordering::SeqCst);
        assert!(one.set_bytes(b"b", b"2").is_err());
        assert!(one.close().is_err());
        let shared = Arc::clone(other.shared());
        let written = shared.writer.as_ref().unwrap().lock().unwrap().log.end();
        assert!(shared.log.synced_upto() < written);
        fails.store(false, Ordering::SeqCst);
        other.close().unwrap();
        assert!(shared.log.synced_upto() >= written);
    }

    #[test]
    fn whoever_writes_beside_a_close_that_fails_writes_on() {
        let (fails, is_held, goes_on) = (AtomicBool::new(false), Barrier::new(2), Barrier::new(2));
        let shared = Arc::new((fails, is_held, goes_on));
        let of_disk = Arc::clone(&shared);
        let storage = Watched::new(Arc::new(MemoryStorage::new()), move |act, path| {
            let is_data = path.ends_with("store.zkv");
            if act == Act::Write && is_data && of_disk.0.swap(false, Ordering::SeqCst) {
                of_disk.1.wait();
                of_disk.2.wait();
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        });
        let options = Options::new().storage(Arc::new(storage)).cleaning(Cleaning::Off);
        let store = options.flush_interval(Duration::from_secs(3600)).open("store.zkv").unwrap();
        store.set_bytes(b"a", b"1").unwrap();
        shared.0.store(true, Ordering::SeqCst);
        std::thread::scope(|scope| {
            let closing = scope.spawn(|| store.clone().close());
            shared.1.wait();
            let writing = scope.spawn(|| store.set_bytes(b"b", b"2"));
            shared.2.wait();
            assert!(closing.join().unwrap().is_err());
            writing.join().unwrap().unwrap();
        });
        assert_eq!(store.get_bytes(b"b").unwrap().unwrap(), b"2");
        store.clone().close().unwrap();
        assert!(matches!(store.set_bytes(b"c", b"3"), Err(Error::Closed)));
    }
}
