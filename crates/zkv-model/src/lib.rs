//! What the model checks put in the place of locks, atomics, threads and `arc-swap`.
//!
//! `tests/` runs the sources of `zkv-log` and `zkv-store` on it: [shuttle](https://docs.rs/shuttle)
//! decides at each of these which thread goes on, by a chance that can be replayed, and reports a
//! deadlock. Memory is sequentially consistent here: whether an ordering is strong enough is for
//! ThreadSanitizer to see. `docs/testing.md` says what is checked.
//!
//! The crates in `crates/modelled` build those sources with `cfg(zkv_model)`; in them, the module `sync`
//! takes its names from [`sync`].

mod lock;
mod run;
mod swap;

pub use run::check;

/// By the names that the crates know.
pub mod sync {
    pub use crate::lock::{Condvar, Mutex, MutexGuard, WaitTimeoutResult};
    pub use crate::swap::ArcSwap;
    pub use shuttle::sync::atomic;
    pub use shuttle::thread;
}
