//! `cargo xtask bench open`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use zkv::{Options, Store};
use zkv_measure::figures::{
    float, median, mib, report_as_child, run_child as run_in_child, verdict,
};
use zkv_measure::input::{self, Record};
use zkv_measure::memory::own_memory_bytes;

use crate::Failure;

/// Opening takes less than this, at any number of keys.
const MILLISECONDS_MAX: f64 = 5.0;
/// An open store takes less memory than this, at any number of keys, maps not counted.
const MIB_MAX: f64 = 5.0;
/// The index takes at most this for each key.
const INDEX_BYTES_MAX: f64 = 7.0;
/// Openings of which the median is taken.
const OPENINGS: usize = 20;
/// Gets after which the memory is looked at again.
const GETS: u64 = 1000;

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    input: input::Arguments,
}

#[derive(clap::Args)]
pub struct ChildArguments {
    store: PathBuf,
    #[command(flatten)]
    input: input::Arguments,
}

/// What a process finds that does nothing but open a store.
#[derive(Serialize, Deserialize)]
struct Opened {
    memory_bytes: u64,
    memory_bytes_after_gets: u64,
    milliseconds: f64,
    milliseconds_read_only: f64,
    milliseconds_to_the_first_get: f64,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let folder = arguments.input.folder()?;
    let path = folder.path().join("bench.zkv");
    let start = Instant::now();
    arguments.input.import(&arguments.input.input()?, &path)?;
    let import_seconds = start.elapsed().as_secs_f64();
    let stats = Store::open(&path)?.stats()?;
    let mut words =
        vec!["bench".to_owned(), "open-child".to_owned(), path.to_string_lossy().into_owned()];
    words.extend(arguments.input.to_command_line());
    let opened: Opened = run_in_child(&words)?;
    println!("{}: {} keys, imported in {import_seconds:.1} s", arguments.input.title(), stats.keys);
    let index_bytes = float(stats.index_file_bytes) / float(stats.keys);
    println!(
        "  data {:.1} MiB, index {:.1} MiB: {index_bytes:.2} bytes a key: {} (at most {INDEX_BYTES_MAX})",
        mib(stats.data_file_bytes),
        mib(stats.index_file_bytes),
        verdict(index_bytes <= INDEX_BYTES_MAX)
    );
    println!(
        "  open {:.2} ms: {} (below {MILLISECONDS_MAX}); read-only {:.2} ms; with the first get {:.2} ms",
        opened.milliseconds,
        verdict(opened.milliseconds < MILLISECONDS_MAX),
        opened.milliseconds_read_only,
        opened.milliseconds_to_the_first_get,
    );
    let memory = mib(opened.memory_bytes);
    println!(
        "  memory after opening {memory:.2} MiB: {} (below {MIB_MAX}); after {GETS} gets {:.2} MiB",
        verdict(memory < MIB_MAX),
        mib(opened.memory_bytes_after_gets),
    );
    Ok(())
}

/// Memory first: what was given back stays with the process's allocator and would hide the rest.
pub fn run_child(arguments: &ChildArguments) -> Result<(), Failure> {
    let path = &arguments.store;
    let input = arguments.input.input()?;
    let mut record = Record::default();
    input.record(0, &mut record);
    let before = own_memory_bytes()?;
    let store = Store::open(path)?;
    let memory_bytes = own_memory_bytes()?.saturating_sub(before);
    for number in 0..GETS.min(input.count()) {
        input.record(number, &mut record);
        store.get_bytes(&record.key)?.ok_or("a key is missing")?;
    }
    let memory_bytes_after_gets = own_memory_bytes()?.saturating_sub(before);
    drop(store);
    report_as_child(&Opened {
        memory_bytes,
        memory_bytes_after_gets,
        milliseconds: opening(path, Options::open, None)?,
        milliseconds_read_only: opening(path, Options::open_read_only, None)?,
        milliseconds_to_the_first_get: opening(path, Options::open, Some(&record.key))?,
    })
}

/// The median of some openings; the closing that follows each is left out.
fn opening(
    path: &Path,
    open: fn(Options, PathBuf) -> zkv::Result<Store>,
    key: Option<&[u8]>,
) -> Result<f64, Failure> {
    let mut taken = Vec::new();
    for _ in 0..OPENINGS {
        let start = Instant::now();
        let store = open(Options::new(), path.to_owned())?;
        if let Some(key) = key {
            store.get_bytes(key)?.ok_or("a key is missing")?;
        }
        taken.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median(&taken))
}
