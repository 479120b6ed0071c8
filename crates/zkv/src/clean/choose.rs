//! Which segments are worth cleaning.

use std::cmp::Reverse;
use std::collections::HashSet;

use zkv_log::{LogView, SegmentInfo};
use zkv_record::{KEY_BYTES_MAX, VALUE_BYTES_INLINE_MAX};

use super::loose::loose_bytes;
use crate::metadata::live::{LiveTable, share_of};

/// Marks may take this share of what live records take, before the oldest segment is cleaned: marks
/// go once nothing older is left.
const MARKS_PERCENT_MAX: u64 = 5;
/// Fewer of them than this share of a slot are not worth moving one.
const MARKS_SLOT_SHARE: u64 = 8;
/// Where nothing is live, less than this share of a slot is not worth another segment.
const EMPTIED_SLOT_SHARE: u64 = 8;

/// A segment, and what cleaning it would have to move.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weighed {
    pub segment: SegmentInfo,
    /// Of its bytes in the file, those of live records.
    pub live_bytes: u64,
    /// Those of marks that cannot go yet.
    pub mark_bytes: u64,
    /// Of what is needed, those that another packing spares.
    pub loose_bytes: u64,
}

/// How the file's segments are used, but for those that were cleaned.
#[derive(Debug)]
pub(crate) struct Survey {
    /// In the order of the log.
    segments: Vec<Weighed>,
    slot_bytes: u64,
    /// Of segments that were cleaned.
    cleaned_bytes: u64,
}

impl Weighed {
    fn needed_bytes(&self) -> u64 {
        self.live_bytes + self.mark_bytes
    }

    /// What the segment takes of the file: all of its slot, once it is sealed. Where no more was left at its
    /// end than a record may need, another segment would be no fuller: that is nothing to be won, unless no
    /// other one is needed.
    fn bytes(&self, slot_bytes: u64) -> u64 {
        let data_bytes = self.segment.data_bytes.into();
        let has_room = data_bytes + record_bytes_max(slot_bytes) < slot_bytes;
        match self.segment.is_sealed && (has_room || self.needed_bytes() == 0) {
            true => slot_bytes,
            false => data_bytes,
        }
    }

    fn dead_bytes(&self, slot_bytes: u64) -> u64 {
        self.bytes(slot_bytes).saturating_sub(self.needed_bytes())
    }

    /// What cleaning the segment gives back.
    fn gain_bytes(&self, slot_bytes: u64) -> u64 {
        self.dead_bytes(slot_bytes) + self.loose_bytes
    }
}

/// A little more than the longest record takes that is not cut into pieces, and the seal behind it. Of its value,
/// [`Shared::inline_bytes_max`](crate::shared::Shared::inline_bytes_max) tells.
fn record_bytes_max(slot_bytes: u64) -> u64 {
    KEY_BYTES_MAX as u64 + (VALUE_BYTES_INLINE_MAX as u64).min(slot_bytes / 4) + slot_bytes / 64
}

impl Survey {
    /// Where cleaning has `moved_to`, nothing is loose.
    pub(crate) fn of(
        log: &LogView,
        live: &LiveTable,
        cleaned: &HashSet<u32>,
        moved_to: &HashSet<u64>,
    ) -> Self {
        let mut segments: Vec<Weighed> = Vec::new();
        for segment in log.segments() {
            if cleaned.contains(&segment.slot) {
                continue;
            }
            let bytes = u64::from(segment.data_bytes);
            let used = live.segment(segment.slot).copied().unwrap_or_default();
            let whole = used.weight();
            // The oldest segment's marks speak of nothing but itself.
            let marks = if segments.is_empty() { 0 } else { used.marks.weight() };
            let live_bytes = share_of(bytes, live.live_in(segment.slot).weight(), whole);
            let loose_bytes = match moved_to.contains(&segment.sequence) {
                true => 0,
                false => loose_bytes(log, &segment, &used, live_bytes),
            };
            let mark_bytes = share_of(bytes, marks, whole);
            segments.push(Weighed { segment, live_bytes, mark_bytes, loose_bytes });
        }
        let slot_bytes = u64::from(log.identity().slot_bytes);
        Self { segments, slot_bytes, cleaned_bytes: cleaned.len() as u64 * slot_bytes }
    }

    /// What cleaning `segment` would move, in bytes of the file; `None` where it is not here any more.
    pub(crate) fn needed_bytes(&self, segment: &SegmentInfo) -> Option<u64> {
        let same = |weighed: &&Weighed| weighed.segment.sequence == segment.sequence;
        self.segments.iter().find(same).map(Weighed::needed_bytes)
    }

    /// Whether some of `victims` are packed loosely.
    pub(crate) fn has_loose(&self, victims: &[SegmentInfo]) -> bool {
        let is_one =
            |one: &Weighed| victims.iter().any(|victim| victim.sequence == one.segment.sequence);
        self.segments.iter().any(|one| one.loose_bytes > 0 && is_one(one))
    }

    fn sum(&self, of: impl Fn(&Weighed) -> u64) -> u64 {
        self.segments.iter().map(of).sum()
    }

    /// Bytes that nobody needs, where there are enough of them for cleaning to give a slot back.
    pub(crate) fn dead_bytes(&self) -> u64 {
        let dead = self.sum(|weighed| weighed.dead_bytes(self.slot_bytes));
        if dead < self.slot_bytes { 0 } else { dead }
    }

    /// How many bytes there are to gain beyond `percent` of all.
    fn excess_bytes(&self, percent: u64) -> u64 {
        let all = self.sum(|weighed| weighed.bytes(self.slot_bytes));
        let gain = self.sum(|weighed| weighed.gain_bytes(self.slot_bytes));
        if gain < self.slot_bytes { 0 } else { gain.saturating_sub(all * percent / 100) }
    }

    /// Whether more than `percent` of the bytes are dead, those counted that wait to be freed.
    pub(crate) fn is_behind(&self, percent: u64) -> bool {
        let all = self.sum(|weighed| weighed.bytes(self.slot_bytes)) + self.cleaned_bytes;
        (self.dead_bytes() + self.cleaned_bytes) * 100 > all * percent
    }

    /// Whether marks are worth the cleaning of the oldest segment.
    pub(crate) fn has_too_many_marks(&self) -> bool {
        let (live, marks) = (self.sum(|one| one.live_bytes), self.sum(|one| one.mark_bytes));
        marks >= self.slot_bytes / MARKS_SLOT_SHARE && marks * 100 > live * MARKS_PERCENT_MAX
    }

    /// The segment that is being written, where it is all that is left and nothing of it is live: none of that
    /// would be given back before others have filled it.
    pub(crate) fn emptied(&self) -> Option<SegmentInfo> {
        let [last] = &self.segments[..] else { return None };
        let written_bytes = u64::from(last.segment.data_bytes);
        let is_worth_it = written_bytes >= self.slot_bytes / EMPTIED_SLOT_SHARE;
        (last.needed_bytes() == 0 && is_worth_it).then_some(last.segment)
    }

    /// The segments to clean next, where more than `percent` are to gain: those that give the most for the
    /// least (Rosenblum and Ousterhout, 1992): free space for what it costs to read and write, times
    /// the age of what would be moved, since that stays where it is put. As many as together hold
    /// about `needed_max` bytes to move.
    pub(crate) fn victims(
        &self,
        percent: u64,
        needed_max: u64,
        is_skipped: impl Fn(&SegmentInfo) -> bool,
    ) -> Vec<SegmentInfo> {
        let excess = self.excess_bytes(percent);
        let full = self.segments.iter().filter(|weighed| weighed.segment.is_sealed);
        let mut full: Vec<&Weighed> = full.filter(|one| !is_skipped(&one.segment)).collect();
        // As long as the oldest segment stays, so do the marks of all others.
        let oldest_may_go = self.segments.first().is_some_and(|one| !is_skipped(&one.segment));
        if self.has_too_many_marks() && oldest_may_go {
            full.truncate(1);
        } else if excess == 0 {
            return Vec::new();
        } else {
            // Below half of the average, a segment costs more than another one will soon.
            full.retain(|one| {
                one.gain_bytes(self.slot_bytes) * 200 >= one.bytes(self.slot_bytes) * percent
            });
            // Those that cost nothing come first, and go by themselves: they give room to move others to.
            full.sort_by_key(|one| Reverse((one.needed_bytes() == 0, self.worth(one))));
        }
        let (mut victims, mut needed, mut gain) = (Vec::new(), 0, 0);
        for one in full {
            let all_needed = needed + one.needed_bytes();
            // Those that cost nothing do not wait for one that costs something.
            let fits = all_needed == 0 || (needed > 0 && all_needed <= needed_max);
            // No more than brings the file down to its bound.
            let is_enough = gain >= excess;
            if !victims.is_empty() && (!fits || is_enough) {
                break;
            }
            victims.push(one.segment);
            (needed, gain) = (all_needed, gain + one.gain_bytes(self.slot_bytes).max(1));
        }
        victims
    }

    fn worth(&self, one: &Weighed) -> u128 {
        let newest = self.segments.last().map_or(0, |last| last.segment.sequence);
        let age = u128::from(newest.saturating_sub(one.segment.sequence));
        let (bytes, gain) = (one.bytes(self.slot_bytes), one.gain_bytes(self.slot_bytes));
        ((u128::from(gain) * age) << 32)
            / (u128::from(bytes) + u128::from(one.needed_bytes())).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weighed(sequence: u64, live_percent: u64, mark_percent: u64) -> Weighed {
        let slot = u32::try_from(sequence).unwrap();
        let segment = SegmentInfo { slot, sequence, data_bytes: 1000, is_sealed: true };
        let (live_bytes, mark_bytes) = (live_percent * 10, mark_percent * 10);
        Weighed { segment, live_bytes, mark_bytes, loose_bytes: 0 }
    }

    fn survey(segments: &[(u64, u64)]) -> Survey {
        let numbered = (1..).zip(segments);
        let segments = numbered.map(|(number, (live, marks))| weighed(number, *live, *marks));
        Survey { segments: segments.collect(), slot_bytes: 1000, cleaned_bytes: 0 }
    }

    fn victim(survey: &Survey) -> Option<u64> {
        survey.victims(25, 1, |_| false).first().map(|segment| segment.sequence)
    }

    #[test]
    fn nothing_is_cleaned_below_the_bound_or_for_less_than_a_slot() {
        assert_eq!(victim(&survey(&[(80, 0), (70, 0), (80, 0), (100, 0)])), None);
        assert_eq!(victim(&survey(&[(50, 0), (60, 0), (100, 0)])), None, "0.9 of a slot");
        assert!(victim(&survey(&[(40, 0), (40, 0), (100, 0)])).is_some());
    }

    #[test]
    fn the_emptiest_of_equal_age_and_the_oldest_of_equal_use_go_first() {
        assert_eq!(victim(&survey(&[(60, 0), (10, 0), (60, 0), (90, 0)])), Some(2));
        assert_eq!(victim(&survey(&[(50, 0), (50, 0), (50, 0), (90, 0)])), Some(1));
        assert_eq!(
            victim(&survey(&[(95, 0), (20, 0), (20, 0), (90, 0)])),
            Some(2),
            "hardly worth it"
        );
    }

    #[test]
    fn marks_count_as_needed_and_many_of_them_call_for_the_oldest_segment() {
        assert_eq!(victim(&survey(&[(90, 0), (0, 100), (40, 60), (90, 0)])), Some(1));
        let few = survey(&[(90, 0), (10, 10), (100, 0), (100, 0)]);
        assert_eq!(victim(&few), None);
    }

    #[test]
    fn what_is_packed_loosely_goes_with_what_is_dead() {
        let mut survey = survey(&[(80, 0), (100, 0), (100, 0), (80, 0)]);
        assert_eq!(victim(&survey), None);
        survey.segments[1].loose_bytes = 500;
        assert_eq!(victim(&survey), None, "0.9 of a slot");
        survey.segments[2].loose_bytes = 500;
        assert_eq!(victim(&survey), Some(2));
        assert!(!survey.is_behind(10), "nobody waits for that");
    }

    #[test]
    fn where_the_oldest_segment_cannot_be_cleaned_its_successors_are_not_for_their_marks() {
        let survey = survey(&[(90, 0), (0, 100), (40, 60), (90, 0)]);
        assert_eq!(survey.victims(25, 1, |segment| segment.sequence == 1), []);
    }

    #[test]
    fn what_no_record_has_found_room_in_is_not_dead() {
        let slot_bytes = 256 << 10;
        let dead_of = |data_bytes: u32| {
            let segment = SegmentInfo { slot: 0, sequence: 1, data_bytes, is_sealed: true };
            let live_bytes = data_bytes.into();
            let weighed = Weighed { segment, live_bytes, mark_bytes: 0, loose_bytes: 0 };
            weighed.dead_bytes(slot_bytes)
        };
        assert_eq!(dead_of(140_000), 0);
        assert_eq!(dead_of(20_000), slot_bytes - 20_000);
    }

    #[test]
    fn a_full_segment_of_which_nothing_is_needed_gives_a_slot_back() {
        let mut survey = survey(&[(0, 0), (0, 0)]);
        survey.segments[0].segment.data_bytes = 900;
        survey.segments[1].segment =
            SegmentInfo { data_bytes: 0, is_sealed: false, ..survey.segments[1].segment };
        assert_eq!(victim(&survey), Some(1));
        survey.segments[0].live_bytes = 10;
        assert_eq!(victim(&survey), None, "0.9 of a slot");
    }

    #[test]
    fn what_is_skipped_or_not_full_is_no_victim() {
        let mut survey = survey(&[(10, 0), (20, 0), (30, 0)]);
        survey.segments[2].segment.is_sealed = false;
        let victims = survey.victims(25, 1, |segment| segment.sequence == 1);
        assert_eq!(victims, [survey.segments[1].segment]);
        assert_eq!(survey.victims(25, 1, |segment| segment.sequence < 3), []);
    }

    #[test]
    fn several_are_cleaned_together_as_far_as_it_takes_and_they_fit() {
        let emptiest = [(90, 0), (20, 0), (30, 0), (40, 0), (90, 0), (90, 0)];
        let victims = |needed_max| {
            let victims = survey(&emptiest).victims(25, needed_max, |_| false);
            victims.iter().map(|segment| segment.sequence).collect::<Vec<_>>()
        };
        assert_eq!(victims(1), [2]);
        assert_eq!(victims(500), [2, 3]);
        assert_eq!(victims(10_000), [2, 3], "that brings it down to 25 percent");
    }
}
