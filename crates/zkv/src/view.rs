//! The store at one moment, and how a key is looked up in it.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::sync::Arc;

use zkv_index::{Candidates, Change, Checkpoint, KeyHash, Run};
use zkv_log::{Location, LogError, LogView};
use zkv_record::{Kind, Record};

use crate::memtable::Memtable;

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
    pub log: LogView,
    pub key_count: u64,
}

/// A key, as records and the index know it.
#[derive(Clone, Copy)]
pub(crate) struct KeyRef<'a> {
    pub hash: KeyHash,
    pub key: &'a [u8],
    /// Whether it is the key of a piece: those live apart.
    pub is_piece: bool,
}

impl KeyRef<'_> {
    #[inline]
    pub(crate) fn is_of(&self, record: &Record<'_>) -> bool {
        record.key == self.key
            && record.collection == 0
            && (record.kind == Kind::Piece) == self.is_piece
    }
}

/// Why a lookup could not answer.
#[derive(Debug)]
pub(crate) enum LookupError {
    Log(LogError),
    Index(zkv_index::IndexError),
    /// The index names a place that does not hold the key.
    Disagreement,
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
        for memtable in std::iter::once(&self.active).chain(&self.frozen) {
            let found = memtable.get(key.hash, |bytes| {
                Record::decode(bytes).ok().filter(|record| key.is_of(record)).map(|r| take(&r))
            });
            if let Some(Some(found)) = found {
                return Ok(Some(found));
            }
        }
        self.committed.find(key, take)
    }
}

impl Committed {
    /// As [`View::find`], in the log alone.
    #[inline]
    pub(crate) fn find<T>(
        &self,
        key: KeyRef<'_>,
        mut take: impl FnMut(&Record<'_>) -> T,
    ) -> Result<Option<T>, LookupError> {
        if let Some(change) = self.change(key.hash) {
            let Some(location) = change.new else { return Ok(None) };
            let found = self.read(key, from_index(location), take)?;
            return found.map(Some).ok_or(LookupError::Disagreement);
        }
        let Some(checkpoint) = &self.checkpoint else { return Ok(None) };
        let mut candidates = Candidates::new();
        checkpoint.candidates(key.hash, &mut candidates)?;
        for candidate in self.newest_first(&candidates).iter() {
            // Damage ends the search: what lies there may be the key's, and is newer than the rest.
            if let Some(found) = self.read(key, from_index(*candidate), &mut take)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
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

/// The index and the log each have their own name for a place; the number is the same.
pub(crate) fn from_index(location: zkv_index::Location) -> Location {
    let number = std::num::NonZeroU64::new(location.get()).unwrap_or(std::num::NonZeroU64::MIN);
    Location::from_number(number)
}

/// As [`from_index`], the other way; `None` beyond what an index can hold, 2^47 cells or 32 PiB.
pub(crate) fn to_index(location: Location) -> Option<zkv_index::Location> {
    zkv_index::Location::new(location.number().get())
}
