//! The log alone: what the store does not do yet is done here, segments freed and slots used again.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Arc;

use zkv_log::{Access, LogError, LogOptions, LogView, LogWriter, OpenFile, Recovered, create};
use zkv_sim::{Image, PowerCut, SimDisk};

use super::images::{Depth, Effort, Moment, Span, Tally, cut_everywhere};

const LOG: &str = "dir/log";
/// The smallest, so that segments fill.
const SLOT_BYTES: u32 = 64 << 10;

/// A long workload, chosen by a seed.
#[derive(Clone, Copy, Debug)]
pub struct LogWorkload(pub u64);

/// The log's entries in their order, each with the sequence of its segment.
type Entries = Vec<(u64, Vec<u8>)>;

/// A log in use.
struct LogRun {
    disk: SimDisk,
    writer: Option<LogWriter>,
    random: fastrand::Rng,
    /// The entries after each commit; at first none.
    commits: Vec<Entries>,
    durable: usize,
    /// What index files would hold, and the event behind which they may be there.
    checkpoints: Vec<(usize, Vec<u8>)>,
    spans: Vec<Span>,
}

impl LogWorkload {
    /// Runs the workload, and cuts the power at every change.
    pub fn run(self, effort: Effort, tally: &Tally) -> Result<(), String> {
        let mut run = LogRun::new(self.0).map_err(message)?;
        let steps = run.random.usize(4..40);
        for _ in 0..steps {
            run.step().map_err(|error| format!("a step of the running log: {error}"))?;
        }
        let check = |image: &Image, moment: Moment<'_>, depth: Depth| {
            let checked = panic::catch_unwind(AssertUnwindSafe(|| run.check(image, moment, depth)));
            checked.unwrap_or_else(|_| Err("a panic, printed above".to_owned()))
        };
        let events = run.disk.events(0);
        cut_everywhere(PowerCut::new(), &events, &run.spans, effort, self.0, tally, check)
    }
}

impl fmt::Display for LogWorkload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "log/{}", self.0)
    }
}

fn options() -> LogOptions {
    // One thread, and entries that do not compress: this is about segments.
    LogOptions { slot_bytes: SLOT_BYTES, compression_threads: 1, ..LogOptions::default() }
}

fn recover(disk: &SimDisk, checkpoint: Option<&[u8]>) -> Result<Recovered, LogError> {
    let storage = Arc::new(disk.clone());
    OpenFile::open(storage, Path::new(LOG), Access::ReadWrite, options())?.recover(checkpoint)
}

fn entries(view: &LogView) -> Result<Entries, LogError> {
    let mut found = Vec::new();
    for segment in view.segments() {
        let mut scan = view.scan(segment.slot, None)?;
        while let Some(block) = scan.next_block()? {
            for entry in block.entries()? {
                found.push((segment.sequence, entry?.to_vec()));
            }
        }
    }
    Ok(found)
}

impl LogRun {
    fn new(seed: u64) -> Result<Self, LogError> {
        let disk = SimDisk::recording(seed);
        create(&disk, Path::new(LOG), &options())?;
        let (name, end_event) = ("the log's making".to_owned(), disk.event_count());
        let made = Span { name, end_event, within: 0..=0, behind: 0..=0, exists: false };
        let mut run = Self {
            disk,
            writer: None,
            random: fastrand::Rng::with_seed(seed),
            commits: vec![Vec::new()],
            durable: 0,
            checkpoints: Vec::new(),
            spans: vec![made],
        };
        run.open()?;
        Ok(run)
    }

    fn open(&mut self) -> Result<(), LogError> {
        let newest = self.checkpoints.last().filter(|_| self.random.bool());
        let recovered = recover(&self.disk, newest.map(|(_, bytes)| bytes.as_slice()))?;
        self.writer = recovered.writer;
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        let durable = self.durable;
        let name = self.operate().map_err(message)?;
        let Some(writer) = &self.writer else { return Err("no log is open".to_owned()) };
        let seen = entries(&writer.log().view()).map_err(message)?;
        if self.commits.last() != Some(&seen) {
            return Err(format!("after {name} the log holds something else"));
        }
        let (end_event, last) = (self.disk.event_count(), self.commits.len() - 1);
        let (within, behind) = (durable..=last, self.durable..=last);
        self.spans.push(Span { name: name.to_owned(), end_event, within, behind, exists: true });
        Ok(())
    }

    fn operate(&mut self) -> Result<&'static str, LogError> {
        match self.random.u8(..100) {
            0..50 => self.append(),
            50..70 => self.free(),
            70..80 => {
                if let Some(writer) = &mut self.writer {
                    writer.mend()?;
                    writer.log().sync(writer.end())?;
                }
                self.durable = self.commits.len() - 1;
                Ok("sync")
            }
            80..88 => {
                if let Some(writer) = &mut self.writer {
                    let bytes = writer.checkpoint()?;
                    self.checkpoints.push((self.disk.event_count(), bytes));
                }
                self.durable = self.commits.len() - 1;
                Ok("checkpoint")
            }
            88..94 => {
                if let Some(mut writer) = self.writer.take() {
                    writer.close()?;
                }
                self.durable = self.commits.len() - 1;
                self.open()?;
                Ok("close and open")
            }
            _ => {
                self.disk = self.disk.kill();
                self.writer = None;
                self.open()?;
                Ok("kill and open")
            }
        }
    }

    fn append(&mut self) -> Result<&'static str, LogError> {
        let most = [300, 8_000, 50_000][self.random.usize(..3)];
        let count = self.random.usize(1..6);
        let appended: Vec<Vec<u8>> = (0..count)
            .map(|_| {
                let mut entry = vec![0; self.random.usize(1..most)];
                self.random.fill(&mut entry);
                entry
            })
            .collect();
        let slices: Vec<&[u8]> = appended.iter().map(Vec::as_slice).collect();
        let Some(writer) = &mut self.writer else { return Ok("nothing") };
        let addresses = writer.append(&slices)?;
        let segments = writer.log().view().segments();
        let sequence_of =
            |slot| segments.iter().find(|one| one.slot == slot).map(|one| one.sequence);
        let sequences = addresses.iter().filter_map(|address| sequence_of(address.slot));
        let mut entries = self.commits.last().cloned().unwrap_or_default();
        entries.extend(sequences.zip(appended));
        self.commits.push(entries);
        Ok("append")
    }

    /// Frees one full segment, as a rule the oldest, or several.
    fn free(&mut self) -> Result<&'static str, LogError> {
        let Some(writer) = &mut self.writer else { return Ok("nothing") };
        let segments = writer.log().view().segments();
        let full: Vec<_> = segments.iter().filter(|segment| segment.is_sealed).collect();
        let Some(oldest) = full.first() else { return Ok("nothing") };
        let mut chosen = vec![*oldest];
        if self.random.u8(..3) == 0 {
            chosen = full.iter().copied().filter(|_| self.random.bool()).collect();
        }
        let slots: Vec<u32> = chosen.iter().map(|segment| segment.slot).collect();
        let gone: BTreeSet<u64> = chosen.iter().map(|segment| segment.sequence).collect();
        writer.free(&slots)?;
        let mut entries = self.commits.last().cloned().unwrap_or_default();
        entries.retain(|(sequence, _)| !gone.contains(sequence));
        self.commits.push(entries);
        Ok("free")
    }

    /// Holds an image against the commits that it may have, from the log alone and from each of the
    /// last checkpoints that an index file may have kept.
    fn check(&self, image: &Image, moment: Moment<'_>, depth: Depth) -> Result<u64, String> {
        if moment.may_be_missing() && image.get(Path::new(LOG)).is_none() {
            return Ok(1);
        }
        let known = self.checkpoints.iter().filter(|(event, _)| *event <= moment.event_count);
        let kept: Vec<Option<&[u8]>> =
            known.rev().take(2).map(|(_, bytes)| Some(bytes.as_slice())).collect();
        let mut found = None;
        for checkpoint in std::iter::once(None).chain(kept) {
            let with =
                if checkpoint.is_some() { "with a checkpoint" } else { "from the log alone" };
            let seen = self.check_one(image, checkpoint, &moment, depth);
            let seen = seen.map_err(|error| format!("{with}: {error}"))?;
            if *found.get_or_insert(seen) != seen {
                return Err(format!("{with} it is at another commit"));
            }
        }
        Ok(1)
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
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn message(error: LogError) -> String {
    error.to_string()
}
