//! `cargo xtask bench ratio`.

use zkv::Store;
use zkv_measure::figures::{float, mib};
use zkv_measure::input::{self, Input};

use crate::Failure;

/// zstd's level for the comparison.
const LEVEL: i32 = 3;

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    input: input::Arguments,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let input = arguments.input.input()?;
    let folder = arguments.input.folder()?;
    let path = folder.path().join("bench.zkv");
    arguments.input.import(&input, &path)?;
    let stats = Store::open(&path)?.stats()?;
    println!(
        "{}: {} keys, {} bytes of keys and values",
        arguments.input.title(),
        stats.keys,
        stats.raw_bytes
    );
    println!(
        "  data {} bytes, index {} bytes, {} dictionaries",
        stats.data_file_bytes, stats.index_file_bytes, stats.dictionaries
    );
    println!("  keys + values / data + index: {:.3}", stats.ratio());
    if let Input::File(file) = &input {
        let mut frame = Vec::with_capacity(zstd_safe::compress_bound(file.bytes.len()));
        let bytes = zstd_safe::compress(&mut frame, &file.bytes, LEVEL)
            .map_err(zstd_safe::get_error_name)?;
        println!(
            "  zstd -{LEVEL} of the whole file, {:.1} MiB: {bytes} bytes: {:.3}",
            mib(file.bytes.len() as u64),
            float(file.bytes.len() as u64) / float(bytes as u64)
        );
    }
    Ok(())
}
