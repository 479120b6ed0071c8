//! Progress of long work: on a terminal, and nowhere else.

use std::fmt::{self, Write};
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use crate::output::say;

/// How much is done between two updates of the bar: each reads the clock.
const STEP: u64 = 64 * 1024;
/// How often the ratio is asked for.
const RATIO_INTERVAL: Duration = Duration::from_millis(500);
/// How often a spinner turns.
const TICK_INTERVAL: Duration = Duration::from_millis(120);

/// A bar on standard error, or nothing where that is no terminal.
pub struct Progress {
    bar: Option<ProgressBar>,
    pending: u64,
    ratio_due: Instant,
}

impl Progress {
    /// Whether there is somebody to look at it.
    pub fn is_shown() -> bool {
        io::stderr().is_terminal()
    }

    /// A bar that counts bytes, up to `total` where that is known.
    pub fn of_bytes(total: Option<u64>) -> Self {
        let known = "{wide_bar} {bytes}/{total_bytes}  {binary_bytes_per_sec}  {msg}  {eta} left";
        let unknown = "{spinner} {bytes}  {binary_bytes_per_sec}  {msg}";
        Self::new(total, known, unknown)
    }

    /// A bar that counts records, up to `total`.
    pub fn of_records(total: u64) -> Self {
        let known = "{wide_bar} {human_pos}/{human_len} records  {rate}  {eta} left";
        Self::new(Some(total), known, known)
    }

    /// A bar that counts segments.
    pub fn of_segments() -> Self {
        let known = "{wide_bar} {pos}/{len} segments  {eta} left";
        Self::new(Some(0), known, known)
    }

    /// A spinner for work that does not say how far it is.
    pub fn of_unknown(what: &'static str) -> Self {
        let progress = Self::new(None, "", "{spinner} {msg} {elapsed}");
        if let Some(bar) = &progress.bar {
            bar.set_message(what);
            bar.enable_steady_tick(TICK_INTERVAL);
        }
        progress
    }

    /// No bar at all, where it would stand among the results.
    pub fn hidden() -> Self {
        Self { bar: None, pending: 0, ratio_due: Instant::now() }
    }

    /// A bar that counts and is not drawn.
    #[cfg(test)]
    pub fn undrawn() -> Self {
        Self { bar: Some(ProgressBar::hidden()), ..Self::hidden() }
    }

    /// How much the bar shows to be done.
    #[cfg(test)]
    pub fn shown(&self) -> u64 {
        self.bar.as_ref().map_or(0, ProgressBar::position)
    }

    fn new(total: Option<u64>, known: &str, unknown: &str) -> Self {
        if !Self::is_shown() {
            return Self::hidden();
        }
        let (bar, template) = match total {
            Some(total) => (ProgressBar::new(total), known),
            None => (ProgressBar::new_spinner(), unknown),
        };
        let style = ProgressStyle::with_template(template)
            .expect("the templates stand above")
            .with_key("rate", |state: &ProgressState, into: &mut dyn Write| {
                // A line that cannot be drawn is no reason to fail.
                let _ = write!(into, "{:.0}/s", state.per_sec());
            });
        Self { bar: Some(bar.with_style(style)), ..Self::hidden() }
    }

    /// Counts `done` more; `ratio` is asked now and then for how well it all compresses.
    pub fn add(&mut self, done: u64, ratio: impl FnOnce() -> Option<f64>) {
        let Some(bar) = &self.bar else { return };
        self.pending += done;
        if self.pending < STEP {
            return;
        }
        bar.inc(std::mem::take(&mut self.pending));
        if self.ratio_due <= Instant::now() {
            self.ratio_due = Instant::now() + RATIO_INTERVAL;
            if let Some(ratio) = ratio() {
                bar.set_message(format!("ratio {ratio:.2}"));
            }
        }
    }

    /// Says how much is done, and what that will be in the end.
    pub fn set(&self, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        }
    }

    /// Says something while the bar is there.
    pub fn say(&self, message: fmt::Arguments<'_>) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(message)),
            None => say(message),
        }
    }

    /// Counts one more record.
    pub fn add_record(&mut self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }
}

impl Drop for Progress {
    /// The bar goes with the work, also where that failed, so that a message stands alone.
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
