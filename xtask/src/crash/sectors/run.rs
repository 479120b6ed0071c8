//! One run: operations, and what befalls the store between them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use zkv::{Durability, ReadMode};
use zkv_io::{Storage, replace_atomically};
use zkv_sim::{BadSector, Image, Lasts, SimDisk};

use super::super::images::Tally;
use super::super::model::{DEFAULT, Model};
use super::super::session::{INDEX, SLOT_BYTES, STORE, Session, Trouble, options};
use super::super::workload::{Operation, Workload};
use super::ends::End;
use super::rescue::{Found, with_index};
use super::seen::{Key, Known, Seen, Strictness, is_of_disk, told};
use super::spoil;

/// Of so many steps one is followed by a look at all that the store yields.
const LOOK_ONE_IN: u32 = 3;
/// Of so many times that nobody has the store open, it is looked at in every way at one.
const RESCUE_ONE_IN: u32 = 2;

/// What one operation adds at the most, but for a copy of all that is there.
const GROWTH_MAX: u64 = 40 * SLOT_BYTES as u64;

pub struct Run<'a> {
    pub session: Session<'a>,
    tally: &'a Tally,
    pub random: fastrand::Rng,
    /// What the disk held when it was started.
    pub start: Image,
    pub known: Known,
    /// Counts are right: nothing was written beside a bad sector since the index was made anew. Known flaws:
    /// damaged keys that are set or deleted are counted or not, and "`len` and `stats` may be off".
    counts: bool,
    /// Keys written since a close has written the index file, which it may not know of.
    pub since_close: BTreeSet<Key>,
    /// Changes done before the last step, and the commit that was durable then.
    pub before_step: (usize, usize),
    /// A call has failed: what it has committed before that is not known.
    pub is_unsure: bool,
    /// Behind the log's end there may be what a power cut has torn, which salvage cannot tell from damage
    /// before the first write wipes it.
    pub is_torn: bool,
    /// There may be what a power cut has torn, or records of a call that has failed, which could not be wiped: the
    /// disk cannot read what has to be looked at for that.
    is_unwiped: bool,
    /// Index files of the store's past.
    pub indexes: Vec<Arc<Vec<u8>>>,
    story: Vec<String>,
}

impl<'a> Run<'a> {
    pub fn new(workload: &'a Workload, chance: u64, tally: &'a Tally) -> Self {
        let mut session = Session::new(workload, SimDisk::recording(workload.seed));
        // What is cached does not show what the disk cannot read.
        session.adjust = match chance.is_multiple_of(2) {
            true => |options| options.cache_bytes(0).read_mode(ReadMode::Pread),
            false => |options| options.cache_bytes(0),
        };
        Self {
            session,
            tally,
            random: fastrand::Rng::with_seed(chance),
            start: Image::new(),
            known: Known::default(),
            counts: true,
            since_close: BTreeSet::new(),
            before_step: (0, 0),
            is_unsure: false,
            is_torn: false,
            is_unwiped: false,
            indexes: Vec::new(),
            story: Vec::new(),
        }
    }

    /// What was done, a line a step.
    pub fn story(&self) -> String {
        self.story.iter().map(|line| format!("    {line}\n")).collect()
    }

    pub fn go(&mut self) -> Result<(), String> {
        self.session.open().map_err(|trouble| trouble.to_string())?;
        let operations = &self.session.workload.operations;
        let good = self.random.usize(..=operations.len() / 2);
        for (number, operation) in operations.iter().enumerate() {
            if number > good {
                self.befall()?;
            }
            self.step(number, *operation).map_err(|error| format!("{operation}: {error}"))?;
            if self.random.u32(..LOOK_ONE_IN) == 0 {
                self.look(false)?;
            }
        }
        // At last, everything can be read again.
        self.end(End::Close)?;
        self.heal(|_| true);
        self.rescue()?;
        self.open()
    }

    /// What befalls the store between two operations.
    fn befall(&mut self) -> Result<(), String> {
        match self.random.u32(..12) {
            0 => self.reopen(End::Close),
            1 => self.reopen(End::Kill),
            2 | 3 => self.reopen(End::PowerCut),
            4 => {
                // What waits in buffers looks for older places only when it is written.
                self.step(usize::MAX, Operation::Flush)?;
                self.spoil();
                self.look(false)
            }
            _ => Ok(()),
        }
    }

    fn step(&mut self, number: usize, operation: Operation) -> Result<(), String> {
        self.tell(format!("operation {number}, {operation}"));
        match operation {
            Operation::Reopen => return self.reopen(End::Close),
            Operation::Kill => return self.reopen(End::Kill),
            Operation::LoseIndex => {
                self.end(End::Kill)?;
                self.lose_index();
                return self.open();
            }
            Operation::SwitchIndex => {
                self.end(End::Close)?;
                self.session.use_index_file = !self.session.use_index_file;
                return self.open();
            }
            // An older copy is another store, of whose future there may be an index.
            Operation::Restore => return Ok(()),
            _ => {}
        }
        let keys: BTreeSet<Key> = operation
            .writes(self.session.workload, number)
            .into_iter()
            .map(|(place, key, _)| (place, key))
            .collect();
        if self.asks_for_stale(operation, &keys) {
            return Ok(());
        }
        self.note_stale(&keys)?;
        self.before_step = (self.session.disk.event_count(), self.session.durable);
        let before = self.session.visible.clone();
        let after = before.after(self.session.workload, number, operation);
        after.iter().for_each(|state| self.known.note(state));
        let had_refused = self.session.disk.has_refused_write();
        // A write may mend what has failed another one.
        let may_fail = self.may_fail();
        // What goes on without end fills the disk.
        let room = 2 * self.session.disk.used_bytes() + GROWTH_MAX;
        self.session.disk.set_capacity(Some(room));
        let done = self.session.step(number, operation);
        self.session.disk.set_capacity(None);
        let has_written = self.before_step.0 < self.session.disk.event_count();
        if room < self.session.disk.used_bytes() + u64::from(SLOT_BYTES) {
            return Err("the store grows without end".to_owned());
        }
        match done {
            Ok(()) => {
                self.counts &= keys.is_empty() || !self.is_bad();
                let is_buffered = self.session.workload.durability == Durability::Buffered;
                // A deletion that finds nothing writes nothing.
                let is_behind = has_written && (!is_buffered || operation.goes_straight());
                if is_behind && !keys.is_empty() {
                    let was_to_wipe = std::mem::take(&mut self.is_torn) || self.is_unwiped;
                    self.is_unwiped = was_to_wipe && !self.bad_of(STORE).is_empty();
                }
                self.since_close.extend(keys);
                match operation {
                    Operation::Clean | Operation::Compact => {
                        self.known.has_moved_stale |= !self.known.stale.is_empty();
                    }
                    Operation::RebuildIndex if !self.is_bad() => self.is_anew(),
                    _ => {}
                }
                Ok(())
            }
            Err(Trouble::Refused(error)) if may_fail && is_of_disk(&error) => {
                self.tell(format!("  failed: {error}"));
                self.since_close.extend(keys);
                self.counts = false;
                self.is_unwiped |= has_written;
                let was_refused = !had_refused && self.session.disk.has_refused_write();
                self.failed(&before, &after, was_refused)
            }
            Err(trouble) => Err(trouble.to_string()),
        }
    }

    /// After an operation that has failed, and has not happened.
    fn failed(&mut self, before: &Model, after: &[Model], was_refused: bool) -> Result<(), String> {
        self.is_unsure = true;
        self.is_torn |= was_refused;
        self.session.visible = before.clone();
        self.session.commit();
        let Some((last, parts)) = after.split_last() else { return Ok(()) };
        if parts.is_empty() && !was_refused && self.random.bool() {
            return self.look(false);
        }
        // What an operation commits before its last commit may stand. Known flaw: "A commit is refused, all
        // of it has arrived, and it cannot be wiped, since the disk goes on to fail".
        for state in parts.iter().chain(Some(last).filter(|_| was_refused)) {
            self.session.visible = state.clone();
            self.session.commit();
        }
        self.reopen(End::Kill)
    }

    /// Whether an operation tells of keys what only a right index knows: they are stale, and were deleted.
    fn asks_for_stale(&self, operation: Operation, keys: &BTreeSet<Key>) -> bool {
        let asks = matches!(operation, Operation::Delete(..) | Operation::Transact { .. });
        let gone = |key: &&Key| !self.session.visible.entries.contains_key(*key);
        asks && keys.iter().filter(gone).any(|key| self.known.stale.contains(key))
    }

    /// Notes which of the keys that are about to be written have a place that cannot be read.
    fn note_stale(&mut self, keys: &BTreeSet<Key>) -> Result<(), String> {
        if !self.is_bad() {
            return Ok(());
        }
        let store = self.session.store().map_err(|trouble| trouble.to_string())?;
        let mut stale = Vec::new();
        for (place, key) in keys {
            let got = if *place == DEFAULT {
                store.get_bytes(key).map(drop)
            } else if self.session.visible.types.contains_key(place) {
                let opened = self.session.visible.open(store, *place);
                let opened = opened.map_err(|trouble| trouble.to_string())?;
                opened.get(key).map(drop)
            } else {
                Ok(())
            };
            if let Err(error) = got {
                told(error.into())?;
                stale.push((*place, key.clone()));
            }
        }
        self.known.stale.extend(stale);
        Ok(())
    }

    /// The index was made of a log that can be read.
    fn is_anew(&mut self) {
        if !self.known.has_moved_stale {
            self.counts = true;
            self.known.stale.clear();
        }
    }

    fn bad_of(&self, path: &str) -> Vec<BadSector> {
        self.session.disk.bad_sectors(Path::new(path))
    }

    fn is_bad(&self) -> bool {
        spoil::PATHS.iter().any(|path| !self.bad_of(path).is_empty())
    }

    pub fn may_fail(&self) -> bool {
        self.is_bad() || !self.known.stale.is_empty()
    }

    /// Holds all that the open store yields against what it should hold.
    fn look(&mut self, is_fresh: bool) -> Result<(), String> {
        let store = self.session.store().map_err(|trouble| trouble.to_string())?;
        let seen = Seen::of(store, &self.known)?;
        let (may_fail, has_parts) = (self.is_bad(), spoil::has_parts_of_pages(&self.bad_of(STORE)));
        let iterates_all = is_fresh && !has_parts;
        let strict = Strictness { may_fail, iterates_all, counts: self.counts && !may_fail };
        self.tally.images.fetch_add(1, Ordering::Relaxed);
        seen.check(&self.session.visible, &self.known, strict)
    }

    /// Another process opens the store.
    fn reopen(&mut self, end: End) -> Result<(), String> {
        self.end(end)?;
        match self.random.u32(..8) {
            0 => self.lose_index(),
            1 => self.bring_older_index()?,
            _ => {}
        }
        self.heal(|lasts| lasts == Lasts::ForAWhile);
        if self.random.u32(..4) == 0 {
            self.heal(|_| true);
        }
        if self.random.bool() {
            self.spoil();
        }
        if self.random.u32(..RESCUE_ONE_IN) == 0 {
            self.rescue()?;
        }
        self.open()
    }

    fn open(&mut self) -> Result<(), String> {
        let has_file = self.session.disk.image().get(Path::new(INDEX)).is_some();
        let has_index = self.session.use_index_file && has_file;
        match self.session.open() {
            Ok(()) => {}
            Err(Trouble::Refused(error)) if self.is_bad() && is_of_disk(&error) => {
                self.tell(format!("  refused: {error}"));
                if self.session.disk.bad_sectors(Path::new(STORE)).is_empty() {
                    return Err(format!("refused for its index file: {error}"));
                }
                self.heal(|_| true);
                self.rescue()?;
                let opened = self.session.open();
                opened.map_err(|trouble| format!("refused when all can be read: {trouble}"))?;
            }
            Err(trouble) => return Err(format!("opening: {trouble}")),
        }
        if self.is_bad() && has_index {
            // Known flaw: "So it is where an opening that replays a deletion which was durable cannot read
            // that place".
            self.known.stale.extend(std::mem::take(&mut self.since_close));
            self.counts &= self.known.stale.is_empty();
        } else if !has_file && !self.is_bad() {
            // A file that is not used now is as it was when it is used again.
            self.is_anew();
        }
        self.look(true)
    }

    /// Keeps the index file that is there now; whether it is another one than the last that was kept.
    pub fn note_index(&mut self) -> bool {
        let image = self.session.disk.image();
        let Some(bytes) = image.get(Path::new(INDEX)) else { return false };
        let is_new = self.indexes.last().is_none_or(|last| last.as_slice() != bytes);
        if is_new {
            self.indexes.push(Arc::new(bytes.to_vec()));
        }
        is_new
    }

    fn lose_index(&mut self) {
        self.tell("  the index file is lost".to_owned());
        // There may be none.
        let _ = self.session.disk.remove(Path::new(INDEX));
    }

    fn bring_older_index(&mut self) -> Result<(), String> {
        if self.indexes.is_empty() {
            return Ok(());
        }
        let number = self.random.usize(..self.indexes.len());
        self.tell(format!("  index file {number} of {} is back", self.indexes.len()));
        let (disk, bytes) = (self.session.disk.clone(), Arc::clone(&self.indexes[number]));
        let put = replace_atomically(&disk, Path::new(INDEX), |file| file.write_at(0, &bytes));
        // All that it does not know of is replayed.
        self.since_close.extend(self.known.had.keys().cloned());
        put.map_err(|error| format!("an older index file: {error}"))
    }

    fn spoil(&mut self) {
        for (path, sector) in spoil::choose(&self.session.disk, &mut self.random) {
            let mut sectors = self.session.disk.bad_sectors(path);
            self.tell(format!("  {} cannot be read: {sector:?}", path.display()));
            sectors.push(sector);
            // It is there, since it was chosen by its length.
            let _ = self.session.disk.set_bad_sectors(path, sectors);
        }
        // An index that cannot be read is made anew, at any time, of what can be read.
        self.counts &= spoil::PATHS.iter().any(|path| self.bad_of(path).is_empty());
    }

    fn heal(&mut self, is_healed: impl Fn(Lasts) -> bool) {
        for path in spoil::PATHS.map(Path::new) {
            let mut sectors = self.session.disk.bad_sectors(path);
            let before = sectors.len();
            sectors.retain(|bad| !is_healed(bad.lasts));
            if sectors.len() < before {
                self.tell(format!("  {} of {before} can be read again", before - sectors.len()));
                let _ = self.session.disk.set_bad_sectors(path, sectors);
            }
        }
    }

    /// Looks at a store that nobody has open in every way: with its index file and without, beside its bad
    /// sectors and where all can be read.
    fn rescue(&mut self) -> Result<(), String> {
        let image = self.session.disk.image();
        let bad = spoil::PATHS.map(|path| (path, self.session.disk.bad_sectors(Path::new(path))));
        for with in [true, false] {
            let image = if with { image.clone() } else { with_index(&image, None) };
            let known = if with { self.known.clone() } else { self.known_of_log() };
            for bad in [&bad[..], &[]] {
                let found = Found {
                    workload: self.session.workload,
                    image: &image,
                    bad,
                    model: &self.session.visible,
                    known: &known,
                    is_unwiped: self.is_unwiped,
                };
                let of = if with { "with its index" } else { "without an index" };
                let beside = if found.is_bad() { "beside bad sectors" } else { "on a good disk" };
                let after = |error: String| format!("{of}, {beside}: {error}");
                self.tally.images.fetch_add(1, Ordering::Relaxed);
                let seen = self.open_found(&found, with).map_err(after)?;
                found.verify().map_err(after)?;
                if !self.is_torn {
                    found.salvage(seen.as_ref()).map_err(after)?;
                }
            }
        }
        Ok(())
    }

    /// What a copy of the store yields; `None` where it is refused.
    fn open_found(&self, found: &Found<'_>, with_index: bool) -> Result<Option<Seen>, String> {
        let disk = found.disk(19);
        let options = (self.session.adjust)(options(&disk, found.workload));
        let store = match options.create(false).open_read_only(STORE) {
            Ok(store) => store,
            Err(error) if found.is_bad() && is_of_disk(&error) => return Ok(None),
            Err(error) => return Err(format!("opening: {error}")),
        };
        let seen = Seen::of(&store, found.known)?;
        let counts = if with_index { self.counts && !found.is_bad() } else { !found.is_bad() };
        let counts = counts && !found.known.has_moved_stale;
        let iterates_all = !found.bad.iter().any(|(_, bad)| spoil::has_parts_of_pages(bad));
        let strict = Strictness { may_fail: found.is_bad(), iterates_all, counts };
        let mut known = found.known.clone();
        if with_index && found.is_bad() {
            known.stale.extend(self.since_close.iter().cloned());
        }
        seen.check(found.model, &known, strict)?;
        Ok(Some(seen))
    }

    pub fn tell(&mut self, line: String) {
        self.story.push(line);
    }
}
