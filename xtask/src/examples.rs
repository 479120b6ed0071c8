//! The examples and the README's first command, run as a user would.

use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

use crate::{Failure, workspace};

/// Runs each example, and imports the crate sources of this machine's cargo registry.
pub fn run() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    for input in ["one\ntwo\n", "three\n"] {
        example("zkv-log", "events", &[&path("events")], input)?;
    }
    example("zkv-store", "durable", &[&path("durable.zkv"), "200"], "")?;
    example("zkv-index", "size", &["20000", "1"], "")?;
    let store = path("demo.zkv");
    let sources = registry_sources()?;
    command_line(&["import", &store, &sources.display().to_string()])?;
    command_line(&["stats", &store])?;
    command_line(&["rebuild-index", &store])
}

fn example(package: &str, name: &str, arguments: &[&str], input: &str) -> Result<(), Failure> {
    let what = ["run", "--release", "--quiet", "--package", package, "--example", name, "--"];
    cargo(&[&what, arguments].concat(), input)
}

fn command_line(arguments: &[&str]) -> Result<(), Failure> {
    let what = ["run", "--release", "--quiet", "--package", "zkv-cli", "--"];
    cargo(&[&what, arguments].concat(), "")
}

fn cargo(arguments: &[&str], input: &str) -> Result<(), Failure> {
    let mut child = workspace::cargo().args(arguments).stdin(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let status = child.wait()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("`cargo {}` fails ({status})", arguments.join(" ")).into())
    }
}

/// The sources of what this workspace depends on.
fn registry_sources() -> Result<PathBuf, Failure> {
    let sources = workspace::registry_sources();
    if sources.is_dir() {
        Ok(sources)
    } else {
        Err(format!("there are no crate sources in {}", sources.display()).into())
    }
}
