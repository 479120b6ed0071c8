//! Durable commits, then overwrites of everything and deletes of half, in batches, with what the
//! store takes afterwards.

use std::fs::File;
use std::os::unix::fs::FileExt;

use zkv_measure::figures::float;
use zkv_measure::random::Random;

use crate::Failure;
use crate::child::{Figures, Task};
use crate::disk::bytes_of;
use crate::engine::{Change, Engine, Safety};
use crate::phases::{seconds, seconds_of_threads};
use crate::records::Records;

/// Threads that commit together.
const THREADS: usize = 8;
/// A commit writes at least one page of the file system.
const PAGE_BYTES: usize = 4096;
/// Changes of one batch.
const BATCH: usize = 1000;
/// Records that are looked at in the end.
const CHECKED: usize = 2000;

pub fn all(task: &Task<'_>, figures: &mut Figures) -> Result<(), Failure> {
    let setup = task.setup(None);
    let megabytes = || Ok::<_, Failure>(float(bytes_of(&task.folder)?) / 1e6);
    let engine = task.engine.open(&task.folder, &setup)?;
    commits(task, &*engine, figures)?;

    let count = task.records.count();
    let rate = |count: usize, seconds: f64| float(count as u64) / 1e3 / seconds;
    let took = in_batches(&*engine, (0..count).map(|place| overwrite(task, place)))?;
    figures.insert("overwrite_krecords_s".into(), rate(count, took));
    engine.close()?;
    figures.insert("size_overwritten".into(), megabytes()?);
    let mut engine = task.engine.open(&task.folder, &setup)?;
    engine.settle()?;
    engine.close()?;
    figures.insert("size_overwritten_settled".into(), megabytes()?);

    let engine = task.engine.open(&task.folder, &setup)?;
    let deleted = count / 2;
    let took = in_batches(&*engine, (0..deleted).map(|place| (task.records.at(place).0, None)))?;
    figures.insert("delete_krecords_s".into(), rate(deleted, took));
    engine.close()?;
    let mut engine = task.engine.open(&task.folder, &setup)?;
    engine.settle()?;
    check(task, &*engine, deleted)?;
    engine.close()?;
    figures.insert("size_deleted_settled".into(), megabytes()?);
    Ok(())
}

/// The record at `place` gets the value of its neighbour, so that lengths stay what they are.
fn overwrite<'a>(task: &'a Task<'_>, place: usize) -> Change<'a> {
    let neighbour = (place + 1) % task.records.count();
    (task.records.at(place).0, Some(task.records.at(neighbour).1))
}

/// Some record gets another one's value: an engine may see that nothing changes, and write nothing.
fn change<'a>(records: &'a Records, random: &mut Random) -> Change<'a> {
    let (key, value) = (records.draw(random).0, records.draw(random).1);
    (key, Some(value))
}

fn commits(task: &Task<'_>, engine: &dyn Engine, figures: &mut Figures) -> Result<(), Failure> {
    let count = task.arguments.commits;
    let commit_some = |seed: u64, count: usize| {
        let mut random = Random::new(task.arguments.input.seed ^ seed);
        (0..count)
            .try_for_each(|_| engine.write(&[change(&task.records, &mut random)], Safety::Synced))
    };
    // Other programs' syncs hold up ours, so the bare ones stand before and behind.
    let before = bare_syncs(task)?;
    let took = seconds(|| commit_some(4, count))?;
    let bare = (before + bare_syncs(task)?) / 2.0;
    figures.insert("commit_us".into(), took * 1e6 / float(count as u64));
    figures.insert("limit_sync_us".into(), bare * 1e6 / float(count as u64));
    figures.insert("commit_syncs".into(), took / bare);
    let seeds: Vec<u64> = (5..).take(THREADS).collect();
    let each = (count / THREADS).max(1);
    let took = seconds_of_threads(&seeds, |seed| commit_some(*seed, each))?;
    figures.insert("commit_8_per_s".into(), float((each * THREADS) as u64) / took);
    Ok(())
}

/// The seconds of as many pages written into zeroed room, one after another, each of them synced.
fn bare_syncs(task: &Task<'_>) -> Result<f64, Failure> {
    let count = task.arguments.commits;
    let path = task.folder.join("limit");
    let file = File::create(&path)?;
    file.write_all_at(&vec![0; count * PAGE_BYTES], 0)?;
    file.sync_all()?;
    let took = seconds(|| {
        for number in 0..count {
            file.write_all_at(&[1; PAGE_BYTES], (number * PAGE_BYTES) as u64)?;
            file.sync_data()?;
        }
        Ok(())
    })?;
    std::fs::remove_file(path)?;
    Ok(took)
}

/// Makes all `changes`, and returns the seconds until they are on stable storage.
fn in_batches<'a>(
    engine: &dyn Engine,
    changes: impl Iterator<Item = Change<'a>>,
) -> Result<f64, Failure> {
    let mut batch = Vec::with_capacity(BATCH);
    seconds(|| {
        for change in changes {
            batch.push(change);
            if batch.len() == BATCH {
                engine.write(&batch, Safety::Relaxed)?;
                batch.clear();
            }
        }
        engine.write(&batch, Safety::Relaxed)?;
        engine.sync()
    })
}

/// An engine that forgets a change is not measured.
fn check(task: &Task<'_>, engine: &dyn Engine, deleted: usize) -> Result<(), Failure> {
    let mut reader = engine.reader()?;
    let step = (task.records.count() / CHECKED).max(1);
    for place in (0..task.records.count()).step_by(step) {
        let (key, expected) = overwrite(task, place);
        let mut is_right = true;
        let is_there = reader.get(key, &mut |value| is_right = Some(value) == expected)?;
        if is_there != (place >= deleted) || !is_right {
            return Err("a write was lost".into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use zkv_measure::generate::{Generator, Kind};
    use zkv_measure::input::Input;

    use super::*;

    #[test]
    fn nearly_every_commit_changes_something() {
        let generator = Generator::new(Kind::Small, 1);
        let records = Records::new(Input::Generated { generator, count: 1000 }, 1).unwrap();
        let mut state: HashMap<_, _> = records.in_random_order().collect();
        let mut random = Random::new(1);
        let changes = (0..1000).map(|_| change(&records, &mut random));
        let changed = changes.filter(|(key, value)| state.insert(key, value.unwrap()) != *value);
        assert!(changed.count() > 980);
    }
}
