//! Every image that a power cut may leave of a run.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};

use zkv_sim::{Cut, Event, Image, PowerCut};

/// How many images are made, and what is done with them.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Ways to cut the power at each change, at the most.
    pub cuts_most: usize,
    /// Of so many images one is written, and of so many of those one sees further power cuts.
    pub write_one_in: u64,
    pub cut_one_in: u64,
    /// How many crashes there may be one after another.
    pub crashes_most: u32,
    /// Whether only the last operation's changes are cut: the others are those of shorter workloads.
    pub last_only: bool,
    /// The first step of which the changes are cut: those before it are there to fill segments.
    pub first_step: usize,
}

/// How much is done with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// It is opened and read.
    Read,
    /// It is also written, closed, opened with its index and without.
    Write,
    /// Another workload goes on with it, and the power is cut again within that, up to so many times
    /// one after another.
    CutAgain(u32),
}

/// The changes to the disk that one operation made, and which commits a crash may leave.
#[derive(Clone, Debug)]
pub struct Span {
    /// What the operation is called.
    pub name: String,
    /// The operation's changes end here, counted from the run's beginning.
    pub end_event: usize,
    /// Commits that a crash within the operation may leave as the last one.
    pub within: RangeInclusive<usize>,
    /// As `within`, once the operation has returned.
    pub behind: RangeInclusive<usize>,
    /// Whether the making of what is tested had returned before the operation.
    pub exists: bool,
}

/// A moment of a run at which the power is cut.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    pub span: &'a Span,
    /// Changes before it.
    pub event_count: usize,
    /// Whether the operation has returned.
    pub has_returned: bool,
}

/// What was tried.
#[derive(Default)]
pub struct Tally {
    pub workloads: AtomicU64,
    pub images: AtomicU64,
    pub faults: AtomicU64,
}

impl Tally {
    /// Fails where less was tried: a run that finds nothing then shows nothing.
    pub fn expect(&self, images: u64, faults: u64) -> Result<(), String> {
        let enough = images <= self.images.load(Ordering::Relaxed)
            && faults <= self.faults.load(Ordering::Relaxed);
        if enough {
            return Ok(());
        }
        let tried = self.summary();
        Err(format!("crash: only {tried} were tried, expected {images} images and {faults} faults"))
    }

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

impl Effort {
    fn depth(self, random: &mut fastrand::Rng) -> Depth {
        if random.u64(..self.write_one_in) > 0 {
            Depth::Read
        } else if self.crashes_most < 2 || random.u64(..self.cut_one_in) > 0 {
            Depth::Write
        } else {
            Depth::CutAgain(self.crashes_most - 1)
        }
    }
}

impl Moment<'_> {
    /// The commits that may be found.
    pub fn commits(&self) -> RangeInclusive<usize> {
        let span = self.span;
        if self.has_returned { span.behind.clone() } else { span.within.clone() }
    }

    /// Whether there may be nothing yet.
    pub fn may_be_missing(&self) -> bool {
        !self.span.exists && !self.has_returned
    }
}

/// Cuts the power at every change of a run, which starts with the disk as `cut` has it, and shows what that may leave to `check`, which returns
/// how many images it has looked at.
pub fn cut_everywhere(
    mut cut: PowerCut,
    events: &[Event],
    spans: &[Span],
    effort: Effort,
    seed: u64,
    tally: &Tally,
    check: impl Fn(&Image, Moment<'_>, Depth) -> Result<u64, String>,
) -> Result<(), String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut event_count = 0;
    for (step, span) in spans.iter().enumerate() {
        let is_looked_at =
            effort.first_step <= step && (!effort.last_only || step + 1 == spans.len());
        let mut look = |cut: &PowerCut, moment: Moment<'_>, is_new: bool| {
            for way in cut.cuts(is_new, effort.cuts_most, &mut random) {
                let depth = effort.depth(&mut random);
                let tried = check(&cut.image(&way), moment, depth);
                let tried =
                    tried.map_err(|error| format!("{error}\n{}", describe(cut, &way, moment)))?;
                tally.images.fetch_add(tried, Ordering::Relaxed);
            }
            Ok::<(), String>(())
        };
        while event_count < span.end_event {
            let event = &events[event_count];
            let is_pending = cut.follow(event);
            event_count += 1;
            if is_looked_at && is_worth_a_look(event) {
                look(&cut, Moment { span, event_count, has_returned: false }, is_pending)?;
            }
        }
        if is_looked_at {
            // Nothing more has changed, and more must be there.
            look(&cut, Moment { span, event_count, has_returned: true }, false)?;
        }
    }
    Ok(())
}

/// A sync loses nothing: the images behind it are among those before it.
fn is_worth_a_look(event: &Event) -> bool {
    !matches!(event, Event::Synced { .. } | Event::DirectorySynced { .. })
}

/// Where the power was cut, and what of the pending changes was kept.
fn describe(cut: &PowerCut, way: &Cut, moment: Moment<'_>) -> String {
    let at = if moment.has_returned { "behind" } else { "within" };
    let mut text = format!("  {at} {}, {} changes done", moment.span.name, moment.event_count);
    for (number, event) in cut.pending().iter().enumerate() {
        let fate = if way.kept[number] { "kept" } else { "lost" };
        text += &format!("\n    {fate}: {event}");
        if let Some(tear) = way.tear.filter(|tear| tear.number == number) {
            text += &format!(", torn: {:?} of {} bytes", tear.sectors, tear.sector_bytes);
        }
    }
    text + &format!("\n    lengths: {:?}", way.growth)
}
