//! The store at one moment, and how a key is looked up in it.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use zkv_index::{Candidates, Change, Checkpoint, KeyHash, Run};
use zkv_log::{Location, LogError, LogView, Position};
use zkv_record::{Kind, Record};

use crate::error::{Error, is_lost};
use crate::metadata::catalog::Catalog;
use crate::metadata::counts::KeyCounts;
use crate::metadata::known::KnownSegments;
use crate::read::cache::CheckpointId;
use crate::sync::ArcSwap;
use crate::write::memtable::{Memtable, Seen, is_put};

/// Everything that a read needs, published as one pointer: a reader that holds it takes no lock.
///
/// From the newest to the oldest: the active buffer, frozen buffers that are being written, runs
/// (the index of what came behind the checkpoint), the checkpoint.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub active: Arc<Memtable>,
    /// The newest first.
    pub frozen: Vec<Arc<Memtable>>,
    pub committed: Committed,
}

/// What is in the log.
#[derive(Clone, Debug)]
pub(crate) struct Committed {
    /// The newest first.
    pub runs: Vec<Arc<Run>>,
    pub checkpoint: Option<Arc<Checkpoint>>,
    pub checkpoint_id: CheckpointId,
    /// Where the log ended, or behind that if it cannot grow, when the store began to go by the checkpoint.
    pub checkpoint_end: Position,
    pub log: LogView,
    pub counts: Arc<KeyCounts>,
    pub catalog: Arc<Catalog>,
    pub known: Arc<KnownSegments>,
}

/// A view, and how much of its active buffer was there: what a reader sees who looks again and
/// again.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    view: Arc<View>,
    seen: Seen,
}

/// A key, as records and the index know it.
#[derive(Clone, Copy)]
pub(crate) struct KeyRef<'a> {
    pub hash: KeyHash,
    pub key: &'a [u8],
    pub collection: u32,
    /// Whether it is the key of a piece: those live apart.
    pub is_piece: bool,
}

impl KeyRef<'_> {
    #[inline]
    pub(crate) fn is_of(&self, record: &Record<'_>) -> bool {
        record.key == self.key
            && record.collection == self.collection
            && (record.kind == Kind::Piece) == self.is_piece
    }
}

/// Tells whether the key of a record had a value beneath the record's buffer.
type IsBeneath<'a> = &'a mut dyn FnMut(KeyHash, &Record<'_>) -> Result<bool, LookupError>;

/// Where a key may be.
pub(crate) enum Places {
    Nowhere,
    /// Here, if it is certain, and else here or nowhere.
    One {
        location: Location,
        is_certain: bool,
    },
    Several,
}

/// Why a lookup could not answer.
#[derive(Debug)]
pub(crate) enum LookupError {
    Log(LogError),
    Index(zkv_index::IndexError),
    /// The index names a place that does not hold the key.
    Disagreement,
}

impl LookupError {
    /// As the error of the store whose files these are.
    pub(crate) fn of(self, path: &Path, index_path: &Path) -> Error {
        match self {
            Self::Log(error) => Error::data(path)(error),
            Self::Index(error) => Error::index(index_path)(error),
            Self::Disagreement => Error::Disagreement { path: path.to_owned() },
        }
    }
}

impl From<LogError> for LookupError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<zkv_index::IndexError> for LookupError {
    fn from(error: zkv_index::IndexError) -> Self {
        Self::Index(error)
    }
}

impl View {
    /// Shows the newest record of the key to `take`: a put, a head, or a mark that it was deleted.
    #[inline]
    pub(crate) fn find<T>(
        &self,
        key: KeyRef<'_>,
        mut take: impl FnMut(&Record<'_>) -> T,
    ) -> Result<Option<T>, LookupError> {
        match self.find_buffered(key, self.active.seen(), &mut take) {
            Some(found) => Ok(Some(found)),
            None => self.committed.find(key, take),
        }
    }

    /// As [`View::find`], in the buffers alone.
    #[inline]
    pub(crate) fn find_buffered<T>(
        &self,
        key: KeyRef<'_>,
        seen: Seen,
        mut take: impl FnMut(&Record<'_>) -> T,
    ) -> Option<T> {
        self.tables(seen).find_map(|(memtable, seen)| {
            let found = memtable.get(key.hash, seen, |bytes| {
                Record::decode(bytes).ok().filter(|record| key.is_of(record)).map(|r| take(&r))
            });
            found.flatten()
        })
    }

    /// All buffers, the newest first, with what is seen of each.
    #[inline]
    fn tables(&self, seen: Seen) -> impl Iterator<Item = (&Arc<Memtable>, Seen)> {
        let frozen = self.frozen.iter().map(|table| (table, Seen::ALL));
        std::iter::once((&self.active, seen)).chain(frozen)
    }
}

impl Moment {
    /// The moment of this call. `published` is where views are published.
    pub(crate) fn now(published: &ArcSwap<View>) -> Self {
        loop {
            let view = published.load_full();
            let seen = view.active.seen();
            // Where another view has been published since, something may have been seen that came
            // behind it.
            if Arc::ptr_eq(&view, &published.load()) {
                return Self { view, seen };
            }
        }
    }

    /// As [`View::find`], at this moment.
    pub(crate) fn find<T>(
        &self,
        key: KeyRef<'_>,
        mut take: impl FnMut(&Record<'_>) -> T,
    ) -> Result<Option<T>, LookupError> {
        match self.find_buffered(key, &mut take) {
            Some(found) => Ok(Some(found)),
            None => self.committed().find(key, take),
        }
    }

    /// As [`View::find_buffered`], at this moment.
    #[inline]
    pub(crate) fn find_buffered<T>(
        &self,
        key: KeyRef<'_>,
        take: impl FnMut(&Record<'_>) -> T,
    ) -> Option<T> {
        self.view.find_buffered(key, self.seen, take)
    }

    /// How many keys `collection` has.
    pub(crate) fn count_keys(&self, collection: u32) -> Result<u64, LookupError> {
        let mut change = 0;
        self.for_each_table(|table, seen, is_beneath| {
            change += table.count_keys(collection, seen, is_beneath)?;
            Ok(())
        })?;
        Ok(self.view.committed.counts.of(collection).saturating_add_signed(change))
    }

    /// How many keys each collection has.
    pub(crate) fn count_all_keys(&self) -> Result<KeyCounts, LookupError> {
        let mut changes = BTreeMap::new();
        self.for_each_table(|table, seen, is_beneath| {
            table.count_all_keys(seen, is_beneath, &mut changes)
        })?;
        let mut counts = KeyCounts::clone(&self.view.committed.counts);
        for (collection, change) in changes {
            counts.add(collection, change);
        }
        Ok(counts)
    }

    /// Shows each buffer to `count`, with what is seen of it, and what tells whether the key of one of its
    /// records had a value beneath it.
    fn for_each_table(
        &self,
        mut count: impl FnMut(&Memtable, Seen, IsBeneath<'_>) -> Result<(), LookupError>,
    ) -> Result<(), LookupError> {
        let tables: Vec<_> = self.tables().collect();
        for (number, (table, seen)) in tables.iter().enumerate() {
            let (older, committed) = (&tables[number + 1..], &self.view.committed);
            count(table, *seen, &mut |hash, record| is_there(hash, record, older, committed))?;
        }
        Ok(())
    }

    pub(crate) fn committed(&self) -> &Committed {
        &self.view.committed
    }

    /// All buffers, the newest first, with what is seen of each.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (&Arc<Memtable>, Seen)> {
        self.view.tables(self.seen)
    }

    /// The same moment, with another index of the same log.
    pub(crate) fn with_committed(&self, committed: Committed) -> Self {
        let view = View { committed, ..View::clone(&self.view) };
        Self { view: Arc::new(view), seen: self.seen }
    }
}

impl Committed {
    /// A log of which nothing is known yet.
    pub(crate) fn nothing_of(log: LogView) -> Self {
        let (counts, catalog, known) = (Arc::default(), Arc::default(), Arc::default());
        let (checkpoint_id, checkpoint_end) = (CheckpointId::next(), log.seen_upto());
        Self {
            runs: Vec::new(),
            checkpoint: None,
            checkpoint_id,
            checkpoint_end,
            log,
            counts,
            catalog,
            known,
        }
    }

    /// Whose word on the key is the last, where that is the checkpoint's: nothing came behind it, or what came
    /// has cancelled out.
    #[inline]
    pub(crate) fn led_by(&self, hash: KeyHash) -> Option<CheckpointId> {
        self.change(hash).is_none().then_some(self.checkpoint_id)
    }

    /// Whether a value at `location`, to which the checkpoint leads, is that of everybody who goes by it.
    /// A record that came later, to the same place, needs no change of the index.
    #[inline]
    pub(crate) fn has_led_all_to(&self, location: Location) -> bool {
        self.log.is_before(location, self.checkpoint_end)
    }

    /// As [`View::find`], in the log alone.
    #[inline]
    pub(crate) fn find<T>(
        &self,
        key: KeyRef<'_>,
        mut take: impl FnMut(&Record<'_>) -> T,
    ) -> Result<Option<T>, LookupError> {
        self.find_by(key.hash, |location| self.read(key, location, &mut take))
    }

    /// As [`Committed::find`], where `read` looks for the key at a place.
    #[inline]
    pub(crate) fn find_by<T>(
        &self,
        hash: KeyHash,
        mut read: impl FnMut(Location) -> Result<Option<T>, LogError>,
    ) -> Result<Option<T>, LookupError> {
        if let Some(change) = self.change(hash) {
            let Some(location) = change.new else { return Ok(None) };
            let found = read(from_index(location))?;
            return found.map(Some).ok_or(LookupError::Disagreement);
        }
        for candidate in self.newest_first(&self.candidates(hash)?).iter() {
            // Damage ends the search: what lies there may be the key's, and is newer than the rest.
            if let Some(found) = read(from_index(*candidate))? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Where the index leads from this hash.
    pub(crate) fn places(&self, hash: KeyHash) -> Result<Places, LookupError> {
        let one = |location: &zkv_index::Location, is_certain| Places::One {
            location: from_index(*location),
            is_certain,
        };
        if let Some(change) = self.change(hash) {
            return Ok(change.new.as_ref().map_or(Places::Nowhere, |location| one(location, true)));
        }
        Ok(match &self.candidates(hash)?[..] {
            [] => Places::Nowhere,
            [location] => one(location, false),
            _ => Places::Several,
        })
    }

    /// Whether the index leads from this hash to this place, or cannot be told from one that does.
    pub(crate) fn leads_to(
        &self,
        hash: KeyHash,
        location: zkv_index::Location,
    ) -> Result<bool, LookupError> {
        if let Some(change) = self.change(hash) {
            return Ok(change.new == Some(location));
        }
        Ok(self.candidates(hash)?.contains(&location))
    }

    /// Whether the newest record of another key, which an index file cannot tell from `hash`, may be at
    /// this place of `hash`'s own.
    pub(crate) fn may_have_twins(
        &self,
        hash: KeyHash,
        location: zkv_index::Location,
    ) -> Result<bool, LookupError> {
        let is_twin = |change: &Change| change.hash != hash && change.new == Some(location);
        if self.runs.iter().any(|run| run.alike(hash).iter().any(is_twin)) {
            return Ok(true);
        }
        let candidates = self.candidates(hash)?;
        // What the checkpoint holds of a key that runs know is older, and at another place.
        let is_own = self.change(hash).is_none();
        Ok(candidates.is_shared(location) || (!is_own && candidates.contains(&location)))
    }

    /// Where the checkpoint leads from this hash; nowhere, where there is none.
    #[inline]
    pub(crate) fn candidates(&self, hash: KeyHash) -> Result<Candidates, zkv_index::IndexError> {
        let mut candidates = Candidates::new();
        if let Some(checkpoint) = &self.checkpoint {
            checkpoint.candidates(hash, &mut candidates)?;
        }
        Ok(candidates)
    }

    /// Asks for the part of the checkpoint that a lookup of this hash reads.
    pub(crate) fn prefetch(&self, hash: KeyHash) {
        if let Some(checkpoint) = &self.checkpoint {
            checkpoint.prefetch(hash);
        }
    }

    /// Whether the index names this place for the key, which the place holds.
    ///
    /// # Errors
    /// Also where a newer place cannot be read: it most likely is the key's.
    pub(crate) fn names(&self, key: KeyRef<'_>, location: Location) -> Result<bool, LookupError> {
        if let Some(change) = self.change(key.hash) {
            return Ok(change.new.map(from_index) == Some(location));
        }
        let candidates = self.candidates(key.hash)?;
        if !to_index(location).is_some_and(|own| candidates.contains(&own)) {
            // As of most records that were overwritten: nothing is read for those.
            return Ok(false);
        }
        for candidate in self.newest_first(&candidates).iter() {
            if from_index(*candidate) == location {
                return Ok(true);
            }
            if self.read(key, from_index(*candidate), |_| ())?.is_some() {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// The candidates as the log has them, the newest first: one table of the index may hold several,
    /// and knows nothing of their age.
    #[inline]
    pub(crate) fn newest_first<'a>(
        &self,
        candidates: &'a [zkv_index::Location],
    ) -> Cow<'a, [zkv_index::Location]> {
        if candidates.len() <= 1 {
            return Cow::Borrowed(candidates);
        }
        let mut sorted = candidates.to_vec();
        sorted.sort_by_key(|candidate| {
            Reverse((self.log.sequence_of(from_index(*candidate)), candidate.get()))
        });
        Cow::Owned(sorted)
    }

    /// What happened to the key behind the checkpoint.
    #[inline]
    pub(crate) fn change(&self, hash: KeyHash) -> Option<&Change> {
        self.runs.iter().find_map(|run| run.get(hash))
    }

    /// Whether what a read was after is lost. Where the disk reads nothing at all, the error stays one, which
    /// may pass.
    #[cold]
    pub(crate) fn is_lost(&self, error: &LogError) -> bool {
        is_lost(error) && (matches!(error, LogError::Corrupt { .. }) || self.log.can_read_start())
    }

    #[inline]
    pub(crate) fn read<T>(
        &self,
        key: KeyRef<'_>,
        location: Location,
        mut take: impl FnMut(&Record<'_>) -> T,
    ) -> Result<Option<T>, LogError> {
        self.log.find(location, |entry| {
            let record = Record::decode(entry).ok()?;
            key.is_of(&record).then(|| take(&record))
        })
    }
}

/// Whether the key of a buffered record has a value in what is older than its buffer.
fn is_there(
    hash: KeyHash,
    record: &Record<'_>,
    older: &[(&Arc<Memtable>, Seen)],
    committed: &Committed,
) -> Result<bool, LookupError> {
    if let Some(is_put) = older.iter().find_map(|(older, seen)| older.get(hash, *seen, is_put)) {
        return Ok(is_put);
    }
    let key = KeyRef { hash, key: record.key, collection: record.collection, is_piece: false };
    match committed.find(key, |record| record.kind != Kind::Delete) {
        Ok(found) => Ok(found.unwrap_or(false)),
        // A place that the index knows and that cannot be read is one all the same.
        Err(LookupError::Log(_)) => Ok(true),
        Err(error) => Err(error),
    }
}

/// The index and the log each have their own name for a place; the number is the same.
pub(crate) fn from_index(location: zkv_index::Location) -> Location {
    let number = std::num::NonZeroU64::new(location.get()).unwrap_or(std::num::NonZeroU64::MIN);
    Location::from_number(number)
}

/// As [`from_index`], the other way; `None` beyond what an index can hold, 2^47 cells or 32 PiB.
pub(crate) fn to_index(location: Location) -> Option<zkv_index::Location> {
    zkv_index::Location::new(location.number().get())
}
