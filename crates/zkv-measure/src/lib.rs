//! What the benchmarks share: records of a file or of a seed, the blocks of a store for loops that
//! do what a store must and nothing else, and medians.
//!
//! `cargo xtask bench` holds zkv against its parts, `zkv-bench` against other engines.

#![allow(clippy::missing_errors_doc, reason = "a failure here is a sentence for a person")]

pub mod blocks;
pub mod figures;
pub mod generate;
pub mod input;
pub mod memory;
pub mod random;
pub mod raw_blocks;

/// Why a benchmark failed, for a person to read.
pub type Failure = Box<dyn std::error::Error>;
