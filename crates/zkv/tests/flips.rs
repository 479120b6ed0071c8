//! Flipped bits and cut files: each is reported, nothing panics, and no wrong value is ever read.
//!
//! Every single-bit flip of both files of a store of 328 KiB takes about an hour of one core. By
//! default a share of them is drawn from a seed that a failure prints: some bits of every header and
//! seal, and some of the rest. To run others, or all:
//!
//! - `ZKV_FLIP_SEED=7`: draws another share;
//! - `ZKV_FLIPS=100000`: draws as many bits of each file;
//! - `ZKV_ALL_BITS=1`: flips every bit of both files, on all cores;
//! - `ZKV_FLIP_PART=3/8`: of those, the third eighth only, to divide the work.
//!
//! `ZKV_ALL_BITS=1 cargo test --release -p zkv-store --test flips -- --nocapture`

mod common;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use zkv::{ErrorKind, IndexState, VerifyReport, verify};
use zkv_io::{MemoryStorage, OpenMode, Storage};
use zkv_log::layout::{COMMIT_BLOCK_BYTES, COMMIT_BYTES, seal_block_bytes};

use common::faulty::{INDEX, PATH, killed, noise, options, read_file, write_file};
use common::sample::{SLOT_BYTES, Sample, sample, small_sample};

/// How many bits of a file are flipped where nothing else is asked for, besides those of headers and
/// seals.
const FLIPS: usize = 80;
const SEED: u64 = 1;

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// A share of all bits, by its number from 1 and how many there are.
fn part() -> (usize, usize) {
    let part = std::env::var("ZKV_FLIP_PART").ok();
    let parsed = part.as_deref().and_then(|part| {
        let (number, count) = part.split_once('/')?;
        Some((number.parse().ok()?, count.parse().ok()?))
    });
    parsed.unwrap_or((1, 1))
}

/// Flips `bits` of the file at `path` one by one, on all cores, and calls `check` with each and with
/// the store that has it. The storage is the caller's own, but for the flipped bit.
fn flip_each(
    memory: &MemoryStorage,
    path: &str,
    bits: &[usize],
    check: &(dyn Fn(usize, &MemoryStorage) + Sync),
) {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let copy = killed(memory);
                let file = copy.open(Path::new(path), OpenMode::ReadWrite).unwrap();
                while let Some(bit) = bits.get(next.fetch_add(1, Ordering::Relaxed)).copied() {
                    let (offset, mut byte) = ((bit / 8) as u64, [0]);
                    file.read_at(offset, &mut byte).unwrap();
                    let flipped = [byte[0] ^ 1 << (bit % 8)];
                    file.write_at(offset, &flipped).unwrap();
                    check(bit, &copy);
                    file.write_at(offset, &byte).unwrap();
                }
            });
        }
    });
    println!("{} bits of {path} were flipped", bits.len());
}

/// The bits of `file_bytes` to flip: all, or a drawn share of them and one of `dense`, the places
/// where most has a meaning of its own.
fn bits_of(file_bytes: usize, dense: &[Range<usize>]) -> Vec<usize> {
    if std::env::var_os("ZKV_ALL_BITS").is_some() {
        let (number, count) = part();
        let all = file_bytes * 8;
        return (all * (number - 1) / count..all * number / count).collect();
    }
    let seed = number_from("ZKV_FLIP_SEED").unwrap_or(SEED);
    let flips = number_from("ZKV_FLIPS").map_or(FLIPS, |flips| usize::try_from(flips).unwrap());
    println!("ZKV_FLIP_SEED={seed} ZKV_FLIPS={flips} draws these flips again");
    let drawn = noise(seed, flips * 8);
    let drawn = drawn.as_chunks().0.iter().map(|bytes| {
        let number = u64::from_le_bytes(*bytes);
        usize::try_from(number % (file_bytes as u64 * 8)).unwrap()
    });
    // One bit of every seventh byte; the seed says which.
    let seed = usize::try_from(seed).unwrap();
    let dense = dense.iter().flat_map(|range| range.clone().skip(seed % 7).step_by(7));
    drawn.chain(dense.map(|byte| byte * 8 + (byte + seed) % 8)).collect()
}

/// Holds every key against the model: the right value or an error.
fn check_answers(memory: &MemoryStorage, model: &BTreeMap<Vec<u8>, Vec<u8>>, what: &str) {
    match options(memory).open_read_only(PATH) {
        Ok(store) => {
            for (key, value) in model {
                match store.get_bytes(key) {
                    Ok(found) => assert!(found.as_ref() == Some(value), "{what}"),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}"),
                }
            }
            for absent in [&b"text 1"[..], b"noise 3", b"long and gone", b"never"] {
                if let Ok(found) = store.get_bytes(absent) {
                    assert_eq!(found, None, "{what}");
                }
            }
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}"),
    }
}

fn report(memory: &MemoryStorage) -> Option<VerifyReport> {
    match verify(PATH, options(memory), |_| {}) {
        Ok(report) => Some(report),
        // Nothing says any longer that this is a data file.
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            None
        }
    }
}

/// The gaps between the blocks and the seals of full segments: bytes that no part of the format is
/// in. The seals say where they start.
fn gaps(data: &[u8]) -> Vec<Range<usize>> {
    let seal_bytes = seal_block_bytes(SLOT_BYTES) as usize;
    let (slots, _) = data[4096..].as_chunks::<{ SLOT_BYTES as usize }>();
    slots
        .iter()
        .enumerate()
        .map(|(slot, bytes)| {
            let seal = bytes.len() - seal_bytes;
            let data_end = u32::from_le_bytes(bytes[seal + 8 + 16..][..4].try_into().unwrap());
            let start = 4096 + slot * SLOT_BYTES as usize;
            start + data_end as usize..start + seal
        })
        .collect()
}

/// Where the log of a closed store ends, behind its end mark. Zeros fill up the page.
fn log_end(data: &[u8]) -> usize {
    // Of a block's header: the tag of a commit block that is an end mark, and the payload's length.
    let [l0, l1, l2, ..] = COMMIT_BYTES.to_le_bytes();
    let end_mark = [0x16, l0, l1, l2];
    let header = data.windows(end_mark.len()).rposition(|bytes| bytes == end_mark).unwrap();
    header - 4 + COMMIT_BLOCK_BYTES as usize
}

/// Where a data file has bytes that no part of the format is in.
struct Layout {
    gaps: Vec<Range<usize>>,
    /// Zeros fill up the page behind it: what is none is told, and no damage.
    end: usize,
}

/// Holds a store whose data file has one flipped bit against what must be reported and read.
fn check_data_flip(
    damaged: &MemoryStorage,
    bit: usize,
    layout: &Layout,
    model: &BTreeMap<Vec<u8>, Vec<u8>>,
    file: &str,
) {
    let what = format!("bit {bit} of {file}");
    let is_gap = layout.gaps.iter().any(|gap| gap.contains(&(bit / 8)));
    let is_behind = layout.end <= bit / 8;
    let found = report(damaged);
    let is_sound = found.as_ref().is_some_and(VerifyReport::is_sound);
    assert_eq!(is_sound, is_gap || is_behind, "{what}: {found:?}");
    let is_told = found.is_none_or(|found| !found.findings.is_empty());
    assert_eq!(is_told, !is_gap, "{what}");
    check_answers(damaged, model, &what);
}

#[test]
fn every_flipped_bit_of_the_data_file_is_reported_and_no_wrong_value_is_read() {
    let Sample { memory, model } = small_sample();
    let data = read_file(&memory, PATH);
    let layout = Layout { gaps: gaps(&data), end: log_end(&data) };
    assert!(data.len() > 256 << 10 && !layout.gaps.is_empty());
    let slot = SLOT_BYTES as usize;
    let seals =
        layout.gaps.iter().map(|gap| gap.end..gap.end + seal_block_bytes(SLOT_BYTES) as usize);
    let headers = (4096..data.len()).step_by(slot).map(|start| start..start + 256);
    let end_mark = layout.end - COMMIT_BLOCK_BYTES as usize..layout.end;
    let dense: Vec<_> = [0..200, end_mark].into_iter().chain(headers).chain(seals).collect();
    let bits = bits_of(data.len(), &dense);
    flip_each(&memory, PATH, &bits, &|bit, damaged| {
        check_data_flip(damaged, bit, &layout, &model, "the data file");
    });
}

#[test]
fn every_flipped_bit_of_the_index_file_is_reported_and_no_wrong_value_is_read() {
    let Sample { memory, model } = small_sample();
    let index = read_file(&memory, INDEX);
    let sections = index.len() - 700..index.len();
    let bits = bits_of(index.len(), &[0..512, sections]);
    flip_each(&memory, INDEX, &bits, &|bit, damaged| {
        let what = format!("bit {bit} of the index file");
        let found = report(damaged).unwrap();
        assert!(!found.is_sound(), "{what}: {found:?}");
        check_answers(damaged, &model, &what);
    });
}

#[test]
fn flips_without_an_index_file_are_reported_and_no_wrong_value_is_read() {
    let Sample { memory, model } = small_sample();
    memory.remove(Path::new(INDEX)).unwrap();
    let data = read_file(&memory, PATH);
    let layout = Layout { gaps: gaps(&data), end: log_end(&data) };
    let bits = bits_of(data.len(), &[]);
    flip_each(&memory, PATH, &bits, &|bit, damaged| {
        check_data_flip(damaged, bit, &layout, &model, "the data file alone");
    });
}

/// Lengths to cut a file to: around the places where something starts, and some that are drawn.
fn lengths(file_bytes: usize) -> Vec<usize> {
    let slots = (4096..file_bytes).step_by(SLOT_BYTES as usize);
    let edges = slots.flat_map(|start| start - 1..start + 300).chain(0..100);
    let ends = file_bytes - 100..file_bytes;
    let drawn = noise(SEED, 400 * 8);
    let drawn = drawn.as_chunks().0.iter().map(|bytes| {
        let number = u64::from_le_bytes(*bytes);
        usize::try_from(number % file_bytes as u64).unwrap()
    });
    edges.step_by(7).chain(ends).chain(drawn).collect()
}

#[test]
fn every_cut_of_the_data_file_is_reported() {
    let Sample { memory, .. } = sample();
    let data = read_file(&memory, PATH);
    // Without its end mark, this is the store as it was before it was closed; and the zeros behind it
    // are nothing that is missed.
    let end = log_end(&data);
    let before_end_mark = end - COMMIT_BLOCK_BYTES as usize;
    for length in lengths(data.len()).into_iter().chain(end - 100..end) {
        let cut = killed(&memory);
        write_file(&cut, PATH, &data[..length]);
        if let Some(found) = report(&cut) {
            let is_reported = !found.findings.is_empty();
            // One mark of 256 begins with a zero itself.
            let is_nothing = |left: &[u8]| left.iter().all(|byte| *byte == 0);
            let left_of_mark = data.get(before_end_mark..length);
            let is_whole = left_of_mark.is_some_and(is_nothing) || end <= length;
            assert!(is_reported || is_whole, "cut to {length}: {found:?}");
            assert_ne!(found.index, IndexState::Missing, "cut to {length}");
        }
        // Whatever it answers, it does not panic.
        drop(options(&cut).open_read_only(PATH).map(|store| store.iter_bytes().count()));
    }
}

#[test]
fn every_cut_of_the_index_file_is_reported_and_no_wrong_value_is_read() {
    let Sample { memory, model } = sample();
    let index = read_file(&memory, INDEX);
    for length in lengths(index.len()).into_iter().step_by(4) {
        let cut = killed(&memory);
        write_file(&cut, INDEX, &index[..length]);
        let found = report(&cut).unwrap();
        assert!(!found.is_sound(), "cut to {length}: {found:?}");
        check_answers(&cut, &model, &format!("index cut to {length}"));
    }
}
