//! Reading the segments one after another, and what is known only once all are read.

use std::collections::BTreeSet;

use zkv_io::StorageFile;

use crate::codec::Decoder;
use crate::dictionary::Interner;
use crate::error::Result;
use crate::header::FileHeader;
use crate::layout::{FILE_HEADER_BYTES, FILE_HEADER_FIELD_BYTES, FILE_HEADER_PAGE};
use crate::position::Position;
use crate::segment::SegmentId;
use crate::slots::Slots;

use super::segment::SegmentCheck;
use super::{LogFinding, LogVerifier, LogVisitor, Severity, VerifiedLog};

/// What the segments read so far have told.
pub(super) struct Run<'a> {
    pub verifier: &'a LogVerifier,
    pub visitor: &'a mut dyn LogVisitor,
    pub decoder: Decoder,
    pub interner: Interner,
    pub counts: VerifiedLog,
    /// The number of the last commit; `None` where it cannot be told.
    pub last_commit: Option<u64>,
    /// Roll calls and retirements of the commit that is being read.
    pub pending: Pending,
    /// Where the roll calls stand.
    pub roll_calls: BTreeSet<Position>,
    pub newest_roll_call: Option<RollCall>,
    pub retired: BTreeSet<SegmentId>,
    /// Headers that name a roll call, and where in the file they stand.
    pub named_roll_calls: Vec<(u64, Position)>,
    /// Sequences of segments with a damaged block.
    pub damaged: BTreeSet<u64>,
}

/// What counts once its commit does.
#[derive(Default)]
pub(super) struct Pending {
    pub roll_call: Option<RollCall>,
    pub retired: Vec<SegmentId>,
    /// A block of the commit is damaged.
    pub is_damaged: bool,
}

pub(super) struct RollCall {
    pub position: Position,
    /// In the file.
    pub offset: u64,
    pub members: BTreeSet<SegmentId>,
}

impl<'a> Run<'a> {
    pub(super) fn new(verifier: &'a LogVerifier, visitor: &'a mut dyn LogVisitor) -> Self {
        Self {
            verifier,
            visitor,
            decoder: Decoder::new(),
            interner: Interner::default(),
            counts: VerifiedLog {
                is_checkpoint_right: verifier.checkpoint.as_ref().map(|_| true),
                ..VerifiedLog::default()
            },
            last_commit: Some(0),
            pending: Pending::default(),
            roll_calls: BTreeSet::new(),
            newest_roll_call: None,
            retired: BTreeSet::new(),
            named_roll_calls: Vec::new(),
            damaged: BTreeSet::new(),
        }
    }

    pub(super) fn finding(&mut self, offset: u64, what: &'static str, severity: Severity) {
        // What a read that failed was after may be as it should be.
        if !self.verifier.file.has_failed() {
            self.visitor.finding(LogFinding { offset, what, severity });
        }
    }

    pub(super) fn all(mut self) -> Result<VerifiedLog> {
        self.verifier.check_reads()?;
        for finding in &self.verifier.findings {
            self.visitor.finding(*finding);
        }
        self.check_file_header();
        let mut before = 0;
        for (sequence, member) in &self.verifier.members {
            if Some(before) != sequence.checked_sub(1) {
                // The segments between were freed, with their commits.
                self.last_commit = None;
                self.pending = Pending { is_damaged: true, ..Pending::default() };
            }
            before = *sequence;
            let bytes = SegmentCheck::new(&mut self, *member).all();
            self.counts.segments += 1;
            self.counts.bytes += bytes;
            self.verifier.check_reads()?;
            self.visitor.done(bytes);
        }
        self.check_roll_calls();
        self.check_sealed_segments();
        if !self.verifier.is_live {
            self.check_strays();
        }
        self.verifier.check_reads()?;
        Ok(self.counts)
    }

    fn check_file_header(&mut self) {
        let mut page = [0; FILE_HEADER_PAGE];
        if self.verifier.file.read_at(0, &mut page).is_err() {
            return self.finding(0, "the file's header cannot be read", Severity::Mendable);
        }
        self.counts.bytes += FILE_HEADER_BYTES;
        let first = self.verifier.members.get(&1).map(|member| member.place.id.nonce);
        let is_right = FileHeader::decode(&page).is_ok_and(|header| {
            header.identity == self.verifier.identity
                && first.is_none_or(|nonce| nonce == header.first_nonce)
                && header.encode()[..FILE_HEADER_FIELD_BYTES] == page[..FILE_HEADER_FIELD_BYTES]
        });
        if !is_right {
            self.finding(
                0,
                "the file's header, which the first segment repeats",
                Severity::Mendable,
            );
        }
        self.check_zeros(0, &page, FILE_HEADER_FIELD_BYTES, "the zeros behind the file's header");
    }

    /// Holds the bytes from `from` on against the zeros that they should be; `bytes` stand at
    /// `start` in the file.
    pub(super) fn check_zeros(
        &mut self,
        start: u64,
        bytes: &[u8],
        from: usize,
        what: &'static str,
    ) {
        let zeros = bytes.get(from..).unwrap_or(&[]);
        if let Some(at) = zeros.iter().position(|byte| *byte != 0) {
            self.finding(start + (from + at) as u64, what, Severity::Mendable);
        }
    }

    /// The newest roll call names the segments that there are, but for those freed since.
    fn check_roll_calls(&mut self) {
        if let Some(newest) = self.newest_roll_call.take() {
            let members = &self.verifier.members;
            let is_member = |id: &SegmentId| {
                members.get(&id.sequence).is_some_and(|member| member.place.id == *id)
            };
            let all_there =
                newest.members.iter().all(|id| is_member(id) || self.retired.contains(id));
            let before = members.range(..newest.position.sequence);
            let all_called =
                before.map(|(_, member)| member.place.id).all(|id| newest.members.contains(&id));
            if !all_there {
                let what = "a segment that the newest roll call names is missing";
                self.finding(newest.offset, what, Severity::Loss);
            } else if !all_called {
                let what = "the newest roll call lacks a segment";
                self.finding(newest.offset, what, Severity::Loss);
            }
        }
        for (offset, roll_call) in std::mem::take(&mut self.named_roll_calls) {
            let is_readable = self.verifier.members.contains_key(&roll_call.sequence)
                && !self.damaged.contains(&roll_call.sequence);
            if is_readable && !self.roll_calls.contains(&roll_call) {
                let what = "a segment's header names a roll call that is none";
                self.finding(offset, what, Severity::Mendable);
            }
        }
    }

    /// Only the last segment has no seal.
    fn check_sealed_segments(&mut self) {
        let members = &self.verifier.members;
        let Some(last) = members.keys().next_back().copied() else { return };
        let unsealed = members
            .range(..last)
            .find(|(_, member)| matches!(member.end, super::End::Tail(_)))
            .map(|(_, member)| member.place.start);
        if let Some(start) = unsealed {
            self.finding(
                start,
                "a segment that is not full, with others behind it",
                Severity::Loss,
            );
        }
    }

    /// Segments that were begun by a commit that was never finished.
    fn check_strays(&mut self) {
        let verifier = self.verifier;
        let members = &verifier.members;
        let Some(last) = members.keys().next_back().copied() else { return };
        let used: BTreeSet<u32> = members.values().map(|member| member.place.id.slot).collect();
        let slots = 0..verifier.identity.slot_count(verifier.file_bytes);
        let found = Slots::new(&*verifier.file, &verifier.identity);
        for slot in slots.filter(|slot| !used.contains(slot)) {
            let header = found.header_at_start(slot);
            if header.is_some_and(|header| last < header.sequence) {
                let what =
                    "a segment of a commit that was never finished; writes to come clear it away";
                self.finding(verifier.identity.slot_start(slot), what, Severity::Notice);
            }
        }
    }
}
