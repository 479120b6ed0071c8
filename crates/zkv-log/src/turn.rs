//! Who syncs, one at a time.

use std::sync::PoisonError;

use crate::sync::{Condvar, Mutex, MutexGuard};

/// A failure of the disk is reported to one caller only: who syncs at the same time must not take its own
/// success for proof.
#[derive(Debug, Default)]
pub(crate) struct SyncTurns {
    is_syncing: Mutex<bool>,
    ended: Condvar,
}

/// The turn to sync, which ends with this.
pub(crate) struct SyncTurn<'a>(&'a SyncTurns);

impl SyncTurns {
    fn is_syncing(&self) -> MutexGuard<'_, bool> {
        self.is_syncing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `answer` knows one, or nobody syncs: then it is the caller's turn.
    pub(crate) fn wait<T>(&self, answer: impl Fn() -> Option<T>) -> Result<SyncTurn<'_>, T> {
        let mut is_syncing = self.is_syncing();
        loop {
            if let Some(answer) = answer() {
                return Err(answer);
            }
            if !*is_syncing {
                *is_syncing = true;
                return Ok(SyncTurn(self));
            }
            is_syncing = self.ended.wait(is_syncing).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for SyncTurn<'_> {
    fn drop(&mut self) {
        *self.0.is_syncing() = false;
        self.0.ended.notify_all();
    }
}
