//! Runs of the command that change a store, and what they say that they have done.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::Command;

use zkv_measure::random::Random;

use crate::torture::command::{Outcome, Zkv, with_input};
use crate::torture::workload::{self, Operation, Values};

/// The store's name within its folder.
pub const STORE: &str = "s.zkv";
/// The copy's, where one is made.
pub const COPY: &str = "copy.zkv";
/// The smallest segments there are, so that there are many.
const SLOT_BYTES: &str = "262144";

/// What the victim does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Imports, and acknowledges as it goes.
    Import(Waits),
    Set,
    Delete,
    RebuildIndex,
    Backup,
}

/// How safe what is acknowledged is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Waits {
    Buffered,
    Flushed,
    Synced,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Victim {
    pub kind: Kind,
    pub operations: Vec<Operation>,
    arguments: Vec<OsString>,
    input: Vec<u8>,
}

impl Victim {
    /// A run of `kind` on the store in `folder`, with `count` operations that are numbered from
    /// `first` on.
    pub fn new(
        kind: Kind,
        folder: &Path,
        values: Values,
        first: u64,
        count: u64,
        random: &mut Random,
    ) -> Self {
        let operations = match kind {
            Kind::Import(_) => workload::sets(random, first, count),
            Kind::Set => workload::sets(random, first, 1),
            Kind::Delete => workload::deletes(random, count),
            Kind::RebuildIndex | Kind::Backup => Vec::new(),
        };
        let mut victim = Self { kind, operations, arguments: Vec::new(), input: Vec::new() };
        victim.set_arguments(folder, values, random);
        victim
    }

    fn set_arguments(&mut self, folder: &Path, values: Values, random: &mut Random) {
        let store = folder.join(STORE).into_os_string();
        let mut rest: Vec<OsString> = Vec::new();
        let mut push = |argument: &str| rest.push(argument.into());
        let name = match self.kind {
            Kind::Import(waits) => {
                self.input = workload::table(&self.operations, values);
                let interval = (1 + random.below(8)).to_string();
                let waits = match waits {
                    Waits::Buffered => "buffered",
                    Waits::Flushed => "flushed",
                    Waits::Synced => "synced",
                };
                ["-", "--format", "tsv", "--slot-bytes", SLOT_BYTES]
                    .into_iter()
                    .for_each(&mut push);
                ["--durability", waits, "--acknowledge", &interval].into_iter().for_each(&mut push);
                "import"
            }
            Kind::Set => {
                if let Some(Operation::Set { key, number }) = self.operations.first() {
                    push(key);
                    self.input = values.get(*number);
                }
                "set"
            }
            Kind::Delete => {
                for operation in &self.operations {
                    let (Operation::Delete { key } | Operation::Set { key, .. }) = operation;
                    push(key);
                }
                "del"
            }
            Kind::RebuildIndex => "rebuild-index",
            Kind::Backup => {
                rest.push(folder.join(COPY).into_os_string());
                "backup"
            }
        };
        self.arguments = vec![name.into(), store];
        self.arguments.extend(rest);
    }

    /// The run, about to start; its input lies in `input`.
    pub fn command(&self, zkv: &Zkv, input: &Path) -> io::Result<Command> {
        self.wrapped(Command::new(zkv.path()), input)
    }

    /// The same, behind a program and its arguments, the last of which is the command.
    pub fn wrapped(&self, mut command: Command, input: &Path) -> io::Result<Command> {
        command.args(&self.arguments);
        with_input(&mut command, &self.input, input)?;
        Ok(command)
    }

    /// How many of the operations `outcome` acknowledges.
    pub fn acknowledged(&self, outcome: &Outcome) -> usize {
        if self.is_done(outcome) { self.operations.len() } else { self.told_in(&outcome.output) }
    }

    /// How many of the operations are acknowledged by what it has printed while it runs.
    pub fn told_in(&self, output: &[u8]) -> usize {
        match self.kind {
            Kind::Import(_) => last_number(output).min(self.operations.len()),
            _ => 0,
        }
    }

    /// Whether it did all that it was to do.
    pub fn is_done(&self, outcome: &Outcome) -> bool {
        // Code 1: a key to delete was not there.
        outcome.code() == Some(0) || (self.kind == Kind::Delete && outcome.code() == Some(1))
    }

    /// The number of the operation behind the last.
    pub fn next(&self, first: u64) -> u64 {
        first + self.operations.len() as u64
    }
}

/// The number in the last whole line.
fn last_number(output: &[u8]) -> usize {
    let whole =
        output.iter().rposition(|&byte| byte == b'\n').map_or(&[][..], |end| &output[..end]);
    let text = std::str::from_utf8(whole).unwrap_or_default();
    text.lines().last().and_then(|line| line.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::last_number;

    #[test]
    fn a_line_counts_once_it_is_whole() {
        for (output, expected) in [("", 0), ("1", 0), ("1\n", 1), ("8\n16\n24", 16)] {
            assert_eq!(last_number(output.as_bytes()), expected, "{output:?}");
        }
    }
}
