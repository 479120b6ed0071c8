//! A run of a workload on a disk that does not fail, and every power cut within it.

use zkv_sim::{Image, PowerCut, SimDisk};

use super::check::{Expected, check, check_backup};
use super::images::{Depth, Effort, Moment, Span, Tally, cut_everywhere};
use super::indexes::IndexFiles;
use super::model::Model;
use super::session::{Backup, STORE, Session, Trouble};
use super::workload::Workload;

/// A finished run.
pub struct History<'a> {
    workload: &'a Workload,
    /// What the disk held before.
    start: Image,
    disk: SimDisk,
    /// What the store held after each commit; the first is what it held before.
    commits: Vec<Model>,
    /// One for the store's making, and one for each operation.
    spans: Vec<Span>,
    backups: Vec<Backup>,
    indexes: IndexFiles,
    index_is_own: bool,
}

/// What is known of the index files of a store that is there before a run.
pub struct Before {
    /// Those that it has had.
    pub indexes: Vec<Vec<u8>>,
    /// Whether the present one is its own.
    pub index_is_own: bool,
}

impl<'a> History<'a> {
    /// Runs the workload on a new disk. Nothing fails in it, so that an error is one of the store.
    pub fn of(workload: &'a Workload) -> Result<Self, String> {
        let session = Session::new(workload, SimDisk::recording(workload.seed));
        let before = Before { indexes: Vec::new(), index_is_own: true };
        Self::record(session, Image::new(), &before, "the store's making", false)
    }

    /// Runs the workload on a store that a crash has left with `state`.
    pub fn behind_crash(
        workload: &'a Workload,
        image: &Image,
        state: &Model,
        before: &Before,
    ) -> Result<Self, String> {
        let mut session = Session::new(workload, SimDisk::recording_from(image, workload.seed));
        (session.commits, session.visible) = (vec![state.clone()], state.clone());
        Self::record(session, image.clone(), before, "the opening behind a crash", true)
    }

    fn record(
        mut session: Session<'a>,
        start: Image,
        before: &Before,
        opening: &str,
        exists: bool,
    ) -> Result<Self, String> {
        let workload = session.workload;
        let opened = session.open().and_then(|()| session.compare());
        opened.map_err(|error| format!("{opening}: {error}"))?;
        let (name, end_event) = (opening.to_owned(), session.disk.event_count());
        let mut spans = vec![Span { name, end_event, within: 0..=0, behind: 0..=0, exists }];
        for (number, operation) in workload.operations.iter().enumerate() {
            let (name, durable) = (format!("operation {number}, {operation}"), session.durable);
            let done = session.step(number, *operation).and_then(|()| session.compare());
            done.map_err(|error: Trouble| format!("{name}: {error}"))?;
            let (end_event, last) = (session.disk.event_count(), session.commits.len() - 1);
            let (within, behind) = (durable..=last, session.durable..=last);
            spans.push(Span { name, end_event, within, behind, exists: true });
        }
        // The store's closing is no part of the run.
        session.end_process();
        let Session { disk, commits, backups, .. } = session;
        let indexes = IndexFiles::of(&disk.events(0), &start, &before.indexes);
        let index_is_own = before.index_is_own && workload.keeps_index();
        Ok(History { workload, start, disk, commits, spans, backups, indexes, index_is_own })
    }

    /// Cuts the power at every change.
    pub fn cut_everywhere(&self, effort: Effort, tally: &Tally) -> Result<(), String> {
        let seed = self.workload.seed ^ self.workload.operations.len() as u64;
        let (cut, events) = (PowerCut::from_image(&self.start), self.disk.events(0));
        cut_everywhere(cut, &events, &self.spans, effort, seed, tally, |image, moment, depth| {
            self.check(image, moment, depth)
        })
    }

    fn check(&self, image: &Image, moment: Moment<'_>, depth: Depth) -> Result<u64, String> {
        for backup in &self.backups {
            if image.get(&backup.path).is_some() {
                let state = &self.commits[backup.commit];
                check_backup(self.workload, image, &backup.path, state)?;
            } else if backup.end_event < moment.event_count {
                return Err("a backup is gone".to_owned());
            }
        }
        if moment.may_be_missing() && image.get(STORE.as_ref()).is_none() {
            return Ok(1);
        }
        let expected = Expected {
            commits: &self.commits,
            last: moment.commits(),
            indexes: self.indexes.tried(moment.event_count),
            index_is_own: self.index_is_own,
        };
        check(self.workload, image, &expected, depth)
    }
}
