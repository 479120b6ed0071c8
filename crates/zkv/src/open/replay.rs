//! Bringing an index up to the log's end when a store is opened.

use std::collections::HashMap;
use std::sync::Arc;

use zkv_index::{Change, KeyHash, Run, push_run};
use zkv_log::{Location, Position};
use zkv_record::{Kind, Record};

use crate::keys::Keys;
use crate::metadata::catalog::{CATALOG, forget_dropped};
use crate::metadata::live::{LiveChange, LiveTable, Place, Weight};
use crate::read::view::{Committed, KeyRef, LookupError, to_index};
use crate::write::resolve::{Before, RecordKind, certain_at, resolve};

/// So many changes become a run together: each takes a few times as much memory before. Tests come to that.
const CHANGES_PER_RUN: usize = if cfg!(test) { 8 } else { 256 << 10 };

/// Applies the records behind a checkpoint, when a store is opened, one after another.
pub(crate) struct Replay<'a> {
    keys: &'a Keys,
    committed: &'a mut Committed,
    live: &'a mut LiveTable,
    live_change: LiveChange,
    changes: HashMap<KeyHash, Change>,
    slot_bytes: u32,
}

impl<'a> Replay<'a> {
    pub(crate) fn new(
        keys: &'a Keys,
        committed: &'a mut Committed,
        live: &'a mut LiveTable,
        slot_bytes: u32,
    ) -> Self {
        let live_change = LiveChange::default();
        Self { keys, committed, live, live_change, changes: HashMap::new(), slot_bytes }
    }

    /// Takes away what stands at `position` or behind it, which later records have written.
    pub(crate) fn reach(&mut self, position: Position) {
        self.committed.log = self.committed.log.clone().until(position);
    }

    /// Applies the record that stands at `location`.
    pub(crate) fn apply(
        &mut self,
        record: &Record<'_>,
        location: Location,
    ) -> Result<(), LookupError> {
        let kind = RecordKind::of(record);
        let is_piece = record.kind == Kind::Piece;
        let hash = self.keys.hash_record(record);
        let collection = record.collection;
        let key = KeyRef { hash, key: record.key, collection, is_piece };
        let known = self.changes.get(&hash).copied();
        let old = match known {
            Some(Change { new: None, .. }) => Before::Nothing,
            Some(Change { new: Some(location), .. }) => {
                Before::At(certain_at(self.committed, key, location)?)
            }
            None => resolve(self.committed, hash, || key)?,
        };
        let place = Place::of(location, self.slot_bytes);
        self.live_change.add(place, collection, Weight::of(record));
        old.kill_in(&mut self.live_change, collection, self.slot_bytes);
        Arc::make_mut(&mut self.committed.counts).add(collection, kind.key_change(&old));
        if collection == CATALOG {
            Arc::make_mut(&mut self.committed.catalog).apply(record);
        }
        let new = if kind.is_live() { to_index(location) } else { None };
        let beneath = match known {
            Some(change) => change.old,
            None => old.existing().map(|old| old.location),
        };
        if beneath.is_none() && new.is_none() {
            // As the run of a commit, which does not keep that either: what cannot be read may be beneath.
            self.changes.remove(&hash);
        } else {
            self.changes.insert(hash, Change { hash, old: beneath, new });
        }
        if self.changes.len() >= CHANGES_PER_RUN {
            self.push_changes();
        }
        Ok(())
    }

    fn push_changes(&mut self) {
        let run = Run::from_changes(self.changes.drain().map(|(_, change)| change).collect());
        push_run(&mut self.committed.runs, run, 0);
    }

    /// Makes a run of all that was applied.
    pub(crate) fn finish(mut self) {
        self.push_changes();
        self.live.apply(&self.live_change);
        let Committed { counts, catalog, .. } = self.committed;
        forget_dropped(catalog, Arc::make_mut(counts), self.live);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use zkv_sim::SimDisk;

    use crate::options::{Cleaning, Options};
    use crate::store::Store;

    fn open(disk: &SimDisk) -> Store {
        let options = Options::new().storage(Arc::new(disk.clone()));
        options.cleaning(Cleaning::Off).open("dir/store.zkv").unwrap()
    }

    #[test]
    fn what_a_killed_process_has_written_is_replayed_run_by_run() {
        for seed in 0..30 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (disk, mut expected) = (SimDisk::recording(seed), BTreeMap::new());
            open(&disk).close().unwrap();
            let store = open(&disk);
            for turn in 0..400u32 {
                if turn == 100 {
                    // Before that, the index file has it.
                    store.rebuild_index().unwrap();
                }
                let key = random.u8(..60);
                if random.u8(..3) == 0 {
                    let was_there = expected.remove(&key).is_some();
                    assert_eq!(store.delete_bytes(&[key]).unwrap(), was_there);
                } else {
                    expected.insert(key, turn);
                    store.set_bytes(&[key], &turn.to_le_bytes()).unwrap();
                }
                if random.bool() {
                    store.flush().unwrap();
                }
            }
            store.flush().unwrap();
            let killed = disk.kill();
            drop(store);
            let store = open(&killed);
            let records = store.shared().writer().unwrap().tail.records;
            assert!(records > 100, "{records}");
            assert_eq!(store.len(), expected.len() as u64);
            for key in 0..60 {
                let value = expected.get(&key).map(|turn| turn.to_le_bytes().to_vec());
                assert_eq!(store.get_bytes(&[key]).unwrap(), value, "{key}");
            }
            assert_eq!(store.verify(|_| {}).unwrap().findings, []);
            store.close().unwrap();
            assert_eq!(open(&killed).verify(|_| {}).unwrap().findings, []);
        }
    }
}
