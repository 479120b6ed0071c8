//! Segments that have lost all that named them, but for their commits.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::image::Image;
use crate::mark::commits_in;
use crate::position::Position;
use crate::segment::SegmentId;

use super::Survey;

/// Of how many segments commits are looked for in one slot, the newest first: what was written over leaves a few.
const NAMED_A_SLOT: usize = 4;

impl Survey<'_> {
    /// Finds segments by their commits, where those say that the log goes as far, or nothing else was found. Later
    /// ones may be of a commit that was given up.
    pub(in crate::salvage) fn add_unnamed(&mut self, progress: &mut dyn FnMut(u64)) {
        let mut seen = self.seen.values().flatten();
        let is_any_seen = seen.any(|seen| seen.has_header || seen.has_blocks);
        let mut durable = self.known_end();
        let mut found: Vec<SegmentId> = Vec::new();
        for slot in (0..self.slot_count()).filter(|slot| !self.is_explained(*slot)) {
            let by_commits = self.newest_by_commits(slot);
            durable = by_commits.iter().map(|(_, proven)| *proven).fold(durable, Position::max);
            found.extend(by_commits.iter().map(|(id, _)| *id));
        }
        found.retain(|id| !is_any_seen || id.sequence <= durable.sequence);
        found.into_iter().for_each(|id| self.name_by_commits(id));
        self.run(progress);
    }

    /// Whether what is known of `slot` leaves no room for another segment in it.
    fn is_explained(&self, slot: u32) -> bool {
        let seen = self.seen.get(&slot);
        seen.is_some_and(|seen| !seen.is_empty() && seen.iter().all(|seen| !seen.is_broken))
    }

    /// The newest segments that have commits in `slot`, and up to where those say that the log was durable.
    fn newest_by_commits(&self, slot: u32) -> Vec<(SegmentId, Position)> {
        let start = self.identity.slot_start(slot);
        let image = Image::read(self.file, start, self.identity.slot_bytes, self.file_bytes);
        let mut newest: BTreeMap<Reverse<SegmentId>, Position> = BTreeMap::new();
        for commit in commits_in(&image.bytes, 0, &self.identity, slot) {
            let proven = newest.entry(Reverse(commit.id)).or_default();
            *proven = commit.synced_upto.max(*proven);
            if newest.len() > NAMED_A_SLOT {
                newest.pop_last();
            }
        }
        newest.into_iter().map(|(Reverse(id), proven)| (id, proven)).collect()
    }

    fn name_by_commits(&mut self, id: SegmentId) {
        let is_seen = self
            .seen
            .get(&id.slot)
            .is_some_and(|seen| seen.iter().any(|seen| seen.place.id == id && seen.has_blocks));
        if !is_seen && self.by_commits.insert(id) {
            self.searched.remove(&id);
            self.named.entry(id.slot).or_default().insert(Reverse(id));
            self.due.insert(id.slot);
        }
    }

    /// Where the log ends, as far as what was found goes.
    fn known_end(&self) -> Position {
        let seen = self.seen.values().flatten();
        seen.map(|seen| seen.proven.max(seen.committed().unwrap_or_default()))
            .max()
            .unwrap_or_default()
    }
}
