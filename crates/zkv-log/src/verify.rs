//! Reading a whole log to find out what is wrong with it.
//!
//! It goes on after damage, and reads a log that cannot be recovered, too. Every byte is read from
//! the file, none through a map, so that what cannot be read is a finding like any other; unless it may be there,
//! and could not be read this time: then nothing can be said of it, and the whole fails.

mod block;
mod end;
#[cfg(test)]
mod forged;
mod members;
mod run;
mod segment;

use std::collections::BTreeMap;
use std::sync::Arc;

use zkv_io::Reads;

use crate::checkpoint::LogCheckpoint;
use crate::error::{LogError, Result};
use crate::header::Identity;
use crate::log::SegmentList;
use crate::open::OpenFile;
use crate::position::{Location, Position};
use crate::segment::Place;

use self::run::Run;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Severity {
    /// No damage, but worth knowing: what a crash has left behind, and what the next write clears
    /// away.
    Notice,
    /// Damaged, and derived from the rest or repeated there: no record is lost by it alone.
    Mendable,
    /// Records are lost, or what is there cannot be told.
    Loss,
}

/// One thing that is wrong with a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogFinding {
    /// Where, in bytes from the file's start.
    pub offset: u64,
    /// What it is. It never holds what an entry holds.
    pub what: &'static str,
    /// How bad it is.
    pub severity: Severity,
}

/// An entry of a block that is whole.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct VerifiedEntry<'a> {
    /// What the entry holds.
    pub bytes: &'a [u8],
    /// Where it is found again.
    pub location: Location,
    /// Where its block stands in the order of the log.
    pub position: Position,
    /// The slot of its segment.
    pub slot: u32,
    /// Where its block starts, in bytes from the file's start.
    pub offset: u64,
}

/// What is told of a log as it is read.
pub trait LogVisitor {
    /// Something is wrong.
    fn finding(&mut self, finding: LogFinding);

    /// An entry, in the order of the log.
    fn entry(&mut self, entry: &VerifiedEntry<'_>);

    /// So many more bytes are done.
    fn done(&mut self, bytes: u64);
}

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifiedLog {
    /// Segments of the log.
    pub segments: u64,
    /// Whole blocks of every kind, seals included.
    pub blocks: u64,
    /// Entries of those blocks.
    pub entries: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Whether the checkpoint says of the log what the log says; `None` where none was given that
    /// fits.
    pub is_checkpoint_right: Option<bool>,
}

/// A log that is about to be read from end to end. Made by [`OpenFile::verifier`] of a log that
/// need not be whole, or by [`LogView::verifier`](crate::LogView::verifier) of an open one.
pub struct LogVerifier {
    /// Through which the file was read to find out what there is to read, too.
    file: Arc<Reads>,
    identity: Identity,
    /// By sequence.
    members: BTreeMap<u64, Member>,
    /// Keeps the slots of an open log's segments from being used again.
    held: Arc<SegmentList>,
    /// An index's, where it fits the log.
    checkpoint: Option<LogCheckpoint>,
    /// Whether somebody may be writing behind the log's end.
    is_live: bool,
    file_bytes: u64,
    /// What was found before anything was read.
    findings: Vec<LogFinding>,
}

/// A segment of the log.
#[derive(Clone, Copy, Debug)]
struct Member {
    place: Place,
    end: End,
}

/// Where a segment's blocks end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// There, and a seal stands behind them.
    Sealed(u32),
    /// There, with the log's last commit.
    Tail(u32),
    /// Where the last whole block does.
    Unknown,
}

impl LogVerifier {
    /// Up to where the checkpoint that was given knows the log; `None` where none was, or it is of
    /// another log, or of a state that this log never had or has left behind.
    #[must_use]
    pub fn watermark(&self) -> Option<Position> {
        self.checkpoint.as_ref().map(|checkpoint| checkpoint.watermark)
    }

    /// The slots of all segments that were begun no later than `position`.
    pub fn slots_until(&self, position: Position) -> impl Iterator<Item = u32> + '_ {
        self.members.range(..=position.sequence).map(|(_, member)| member.place.id.slot)
    }

    /// The bytes of a slot.
    #[must_use]
    pub fn slot_bytes(&self) -> u32 {
        self.identity.slot_bytes
    }

    /// About how many bytes [`LogVerifier::run`] will report done.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let slot_bytes = u64::from(self.identity.slot_bytes);
        let all = self.members.len() as u64 * slot_bytes;
        all.min(self.file_bytes)
    }

    /// Reads the log.
    ///
    /// # Errors
    /// [`LogError::Io`] where a read fails though what it was after may be there, as for want of memory: the
    /// segment in which it does was told of in part, and nothing was found on the ground of it. It may be one that
    /// came before this call; another verifier has to be made then.
    pub fn run(&self, visitor: &mut dyn LogVisitor) -> Result<VerifiedLog> {
        Run::new(self, visitor).all()
    }

    /// Fails where nothing more can be said of the log.
    fn check_reads(&self) -> Result<()> {
        self.file.check().map_err(LogError::io("read"))
    }
}

impl OpenFile {
    /// Prepares for reading the whole log, in whatever state it is. With `checkpoint`, what an index
    /// keeps of the log (see [`LogWriter::checkpoint`](crate::LogWriter::checkpoint)) is held
    /// against it.
    ///
    /// Every bit that belongs to the log is held against something: headers with the zeros that
    /// fill them up, blocks, seals, the zeros behind the log's end. Not looked at are the gap between a
    /// segment's last block and its seal, which may hold bytes of an earlier segment, and slots that are
    /// free: through some of those, [`OpenFile::recover`] without a checkpoint may still lead.
    #[must_use]
    pub fn verifier(&self, checkpoint: Option<&[u8]>) -> LogVerifier {
        members::of_file(self, checkpoint)
    }
}

impl std::fmt::Debug for LogVerifier {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = formatter.debug_struct("LogVerifier");
        debug
            .field("segments", &self.members.len())
            .field("held", &self.held.by_slot.len())
            .finish_non_exhaustive()
    }
}
