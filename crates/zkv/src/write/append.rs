//! One commit on its way into the log, and into the index of it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use zkv_index::{Change, KeyHash, Run, push_run};
use zkv_log::{Commit, Location, Log, Packed, Position, Room};

use crate::clean::Forgotten;
use crate::keys::Keys;
use crate::metadata::catalog::{CATALOG, Catalog, forget_dropped};
use crate::metadata::live::{LiveChange, LiveTable, Place, Weight, slot_of};
use crate::read::view::{Committed, LookupError, from_index, to_index};
use crate::write::operation::Operation;
use crate::write::resolve::{Resolution, Resolved, Resolver, order_by_key};
use crate::write::tail::Tail;
use crate::write::writer::{WriteError, Writer};

/// Records that belong together, being appended part by part. Dropped before
/// [`Append::finish`], it leaves nothing behind.
pub(crate) struct Append<'w> {
    commit: Commit<'w>,
    /// Where the log ends without it.
    end: Position,
    log: Log,
    keys: &'w Keys,
    committed: &'w mut Committed,
    live: &'w mut LiveTable,
    tail: &'w mut Tail,
    kept_runs: usize,
    is_applying: &'w mut bool,
    is_written: &'w dyn Fn(KeyHash) -> bool,
    /// Keys that the user has not named.
    added: HashSet<KeyHash>,
    effects: Effects,
}

/// What a commit does to the index, once it is in the log.
#[derive(Default)]
struct Effects {
    changes: Vec<Change>,
    live: LiveChange,
    key_changes: BTreeMap<u32, i64>,
    /// As the commit changes it.
    catalog: Option<Catalog>,
    payload_bytes: u64,
}

impl Writer {
    /// Begins a commit, each key of which it has once. `is_written` knows those keys.
    pub(crate) fn append<'w>(
        &'w mut self,
        is_written: &'w dyn Fn(KeyHash) -> bool,
    ) -> Result<Append<'w>, WriteError> {
        self.catch_up()?;
        let (log, end, kept_runs) = (self.log.log(), self.log.end(), self.kept_runs());
        Ok(Append {
            commit: self.log.begin()?,
            end,
            log,
            keys: &self.keys,
            committed: &mut self.committed,
            live: &mut self.live,
            tail: &mut self.tail,
            kept_runs,
            is_applying: &mut self.is_applying,
            is_written,
            added: HashSet::new(),
            effects: Effects::default(),
        })
    }
}

impl Append<'_> {
    /// Appends records of the user's, which are best sorted by hash: that is how the index lies in
    /// memory.
    pub(crate) fn add(&mut self, operations: &[Operation<'_>]) -> Result<(), WriteError> {
        let Resolution { mut resolved, added, .. } = self.resolve(operations.iter().copied())?;
        resolved.extend(added);
        self.put(&resolved)
    }

    /// Appends pieces of a new value, which its head is to follow.
    pub(crate) fn add_pieces(&mut self, pieces: &[(KeyHash, Vec<u8>)]) -> Result<(), WriteError> {
        let resolved: Vec<Resolved<'_>> =
            pieces.iter().filter_map(|(hash, record)| Resolved::new_piece(*hash, record)).collect();
        self.put(&resolved)
    }

    pub(crate) fn resolve<'r>(
        &mut self,
        operations: impl ExactSizeIterator<Item = Operation<'r>> + Clone,
    ) -> Result<Resolution<'r>, WriteError> {
        let Self { committed, keys, is_written, .. } = self;
        let resolver = Resolver { committed, keys, is_written };
        resolver.resolve(operations, &mut self.added)
    }

    /// Appends what is resolved.
    pub(crate) fn put(&mut self, resolved: &[Resolved<'_>]) -> Result<(), WriteError> {
        if resolved.is_empty() {
            return Ok(());
        }
        let order = order_by_key(resolved);
        let entries: Vec<&[u8]> =
            order.iter().map(|number| resolved[*number].record.get()).collect();
        let packed = self.log.pack_awaited(&entries)?;
        self.put_packed(resolved, &order, &packed)
    }

    /// Appends those of `resolved` whose numbers are in `order`, and which are packed in that order.
    pub(crate) fn put_packed(
        &mut self,
        resolved: &[Resolved<'_>],
        order: &[usize],
        packed: &Packed,
    ) -> Result<(), WriteError> {
        let appended = self.commit.append_located(packed)?;
        let slot_bytes = self.log.identity().slot_bytes;
        self.effects.payload_bytes += packed.payload_bytes() as u64;
        self.effects.changes.reserve(order.len());
        let mut locations = vec![None; resolved.len()];
        for (number, location) in order.iter().zip(&appended) {
            locations[*number] = Some(*location);
        }
        for (one, location) in resolved.iter().zip(locations) {
            let Some(location) = location else { continue };
            self.effects.add(one, location, slot_bytes);
            if one.collection == CATALOG {
                self.effects.learn(&self.committed.catalog, one.record.get());
            }
        }
        Ok(())
    }

    /// Takes places out of the index that nobody needs.
    pub(crate) fn forget(&mut self, forgotten: &[Forgotten]) {
        let slot_bytes = self.log.identity().slot_bytes;
        for Forgotten { hash, location, collection, raw_bytes } in forgotten {
            self.effects.live.kill(
                slot_of(from_index(*location), slot_bytes),
                *collection,
                *raw_bytes,
            );
            self.effects.changes.push(Change { hash: *hash, old: Some(*location), new: None });
        }
    }

    /// Ends the commit: what is in the log and in its index is one again. Returns the log's end.
    pub(crate) fn finish(mut self, room: Room) -> Result<Position, WriteError> {
        if self.effects.changes.is_empty() {
            return Ok(self.end);
        }
        // Sorted, they take no longer to become a run.
        self.effects.changes.sort_unstable_by_key(|change| change.hash);
        if !self.effects.changes.is_sorted_by(|left, right| left.hash < right.hash) {
            // Two collections have a piece of one name: only a forged log has that, and no run can
            // say what becomes of both.
            return Err(LookupError::Disagreement.into());
        }
        let end = self.commit.finish(room)?.end;
        // It stays set where this panics: the index then lacks what the log has.
        *self.is_applying = true;
        let Effects { changes, live, key_changes, catalog, payload_bytes } = self.effects;
        self.live.apply(&live);
        // Views hold the counts: what changes them copies those of all collections.
        if !key_changes.is_empty() || catalog.is_some() {
            let counts = Arc::make_mut(&mut self.committed.counts);
            for (collection, change) in key_changes {
                counts.add(collection, change);
            }
            if let Some(catalog) = catalog {
                forget_dropped(&catalog, counts, self.live);
                self.committed.catalog = Arc::new(catalog);
            }
        }
        self.tail.bytes += payload_bytes;
        self.tail.records += changes.len() as u64;
        push_run(&mut self.committed.runs, Run::from_changes(changes), self.kept_runs);
        self.committed.log = self.log.view().until(end);
        *self.is_applying = false;
        Ok(end)
    }
}

impl Effects {
    fn add(&mut self, one: &Resolved<'_>, location: Location, slot_bytes: u32) {
        let (collection, is_live) = (one.collection, one.kind.is_live());
        let weight = match is_live {
            true => Weight::Value(one.raw_bytes),
            false => Weight::Mark(one.record.get().len() as u64),
        };
        self.live.add(Place::of(location, slot_bytes), collection, weight);
        one.old.kill_in(&mut self.live, collection, slot_bytes);
        let key_change = one.kind.key_change(&one.old);
        if key_change != 0 {
            *self.key_changes.entry(collection).or_default() += key_change;
        }
        let new = if is_live { to_index(location) } else { None };
        let old = one.old.existing().map(|old| old.location);
        self.changes.push(Change { hash: one.hash, old, new });
    }

    fn learn(&mut self, catalog: &Catalog, record: &[u8]) {
        let catalog = self.catalog.get_or_insert_with(|| catalog.clone());
        if let Ok(record) = zkv_record::Record::decode(record) {
            catalog.apply(&record);
        }
    }
}
