//! What a file from a stranger may do to zkv, and what must not happen: a panic, an abort, a hang,
//! or memory without bound.
//!
//! Each target is a function from bytes, so that libFuzzer (`fuzz/`), the driver of this crate (on
//! stable) and the ordinary tests call the same code. Those named `-mended` make every checksum right
//! again before they look at the bytes, as somebody would who forges a file; without that, nothing
//! gets past the first checksum.
//!
//! `cargo xtask fuzz` runs them. It is no part of the library.

pub mod corpus;
pub mod mend;
mod mend_index;
pub mod mutate;
mod pair;
pub mod random;
mod storage;
pub mod targets;

pub use targets::{TARGETS, Target};
