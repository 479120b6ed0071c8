//! Prints what an index of so many keys costs: bytes a key, times, memory.
//!
//! `cargo run --release -p zkv-index --example size -- KEYS SLOTS [MEMORY_MIB]`

use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use zkv_index::{Candidates, Change, Checkpoint, CheckpointMeta, KeyHash, Location, Rebuild, Run};
use zkv_io::FileStorage;

const LOOKUPS: u64 = 1_000_000;
const STORE_ID: [u8; 16] = [7; 16];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = |default| arguments.next().map_or(Ok(default), |text| text.parse::<u64>());
    let (key_count, slots, memory_mib) = (argument(200_000)?, argument(2)?, argument(64)?);
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("store.idx");
    let locations = slots * 32_768 - 1;

    let start = Instant::now();
    let memory_bytes = usize::try_from(memory_mib << 20)?;
    let mut rebuild = Rebuild::new(Arc::new(FileStorage), path.clone(), memory_bytes);
    for key in 0..key_count {
        rebuild.push(hash(key), location_of(key, key_count, locations), 1)?;
    }
    let mut live = 0u64;
    let rebuilt = rebuild.finish(&mut |_, weight| {
        live += weight;
        true
    })?;
    let meta = meta(rebuilt.key_count());
    let checkpoint = rebuilt.write(&FileStorage, &path, &meta)?;
    println!("{key_count} keys, {live} live, in {slots} slots of 8 MiB");
    println!("  build        {:8.2} s, peak memory {} MiB", seconds(start), peak_mib());
    report_size(&checkpoint, key_count);

    let start = Instant::now();
    drop(Checkpoint::open(&FileStorage, &path, STORE_ID, true)?);
    println!("  open         {:8.1} us", seconds(start) * 1e6);
    time_lookups("hit", &checkpoint, key_count, |number| mix(number) % key_count)?;
    time_lookups("miss", &checkpoint, key_count, |number| key_count + number)?;
    let start = Instant::now();
    checkpoint.verify()?;
    println!("  verify       {:8.2} s", seconds(start));
    append(checkpoint, &path, key_count, locations)
}

fn meta(key_count: u64) -> CheckpointMeta<'static> {
    CheckpointMeta { store_id: STORE_ID, watermark: b"watermark", sections: &[], key_count }
}

/// Appends checkpoints of a hundredth of the keys, moved, until the file is written anew.
fn append(
    mut checkpoint: Checkpoint,
    path: &Path,
    key_count: u64,
    locations: u64,
) -> Result<(), Box<dyn Error>> {
    for round in 0..9 {
        let moved = (0..key_count / 100).map(|index| index * 100 + round);
        let changes = moved.map(|key| Change {
            hash: hash(key),
            old: location_of(key, key_count, locations),
            new: Location::new(1 + mix(key) % locations),
        });
        let run = Run::from_changes(changes.collect());
        let start = Instant::now();
        for number in 0..LOOKUPS {
            black_box(run.get(hash(mix(number) % key_count)));
        }
        let run_nanoseconds = seconds(start) * 1e9 / 1e6;
        let before = checkpoint.file_bytes();
        let start = Instant::now();
        checkpoint = checkpoint.write_next(&FileStorage, path, &run, &meta(key_count))?;
        println!(
            "  next         {:8.3} s, {:+} bytes, {} tables; run {} MiB, {run_nanoseconds:.0} ns a get",
            seconds(start),
            checkpoint.file_bytes().cast_signed() - before.cast_signed(),
            checkpoint.run_count(),
            run.heap_bytes() >> 20,
        );
        if checkpoint.run_count() == 5 {
            time_lookups("hit", &checkpoint, key_count, |number| mix(number) % key_count)?;
        }
    }
    report_size(&checkpoint, key_count);
    Ok(())
}

fn time_lookups(
    name: &str,
    checkpoint: &Checkpoint,
    key_count: u64,
    key: impl Fn(u64) -> u64,
) -> Result<(), Box<dyn Error>> {
    let mut candidates = Candidates::new();
    let mut found = 0;
    let start = Instant::now();
    for number in 0..LOOKUPS {
        checkpoint.candidates(hash(key(number)), &mut candidates)?;
        found += candidates.len();
    }
    let nanoseconds = seconds(start) * 1e9 / 1e6;
    println!(
        "  {name:<5} lookup {nanoseconds:8.0} ns, {found} candidates of {LOOKUPS}, {key_count} keys"
    );
    Ok(())
}

fn report_size(checkpoint: &Checkpoint, key_count: u64) {
    let bytes = checkpoint.file_bytes();
    #[expect(clippy::cast_precision_loss, reason = "printed with two digits")]
    let a_key = bytes as f64 / key_count as f64;
    println!("  file         {bytes} bytes, {a_key:.2} a key");
}

/// Keys lie in the order of their numbers.
fn location_of(key: u64, key_count: u64, locations: u64) -> Option<Location> {
    Location::new(1 + key * (locations - 1) / key_count)
}

fn hash(key: u64) -> KeyHash {
    KeyHash(u128::from(mix(key)) << 64 | u128::from(mix(!key)))
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
fn mix(number: u64) -> u64 {
    let z = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

fn seconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64()
}

/// The most memory that was resident at once, where Linux tells it.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}
