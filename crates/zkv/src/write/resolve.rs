//! What the records of a commit supersede.

use std::collections::HashSet;

use zkv_index::KeyHash;
use zkv_log::{Location, LogError};
use zkv_record::{Head, Kind, Record};

use crate::keys::Keys;
use crate::metadata::live::{LiveChange, raw_bytes, slot_of};
use crate::read::view::{Committed, KeyRef, LookupError, Places, from_index, to_index};
use crate::read::wanted::Wanted;
use crate::write::operation::{KeyStart, Operation, key_of, sorted_by_key};
use crate::write::writer::WriteError;

/// What a key had before.
#[derive(Debug)]
pub(crate) struct Existing {
    pub location: zkv_index::Location,
    pub raw_bytes: u64,
    /// Few records have one, and many of these stand in a commit.
    pub head: Option<Box<Head>>,
    /// Places that cannot be read, and may be the key's, too.
    pub damaged: Box<[zkv_index::Location]>,
}

/// What the log holds of a key.
#[derive(Debug)]
pub(crate) enum Before {
    Nothing,
    /// Places that cannot be read, one of which most likely was the key's. They stay in the index,
    /// since they may be another's; what is written now is newer, and found first.
    Damaged(Box<[zkv_index::Location]>),
    At(Existing),
}

/// A record of a commit, and what it supersedes.
pub(crate) struct Resolved<'a> {
    pub hash: KeyHash,
    pub record: RecordBytes<'a>,
    pub key_start: KeyStart,
    pub collection: u32,
    pub raw_bytes: u64,
    pub kind: RecordKind,
    pub old: Before,
}

pub(crate) enum RecordBytes<'a> {
    Given(&'a [u8]),
    Made(Vec<u8>),
}

/// What a record does to the index.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordKind {
    Put,
    Piece,
    Delete,
    /// A piece that is gone: a piece's record without bytes.
    PieceDelete,
}

impl Existing {
    /// A record at a place that can be read.
    pub(crate) fn at(location: zkv_index::Location, raw_bytes: u64) -> Self {
        Self { location, raw_bytes, head: None, damaged: Box::default() }
    }

    /// `None` where the record is a mark: no index leads there from its key.
    fn of(record: &Record<'_>, location: zkv_index::Location) -> Option<Self> {
        if record.is_mark() {
            return None;
        }
        let head = (record.kind == Kind::Head).then(|| Head::decode(record.value).ok());
        let head = head.flatten().map(Box::new);
        Some(Self { head, ..Self::at(location, raw_bytes(record)) })
    }
}

impl Before {
    pub(crate) fn existing(&self) -> Option<&Existing> {
        match self {
            Self::At(existing) => Some(existing),
            Self::Nothing | Self::Damaged(_) => None,
        }
    }

    /// Places that cannot be read, and may be the key's: should they be read again, what they hold is
    /// most likely superseded.
    pub(crate) fn damaged(&self) -> &[zkv_index::Location] {
        match self {
            Self::Nothing => &[],
            Self::Damaged(damaged) => damaged,
            Self::At(existing) => &existing.damaged,
        }
    }

    /// Notes that what the key had is superseded, and what it may have had.
    pub(crate) fn kill_in(&self, live: &mut LiveChange, collection: u32, slot_bytes: u32) {
        let existing = self.existing().map(|existing| (existing.location, existing.raw_bytes));
        let damaged = self.damaged().iter().map(|location| (*location, 0));
        for (location, raw_bytes) in existing.into_iter().chain(damaged) {
            live.kill(slot_of(from_index(location), slot_bytes), collection, raw_bytes);
        }
    }
}

impl RecordBytes<'_> {
    pub(crate) fn get(&self) -> &[u8] {
        match self {
            Self::Given(bytes) => bytes,
            Self::Made(bytes) => bytes,
        }
    }
}

impl RecordKind {
    pub(crate) fn of(record: &Record<'_>) -> Self {
        match record.kind {
            Kind::Put | Kind::Head => Self::Put,
            Kind::Delete => Self::Delete,
            Kind::Piece if record.value.is_empty() => Self::PieceDelete,
            Kind::Piece => Self::Piece,
        }
    }

    pub(crate) fn is_live(self) -> bool {
        matches!(self, Self::Put | Self::Piece)
    }

    /// What a record of this kind does to the count of keys.
    pub(crate) fn key_change(self, old: &Before) -> i64 {
        match (self, old) {
            (Self::Put, Before::Nothing) => 1,
            (Self::Delete, Before::At(_)) => -1,
            _ => 0,
        }
    }
}

impl<'a> Resolved<'a> {
    /// A record that nobody has asked for, and what it supersedes. `None` where the bytes are no record.
    pub(crate) fn made(hash: KeyHash, bytes: Vec<u8>, old: Before) -> Option<Self> {
        let Operation { key_start, collection, raw_bytes, kind, .. } =
            Operation::new(hash, &bytes)?;
        let record = RecordBytes::Made(bytes);
        Some(Self { hash, record, key_start, collection, raw_bytes, kind, old })
    }

    /// A piece of a new value: nothing was there before.
    pub(crate) fn new_piece(hash: KeyHash, record: &'a [u8]) -> Option<Self> {
        let Operation { key_start, collection, raw_bytes, kind, .. } =
            Operation::new(hash, record)?;
        let record = RecordBytes::Given(record);
        Some(Self { hash, record, key_start, collection, raw_bytes, kind, old: Before::Nothing })
    }
}

/// The numbers of `resolved` in the order of their keys.
pub(crate) fn order_by_key(resolved: &[Resolved<'_>]) -> Vec<usize> {
    let starts = resolved.iter().enumerate().map(|(number, one)| (one.key_start, number));
    sorted_by_key(starts, |number| key_of(resolved[number].record.get()))
}

/// What the records of one commit supersede.
#[derive(Default)]
pub(crate) struct Resolution<'r> {
    /// The operations, in their order, without those that are dropped.
    pub resolved: Vec<Resolved<'r>>,
    /// The places of those that delete nothing: they never reach the log.
    pub dropped: Vec<usize>,
    /// What else has to be written with them: twins, and marks of pieces.
    pub added: Vec<Resolved<'r>>,
}

/// Finds out what the records of one commit supersede.
pub(crate) struct Resolver<'a> {
    pub committed: &'a Committed,
    pub keys: &'a Keys,
    /// Whether the commit has a record of a key, be it behind those resolved so far.
    pub is_written: &'a dyn Fn(KeyHash) -> bool,
}

impl Resolver<'_> {
    /// Resolves `operations`. What has to be written with them, but is `added` already, is left out.
    pub(crate) fn resolve<'r>(
        &self,
        operations: impl ExactSizeIterator<Item = Operation<'r>> + Clone,
        added: &mut HashSet<KeyHash>,
    ) -> Result<Resolution<'r>, WriteError> {
        let mut resolution =
            Resolution { resolved: self.look_up(operations)?, ..Resolution::default() };
        let Resolution { resolved, dropped, added: more } = &mut resolution;
        let mut place = 0;
        resolved.retain(|one| {
            // What may be there and cannot be read is deleted, too: without a mark, an older record counts again.
            let is_kept = one.kind != RecordKind::Delete || !matches!(one.old, Before::Nothing);
            if !is_kept {
                dropped.push(place);
            }
            place += 1;
            is_kept
        });
        for one in resolved {
            if let Some(head) = one.old.existing().and_then(|old| old.head.as_deref()) {
                self.delete_pieces(head, one.collection, added, more)?;
            }
        }
        self.move_twins(&mut resolution, added)?;
        Ok(resolution)
    }

    /// Looks up what was there before. Operations come in the order of their hashes, and records lie in that
    /// of their keys: so each block is read once, for all that it holds of them, in the order of the file.
    fn look_up<'r>(
        &self,
        operations: impl ExactSizeIterator<Item = Operation<'r>> + Clone,
    ) -> Result<Vec<Resolved<'r>>, WriteError> {
        let mut resolved = Vec::with_capacity(operations.len());
        let mut wanted = Vec::new();
        for operation in self.committed.ahead_of(operations, |operation| operation.hash) {
            let Operation { hash, record, key_start, collection, raw_bytes, kind } = operation;
            let key = || KeyRef { hash, key: key_of(record), collection, is_piece: false };
            let old = match self.committed.places(hash)? {
                Places::Nowhere => Before::Nothing,
                Places::Several => resolve(self.committed, hash, key)?,
                Places::One { location, is_certain } => {
                    let number = resolved.len();
                    wanted.push(Wanted { key: key(), location, is_certain, number });
                    Before::Nothing
                }
            };
            let record = RecordBytes::Given(record);
            resolved.push(Resolved { hash, record, key_start, collection, raw_bytes, kind, old });
        }
        self.committed.for_each_cell(wanted, |location, wanted| {
            for (one, existing) in wanted.iter().zip(self.existing_of_cell(location, wanted)) {
                resolved[one.number].old = match existing {
                    Some(existing) => Before::At(existing),
                    // It is not there, or cannot be read.
                    None => resolve(self.committed, one.key.hash, || one.key)?,
                };
            }
            Ok::<_, WriteError>(())
        })?;
        Ok(resolved)
    }

    /// What can be read of one cell at once.
    fn existing_of_cell(
        &self,
        location: Location,
        wanted: &[Wanted<'_>],
    ) -> impl Iterator<Item = Option<Existing>> + use<> {
        let mut found: Vec<Option<Option<Existing>>> = wanted.iter().map(|_| None).collect();
        // Where that fails, each is looked for by itself.
        if let Some(place) = to_index(location) {
            let take = |record: &Record<'_>| Existing::of(record, place);
            let _ = self.committed.read_cell(location, wanted, &mut found, take);
        }
        found.into_iter().map(Option::flatten)
    }

    /// Adds a copy of each live record that an index file cannot tell from one that this commit
    /// supersedes: same cell, and a hash that begins alike.
    ///
    /// The place stays in the index for the twin's sake, and would lead to the superseded record.
    /// With this, no cell but the log's last ever holds a dead record and a live one that begin
    /// alike; in the last, the newer block decides.
    fn move_twins(
        &self,
        resolution: &mut Resolution<'_>,
        added: &mut HashSet<KeyHash>,
    ) -> Result<(), WriteError> {
        let mut twins = Vec::new();
        for one in resolution.resolved.iter().chain(&resolution.added) {
            if let Some(old) = one.old.existing()
                && self.committed.may_have_twins(one.hash, old.location)?
            {
                self.find_twins(one.hash, old.location, &mut twins)?;
            }
        }
        for twin in twins {
            // One that this commit writes anyway leaves its place, too.
            if !(self.is_written)(twin.hash) && added.insert(twin.hash) {
                resolution.added.push(twin);
            }
        }
        Ok(())
    }

    fn find_twins(
        &self,
        hash: KeyHash,
        location: zkv_index::Location,
        into: &mut Vec<Resolved<'_>>,
    ) -> Result<(), WriteError> {
        const BITS_BEHIND: u32 = u128::BITS - zkv_index::HASH_BITS;
        let mut seen = Vec::new();
        let mut show = |entry: &[u8]| {
            let Ok(record) = Record::decode(entry) else { return };
            let other = self.keys.hash_record(&record);
            // The newest record of a key comes first.
            if (other.0 ^ hash.0) >> BITS_BEHIND != 0 || other == hash || seen.contains(&other) {
                return;
            }
            seen.push(other);
            if RecordKind::of(&record).is_live() {
                let old = Before::At(Existing::at(location, raw_bytes(&record)));
                into.extend(Resolved::made(other, entry.to_vec(), old));
            }
        };
        match read_again(|| self.committed.log.visit(from_index(location), &mut show)) {
            // What cannot be read cannot be found by mistake, either.
            Err(error) if !self.committed.is_lost(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// A superseded value's pieces go with it: each gets a mark, so that an index made from the log
    /// alone does not know them either. Those that are `added` have theirs: two heads of a forged log
    /// may name the same pieces.
    fn delete_pieces(
        &self,
        head: &Head,
        collection: u32,
        added: &mut HashSet<KeyHash>,
        into: &mut Vec<Resolved<'_>>,
    ) -> Result<(), WriteError> {
        for number in 0..head.piece_count() {
            let key = head.piece_key(number).encode();
            let hash = self.keys.hash_piece(&key);
            if added.contains(&hash) {
                continue;
            }
            let of_piece = || KeyRef { hash, key: &key, collection, is_piece: true };
            let old = resolve(self.committed, hash, of_piece)?;
            // The pieces are one commit: where one is missing, the head is forged, and the work it
            // asks for is not done.
            if matches!(old, Before::Nothing) {
                break;
            }
            added.insert(hash);
            let record = Record {
                kind: Kind::Piece,
                collection,
                expires_at_ms: None,
                origin: None,
                key: &key,
                value: &[],
            };
            let mut bytes = Vec::with_capacity(record.encoded_bytes());
            record.encode_into(&mut bytes);
            into.extend(Resolved::made(hash, bytes, old));
        }
        Ok(())
    }
}

/// What the log holds of a key, as far as its index says. For a new key, `key` is not asked.
pub(crate) fn resolve<'a>(
    committed: &Committed,
    hash: KeyHash,
    key: impl Fn() -> KeyRef<'a>,
) -> Result<Before, LookupError> {
    if let Some(change) = committed.change(hash) {
        let Some(location) = change.new else { return Ok(Before::Nothing) };
        return Ok(Before::At(certain_at(committed, key(), location)?));
    }
    let mut damaged = Vec::new();
    for location in committed.newest_first(&committed.candidates(hash)?).iter() {
        match existing_at(committed, key(), *location) {
            Ok(None) => {}
            Ok(Some(Some(existing))) => {
                return Ok(Before::At(Existing { damaged: damaged.into(), ..existing }));
            }
            // The index leads here from another hash, which begins alike. What is older is deleted.
            Ok(Some(None)) => break,
            Err(error) if committed.is_lost(&error) => damaged.push(*location),
            Err(error) => return Err(error.into()),
        }
    }
    if damaged.is_empty() { Ok(Before::Nothing) } else { Ok(Before::Damaged(damaged.into())) }
}

/// What stands at the key's place, which is certain, whatever has become of the bytes there.
pub(crate) fn certain_at(
    committed: &Committed,
    key: KeyRef<'_>,
    location: zkv_index::Location,
) -> Result<Existing, LogError> {
    match existing_at(committed, key, location) {
        Ok(Some(Some(existing))) => Ok(existing),
        Err(error) if !committed.is_lost(&error) => Err(error),
        _ => Ok(Existing::at(location, 0)),
    }
}

/// What the key's newest record there is, if there is one: nothing where that is a mark.
fn existing_at(
    committed: &Committed,
    key: KeyRef<'_>,
    location: zkv_index::Location,
) -> Result<Option<Option<Existing>>, LogError> {
    read_again(|| {
        committed.read(key, from_index(location), |record| Existing::of(record, location))
    })
}

/// Reads once more where the disk refuses, which may pass: only what cannot be read twice is given up.
fn read_again<T>(mut read: impl FnMut() -> Result<T, LogError>) -> Result<T, LogError> {
    match read() {
        Err(LogError::Io { .. }) => read(),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_new_and_deleted_keys_change_the_count() {
        let location = zkv_index::Location::new(1).unwrap();
        let existing = Before::At(Existing::at(location, 0));
        assert_eq!(RecordKind::Delete.key_change(&existing), -1);
        assert_eq!(RecordKind::Put.key_change(&existing), 0);
        assert_eq!(RecordKind::Put.key_change(&Before::Nothing), 1);
        assert_eq!(RecordKind::Put.key_change(&Before::Damaged(Box::default())), 0);
        assert_eq!(RecordKind::Piece.key_change(&Before::Nothing), 0);
    }
}
