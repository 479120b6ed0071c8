//! One commit: blocks that belong together, whole after a crash or absent.

use std::sync::{Arc, PoisonError, Weak};

use crate::block::{BlockKind, Tag, put_block};
use crate::checkpoint::CheckpointDictionary;
use crate::codec::Encoder;
use crate::dictionary::Dictionary;
use crate::error::{LogError, Result};
use crate::header::{SegmentHeader, base_roll_call};
use crate::layout::{
    BLOCK_HEADER_BYTES, CELL_BYTES, COMMIT_BYTES, DICTIONARIES_MAX, MEMBER_BYTES, PAGE_BYTES,
    SEGMENT_HEADER_BYTES, seal_offset,
};
use crate::mark::CommitMark;
use crate::pack::Packed;
use crate::position::{EntryAddress, Location, Position};
use crate::reclaim::FreeSlot;
use crate::seal::Seal;
use crate::segment::{Place, Segment, SegmentId};
use crate::sync::atomic::Ordering;
use crate::walk::Chain;
use crate::writer::{Committed, LogWriter, Repair, Room, Tail};

/// A block of as many members takes half of the smallest slot.
pub(crate) const MEMBERS_PER_BLOCK: usize = 32 * 1024 / MEMBER_BYTES;

/// A commit in the making. See [`LogWriter::begin`].
#[derive(Debug)]
pub struct Commit<'a> {
    writer: &'a mut LogWriter,
    /// Where the log ends with this commit; the writer's own tail stays behind until the end.
    tail: Tail,
    slot_count: u32,
    /// Blocks that stand at the tail and are not written yet.
    buffer: Vec<u8>,
    /// Segments that this commit has filled up, and those that it has begun.
    sealed: Vec<Arc<Segment>>,
    begun: Vec<Arc<Segment>>,
    begun_slots: Vec<u32>,
    /// Where the file ended before it.
    file_end: u64,
    is_end_mark: bool,
    has_written: bool,
    /// Whether a part of it could not be put in: what is there is not all that belongs together.
    is_failed: bool,
    is_finished: bool,
}

impl<'a> Commit<'a> {
    pub(crate) fn new(writer: &'a mut LogWriter) -> Self {
        let (tail, slot_count, file_end) =
            (writer.tail.clone(), writer.slot_count, writer.file_end);
        Self {
            writer,
            tail,
            slot_count,
            buffer: Vec::new(),
            sealed: Vec::new(),
            begun: Vec::new(),
            begun_slots: Vec::new(),
            file_end,
            is_end_mark: false,
            has_written: false,
            is_failed: false,
            is_finished: false,
        }
    }

    /// Appends packed entries, and returns where each of them is. Where that fails, the commit has come to
    /// nothing: it takes no more, and [`Commit::finish`] refuses it.
    ///
    /// # Errors
    /// [`LogError::Io`], and [`LogError::CommitFailed`] behind an earlier failure.
    pub fn append(&mut self, packed: &Packed) -> Result<Vec<EntryAddress>> {
        self.or_fail(|commit| commit.append_blocks(packed, |_, address| Some(address)))
    }

    /// Does a part of the commit. It is whole or absent, so none that lacks a part may be finished.
    fn or_fail<T>(&mut self, part: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.is_failed {
            return Err(LogError::CommitFailed);
        }
        let done = part(self);
        self.is_failed = done.is_err();
        done
    }

    /// Keeps of each address what `of` makes of it: an address takes three times what a location does.
    fn append_blocks<T>(
        &mut self,
        packed: &Packed,
        of: impl Fn(&LogWriter, EntryAddress) -> Option<T>,
    ) -> Result<Vec<T>> {
        let mut places = Vec::with_capacity(packed.entry_count);
        for chunk in &packed.chunks {
            let mut start = 0;
            for block in &chunk.blocks {
                let payload = &chunk.payloads[start..block.end];
                start = block.end;
                let dictionary = packed.dictionary.as_ref().filter(|_| block.with_dictionary);
                let offset = self.put_entries(block.kind, payload, dictionary)?;
                let SegmentId { sequence, slot, .. } = self.tail.segment.id();
                for ordinal in 0..block.entry_count {
                    let address = EntryAddress { sequence, slot, offset, ordinal };
                    places.push(of(self.writer, address).ok_or(LogError::CheckpointMismatch)?);
                }
            }
        }
        Ok(places)
    }

    /// As [`Commit::append`], with the locations by which an index finds the entries again.
    ///
    /// # Errors
    /// As [`Commit::append`].
    pub fn append_located(&mut self, packed: &Packed) -> Result<Vec<Location>> {
        // Cell 0 of a slot is its segment's header, so no block starts there.
        let location = |writer: &LogWriter, at: EntryAddress| writer.location(at.slot, at.offset);
        self.or_fail(|commit| commit.append_blocks(packed, location))
    }

    fn put_entries(
        &mut self,
        kind: BlockKind,
        payload: &[u8],
        dictionary: Option<&Arc<Dictionary>>,
    ) -> Result<u32> {
        let Some(dictionary) = dictionary else {
            return self.put(Tag { kind, number: 0 }, &[payload]);
        };
        // The room for the block is made first: a new segment needs the dictionary again.
        self.make_room(payload.len())?;
        let number = match self.dictionary_number(dictionary) {
            Some(number) => number,
            None => self.put_dictionary(dictionary, payload.len())?,
        };
        self.put(Tag { kind, number }, &[payload])
    }

    fn dictionary_number(&self, dictionary: &Arc<Dictionary>) -> Option<u8> {
        let digest = dictionary.digest();
        let shared = &self.writer.shared;
        // Where its block is damaged, nothing more is written that would need it.
        let is_readable = |number| {
            let named = self.tail.segment.dictionary_name(&*shared.file, &shared.interner, number);
            named.is_ok_and(|named| named.digest == *digest)
        };
        // The newest one first, since it is there because an older one is damaged.
        let known = self.tail.dictionaries.iter().enumerate().rev();
        let alike = known.filter(|(_, known)| known.digest == *digest);
        let mut numbers = alike.filter_map(|(place, _)| u8::try_from(place + 1).ok());
        numbers.find(|number| is_readable(*number))
    }

    /// Repeats the dictionary in this segment, where there is room for it and `payload_bytes` more.
    fn put_dictionary(&mut self, dictionary: &Arc<Dictionary>, payload_bytes: usize) -> Result<u8> {
        const LEVEL: i32 = 9; // Once a segment: 2 % smaller than level 3 for a millisecond more.
        let mut encoder = Encoder::new(LEVEL);
        let frame = encoder.frame(dictionary.bytes(), None).ok_or(LogError::Zstd)?;
        let digest = dictionary.digest();
        let both = frame.len() + digest.len() + payload_bytes + BLOCK_HEADER_BYTES as usize;
        if self.tail.dictionaries.len() == DICTIONARIES_MAX {
            self.roll_over()?;
        } else {
            self.make_room(both)?;
        }
        let number = u8::try_from(self.tail.dictionaries.len() + 1).unwrap_or(0);
        let offset = self.put(Tag { kind: BlockKind::Dictionary, number }, &[digest, frame])?;
        self.tail.segment.set_dictionary(number, Arc::clone(dictionary));
        let digest = *digest;
        self.tail.dictionaries.push(CheckpointDictionary { offset, digest });
        Ok(number)
    }

    /// Writes a roll call or a retire entry, in as many blocks as it takes, and returns where the
    /// first stands.
    pub(crate) fn put_members(
        &mut self,
        kind: BlockKind,
        members: &[SegmentId],
    ) -> Result<Position> {
        let (first, rest) = members.split_at(members.len().min(MEMBERS_PER_BLOCK));
        self.or_fail(|commit| {
            let position = commit.put_member_block(kind, first)?;
            for members in rest.chunks(MEMBERS_PER_BLOCK) {
                commit.put_member_block(kind, members)?;
            }
            Ok(position)
        })
    }

    fn put_member_block(&mut self, kind: BlockKind, members: &[SegmentId]) -> Result<Position> {
        let mut payload = Vec::with_capacity(members.len() * MEMBER_BYTES);
        for member in members {
            payload.extend(member.slot.to_le_bytes());
            payload.extend(member.sequence.to_le_bytes());
            payload.extend(member.nonce.to_le_bytes());
        }
        let offset = self.put(Tag { kind, number: 0 }, &[&payload])?;
        Ok(Position { sequence: self.tail.segment.place.id.sequence, offset })
    }

    /// The segments that it has begun.
    pub(crate) fn begun(&self) -> impl Iterator<Item = SegmentId> + '_ {
        self.begun.iter().map(|segment| segment.id())
    }

    /// Makes this commit an end mark.
    pub(crate) fn mark_end(&mut self) {
        self.is_end_mark = true;
    }

    fn put(&mut self, tag: Tag, payload: &[&[u8]]) -> Result<u32> {
        self.make_room(payload.iter().map(|part| part.len()).sum())?;
        let offset = self.tail.offset;
        let seed = match tag.kind {
            BlockKind::EntriesRaw | BlockKind::EntriesZstd if tag.number > 0 => {
                let known = &self.tail.dictionaries[usize::from(tag.number) - 1];
                self.tail.segment.place.seed.with_dictionary(&known.digest)
            }
            _ => self.tail.segment.place.seed,
        };
        let before = self.buffer.len();
        put_block(&mut self.buffer, seed, offset, tag, payload);
        self.advance(before);
        if self.buffer.len() >= self.writer.write_buffer_bytes {
            self.write_buffer()?;
        }
        Ok(offset)
    }

    /// Notes the block at the tail that was put into the buffer at `start`.
    fn advance(&mut self, start: usize) {
        let block = &self.buffer[start..];
        let block_bytes = block.len();
        if let Some(checksum) = block.first_chunk() {
            self.tail.chain = self.tail.chain.and(u32::from_le_bytes(*checksum));
        }
        let offset = self.tail.offset;
        if offset / CELL_BYTES != self.tail.last_cell {
            self.tail.last_cell = offset / CELL_BYTES;
            self.tail.segment.note_block(offset);
        }
        self.tail.block_count += 1;
        // `make_room` has found that the block fits the slot.
        self.tail.offset += u32::try_from(block_bytes).unwrap_or(0);
    }

    fn make_room(&mut self, payload_bytes: usize) -> Result<()> {
        let end = self.tail.offset as usize + BLOCK_HEADER_BYTES as usize + payload_bytes;
        let limit = seal_offset(self.tail.segment.place.slot_bytes) as usize;
        if end <= limit {
            return Ok(());
        }
        let fresh = (SEGMENT_HEADER_BYTES + BLOCK_HEADER_BYTES) as usize + payload_bytes;
        if fresh > limit {
            let max = limit - (SEGMENT_HEADER_BYTES + BLOCK_HEADER_BYTES) as usize;
            return Err(LogError::EntryTooLarge { bytes: payload_bytes, max });
        }
        self.roll_over()
    }

    fn write_buffer(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.has_written = true;
        let end = self.tail.segment.place.start + u64::from(self.tail.offset);
        let start = end - self.buffer.len() as u64;
        self.writer.write(start, &self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    /// Seals the tail's segment and begins the next one.
    ///
    /// A crash that keeps the seal and not the next header finds the log's end at the last commit;
    /// one that keeps the header and not the seal never reaches that segment, and wipes it.
    fn roll_over(&mut self) -> Result<()> {
        let (slot, slot_count) = self.writer.take_slot(self.slot_count);
        self.begin_segment(slot, slot_count, false)
    }

    /// Seals the tail's segment and begins one that opens with a roll call, which comes next.
    pub(crate) fn begin_base(&mut self) -> Result<()> {
        let (slot, slot_count) = self.writer.take_forgotten_slot(self.slot_count);
        self.or_fail(|commit| commit.begin_segment(slot, slot_count, true))
    }

    fn begin_segment(&mut self, slot: u32, slot_count: u32, is_base: bool) -> Result<()> {
        let known_slots = std::mem::replace(&mut self.slot_count, slot_count);
        // Before anything is written there, so that whatever fails, the slot is not forgotten.
        self.begun_slots.push(slot);
        self.write_buffer()?;
        self.has_written = true;
        let mut nonce = [0; 8];
        self.writer.storage.random(&mut nonce).map_err(LogError::io("draw a nonce for"))?;
        let old = Arc::clone(&self.tail.segment);
        let id = SegmentId {
            sequence: old.place.id.sequence + 1,
            slot,
            nonce: u64::from_le_bytes(nonce),
        };
        self.write_seal(id)?;
        // Where that is not durable yet, a cut leaves a slot as it was.
        let is_used_again =
            slot < known_slots || self.writer.shared.may_be_longer.load(Ordering::SeqCst);
        let segment = if is_base {
            // Whoever starts at its roll call finds nothing else proven.
            self.writer.log().sync_again(self.writer.end())?;
            self.writer.write_segment_header(id, base_roll_call(id.sequence))?
        } else {
            self.writer.note_durable_roll_call();
            let roll_call = self.writer.roll_call.durable;
            let segment = self.writer.write_segment_header(id, roll_call)?;
            if is_used_again {
                // The slot's old header may lead a reader of the log alone to the segment that was
                // here. Before that one is overwritten, the new header must lead it to the roll call.
                self.writer.log().sync_again(self.writer.end())?;
            }
            segment
        };
        let segment = Arc::new(segment);
        self.sealed.push(Arc::new(old.to_sealed(self.tail.offset)));
        self.begun.push(Arc::clone(&segment));
        self.tail = Tail {
            segment,
            offset: SEGMENT_HEADER_BYTES,
            last_cell: 0,
            block_count: 0,
            dictionaries: Vec::new(),
            chain: Chain::default(),
        };
        Ok(())
    }

    fn write_seal(&mut self, next: SegmentId) -> Result<()> {
        let segment = &self.tail.segment;
        let file = &*self.writer.shared.file;
        let mut bytes = vec![0; self.tail.offset as usize];
        file.read_at(segment.place.start, &mut bytes).map_err(LogError::io("read"))?;
        // Where the header was damaged, the seal repeats what is known of it.
        let header = self.writer.header_in(&bytes, segment.place.id);
        let header = header.unwrap_or_else(|| self.writer.segment_header(segment.place.id));
        let mut cells = segment.growing_cells(self.tail.offset);
        cells.resize((segment.place.slot_bytes / CELL_BYTES) as usize, 0);
        let seal = Seal {
            data_end: self.tail.offset,
            block_count: self.tail.block_count,
            last_commit: self.writer.last_commit,
            synced_upto: self.writer.log().synced_upto(),
            next_slot: next.slot,
            next_nonce: next.nonce,
            digest: *blake3::hash(&bytes).as_bytes(),
            dictionary_offsets: self.tail.dictionary_offsets(),
            header,
            cells,
        };
        let offset = segment.place.start + u64::from(seal_offset(segment.place.slot_bytes));
        let block = seal.encode_block(segment.place.seed);
        self.writer.write(offset, &block)
    }

    /// Ends the commit: it is in the operating system's hands when this returns, visible in the
    /// views taken from now on, and durable after [`crate::Log::sync`].
    ///
    /// # Errors
    /// [`LogError::Io`], and [`LogError::CommitFailed`] where a part of the commit could not be appended;
    /// the commit is then undone.
    pub fn finish(mut self, room: Room) -> Result<Committed> {
        if self.is_failed {
            return Err(LogError::CommitFailed);
        }
        self.make_room(COMMIT_BYTES)?;
        let number = self.writer.last_commit + u64::from(!self.is_end_mark);
        let mark = CommitMark { chain: self.tail.chain, ..self.writer.mark(number) };
        let before = self.buffer.len();
        let place = &self.tail.segment.place;
        mark.put(&mut self.buffer, place, self.tail.offset, self.is_end_mark);
        let checksum =
            self.buffer[before..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        self.advance(before);
        self.write_last(room)?;
        self.publish(number, checksum);
        Ok(Committed { number, end: self.writer.end() })
    }

    /// Writes what is left, and the room behind it, in one call.
    fn write_last(&mut self, room: Room) -> Result<()> {
        let segment = &self.tail.segment;
        let end = segment.place.start + u64::from(self.tail.offset);
        let written = self.buffer.len();
        if end > self.writer.file_end || self.is_end_mark {
            let slot_end = segment.place.start + u64::from(segment.place.slot_bytes);
            let ahead = match room {
                Room::Ahead => self.writer.next_window(end, slot_end),
                Room::Exact => 0,
            };
            // Slots end with a page.
            let filled = (end + ahead as u64).next_multiple_of(PAGE_BYTES);
            self.buffer.resize(written + usize::try_from(filled - end).unwrap_or(0), 0);
        }
        self.has_written = true;
        let start = end - written as u64;
        self.writer.write(start, &self.buffer)?;
        self.writer.written_bytes -= (self.buffer.len() - written) as u64;
        Ok(())
    }

    fn publish(&mut self, number: u64, checksum: u32) {
        self.is_finished = true;
        let writer = &mut *self.writer;
        self.tail.segment.publish(self.tail.offset);
        for segment in &self.begun {
            writer.members.insert(segment.place.id.sequence, Arc::clone(segment));
        }
        for segment in &self.sealed {
            writer.members.insert(segment.place.id.sequence, Arc::clone(segment));
        }
        writer.tail = self.tail.clone();
        writer.slot_count = self.slot_count;
        writer.last_commit = number;
        writer.last_commit_checksum = checksum;
        writer.is_ended = false;
        let mut finished =
            writer.shared.finished_upto.lock().unwrap_or_else(PoisonError::into_inner);
        *finished = writer.end();
        drop(finished);
        if !self.begun.is_empty() {
            writer.publish_segments();
        }
    }
}

impl Drop for Commit<'_> {
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        if !self.has_written {
            self.writer.renew_tail();
            return;
        }
        // A slot that was free is free again, once its stray header is wiped.
        let reused = self.begun_slots.iter().filter(|slot| **slot < self.writer.slot_count);
        let free = reused.map(|slot| FreeSlot {
            slot: *slot,
            usable_after: Position::default(),
            readers: Weak::new(),
        });
        self.writer.free.extend(free);
        self.writer.repair = Some(Repair {
            stray_slots: std::mem::take(&mut self.begun_slots),
            headerless_slots: Vec::new(),
            unproven: None,
            renew_tail: true,
            file_end: Some(self.file_end),
        });
        // At once, since a crash would find it whole where only its end was refused. What cannot be
        // wiped now is wiped before the next commit.
        let _ = self.writer.mend();
    }
}

impl LogWriter {
    fn write_segment_header(&mut self, id: SegmentId, roll_call: Position) -> Result<Segment> {
        let header = SegmentHeader { roll_call, ..self.segment_header(id) };
        let cell = header.encode_cell();
        let place = Place::new(&self.shared.identity, id);
        self.wipe_torn_seal(&place)?;
        self.write(place.start, &cell)?;
        Ok(Segment::growing(place, SEGMENT_HEADER_BYTES, &[]))
    }

    /// Writes bytes of the log.
    fn write(&mut self, start: u64, bytes: &[u8]) -> Result<()> {
        self.shared.file.write_at(start, bytes).map_err(LogError::io("write"))?;
        self.file_end = self.file_end.max(start + bytes.len() as u64);
        self.written_bytes += bytes.len() as u64;
        Ok(())
    }

    /// The header of the segment `id`, where `bytes` start with it.
    pub(crate) fn header_in(&self, bytes: &[u8], id: SegmentId) -> Option<SegmentHeader> {
        let header = SegmentHeader::decode(bytes).ok()?;
        (header.id() == id && header.identity == self.shared.identity).then_some(header)
    }

    pub(crate) fn segment_header(&self, id: SegmentId) -> SegmentHeader {
        SegmentHeader {
            identity: self.shared.identity.clone(),
            sequence: id.sequence,
            slot: id.slot,
            nonce: id.nonce,
            roll_call: self.roll_call.durable,
            synced_upto: self.log().synced_upto(),
        }
    }
}
