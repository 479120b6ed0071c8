//! What a log can be told.

use std::ops::RangeInclusive;

use zkv_io::ReadMode;

use crate::error::{LogError, Result};
use crate::layout::{SLOT_BYTES_MAX, SLOT_BYTES_MIN};

/// zstd's levels, 0 of which stands for whatever zstd thinks best (`ZSTD_compressionLevel` in `zstd.h`);
/// those below -7 are worth little, and `zstd --fast` has seven.
pub(crate) const LEVELS: RangeInclusive<i32> = -7..=22;

/// Settings of an open log. Only `slot_bytes` is fixed when the file is made; the others may differ
/// each time it is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Bytes of a slot, and so of a segment, in a new log: a power of two from 64 KiB to 16 MiB.
    /// Default 8 MiB. Smaller slots cost more space for seals and dictionaries; larger ones are
    /// reclaimed later.
    pub slot_bytes: u32,
    /// Bytes of entries that share a block, before compression: 64 to 65,536. Default 1 KiB.
    /// Smaller blocks read faster, larger ones compress better. A longer entry has its own block.
    pub block_bytes: u32,
    /// zstd's level, -7 to 22 but for 0. Default 5. Level 3 writes twice as fast and takes 3 to 5 % more
    /// room. From 9 on, small blocks are parsed optimally: 8 to 9 % less room, and ten times the time.
    /// Reads do not care, but that below 0, where bytes that are found nowhere else are kept as they are,
    /// they take a sixth less time than at 1, and blocks 7 % more room. Short commits are written at 3 where this
    /// is 4 or 5: see [`Log::pack_awaited`](crate::Log::pack_awaited).
    pub compression_level: i32,
    /// Bytes that gather before a system call writes them: 4 KiB to 64 MiB. Default 1 MiB.
    pub write_buffer_bytes: u32,
    /// How many reads may decompress at once: 1 to 4,096. Default 64. Further ones wait.
    pub parallel_reads_max: u32,
    /// Threads that compress a large append: 1 to 256. Default: what the machine offers. As many should
    /// decompress, where one reads much.
    pub compression_threads: u32,
    /// How the file is read. Default [`ReadMode::Map`].
    pub read_mode: ReadMode,
}

impl Default for LogOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            slot_bytes: 8 << 20,
            block_bytes: 1024,
            compression_level: 5,
            write_buffer_bytes: 1 << 20,
            parallel_reads_max: 64,
            compression_threads: u32::try_from(cores).unwrap_or(256).min(256),
            read_mode: ReadMode::Map,
        }
    }
}

impl LogOptions {
    /// Holds every option against its range.
    ///
    /// # Errors
    /// [`LogError::InvalidOption`] names the first that is outside, and its range.
    pub fn check(&self) -> Result<()> {
        let check = |option, value: u32, range: RangeInclusive<u32>, allowed| {
            if range.contains(&value) {
                Ok(())
            } else {
                Err(LogError::InvalidOption { option, value: value.into(), allowed })
            }
        };
        let slots = "a power of two from 65536 to 16777216";
        check("slot_bytes", self.slot_bytes, SLOT_BYTES_MIN..=SLOT_BYTES_MAX, slots)?;
        if !self.slot_bytes.is_power_of_two() {
            let value = self.slot_bytes.into();
            return Err(LogError::InvalidOption { option: "slot_bytes", value, allowed: slots });
        }
        check("block_bytes", self.block_bytes, 64..=65_536, "from 64 to 65536")?;
        if !LEVELS.contains(&self.compression_level) || self.compression_level == 0 {
            let (value, allowed) = (self.compression_level.into(), "from -7 to 22, and not 0");
            return Err(LogError::InvalidOption { option: "compression_level", value, allowed });
        }
        let buffer = "from 4096 to 67108864";
        check("write_buffer_bytes", self.write_buffer_bytes, 4096..=64 << 20, buffer)?;
        check("parallel_reads_max", self.parallel_reads_max, 1..=4096, "from 1 to 4096")?;
        check("compression_threads", self.compression_threads, 1..=256, "from 1 to 256")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_out_of_range_has_the_name_of_its_field() {
        let default = LogOptions::default;
        let cases = [
            (LogOptions { slot_bytes: 3 << 20, ..default() }, "slot_bytes is 3145728"),
            (LogOptions { block_bytes: 63, ..default() }, "block_bytes is 63"),
            (LogOptions { compression_level: 0, ..default() }, "compression_level is 0"),
            (LogOptions { write_buffer_bytes: 1, ..default() }, "write_buffer_bytes is 1"),
            (LogOptions { parallel_reads_max: 0, ..default() }, "parallel_reads_max is 0"),
            (LogOptions { compression_threads: 0, ..default() }, "compression_threads is 0"),
        ];
        for (options, named) in cases {
            let error = options.check().unwrap_err().to_string();
            assert!(error.starts_with(named), "{error}");
        }
    }
}
