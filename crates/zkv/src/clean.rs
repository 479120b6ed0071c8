//! Cleaning: what is needed of a segment moves to the log's end, and its slot is free again.
//!
//! The order of things is what makes it safe. Records are moved in commits like any others, so that
//! each is in the log twice for a while; then a checkpoint shows that no index file leads to the old
//! place; then a retire entry frees the segment; and once that is durable and nobody reads the segment,
//! its slot is used again, or cut off.

mod burst;
mod choose;
mod compact;
mod gather;
mod loose;
mod mover;
mod share;
mod thread;

use std::collections::HashSet;
use std::sync::{PoisonError, TryLockError};
use std::time::{Duration, Instant};

use zkv_log::{FreeSlots, SegmentInfo};

use crate::error::{Error, Result};
use crate::options::Cleaning;
use crate::shared::Shared;
use crate::store::Store;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::write::writer::Writer;
use choose::Survey;
pub use compact::{CompactOptions, CompactProgress};
pub(crate) use gather::Forgotten;
use share::FirstShare;
pub(crate) use thread::{start, stop};

/// Records that are moved together, before compression, at the least and at the most.
const PORTION_BYTES_MIN: usize = 1 << 20;
const PORTION_BYTES_MAX: usize = 16 << 20;
/// Dead space beyond the bound, in percent of all, at which writes wait for the cleaning.
const BEHIND_PERCENT: u64 = 3;
/// The longest that one write waits for the cleaning, should that have come to a halt.
pub(crate) const WRITE_WAIT_MAX: Duration = Duration::from_secs(10);
/// And beside a compaction, for one of its portions.
const COMPACTION_WAIT_MAX: Duration = Duration::from_secs(1);
/// Writers look whether cleaning is behind when so much was written.
const SURVEY_BYTES: u64 = 1 << 20;
/// The first base may lie behind what it lets go, and the second in front.
const BASES_MAX: usize = 2;
/// What cleaning moves before it frees something takes so many slots at the most.
const SLOTS_NEEDED: u64 = 2;
/// What frees a segment, behind what was moved.
const LOG_ROOM_BYTES: u64 = 64 << 10;
/// Cleaned segments are freed, behind a checkpoint, when there is one for so many others.
const OTHERS_PER_CLEANED: usize = 16;

/// What all who clean share.
#[derive(Debug, Default)]
pub(crate) struct Cleaner {
    /// Whoever holds it cleans.
    turn: Mutex<()>,
    state: Mutex<State>,
    /// Tells that there is something to look at, that a portion was packed, or that the thread shall end.
    changed: Condvar,
    /// Whether writes wait.
    is_behind: AtomicBool,
    /// Bytes of the log, as the writer has written them.
    written_bytes: AtomicU64,
    moved_bytes: AtomicU64,
    moved_records: AtomicU64,
    marks_dropped: AtomicU64,
    segments_freed: AtomicU64,
    bytes_cut: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    has_news: bool,
    /// Who has cleaned, since the thread was started.
    first_share: FirstShare,
    /// Until when writes wait for the thread's share: whoever comes later waits no more.
    share_wait_ends: Option<Instant>,
    /// Whether slots are held that could be cut off otherwise: nobody tells when that ends.
    is_unfinished: bool,
    /// How many compactions go on.
    compactions: u32,
    /// Whether one of them moves records: it is waited for, as the thread would be.
    is_compaction_moving: bool,
    /// How many closes are not decided yet.
    closings: u32,
    /// Whether there is a thread to wait for.
    is_running: bool,
    is_ending: bool,
    /// When so much was written, somebody looks whether cleaning is behind.
    survey_at: u64,
    /// How many portions were packed.
    portions: u64,
    /// Whether the thread waits for a write, of which there is none before there is news.
    is_waiting: bool,
    /// Whether it waits before it tries again what has failed.
    has_failed: bool,
    /// How many writes wait, each for another portion.
    waiting: u64,
    /// Segments, by sequence, that cannot be read.
    damaged: HashSet<u64>,
}

/// A compaction that goes on: the thread would move records to where the compaction does not look.
struct Compacting<'a>(&'a Cleaner);

impl Drop for Compacting<'_> {
    fn drop(&mut self) {
        self.0.state().compactions -= 1;
        self.0.changed.notify_all();
    }
}

/// A compaction that moves records now.
struct Moving<'a>(&'a Cleaner);

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        self.0.state().is_compaction_moving = false;
        self.0.changed.notify_all();
    }
}

/// A close that may still fail: what it cuts short goes on then.
pub(crate) struct Closing<'a>(&'a Cleaner);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.state().closings -= 1;
        self.0.changed.notify_all();
    }
}

/// The thread that cleans, while there is one: nobody waits for one that a panic has ended.
struct Running<'a>(&'a Cleaner);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.state().is_running = false;
        self.0.changed.notify_all();
    }
}

/// What cleaning has done since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CleaningStats {
    /// Segments of which nothing was left to be needed.
    pub segments: u64,
    /// Records that were moved out of them.
    pub moved_records: u64,
    /// Bytes of the data file that were written for that.
    pub moved_bytes: u64,
    /// Delete marks that nothing needs any longer.
    pub marks_dropped: u64,
    /// Bytes that were cut off the data file's end.
    pub bytes_cut: u64,
}

impl State {
    /// Whether the thread has to leave the store alone.
    fn is_left_to_others(&self) -> bool {
        self.compactions > 0 || self.first_share == FirstShare::OfWrite
    }
}

impl Cleaner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who cleans, one at a time.
    pub(crate) fn take_turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Cleaner::take_turn`]; `None` where somebody cleans now.
    fn try_turn(&self) -> Option<MutexGuard<'_, ()>> {
        match self.turn.try_lock() {
            Ok(turn) => Some(turn),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn is_damaged(&self, segment: &SegmentInfo) -> bool {
        self.state().damaged.contains(&segment.sequence)
    }

    fn begin_compaction(&self) -> Compacting<'_> {
        self.state().compactions += 1;
        self.changed.notify_all();
        Compacting(self)
    }

    /// The caller has the turn.
    fn begin_moving(&self) -> Moving<'_> {
        self.state().is_compaction_moving = true;
        Moving(self)
    }

    pub(crate) fn begin_closing(&self) -> Closing<'_> {
        self.state().closings += 1;
        Closing(self)
    }

    /// Waits until each close has succeeded or failed. The caller has no turn, and holds no lock.
    fn wait_for_closings(&self) {
        let mut state = self.state();
        while state.closings > 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn begin_running(&self) -> Running<'_> {
        let mut state = self.state();
        state.is_running = !state.is_ending;
        Running(self)
    }

    fn is_compacting(&self) -> bool {
        self.state().compactions > 0
    }

    pub(crate) fn stats(&self) -> CleaningStats {
        CleaningStats {
            segments: self.segments_freed.load(Ordering::Relaxed),
            moved_records: self.moved_records.load(Ordering::Relaxed),
            moved_bytes: self.moved_bytes.load(Ordering::Relaxed),
            marks_dropped: self.marks_dropped.load(Ordering::Relaxed),
            bytes_cut: self.bytes_cut.load(Ordering::Relaxed),
        }
    }

    /// Bytes that were written to the data file since the store was opened.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// Where writing is faster than cleaning, waits until a portion was packed, or writes are waited for,
    /// but no longer than `wait_max`. The caller holds no lock, and writes one buffer then. Whether a portion
    /// was packed, so that who writes more may wait for another one.
    pub(crate) fn wait_while_behind(&self, wait_max: Duration) -> bool {
        if !self.is_behind.load(Ordering::Relaxed) {
            return false;
        }
        let (start, mut state) = (Instant::now(), self.state());
        let wait_max = match state.compactions {
            0 => wait_max,
            // Its portions are large, and may be compressed at any level.
            _ => wait_max.min(COMPACTION_WAIT_MAX),
        };
        state.waiting += 1;
        let awaited = state.portions + state.waiting;
        if self.is_waited_for(&state) {
            // Somebody else than the thread may have found the store behind: the thread looks, and ends the wait
            // where it finds nothing.
            state.has_news = true;
            self.changed.notify_all();
        }
        while self.is_waited_for(&state) && state.portions < awaited {
            let left = wait_max.saturating_sub(start.elapsed());
            if left.is_zero() {
                break;
            }
            let waited = self.changed.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
        state.portions >= awaited
    }

    /// Whether writing is faster than the thread, and that goes on. Beside a compaction it does not, and the
    /// compaction is waited for while it moves records: whoever listens to it may write in between.
    fn is_waited_for(&self, state: &State) -> bool {
        let waits_itself = state.has_failed || (state.is_waiting && !state.has_news);
        let goes_on = match state.compactions {
            0 => state.is_running && !waits_itself,
            _ => state.is_compaction_moving,
        };
        goes_on && self.is_behind.load(Ordering::Relaxed)
    }

    /// Sets whether writes wait; where they no longer do, those that wait go on.
    fn set_behind(&self, is_behind: bool) {
        // Whoever waits has looked at it with the state.
        let _state = self.state();
        if self.is_behind.swap(is_behind, Ordering::Relaxed) && !is_behind {
            self.changed.notify_all();
        }
    }

    fn note_moved(&self, moved: mover::Moved) {
        self.moved_bytes.fetch_add(moved.bytes, Ordering::Relaxed);
        self.moved_records.fetch_add(moved.records, Ordering::Relaxed);
        self.marks_dropped.fetch_add(moved.marks_dropped, Ordering::Relaxed);
        self.segments_freed.fetch_add(moved.segments, Ordering::Relaxed);
    }

    /// Notes that segments were freed by another thread, behind an index file that it has written: there may be
    /// something to cut off.
    pub(crate) fn note_freed(&self) {
        self.state().has_news = true;
        self.changed.notify_all();
    }

    fn note_packed(&self) {
        self.state().portions += 1;
        self.changed.notify_all();
    }
}

impl Shared {
    /// Waits for the cleaning before `bytes` are written in one commit, which may become more meanwhile: as
    /// often as who hands them over buffer by buffer. The caller holds no lock.
    pub(crate) fn wait_to_commit(&self, bytes: impl Fn() -> u64) {
        let buffers = || bytes().div_ceil(self.options.memory_buffer_bytes as u64);
        let mut waits = 0;
        while waits < buffers() && self.cleaner.wait_while_behind(WRITE_WAIT_MAX) {
            waits += 1;
        }
    }
}

impl Store {
    /// Cleans what automatic cleaning would clean by itself, and returns when that is done: until no
    /// more than a quarter of the file is dead, or the share that [`Options::cleaning`] gives, or one slot,
    /// whichever is more.
    ///
    /// [`Options::cleaning`]: crate::Options::cleaning
    ///
    /// # Errors
    /// As [`Store::compact`].
    pub fn clean(&self) -> Result<()> {
        let shared = self.shared();
        let cleaned = match self.flush() {
            // What is cleaned may be room enough for what waits in buffers.
            Err(error) if error.is_without_room() => {
                shared.clean_all().and_then(|()| self.flush()).and_then(|()| shared.clean_all())
            }
            flushed => flushed.and_then(|()| shared.clean_all()),
        };
        cleaned.map_err(|error| shared.name_room(error))
    }
}

impl Writer {
    /// How the file's segments are used.
    fn survey(&self) -> Survey {
        Survey::of(&self.committed.log, &self.live, &self.cleaned, &self.moved_to)
    }
}

/// Whether the file gets shorter, by an eighth of a slot at the least, where the last slot's segment, which
/// is full, is written behind what stands in front of it: what finds no room there begins the last slot
/// anew.
fn pays(writer: &Writer, last: &SegmentInfo) -> bool {
    let slot_bytes = u64::from(writer.log.log().identity().slot_bytes);
    let room_bytes = u64::from(writer.log.room_bytes());
    let needed_bytes = writer.survey().needed_bytes(last);
    needed_bytes.is_some_and(|needed| needed <= room_bytes + slot_bytes - slot_bytes / 8)
}

impl Shared {
    /// Writes an index checkpoint, frees what was cleaned, and cuts off what is free at the file's end.
    pub(crate) fn checkpoint(&self, writer: &mut Writer) -> Result<()> {
        let written = writer.checkpoint().or_else(|error| writer.free_instead(error));
        // Whoever sees the store from now on holds none of the segments that were freed.
        self.publish_committed(writer);
        written.map_err(|error| self.write_error(error))?;
        self.cut(writer)?;
        if writer.is_index_file_removed() {
            // What was freed may be room enough. Otherwise the next checkpoint tries again: the log has
            // all that an index file says.
            let _ = self.restore_index_file(writer);
        }
        Ok(())
    }

    pub(crate) fn restore_index_file(&self, writer: &mut Writer) -> Result<()> {
        let restored = writer.restore_index_file();
        self.publish_committed(writer);
        restored.map_err(|error| self.write_error(error))
    }

    /// Where there is no room for what cleaning would write, says how much is enough.
    fn name_room(&self, error: Error) -> Error {
        if !error.is_without_room() {
            return error;
        }
        let Ok(writer) = self.writer() else { return error };
        let FreeSlots { at_end, before, .. } = writer.log.free_slots();
        let missing = SLOTS_NEEDED.saturating_sub((at_end + before).into());
        let slots_bytes = missing * u64::from(self.log.identity().slot_bytes);
        let log_bytes = writer.log.growth_bytes() + slots_bytes + LOG_ROOM_BYTES;
        let bytes = log_bytes + writer.index_room_bytes();
        Error::CleaningNeedsRoom { bytes, cause: Box::new(error) }
    }

    /// Notes what a commit has written, and lets the cleaner look at it.
    pub(crate) fn note_written(&self, writer: &Writer) {
        let written = writer.log.written_bytes();
        self.cleaner.written_bytes.store(written, Ordering::Relaxed);
        if self.options.cleaning == Cleaning::Off {
            return;
        }
        let mut state = self.cleaner.state();
        if written >= state.survey_at {
            state.survey_at = written + SURVEY_BYTES;
            drop(state);
            self.survey(writer);
            state = self.cleaner.state();
        }
        if !state.has_news {
            state.has_news = true;
            self.cleaner.changed.notify_all();
        }
    }

    /// Records that are moved together: more than a buffer holds, since writes of one buffer wait for
    /// one portion.
    fn portion_bytes(&self) -> usize {
        (2 * self.options.memory_buffer_bytes).clamp(PORTION_BYTES_MIN, PORTION_BYTES_MAX)
    }

    /// Whether enough was cleaned to be worth a checkpoint.
    fn is_reclaim_due(&self, writer: &Writer) -> bool {
        let segments = writer.committed.log.segments().len();
        let is_behind = self.cleaner.is_behind.load(Ordering::Relaxed);
        !writer.cleaned.is_empty()
            && (is_behind || writer.cleaned.len() * OTHERS_PER_CLEANED >= segments)
    }

    /// Cuts off what is free at the file's end where more slots are free than `spare` says for so many
    /// segments, and names the segment that stands in the way then. Where none is to spare, that may also
    /// be one without which the file ends within its last slot.
    fn last_in_the_way(
        &self,
        writer: &mut Writer,
        spare: impl Fn(usize) -> usize,
    ) -> Result<Option<SegmentInfo>> {
        for _ in 0..=BASES_MAX {
            self.cut(writer)?;
            let FreeSlots { at_end, before, held, is_held_behind } = writer.log.free_slots();
            let segments = writer.log.log().view().segments();
            let Some(last) = segments.iter().max_by_key(|segment| segment.slot) else { break };
            let spare = spare(segments.len());
            let is_spare = (at_end + before) as usize <= spare;
            let is_more = (at_end + before + held) as usize > spare;
            self.cleaner.state().is_unfinished = is_more || is_held_behind;
            if at_end == 0 && last.is_sealed {
                return Ok((!is_spare || (spare == 0 && pays(writer, last))).then_some(*last));
            }
            // Another base would be one more segment without anything in it, and what lies behind would stay.
            if is_spare || is_held_behind {
                break;
            }
            // As the log stands, what is free at the end could not be cut off, or its tail lies there.
            self.rebase(writer)?;
        }
        Ok(None)
    }

    /// Begins a segment from which on the log can be read without what was freed before.
    pub(crate) fn rebase(&self, writer: &mut Writer) -> Result<()> {
        writer.log.rebase().map_err(Error::data(&self.path))?;
        writer.committed.log = writer.log.view();
        self.publish_committed(writer);
        Ok(())
    }

    /// Cuts off what is free at the file's end, and returns how many bytes that were.
    pub(crate) fn cut(&self, writer: &mut Writer) -> Result<u64> {
        let cut = writer.log.cut().map_err(Error::data(&self.path))?;
        self.cleaner.bytes_cut.fetch_add(cut, Ordering::Relaxed);
        Ok(cut)
    }

    /// What the store holds, and whether writes have to wait for the cleaning.
    pub(crate) fn survey(&self, writer: &Writer) -> Survey {
        let survey = writer.survey();
        if let Cleaning::Automatic { dead_percent, .. } = self.options.cleaning {
            let dead_percent = u64::from(dead_percent);
            let victims = || survey.victims(dead_percent, 0, |one| self.cleaner.is_damaged(one));
            // Where nothing can be cleaned or freed, there is nothing to wait for: while an index file is
            // written aside, nothing is freed.
            let may_free = !writer.cleaned.is_empty() && writer.rewrite.is_none();
            let is_behind = survey.is_behind(dead_percent + BEHIND_PERCENT)
                && (may_free || !victims().is_empty());
            self.cleaner.set_behind(is_behind);
        }
        survey
    }
}

#[cfg(test)]
mod tests;
