//! A run of a workload on a disk that does not fail, and what a crash within it may leave.

use std::ops::RangeInclusive;

use zkv_sim::SimDisk;

use super::session::{Backup, Model, Session, Trouble};
use super::workload::Workload;

/// A finished run.
pub struct History {
    pub disk: SimDisk,
    /// What the store held after each commit; the first is the empty store.
    pub commits: Vec<Model>,
    /// One for the store's making, and one for each operation.
    pub spans: Vec<Span>,
    pub backups: Vec<Backup>,
}

/// The changes to the disk that one operation made, and which commits a crash may leave.
#[derive(Clone, Debug)]
pub struct Span {
    /// The operation's changes end here, counted from the run's beginning.
    pub end_event: usize,
    /// Commits that a crash within the operation may leave as the last one.
    pub within: RangeInclusive<usize>,
    /// As `within`, once the operation has returned.
    pub behind: RangeInclusive<usize>,
    /// Whether the store's making had returned before the operation.
    pub exists: bool,
}

/// Runs the workload on a new disk. Nothing fails in it, so that an error is one of the store.
pub fn run(workload: &Workload) -> Result<History, String> {
    let mut session = Session::new(workload, SimDisk::recording(workload.seed));
    let opened = session.open().and_then(|()| session.compare());
    opened.map_err(|error| format!("making the store: {error}"))?;
    let end_event = session.disk.event_count();
    let mut spans = vec![Span { end_event, within: 0..=0, behind: 0..=0, exists: false }];
    for (number, operation) in workload.operations.iter().enumerate() {
        let durable = session.durable;
        let done = session.step(number, *operation).and_then(|()| session.compare());
        done.map_err(|error: Trouble| format!("operation {number}, {operation}: {error}"))?;
        let (end_event, last) = (session.disk.event_count(), session.commits.len() - 1);
        let (within, behind) = (durable..=last, session.durable..=last);
        spans.push(Span { end_event, within, behind, exists: true });
    }
    // The store's closing is no part of the run.
    session.end_process();
    let Session { disk, commits, backups, .. } = session;
    Ok(History { disk, commits, spans, backups })
}
