//! Commits of several threads, which wait for their turn and take it together.

use std::mem::take;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use zkv_log::Position;

use crate::error::{Error, Result};
use crate::options::Durability;
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::write_set::WriteSet;

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
    turns: usize,
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

    /// Takes all that wait by now. They come in another order each time: of those that conflict the first one
    /// succeeds, and who is told last comes back last.
    pub(super) fn begin(&mut self) -> &[Arc<Ticket>] {
        let mut state = self.queue.state();
        self.tickets = take(&mut state.tickets);
        let count = self.tickets.len();
        let first = state.turns % count.max(1);
        self.tickets.rotate_left(first);
        // It came first.
        self.own = if first == 0 { 0 } else { count - first };
        state.last_count = count;
        state.turns = state.turns.wrapping_add(1);
        self.has_begun = true;
        &self.tickets
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
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::thread::{Scope, ScopedJoinHandle, scope, sleep};

    use super::*;
    use crate::write_set::Writes;

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
    fn each_commit_comes_first_once_in_as_many_turns_as_there_are_commits() {
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
        assert_eq!(firsts, [0, 1, 2]);
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
