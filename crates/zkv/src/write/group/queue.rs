//! Commits of several threads, which wait for their turn and take it together.

use std::mem::take;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use zkv_log::Position;

use crate::error::{Error, Result};
use crate::options::Durability;
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::write::write_set::WriteSet;

/// Whoever is about to sync waits for each next commit for this share of the time that the last sync took,
const PATIENCE_SHARE: u32 = 8;
/// and no longer than this: where syncs take that long, what is slow is not the waiting.
const PATIENCE_MAX: Duration = Duration::from_millis(2);

/// Commits that wait for the log, those that are synced apart from those that are not: these need not wait
/// for a disk.
#[derive(Default)]
pub(crate) struct Queues {
    flushed: Queue,
    synced: Queue,
}

/// The first that finds nobody at it takes its turn, with all that wait by then.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<Waiting>,
    /// Tells that as many have come as the last turn had.
    have_come: Condvar,
}

#[derive(Default)]
struct Waiting {
    tickets: Vec<Arc<Ticket>>,
    /// Whether it is somebody's turn.
    is_taken: bool,
    /// How many the last turn had.
    last_count: usize,
    /// How many turns there were.
    turns: u64,
    patience: Duration,
}

/// One commit that waits.
pub(super) struct Ticket {
    pub set: Arc<WriteSet<'static>>,
    told: Mutex<Option<Told>>,
    changed: Condvar,
}

/// What a thread is told whose commit waits.
enum Told {
    /// That it is its turn.
    Turn,
    /// Where the commit ends, or why there is none.
    Outcome(Result<Position>),
}

/// A turn, which ends with this.
pub(super) struct Turn<'a> {
    queue: &'a Queue,
    has_begun: bool,
    /// Those that are still to be told.
    tickets: Vec<Arc<Ticket>>,
    /// Which of them is this thread's own.
    own: usize,
}

impl Queues {
    pub(super) fn of(&self, durability: Durability) -> &Queue {
        match durability {
            Durability::Synced => &self.synced,
            Durability::Buffered | Durability::Flushed => &self.flushed,
        }
    }
}

impl Ticket {
    fn tell(&self, told: Told) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
        self.changed.notify_one();
    }

    fn wait(&self) -> Told {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(told) = told.take() {
                return told;
            }
            told = self.changed.wait(told).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the outcome of `set` is known, or it is this thread's turn, which has its ticket.
    pub(super) fn wait(
        &self,
        set: &Arc<WriteSet<'static>>,
    ) -> std::result::Result<Turn<'_>, Result<Position>> {
        let set = Arc::clone(set);
        let ticket = Arc::new(Ticket { set, told: Mutex::default(), changed: Condvar::default() });
        let turn = || Turn { queue: self, has_begun: false, tickets: Vec::new(), own: 0 };
        let mut state = self.state();
        state.tickets.push(Arc::clone(&ticket));
        if !state.is_taken {
            state.is_taken = true;
            return Ok(turn());
        }
        let have_come = state.tickets.len() == state.last_count;
        drop(state);
        if have_come {
            self.have_come.notify_one();
        }
        match ticket.wait() {
            Told::Turn => Ok(turn()),
            Told::Outcome(outcome) => Err(outcome),
        }
    }
}

impl Turn<'_> {
    /// Waits for as many as the last turn had, as long as one comes after the other. Threads that commit again
    /// and again come back a moment after they were told; where no turn waits for them, each is written by itself.
    pub(super) fn gather(&self) {
        let mut state = self.queue.state();
        let mut count = 0;
        while count < state.tickets.len() && state.tickets.len() < state.last_count {
            count = state.tickets.len();
            let patience = state.patience;
            let waited = self.queue.have_come.wait_timeout(state, patience);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What all that wait by now would write.
    pub(super) fn bytes_in_memory(&self) -> u64 {
        let state = self.queue.state();
        state.tickets.iter().map(|ticket| ticket.set.writes.bytes_in_memory()).sum()
    }

    /// Takes all that wait by now. Another one comes first each time: of those that conflict the first one
    /// succeeds, and who is told last comes back last.
    pub(super) fn begin(&mut self) -> &[Arc<Ticket>] {
        let mut state = self.queue.state();
        self.tickets = take(&mut state.tickets);
        let count = self.tickets.len();
        let first = first_of(state.turns, count);
        self.tickets.rotate_left(first);
        // It came first.
        self.own = if first == 0 { 0 } else { count - first };
        state.last_count = count;
        state.turns += 1;
        self.has_begun = true;
        &self.tickets
    }

    /// The number of this thread's own commit.
    pub(super) fn own(&self) -> usize {
        self.own
    }

    /// Notes how long the sync took with which this turn ends.
    pub(super) fn note_sync(&self, took: Duration) {
        self.queue.state().patience = (took / PATIENCE_SHARE).min(PATIENCE_MAX);
    }

    /// Tells the others what came of their commits. Returns what came of this thread's own.
    pub(super) fn tell(&mut self, outcomes: Vec<Result<Position>>) -> Result<Position> {
        let mut own = Err(Error::Interrupted);
        for (number, (ticket, outcome)) in self.tickets.drain(..).zip(outcomes).enumerate() {
            match number == self.own {
                true => own = outcome,
                false => ticket.tell(Told::Outcome(outcome)),
            }
        }
        own
    }
}

/// Which of `count` commits comes first, in no order: who comes back in that in which they were told could always
/// miss one that went round with them.
fn first_of(turn: u64, count: usize) -> usize {
    // SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    let mut mixed = turn.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    usize::try_from(mixed >> 32).unwrap_or(0) % count.max(1)
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.has_begun {
            self.begin();
        }
        for ticket in self.tickets.drain(..) {
            ticket.tell(Told::Outcome(Err(Error::Interrupted)));
        }
        let mut state = self.queue.state();
        let next = state.tickets.first().map(Arc::clone);
        state.is_taken = next.is_some();
        drop(state);
        if let Some(next) = next {
            next.tell(Told::Turn);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::mpsc::channel;
    use std::thread::{Scope, ScopedJoinHandle, scope, sleep};

    use zkv_io::MemoryStorage;
    use zkv_sim::{Act, Watched};

    use super::*;
    use crate::batch::WriteBatch;
    use crate::error::ErrorKind;
    use crate::options::{Cleaning, Options};
    use crate::write::write_set::Writes;

    const LONG: Duration = Duration::from_secs(3600);

    fn set() -> Arc<WriteSet<'static>> {
        let (writes, durability) = (Writes::Few(Vec::new()), Durability::Synced);
        Arc::new(WriteSet { writes, reads: None, collections: Vec::new(), moves: None, durability })
    }

    fn outcomes(count: usize) -> Vec<Result<Position>> {
        (0..count).map(|_| Ok(Position { sequence: 1, offset: 8 })).collect()
    }

    /// A thread whose commit is told its outcome by whoever has the turn.
    fn follower<'s>(
        queue: &'s Queue,
        scope: &'s Scope<'s, '_>,
    ) -> ScopedJoinHandle<'s, Result<Position>> {
        scope.spawn(|| queue.wait(&set()).err().expect("it is somebody else's turn"))
    }

    fn wait_until_there_are(queue: &Queue, count: usize) {
        while queue.state().tickets.len() < count {
            sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_lone_commit_waits_for_nobody() {
        let queue = Queue::default();
        queue.state().patience = LONG;
        for _ in 0..3 {
            let mut turn = queue.wait(&set()).ok().unwrap();
            turn.gather();
            assert_eq!(turn.begin().len(), 1);
            turn.tell(outcomes(1)).unwrap();
        }
    }

    #[test]
    fn a_turn_waits_until_as_many_have_come_as_the_last_one_had() {
        let queue = Queue::default();
        queue.state().patience = LONG;
        for round in 0..3 {
            let mut turn = queue.wait(&set()).ok().unwrap();
            scope(|scope| {
                let followers = [follower(&queue, scope), follower(&queue, scope)];
                if round == 0 {
                    wait_until_there_are(&queue, 3);
                }
                turn.gather();
                assert_eq!(turn.begin().len(), 3);
                turn.tell(outcomes(3)).unwrap();
                for follower in followers {
                    follower.join().unwrap().unwrap();
                }
            });
        }
        // Where nobody comes, it waits no longer than it is patient, and expects fewer from then on.
        for (patience, expected) in [(Duration::from_millis(1), 3), (LONG, 1)] {
            assert_eq!(queue.state().last_count, expected);
            queue.state().patience = patience;
            let mut turn = queue.wait(&set()).ok().unwrap();
            turn.gather();
            turn.begin();
            turn.tell(outcomes(1)).unwrap();
        }
    }

    #[test]
    fn who_comes_during_a_turn_has_the_next_one() {
        let queue = Queue::default();
        let mut turn = queue.wait(&set()).ok().unwrap();
        turn.begin();
        scope(|scope| {
            let next = scope.spawn(|| {
                let mut turn = queue.wait(&set()).ok().unwrap();
                wait_until_there_are(&queue, 2);
                let count = turn.begin().len();
                turn.tell(outcomes(count)).unwrap();
                count
            });
            wait_until_there_are(&queue, 1);
            let last = follower(&queue, scope);
            turn.tell(outcomes(1)).unwrap();
            drop(turn);
            assert_eq!(next.join().unwrap(), 2);
            last.join().unwrap().unwrap();
        });
        assert!(!queue.state().is_taken);
    }

    #[test]
    fn the_commit_that_comes_first_is_the_one_that_it_is_the_turn_of() {
        let queue = Queue::default();
        let mut firsts = Vec::new();
        for _ in 0..3 {
            let mine = set();
            let mut turn = queue.wait(&mine).ok().unwrap();
            scope(|scope| {
                // One after the other, so that their order is known.
                let mut followers = Vec::new();
                for count in 2..=3 {
                    followers.push(follower(&queue, scope));
                    wait_until_there_are(&queue, count);
                }
                let waiting = queue.state().tickets.clone();
                let first = Arc::clone(&turn.begin()[0]);
                firsts.push(waiting.iter().position(|ticket| Arc::ptr_eq(ticket, &first)).unwrap());
                assert!(Arc::ptr_eq(&turn.tickets[turn.own].set, &mine));
                turn.tell(outcomes(3)).unwrap();
                for follower in followers {
                    follower.join().unwrap().unwrap();
                }
            });
        }
        assert_eq!(firsts, [0, 1, 2].map(|turn| first_of(turn, 3)));
    }

    /// Where threads come back in the order in which they were told, first the one that tells.
    #[test]
    fn each_of_many_threads_comes_first_now_and_then() {
        for count in 2..=32 {
            let mut order: Vec<usize> = (0..count).collect();
            let mut last_first = vec![0; count];
            for turn in 0..20_000u64 {
                let mut told = order.clone();
                told.rotate_left(first_of(turn, count));
                last_first[told[0]] = turn;
                let leader = order[0];
                told.retain(|one| *one != leader);
                order = [vec![leader], told].concat();
                let least = last_first.iter().min().unwrap();
                // A transaction is tried again 100 times.
                assert!(turn - least < 50 * count as u64, "{count} threads, turn {turn}");
            }
        }
    }

    /// It was told of the sync that failed, and what was never written seemed to be there, perhaps.
    #[test]
    fn who_leads_a_turn_whose_sync_fails_is_told_what_became_of_its_own_commit() {
        let (is_held, fails) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (entered, is_entered) = channel();
        let (leave, may_leave) = channel::<()>();
        let (holds, of_disk, may_leave) = (is_held.clone(), fails.clone(), Mutex::new(may_leave));
        let storage = Watched::new(Arc::new(MemoryStorage::new()), move |act, path| {
            if act != Act::Sync || !path.ends_with("store.zkv") {
                return Ok(());
            }
            if holds.swap(false, Ordering::SeqCst) {
                entered.send(()).unwrap();
                may_leave.lock().unwrap().recv().unwrap();
                return Ok(());
            }
            if of_disk.load(Ordering::SeqCst) { Err(io::Error::other("broken")) } else { Ok(()) }
        });
        let options = Options::new().storage(Arc::new(storage)).cleaning(Cleaning::Off);
        let store = options.durability(Durability::Synced).open("store.zkv").unwrap();
        store.set("key", &0u32).unwrap();
        let queue = store.shared().queues.of(Durability::Synced);
        is_held.store(true, Ordering::SeqCst);
        scope(|scope| {
            let first = scope.spawn(|| store.set("first", &1u32));
            is_entered.recv().unwrap();
            // While that syncs, two wait for the next turn, of which the first one conflicts.
            let mut conflicting = store.begin().unwrap();
            let read: Option<u32> = conflicting.get("key").unwrap();
            conflicting.set("key", &(read.unwrap() + 10)).unwrap();
            let mut batch = WriteBatch::new();
            batch.set("key", &1u32);
            store.write_with(batch, Durability::Flushed).unwrap();
            let leader = scope.spawn(|| conflicting.commit());
            wait_until_there_are(queue, 1);
            let follower = scope.spawn(|| store.set("other", &1u32));
            wait_until_there_are(queue, 2);
            fails.store(true, Ordering::SeqCst);
            leave.send(()).unwrap();
            first.join().unwrap().unwrap();
            assert!(matches!(leader.join().unwrap(), Err(Error::Conflict)));
            assert_eq!(follower.join().unwrap().unwrap_err().kind(), ErrorKind::Io);
        });
        assert_eq!(store.get("key").unwrap(), Some(1u32));
    }

    #[test]
    fn who_syncs_what_is_buffered_shares_a_turn_with_who_commits() {
        let syncs = Arc::new(AtomicUsize::new(0));
        let of_disk = Arc::clone(&syncs);
        let storage = Watched::new(Arc::new(MemoryStorage::new()), move |act, path| {
            if act == Act::Sync && path.ends_with("store.zkv") {
                of_disk.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        });
        let options = Options::new().storage(Arc::new(storage)).cleaning(Cleaning::Off);
        let store = options.open("store.zkv").unwrap();
        let queue = store.shared().queues.of(Durability::Synced);
        let set_and_sync = |key: u8| store.set(&key, &key).and_then(|()| store.sync());
        // What the opening has left to do is done, and the next turn waits for three.
        set_and_sync(0).unwrap();
        (queue.state().patience, queue.state().last_count) = (LONG, 3);
        syncs.store(0, Ordering::SeqCst);
        scope(|scope| {
            let mut threads = Vec::new();
            for key in 1..=2 {
                threads.push(scope.spawn(move || set_and_sync(key)));
                while !threads.iter().all(ScopedJoinHandle::is_finished)
                    && queue.state().tickets.len() < threads.len()
                {
                    sleep(Duration::from_millis(1));
                }
            }
            assert_eq!(queue.state().tickets.len(), 2, "who syncs has not waited");
            let mut batch = WriteBatch::new();
            batch.set(&3u8, &3u8);
            store.write_with(batch, Durability::Synced).unwrap();
            threads.into_iter().for_each(|thread| thread.join().unwrap().unwrap());
        });
        assert_eq!(syncs.load(Ordering::SeqCst), 1);
        assert_eq!(store.len(), 4);
    }

    #[test]
    fn a_turn_that_ends_in_a_panic_leaves_nobody_waiting() {
        let queue = Queue::default();
        for has_begun in [false, true] {
            scope(|scope| {
                let mut turn = queue.wait(&set()).ok().unwrap();
                let follower = follower(&queue, scope);
                wait_until_there_are(&queue, 2);
                let panicked = catch_unwind(AssertUnwindSafe(move || {
                    if has_begun {
                        turn.begin();
                    }
                    panic!("as a bug would");
                }));
                panicked.unwrap_err();
                assert!(matches!(follower.join().unwrap(), Err(Error::Interrupted)));
            });
            assert!(!queue.state().is_taken);
        }
    }
}
