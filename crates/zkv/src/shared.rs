//! What all handles of an open store share, and the order of its locks.
//!
//! `writer` is held while records are compressed, written and indexed; `front` for moments, to put
//! a record into the active buffer or to publish a view; who needs both takes `writer` first.
//! Readers take neither.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use zkv_index::KeyHash;
use zkv_log::{Log, LogError, Position, Room};
use zkv_record::{KEY_BYTES_MAX, Kind, Record, RecordError};

use crate::error::{Error, Result};
use crate::keys::Keys;
use crate::live::LiveTable;
use crate::memtable::{Arena, Memtable, is_put};
use crate::operation::Operation;
use crate::options::{Durability, Options};
use crate::pending::PendingCount;
use crate::rebuild;
use crate::view::{Committed, KeyRef, LookupError, View};
use crate::writer::{IndexPlace, WriteError, Writer};

/// Frozen buffers that may wait; who fills one more writes the oldest itself.
const FROZEN_MAX: usize = 2;

#[derive(Debug)]
pub(crate) struct Shared {
    pub path: PathBuf,
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
    /// What of each segment was in use when the store was opened.
    pub live_at_opening: LiveTable,
    /// How often a damaged index is still made anew without being asked.
    pub mends_left: AtomicU32,
    pub is_closed: AtomicBool,
}

/// What changes with every buffered record.
#[derive(Debug)]
pub(crate) struct Front {
    /// The active buffer, as the view has it.
    pub active: Arc<Memtable>,
    /// Where its records lie.
    pub arena: Arena,
    /// For the active buffer, then for the frozen ones, the newest first.
    pub pending: Vec<PendingCount>,
    pub is_ending: bool,
}

impl Shared {
    pub(crate) fn front(&self) -> MutexGuard<'_, Front> {
        self.front.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn writer(&self) -> Result<MutexGuard<'_, Writer>> {
        let writer = self.writer.as_ref().ok_or(Error::ReadOnly)?;
        let writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(writer) }
    }

    pub(crate) fn user_key<'a>(&self, key: &'a [u8]) -> KeyRef<'a> {
        KeyRef { hash: self.keys.hash(key), key, is_piece: false }
    }

    /// Looks a key up; to be called within [`Shared::mended`].
    #[inline]
    pub(crate) fn find<T>(
        &self,
        key: KeyRef<'_>,
        mut take: impl FnMut(&View, &Record<'_>) -> T,
    ) -> Result<Option<T>> {
        let view = self.view.load();
        let found = view.find(key, |record| take(&view, record));
        found.map_err(|error| self.lookup_error(error))
    }

    /// Makes `attempt`, and where it finds the index damaged, makes the index anew and tries once
    /// more. The caller holds no lock.
    #[inline]
    pub(crate) fn mended<T>(&self, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        match attempt() {
            Err(error) if error.is_index_damage() && self.may_mend() => {
                self.mend_index()?;
                attempt()
            }
            done => done,
        }
    }

    /// An index that is damaged again and again is not the one to blame: a forged log may contradict
    /// itself, and each attempt reads all of it.
    fn may_mend(&self) -> bool {
        let one_less = |left: u32| left.checked_sub(1);
        self.mends_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }

    /// Makes the index of what is in the log anew, in memory where no file can be written.
    #[cold]
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

    /// Puts an encoded record into the active buffer, or straight into the log, as the store's
    /// durability has it.
    pub(crate) fn write(&self, hash: KeyHash, record: Vec<u8>) -> Result<()> {
        match self.options.durability {
            Durability::Buffered => self.buffer(hash, record),
            Durability::Flushed | Durability::Synced => self.write_through(hash, &record),
        }
    }

    fn buffer(&self, hash: KeyHash, record: Vec<u8>) -> Result<()> {
        loop {
            {
                let mut front = self.front();
                if self.make_room(&mut front)? {
                    Self::insert(&mut front, hash, record);
                    return Ok(());
                }
            }
            self.mended(|| self.help_flushing())?;
        }
    }

    /// Whether the active buffer takes one more record, after freezing a full one.
    fn make_room(&self, front: &mut Front) -> Result<bool> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        if self.log.is_sync_failed() {
            return Err(Error::data(&self.path)(LogError::SyncFailed));
        }
        let is_full = front.active.bytes() >= self.options.memory_buffer_bytes;
        let frozen_count = front.pending.len() - 1;
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

    fn insert(front: &mut Front, hash: KeyHash, record: Vec<u8>) {
        let puts = is_put(&record);
        let replaced = front.active.insert(hash, front.arena.add(record));
        front.pending[0].note(hash, puts, replaced);
    }

    /// Makes the active buffer a frozen one. The caller holds `front`.
    fn freeze(&self, front: &mut Front) {
        let view = self.view.load_full();
        let mut frozen = vec![Arc::clone(&view.active)];
        frozen.extend(view.frozen.iter().cloned());
        front.pending.insert(0, PendingCount::default());
        let active = Arc::new(Memtable::like(&view.active));
        front.active = Arc::clone(&active);
        self.view.store(Arc::new(View { active, frozen, committed: view.committed.clone() }));
    }

    /// Makes all that is buffered immutable.
    pub(crate) fn freeze_active(&self) {
        let mut front = self.front();
        if !self.view.load().active.is_empty() {
            self.freeze(&mut front);
        }
    }

    /// Removes `key`, and says whether it was there.
    pub(crate) fn delete(&self, key: &[u8]) -> Result<bool> {
        let key = self.user_key(key);
        let mut record = Vec::new();
        Record::delete(key.key).encode_into(&mut record);
        self.mended(|| match self.options.durability {
            Durability::Buffered => self.buffer_delete(key, &record),
            Durability::Flushed | Durability::Synced => {
                let writer = self.writer()?;
                if !self.exists(key)? {
                    return Ok(false);
                }
                self.commit_through(writer, key.hash, &record)?;
                Ok(true)
            }
        })
    }

    fn buffer_delete(&self, key: KeyRef<'_>, record: &[u8]) -> Result<bool> {
        loop {
            {
                let mut front = self.front();
                if self.make_room(&mut front)? {
                    let exists = self.exists(key)?;
                    if exists {
                        Self::insert(&mut front, key.hash, record.into());
                    }
                    return Ok(exists);
                }
            }
            self.help_flushing()?;
        }
    }

    /// Whether the key has a value now. May be called with locks held.
    fn exists(&self, key: KeyRef<'_>) -> Result<bool> {
        let found = self.view.load().find(key, |record| record.kind != Kind::Delete);
        Ok(found.map_err(|error| self.lookup_error(error))?.unwrap_or(false))
    }

    fn write_through(&self, hash: KeyHash, record: &[u8]) -> Result<()> {
        self.mended(|| self.commit_through(self.writer()?, hash, record))
    }

    /// One record, one commit: one write, and one sync where the store is `Synced`.
    fn commit_through(
        &self,
        mut writer: MutexGuard<'_, Writer>,
        hash: KeyHash,
        record: &[u8],
    ) -> Result<()> {
        let operations = Operation::new(hash, record).into_iter().collect();
        let committed = writer.commit(operations, self.room());
        let end = committed.map_err(|error| self.write_error(error))?;
        self.finish_commit(writer, hash, end)
    }

    /// Publishes a commit of one key, which ends at `end`, and waits for what the store's durability
    /// asks for.
    pub(crate) fn finish_commit(
        &self,
        mut writer: MutexGuard<'_, Writer>,
        hash: KeyHash,
        end: Position,
    ) -> Result<()> {
        self.publish_beneath_buffers(&writer, hash);
        self.checkpoint_if_due(&mut writer);
        drop(writer);
        match self.options.durability {
            Durability::Synced => self.log.sync(end).map_err(Error::data(&self.path)),
            Durability::Buffered | Durability::Flushed => Ok(()),
        }
    }

    pub(crate) fn room(&self) -> Room {
        match self.options.durability {
            Durability::Synced => Room::Ahead,
            Durability::Buffered | Durability::Flushed => Room::Exact,
        }
    }

    /// Writes the oldest frozen buffer in the caller's own time: it writes faster than the disk.
    fn help_flushing(&self) -> Result<()> {
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
        self.set_closed(true);
        let flushed = self.flush_all(&mut writer);
        if flushed.is_err() {
            self.set_closed(false);
        }
        flushed.map(|()| writer)
    }

    /// Whoever buffers a record looks at this under `front`.
    fn set_closed(&self, is_closed: bool) {
        let _front = self.front();
        self.is_closed.store(is_closed, Ordering::Release);
    }

    /// Commits the oldest frozen buffer, and publishes it as part of the log in the same moment.
    pub(crate) fn flush_oldest(&self, writer: &mut Writer) -> Result<()> {
        let Some(oldest) = self.view.load().frozen.last().cloned() else { return Ok(()) };
        let flushed = writer.commit(oldest.by_hash(), Room::Exact);
        flushed.map_err(|error| self.write_error(error))?;
        {
            let mut front = self.front();
            front.pending.pop();
            self.publish(|view| {
                view.frozen.pop();
                view.committed = writer.committed_view();
            });
        }
        // A checkpoint takes memory of its own.
        drop(oldest);
        self.checkpoint_if_due(writer);
        Ok(())
    }

    fn checkpoint_if_due(&self, writer: &mut Writer) {
        if writer.is_checkpoint_due() {
            // A checkpoint only shortens the next opening: it is tried again when as much has come
            // again, and `close` reports what stands in its way.
            let _ = writer.checkpoint();
            self.publish_committed(writer);
        }
    }

    /// Publishes what the writer has committed. Takes `front` for a moment.
    pub(crate) fn publish_committed(&self, writer: &Writer) {
        let _front = self.front();
        self.publish(|view| view.committed = writer.committed_view());
    }

    /// As [`Shared::publish_committed`], where the commit went past the buffers: one that holds the
    /// key, too, lies over another record now.
    fn publish_beneath_buffers(&self, writer: &Writer, hash: KeyHash) {
        let mut front = self.front();
        let view = self.view.load();
        let tables = std::iter::once(&view.active).chain(&view.frozen);
        for (pending, table) in front.pending.iter_mut().zip(tables) {
            if table.contains(hash) {
                pending.ask_again(table.hashes());
            }
        }
        self.publish(|view| view.committed = writer.committed_view());
    }

    /// The caller holds `front`, or is alone.
    pub(crate) fn publish(&self, change: impl FnOnce(&mut View)) {
        let mut view = View::clone(&self.view.load());
        change(&mut view);
        self.view.store(Arc::new(view));
    }

    /// How many keys there are, exactly, unless the index is damaged and cannot be made anew: then
    /// without those in buffers.
    pub(crate) fn key_count(&self) -> u64 {
        let counted = self.mended(|| self.count_keys());
        counted.unwrap_or_else(|_| self.view.load().committed.key_count)
    }

    fn count_keys(&self) -> Result<u64> {
        let mut front = self.front();
        let view = self.view.load();
        let tables: Vec<&Arc<Memtable>> =
            std::iter::once(&view.active).chain(&view.frozen).collect();
        let mut count = i64::try_from(view.committed.key_count).unwrap_or(i64::MAX);
        for (number, (pending, table)) in front.pending.iter_mut().zip(&tables).enumerate() {
            let older = &tables[number + 1..];
            let exists = |hash| exists_beneath(table, older, &view.committed, hash);
            pending.resolve(exists).map_err(|error| self.lookup_error(error))?;
            count = count.saturating_add(pending.difference());
        }
        Ok(u64::try_from(count).unwrap_or(0))
    }

    pub(crate) fn check_key(&self, key: &[u8]) -> Result<()> {
        if key.len() <= KEY_BYTES_MAX {
            Ok(())
        } else {
            let error = RecordError::KeyTooLong { bytes: key.len(), max: KEY_BYTES_MAX };
            Err(error.into())
        }
    }

    pub(crate) fn write_error(&self, error: WriteError) -> Error {
        match error {
            WriteError::Log(error) => Error::data(&self.path)(error),
            WriteError::Index(error) => Error::index(&self.index.path)(error),
            WriteError::Lookup(error) => self.lookup_error(error),
        }
    }

    pub(crate) fn lookup_error(&self, error: LookupError) -> Error {
        match error {
            LookupError::Log(error) => Error::data(&self.path)(error),
            LookupError::Index(error) => Error::index(&self.index.path)(error),
            LookupError::Disagreement => Error::Disagreement { path: self.path.clone() },
        }
    }
}

/// Whether the key of `table`'s record `hash` has a value in what is older than the table.
fn exists_beneath(
    table: &Memtable,
    older: &[&Arc<Memtable>],
    committed: &Committed,
    hash: KeyHash,
) -> Result<bool, LookupError> {
    let found = table.get(hash, |bytes| {
        let Ok(record) = Record::decode(bytes) else { return Ok(false) };
        if let Some(is_put) = older.iter().find_map(|older| older.get(hash, is_put)) {
            return Ok(is_put);
        }
        let key = KeyRef { hash, key: record.key, is_piece: false };
        match committed.find(key, |record| record.kind != Kind::Delete) {
            Ok(found) => Ok(found.unwrap_or(false)),
            // A place that the index knows and that cannot be read is one all the same.
            Err(LookupError::Log(_)) => Ok(true),
            Err(error) => Err(error),
        }
    });
    found.unwrap_or(Ok(false))
}
