//! Gets of what has to come from the disk. They are timed by the clock, since they wait.

use zkv_measure::figures::float;
use zkv_measure::random::Random;

use crate::Failure;
use crate::child::{Figures, Task};
use crate::phases::{get_all, seconds};
use crate::records::Keys;
use crate::{cgroup, disk};

/// Less than this is no memory that a program could run with.
const LIMIT_BYTES_MIN: u64 = 4 << 20;

/// The first gets after opening a store of which nothing is in the page cache.
pub fn cold(task: &Task<'_>, figures: &mut Figures) -> Result<(), Failure> {
    let mut random = Random::new(task.arguments.input.seed ^ 2);
    let keys = Keys::draw(task.arguments.cold_gets, || task.records.draw(&mut random)).0;
    let setup = task.setup(None);
    disk::evict(&task.folder)?;
    let engine = task.engine.open(&task.folder, &setup)?;
    let took = seconds(|| get_all(&*engine, &keys).map(|_| ()))?;
    figures.insert("cold_us".into(), took * 1e6 / float(keys.len() as u64));
    engine.close()
}

/// Gets by a process that may have a tenth of the raw data as memory, page cache and heap together.
/// What the benchmark itself holds was taken before, and does not count.
pub fn limited(task: &Task<'_>, figures: &mut Figures) -> Result<(), Failure> {
    let Some(group) = &task.group else {
        return Ok(());
    };
    let limit = (task.records.raw_bytes / 10).max(LIMIT_BYTES_MIN);
    let mut random = Random::new(task.arguments.input.seed ^ 2);
    let (before, keys) = (draw(task, &mut random), draw(task, &mut random));
    // An engine with a cache of its own may use half; the other half is for its files.
    let setup = task.setup(usize::try_from(limit / 2).ok());
    disk::evict(&task.folder)?;
    cgroup::join(group, limit)?;
    let engine = task.engine.open(&task.folder, &setup)?;
    // Memory is full before the clock starts, of what other gets have left.
    get_all(&*engine, &before)?;
    let took = seconds(|| get_all(&*engine, &keys).map(|_| ()))?;
    figures.insert("limited_us".into(), took * 1e6 / float(keys.len() as u64));
    engine.close()
}

fn draw(task: &Task<'_>, random: &mut Random) -> Keys {
    Keys::draw(task.arguments.gets, || task.records.draw(random)).0
}
