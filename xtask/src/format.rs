//! `cargo xtask format`: the pages in `docs/format/` and the golden files, held against the code.

mod page;

use std::fs;

use clap::Subcommand;
use zkv_record::{Codec, Kind};

use crate::{Failure, report, workspace};
use page::{Kinds, Layout};

/// What to do with the format.
#[derive(Subcommand)]
pub enum Command {
    /// Compares the tables of the format pages with the code's constants.
    Check,
    /// Writes the golden files anew. Only for a deliberate change of an unreleased format.
    Bless,
}

/// Every page, the folder of the crate that it describes, and that crate's layouts.
pub const PAGES: &[(&str, &str, &[Layout])] = &[
    ("docs/format/data.md", "zkv-log", zkv_log::layout::ALL),
    ("docs/format/index.md", "zkv-index", zkv_index::layout::ALL),
    ("docs/format/store.md", "zkv", zkv::layout::ALL),
    ("docs/format/record.md", "zkv-record", zkv_record::layout::ALL),
];

/// The pages that tell kinds apart by numbers.
const KINDS: &[(&str, &[Kinds])] = &[
    ("docs/format/data.md", zkv_log::layout::KINDS),
    ("docs/format/store.md", zkv::layout::KINDS),
    ("docs/format/record.md", RECORD_KINDS),
];

/// The kinds of records, and the codecs, by the words of the page.
const RECORD_KINDS: &[Kinds] = &[
    (
        "Record kinds",
        &[
            (Kind::Put as u32, "put"),
            (Kind::Delete as u32, "delete"),
            (Kind::Head as u32, "head"),
            (Kind::Piece as u32, "piece"),
        ],
    ),
    (
        "Typed keys and values",
        &[(Codec::Postcard.code() as u32, "postcard"), (Codec::Json.code() as u32, "JSON")],
    ),
];

/// Runs the command.
pub fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Check => check(),
        Command::Bless => bless(),
    }
}

fn check() -> Result<(), Failure> {
    let mut problems = Vec::new();
    for (path, _, layouts) in PAGES {
        let kinds = KINDS.iter().filter(|(of, _)| of == path).flat_map(|(_, kinds)| *kinds);
        match fs::read_to_string(workspace::root().join(path)) {
            Ok(markdown) => {
                problems.extend(page::check(path, &markdown, layouts));
                let kinds: Vec<Kinds> = kinds.copied().collect();
                problems.extend(page::check_kinds(path, &markdown, &kinds));
            }
            Err(error) => problems.push(format!("{path}: {error}")),
        }
    }
    report("format check", &problems)
}

/// Each crate's golden tests are a test target named `golden`, which writes its files where
/// `ZKV_BLESS` is set, and compares them all the same.
fn bless() -> Result<(), Failure> {
    let arguments = ["test", "--workspace", "--test", "golden"];
    let mut tests = workspace::cargo();
    tests.args(arguments).env("ZKV_BLESS", "1");
    workspace::run(&mut tests, "a golden test fails even when it is blessed")?;
    println!("look at what changed: git diff --stat -- '**/tests/golden'");
    Ok(())
}
