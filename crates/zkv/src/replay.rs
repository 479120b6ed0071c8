//! Bringing an index up to the log's end when a store is opened.

use std::collections::HashMap;
use std::sync::Arc;

use zkv_index::{Change, KeyHash, Run, push_run};
use zkv_log::{Location, Position};
use zkv_record::{Kind, Record};

use crate::catalog::{CATALOG, forget_dropped};
use crate::keys::Keys;
use crate::live::{LiveChange, LiveTable, Weight, slot_of};
use crate::resolve::{Before, RecordKind, certain_at, resolve};
use crate::view::{Committed, KeyRef, LookupError, to_index};

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
        let slot = slot_of(location, self.slot_bytes);
        self.live_change.add(slot, collection, Weight::of(record));
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
        Ok(())
    }

    /// Makes a run of all that was applied.
    pub(crate) fn finish(self) {
        self.live.apply(&self.live_change);
        let Committed { counts, catalog, .. } = self.committed;
        forget_dropped(catalog, Arc::make_mut(counts), self.live);
        if !self.changes.is_empty() {
            let run = Run::from_changes(self.changes.into_values().collect());
            push_run(&mut self.committed.runs, run, 0);
        }
    }
}
