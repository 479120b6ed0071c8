//! Segments that have lost all that named them.

use crate::block::Seed;
use crate::header::SegmentHeader;
use crate::position::Position;
use crate::salvage::image::Image;
use crate::salvage::linked::{Linked, linked_beside};
use crate::salvage::nameless::{Agreed, agreed};
use crate::segment::{Place, SegmentId};

use super::Survey;

/// A segment of which the seed alone is known.
struct Unnamed {
    seed: Seed,
    last_commit: u64,
    proven: Position,
    /// Whether its commits follow one another: it is one for certain.
    is_linked: bool,
}

impl Unnamed {
    fn linked(found: Linked) -> Self {
        let Linked { seed, last_commit, proven } = found;
        Self { seed, last_commit, proven, is_linked: true }
    }

    fn agreed(found: Agreed) -> Self {
        let Agreed { seed, last_commit, proven, .. } = found;
        Self { seed, last_commit, proven, is_linked: false }
    }
}

impl Survey<'_> {
    /// Adds the newest of the segments that have lost their headers, where its commits say that the log goes on
    /// behind all that was found, or nothing was. Roll calls in it then may tell its name, and those of others.
    pub(in crate::salvage) fn add_unnamed(&mut self, progress: &mut dyn FnMut(u64)) {
        let mut seen = self.seen.values().flatten();
        let is_any_seen = seen.any(|seen| seen.has_header || seen.has_blocks);
        let known_end = self.known_end();
        let newest = (0..self.slot_count())
            .filter_map(|slot| Some((slot, self.newest_unnamed(slot)?)))
            .filter(|(_, newest)| !is_any_seen || known_end < newest.proven)
            .max_by_key(|(_, newest)| (newest.is_linked, newest.last_commit));
        let Some((slot, newest)) = newest else { return };
        // A slot is used again only once it is durable elsewhere that its segment is gone. What proves less than
        // that are blocks of this segment that stand in the wrong place.
        let mut there = self.seen.get_mut(&slot).into_iter().flatten();
        if let Some(seen) = there.find(|seen| newest.proven.sequence <= seen.place.id.sequence) {
            seen.proven = seen.proven.max(newest.proven);
            return;
        }
        let mut sequence = newest.proven.sequence.max(1);
        while self.seen.values().flatten().any(|seen| seen.place.id.sequence == sequence) {
            // What is proven may end in the segment before. Only a forged file has no further number.
            let Some(next) = sequence.checked_add(1) else { return };
            sequence = next;
        }
        let id = SegmentId { sequence, slot, nonce: 0 };
        self.add(Place { seed: newest.seed, ..Place::new(&self.identity, id) });
        self.run(progress);
    }

    /// The newest segment in `slot` that nothing names. Where a header says whose the slot is, that may be an
    /// older one's, since the disk has lost what was written over it.
    fn newest_unnamed(&self, slot: u32) -> Option<Unnamed> {
        let seen = || self.seen.get(&slot).into_iter().flatten();
        let has_header = seen().any(|seen| seen.has_header);
        if has_header && !seen().any(|seen| seen.is_broken) {
            return None;
        }
        let start = self.identity.slot_start(slot);
        let image = Image::read(self.file, start, self.identity.slot_bytes, self.file_bytes);
        let linked = || {
            let named = seen().map(|seen| seen.place.seed);
            let beside = linked_beside(&image.bytes, self.identity.slot_bytes, named);
            beside.map(Unnamed::linked)
        };
        if has_header {
            let is_later =
                |one: &Unnamed| seen().all(|seen| seen.place.id.sequence < one.proven.sequence);
            return linked().filter(is_later).max_by_key(|one| one.last_commit);
        }
        // A header of this log that names another slot was written to the wrong one.
        let is_others =
            |header: SegmentHeader| header.identity != self.identity || header.slot == slot;
        if SegmentHeader::decode(&image.bytes).is_ok_and(is_others) {
            return None;
        }
        // Beside blocks of a segment with a name, what agrees on a seed may stand in one of its values.
        let is_nameless = !seen().any(|seen| seen.has_blocks);
        let agreed = agreed(&image.bytes).filter(|_| is_nameless).map(Unnamed::agreed);
        linked().chain(agreed).max_by_key(|one| (one.is_linked, one.last_commit))
    }

    /// Where the log ends, as far as what was found goes.
    fn known_end(&self) -> Position {
        let seen = self.seen.values().flatten();
        seen.map(|seen| seen.proven.max(seen.committed().unwrap_or_default()))
            .max()
            .unwrap_or_default()
    }
}
