//! Whether what a crash has left of a log is what it may leave.

use std::iter;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use zkv_log::{LogError, LogWriter};
use zkv_sim::{Image, PowerCut, SimDisk};

use super::workload::Step;
use super::{Checkpoint, Entries, LOG, LogRun, entries, message, recover};
use crate::crash::EXHAUSTIVE;
use crate::crash::images::{Depth, Effort, Moment, Tally, cut_everywhere};

/// Steps of another process behind a crash.
const NEXT_STEPS: usize = 8;
/// Behind so many crashes, what they have hidden is brought to light.
const HIDING_CRASHES: u32 = 2;
/// What a file grows by at the least to show all that a crash can have hidden.
const PAGE_BYTES: usize = 4096;
/// With each image of such a process.
const AGAIN: Effort = Effort { cuts_most: 3, crashes_most: 1, last_only: false, ..EXHAUSTIVE };

impl LogRun {
    /// Cuts the power at every change.
    pub fn cut_everywhere(&self, effort: Effort, seed: u64, tally: &Tally) -> Result<(), String> {
        let check = |image: &Image, moment: Moment<'_>, depth: Depth| {
            let checked =
                panic::catch_unwind(AssertUnwindSafe(|| self.check(image, moment, depth)));
            checked.unwrap_or_else(|_| Err("a panic, printed above".to_owned()))
        };
        let (cut, events) = (PowerCut::from_image(&self.start), self.disk.events(0));
        cut_everywhere(cut, &events, &self.spans, effort, seed, tally, check)
    }

    /// Holds an image against the commits that it may have, from the log alone and from each of the
    /// last checkpoints that an index file may have kept. Returns how many images that were.
    fn check(&self, image: &Image, moment: Moment<'_>, depth: Depth) -> Result<u64, String> {
        if moment.may_be_missing() && image.get(Path::new(LOG)).is_none() {
            return Ok(1);
        }
        let alone = self.check_one(image, None, &moment, depth);
        let commit = alone.map_err(|error| format!("from the log alone: {error}"))?;
        for checkpoint in self.known_checkpoints(&moment).rev().take(2) {
            let seen = self.check_one(image, Some(&checkpoint.bytes), &moment, depth);
            if seen.map_err(|error| format!("with a checkpoint: {error}"))? != commit {
                return Err("with a checkpoint it is at another commit".to_owned());
            }
        }
        if let Some(checkpoint) = self.later_checkpoint(&moment) {
            self.check_older_copy(image, &checkpoint.bytes, commit)?;
        }
        let mut count = 1;
        if image.hides_something() && self.crash_count < HIDING_CRASHES {
            count += self.bring_to_light(image, &moment, commit)?;
        }
        if let Depth::CutAgain(times) = depth {
            count += self.cut_again(image, &moment, commit, times)?;
        }
        Ok(count)
    }

    fn known_checkpoints(
        &self,
        moment: &Moment<'_>,
    ) -> impl DoubleEndedIterator<Item = &Checkpoint> + use<'_> {
        let event_count = moment.event_count;
        self.checkpoints.iter().filter(move |checkpoint| checkpoint.end_event <= event_count)
    }

    /// One of which nothing is in the file yet.
    fn later_checkpoint(&self, moment: &Moment<'_>) -> Option<&Checkpoint> {
        self.checkpoints.iter().find(|checkpoint| moment.event_count <= checkpoint.begin_event)
    }

    /// The commit that the log is at.
    fn check_one(
        &self,
        image: &Image,
        checkpoint: Option<&[u8]>,
        moment: &Moment<'_>,
        depth: Depth,
    ) -> Result<usize, String> {
        let disk = SimDisk::from_image(image, 3);
        let mut recovered = recover(&disk, checkpoint).map_err(message)?;
        let seen = entries(&recovered.log.view()).map_err(message)?;
        let mut commits = moment.commits().rev();
        let Some(commit) = commits.find(|commit| self.commits[*commit] == seen) else {
            let place = self.commits.iter().position(|entries| *entries == seen);
            return Err(format!("it is at {place:?}, not at any of {:?}", moment.commits()));
        };
        if depth != Depth::Read
            && let Some(writer) = &mut recovered.writer
        {
            self.write_on(&disk, writer, seen)?;
        }
        Ok(commit)
    }

    /// A checkpoint of a log that went on says nothing of an older copy; but where something stands
    /// behind the copy's end, it proves that to be damage.
    fn check_older_copy(
        &self,
        image: &Image,
        checkpoint: &[u8],
        commit: usize,
    ) -> Result<(), String> {
        let seen = match recover(&SimDisk::from_image(image, 3), Some(checkpoint)) {
            Err(LogError::Corrupt { .. }) => return Ok(()),
            recovered => recovered.and_then(|recovered| entries(&recovered.log.view())),
        };
        let seen = seen.map_err(|error| format!("with a checkpoint of a later log: {error}"))?;
        if seen == self.commits[commit] {
            Ok(())
        } else {
            Err("with a checkpoint of a later log it is at another commit".to_owned())
        }
    }

    /// Appends until slots are used again, and finds everything after it.
    fn write_on(
        &self,
        disk: &SimDisk,
        writer: &mut LogWriter,
        before: Entries,
    ) -> Result<(), String> {
        let entry = vec![self.commits.len().to_le_bytes()[0]; 1000];
        let mut expected: Vec<Vec<u8>> = before.into_iter().map(|(_, entry)| entry).collect();
        for number in 0..3 {
            let mut noise = vec![0; 40_000];
            fastrand::Rng::with_seed(number).fill(&mut noise);
            writer.append(&[&entry, &noise]).map_err(message)?;
            writer.log().sync(writer.end()).map_err(message)?;
            expected.extend([entry.clone(), noise]);
        }
        let next = disk.kill();
        let recovered = recover(&next, None).map_err(message)?;
        let seen = entries(&recovered.log.view()).map_err(message)?;
        if seen.into_iter().map(|(_, entry)| entry).eq(expected) {
            Ok(())
        } else {
            Err("what was written behind the crash is not found".to_owned())
        }
    }

    /// Another process goes on with what the crash has left, and the power is cut within that. Returns
    /// how many images were tried.
    fn cut_again(
        &self,
        image: &Image,
        moment: &Moment<'_>,
        commit: usize,
        times: u32,
    ) -> Result<u64, String> {
        let seed = (moment.event_count as u64) << 20 | u64::from(times);
        let effort = Effort { crashes_most: times, ..AGAIN };
        let mut next = self.next_life(image, moment, commit, seed);
        let checkpoint = next.newest_or_none();
        next.live(checkpoint.as_deref(), effort, seed, |next| next.random_steps(NEXT_STEPS))
    }

    /// The file grows over what the crash has left behind its end, and the power is cut: nothing of that
    /// may come to light. Returns how many images were tried.
    fn bring_to_light(
        &self,
        image: &Image,
        moment: &Moment<'_>,
        commit: usize,
    ) -> Result<u64, String> {
        let mut count = 0;
        let newest = self.known_checkpoints(moment).next_back();
        for checkpoint in iter::once(None).chain(newest.map(|newest| Some(&*newest.bytes))) {
            let seed = moment.event_count as u64;
            let next = self.next_life(image, moment, commit, seed);
            let append = Step::Append(vec![PAGE_BYTES]);
            count += next.live(checkpoint, AGAIN, seed, |next| next.step(&append))?;
        }
        Ok(count)
    }

    /// The log that a crash has left at a commit, which another process will open.
    fn next_life(&self, image: &Image, moment: &Moment<'_>, commit: usize, seed: u64) -> Self {
        let disk = SimDisk::recording_from(image, seed);
        let mut next = Self::on(disk, image.clone(), self.commits[commit].clone(), seed);
        next.crash_count = self.crash_count + 1;
        let known = self.known_checkpoints(moment).cloned();
        next.checkpoints = known.map(|known| Checkpoint { end_event: 0, ..known }).collect();
        next
    }

    /// Opens the log, goes on with it, and cuts the power at every change. Returns how many images were
    /// tried.
    fn live(
        mut self,
        checkpoint: Option<&[u8]>,
        effort: Effort,
        seed: u64,
        go_on: impl FnOnce(&mut Self) -> Result<(), String>,
    ) -> Result<u64, String> {
        let tally = Tally::default();
        let lived = self.open_from(checkpoint).map_err(message).and_then(|()| {
            self.note_span("the opening behind a crash", 0..=0, true);
            go_on(&mut self)?;
            self.cut_everywhere(effort, seed, &tally)
        });
        lived.map_err(|error| format!("{error}\n  in another life, which began"))?;
        Ok(tally.images.into_inner())
    }
}
