//! The `zkv` command: import, export, look into and back up stores.
//!
//! One file a command. Results go to standard output, messages and progress to standard error, and
//! the exit code says what kind of failure it was; `zkv --help` lists them.

// `output::say` does not panic where nobody listens.
#![warn(clippy::print_stderr)]

mod arguments;
mod backup;
mod compact;
mod damage;
mod del;
mod export;
mod failure;
mod get;
mod import;
mod json;
mod list;
mod output;
mod progress;
mod rebuild_index;
mod salvage;
mod set;
mod stats;
mod store;
mod streams;
mod types;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};

fn main() -> ExitCode {
    let Arguments { command, wait } = Arguments::parse();
    store::wait_for_locks(wait);
    let done = match command {
        Command::Import(arguments) => import::run(&arguments),
        Command::Export(arguments) => export::run(&arguments),
        Command::Get(arguments) => get::run(&arguments),
        Command::Set(arguments) => set::run(&arguments),
        Command::Del(arguments) => del::run(&arguments),
        Command::List(arguments) => list::run(&arguments),
        Command::Stats(arguments) => stats::run(&arguments),
        Command::Backup(arguments) => backup::run(&arguments),
        Command::Compact(arguments) => compact::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::RebuildIndex(arguments) => rebuild_index::run(&arguments),
        Command::Salvage(arguments) => salvage::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_silent() {
                output::say(format_args!("zkv: {failure}"));
            }
            failure.exit_code()
        }
    }
}
