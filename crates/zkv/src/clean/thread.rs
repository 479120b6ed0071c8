//! The thread that cleans when there is something to clean, within its budget.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use zkv_log::SegmentInfo;
use zkv_log::layout::slot_start;

use super::Cleaner;
use crate::error::{Error, Result};
use crate::options::{Cleaning, DEAD_PERCENT};
use crate::shared::Shared;
use crate::sync::atomic::Ordering;
use crate::sync::thread::{Builder, JoinHandle};

/// How long what was written waits to be looked at: a look costs little, but not nothing.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How long what somebody reads waits to be cut off.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Nobody writes if nothing was written for so long: the budget is for those who do.
const IDLE: Duration = Duration::from_millis(200);
/// How long the thread waits for others to write before it looks at its budget again.
const PAUSE: Duration = Duration::from_millis(20);
/// What cleaning may write beyond its share.
const ALLOWANCE_BYTES: u64 = 8 << 20;

/// Segments are cleaned together as long as what is needed of them, compressed, is less than this share
/// of a piece: about one piece, where data compresses four times.
const PIECES_PER_ROUND_SHARE: usize = 4;
/// Free slots that are kept for what is written next: one, and one more for so many segments.
const SEGMENTS_PER_SPARE: usize = 10;

/// Starts the thread; `None` where the system has no more of them.
pub(crate) fn start(shared: &Arc<Shared>) -> Option<JoinHandle<()>> {
    let of_thread = Arc::clone(shared);
    let thread = Builder::new().name("zkv-clean".to_owned());
    let thread = thread.spawn(move || of_thread.clean_on()).ok()?;
    shared.cleaner.state().is_running = true;
    Some(thread)
}

/// Asks the thread to end behind the piece that it is at, and waits until it has.
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

/// What the thread may write while others do.
struct Budget {
    write_percent: u64,
    /// What others had written when somebody looked last, and when that has changed last.
    others: u64,
    changed_at: Instant,
}

impl Cleaner {
    /// Waits for something to look at; `false` where the thread shall end.
    fn wait_for_news(&self) -> bool {
        self.pause(LOOK_INTERVAL);
        let mut state = self.state();
        while !state.has_news && !state.is_ending {
            if state.is_unfinished {
                let waited = self.changed.wait_timeout(state, RETRY_INTERVAL);
                (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
                break;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.has_news = false;
        !state.is_ending
    }

    fn is_ending(&self) -> bool {
        self.state().is_ending
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
    fn new(write_percent: u8) -> Self {
        Self { write_percent: write_percent.into(), others: 0, changed_at: Instant::now() }
    }

    /// Waits while the thread has had its share and others write.
    fn wait(&mut self, cleaner: &Cleaner) {
        while self.is_used_up(cleaner) && !cleaner.is_ending() {
            cleaner.pause(PAUSE);
        }
    }

    fn is_used_up(&mut self, cleaner: &Cleaner) -> bool {
        let moved = cleaner.moved_bytes.load(Ordering::Relaxed);
        let others = cleaner.written_bytes().saturating_sub(moved);
        if others != self.others {
            (self.others, self.changed_at) = (others, Instant::now());
        }
        let share = others.saturating_mul(self.write_percent);
        let has_had_it = moved.saturating_sub(ALLOWANCE_BYTES) * (100 - self.write_percent) > share;
        let is_behind = cleaner.is_behind.load(Ordering::Relaxed);
        has_had_it && !is_behind && self.changed_at.elapsed() < IDLE
    }
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
        let mut budget = Some(Budget::new(write_percent));
        while self.cleaner.wait_for_news() {
            // What cannot be cleaned now is looked at again with what is written next.
            let _ = self.clean_what_is_due(dead_percent.into(), budget.as_mut());
            self.cleaner.is_behind.store(false, Ordering::Relaxed);
            self.cleaner.changed.notify_all();
        }
    }

    /// Does all that the thread would do, without a budget.
    pub(crate) fn clean_all(&self) -> Result<()> {
        let dead_percent = match self.options.cleaning {
            Cleaning::Automatic { dead_percent, .. } => dead_percent,
            Cleaning::Off => DEAD_PERCENT,
        };
        self.clean_what_is_due(dead_percent.into(), None)
    }

    /// Cleans one segment after another, until no more than `dead_percent` of all are dead.
    fn clean_what_is_due(&self, dead_percent: u64, mut budget: Option<&mut Budget>) -> Result<()> {
        loop {
            let _turn = self.cleaner.take_turn();
            let victims = self.next_victims(dead_percent)?;
            if victims.is_empty() {
                break;
            }
            let cleaned = self.mended(|| {
                let go_on = || {
                    if let Some(budget) = budget.as_deref_mut() {
                        budget.wait(&self.cleaner);
                    }
                    !self.cleaner.is_ending()
                };
                let pack = |entries: &[&[u8]]| self.log.pack(entries);
                self.clean(victims.clone(), self.piece_bytes(), pack, go_on)
            });
            if self.cleaner.is_ending() {
                break;
            }
            if let Err(error) = cleaned {
                // It stays as it is, and the others are cleaned without it.
                let damaged = self.damaged_one(&error, &victims).ok_or(error)?;
                self.cleaner.state().damaged.insert(damaged.sequence);
            }
        }
        Ok(())
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

    fn next_victims(&self, dead_percent: u64) -> Result<Vec<SegmentInfo>> {
        let mut writer = self.writer()?;
        if self.is_reclaim_due(&writer) {
            self.checkpoint(&mut writer)?;
        }
        let survey = self.survey(&writer);
        let is_skipped = |one: &SegmentInfo| {
            let state = self.cleaner.state();
            state.damaged.contains(&one.sequence)
        };
        let needed_max = (self.piece_bytes() / PIECES_PER_ROUND_SHARE) as u64;
        let victims = survey.victims(dead_percent, needed_max, is_skipped);
        if !victims.is_empty() {
            return Ok(victims);
        }
        if !writer.cleaned.is_empty() {
            self.checkpoint(&mut writer)?;
        }
        let last = self.last_in_the_way(&mut writer, spare_slots)?;
        Ok(last.into_iter().filter(|last| !is_skipped(last)).collect())
    }
}
