//! Every image that a power cut may leave of a run.

use std::sync::atomic::{AtomicU64, Ordering};

use zkv_sim::{Cut, Event, PowerCut};

use super::check::{Depth, Expected, check, check_backup};
use super::history::{History, Span};
use super::session::STORE;
use super::workload::Workload;

/// How many images are made, and what is done with them.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Ways to cut the power at each change, at the most.
    pub cuts_most: usize,
    /// Of so many images one is written, and of so many of those one sees further power cuts.
    pub write_one_in: u64,
    pub cut_one_in: u64,
    /// Whether only the last operation's changes are cut: the others are those of shorter workloads.
    pub last_only: bool,
}

/// What was tried.
#[derive(Default)]
pub struct Tally {
    pub workloads: AtomicU64,
    pub images: AtomicU64,
    pub faults: AtomicU64,
}

impl Tally {
    /// For a person to read.
    pub fn summary(&self) -> String {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        format!(
            "{} images and {} faults of {} workloads",
            count(&self.images),
            count(&self.faults),
            count(&self.workloads)
        )
    }
}

/// Cuts the power at every change of `history`.
pub fn cut_everywhere(
    workload: &Workload,
    history: &History,
    effort: Effort,
    tally: &Tally,
) -> Result<(), String> {
    let events = history.disk.events(0);
    let mut random = fastrand::Rng::with_seed(workload.seed ^ workload.operations.len() as u64);
    let mut cut = PowerCut::new();
    let mut number = 0;
    for (step, span) in history.spans.iter().enumerate() {
        let is_looked_at = !effort.last_only || step + 1 == history.spans.len();
        let moment = |event: usize| match step {
            0 => format!("change {event}, making the store"),
            _ => {
                format!("change {event}, operation {}, {}", step - 1, workload.operations[step - 1])
            }
        };
        while number < span.end_event {
            let is_pending = cut.follow(&events[number]);
            number += 1;
            if is_looked_at && is_worth_a_look(&events[number - 1]) {
                let ways = cut.cuts(is_pending, effort.cuts_most, &mut random);
                let within = Moment { workload, history, span, number, has_returned: false };
                within
                    .check_all(&cut, &ways, effort, tally, &mut random)
                    .map_err(|error| format!("{}: {error}", moment(number - 1)))?;
            }
        }
        if is_looked_at {
            // Nothing more has changed, and more must be there.
            let ways = cut.cuts(false, effort.cuts_most, &mut random);
            let behind = Moment { workload, history, span, number, has_returned: true };
            behind
                .check_all(&cut, &ways, effort, tally, &mut random)
                .map_err(|error| format!("behind {}: {error}", moment(number)))?;
        }
    }
    Ok(())
}

/// A sync loses nothing: the images behind it are among those before it.
fn is_worth_a_look(event: &Event) -> bool {
    !matches!(event, Event::Synced { .. } | Event::DirectorySynced { .. })
}

/// A moment of the run.
struct Moment<'a> {
    workload: &'a Workload,
    history: &'a History,
    span: &'a Span,
    /// Changes before it.
    number: usize,
    has_returned: bool,
}

impl Moment<'_> {
    fn check_all(
        &self,
        cut: &PowerCut,
        ways: &[Cut],
        effort: Effort,
        tally: &Tally,
        random: &mut fastrand::Rng,
    ) -> Result<(), String> {
        for way in ways {
            let depth = if random.u64(..effort.write_one_in) > 0 {
                Depth::Read
            } else if random.u64(..effort.cut_one_in) > 0 {
                Depth::Write
            } else {
                Depth::CutAgain(2)
            };
            let tried = self.check(cut, way, depth);
            let tried = tried.map_err(|error| format!("{error}\n  the cut: {way:?}"))?;
            tally.images.fetch_add(tried, Ordering::Relaxed);
        }
        Ok(())
    }

    fn check(&self, cut: &PowerCut, way: &Cut, depth: Depth) -> Result<u64, String> {
        let (image, span) = (cut.image(way), self.span);
        for backup in &self.history.backups {
            let is_there = image.get(&backup.path).is_some();
            if is_there {
                let state = &self.history.commits[backup.commit];
                check_backup(self.workload, &image, &backup.path, state)?;
            } else if backup.end_event <= self.number
                && (self.has_returned || backup.end_event < self.number)
            {
                return Err("a backup is gone".to_owned());
            }
        }
        let has_store = image.get(STORE.as_ref()).is_some();
        if !has_store && !span.exists && !self.has_returned {
            return Ok(1);
        }
        let last = if self.has_returned { span.behind.clone() } else { span.within.clone() };
        let expected = Expected { commits: &self.history.commits, last };
        check(self.workload, &image, &expected, depth)
    }
}
