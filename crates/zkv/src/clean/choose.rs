//! Which segments are worth cleaning.

use std::collections::HashSet;

use zkv_log::{LogView, SegmentInfo};

use crate::live::{LiveTable, share_of};

/// Marks may take this share of what live records take, before the oldest segment is cleaned: marks
/// go once nothing older is left.
const MARKS_PERCENT_MAX: u64 = 5;
/// Fewer of them than this share of a slot are not worth moving one.
const MARKS_SLOT_SHARE: u64 = 8;

/// A segment, and what cleaning it would have to move.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weighed {
    pub segment: SegmentInfo,
    /// Of its bytes in the file, those of live records.
    pub live_bytes: u64,
    /// Those of marks that cannot go yet.
    pub mark_bytes: u64,
}

/// How the file's segments are used, but for those that were cleaned.
#[derive(Debug)]
pub(crate) struct Survey {
    /// In the order of the log.
    pub segments: Vec<Weighed>,
    slot_bytes: u64,
}

impl Weighed {
    fn needed_bytes(&self) -> u64 {
        self.live_bytes + self.mark_bytes
    }

    /// What the segment takes of the file: all of its slot, once it is sealed.
    fn bytes(&self, slot_bytes: u64) -> u64 {
        if self.segment.is_sealed { slot_bytes } else { self.segment.data_bytes.into() }
    }

    fn dead_bytes(&self, slot_bytes: u64) -> u64 {
        self.bytes(slot_bytes).saturating_sub(self.needed_bytes())
    }
}

impl Survey {
    pub(crate) fn of(log: &LogView, live: &LiveTable, cleaned: &HashSet<u32>) -> Self {
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
            segments.push(Weighed {
                segment,
                live_bytes: share_of(bytes, live.live_in(segment.slot, None).weight(), whole),
                mark_bytes: share_of(bytes, marks, whole),
            });
        }
        Self { segments, slot_bytes: u64::from(log.identity().slot_bytes) }
    }

    /// What cleaning `segment` would move, in bytes of the file; `None` where it is not here any more.
    pub(crate) fn needed_bytes(&self, segment: &SegmentInfo) -> Option<u64> {
        let same = |weighed: &&Weighed| weighed.segment.sequence == segment.sequence;
        self.segments.iter().find(same).map(Weighed::needed_bytes)
    }

    fn sum(&self, of: impl Fn(&Weighed) -> u64) -> u64 {
        self.segments.iter().map(of).sum()
    }

    /// Bytes that nobody needs, where there are enough of them for cleaning to give a slot back.
    pub(crate) fn dead_bytes(&self) -> u64 {
        let dead = self.sum(|weighed| weighed.dead_bytes(self.slot_bytes));
        if dead < self.slot_bytes { 0 } else { dead }
    }

    /// Whether more than `percent` of the segments' bytes are dead.
    pub(crate) fn exceeds(&self, percent: u64) -> bool {
        let all = self.sum(|weighed| weighed.bytes(self.slot_bytes));
        self.dead_bytes() * 100 > all * percent
    }

    fn has_too_many_marks(&self) -> bool {
        let (live, marks) = (self.sum(|one| one.live_bytes), self.sum(|one| one.mark_bytes));
        marks >= self.slot_bytes / MARKS_SLOT_SHARE && marks * 100 > live * MARKS_PERCENT_MAX
    }

    /// The segment to clean next, where more than `percent` are dead: the one that gives the most for
    /// the least (Rosenblum and Ousterhout, 1992): free space for what it costs to read and write,
    /// times the age of what would be moved, since that stays where it is put.
    pub(crate) fn victim(
        &self,
        percent: u64,
        is_skipped: impl Fn(&SegmentInfo) -> bool,
    ) -> Option<SegmentInfo> {
        let full = || {
            let full = self.segments.iter().filter(|weighed| weighed.segment.is_sealed);
            full.filter(|weighed| !is_skipped(&weighed.segment))
        };
        if self.has_too_many_marks()
            && let Some(oldest) = full().next()
        {
            return Some(oldest.segment);
        }
        if !self.exceeds(percent) {
            return None;
        }
        let newest = self.segments.last()?.segment.sequence;
        let worth = |weighed: &Weighed| {
            let needed = u128::from(weighed.needed_bytes());
            let age = u128::from(newest - weighed.segment.sequence);
            let (bytes, dead) =
                (weighed.bytes(self.slot_bytes), weighed.dead_bytes(self.slot_bytes));
            ((u128::from(dead) * age) << 32) / (u128::from(bytes) + needed).max(1)
        };
        // Below half of the average, a segment costs more than another one will soon.
        let is_worth_it = |weighed: &&Weighed| {
            weighed.dead_bytes(self.slot_bytes) * 200 >= weighed.bytes(self.slot_bytes) * percent
        };
        full().filter(is_worth_it).max_by_key(|weighed| worth(weighed)).map(|one| one.segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weighed(sequence: u64, live_percent: u64, mark_percent: u64) -> Weighed {
        let slot = u32::try_from(sequence).unwrap();
        let segment = SegmentInfo { slot, sequence, data_bytes: 1000, is_sealed: true };
        Weighed { segment, live_bytes: live_percent * 10, mark_bytes: mark_percent * 10 }
    }

    fn survey(segments: &[(u64, u64)]) -> Survey {
        let numbered = (1..).zip(segments);
        let segments = numbered.map(|(number, (live, marks))| weighed(number, *live, *marks));
        Survey { segments: segments.collect(), slot_bytes: 1000 }
    }

    fn victim(survey: &Survey) -> Option<u64> {
        survey.victim(25, |_| false).map(|segment| segment.sequence)
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
    fn what_is_skipped_or_not_full_is_no_victim() {
        let mut survey = survey(&[(10, 0), (20, 0), (30, 0)]);
        survey.segments[2].segment.is_sealed = false;
        let second = survey.victim(25, |segment| segment.sequence == 1).unwrap();
        assert_eq!(second.sequence, 2);
        assert_eq!(survey.victim(25, |segment| segment.sequence < 3), None);
    }
}
