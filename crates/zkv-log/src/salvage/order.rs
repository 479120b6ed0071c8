//! Which of the segments found belong to the log, in which order, and which are missing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::checkpoint::LogCheckpoint;
use crate::position::Position;
use crate::segment::{Place, SegmentId};

use super::survey::{SealFacts, Seen, Survey};

/// The log, as far as it can be known.
#[derive(Debug)]
pub(super) struct Order {
    /// The oldest first.
    pub turns: Vec<Turn>,
    /// The end of the last whole commit, or a later place up to which something says that the log
    /// was durable: for all that can be known, a crash tore what stands behind it.
    pub committed: Position,
    /// Whether what an index file knows is of this log's past.
    pub goes_by_index: bool,
}

/// What comes next in the log.
#[derive(Clone, Debug)]
pub(super) enum Turn {
    Found(Member),
    Missing(Missing),
}

/// A segment that is read.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub place: Place,
    pub has_header: bool,
    pub seal: Option<SealFacts>,
    /// Where its blocks end, by its seal or the index.
    pub data_end: Option<u32>,
    /// Nothing that counts stands in a later one.
    pub is_newest: bool,
    /// Its seal names another segment, and nothing was found behind it; or that seal is damaged, and nobody
    /// knows whether the log goes on.
    pub may_go_on: bool,
}

/// Segments of which nothing was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Missing {
    pub count: u64,
}

/// What tells the members of the log up to its position.
struct Membership {
    at: Position,
    listed: Vec<SegmentId>,
}

/// Settles what `survey` found.
///
/// The newest whole roll call tells the members up to it; what came behind it has later numbers.
/// Without one, every segment found is a member. In either case those that a retire entry names are
/// not: their live records were moved, and a key that they hold may have been deleted since.
pub(super) fn settle(mut survey: Survey<'_>) -> Order {
    // Also by what another one of its number ousts: what should stand there is missing then.
    let proven = survey.seen.values().flatten().map(|seen| seen.proven).max();
    let mut seen = one_each(&mut survey);
    let checkpoint = survey.index.filter(|checkpoint| is_of_this_past(checkpoint, &seen));
    let committed = seen.values().filter_map(Seen::committed).max().unwrap_or_default();
    let retired: HashSet<SegmentId> =
        seen.values().flat_map(|seen| seen.retired(committed)).collect();
    let membership = newest_membership(&survey, checkpoint, &seen);
    if let Some(Membership { at, listed }) = &membership {
        let listed: HashSet<&SegmentId> = listed.iter().collect();
        seen.retain(|sequence, seen| *sequence >= at.sequence || listed.contains(&seen.place.id));
    }
    seen.retain(|_, seen| !retired.contains(&seen.place.id));

    let watermark = checkpoint.map(|checkpoint| checkpoint.watermark);
    let proven = proven.max(watermark).unwrap_or_default();
    let newest = committed.max(proven).sequence;
    drop_given_up(&survey, &mut seen, newest);
    let mut turns = missing(&seen, membership.as_ref(), &retired, proven);
    let ends: HashMap<SegmentId, u32> = checkpoint
        .and_then(|checkpoint| checkpoint.segments.split_last())
        .map_or(HashMap::new(), |(_, full)| {
            full.iter().map(|one| (one.id, one.data_end)).collect()
        });
    let last = seen.last_key_value();
    let next = last.and_then(|(sequence, seen)| Some((*sequence, seen.seal?.next)));
    if let Some((_, next)) = next.filter(|(_, next)| survey.is_unread(*next))
        && turns.range(next.sequence..).next().is_none()
    {
        turns.insert(next.sequence, Turn::Missing(Missing { count: 1 }));
    }
    let last_of_more =
        next.filter(|(_, next)| !survey.was_never_begun(*next)).map(|(sequence, _)| sequence);
    for (sequence, seen) in seen {
        let Seen { place, has_header, seal, .. } = seen;
        let data_end = seal.map(|seal| seal.data_end).or(ends.get(&place.id).copied());
        let is_newest = newest <= sequence;
        let has_lost_its_seal =
            || is_newest && data_end.is_none() && survey.has_something_for_a_seal(place);
        let may_go_on = last_of_more == Some(sequence) || has_lost_its_seal();
        let member = Member { place, has_header, seal, data_end, is_newest, may_go_on };
        turns.insert(sequence, Turn::Found(member));
    }
    let (turns, committed) = (turns.into_values().collect(), committed.max(proven));
    Order { turns, committed, goes_by_index: checkpoint.is_some() }
}

/// The segments by number, without those of an attempt that was given up, or of another copy of the
/// file that went another way: the segment before, or a roll call, names another one in their place.
/// Where nothing does, one that has left more than a header counts, first one that has a commit, since those of
/// an attempt that was given up are wiped, then one whose header stands in its slot, then the one that knows the
/// log to be durable the furthest, or whose blocks stand first: later ones were begun behind what the others knew,
/// and wrote over them from the start.
fn one_each(survey: &mut Survey<'_>) -> BTreeMap<u64, Seen> {
    let listed = survey.roll_calls.values().flat_map(|roll_call| &roll_call.listed);
    let listed: HashSet<SegmentId> = listed.copied().collect();
    let listed_sequences: HashSet<u64> = listed.iter().map(|id| id.sequence).collect();
    let mut found: Vec<Seen> = std::mem::take(&mut survey.seen).into_values().flatten().collect();
    found.sort_by_key(|seen| {
        let id = seen.place.id;
        let is_worse = (!seen.has_blocks, seen.commits_end.is_none(), !seen.has_header);
        (id.sequence, is_worse, Reverse(seen.proven), seen.first_block, id)
    });
    let mut by_sequence: BTreeMap<u64, Seen> = BTreeMap::new();
    for seen in found {
        let id = seen.place.id;
        let before = by_sequence.get(&(id.sequence - 1)).and_then(|before| before.seal);
        let is_ours = match before {
            Some(seal) => seal.next == id,
            None => listed.contains(&id) || !listed_sequences.contains(&id.sequence),
        };
        if is_ours {
            by_sequence.entry(id.sequence).or_insert(seen);
        }
    }
    by_sequence
}

/// Leaves out what stands behind the segment `newest`, in which the log ends, and no seal leads to: whoever
/// opened the log since has wiped the seal, so that this is of a commit that was given up. A seal that is
/// damaged was not wiped.
fn drop_given_up(survey: &Survey<'_>, seen: &mut BTreeMap<u64, Seen>, newest: u64) {
    if !seen.contains_key(&newest) {
        // What may have led there is lost, too.
        return;
    }
    let mut last = newest;
    while let Some(seal) = seen.get(&last).and_then(|seen| seen.seal)
        && seen.get(&seal.next.sequence).is_some_and(|next| next.place.id == seal.next)
    {
        last = seal.next.sequence;
    }
    let is_damaged =
        |seen: &Seen| seen.seal.is_none() && survey.has_something_for_a_seal(seen.place);
    if seen.get(&last).is_some_and(is_damaged) {
        return;
    }
    seen.retain(|sequence, _| *sequence <= last);
}

/// Whether an index checkpoint names a segment that is here, and none that another one of its
/// number contradicts.
fn is_of_this_past(checkpoint: &LogCheckpoint, seen: &BTreeMap<u64, Seen>) -> bool {
    let found = |id: &SegmentId| seen.get(&id.sequence).map(|seen| seen.place.id == *id);
    let mut ids = checkpoint.segments.iter().map(|segment| &segment.id);
    ids.clone().any(|id| found(id) == Some(true)) && ids.all(|id| found(id) != Some(false))
}

fn newest_membership(
    survey: &Survey<'_>,
    checkpoint: Option<&LogCheckpoint>,
    seen: &BTreeMap<u64, Seen>,
) -> Option<Membership> {
    let is_ours = |id: SegmentId| seen.get(&id.sequence).is_some_and(|seen| seen.place.id == id);
    let by_log = survey.roll_calls.iter().rev().find(|(_, roll_call)| is_ours(roll_call.holder));
    let by_log = by_log.map(|(at, roll_call)| (*at, roll_call.listed.clone()));
    // Of an older copy of the file, a newer index would leave out what was freed since.
    let by_index = checkpoint.filter(|checkpoint| reaches(seen, checkpoint.watermark));
    let by_index = by_index.map(|checkpoint| {
        (checkpoint.watermark, checkpoint.segments.iter().map(|segment| segment.id).collect())
    });
    let newest = by_log.into_iter().chain(by_index).max_by_key(|(at, _)| *at);
    newest.map(|(at, listed)| Membership { at, listed })
}

/// Whether the log goes as far as `watermark`.
fn reaches(seen: &BTreeMap<u64, Seen>, watermark: Position) -> bool {
    let ends = seen.range(watermark.sequence..).filter_map(|(_, seen)| seen.committed());
    ends.max() >= Some(watermark)
}

/// What the log should have and the file has not, by number.
fn missing(
    seen: &BTreeMap<u64, Seen>,
    membership: Option<&Membership>,
    retired: &HashSet<SegmentId>,
    proven: Position,
) -> BTreeMap<u64, Turn> {
    let mut turns = BTreeMap::new();
    let used: HashSet<u32> = seen.values().map(|seen| seen.place.id.slot).collect();
    for id in membership.iter().flat_map(|membership| &membership.listed) {
        // A slot that is used again was free.
        let is_gone = retired.contains(id) || used.contains(&id.slot);
        if !is_gone && !seen.contains_key(&id.sequence) {
            turns.insert(id.sequence, Turn::Missing(Missing { count: 1 }));
        }
    }
    let gone: BTreeSet<u64> = retired.iter().map(|id| id.sequence).collect();
    // Behind the roll call, numbers follow one another.
    let mut next = membership.map_or(1, |membership| membership.at.sequence.saturating_add(1));
    let ends = seen.range(next..).map(|(sequence, _)| *sequence).chain(
        // The log was durable up to here, so this segment was begun.
        (proven.sequence > 0).then_some(proven.sequence.saturating_add(1)),
    );
    for end in ends {
        if next < end {
            let count = end - next - gone.range(next..end).count() as u64;
            if count > 0 {
                turns.insert(end - 1, Turn::Missing(Missing { count }));
            }
        }
        next = next.max(end.saturating_add(1));
    }
    if seen.is_empty() && turns.is_empty() {
        // The first one's header was durable before the file had its name.
        turns.insert(1, Turn::Missing(Missing { count: 1 }));
    }
    turns
}

impl Seen {
    pub(super) fn committed(&self) -> Option<Position> {
        self.commits_end.map(|offset| Position { sequence: self.place.id.sequence, offset })
    }

    /// What entries retire whose commit was reached.
    fn retired(&self, committed: Position) -> impl Iterator<Item = SegmentId> + '_ {
        let sequence = self.place.id.sequence;
        let counts = move |offset| Position { sequence, offset } < committed;
        self.retired.iter().filter(move |(offset, _)| counts(*offset)).map(|(_, id)| *id)
    }
}
