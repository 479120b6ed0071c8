//! Everything into a new store, until it is durable and closed; then settling.

use std::time::Instant;

use cpu_time::ProcessTime;
use zkv_measure::figures::{float, mib};
use zkv_measure::memory::{own_memory_bytes, peak_while};

use crate::Failure;
use crate::child::{Figures, Task};
use crate::disk::bytes_of;
use crate::engine::Order;
use crate::phases::seconds;
use crate::records::Staged;

pub fn random(task: &Task<'_>, figures: &mut Figures) -> Result<(), Failure> {
    import(task, Order::Random, "import", figures)?;
    figures.insert("size_import".into(), float(bytes_of(&task.folder)?) / 1e6);
    let mut engine = task.engine.open(&task.folder, &task.setup(None))?;
    let took = seconds(|| engine.settle())?;
    engine.close()?;
    figures.insert("settle_s".into(), took);
    figures.insert("size".into(), float(bytes_of(&task.folder)?) / 1e6);
    Ok(())
}

pub fn sorted(task: &Task<'_>, figures: &mut Figures) -> Result<(), Failure> {
    import(task, Order::Sorted, "sorted", figures)?;
    figures.insert("size_sorted".into(), float(bytes_of(&task.folder)?) / 1e6);
    Ok(())
}

fn import(task: &Task<'_>, order: Order, name: &str, figures: &mut Figures) -> Result<(), Failure> {
    let records = &task.records;
    // Looking each record up where it was read takes as long as a third of LMDB's import.
    let staged = match order {
        Order::Random => Staged::new(records.in_random_order()),
        Order::Sorted => Staged::new(records.in_key_order()),
    };
    let setup = task.setup(None);
    let before = own_memory_bytes()?;
    let ((wall, cpu), peak) = peak_while(|| {
        let (start, cpu) = (Instant::now(), ProcessTime::try_now()?);
        let engine = task.engine.open(&task.folder, &setup)?;
        engine.import(&mut staged.iter(), order)?;
        engine.close()?;
        Ok((start.elapsed().as_secs_f64(), cpu.try_elapsed()?.as_secs_f64()))
    })?;
    let mut put = |what: &str, value: f64| figures.insert(format!("{name}_{what}"), value);
    put("mb_s", float(records.raw_bytes) / 1e6 / wall);
    put("krecords_s", float(records.count() as u64) / 1e3 / wall);
    put("cpu_s", cpu);
    put("peak_mib", mib(peak.saturating_sub(before)));
    Ok(())
}
