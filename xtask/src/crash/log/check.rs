//! Whether what a crash has left of a log is what it may leave.

use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use zkv_log::{LogError, LogWriter};
use zkv_sim::{Image, PowerCut, SimDisk};

use super::{Checkpoint, Entries, LOG, LogRun, entries, message, recover};
use crate::crash::images::{Depth, Effort, Moment, Tally, cut_everywhere};

/// Steps of another process behind a crash.
const NEXT_STEPS: usize = 8;

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
        match depth {
            Depth::CutAgain(times) => Ok(1 + self.cut_again(image, &moment, commit, times)?),
            Depth::Read | Depth::Write => Ok(1),
        }
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
        let (seed, tally) =
            ((moment.event_count as u64) << 20 | u64::from(times), Tally::default());
        let disk = SimDisk::recording_from(image, seed);
        let mut next = Self::on(disk, image.clone(), self.commits[commit].clone(), seed);
        let known = self.known_checkpoints(moment).cloned();
        next.checkpoints = known.map(|known| Checkpoint { end_event: 0, ..known }).collect();
        let effort = Effort {
            cuts_most: 3,
            write_one_in: 8,
            cut_one_in: 8,
            crashes_most: times,
            last_only: false,
            first_step: 0,
        };
        let gone_on = next.open().map_err(message).and_then(|()| {
            next.note_span("the opening behind a crash", 0..=0, true);
            next.random_steps(NEXT_STEPS)?;
            next.cut_everywhere(effort, seed, &tally)
        });
        gone_on.map_err(|error| format!("{error}\n  in another life, which began"))?;
        Ok(tally.images.into_inner())
    }
}
