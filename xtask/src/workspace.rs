//! Where the workspace is, and what is in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::Failure;

/// The workspace's root folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// The cargo that runs this task, started in the workspace's root.
pub fn cargo() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root());
    command
}

/// Runs `command` with this process's own output, so that what it prints last is seen.
pub fn run(command: &mut Command, failure: &str) -> Result<(), Failure> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{failure} ({status})").into()) }
}

/// Where cargo keeps the sources of what workspaces depend on.
pub fn registry_sources() -> PathBuf {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    home.unwrap_or_default().join("registry").join("src")
}

/// A crate of the workspace, as `cargo metadata` tells it.
#[derive(Debug, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// What its manifest says it is.
    pub description: Option<String>,
    /// Everything it depends on, for whatever purpose.
    pub dependencies: Vec<Dependency>,
    /// The registries that it may go to: none, or any.
    pub publish: Option<Vec<String>>,
}

impl Package {
    /// Whether users get it from a registry.
    pub fn is_published(&self) -> bool {
        self.publish.is_none()
    }
}

/// What a package depends on.
#[derive(Debug, Deserialize)]
pub struct Dependency {
    /// The package's name, not what it is renamed to.
    pub name: String,
    /// `dev` where only tests and examples need it.
    pub kind: Option<String>,
    /// Its folder, where it is no foreign code.
    pub path: Option<String>,
}

impl Dependency {
    /// Whether only tests and examples need it.
    pub fn is_for_tests(&self) -> bool {
        self.kind.as_deref() == Some("dev")
    }
}

/// The manifest of the benchmark against rivals, which is a workspace of its own.
pub const RIVALS_MANIFEST: &str = "crates/zkv-bench/Cargo.toml";

/// The workspace's crates, and the benchmark against rivals.
pub fn packages() -> Result<Vec<Package>, Failure> {
    let mut packages = packages_of("Cargo.toml")?;
    packages.extend(packages_of(RIVALS_MANIFEST)?);
    Ok(packages)
}

fn packages_of(manifest: &str) -> Result<Vec<Package>, Failure> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    let mut command = cargo();
    command.args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path", manifest]);
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(serde_json::from_slice::<Metadata>(&output.stdout)?.packages)
}

/// The names of what lies at the workspace's top.
pub fn top() -> Result<Vec<String>, Failure> {
    let entries = fs::read_dir(root())?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect()
}

/// A source file, with its path from the root in forward slashes.
#[derive(Debug)]
pub struct Source {
    /// `crates/zkv-io/src/lib.rs`.
    pub path: String,
    /// The whole file.
    pub text: String,
}

/// Every Rust source file of the workspace, by path.
pub fn sources() -> Result<Vec<Source>, Failure> {
    let mut found = Vec::new();
    for folder in ["crates", "xtask", "fuzz"] {
        let path = root().join(folder);
        if path.is_dir() {
            walk(&path, folder, &mut found)?;
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn walk(folder: &Path, name: &str, found: &mut Vec<Source>) -> Result<(), Failure> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let file_name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{name}/{file_name}");
        if entry.file_type()?.is_dir() {
            if file_name != "target" {
                walk(&entry.path(), &path, found)?;
            }
        } else if file_name.ends_with(".rs") {
            let text = fs::read_to_string(entry.path()).map_err(|e| format!("{path}: {e}"))?;
            found.push(Source { path, text });
        }
    }
    Ok(())
}
