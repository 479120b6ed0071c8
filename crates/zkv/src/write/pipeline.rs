//! Frozen buffers on their way into the log: one is packed while the one before it is committed.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, PoisonError, Weak};

use zkv_log::{Log, LogError, PackJob, Packed, Position, Room};

use crate::error::{Error, Result};
use crate::shared::Shared;
use crate::sync::{Mutex, MutexGuard};
use crate::write::memtable::{Memtable, Seen};
use crate::write::operation::{key_of, sorted_by_key};
use crate::write::resolve::Resolution;
use crate::write::writer::{WriteError, Writer};

/// A frozen buffer, packed: that takes longer than anything else, and needs no lock of the writer's.
#[derive(Debug)]
pub(crate) struct PackedBuffer {
    table: Arc<Memtable>,
    /// The numbers of its records, in the order in which they are packed: that of their keys.
    numbers: Vec<u32>,
    packed: Packed,
}

/// The buffers that are packed and not committed.
#[derive(Debug, Default)]
pub(crate) struct Pipeline {
    /// Held while a buffer is packed, so that they are packed in their order. Who holds the writer
    /// may take it; who holds it takes nothing but `state`.
    turn: Mutex<()>,
    /// Held for moments.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    packed: VecDeque<PackedBuffer>,
    /// The buffer that was packed last, committed or not.
    newest: Weak<Memtable>,
    /// What is being packed.
    under_way: Option<Arc<PackingBuffer>>,
}

/// A frozen buffer that is being packed, by whoever would wait for that otherwise.
#[derive(Debug)]
struct PackingBuffer {
    table: Arc<Memtable>,
    numbers: Vec<u32>,
    job: PackJob,
}

impl PackingBuffer {
    fn begin(table: &Arc<Memtable>, log: &Log) -> std::result::Result<Self, LogError> {
        let newest = table.newest_of_each();
        let starts = newest.iter().enumerate().map(|(at, (_, one))| (one.key_start, at));
        let order = sorted_by_key(starts, |at| key_of(newest[at].1.record));
        let entries: Vec<&[u8]> = order.iter().map(|at| newest[*at].1.record).collect();
        let job = log.begin_packing(&entries)?;
        let numbers = order.iter().map(|at| newest[*at].0).collect();
        Ok(Self { table: Arc::clone(table), numbers, job })
    }

    fn entries(&self, range: Range<usize>) -> Vec<&[u8]> {
        let numbers = self.numbers[range].iter();
        numbers.filter_map(|number| self.table.record(*number)).collect()
    }

    fn help(&self, log: &Log) {
        log.help_packing(&self.job, |range| self.entries(range));
    }

    fn finish(&self, log: &Log) -> PackedBuffer {
        let packed = log.finish_packing(&self.job, |range| self.entries(range));
        PackedBuffer { table: Arc::clone(&self.table), numbers: self.numbers.clone(), packed }
    }
}

impl Pipeline {
    /// The turn to pack. Who has to wait for it helps whoever has it.
    fn turn(&self, log: &Log) -> MutexGuard<'_, ()> {
        let under_way = self.state().under_way.clone();
        if let Some(packing) = under_way {
            packing.help(log);
        }
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the oldest buffer, which could not be committed, for another attempt: to pack it takes longer than to
    /// find a disk still full.
    pub(crate) fn put_back(&self, buffer: PackedBuffer) {
        self.state().packed.push_front(buffer);
    }

    fn take(&self, table: &Arc<Memtable>) -> Option<PackedBuffer> {
        let mut state = self.state();
        let place = state.packed.iter().position(|buffer| Arc::ptr_eq(&buffer.table, table))?;
        state.packed.remove(place)
    }

    /// The first buffer behind the one that was packed last, of `frozen`, the newest of which comes
    /// first.
    fn next(&self, frozen: &[Arc<Memtable>]) -> Option<Arc<Memtable>> {
        let newest = self.state().newest.upgrade();
        let is_packed = |table: &Arc<Memtable>| {
            newest.as_ref().is_some_and(|newest| Arc::ptr_eq(table, newest))
        };
        let behind = frozen.iter().position(is_packed).unwrap_or(frozen.len());
        frozen[..behind].last().cloned()
    }
}

impl Shared {
    /// Packs the oldest frozen buffer, unless somebody has: whoever does is waited for.
    pub(crate) fn pack_oldest(&self) -> Result<()> {
        let turn = self.pipeline.turn(&self.log);
        if self.pipeline.state().packed.is_empty() {
            self.pack_in_turn(&turn)?;
        }
        Ok(())
    }

    /// Packs the oldest frozen buffer that nobody has packed. Whether there was one.
    pub(crate) fn pack_next(&self) -> Result<bool> {
        self.pack_in_turn(&self.pipeline.turn(&self.log))
    }

    fn pack_in_turn(&self, _turn: &MutexGuard<'_, ()>) -> Result<bool> {
        let Some(table) = self.pipeline.next(&self.view.load().frozen) else { return Ok(false) };
        let packed = self.pack_buffer(&table)?;
        self.pipeline.state().packed.push_back(packed);
        Ok(true)
    }

    /// The caller has the turn.
    fn pack_buffer(&self, table: &Arc<Memtable>) -> Result<PackedBuffer> {
        let packing = PackingBuffer::begin(table, &self.log).map_err(Error::data(&self.path))?;
        let packing = Arc::new(packing);
        self.pipeline.state().under_way = Some(Arc::clone(&packing));
        let packed = packing.finish(&self.log);
        // Another one is newer where this one was packed before, and could not be committed.
        let next = self.pipeline.next(&self.view.load().frozen);
        let mut state = self.pipeline.state();
        state.under_way = None;
        if next.is_some_and(|next| Arc::ptr_eq(&next, table)) {
            state.newest = Arc::downgrade(table);
        }
        Ok(packed)
    }

    /// Packs what is buffered now, not what others buffer meanwhile, while the flushing thread commits
    /// it. Who flushes behind this waits for less.
    pub(crate) fn pack_ahead(&self) -> Result<()> {
        let frozen_count = self.freeze_early();
        if frozen_count < 2 {
            return Ok(());
        }
        self.wake.notify_one();
        for _ in 0..frozen_count {
            if !self.pack_next()? {
                break;
            }
        }
        Ok(())
    }

    /// A buffer's packed records: whoever packs it is waited for. The caller holds the writer, and
    /// `table` is the oldest that is frozen.
    pub(crate) fn packed(&self, table: &Arc<Memtable>) -> Result<PackedBuffer> {
        if let Some(packed) = self.pipeline.take(table) {
            return Ok(packed);
        }
        let _turn = self.pipeline.turn(&self.log);
        if let Some(packed) = self.pipeline.take(table) {
            return Ok(packed);
        }
        self.pack_buffer(table)
    }
}

impl Writer {
    /// Commits the records of a buffer.
    pub(crate) fn commit_buffer(
        &mut self,
        buffer: &PackedBuffer,
    ) -> std::result::Result<Position, WriteError> {
        let PackedBuffer { table, numbers, packed } = buffer;
        let is_written = |hash| table.contains(hash, Seen::ALL);
        let log = self.log.log();
        let mut append = self.append(&is_written)?;
        let by_hash = table.by_hash();
        let Resolution { resolved, dropped, added } =
            append.resolve(by_hash.iter().map(|(_, one)| *one))?;
        // Where each record of the buffer stands in `resolved`.
        let mut places = vec![None; table.count(Seen::ALL) as usize];
        let mut dropped_from = dropped.iter().peekable();
        let kept =
            by_hash.iter().enumerate().filter(|(at, _)| dropped_from.next_if_eq(&at).is_none());
        for (place, (_, (number, _))) in kept.enumerate() {
            places[*number as usize] = Some(place);
        }
        let repack = || {
            let entries: Vec<&[u8]> =
                numbers.iter().filter_map(|number| table.record(*number)).collect();
            let is_kept: Vec<bool> =
                numbers.iter().map(|number| places[*number as usize].is_some()).collect();
            log.repack(packed, &entries, &is_kept)
        };
        // Beside `packed`: another attempt may find others dropped.
        let repacked = if dropped.is_empty() { None } else { repack() };
        // There may be many, and what follows takes memory of its own.
        drop(by_hash);
        let order: Vec<usize> =
            numbers.iter().filter_map(|number| places[*number as usize]).collect();
        drop(places);
        append.put_packed(&resolved, &order, repacked.as_ref().unwrap_or(packed))?;
        drop((repacked, order, resolved));
        append.put(&added)?;
        drop(added);
        append.finish(Room::Exact)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use zkv_io::MemoryStorage;
    use zkv_sim::{Act, Watched};

    use crate::options::{Cleaning, Options};
    use crate::store::Store;

    fn options(storage: &Arc<MemoryStorage>) -> Options {
        Options::new().storage(storage.clone()).cleaning(Cleaning::Off)
    }

    fn set_and_freeze(store: &Store, keys: std::ops::Range<u32>) {
        for key in keys {
            store.set(&key, &format!("value {key}")).unwrap();
        }
        store.shared().freeze_active();
    }

    fn check(store: &Store, values: std::ops::Range<u32>) {
        for key in 0..values.end {
            let expected = values.contains(&key).then(|| format!("value {key}"));
            assert_eq!(store.get::<_, String>(&key).unwrap(), expected);
        }
        assert_eq!(store.len(), u64::from(values.end - values.start));
        assert_eq!(store.verify(|_| {}).unwrap().findings, []);
    }

    #[test]
    fn buffers_are_packed_in_their_order_and_each_of_them_once() {
        let store = options(&Arc::default()).open("store.zkv").unwrap();
        let shared = store.shared();
        // The flushing thread, too, needs the writer before it takes a packed buffer away.
        let mut writer = shared.writer().unwrap();
        set_and_freeze(&store, 0..100);
        set_and_freeze(&store, 100..200);
        // The flushing thread packs some of them, maybe.
        assert!((0..3).any(|_| !shared.pack_next().unwrap()));
        let frozen = shared.view.load().frozen.clone();
        {
            let state = shared.pipeline.state();
            let tables = state.packed.iter().map(|buffer| &buffer.table);
            let mut in_order = tables.zip(frozen.iter().rev());
            assert_eq!(state.packed.len(), 2);
            assert!(in_order.all(|(packed, frozen)| Arc::ptr_eq(packed, frozen)));
        }
        shared.flush_oldest(&mut writer).unwrap();
        // The one that is committed is not the next.
        assert!(!shared.pack_next().unwrap());
        shared.flush_oldest(&mut writer).unwrap();
        assert!(shared.pipeline.state().packed.is_empty());
        drop(writer);
        check(&store, 0..200);
    }

    #[test]
    fn what_a_commit_drops_of_a_packed_buffer_is_not_in_the_log() {
        let storage = Arc::default();
        let store = options(&storage).open("store.zkv").unwrap();
        set_and_freeze(&store, 0..1000);
        store.flush().unwrap();
        {
            let mut writer = store.shared().writer().unwrap();
            // Half of them never were.
            for key in 900..1100u32 {
                let _ = store.delete(&key).unwrap();
            }
            for key in 1100..1200u32 {
                store.set(&key, &"gone").unwrap();
                assert!(store.delete(&key).unwrap());
            }
            store.shared().freeze_active();
            store.shared().pack_oldest().unwrap();
            store.shared().flush_all(&mut writer).unwrap();
        }
        let tail = store.shared().writer().unwrap().tail.records;
        assert_eq!(tail, 1000 + 100);
        check(&store, 0..900);
        store.close().unwrap();
        check(&options(&storage).use_index_file(false).open("store.zkv").unwrap(), 0..900);
    }

    /// Each write that a full disk has refused compressed anew what waits in the buffers.
    #[test]
    fn what_could_not_be_committed_stays_packed() {
        let is_full = Arc::new(AtomicBool::new(false));
        let of_disk = Arc::clone(&is_full);
        let memory = Arc::new(MemoryStorage::new());
        let storage = Watched::new(memory.clone(), move |act, path| {
            let is_data = act == Act::Write && path.ends_with("store.zkv");
            let is_refused = is_data && of_disk.load(Ordering::SeqCst);
            if is_refused { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        });
        let options = Options::new().storage(Arc::new(storage)).cleaning(Cleaning::Off);
        let store = options.open("store.zkv").unwrap();
        let shared = store.shared();
        {
            let mut writer = shared.writer().unwrap();
            set_and_freeze(&store, 0..100);
            is_full.store(true, Ordering::SeqCst);
            for _ in 0..3 {
                assert!(shared.flush_all(&mut writer).is_err());
                let state = shared.pipeline.state();
                let tables: Vec<_> = state.packed.iter().map(|buffer| &buffer.table).collect();
                let frozen = &shared.view.load().frozen;
                assert!(tables.len() == 1 && frozen.len() == 1, "{} packed", tables.len());
                assert!(Arc::ptr_eq(tables[0], &frozen[0]));
            }
            // What came behind is packed behind it.
            set_and_freeze(&store, 100..200);
            assert!(shared.flush_all(&mut writer).is_err());
            is_full.store(false, Ordering::SeqCst);
            shared.flush_all(&mut writer).unwrap();
            assert!(shared.pipeline.state().packed.is_empty());
        }
        check(&store, 0..200);
        store.close().unwrap();
        check(&options_of(&memory), 0..200);
    }

    fn options_of(storage: &Arc<MemoryStorage>) -> Store {
        options(storage).use_index_file(false).open("store.zkv").unwrap()
    }
}
