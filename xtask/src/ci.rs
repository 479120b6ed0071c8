//! `cargo xtask ci`: the whole check, cheap steps first; it stops at the first that fails.

use std::fs;
use std::time::Instant;

use crate::{Failure, crash, examples, format, fuzz, histories, tidy, workspace};

/// Runs every step.
pub fn run() -> Result<(), Failure> {
    let start = Instant::now();
    step("cargo fmt", || cargo(&["fmt", "--all", "--check"], "run `cargo fmt --all`"))?;
    step("cargo fmt of the benchmark against rivals", || {
        let arguments = ["fmt", "--manifest-path", workspace::RIVALS_MANIFEST, "--check"];
        cargo(&arguments, "run `cargo fmt` in its folder")
    })?;
    step("tidy", tidy::run)?;
    step("format check", || format::run(&format::Command::Check))?;
    step("cargo clippy", || {
        let arguments = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
        cargo(&arguments, "clippy has something to say above")
    })?;
    // Documentation tests are part of it.
    step("cargo test", || cargo(&["test", "--workspace"], "a test above fails"))?;
    step("packages", packages)?;
    step("fuzz smoke", fuzz::smoke)?;
    step("crash smoke", crash::smoke)?;
    step("histories smoke", histories::smoke)?;
    step("examples", examples::run)?;
    step("cargo doc", || {
        let mut command = workspace::cargo();
        command.args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
        workspace::run(&mut command, "the documentation has a problem, above")
    })?;
    println!("ci: everything passed in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Packs each crate that is published and builds it from that alone: within the workspace, a crate may use
/// a file that it does not ship, or a feature that only another one asks for.
fn packages() -> Result<(), Failure> {
    // Cargo takes a package of the same version for the same: what another run has built is of no use.
    let target = tempfile::tempdir()?;
    let mut command = workspace::cargo();
    command.args(["package", "--quiet", "--allow-dirty", "--target-dir"]).arg(target.path());
    for package in workspace::packages()?.iter().filter(|package| package.is_published()) {
        forget_unpacked(&package.name)?;
        command.args(["--package", &package.name]);
    }
    workspace::run(&mut command, "a crate does not build from what its package holds, above")
}

/// Removes what cargo has unpacked of this package the last time, in a place without a host's name, since
/// it came from a folder.
fn forget_unpacked(package: &str) -> Result<(), Failure> {
    let Ok(registries) = fs::read_dir(workspace::registry_sources()) else { return Ok(()) };
    for registry in registries {
        let registry = registry?;
        if !registry.file_name().as_encoded_bytes().starts_with(b"-") {
            continue;
        }
        for unpacked in fs::read_dir(registry.path())? {
            let path = unpacked?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let version = name.strip_prefix(package).and_then(|rest| rest.strip_prefix('-'));
            if version.is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit())) {
                fs::remove_dir_all(path)?;
            }
        }
    }
    Ok(())
}

fn step(name: &str, run: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    println!("ci: {name} ...");
    let start = Instant::now();
    let done = run();
    let seconds = start.elapsed().as_secs_f64();
    match done {
        Ok(()) => {
            println!("ci: {name}: done in {seconds:.1} s");
            Ok(())
        }
        Err(failure) => Err(format!("ci stops at {name} after {seconds:.1} s: {failure}").into()),
    }
}

fn cargo(arguments: &[&str], remedy: &str) -> Result<(), Failure> {
    workspace::run(workspace::cargo().args(arguments), remedy)
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    #[test]
    fn a_failed_step_names_itself_and_its_reason() {
        step("good", || Ok(())).unwrap();
        let failure = step("bad", || Err("broken".into())).unwrap_err().to_string();
        assert!(failure.starts_with("ci stops at bad") && failure.ends_with("broken"), "{failure}");
    }

    #[test]
    fn a_command_that_fails_fails_the_step() {
        let mut command = workspace::cargo();
        command.arg("no-such-command").stderr(Stdio::null());
        let failure = workspace::run(&mut command, "the remedy").unwrap_err().to_string();
        assert!(failure.starts_with("the remedy"), "{failure}");
    }
}
