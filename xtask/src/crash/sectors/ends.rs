//! How processes end, and which commit their store is at then.

use std::path::Path;

use zkv_sim::{Image, PowerCut, SimDisk};

use super::super::session::{STORE, Trouble, options};
use super::rescue::with_index;
use super::run::Run;
use super::seen::{Known, Seen, Strictness, is_of_disk};
use super::spoil;

/// Ways to cut the power, of which one is taken.
const CUTS: usize = 20;

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Close,
    Kill,
    PowerCut,
}

impl Run<'_> {
    pub fn end(&mut self, end: End) -> Result<(), String> {
        self.tell(format!("  {end:?}"));
        self.note_index();
        match end {
            End::Close => match self.session.close() {
                Ok(()) => {
                    self.is_unsure = false;
                    // Behind few records, a close leaves that file as it is.
                    if self.note_index() {
                        self.since_close.clear();
                    }
                    Ok(())
                }
                Err(Trouble::Refused(error)) if self.may_fail() && is_of_disk(&error) => {
                    self.tell(format!("  closing failed: {error}"));
                    self.is_unsure = true;
                    self.session.commit();
                    self.kill()
                }
                Err(trouble) => Err(format!("closing: {trouble}")),
            },
            End::Kill => self.kill(),
            End::PowerCut => self.cut_power(),
        }
    }

    fn kill(&mut self) -> Result<(), String> {
        self.session.end_process();
        self.note_index();
        let last = self.session.commits.len() - 1;
        // What the failed call has left is one of these.
        let first = if std::mem::take(&mut self.is_unsure) { self.session.durable } else { last };
        let image = self.session.disk.image();
        let commit = self.find_commit(&image, first, last)?;
        self.session.commits.truncate(commit + 1);
        self.session.durable = self.session.durable.min(commit);
        self.session.visible = self.session.commits[commit].clone();
        Ok(())
    }

    /// Cuts the power within the last step, or behind it.
    fn cut_power(&mut self) -> Result<(), String> {
        let (first, durable_before) = self.before_step;
        let events = self.session.disk.events(0);
        let end = self.random.usize(first.min(events.len())..=events.len());
        let durable = if end < events.len() { durable_before } else { self.session.durable };
        let mut cut = PowerCut::from_image(&self.start);
        for event in &events[..end] {
            cut.follow(event);
        }
        let ways = cut.cuts(false, CUTS, &mut self.random);
        let image = cut.image(&ways[self.random.usize(..ways.len())]);
        let bad = spoil::after_cut(&self.session.disk.bad_sectors(Path::new(STORE)), &image);
        // What waits in buffers is no commit.
        let last = self.session.commits.len() - 1;
        if image.get(Path::new(STORE)).is_none() {
            // Whether one that is being made comes to be there is what others try.
            let is_being_made = self.start.get(Path::new(STORE)).is_none() && durable == 0;
            let gone = || Err("a store that was there is gone".to_owned());
            return if is_being_made { self.kill() } else { gone() };
        }
        self.session.end_process();
        let commit = self.find_commit(&image, durable.min(last), last)?;
        self.session.disk = SimDisk::recording_from(&image, self.random.u64(..));
        let set = self.session.disk.set_bad_sectors(Path::new(STORE), bad);
        set.map_err(|error| error.to_string())?;
        self.start = image;
        for taken in &self.session.commits[commit + 1..] {
            self.known.note_taken(taken);
        }
        let state = self.session.commits[commit].clone();
        (self.session.commits, self.session.durable) = (vec![state.clone()], 0);
        self.session.visible = state;
        (self.is_unsure, self.is_torn, self.before_step) = (false, true, (0, 0));
        // They may know more than the log does now.
        self.indexes.clear();
        self.note_index();
        Ok(())
    }

    /// The commit that the log of an image says, where all of it can be read.
    fn find_commit(&self, image: &Image, first: usize, last: usize) -> Result<usize, String> {
        let disk = SimDisk::from_image(&with_index(image, None), 17);
        let opened = options(&disk, self.session.workload).create(false).open(STORE);
        let store = opened.map_err(|error| format!("all can be read, and it fails: {error}"))?;
        let seen = Seen::of(&store, &self.known)?;
        let strict =
            Strictness { may_fail: false, iterates_all: true, counts: !self.known.has_moved_stale };
        let known = self.known_of_log();
        let mut why = String::new();
        for commit in (first..=last).rev() {
            match seen.check(&self.session.commits[commit], &known, strict) {
                Ok(()) => return Ok(commit),
                Err(error) => why = error,
            }
        }
        Err(format!("where all can be read, it is at no commit of {first} to {last}; {why}"))
    }

    /// Of a log without an index that leads elsewhere.
    pub fn known_of_log(&self) -> Known {
        let mut known = self.known.clone();
        if !known.has_moved_stale {
            known.stale.clear();
        }
        known
    }
}
