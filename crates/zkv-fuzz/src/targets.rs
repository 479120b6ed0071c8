//! The targets: functions from bytes that must neither panic nor take more than they may.

mod data;
mod index;
mod log;
mod operations;
mod record;
mod salvage;
mod store;
mod typed;
mod verify;

use std::ops::Range;

use crate::mend::{mend_file, mend_index, mend_pair, parts_of_file, parts_of_index, parts_of_pair};

pub(crate) use self::data::{DATA, INDEX};

/// One target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its folder in `fuzz/cases`.
    pub name: &'static str,
    /// The folders in `fuzz/seeds` that it starts from.
    pub seeds: &'static [&'static str],
    /// Runs one input. It panics where something is wrong.
    pub run: fn(&[u8]),
    /// The parts of an input that are worth changing most.
    pub parts: fn(&[u8]) -> Vec<Range<usize>>,
}

/// Data files alone, and with the index that belongs to them.
const STORES: &[&str] = &["data", "stores"];

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "data", seeds: &["data"], run: data::run, parts: parts_of_file },
    Target { name: "data-mended", seeds: &["data"], run: data_mended, parts: parts_of_file },
    Target { name: "log", seeds: &["data"], run: log::run, parts: parts_of_file },
    Target { name: "log-mended", seeds: &["data"], run: log_mended, parts: parts_of_file },
    Target { name: "index", seeds: &["index"], run: index::run, parts: parts_of_index },
    Target { name: "index-mended", seeds: &["index"], run: index_mended, parts: parts_of_index },
    Target { name: "verify", seeds: STORES, run: verify::run, parts: parts_of_pair },
    Target { name: "verify-mended", seeds: STORES, run: verify_mended, parts: parts_of_pair },
    Target { name: "salvage", seeds: STORES, run: salvage::run, parts: parts_of_pair },
    Target { name: "salvage-mended", seeds: STORES, run: salvage_mended, parts: parts_of_pair },
    Target { name: "store-mended", seeds: STORES, run: store_mended, parts: parts_of_pair },
    Target { name: "record", seeds: &["record"], run: record::run, parts: whole },
    Target { name: "typed", seeds: &["typed"], run: typed::run, parts: whole },
    Target { name: "operations", seeds: &["operations"], run: operations::run, parts: whole },
];

/// The target of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Runs one input with the target of this name.
///
/// # Panics
/// Where there is no such target, and where the input does what none may do.
pub fn run(name: &str, input: &[u8]) {
    let target = find(name).expect("the target exists");
    (target.run)(input);
}

fn data_mended(input: &[u8]) {
    data::run(&mended(input, mend_file));
}

fn log_mended(input: &[u8]) {
    log::run(&mended(input, mend_file));
}

fn index_mended(input: &[u8]) {
    index::run(&mended(input, mend_index));
}

fn verify_mended(input: &[u8]) {
    verify::run(&mended(input, mend_pair));
}

fn salvage_mended(input: &[u8]) {
    salvage::run(&mended(input, mend_pair));
}

fn store_mended(input: &[u8]) {
    store::run(&mended(input, mend_pair));
}

fn mended(input: &[u8], mend: fn(&mut [u8])) -> Vec<u8> {
    let mut bytes = input.to_vec();
    mend(&mut bytes);
    bytes
}

fn whole(input: &[u8]) -> Vec<Range<usize>> {
    std::iter::once(0..input.len()).collect()
}
