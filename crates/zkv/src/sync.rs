//! What threads share and wait with, by one name each: model checks put others in their place, whose
//! every step they schedule.

#[cfg(not(zkv_model))]
pub(crate) use {
    arc_swap::ArcSwap,
    std::sync::{Condvar, Mutex, MutexGuard, atomic},
    std::thread,
};

#[cfg(zkv_model)]
pub(crate) use zkv_model::sync::{ArcSwap, Condvar, Mutex, MutexGuard, atomic, thread};
