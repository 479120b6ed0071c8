//! Who syncs and who waits for it, so that one sync covers as many commits as it can.

use std::sync::PoisonError;
use std::time::Duration;

use crate::position::Position;
use crate::sync::{Condvar, Mutex, MutexGuard};

/// A sync waits for others for this share of the time that the last one took,
const PATIENCE_SHARE: u32 = 8;
/// and no longer than this: where syncs take that long, what is slow is not the waiting.
const PATIENCE_MAX: Duration = Duration::from_millis(2);

/// Threads that commit again and again would fall into two groups, of which each waits for the
/// sync of the other: those that a sync has released come back just after the next one has begun. So
/// a sync waits a moment where the last one has covered more commits than wait now.
#[derive(Debug, Default)]
pub(crate) struct Gather {
    state: Mutex<State>,
    arrived: Condvar,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// A failure of the disk is reported to one caller only: who syncs at the same time must not take
    /// its own success for proof.
    is_syncing: bool,
    /// The ends of the commits that wait.
    waiting: Vec<Position>,
    /// How many the last sync has covered.
    last_count: usize,
    patience: Duration,
}

impl State {
    fn count_behind(&self, synced_upto: Position) -> usize {
        self.waiting.iter().filter(|end| **end > synced_upto).count()
    }
}

/// The turn to sync, which ends with this.
pub(crate) struct Turn<'a>(&'a Gather);

/// One commit that waits.
pub(crate) struct Waiting<'a> {
    gather: &'a Gather,
    end: Position,
}

impl Gather {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the commit that ends at `end` waits, until the result is dropped.
    pub(crate) fn enter(&self, end: Position) -> Waiting<'_> {
        self.state().waiting.push(end);
        self.arrived.notify_one();
        Waiting { gather: self, end }
    }

    /// Waits until `answer` knows one, or nobody syncs: then it is the caller's turn.
    pub(crate) fn wait_for_turn<T>(&self, answer: impl Fn() -> Option<T>) -> Result<Turn<'_>, T> {
        let mut state = self.state();
        loop {
            if let Some(answer) = answer() {
                return Err(answer);
            }
            if !state.is_syncing {
                state.is_syncing = true;
                return Ok(Turn(self));
            }
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for those that the last sync has covered, as long as that is worth it. The caller is about
    /// to sync what lies behind `synced_upto`.
    pub(crate) fn wait_for_others(&self, synced_upto: Position) {
        let state = self.state();
        let (expected, patience) = (state.last_count, state.patience);
        let too_few = |state: &mut State| state.count_behind(synced_upto) < expected;
        let waited = self.arrived.wait_timeout_while(state, patience, too_few);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.last_count = state.count_behind(synced_upto);
    }

    /// Notes how long the sync took.
    pub(crate) fn note_time(&self, time: Duration) {
        self.state().patience = (time / PATIENCE_SHARE).min(PATIENCE_MAX);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state().is_syncing = false;
        self.0.ended.notify_all();
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.gather.state();
        if let Some(place) = state.waiting.iter().position(|end| *end == self.end) {
            state.waiting.swap_remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(offset: u32) -> Position {
        Position { sequence: 1, offset }
    }

    #[test]
    fn a_lone_commit_waits_for_nobody() {
        let gather = Gather::default();
        gather.note_time(Duration::from_secs(3600));
        let _waiting = gather.enter(end(10));
        gather.wait_for_others(end(5));
        gather.wait_for_others(end(5));
        assert_eq!(gather.state().last_count, 1);
    }

    #[test]
    fn a_sync_waits_until_as_many_have_come_as_the_last_one_covered() {
        let gather = Gather::default();
        let first = [gather.enter(end(10)), gather.enter(end(20)), gather.enter(end(30))];
        gather.wait_for_others(end(5));
        // It has covered three; of those, none counts any more, whether it has left or not.
        let patient = || gather.state().patience = Duration::from_secs(3600);
        patient();
        std::thread::scope(|scope| {
            let syncing = scope.spawn(|| gather.wait_for_others(end(30)));
            let second = [gather.enter(end(40)), gather.enter(end(50))];
            assert!(!syncing.is_finished());
            drop(first);
            let _third = gather.enter(end(60));
            syncing.join().unwrap();
            drop(second);
        });
        assert_eq!(gather.state().last_count, 3);
        // Where fewer come, it waits no longer than it is patient, and expects fewer from then on.
        gather.note_time(Duration::from_millis(8));
        let _waiting = gather.enter(end(70));
        gather.wait_for_others(end(60));
        assert_eq!(gather.state().last_count, 1);
    }
}
