//! The real command: building it, running it, and what it left behind.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use crate::{Failure, workspace};

/// The command, built.
pub struct Zkv {
    path: PathBuf,
}

impl Zkv {
    /// Builds it as users have it: optimized.
    pub fn build() -> Result<Self, Failure> {
        let status =
            workspace::cargo().args(["build", "--quiet", "--release", "-p", "zkv-cli"]).status()?;
        if !status.success() {
            return Err("the command cannot be built".into());
        }
        // `cargo xtask` puts this program into the same folder.
        let path = std::env::current_exe()?.with_file_name("zkv");
        if path.is_file() { Ok(Self { path }) } else { Err("use `cargo xtask torture`".into()) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// It, with `arguments`.
    pub fn command<S: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = Command::new(&self.path);
        command.args(arguments).stdin(Stdio::null());
        command
    }
}

/// What a run left behind.
#[derive(Debug)]
pub struct Outcome {
    status: ExitStatus,
    /// What it printed.
    pub output: Vec<u8>,
    /// What it said about it.
    pub messages: String,
}

impl Outcome {
    /// Of a command that has ended.
    pub fn new(output: Output) -> Self {
        let messages = String::from_utf8_lossy(&output.stderr).into_owned();
        Self { status: output.status, output: output.stdout, messages }
    }

    /// The exit code, unless a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended it.
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// Whether it failed as the documentation has it: with code 5, and saying why.
    pub fn is_clear_failure(&self) -> bool {
        self.code() == Some(5) && self.messages.lines().any(|line| line.starts_with("zkv: "))
    }

    /// Whether it was refused what it has to read, as beside a bad sector: so it is where the disk is gone, and the
    /// system still has the file's first page.
    pub fn could_not_read(&self) -> bool {
        self.code() == Some(3) && self.messages.contains("the disk cannot read")
    }

    /// How it ended, in a line.
    pub fn describe(&self) -> String {
        format!("{}, saying {:?}", self.status, self.messages)
    }
}

/// Starts `command` with pipes for what it prints.
pub fn start(command: &mut Command) -> io::Result<Child> {
    // Where it panics, the message says enough.
    command.env("RUST_BACKTRACE", "0");
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
}

/// Runs `command` to its end.
pub fn finish(command: &mut Command) -> io::Result<Outcome> {
    Ok(Outcome::new(start(command)?.wait_with_output()?))
}

/// Gives `command` the bytes `input` to read.
pub fn with_input(command: &mut Command, input: &[u8], file: &Path) -> io::Result<()> {
    File::create(file)?.write_all(input)?;
    command.stdin(File::open(file)?);
    Ok(())
}

/// Runs a tool of the system, and says what it said where it fails.
pub fn tool(name: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(name).args(arguments).output();
    let output = output.map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name} {}: {}", arguments.join(" "), said.trim()))
}
