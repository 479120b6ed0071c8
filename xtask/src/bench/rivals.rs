//! `cargo xtask bench rivals`: builds `crates/zkv-bench`, which is a workspace of its own, and runs it.

use std::ffi::OsString;

use crate::{Failure, workspace};

#[derive(clap::Args)]
pub struct Arguments {
    /// Also builds and measures RocksDB, which takes some forty minutes to compile.
    #[arg(long)]
    rocksdb: bool,
    /// What `zkv-bench` is told; `-- --help` lists it.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut command = workspace::cargo();
    // Paths are those of whoever called, not of the workspace.
    command.current_dir(std::env::current_dir()?).args(["run", "--release", "--manifest-path"]);
    command.arg(workspace::root().join(workspace::RIVALS_MANIFEST));
    if arguments.rocksdb {
        command.args(["--features", "rocksdb"]);
    }
    workspace::run(command.arg("--").args(&arguments.arguments), "zkv-bench fails, above")
}
