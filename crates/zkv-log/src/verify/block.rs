//! What a block that is whole holds.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::block::{BlockKind, END_MARK};
use crate::dictionary::Dictionary;
use crate::entries::Entries;
use crate::layout::{DICTIONARIES_MAX, DICTIONARY_BYTES_MAX, DICTIONARY_FIELD_BYTES, MEMBER_BYTES};
use crate::mark::{CommitMark, signed_segment};
use crate::position::Location;
use crate::recover::decode_members;
use crate::segment::Place;
use crate::walk::Block;

use super::run::{Pending, RollCall};
use super::segment::SegmentCheck;
use super::{Severity, VerifiedEntry};

impl SegmentCheck<'_, '_> {
    pub(super) fn check_block(&mut self, block: &Block<'_>) {
        match block.tag.kind {
            BlockKind::EntriesRaw | BlockKind::EntriesZstd => self.check_entries(block),
            BlockKind::Dictionary => self.check_dictionary(block),
            BlockKind::RollCall | BlockKind::Retire => self.check_members(block),
            BlockKind::Commit => self.check_commit(block),
            BlockKind::Seal => {
                self.finding(block.offset, "a seal among the blocks", Severity::Loss);
            }
        }
    }

    fn check_entries(&mut self, block: &Block<'_>) {
        let number = usize::from(block.tag.number);
        let dictionary = match number.checked_sub(1) {
            Some(number) => match &self.dictionaries[number] {
                Some(dictionary) => Some(Arc::clone(dictionary)),
                None => {
                    let what = "a block whose dictionary is damaged";
                    return self.finding(block.offset, what, Severity::Loss);
                }
            },
            None => None,
        };
        let payload = if block.tag.kind == BlockKind::EntriesZstd {
            let max = self.member.place.slot_bytes as usize;
            let decoder = &mut self.run.decoder;
            if decoder.decompress_frame(block.payload, dictionary.as_deref(), max).is_none() {
                let what = "a block that does not decompress";
                return self.finding(block.offset, what, Severity::Loss);
            }
            &self.run.decoder.payload[..]
        } else {
            block.payload
        };
        let entries: Option<Vec<&[u8]>> =
            Entries::parse(payload).ok().and_then(|entries| entries.collect::<Result<_, _>>().ok());
        let place = self.member.place;
        let location = Location::new(place.id.slot, block.offset, place.slot_bytes);
        let (Some(entries), Some(location)) = (entries, location) else {
            return self.finding(block.offset, "a block's entries", Severity::Loss);
        };
        let (position, offset) = (self.position(block.offset), self.at(block.offset));
        let slot = place.id.slot;
        for bytes in entries {
            self.run.counts.entries += 1;
            self.run.visitor.entry(&VerifiedEntry { bytes, location, position, slot, offset });
        }
    }

    fn check_dictionary(&mut self, block: &Block<'_>) {
        let number = usize::from(block.tag.number);
        let known = self.dictionaries.iter().flatten().count();
        let is_next = number == known + 1 || (self.is_damaged && number > 0);
        let dictionary = self.load_dictionary(block.payload);
        match dictionary {
            Some(dictionary) if is_next && number <= DICTIONARIES_MAX => {
                self.dictionaries[number - 1] = Some(dictionary);
            }
            _ => self.finding(block.offset, "a dictionary", Severity::Loss),
        }
    }

    fn load_dictionary(&mut self, payload: &[u8]) -> Option<Arc<Dictionary>> {
        let (digest, frame) = payload.split_first_chunk::<DICTIONARY_FIELD_BYTES>()?;
        let decoder = &mut self.run.decoder;
        decoder.decompress_frame(frame, None, DICTIONARY_BYTES_MAX)?;
        if blake3::hash(&decoder.payload).as_bytes() != digest {
            return None;
        }
        if let Some(known) = self.run.interner.get(digest) {
            return Some(known);
        }
        let dictionary = Dictionary::new(std::mem::take(&mut decoder.payload))?;
        Some(self.run.interner.intern(dictionary))
    }

    fn check_members(&mut self, block: &Block<'_>) {
        if !block.payload.len().is_multiple_of(MEMBER_BYTES) || block.tag.number != 0 {
            return self.finding(block.offset, "a list of segments", Severity::Loss);
        }
        let members = decode_members(block.payload);
        let (position, offset) = (self.position(block.offset), self.at(block.offset));
        let pending = &mut self.run.pending;
        if block.tag.kind == BlockKind::Retire {
            pending.retired.extend(members);
            return;
        }
        self.run.roll_calls.insert(position);
        let new = || RollCall { position, offset, members: BTreeSet::new() };
        pending.roll_call.get_or_insert_with(new).members.extend(members);
    }

    fn check_commit(&mut self, block: &Block<'_>) {
        let Some(mark) = CommitMark::decode(block.payload) else {
            return self.finding(block.offset, "a commit block", Severity::Loss);
        };
        let is_end = block.tag.number == END_MARK;
        let number = self.run.last_commit.map(|last| last.saturating_add(u64::from(!is_end)));
        let Place { id, store_id, .. } = self.member.place;
        let is_right = block.tag.number <= END_MARK
            && signed_segment(block.payload, &store_id, id.slot, block.offset) == Some(id)
            && number.is_none_or(|number| number == mark.number)
            && self.chain.is_none_or(|chain| chain == mark.chain)
            && mark.synced_upto <= self.position(block.offset);
        if !is_right {
            let what = "a commit does not fit what stands before it";
            self.finding(block.offset, what, Severity::Loss);
        }
        self.run.last_commit = Some(mark.number);
        self.chain = Some(mark.chain);
        self.apply_pending();
    }

    fn apply_pending(&mut self) {
        let pending = std::mem::take(&mut self.run.pending);
        let Pending { roll_call, retired, is_damaged } = pending;
        // What a damaged block held may be a part of it.
        if let Some(roll_call) = roll_call.filter(|_| !is_damaged) {
            self.run.newest_roll_call = Some(roll_call);
        }
        self.run.retired.extend(retired);
    }
}
