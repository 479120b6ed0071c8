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
use failure::Failure;

fn main() -> ExitCode {
    let Arguments { command, wait } = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(answer) => return print(&answer),
    };
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
        Err(failure) => tell(&failure),
    }
}

/// Prints the help that was asked for, or what is wrong with the arguments.
fn print(answer: &clap::Error) -> ExitCode {
    match answer.print() {
        Err(error) if !answer.use_stderr() => tell(&Failure::standard_output(error)),
        _ if answer.use_stderr() => ExitCode::from(2),
        _ => ExitCode::SUCCESS,
    }
}

fn tell(failure: &Failure) -> ExitCode {
    if !failure.is_silent() {
        output::say(format_args!("zkv: {failure}"));
    }
    failure.exit_code()
}
