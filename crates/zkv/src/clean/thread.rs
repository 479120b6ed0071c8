//! The thread that cleans when there is something to clean, within its budget.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use zkv_log::SegmentInfo;
use zkv_log::layout::slot_start;

use super::Cleaner;
use super::burst::Manner;
use super::loose::SEALS_READ_MAX;
use super::share::{FirstShare, SHARE_PORTION_BYTES, Share};
use crate::error::{Error, Result};
use crate::options::{Cleaning, DEAD_PERCENT};
use crate::shared::Shared;
use crate::sync::atomic::Ordering;
use crate::sync::thread::{Builder, JoinHandle};
use crate::write::writer::Writer;

/// How long what was written waits to be looked at: a look costs little, but not nothing.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How long what somebody reads waits to be cut off, and what has failed again and again for another attempt.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// What has failed is tried again behind this, and each time that it fails again behind twice as long.
const FIRST_RETRY_INTERVAL: Duration = Duration::from_millis(50);
/// Behind so many failures in a row, writes wait for the next attempt: together for 0.75 s, and no longer for what
/// cannot succeed.
const FAILURES_AWAITED: u32 = 4;
/// Nobody writes if nothing was written for so long: the budget is for those who do.
const IDLE: Duration = Duration::from_millis(200);
/// How long the thread waits for others to write before it looks at its budget again.
const PAUSE: Duration = Duration::from_millis(20);
/// What cleaning may write beyond its share.
const ALLOWANCE_BYTES: u64 = 8 << 20;

/// The longest that what is packed waits for others to fill a segment.
const SEGMENT_WAIT_MAX: Duration = Duration::from_secs(5);
/// Dead space beyond the bound, in percent of all, up to which cleaning waits until there is a segment of
/// records to move,
const PATIENCE_PERCENT: u64 = 1;
/// and that from which on what is packed no longer waits for others to fill a segment.
const URGENT_PERCENT: u64 = 5;
/// Free slots that are kept for what is written next: one, and one more for so many segments.
const SEGMENTS_PER_SPARE: usize = 10;

/// Starts the thread; `None` where the system has no more of them.
pub(crate) fn start(shared: &Arc<Shared>) -> Option<JoinHandle<()>> {
    let of_thread = Arc::clone(shared);
    shared.cleaner.state().first_share = FirstShare::Open;
    let thread = Builder::new().name("zkv-clean".to_owned());
    thread.spawn(move || of_thread.clean_on()).ok()
}

/// Asks the thread to end behind the portion that it is at, and waits until it has.
pub(crate) fn stop(cleaner: &Cleaner, thread: JoinHandle<()>) {
    {
        let mut state = cleaner.state();
        // Nobody waits for it any longer.
        (state.is_ending, state.is_running) = (true, false);
    }
    cleaner.changed.notify_all();
    // After a panic there the log is whole, and what was cleaned stays so.
    let _ = thread.join();
    cleaner.state().is_ending = false;
}

/// What the thread may write while others do, and when.
pub(super) struct Budget {
    dead_percent: u64,
    write_percent: u64,
    /// What others had written when somebody looked last, and when that has changed last.
    others: u64,
    changed_at: Instant,
    /// What they had written when something was moved last.
    others_at_move: u64,
}

impl Cleaner {
    /// Waits so long, and then for something to look at; `false` where the thread shall end.
    fn wait_for_news(&self, pause: Duration) -> bool {
        self.pause(pause);
        let mut state = self.state();
        state.has_failed = false;
        while (!state.has_news || state.is_left_to_others()) && !state.is_ending {
            if state.is_unfinished && !state.is_left_to_others() {
                let waited = self.changed.wait_timeout(state, RETRY_INTERVAL);
                (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
                break;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.has_news = false;
        if state.first_share == FirstShare::Open && !state.is_ending {
            state.first_share = FirstShare::OfThread;
        }
        !state.is_ending
    }

    /// Notes that the thread has failed so many times in a row. At first it tries again by itself, and is waited for:
    /// a disk that fails for a moment would else let writes go on without any cleaning, again and again. Later it
    /// looks at it with what is written next, since each time costs a sync, and perhaps an index file.
    fn note_failure(&self, failures: u32) {
        if failures <= FAILURES_AWAITED {
            self.state().has_news = true;
            return;
        }
        self.state().has_failed = true;
        self.set_behind(false);
    }

    pub(super) fn is_ending(&self) -> bool {
        self.state().is_ending
    }

    /// Waits for the next write; `false` where nobody writes, or the thread shall end.
    fn wait_for_write(&self) -> bool {
        let (start, mut state) = (Instant::now(), self.state());
        state.has_news = false;
        // Those who wait for the cleaning go on.
        state.is_waiting = true;
        self.changed.notify_all();
        while !state.has_news && !state.is_ending {
            let left = IDLE.saturating_sub(start.elapsed());
            if left.is_zero() {
                break;
            }
            let waited = self.changed.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        let has_written = state.has_news;
        state.is_waiting = false;
        // What was written is still to be looked at.
        state.has_news = true;
        has_written && !state.is_ending
    }

    /// Waits so long, or until the thread shall end.
    fn pause(&self, duration: Duration) {
        let (start, mut state) = (Instant::now(), self.state());
        while !state.is_ending {
            let left = duration.saturating_sub(start.elapsed());
            if left.is_zero() {
                return;
            }
            let waited = self.changed.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Budget {
    fn new(dead_percent: u8, write_percent: u8) -> Self {
        Self {
            dead_percent: dead_percent.into(),
            write_percent: write_percent.into(),
            others: 0,
            changed_at: Instant::now(),
            others_at_move: 0,
        }
    }

    /// Waits until others have filled the segment that they write, where `payload_bytes` would fill a
    /// good part of one: what is moved then begins with a segment. At least half a segment of theirs
    /// lies between what is moved and what is moved next. What is moved first waits for nobody: the program may
    /// end soon.
    pub(super) fn wait_for_segment(&mut self, shared: &Shared, payload_bytes: u64) -> Result<()> {
        let slot_bytes = u64::from(shared.log.identity().slot_bytes);
        let is_first = shared.cleaner.state().first_share == FirstShare::OfThread;
        if payload_bytes >= slot_bytes / 2 && !is_first {
            self.wait_for_end_of_segment(shared, slot_bytes / 2)?;
        }
        self.others_at_move = self.others;
        Ok(())
    }

    fn wait_for_end_of_segment(&mut self, shared: &Shared, distance_bytes: u64) -> Result<()> {
        let (cleaner, start) = (&shared.cleaner, Instant::now());
        let (mut sequence, mut commit_bytes) = (None, 0);
        self.look(cleaner);
        loop {
            let others_before = self.others;
            self.look(cleaner);
            commit_bytes = commit_bytes.max(self.others - others_before);
            let writer = shared.writer()?;
            let is_urgent = writer.survey().is_behind(self.dead_percent + URGENT_PERCENT);
            let (now, room_bytes) = (writer.log.end().sequence, writer.log.room_bytes());
            drop(writer);
            let is_full = u64::from(room_bytes) <= commit_bytes
                || sequence.replace(now).is_some_and(|before| before != now);
            let is_far = self.others - self.others_at_move >= distance_bytes;
            if is_urgent || (is_full && is_far) || start.elapsed() > SEGMENT_WAIT_MAX {
                return Ok(());
            }
            if !cleaner.wait_for_write() {
                return Ok(());
            }
        }
    }

    /// Waits while the thread has had its share and others write.
    pub(super) fn wait(&mut self, cleaner: &Cleaner) {
        while self.is_used_up(cleaner) && !cleaner.is_ending() {
            cleaner.pause(PAUSE);
        }
    }

    fn is_used_up(&mut self, cleaner: &Cleaner) -> bool {
        let others_write = self.others_write(cleaner);
        let moved = cleaner.moved_bytes.load(Ordering::Relaxed);
        let share = self.others.saturating_mul(self.write_percent);
        let has_had_it = moved.saturating_sub(ALLOWANCE_BYTES) * (100 - self.write_percent) > share;
        let is_behind = cleaner.is_behind.load(Ordering::Relaxed);
        has_had_it && !is_behind && others_write
    }

    /// Whether others have written a moment ago.
    fn others_write(&mut self, cleaner: &Cleaner) -> bool {
        self.look(cleaner);
        self.changed_at.elapsed() < IDLE
    }

    fn look(&mut self, cleaner: &Cleaner) {
        let moved = cleaner.moved_bytes.load(Ordering::Relaxed);
        // Who looks between the two sees what was moved last as written by others.
        let others = cleaner.written_bytes().saturating_sub(moved);
        if others > self.others {
            (self.others, self.changed_at) = (others, Instant::now());
        }
    }
}

/// Who asks for a cleaning.
pub(super) enum Asker<'a> {
    /// Somebody who waits until all is done.
    OfAll,
    /// Somebody who waits for a share, and leaves that to whoever cleans now.
    OfShare(Share),
    /// The thread, which looks again later, and leaves a store alone that is compacted. It begins with a share.
    Thread(&'a mut Budget, Option<Share>),
}

impl Asker<'_> {
    fn share(&mut self) -> Option<&mut Share> {
        match self {
            Self::OfAll => None,
            Self::OfShare(share) => Some(share),
            Self::Thread(_, share) => share.as_mut(),
        }
    }

    fn budget(&mut self) -> Option<&mut Budget> {
        match self {
            Self::Thread(budget, _) => Some(budget),
            Self::OfAll | Self::OfShare(_) => None,
        }
    }
}

/// Failures in a row, with no segment cleaned in between: beside somebody who writes without pause, there is always
/// more to clean, and the thread may never be done.
#[derive(Default)]
struct Failures {
    count: u32,
    segments_cleaned: u64,
}

impl Failures {
    /// Notes one, behind so many segments that were ever cleaned. How many there were in a row.
    fn note(&mut self, segments_cleaned: u64) -> u32 {
        let is_next =
            std::mem::replace(&mut self.segments_cleaned, segments_cleaned) == segments_cleaned;
        self.count = if is_next { self.count.saturating_add(1) } else { 1 };
        self.count
    }
}

/// How long the thread waits behind so many failures in a row.
fn pause_behind(failures: u32) -> Duration {
    let doubled = 2u32.checked_pow(failures.saturating_sub(1));
    let pause = doubled.and_then(|times| FIRST_RETRY_INTERVAL.checked_mul(times));
    pause.map_or(RETRY_INTERVAL, |pause| pause.min(RETRY_INTERVAL))
}

/// Free slots that are kept for what is written next, in a log of so many segments.
fn spare_slots(segments: usize) -> usize {
    segments / SEGMENTS_PER_SPARE + usize::from(segments > 1)
}

impl Shared {
    fn clean_on(&self) {
        let Cleaning::Automatic { dead_percent, write_percent } = self.options.cleaning else {
            return;
        };
        let _running = self.cleaner.begin_running();
        let mut budget = Budget::new(dead_percent, write_percent);
        let dead_percent = dead_percent.into();
        let (mut pause, mut failures) = (LOOK_INTERVAL, Failures::default());
        while self.cleaner.wait_for_news(pause) {
            let cleaned = self.clean_first_share(dead_percent, &mut budget).and_then(|()| {
                self.clean_what_is_due(dead_percent, Asker::Thread(&mut budget, None))
            });
            if cleaned.is_ok() {
                (pause, failures) = (LOOK_INTERVAL, Failures::default());
            } else {
                let count = failures.note(self.cleaner.stats().segments);
                pause = pause_behind(count);
                self.cleaner.note_failure(count);
            }
        }
    }

    /// Does all that the thread would do, without a budget.
    pub(crate) fn clean_all(&self) -> Result<()> {
        let dead_percent = match self.options.cleaning {
            Cleaning::Automatic { dead_percent, .. } => dead_percent,
            Cleaning::Off => DEAD_PERCENT,
        };
        loop {
            // The thread comes to the others look by look.
            self.learn_what_is_loose(usize::MAX);
            match self.clean_what_is_due(dead_percent.into(), Asker::OfAll) {
                Err(error) => self.go_on_unless_closed(error)?,
                cleaned => return cleaned,
            }
        }
    }

    /// Cleans one segment after another, until no more than `dead_percent` of all are dead, or the share of who
    /// asks is done.
    pub(super) fn clean_what_is_due(&self, dead_percent: u64, mut asker: Asker<'_>) -> Result<()> {
        while asker.share().is_none_or(|share| share.is_left(&self.cleaner)) {
            let turn = match asker {
                Asker::OfShare(_) => self.cleaner.try_turn(),
                Asker::OfAll | Asker::Thread(..) => Some(self.cleaner.take_turn()),
            };
            let Some(_turn) = turn else { break };
            if matches!(asker, Asker::Thread(..)) && self.cleaner.is_compacting() {
                self.cleaner.state().has_news = true;
                break;
            }
            self.learn_what_is_loose(SEALS_READ_MAX);
            let mut victims = self.next_victims(dead_percent, &mut asker)?;
            if let Some(share) = asker.share() {
                share.take(&mut victims);
            }
            if victims.is_empty() {
                break;
            }
            let cleaned = self.mended(|| {
                let pack = |entries: &[&[u8]], prepacked| self.log.pack_again(entries, prepacked);
                let until = asker.share().map(|share| share.until);
                let portion_bytes = until.map_or(self.portion_bytes(), |_| SHARE_PORTION_BYTES);
                let burst_bytes = self.burst_bytes();
                let manner =
                    Manner { portion_bytes, burst_bytes, until, keeps_prepacked: true, pack };
                self.clean(victims.clone(), &manner, asker.budget())
            });
            if self.cleaner.is_ending() {
                // Whoever closes the store waits for this.
                return Err(Error::Closed);
            }
            if let Err(error) = cleaned {
                if error.is_without_room() && self.has_freed_cleaned()? {
                    continue;
                }
                // It stays as it is, and the others are cleaned without it.
                let damaged = self.damaged_one(&error, &victims).ok_or(error)?;
                self.cleaner.state().damaged.insert(damaged.sequence);
            }
            // Not before: each share moves something, however late it is.
            if asker.share().is_some_and(|share| share.is_over()) {
                break;
            }
        }
        Ok(())
    }

    /// Frees what was cleaned, if anything was: there may be room then.
    pub(super) fn has_freed_cleaned(&self) -> Result<bool> {
        let mut writer = self.writer()?;
        let has_cleaned = !writer.cleaned.is_empty();
        if has_cleaned {
            self.checkpoint(&mut writer)?;
        }
        Ok(has_cleaned)
    }

    /// Which of `victims` is damaged, by the error of cleaning them.
    fn damaged_one(&self, error: &Error, victims: &[SegmentInfo]) -> Option<SegmentInfo> {
        let slot_bytes = self.log.identity().slot_bytes;
        let holds = |victim: &&SegmentInfo, offset: u64| {
            let start = slot_start(victim.slot, slot_bytes);
            (start..start + u64::from(slot_bytes)).contains(&offset)
        };
        let offset = error.damaged_data_offset()?;
        victims.iter().find(|victim| holds(victim, offset)).copied()
    }

    /// Which segments to clean now. Where there are none, nobody waits for the thread any longer.
    fn next_victims(&self, dead_percent: u64, asker: &mut Asker<'_>) -> Result<Vec<SegmentInfo>> {
        let mut writer = self.writer()?;
        let victims = self.choose_victims(&mut writer, dead_percent, asker)?;
        if victims.is_empty() && matches!(asker, Asker::Thread(..)) {
            // With the writer: who has written since may have found the store behind again.
            self.cleaner.set_behind(false);
        }
        Ok(victims)
    }

    /// As [`Shared::next_victims`]. While others write it may wait until it is worth while.
    fn choose_victims(
        &self,
        writer: &mut Writer,
        dead_percent: u64,
        asker: &mut Asker<'_>,
    ) -> Result<Vec<SegmentInfo>> {
        let may_wait = asker.budget().is_some_and(|budget| budget.others_write(&self.cleaner));
        let is_thread = matches!(asker, Asker::Thread(..));
        let reclaim = |writer: &mut Writer| match is_thread {
            // Who writes meanwhile, or begins to, does not wait for a large index file.
            true => self.checkpoint_aside(writer),
            false => self.checkpoint(writer),
        };
        if self.is_reclaim_due(writer) {
            reclaim(writer)?;
        }
        let survey = self.survey(writer);
        let is_skipped = |one: &SegmentInfo| self.cleaner.is_damaged(one);
        let victims = survey.victims(dead_percent, self.burst_bytes(), is_skipped);
        if !victims.is_empty() {
            let needed: u64 = victims.iter().filter_map(|one| survey.needed_bytes(one)).sum();
            let is_enough = needed == 0
                || needed >= u64::from(self.log.identity().slot_bytes)
                || survey.has_too_many_marks()
                || survey.has_loose(&victims)
                || survey.is_behind(dead_percent + PATIENCE_PERCENT);
            if may_wait && !is_enough {
                self.cleaner.state().is_unfinished = true;
                return Ok(Vec::new());
            }
            return Ok(victims);
        }
        if !writer.cleaned.is_empty() {
            reclaim(writer)?;
        }
        if is_thread && writer.rewrite.is_some() {
            // What is freed behind it is news.
            return Ok(Vec::new());
        }
        let written = writer.log.end().sequence;
        let is_wanted = |one: &SegmentInfo| !is_skipped(one);
        if let Some(last) = self.last_in_the_way(writer, spare_slots)? {
            return Ok(Some(last).into_iter().filter(is_wanted).collect());
        }
        if writer.log.end().sequence != written {
            // The segment that was written to is full now.
            return Ok(writer.survey().victims(dead_percent, self.burst_bytes(), is_skipped));
        }
        let emptied = writer.survey().emptied().filter(is_wanted);
        if may_wait && emptied.is_some() {
            self.cleaner.state().is_unfinished = true;
            return Ok(Vec::new());
        }
        if emptied.is_some() {
            self.rebase(writer)?;
        }
        Ok(emptied.into_iter().collect())
    }
}

#[cfg(test)]
mod tests;
