//! What the records of a commit supersede.

use zkv_index::KeyHash;
use zkv_log::LogError;
use zkv_record::{Head, Kind, Record};

use crate::live::raw_bytes;
use crate::view::{Committed, KeyRef, LookupError, from_index};
use crate::writer::{Operation, WriteError, Writer};

/// What a key had before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Existing {
    pub location: zkv_index::Location,
    pub raw_bytes: u64,
    pub head: Option<Head>,
}

/// A record of a commit, and what it supersedes.
pub(crate) struct Resolved<'a> {
    pub hash: KeyHash,
    pub record: RecordBytes<'a>,
    pub raw_bytes: u64,
    pub kind: RecordKind,
    pub old: Option<Existing>,
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
}

impl<'a> Resolved<'a> {
    /// A piece of a new value: nothing was there before, and its record is in the log already.
    pub(crate) fn new_piece(hash: KeyHash, record: &[u8]) -> Self {
        let raw_bytes = Record::decode(record).map_or(0, |record| raw_bytes(&record));
        // The record is in the log already.
        let record = RecordBytes::Made(Vec::new());
        Self { hash, record, raw_bytes, kind: RecordKind::Piece, old: None }
    }
}

impl Writer {
    pub(crate) fn resolve_all<'a>(
        &self,
        operations: &[Operation<'a>],
    ) -> Result<Vec<Resolved<'a>>, WriteError> {
        let mut resolved = Vec::with_capacity(operations.len());
        for operation in operations {
            let Ok(record) = Record::decode(operation.record) else { continue };
            let key = KeyRef { hash: operation.hash, key: record.key, is_piece: false };
            let old = resolve(&self.committed, key)?;
            let kind = RecordKind::of(&record);
            // Nothing to delete: it never reached the log.
            if kind == RecordKind::Delete && old.is_none() {
                continue;
            }
            if let Some(head) = old.and_then(|old| old.head) {
                self.delete_pieces(&head, &mut resolved)?;
            }
            resolved.push(Resolved {
                hash: operation.hash,
                record: RecordBytes::Given(operation.record),
                raw_bytes: raw_bytes(&record),
                kind,
                old,
            });
        }
        self.move_twins(&mut resolved)?;
        Ok(resolved)
    }

    /// Adds a copy of each live record that an index file cannot tell from one that this commit
    /// supersedes: same cell, and a hash that begins alike.
    ///
    /// The place stays in the index for the twin's sake, and would lead to the superseded record.
    /// With this, no cell but the log's last ever holds a dead record and a live one that begin
    /// alike; in the last, the newer block decides.
    fn move_twins(&self, resolved: &mut Vec<Resolved<'_>>) -> Result<(), WriteError> {
        let mut twins = Vec::new();
        for one in resolved.iter() {
            if let Some(old) = &one.old {
                self.find_twins(one.hash, old.location, &mut twins)?;
            }
        }
        for twin in twins {
            // One that this commit writes anyway leaves its place, too.
            if resolved.iter().all(|one| one.hash != twin.hash) {
                resolved.push(twin);
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
        let visited = self.committed.log.visit(from_index(location), |entry| {
            let Ok(record) = Record::decode(entry) else { return };
            let other = self.keys.hash_record(&record);
            // The newest record of a key comes first.
            if (other.0 ^ hash.0) >> BITS_BEHIND != 0 || other == hash || seen.contains(&other) {
                return;
            }
            seen.push(other);
            let kind = RecordKind::of(&record);
            if kind.is_live() {
                let raw_bytes = raw_bytes(&record);
                let old = Some(Existing { location, raw_bytes, head: None });
                let record = RecordBytes::Made(entry.to_vec());
                into.push(Resolved { hash: other, record, raw_bytes, kind, old });
            }
        });
        match visited {
            // What cannot be read cannot be found by mistake, either.
            Ok(()) | Err(LogError::Corrupt { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A superseded value's pieces go with it: each gets a mark, so that an index made from the log
    /// alone does not know them either.
    fn delete_pieces(&self, head: &Head, into: &mut Vec<Resolved<'_>>) -> Result<(), WriteError> {
        for number in 0..head.piece_count() {
            let key = head.piece_key(number).encode();
            let hash = self.keys.hash_piece(&key);
            let old = resolve(&self.committed, KeyRef { hash, key: &key, is_piece: true })?;
            let record = Record {
                kind: Kind::Piece,
                collection: 0,
                expires_at_ms: None,
                key: &key,
                value: &[],
            };
            let mut bytes = Vec::with_capacity(record.encoded_bytes());
            record.encode_into(&mut bytes);
            let (record, kind) = (RecordBytes::Made(bytes), RecordKind::PieceDelete);
            into.push(Resolved { hash, record, raw_bytes: 0, kind, old });
        }
        Ok(())
    }
}

/// What the log holds of a key, as far as its index says.
pub(crate) fn resolve(
    committed: &Committed,
    key: KeyRef<'_>,
) -> Result<Option<Existing>, LookupError> {
    if let Some(change) = committed.change(key.hash) {
        let Some(location) = change.new else { return Ok(None) };
        return Ok(Some(match existing_at(committed, key, location) {
            Ok(Some(existing)) => existing,
            // The place is certain, whatever has become of the bytes there.
            Ok(None) | Err(LogError::Corrupt { .. }) => {
                Existing { location, raw_bytes: 0, head: None }
            }
            Err(error) => return Err(error.into()),
        }));
    }
    let Some(checkpoint) = &committed.checkpoint else { return Ok(None) };
    let mut candidates = zkv_index::Candidates::new();
    checkpoint.candidates(key.hash, &mut candidates)?;
    for location in candidates.iter() {
        match existing_at(committed, key, *location) {
            Ok(None) => {}
            Ok(Some(existing)) => return Ok(Some(existing)),
            // What stood there can be superseded all the same: the new record is found first.
            Err(LogError::Corrupt { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

pub(crate) fn existing_at(
    committed: &Committed,
    key: KeyRef<'_>,
    location: zkv_index::Location,
) -> Result<Option<Existing>, LogError> {
    let found = committed.read(key, from_index(location), |record| {
        let head = (record.kind == Kind::Head).then(|| Head::decode(record.value).ok()).flatten();
        Existing { location, raw_bytes: raw_bytes(record), head }
    })?;
    Ok(found)
}
