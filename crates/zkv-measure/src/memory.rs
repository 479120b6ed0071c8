//! What the system tells of this process's memory.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::Failure;

/// How often a process looks at its memory.
const SAMPLE_EVERY: Duration = Duration::from_millis(1);

/// The bytes of this process's memory that are its own, mapped files left out.
pub fn own_memory_bytes() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")
        .map_err(|_| "only Linux tells a process's memory in /proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    Ok(kib.ok_or("/proc/self/status has no RssAnon")? * 1024)
}

/// Does `work`, and tells the most memory of its own that this process had meanwhile, in bytes.
pub fn peak_while<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<(T, u64), Failure> {
    let (peak, is_done) = (AtomicU64::new(own_memory_bytes()?), AtomicBool::new(false));
    let watch = || {
        while !is_done.load(Ordering::Relaxed) {
            let now = own_memory_bytes().unwrap_or(u64::MAX);
            peak.fetch_max(now, Ordering::Relaxed);
            std::thread::sleep(SAMPLE_EVERY);
        }
    };
    let done = std::thread::scope(|scope| {
        scope.spawn(watch);
        let done = work();
        is_done.store(true, Ordering::Relaxed);
        done
    })?;
    Ok((done, peak.into_inner()))
}
