//! What recovery hands over: the readers' log, the writer at its end, and what must be repaired
//! before the first append.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock, Weak};

use crate::checkpoint::CheckpointDictionary;
use crate::codec::DecoderPool;
use crate::dictionary::DictionaryPlace;
use crate::error::Result;
use crate::layout::{DICTIONARIES_MAX, PAGE_BYTES};
use crate::log::{Log, SegmentList, Shared};
use crate::open::{Access, Recovered};
use crate::pack::Packer;
use crate::position::Position;
use crate::reclaim::FreeSlot;
use crate::sampler::Scale;
use crate::segment::Segment;
use crate::sync::atomic::AtomicBool;
use crate::sync::{ArcSwap, Mutex};
use crate::turn::SyncTurns;
use crate::writer::{LogWriter, Repair, Tail, Unproven};

use super::{Leftover, Recovery, WalkedSegment};

impl Recovery<'_> {
    pub(super) fn finish(mut self, mut leftover: Leftover) -> Result<Recovered> {
        let end = self.end;
        // Segments that only an unfinished commit has begun are no part of the log.
        let beyond = self.members.split_off(&(end.position.sequence));
        leftover.stray_slots.extend(
            beyond
                .values()
                .map(|segment| segment.id())
                .filter(|id| id.sequence > end.position.sequence)
                .map(|id| id.slot),
        );
        let tail = match self.left_behind.take() {
            Some(left) => {
                leftover.stray_slots.push(self.walked.place.id.slot);
                leftover.needs_wipe = true;
                left
            }
            None => {
                let place = self.walked.place;
                std::mem::replace(&mut self.walked, WalkedSegment::new(place))
            }
        };
        let tail = self.tail(&tail)?;
        self.members.insert(end.position.sequence, Arc::clone(&tail.segment));
        // Before an end mark was written, all else was synced.
        let is_unproven = self.proven < end.position && !end.is_closed;
        let unproven = is_unproven.then(|| Unproven {
            from: self.proven,
            segments: self.segments_from(self.proven.sequence),
        });
        let repair = Repair {
            stray_slots: leftover.stray_slots,
            headerless_slots: leftover.headerless_slots,
            unproven,
            renew_tail: false,
            file_end: None,
        };
        // A torn write has ended it there, and what is written next could be hidden behind that end.
        let ends_within_page = !self.file_bytes.is_multiple_of(PAGE_BYTES);
        let clean = !leftover.needs_wipe
            && !ends_within_page
            && repair.stray_slots.is_empty()
            && !leftover.has_hidden_strays
            && repair.unproven.is_none();
        self.into_recovered(tail, (!clean).then_some(repair))
    }

    /// The log's segments from number `first` on, and those that were retired since: until a later
    /// header is durable, whoever reads the log alone walks through them.
    fn segments_from(&self, first: u64) -> Vec<Arc<Segment>> {
        let retired = self.retired.iter().filter(|segment| first <= segment.id().sequence);
        let members = self.members.range(first..).map(|(_, segment)| segment);
        retired.chain(members).cloned().collect()
    }

    fn tail(&self, walked: &WalkedSegment) -> Result<Tail> {
        let (place, end) = (walked.place, self.end);
        let offset = end.position.offset;
        // What an unfinished commit has put there is wiped, and may have begun in the end's own cell.
        let cells = &walked.contents.cells[..=end.last_cell as usize];
        let segment = Segment::growing(place, offset, cells);
        let mut known =
            walked.contents.dictionary_offsets.map(|at| if at < offset { at } else { 0 });
        // Numbers are given in order: behind a gap, none counts, and the writer may give it anew.
        let count = known.iter().take_while(|at| **at != 0).count();
        known[count..].fill(0);
        segment.set_contents(known);
        let named = known.iter().zip(walked.contents.dictionary_digests);
        let named = named.take_while(|(at, _)| **at != 0);
        let dictionaries = named
            .filter_map(|(at, digest)| Some(CheckpointDictionary { offset: *at, digest: digest? }));
        let dictionaries = dictionaries.collect();
        Ok(Tail {
            segment: Arc::new(segment),
            offset,
            last_cell: end.last_cell,
            block_count: end.block_count,
            dictionaries,
            chain: end.chain,
        })
    }

    /// The dictionary to go on with: the one used last. It is read when something is packed, since
    /// most openings only read.
    fn last_dictionary(&self, tail: &Tail) -> Result<Option<DictionaryPlace>> {
        let mut before = self.members.range(..tail.segment.id().sequence);
        let (segment, count) = match (tail.dictionaries.len(), before.next_back()) {
            (0, None) => return Ok(None),
            (0, Some((_, before))) => {
                let seal = before.read_seal(&*self.open.file)?;
                let offsets = seal.map_or([0; DICTIONARIES_MAX], |seal| seal.dictionary_offsets);
                (before, offsets.iter().take_while(|at| **at != 0).count())
            }
            (count, _) => (&tail.segment, count),
        };
        let number = u8::try_from(count).ok().filter(|number| *number > 0);
        Ok(number.map(|number| DictionaryPlace { segment: segment.id(), number }))
    }

    fn into_recovered(mut self, tail: Tail, repair: Option<Repair>) -> Result<Recovered> {
        let options = &self.open.options;
        let slot_bytes = self.open.identity.slot_bytes;
        let synced_upto = self.proven.min(self.end.position);
        let dictionary = match self.open.access {
            Access::ReadWrite => self.last_dictionary(&tail)?,
            Access::ReadOnly => None,
        };
        let packer = Packer::new(options, slot_bytes, dictionary, Scale::BESIDE_WRITES);
        let shared = Arc::new(Shared {
            file: Arc::clone(&self.open.file),
            map: Arc::clone(&self.open.map),
            identity: self.open.identity.clone(),
            segments: ArcSwap::from_pointee(SegmentList::new(self.members.values())),
            decoders: DecoderPool::new(options.parallel_reads_max as usize),
            packer,
            interner: std::mem::take(&mut self.interner),
            synced_upto: Mutex::new(synced_upto),
            is_sync_failed: AtomicBool::new(false),
            sync_failure: OnceLock::new(),
            may_be_longer: AtomicBool::new(true),
            finished_upto: Mutex::new(Position::default()),
            opened_upto: self.end.position,
            sync_turns: SyncTurns::default(),
        });
        let replay_from = self.replay_from;
        let writer = (self.open.access == Access::ReadWrite).then(|| LogWriter {
            shared: Arc::clone(&shared),
            storage: Arc::clone(&self.open.storage),
            free: self.free_slots(repair.is_some()),
            slot_count: self.slot_count(),
            last_commit: self.end.number,
            last_commit_checksum: self.end.checksum,
            is_ended: self.end.is_closed,
            is_mark_unproven: self.end.is_closed && self.proven < self.end.position,
            roll_call: self.roll_call,
            repair,
            file_end: self.file_bytes,
            window_bytes: 0,
            write_buffer_bytes: options.write_buffer_bytes as usize,
            written_bytes: 0,
            members: self.members.clone(),
            tail,
        });
        Ok(Recovered { log: Log { shared }, writer, replay_from })
    }
}

impl Recovery<'_> {
    /// Slots that no segment fills. Where the end must be repaired first, that makes both their
    /// retire entries durable and the headers of strays go.
    fn free_slots(&self, needs_repair: bool) -> Vec<FreeSlot> {
        let usable_after = if needs_repair { self.end.position } else { Position::default() };
        let used: HashSet<u32> = self.member_ids().map(|id| id.slot).collect();
        let slots = (0..self.slot_count()).filter(|slot| !used.contains(slot));
        slots.map(|slot| FreeSlot { slot, usable_after, readers: Weak::new() }).collect()
    }
}
