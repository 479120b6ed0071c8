//! The project's tasks: `cargo xtask COMMAND`. One file a command.

mod bench;
mod ci;
mod crash;
mod examples;
mod format;
mod fuzz;
mod histories;
mod tidy;
#[cfg(unix)]
mod torture;
mod tsan;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's tasks.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What a store costs, beside what its parts cost alone.
    #[command(subcommand)]
    Bench(bench::Command),
    /// Everything that a change has to pass: format, tidy, lints, tests, documentation.
    Ci,
    /// Power cuts and failing disks, simulated.
    Crash(crash::Arguments),
    /// The real command, killed, starved and cut off; its acknowledgements held against the store.
    #[cfg(unix)]
    Torture(torture::Arguments),
    /// The rules of this code base that no compiler checks.
    Tidy,
    /// Files that a stranger may have made: random ones, with checksums wrong and right.
    Fuzz(fuzz::Command),
    /// Threads that use one store at once, held against one order of what they did.
    Histories(histories::Arguments),
    /// Tests and histories under ThreadSanitizer, where the toolchain can.
    Tsan(tsan::Arguments),
    /// The on-disk format: its pages and its golden files.
    #[command(subcommand)]
    Format(format::Command),
}

/// Why a task failed, for a person to read.
type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Bench(command) => bench::run(&command),
        Command::Ci => ci::run(),
        Command::Crash(arguments) => crash::run(&arguments),
        #[cfg(unix)]
        Command::Torture(arguments) => torture::run(&arguments),
        Command::Tidy => tidy::run(),
        Command::Format(command) => format::run(&command),
        Command::Histories(arguments) => histories::run(&arguments),
        Command::Fuzz(command) => fuzz::run(&command),
        Command::Tsan(arguments) => tsan::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("\nxtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Prints `problems`, one a line, and fails where there are any.
fn report(task: &str, problems: &[String]) -> Result<(), Failure> {
    for problem in problems {
        eprintln!("{problem}");
    }
    match problems.len() {
        0 => Ok(()),
        1 => Err(format!("{task}: 1 problem").into()),
        count => Err(format!("{task}: {count} problems").into()),
    }
}
