//! `arc_swap::ArcSwap`, as far as its contract goes.

use std::fmt;
use std::sync::{Arc, PoisonError};

use crate::lock::{Mutex, MutexGuard};

/// A pointer that is loaded and stored in one step each. What is loaded stays alive for as long as
/// the guard does, which is an [`Arc`] here.
pub struct ArcSwap<T> {
    current: Mutex<Arc<T>>,
}

impl<T> ArcSwap<T> {
    /// Holds `value`.
    pub fn from_pointee(value: T) -> Self {
        Self { current: Mutex::new(Arc::new(value)) }
    }

    /// What it holds now.
    #[must_use]
    pub fn load(&self) -> Arc<T> {
        Arc::clone(&self.current())
    }

    /// What it holds now.
    #[must_use]
    pub fn load_full(&self) -> Arc<T> {
        self.load()
    }

    /// Holds `value` from now on.
    pub fn store(&self, value: Arc<T>) {
        let before = std::mem::replace(&mut *self.current(), value);
        // Its destructor may do anything, and holds nobody up.
        drop(before);
    }

    fn current(&self) -> MutexGuard<'_, Arc<T>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: fmt::Debug> fmt::Debug for ArcSwap<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("ArcSwap").field(&self.load()).finish()
    }
}
