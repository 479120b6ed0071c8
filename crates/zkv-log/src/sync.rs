//! What threads share and wait with, by one name each, so that another implementation can take its
//! place.

pub(crate) use arc_swap::ArcSwap;
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, atomic};
