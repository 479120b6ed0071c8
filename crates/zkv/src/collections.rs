//! The named collections that are in use.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use crate::sync::{Mutex, MutexGuard};
use crate::write::write_set::{CollectionState, Opening};

/// Every handle of a collection shares its state.
#[derive(Debug, Default)]
pub(crate) struct Collections {
    pub opening: Opening,
    by_name: Mutex<HashMap<String, Arc<CollectionState>>>,
    gate: Mutex<()>,
}

impl Collections {
    /// To be held while what the catalog says is changed.
    pub(crate) fn gate(&self) -> MutexGuard<'_, ()> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a collection that was dropped. Its handles know that it was.
    pub(crate) fn forget(&self, name: &str) {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// The state of `name`, whose number is `id`.
    pub(crate) fn get(&self, name: &str, id: u32) -> Arc<CollectionState> {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let known = by_name.get(name).filter(|state| state.id().is_some());
        let state = known
            .map_or_else(|| Arc::new(CollectionState::new(id, self.opening.clone())), Arc::clone);
        by_name.insert(name.to_owned(), Arc::clone(&state));
        state
    }
}
