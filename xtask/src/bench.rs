//! `cargo xtask bench`: what a store costs, beside what its parts cost alone.
//!
//! Everything is measured side by side in one run, in rounds that take turns, and reported as
//! medians: the machine may be slow or busy, its ratios stay. `docs/benchmarks.md` has the results.

mod churn;
mod compact;
mod concurrency;
mod get;
mod import;
mod iterate;
mod memory;
mod open;
mod ratio;
mod rivals;
mod typed;

use crate::Failure;

/// What to measure.
#[derive(clap::Subcommand)]
pub enum Command {
    /// A random get, whole, against the bare decompression of the same block; gets of absent keys;
    /// several threads against one.
    Get(get::Arguments),
    /// Going through all records, against the bare decompression of all blocks.
    Iterate(iterate::Arguments),
    /// The processor time of an import against that of compressing the same blocks in a loop.
    Import(import::Arguments),
    /// Opening: time, memory, and the bytes of the index.
    Open(open::Arguments),
    /// The peak memory of an import, at three sizes.
    Memory(memory::Arguments),
    /// Keys and values over data and index, beside zstd on the whole input.
    Ratio(ratio::Arguments),
    /// Overwriting all records over and over, and deleting them, with cleaning and without.
    Churn(churn::Arguments),
    /// What a compaction wins, and what gets take before and after it.
    Compact(compact::Arguments),
    /// Reads beside a writer that syncs; commits of several threads; one batch of many records.
    Concurrency(concurrency::Arguments),
    /// Writing and reading a struct with a field of bytes, beside a copy of them.
    Typed(typed::Arguments),
    /// zkv against other engines: builds and runs `crates/zkv-bench`.
    Rivals(rivals::Arguments),
    /// What `open` measures in a process of its own.
    #[command(hide = true)]
    OpenChild(open::ChildArguments),
    /// What `memory` measures in a process of its own.
    #[command(hide = true)]
    MemoryChild(memory::ChildArguments),
}

/// Measures.
pub fn run(command: &Command) -> Result<(), Failure> {
    if cfg!(debug_assertions) {
        return Err("a build without optimization measures nothing: use `cargo xtask`".into());
    }
    match command {
        Command::Get(arguments) => get::run(arguments),
        Command::Iterate(arguments) => iterate::run(arguments),
        Command::Import(arguments) => import::run(arguments),
        Command::Open(arguments) => open::run(arguments),
        Command::Memory(arguments) => memory::run(arguments),
        Command::Ratio(arguments) => ratio::run(arguments),
        Command::Churn(arguments) => churn::run(arguments),
        Command::Compact(arguments) => compact::run(arguments),
        Command::Concurrency(arguments) => concurrency::run(arguments),
        Command::Typed(arguments) => typed::run(arguments),
        Command::Rivals(arguments) => rivals::run(arguments),
        Command::OpenChild(arguments) => open::run_child(arguments),
        Command::MemoryChild(arguments) => memory::run_child(arguments),
    }
}
