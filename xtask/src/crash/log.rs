//! The log alone: what the store does not do yet is done here, segments freed and slots used again.

mod check;
mod workload;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use zkv_log::layout::{PAGE_BYTES, slot_start};
use zkv_log::{
    Access, EntryAddress, Log, LogError, LogOptions, LogView, LogWriter, OpenFile, Position,
    Recovered, Room, create,
};
use zkv_sim::{Calls, Fault, Image, SimDisk, SyncFailure, WriteFailure};

use super::images::Span;
pub use workload::LogWorkload;
use workload::Step;

const LOG: &str = "dir/log";
/// The smallest, so that segments fill.
const SLOT_BYTES: u32 = 64 << 10;
/// So small that some commits take several writes.
const WRITE_BUFFER_BYTES: u32 = 16 << 10;

const FAILED_SYNC: Fault = Fault {
    calls: Calls::Syncs,
    number: 1,
    lasts: false,
    error: io::ErrorKind::Other,
    write: WriteFailure::Nothing,
    sync: SyncFailure::CacheNew,
};

/// The log's entries in their order, each with the sequence of its segment.
type Entries = Vec<(u64, Vec<u8>)>;

/// What an index file would hold.
#[derive(Clone)]
struct Checkpoint {
    bytes: Vec<u8>,
    /// The events before its making, and those behind which the file may be there.
    begin_event: usize,
    end_event: usize,
}

/// A log in use.
struct LogRun {
    /// What the disk held before.
    start: Image,
    /// How many crashes came before.
    crash_count: u32,
    disk: SimDisk,
    writer: Option<LogWriter>,
    random: fastrand::Rng,
    /// The entries after each commit; the first are those from before.
    commits: Vec<Entries>,
    durable: usize,
    checkpoints: Vec<Checkpoint>,
    spans: Vec<Span>,
}

fn options() -> LogOptions {
    // One thread, and entries that do not compress: this is about segments.
    LogOptions {
        slot_bytes: SLOT_BYTES,
        compression_threads: 1,
        write_buffer_bytes: WRITE_BUFFER_BYTES,
        ..LogOptions::default()
    }
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
    /// A new log.
    fn new(seed: u64) -> Result<Self, LogError> {
        let disk = SimDisk::recording(seed);
        create(&disk, Path::new(LOG), &options())?;
        let mut run = Self::on(disk, Image::new(), Vec::new(), seed);
        run.note_span("the log's making", 0..=0, false);
        run.open()?;
        Ok(run)
    }

    /// A log that is not open yet, with these entries.
    fn on(disk: SimDisk, start: Image, entries: Entries, seed: u64) -> Self {
        Self {
            start,
            crash_count: 0,
            disk,
            writer: None,
            random: fastrand::Rng::with_seed(seed),
            commits: vec![entries],
            durable: 0,
            checkpoints: Vec::new(),
            spans: Vec::new(),
        }
    }

    fn open(&mut self) -> Result<(), LogError> {
        let checkpoint = self.newest_or_none();
        self.open_from(checkpoint.as_deref())
    }

    fn open_from(&mut self, checkpoint: Option<&[u8]>) -> Result<(), LogError> {
        self.writer = recover(&self.disk, checkpoint)?.writer;
        Ok(())
    }

    /// The newest checkpoint, in one of two cases.
    fn newest_or_none(&mut self) -> Option<Vec<u8>> {
        let newest = self.checkpoints.last().filter(|_| self.random.bool())?;
        Some(newest.bytes.clone())
    }

    /// Notes what was done since the last span. A crash `within` it may leave one of these commits.
    fn note_span(&mut self, name: &str, within: std::ops::RangeInclusive<usize>, exists: bool) {
        let behind = self.durable..=self.commits.len() - 1;
        let (name, end_event) = (name.to_owned(), self.disk.event_count());
        self.spans.push(Span { name, end_event, within, behind, exists });
    }

    /// Does a step, and looks at what the running log holds behind it.
    fn step(&mut self, step: &Step) -> Result<(), String> {
        let durable = self.durable;
        self.operate(step).map_err(|error| format!("{step:?} of the running log: {error}"))?;
        let Some(writer) = &self.writer else { return Err("no log is open".to_owned()) };
        let seen = entries(&writer.log().view()).map_err(message)?;
        if self.commits.last() != Some(&seen) {
            return Err(format!("after {step:?} the log holds something else"));
        }
        self.note_span(&format!("{step:?}"), durable..=self.commits.len() - 1, true);
        Ok(())
    }

    fn operate(&mut self, step: &Step) -> Result<(), LogError> {
        match step {
            Step::Append(lens) => return self.append(lens),
            Step::Halves(lens) => return self.append_halves(*lens),
            Step::Abandon(lens) => return self.abandon(lens),
            Step::Free(places) => return self.free(places),
            Step::Sync => {
                if let Some(writer) = &mut self.writer {
                    writer.mend()?;
                    writer.log().sync(writer.end())?;
                }
                self.durable = self.commits.len() - 1;
            }
            Step::Checkpoint => {
                if let Some(writer) = &mut self.writer {
                    let (begin_event, bytes) = (self.disk.event_count(), writer.checkpoint()?);
                    let end_event = self.disk.event_count();
                    self.checkpoints.push(Checkpoint { bytes, begin_event, end_event });
                }
                self.durable = self.commits.len() - 1;
            }
            Step::Rebase => {
                if let Some(writer) = &mut self.writer {
                    writer.rebase()?;
                }
                self.durable = self.commits.len() - 1;
            }
            Step::Cut => {
                if let Some(writer) = &mut self.writer {
                    writer.cut()?;
                }
            }
            Step::Reopen | Step::Shorten => {
                if let Some(mut writer) = self.writer.take() {
                    writer.close()?;
                    if matches!(step, Step::Shorten) {
                        shorten(&writer)?;
                    }
                }
                self.durable = self.commits.len() - 1;
                self.open()?;
            }
            Step::Kill => self.kill()?,
            Step::SyncFails => {
                if let Some(writer) = &mut self.writer {
                    writer.mend()?;
                    fail_a_sync(&self.disk, &writer.log(), writer.end());
                }
                self.kill()?;
            }
            Step::SyncFailsWithin(lens) => {
                self.fail_within(*lens)?;
                self.kill()?;
            }
        }
        Ok(())
    }

    fn kill(&mut self) -> Result<(), LogError> {
        self.disk = self.disk.kill();
        self.writer = None;
        self.open()
    }

    fn noise(&mut self, lens: &[usize]) -> Vec<Vec<u8>> {
        let mut entry = |len: &usize| {
            let mut bytes = vec![0; *len];
            self.random.fill(&mut bytes);
            bytes
        };
        lens.iter().map(&mut entry).collect()
    }

    fn append(&mut self, lens: &[usize]) -> Result<(), LogError> {
        let appended = self.noise(lens);
        let slices: Vec<&[u8]> = appended.iter().map(Vec::as_slice).collect();
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let addresses = writer.append(&slices)?;
        self.note_commit(&addresses, appended);
        Ok(())
    }

    fn append_halves(&mut self, lens: [usize; 2]) -> Result<(), LogError> {
        let appended = self.noise(&lens);
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let log = writer.log();
        let mut commit = writer.begin()?;
        let mut addresses = commit.append(&log.pack(&[&appended[0]])?)?;
        log.file().sync_data().map_err(failed("sync"))?;
        addresses.extend(commit.append(&log.pack(&[&appended[1]])?)?);
        commit.finish(Room::Exact)?;
        self.note_commit(&addresses, appended);
        Ok(())
    }

    fn fail_within(&mut self, lens: [usize; 2]) -> Result<(), LogError> {
        let appended = self.noise(&lens);
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.mend()?;
        let (log, before) = (writer.log(), writer.end());
        let mut commit = writer.begin()?;
        let mut addresses = commit.append(&log.pack(&[&appended[0]])?)?;
        fail_a_sync(&self.disk, &log, before);
        let second_half = log.pack(&[&appended[1]])?;
        let finished = commit.append(&second_half).and_then(|second_half| {
            addresses.extend(second_half);
            commit.finish(Room::Exact)
        });
        match finished {
            Ok(_) => self.note_commit(&addresses, appended),
            Err(LogError::SyncFailed { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn note_commit(&mut self, addresses: &[EntryAddress], appended: Vec<Vec<u8>>) {
        let Some(writer) = &self.writer else { return };
        let segments = writer.log().view().segments();
        let sequence_of =
            |slot| segments.iter().find(|one| one.slot == slot).map(|one| one.sequence);
        let sequences = addresses.iter().filter_map(|address| sequence_of(address.slot));
        let mut entries = self.commits.last().cloned().unwrap_or_default();
        entries.extend(sequences.zip(appended));
        self.commits.push(entries);
    }

    /// Writes a commit but for its end.
    fn abandon(&mut self, lens: &[usize]) -> Result<(), LogError> {
        let abandoned = self.noise(lens);
        let slices: Vec<&[u8]> = abandoned.iter().map(Vec::as_slice).collect();
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let packed = writer.log().pack(&slices)?;
        writer.begin()?.append(&packed).map(drop)
    }

    fn full_count(&self) -> usize {
        let segments = self.writer.as_ref().map(|writer| writer.log().view().segments());
        segments.map_or(0, |segments| segments.iter().filter(|one| one.is_sealed).count())
    }

    /// Frees the full segments that stand at these places among them.
    fn free(&mut self, places: &[usize]) -> Result<(), LogError> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let segments = writer.log().view().segments();
        let full: Vec<_> = segments.iter().filter(|segment| segment.is_sealed).collect();
        let chosen: Vec<_> = places.iter().filter_map(|place| full.get(*place)).collect();
        let slots: Vec<u32> = chosen.iter().map(|segment| segment.slot).collect();
        let gone: BTreeSet<u64> = chosen.iter().map(|segment| segment.sequence).collect();
        writer.free(&slots)?;
        let mut entries = self.commits.last().cloned().unwrap_or_default();
        entries.retain(|(sequence, _)| !gone.contains(sequence));
        self.commits.push(entries);
        Ok(())
    }
}

/// Where there is nothing to sync, nothing fails.
fn fail_a_sync(disk: &SimDisk, log: &Log, upto: Position) {
    disk.set_fault(Some(FAILED_SYNC));
    let _ = log.sync(upto);
    disk.set_fault(None);
}

/// Cuts the file where its log ends, if that is in the file's last page.
fn shorten(writer: &LogWriter) -> Result<(), LogError> {
    let (log, end) = (writer.log(), writer.end());
    let segments = log.view().segments();
    let Some(tail) = segments.iter().find(|one| one.sequence == end.sequence) else {
        return Ok(());
    };
    let end = slot_start(tail.slot, SLOT_BYTES) + u64::from(end.offset);
    if log.file_bytes()?.saturating_sub(end) < PAGE_BYTES {
        log.file().set_len(end).map_err(failed("cut"))?;
        log.file().sync_all().map_err(failed("sync"))?;
    }
    Ok(())
}

fn failed(action: &'static str) -> impl FnOnce(io::Error) -> LogError {
    move |cause| LogError::Io { action, cause }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn message(error: LogError) -> String {
    error.to_string()
}
