//! Moving what is needed to the log's end, in commits of their own.

use std::collections::HashSet;

use zkv_log::{LogError, Packed, Room};
use zkv_record::Record;

use super::gather::{Needed, Oldest, Piece};
use crate::resolve::{Resolved, order_by_key};
use crate::writer::{WriteError, Writer};

/// A piece that is compressed: that takes longer than anything else, and holds up nobody.
pub(crate) struct PackedPiece {
    piece: Piece,
    /// The numbers of the piece's records in the order of their keys, in which they are packed.
    order: Vec<usize>,
    packed: Packed,
}

/// What moving a piece has done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moved {
    pub records: u64,
    pub marks_dropped: u64,
    /// Bytes written to the log.
    pub bytes: u64,
    /// Segments of which nothing is needed any longer.
    pub segments: u64,
}

impl PackedPiece {
    pub(crate) fn new(
        mut piece: Piece,
        pack: impl FnOnce(&[&[u8]]) -> Result<Packed, LogError>,
    ) -> Result<Self, LogError> {
        // By hash, as the index lies in memory.
        piece.moved.sort_unstable_by(|left, right| {
            left.hash.cmp(&right.hash).then_with(|| needed_until(right).cmp(&needed_until(left)))
        });
        let moved = piece.moved.len();
        // Of a key that was deleted several times, the mark that is needed longest speaks for all.
        piece.moved.dedup_by_key(|one| one.hash);
        piece.marks_dropped += (moved - piece.moved.len()) as u64;
        let order = order_by_key(&piece.moved);
        let packed = pack(&entries(&piece, &order))?;
        Ok(Self { piece, order, packed })
    }
}

/// How long a record is needed: a mark until all segments up to its origin are gone.
fn needed_until(one: &Resolved<'_>) -> u64 {
    let origin = || Record::decode(one.record.get()).ok()?.origin;
    if one.old.existing().is_some() { u64::MAX } else { origin().unwrap_or(0) }
}

fn entries<'a>(piece: &'a Piece, order: &[usize]) -> Vec<&'a [u8]> {
    order.iter().map(|number| piece.moved[*number].record.get()).collect()
}

impl Writer {
    /// Appends what is still needed of `packed`, as one commit.
    pub(crate) fn move_piece(&mut self, packed: PackedPiece) -> Result<Moved, WriteError> {
        let PackedPiece { piece, order, packed } = packed;
        self.catch_up()?;
        let needed =
            Needed { committed: &self.committed, keys: &self.keys, oldest: Oldest::beginning() };
        let is_kept = order.iter().map(|number| needed.is_still(&piece.moved[*number]));
        let is_kept = is_kept.collect::<Result<Vec<bool>, _>>()?;
        let packed = self.log.log().repack(packed, &entries(&piece, &order), &is_kept);
        let kept = order.iter().zip(&is_kept).filter(|(_, kept)| **kept);
        let kept: Vec<usize> = kept.map(|(number, _)| *number).collect();
        let written_before = self.log.written_bytes();
        let mut append = self.append(&|_| false)?;
        append.put_packed(&piece.moved, &kept, &packed)?;
        append.forget(&piece.forgotten);
        append.finish(Room::Exact)?;
        for slot in &piece.emptied {
            self.live.forget(*slot);
            self.cleaned.insert(*slot);
        }
        Ok(Moved {
            records: kept.len() as u64,
            marks_dropped: piece.marks_dropped,
            bytes: self.log.written_bytes() - written_before,
            segments: piece.emptied.len() as u64,
        })
    }

    /// Frees the segments that were cleaned, once no index file leads to them: to be called behind a
    /// checkpoint. All of them go in one commit, since a mark may have been left behind with the other
    /// one that it spoke of.
    pub(crate) fn free_cleaned(&mut self) -> Result<(), WriteError> {
        if self.cleaned.is_empty() {
            return Ok(());
        }
        let slots: Vec<u32> = self.cleaned.iter().copied().collect();
        let end = self.log.free(&slots)?.end;
        self.cleaned = HashSet::new();
        self.committed.log = self.log.view();
        self.log.log().sync(end)?;
        Ok(())
    }
}
