//! Opening, and the memory that it takes, in a process that has done nothing else.

use std::time::Instant;

use zkv_measure::figures::{median, mib};
use zkv_measure::memory::own_memory_bytes;

use crate::Failure;
use crate::child::{Figures, Task};
use crate::phases::get_all;
use crate::records::Keys;

/// Openings of which the median is taken.
const OPENINGS: usize = 7;
/// After an iteration, one record in so many is asked for.
const ASKED_ONE_IN: usize = 8;

pub fn all(task: &Task<'_>, figures: &mut Figures) -> Result<(), Failure> {
    let setup = task.setup(None);
    let before = own_memory_bytes()?;
    let start = Instant::now();
    let mut engine = task.engine.open(&task.folder, &setup)?;
    let mut openings = vec![start.elapsed().as_secs_f64() * 1e3];
    let opened = own_memory_bytes()?.saturating_sub(before);
    figures.insert("heap_open_mib".into(), mib(opened));

    let (mut keys, mut number) = (Keys::default(), 0);
    engine.for_each(&mut |key, _| {
        if number % ASKED_ONE_IN == 0 {
            keys.push(&[key]);
        }
        number += 1;
    })?;
    get_all(&*engine, &keys)?;
    let read = own_memory_bytes()?.saturating_sub(before + keys.memory_bytes());
    figures.insert("heap_read_mib".into(), mib(read));
    drop(keys);

    for _ in 1..OPENINGS {
        engine.close()?;
        let start = Instant::now();
        engine = task.engine.open(&task.folder, &setup)?;
        openings.push(start.elapsed().as_secs_f64() * 1e3);
    }
    figures.insert("open_ms".into(), median(&openings));
    engine.close()
}
