//! Giving space back: segments that are freed, slots that are used again, and the file's end that is
//! cut off.

use std::collections::HashSet;
use std::sync::{Arc, Weak};

use crate::block::BlockKind;
use crate::error::{LogError, Result};
use crate::header::{Identity, SegmentHeader};
use crate::image::Image;
use crate::layout::{COMMIT_BLOCK_BYTES, SEGMENT_HEADER_BYTES, seal_block_bytes, seal_offset};
use crate::log::Shared;
use crate::mark::commits_in;
use crate::position::Position;
use crate::segment::{Place, Segment, SegmentId};
use crate::slots::header_copy_in;
use crate::writer::{Committed, LogWriter, Room};

/// A slot that no segment of the log fills any longer.
#[derive(Debug)]
pub(crate) struct FreeSlot {
    pub slot: u32,
    /// The retire entry must be durable up to here before the slot is used again.
    pub usable_after: Position,
    /// Whoever still reads the old segment.
    pub readers: Weak<()>,
}

impl LogWriter {
    /// Frees the segments in `slots`: they are no part of the log any longer, and their slots are
    /// used again once that is durable and no view holds them. The caller has moved what it needs.
    ///
    /// # Errors
    /// As [`LogWriter::append`]; slots without a full segment are passed over.
    pub fn free(&mut self, slots: &[u32]) -> Result<Committed> {
        let (slots, tail) = (slots.iter().collect::<HashSet<_>>(), self.tail.segment.id());
        let is_retired = |id: &SegmentId| slots.contains(&id.slot) && *id != tail;
        let (retired, mut members): (Vec<_>, Vec<_>) = self.member_ids().partition(is_retired);
        let mut commit = self.begin()?;
        commit.put_members(BlockKind::Retire, &retired)?;
        members.extend(commit.begun());
        // A slot is used again only after this roll call is durable, too: its new header names it,
        // so that recovery never starts at a segment that is gone.
        let place = commit.put_members(BlockKind::RollCall, &members)?;
        let committed = commit.finish(Room::Exact)?;
        self.note_roll_call(place, committed.end);
        for id in retired {
            if let Some(segment) = self.members.remove(&id.sequence) {
                let readers = Arc::downgrade(&segment.hold);
                self.free.push(FreeSlot { slot: id.slot, usable_after: committed.end, readers });
            }
        }
        self.publish_segments();
        Ok(committed)
    }

    /// Begins a segment that opens with a roll call and whose own header names it: whoever reads the
    /// log alone starts there, and needs none of the segments that were freed before. It lies as far
    /// in front as can be. The log is durable when this returns.
    ///
    /// # Errors
    /// As [`LogWriter::append`] and [`Log::sync`](crate::Log::sync).
    pub fn rebase(&mut self) -> Result<Committed> {
        self.mend()?;
        let members: Vec<SegmentId> = self.member_ids().collect();
        let mut commit = self.begin()?;
        commit.begin_base()?;
        let place = commit.put_members(BlockKind::RollCall, &members)?;
        let committed = commit.finish(Room::Exact)?;
        self.note_roll_call(place, committed.end);
        self.log().sync(committed.end)?;
        self.note_durable_roll_call();
        Ok(committed)
    }

    /// Cuts free slots off the file's end, and returns how many bytes shorter it is. A slot that a
    /// view still holds stays, and so does one that whoever reads the log alone would look for:
    /// [`LogWriter::rebase`] helps.
    ///
    /// # Errors
    /// [`LogError::Io`]; [`LogError::SyncFailed`] after a failed sync: what says that nobody looks for the slot
    /// may not be on the disk. The file is as it was then.
    pub fn cut(&mut self) -> Result<u64> {
        if self.log().is_sync_failed() {
            return Err(self.log().sync_failure());
        }
        if self.repair.is_some() {
            return Ok(0);
        }
        let needed_from = self.needed_from();
        let mut slot_count = self.slot_count;
        while slot_count > 0
            && self.free.iter().any(|free| {
                free.slot + 1 == slot_count
                    && self.is_usable(free)
                    && self.is_forgotten(free.slot, needed_from)
            })
        {
            slot_count -= 1;
        }
        if slot_count == self.slot_count {
            return Ok(0);
        }
        let file_bytes = self.shared.file.len().map_err(LogError::io("measure"))?;
        // Where the file is not cut now, the slots are used again.
        if !self.cut_behind(slot_count)? {
            return Ok(0);
        }
        self.free.retain(|free| free.slot < slot_count);
        self.slot_count = slot_count;
        Ok(file_bytes.saturating_sub(self.file_end))
    }

    /// Whether whoever reads the log alone looks for slots that were freed, which a copy of the log
    /// does not have: until [`LogWriter::rebase`].
    #[must_use]
    pub fn needs_freed_slots(&self) -> bool {
        let needed_from = self.needed_from();
        self.free.iter().any(|free| !self.is_forgotten(free.slot, needed_from))
    }

    /// The slots that no segment fills.
    #[must_use]
    pub fn free_slots(&self) -> FreeSlots {
        // Nobody can tell whether somebody looks for what stood where nothing can be read: no base helps.
        let can_read = |slot: u32| self.shared.slots().try_header(slot).is_ok();
        let (usable, held): (Vec<_>, Vec<_>) =
            self.free.iter().partition(|free| self.is_usable(free) && can_read(free.slot));
        let last_used = self.members.values().map(|segment| segment.place.id.slot).max();
        let last_held = held.iter().map(|free| free.slot).max();
        let last_in_use = last_used.max(last_held);
        let (at_end, before): (Vec<_>, Vec<_>) =
            usable.into_iter().partition(|free| Some(free.slot) > last_in_use);
        let count = |slots: &[&FreeSlot]| u32::try_from(slots.len()).unwrap_or(u32::MAX);
        FreeSlots {
            at_end: count(&at_end),
            before: count(&before),
            held: count(&held),
            is_held_behind: last_held > last_used,
        }
    }

    /// Bytes that the log's last segment still has room for.
    #[must_use]
    pub fn room_bytes(&self) -> u32 {
        seal_offset(self.shared.identity.slot_bytes).saturating_sub(self.tail.offset)
    }

    /// Bytes by which the file is longer once the log's last segment is full.
    #[must_use]
    pub fn growth_bytes(&self) -> u64 {
        let place = &self.tail.segment.place;
        (place.start + u64::from(place.slot_bytes)).saturating_sub(self.file_end)
    }

    /// The slot for a new segment: one that was freed, or one more at the file's end.
    pub(crate) fn take_slot(&mut self, slot_count: u32) -> (u32, u32) {
        self.take_slot_where(slot_count, |_, _| true)
    }

    /// As [`LogWriter::take_slot`], for a segment whose header does not lead past what was there.
    pub(crate) fn take_forgotten_slot(&mut self, slot_count: u32) -> (u32, u32) {
        let needed_from = self.needed_from();
        self.take_slot_where(slot_count, |writer, slot| writer.is_forgotten(slot, needed_from))
    }

    fn take_slot_where(
        &mut self,
        slot_count: u32,
        suits: impl Fn(&Self, u32) -> bool,
    ) -> (u32, u32) {
        let numbered = self.free.iter().enumerate();
        let usable = numbered.filter(|(_, free)| self.is_usable(free) && suits(self, free.slot));
        match usable.min_by_key(|(_, free)| free.slot) {
            Some((number, _)) => (self.free.swap_remove(number).slot, slot_count),
            None => (slot_count, slot_count + 1),
        }
    }

    fn is_usable(&self, free: &FreeSlot) -> bool {
        free.usable_after <= self.log().synced_upto() && free.readers.strong_count() == 0
    }

    /// Where whoever reads the log alone starts: at the roll call that the last segment's header
    /// names.
    fn needed_from(&self) -> Option<Position> {
        roll_call_named_in(&self.shared, self.tail.segment.id().slot)
    }

    fn is_forgotten(&self, slot: u32, needed_from: Option<Position>) -> bool {
        is_forgotten(&self.shared, slot, needed_from)
    }

    /// Wipes both places that say which segment a slot has. What a segment that was freed has left there
    /// stays, where nothing of a later one has arrived: a reader of the log alone may look for it. Where a later
    /// one names a newer roll call than all headers of the log, that header stays until the next segment's
    /// names it, too: it is what leads such a reader past the segment that was there. One that names a
    /// roll call of its own leads nobody. Of no stray a commit stays: behind a header, or in a slot that a later
    /// segment fills, it would pass for one that counts where no more than that is left.
    ///
    /// Where a crash has lost that header, and the stray's own seal has the only copy, it is written back: a seal
    /// leads on, to a stray behind it or, once the slot is used again, to one that is not there.
    pub(crate) fn wipe_strays(&self, slots: &[u32], file_bytes: u64) -> Result<()> {
        let named = |segment: &Arc<Segment>| roll_call_named_in(&self.shared, segment.id().slot);
        let newest = self.members.values().filter_map(named).max().unwrap_or_default();
        let last = self.tail.segment.id().sequence;
        let leads = |header: &SegmentHeader| newest < header.roll_call && !header.is_base();
        let (mut strays, mut is_changed) = (Vec::new(), false);
        for slot in slots {
            let header = self.shared.slots().try_header(*slot)?;
            if header.as_ref().is_some_and(|header| header.sequence <= last) {
                continue;
            }
            let image = self.read_slot(*slot, file_bytes)?;
            is_changed |= self.wipe_commits_behind(last, *slot, &image)?;
            let leading = header.filter(leads);
            if let Some(header) = &leading {
                is_changed |= self.put_back(header)?;
            }
            strays.push((*slot, leading.is_some()));
        }
        if is_changed {
            // Durably first: where another crash leaves a commit, the header still says that it is a stray's.
            self.log().sync_again(self.end())?;
        }
        for (slot, leads) in strays {
            if leads {
                // Left behind a later segment of this slot, the copy in the stray's own seal would name one
                // that is not there. A seal of the segment that was here before stays, as that may do.
                if !self.shared.slots().is_in_both_places(slot)? {
                    continue;
                }
            } else {
                let header = self.shared.identity.slot_start(slot);
                let header_end = header + u64::from(SEGMENT_HEADER_BYTES);
                self.write_zeros(header, header_end.min(file_bytes))?;
            }
            self.wipe_seal(slot, file_bytes)?;
        }
        Ok(())
    }

    /// Wipes in `slots`, which begin with no header, what is left of strays: their commits, and torn seals that
    /// name them. Each is read for it, since any may have them.
    pub(crate) fn wipe_hidden_strays(&self, slots: &[u32], file_bytes: u64) -> Result<()> {
        let last = self.tail.segment.id().sequence;
        let mut is_changed = false;
        for slot in slots {
            let image = self.read_slot(*slot, file_bytes)?;
            is_changed |= self.wipe_commits_behind(last, *slot, &image)?;
            let named = header_copy_in(&image.bytes, &self.shared.identity, *slot);
            if named.is_some_and(|header| last < header.sequence) {
                self.wipe_seal(*slot, file_bytes)?;
                is_changed = true;
            }
        }
        match is_changed {
            true => self.log().sync_again(self.end()),
            false => Ok(()),
        }
    }

    fn read_slot(&self, slot: u32, file_bytes: u64) -> Result<Image> {
        let identity = &self.shared.identity;
        let start = identity.slot_start(slot);
        Image::read(&*self.shared.file, start, identity.slot_bytes, file_bytes).for_certain()
    }

    /// Wipes the commits of segments behind number `last` in `image`, which is all of `slot`; `false` where it has
    /// none.
    fn wipe_commits_behind(&self, last: u64, slot: u32, image: &Image) -> Result<bool> {
        let identity = &self.shared.identity;
        let commits = commits_in(&image.bytes, 0, identity, slot);
        let mut is_changed = false;
        for commit in commits.filter(|commit| last < commit.id.sequence) {
            let at = identity.slot_start(slot) + u64::from(commit.offset);
            self.write_zeros(at, at + u64::from(COMMIT_BLOCK_BYTES))?;
            is_changed = true;
        }
        Ok(is_changed)
    }

    /// Writes `header` to where its slot begins, where none stands there; `false` where one does.
    fn put_back(&self, header: &SegmentHeader) -> Result<bool> {
        let first = self.shared.slots().decode_start(header.slot)?;
        if first.is_none() {
            let start = self.shared.identity.slot_start(header.slot);
            let written = self.shared.file.write_at(start, &header.encode_cell());
            written.map_err(LogError::io("write"))?;
        }
        Ok(first.is_none())
    }

    /// Wipes what stands where the seal of a segment will that is begun at `place`: it would pass for that segment's
    /// own, damaged. A whole one stays, since it may lead a reader of the log alone.
    pub(crate) fn wipe_torn_seal(&self, place: &Place) -> Result<()> {
        let file = &*self.shared.file;
        let start = place.start + u64::from(seal_offset(place.slot_bytes));
        let image = Image::read(file, start, seal_block_bytes(place.slot_bytes), self.file_end);
        let image = image.for_certain()?;
        // Where the disk cannot read it, writing a part of a page may fail, too.
        if !image.unreadable.is_empty() || image.is_zero(0..image.end()) {
            return Ok(());
        }
        match self.shared.slots().header_in_seal(place.id.slot)? {
            Some(_) => Ok(()),
            None => self.wipe_seal(place.id.slot, self.file_end),
        }
    }

    fn wipe_seal(&self, slot: u32, file_bytes: u64) -> Result<()> {
        let Identity { slot_bytes, .. } = self.shared.identity;
        let start = self.shared.identity.slot_start(slot);
        let end = start + u64::from(slot_bytes);
        self.write_zeros(start + u64::from(seal_offset(slot_bytes)), end.min(file_bytes))
    }

    fn member_ids(&self) -> impl Iterator<Item = SegmentId> + '_ {
        self.members.values().map(|segment| segment.id())
    }
}

/// Whether nobody who reads the log alone, and starts at `needed_from`, looks for what was in `slot`.
/// What cannot be read may be looked for.
pub(crate) fn is_forgotten(shared: &Shared, slot: u32, needed_from: Option<Position>) -> bool {
    match shared.slots().try_header(slot) {
        Ok(Some(header)) => needed_from
            .is_some_and(|start| header.sequence < start.sequence && header.roll_call <= start),
        // It was wiped, or never begun.
        Ok(None) => true,
        Err(_) => false,
    }
}

/// The roll call that the header in `slot` names.
pub(crate) fn roll_call_named_in(shared: &Shared, slot: u32) -> Option<Position> {
    shared.slots().header(slot).map(|header| header.roll_call)
}

/// Slots that no segment fills.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FreeSlots {
    /// Those that can be used again, behind all others.
    pub at_end: u32,
    /// Those that can be used again, in front of one that is in use.
    pub before: u32,
    /// Those that somebody still reads, whose freeing is not durable yet, or that cannot be read.
    pub held: u32,
    /// Whether one of these lies behind all segments.
    pub is_held_behind: bool,
}
