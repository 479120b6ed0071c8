//! `cargo xtask tsan`: tests and histories under ThreadSanitizer, which sees accesses to memory that
//! nothing orders. `docs/testing.md` has more.
//!
//! The standard library is built for it, too: it would take the locks of one that is not for nothing,
//! and all that they guard for races. So the toolchain must have its sources.

use std::path::{Path, PathBuf};
use std::process::Command as Process;

use clap::Args;

use crate::{Failure, workspace};

/// The crates with `unsafe` code or threads; their tests and those of what they are made of.
const PACKAGES: [&str; 3] = ["zkv-io", "zkv-log", "zkv-store"];

/// How a process ends that has reported a race.
const RACE_EXIT: &str = "66";

/// How long.
#[derive(Args)]
pub struct Arguments {
    /// Runs histories for so many seconds, behind the tests.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Runs histories only.
    #[arg(long)]
    histories: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let target = target()?;
    check_sources()?;
    if !arguments.histories {
        let mut tests = cargo("test", &target);
        tests
            .args(PACKAGES.map(|package| format!("--package={package}")))
            .args(["--lib", "--tests"]);
        workspace::run(&mut tests, "a test fails, or ThreadSanitizer reports something, above")?;
    }
    let mut histories = cargo("run", &target);
    histories.args(["--profile=test", "--package=xtask", "--", "histories", "--seconds"]);
    histories.arg(arguments.seconds.to_string());
    workspace::run(&mut histories, "a history fails, or ThreadSanitizer reports something, above")
}

/// A cargo that builds everything for ThreadSanitizer, C code and the standard library, too.
fn cargo(command: &str, target: &str) -> Process {
    let mut cargo = workspace::cargo();
    cargo.args([command, "-Zbuild-std", "--target-dir=target/tsan", "--target", target]);
    // What the flags are called on nightly; other toolchains take them like this.
    cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", "-Zsanitizer=thread");
    cargo.env("CFLAGS", "-fsanitize=thread");
    cargo.env("TSAN_OPTIONS", format!("exitcode={RACE_EXIT}"));
    cargo
}

/// The machine's own target, where ThreadSanitizer knows it.
fn target() -> Result<String, Failure> {
    let version = rustc(&["--version", "--verbose"])?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    let known = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];
    if known.contains(&host) {
        Ok(host.to_owned())
    } else {
        Err(format!("tsan: this runs on {}, not on {host}", known.join(" and ")).into())
    }
}

fn check_sources() -> Result<(), Failure> {
    let root = PathBuf::from(rustc(&["--print", "sysroot"])?.trim());
    if has_sources(&root) {
        return Ok(());
    }
    Err("tsan: this toolchain lacks the sources of the standard library, without which every lock \
         is reported; `rustup toolchain install nightly --component rust-src`, and then \
         `cargo +nightly xtask tsan`"
        .into())
}

fn has_sources(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/Cargo.lock").is_file()
}

fn rustc(arguments: &[&str]) -> Result<String, Failure> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Process::new(rustc).args(arguments).output()?;
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toolchain_without_sources_is_told_from_one_with_them() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!has_sources(folder.path()));
        let library = folder.path().join("lib/rustlib/src/rust/library");
        std::fs::create_dir_all(&library).unwrap();
        std::fs::write(library.join("Cargo.lock"), "").unwrap();
        assert!(has_sources(folder.path()));
    }
}
