//! Commits that go straight to the log. Those that wait together are written together.

mod queue;

use std::io;
use std::mem::take;
use std::sync::Arc;
use std::time::Instant;

use zkv_index::KeyHash;
use zkv_log::{LogError, Position, Room};

use crate::error::{Error, Result};
use crate::hashed::KeyMap;
use crate::options::Durability;
use crate::shared::Shared;
use crate::write::append::Append;
use crate::write::buffer::check;
use crate::write::operation::Operation;
use crate::write::reserve::Reserved;
use crate::write::spill::Spilled;
use crate::write::write_set::{Body, Condition, Large, Move, Write, WriteSet, Writes};
use crate::write::writer::{WriteError, Writer};
pub(crate) use queue::Queues;
use queue::Ticket;

/// Why several commits were refused.
struct Refused {
    error: Error,
    /// Whether what waits in buffers was, which goes before any of them.
    of_buffers: bool,
}

impl Refused {
    fn of_buffers(error: Error) -> Self {
        Self { error, of_buffers: true }
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self { error, of_buffers: false }
    }
}

impl Shared {
    /// Commits writes that are in memory and move no collection, and waits for what `set` asks for.
    pub(crate) fn commit(&self, mut set: WriteSet<'static>) -> Result<()> {
        if set.fits_buffer(self.options.memory_buffer_bytes) {
            let WriteSet { writes, reads, collections, .. } = &mut set;
            let on = Condition { reads: reads.as_deref(), collections };
            return self.buffer(writes.in_memory_mut(), on);
        }
        self.commit_straight(set)
    }

    /// Writes what waits in buffers and syncs it, with whoever commits at that moment: as a commit of nothing.
    pub(crate) fn sync_in_turn(&self) -> Result<()> {
        self.commit_straight(WriteSet::of_nothing(Durability::Synced))
    }

    fn commit_straight(&self, set: WriteSet<'static>) -> Result<()> {
        let set = Arc::new(set);
        self.mended(|| self.commit_in_turn(&set))?;
        self.clean_behind(Ok(()))
    }

    /// As [`Shared::commit`], by itself: `set` may borrow what it holds.
    pub(crate) fn commit_alone(&self, set: &WriteSet<'_>) -> Result<()> {
        self.clean_behind(self.commit_within_gate(set))
    }

    /// As [`Shared::commit_alone`], without a share of the cleaning: for who holds a lock that others wait for.
    pub(crate) fn commit_within_gate(&self, set: &WriteSet<'_>) -> Result<()> {
        let end = self.mended(|| {
            let mut writer = self.writer()?;
            let committed = self.commit_set(&mut writer, set);
            self.after_commit(&mut writer);
            committed
        })?;
        self.sync_for(set.durability, end)
    }

    fn sync_for(&self, durability: Durability, end: Position) -> Result<()> {
        match durability {
            Durability::Synced => self.log.sync(end).map_err(Error::data(&self.path)),
            Durability::Buffered | Durability::Flushed => Ok(()),
        }
    }

    /// Commits `set`, with others, and syncs it where it asks for that.
    fn commit_in_turn(&self, set: &Arc<WriteSet<'static>>) -> Result<Position> {
        // Before the queue: whose turn it was when the process was forked never ends it here.
        self.check_writable()?;
        let mut turn = match self.queues.of(set.durability).wait(set) {
            Ok(turn) => turn,
            Err(outcome) => return outcome,
        };
        if set.durability == Durability::Synced {
            turn.gather();
        }
        // While this waits, others join.
        self.wait_to_commit(|| turn.bytes_in_memory());
        let mut outcomes = self.commit_tickets(turn.begin());
        let end = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).max();
        let (start, is_synced) =
            (Instant::now(), end.is_none_or(|end| *end <= self.log.synced_upto()));
        let synced = end.map_or(Ok(()), |end| self.sync_for(set.durability, *end));
        if !is_synced {
            turn.note_sync(start.elapsed());
        }
        if synced.is_err() {
            for (number, outcome) in outcomes.iter_mut().enumerate() {
                if number != turn.own() && outcome.is_ok() {
                    *outcome = Err(Error::data(&self.path)(self.log.sync_failure()));
                }
            }
        }
        // What was not committed is told so, whatever became of the sync of others.
        let end = turn.tell(outcomes)?;
        synced.map(|()| end)
    }

    fn commit_tickets(&self, tickets: &[Arc<Ticket>]) -> Vec<Result<Position>> {
        let Ok(mut writer) = self.writer() else {
            return tickets.iter().map(|_| Err(Error::Closed)).collect();
        };
        let sets: Vec<&WriteSet<'_>> = tickets.iter().map(|ticket| &*ticket.set).collect();
        let outcomes = match self.commit_sets(&mut writer, &sets) {
            Ok(outcomes) => outcomes,
            Err(refused) => self.commit_each(&mut writer, &sets, refused),
        };
        self.after_commit(&mut writer);
        outcomes
    }

    /// What becomes of each of `sets`, which were refused together.
    fn commit_each(
        &self,
        writer: &mut Writer,
        sets: &[&WriteSet<'_>],
        Refused { error, of_buffers }: Refused,
    ) -> Vec<Result<Position>> {
        if sets.len() == 1 {
            return vec![Err(error)];
        }
        let commit = |set: &&WriteSet<'_>| match without_room(&error).filter(|_| of_buffers) {
            // None of them is to blame, and each would wait for as long to find the disk as full.
            Some(error) => Err(error),
            // One of them may be to blame: each gets an outcome of its own.
            None => self.commit_set(writer, set),
        };
        sets.iter().map(commit).collect()
    }

    fn commit_set(&self, writer: &mut Writer, set: &WriteSet<'_>) -> Result<Position> {
        let outcomes = self.commit_sets(writer, &[set]).map_err(|refused| refused.error)?;
        outcomes.into_iter().next().unwrap_or(Err(Error::Interrupted))
    }

    /// Commits those of `sets` that conflict with nothing, in one commit of the log, and publishes
    /// them. What waits in buffers goes first: it came before.
    fn commit_sets(
        &self,
        writer: &mut Writer,
        sets: &[&WriteSet<'_>],
    ) -> Result<Vec<Result<Position>>, Refused> {
        if sets.is_empty() {
            return Ok(Vec::new());
        }
        let _reservation = Reservation::new(self, sets);
        self.flush_all(writer).map_err(Refused::of_buffers)?;
        let checked = self.check_all(sets);
        let agreed: Vec<&WriteSet<'_>> = sets
            .iter()
            .zip(&checked)
            .filter_map(|(set, checked)| (checked.is_ok() && !set.is_of_nothing()).then_some(*set))
            .collect();
        if agreed.is_empty() {
            if checked.iter().any(Result::is_ok) {
                // What is there is to be synced, as a commit would have left it.
                writer.log.mend().map_err(Error::data(&self.path))?;
            }
            return Ok(checked
                .into_iter()
                .map(|checked| checked.map(|()| writer.log.end()))
                .collect());
        }
        let mut end = self.write_all(writer, &agreed)?;
        if self.publish_sets(writer, &agreed) {
            // What others have buffered meanwhile was seen first: nobody hears of these before that is in
            // the log. Where it cannot be written, it waits on, and those who write next are told.
            let _ = self.flush_all(writer);
            end = writer.log.end();
        }
        Ok(checked.into_iter().map(|checked| checked.map(|()| end)).collect())
    }

    /// Whether what each of `sets` depends on is still so, with those before it committed.
    fn check_all(&self, sets: &[&WriteSet<'_>]) -> Vec<Result<()>> {
        let front = self.front();
        let mut earlier: Vec<(KeyHash, u32)> = Vec::new();
        let mut checked = Vec::with_capacity(sets.len());
        for set in sets {
            let mut agreed = check(&front, set.condition());
            if let Some(reads) = &set.reads
                && earlier.iter().any(|(hash, collection)| reads.depends_on(*hash, *collection))
            {
                agreed = Err(Error::Conflict);
            }
            if agreed.is_ok() && sets.len() > 1 {
                earlier.extend(set.writes.keys());
            }
            checked.push(agreed);
        }
        checked
    }

    fn write_all(&self, writer: &mut Writer, sets: &[&WriteSet<'_>]) -> Result<Position> {
        let is_synced = sets.iter().any(|set| set.durability == Durability::Synced);
        let room = if is_synced { Room::Ahead } else { Room::Exact };
        match sets {
            [WriteSet { writes: Writes::Many(spilled), .. }] => {
                self.write_spilled(writer, spilled, room)
            }
            [set] => self.write(writer, set.writes.in_memory().iter(), room),
            sets => {
                let mut last: KeyMap<&Write<'_>> = KeyMap::default();
                for write in sets.iter().flat_map(|set| set.writes.in_memory()) {
                    last.insert(write.hash, write);
                }
                self.write(writer, last.into_values(), room)
            }
        }
    }

    /// Writes one commit of a few writes. Long values come first, so that all else is packed together.
    fn write<'w>(
        &self,
        writer: &mut Writer,
        writes: impl Iterator<Item = &'w Write<'w>>,
        room: Room,
    ) -> Result<Position> {
        let mut writes: Vec<&Write<'_>> = writes.collect();
        writes.sort_unstable_by_key(|write| write.hash);
        let is_written = |hash| writes.binary_search_by_key(&hash, |write| write.hash).is_ok();
        let mut append = writer.append(&is_written).map_err(|error| self.write_error(error))?;
        let mut heads = Vec::new();
        for write in &writes {
            if let Body::Large(large) = &write.body {
                let Large { key, value } = &**large;
                let head = self.append_large(&mut append, write.collection, key, value)?;
                heads.push((write.hash, head));
            }
        }
        let mut operations: Vec<Operation<'_>> =
            heads.iter().filter_map(|(hash, record)| Operation::new(*hash, record)).collect();
        operations.extend(writes.iter().filter_map(|write| match &write.body {
            Body::Record(record) => Operation::new(write.hash, record),
            Body::Large(_) => None,
        }));
        let appended = append.add(&operations).and_then(|()| append.finish(room));
        appended.map_err(|error| self.write_error(error))
    }

    /// Writes one commit of any size, as much of it at a time as a buffer holds.
    fn write_spilled(
        &self,
        writer: &mut Writer,
        spilled: &Spilled,
        room: Room,
    ) -> Result<Position> {
        let is_written = |hash| spilled.keys().has(hash);
        let mut append = writer.append(&is_written).map_err(|error| self.write_error(error))?;
        let mut chunk = Chunk::default();
        spilled.for_each(&self.keys, self.inline_bytes_max(), |write| -> Result<()> {
            let record = match write.body {
                Body::Record(record) => record,
                Body::Large(large) => {
                    let Large { key, value } = &*large;
                    self.append_large(&mut append, write.collection, key, value)?
                }
            };
            chunk.push(write.hash, record);
            if chunk.bytes >= self.options.memory_buffer_bytes {
                chunk.append(&mut append).map_err(|error| self.write_error(error))?;
            }
            Ok(())
        })?;
        let appended = chunk.append(&mut append).and_then(|()| append.finish(room));
        appended.map_err(|error| self.write_error(error))
    }

    /// Makes what `sets` write visible. Returns whether anything waits in buffers.
    fn publish_sets(&self, writer: &Writer, sets: &[&WriteSet<'_>]) -> bool {
        let mut front = self.front();
        for set in sets {
            match &set.writes {
                Writes::Many(spilled) => front.recent.note_batch(spilled),
                few => front.recent.note(few.keys()),
            }
        }
        let moves = || sets.iter().filter_map(|set| set.moves.as_deref());
        for Move { of, .. } in moves() {
            front.recent.note_end_of(of.id);
            of.state.begin_move();
        }
        self.publish(|view| view.committed = writer.committed_view());
        for Move { of, to } in moves() {
            of.state.end_move(*to);
        }
        let view = self.view.load();
        !view.active.is_empty() || !view.frozen.is_empty()
    }
}

/// The same error, for another one whose commit it refuses, where it says that the data file could not grow.
fn without_room(error: &Error) -> Option<Error> {
    let Error::Data { path, cause: LogError::Io { action, cause } } = error else { return None };
    let again = match cause.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => cause.kind().into(),
    };
    let cause = LogError::Io { action, cause: again };
    error.is_without_room().then(|| Error::Data { path: path.clone(), cause })
}

/// Records that are appended together.
#[derive(Default)]
struct Chunk {
    records: Vec<(KeyHash, Vec<u8>)>,
    bytes: usize,
}

impl Chunk {
    fn push(&mut self, hash: KeyHash, record: Vec<u8>) {
        self.bytes += record.len() + size_of::<(KeyHash, Vec<u8>)>();
        self.records.push((hash, record));
    }

    /// Appends what is there, and empties this.
    fn append(&mut self, append: &mut Append<'_>) -> std::result::Result<(), WriteError> {
        let Self { mut records, .. } = take(self);
        // That is how the index lies in memory.
        records.sort_unstable_by_key(|(hash, _)| *hash);
        let operations: Vec<Operation<'_>> =
            records.iter().filter_map(|(hash, record)| Operation::new(*hash, record)).collect();
        append.add(&operations)
    }
}

/// What a commit has reserved, given back when it is done.
struct Reservation<'a>(&'a Shared);

impl<'a> Reservation<'a> {
    fn new(shared: &'a Shared, sets: &[&WriteSet<'_>]) -> Self {
        let reserved = Reserved::of(sets);
        shared.front().reserved = Some(reserved);
        Self(shared)
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.0.front().reserved = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Duration;

    use zkv_io::MemoryStorage;
    use zkv_sim::{Act, Watched};

    use super::*;
    use crate::options::{Cleaning, Options};

    #[test]
    fn a_transaction_that_no_buffer_holds_goes_to_the_log_at_once() {
        let options = Options::new().storage(Arc::new(MemoryStorage::new()));
        let options =
            options.memory_buffer_bytes(64 << 10).flush_interval(Duration::from_secs(3600));
        let store = options.open("store.zkv").unwrap();
        for (count, is_buffered) in [(10u32, true), (100, false)] {
            let mut tx = store.begin().unwrap();
            for key in 0..count {
                tx.set_bytes(&key.to_be_bytes(), &[7; 1000]).unwrap();
            }
            tx.commit().unwrap();
            assert_eq!(store.shared().view.load().active.is_empty(), !is_buffered);
            assert_eq!(store.len(), u64::from(count));
        }
    }

    /// Each of them compressed and wrote all of the buffers anew, before any was told.
    #[test]
    fn a_disk_that_has_no_room_for_the_buffers_is_asked_once_for_all_commits_of_a_turn() {
        let (is_full, refused) = (AtomicBool::new(false), AtomicUsize::new(0));
        let of_disk = Arc::new((is_full, refused));
        let disk = Arc::clone(&of_disk);
        let storage = Watched::new(Arc::new(MemoryStorage::new()), move |act, path| {
            let is_data = act == Act::Write && path.ends_with("store.zkv");
            if is_data && disk.0.load(Ordering::SeqCst) {
                disk.1.fetch_add(1, Ordering::SeqCst);
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        });
        let options = Options::new().storage(Arc::new(storage)).cleaning(Cleaning::Off);
        let store = options.flush_interval(Duration::from_secs(3600)).open("store.zkv").unwrap();
        store.set_bytes(b"buffered", b"1").unwrap();
        of_disk.0.store(true, Ordering::SeqCst);
        let shared = store.shared();
        let queue = shared.queues.of(Durability::Flushed);
        let wait = |key: u8| {
            let key = [key];
            let write = Write::put(shared.key(0, &key), b"2", shared.inline_bytes_max());
            queue.wait(&Arc::new(WriteSet::one(write.into_owned(), Durability::Flushed)))
        };
        let refused_for = |count: u8| {
            let mut turn = wait(0).ok().unwrap();
            let bytes = turn.bytes_in_memory();
            std::thread::scope(|scope| {
                let followers: Vec<_> = (1..count)
                    .map(|key| scope.spawn(move || wait(key).err().expect("it has the turn")))
                    .collect();
                while turn.bytes_in_memory() < u64::from(count) * bytes {
                    std::thread::yield_now();
                }
                let before = of_disk.1.load(Ordering::SeqCst);
                let outcomes = shared.commit_tickets(turn.begin());
                let refused = of_disk.1.load(Ordering::SeqCst) - before;
                let mut all = vec![turn.tell(outcomes)];
                all.extend(followers.into_iter().map(|follower| follower.join().unwrap()));
                let is_told = |one: &Result<Position>| {
                    one.as_ref().is_err_and(|error| error.is_without_room())
                };
                assert!(all.len() == usize::from(count) && all.iter().all(is_told), "{all:?}");
                refused
            })
        };
        // The first one leaves something to be wiped.
        refused_for(1);
        let of_one = refused_for(1);
        assert!(of_one > 0);
        assert_eq!(refused_for(5), of_one);
        of_disk.0.store(false, Ordering::SeqCst);
        store.flush().unwrap();
        assert_eq!(store.len(), 1);
    }
}
