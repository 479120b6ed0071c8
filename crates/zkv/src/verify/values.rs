//! Values in pieces: whether each head has all of its own.

use std::collections::{HashMap, HashSet};

use zkv_index::KeyHash;
use zkv_log::Severity;
use zkv_record::{Head, Kind, PieceKey, Record, RecordError};

use crate::metadata::catalog::{CATALOG, Catalog};

/// The heads and pieces that are live, as far as the records are read.
#[derive(Default)]
pub(super) struct Values {
    /// By the hash of the value's key.
    heads: HashMap<KeyHash, LiveHead>,
    pieces: HashMap<PieceKey, Piece>,
    catalog: Catalog,
}

struct LiveHead {
    head: Head,
    collection: u32,
    /// Where its block starts in the file.
    offset: u64,
}

struct Piece {
    bytes: usize,
    collection: u32,
    offset: u64,
    has_head: bool,
}

impl Values {
    /// Notes a record whose block starts at `offset` of the file.
    pub(super) fn note(
        &mut self,
        record: &Record<'_>,
        hash: KeyHash,
        offset: u64,
    ) -> Result<(), RecordError> {
        let collection = record.collection;
        if collection == CATALOG {
            self.catalog.apply(record);
        }
        match record.kind {
            Kind::Put | Kind::Delete => {
                self.heads.remove(&hash);
            }
            Kind::Head => {
                let head = Head::decode(record.value)?;
                self.heads.insert(hash, LiveHead { head, collection, offset });
            }
            Kind::Piece => {
                let key = PieceKey::decode(record.key)?;
                let bytes = record.value.len();
                let piece = Piece { bytes, collection, offset, has_head: false };
                match piece.bytes {
                    // A mark that it is gone.
                    0 => drop(self.pieces.remove(&key)),
                    _ => drop(self.pieces.insert(key, piece)),
                }
            }
        }
        Ok(())
    }

    /// Holds heads and pieces against each other, but for those of collections that were dropped, of
    /// which cleaning may have taken a part. A piece without a head is told of only where all heads are
    /// known.
    pub(super) fn check(
        mut self,
        are_heads_known: bool,
        found: &mut dyn FnMut(u64, &'static str, Severity),
    ) {
        let (mut met, mut incomplete) = (HashSet::new(), HashSet::new());
        let alive: HashSet<u32> = self.catalog.alive().collect();
        self.heads.retain(|_, live| alive.contains(&live.collection));
        self.pieces.retain(|_, piece| alive.contains(&piece.collection));
        for LiveHead { head, offset, .. } in self.heads.into_values() {
            // Their ids are random. A forged log may name one value of 65,536 pieces in any number of heads,
            // each of which would have all of them looked for.
            if !met.insert(head.value_id) {
                found(offset, "a value whose pieces another key has, too", Severity::Loss);
                continue;
            }
            let is_whole = (0..head.piece_count()).all(|number| {
                let piece = self.pieces.get_mut(&head.piece_key(number));
                let expected = head.piece_bytes_at(number) as usize;
                let piece = piece.filter(|piece| piece.bytes == expected);
                piece.map(|piece| piece.has_head = true).is_some()
            });
            if !is_whole {
                incomplete.insert(head.value_id);
                let what = "a value lacks a piece, or has it in another length";
                found(offset, what, Severity::Loss);
            }
        }
        for (key, piece) in self.pieces {
            let is_orphan = !piece.has_head && !incomplete.contains(&key.value_id);
            if is_orphan && are_heads_known {
                found(piece.offset, "a piece that belongs to no value", Severity::Mendable);
            }
        }
    }
}
