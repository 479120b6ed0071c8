//! Sorted changes in memory, laid over a checkpoint.

use std::sync::Arc;

use crate::key::{KeyHash, Location};

/// What happened to one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub hash: KeyHash,
    /// Where it was, as seen through everything beneath this run: older runs, then the checkpoint.
    pub old: Option<Location>,
    /// Where it is now; `None` where it is deleted.
    pub new: Option<Location>,
}

/// Immutable changes, one for each key, sorted by hash.
///
/// Takes 32 bytes a change and half a byte for the fence, which leads a lookup to the eight
/// changes or so among which its own would be: one or two cache misses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    changes: Box<[Change]>,
    /// The changes whose hash starts with the bits `n` are `changes[fence[n]..fence[n + 1]]`.
    fence: Box<[u32]>,
    fence_bits: u32,
}

/// The fence has one step for about this many changes: they fill four cache lines, of which a
/// binary search touches one or two.
const CHANGES_PER_FENCE_STEP: usize = 8;

impl Run {
    /// Sorts `changes` into a run. Those whose `old` and `new` are the same are left out: what lies
    /// beneath the run says the same.
    ///
    /// # Panics
    /// Where two changes have the same hash, and from 2^32 changes on.
    #[must_use]
    pub fn from_changes(mut changes: Vec<Change>) -> Self {
        changes.sort_unstable_by_key(|change| change.hash);
        let unique = changes.is_sorted_by(|left, right| left.hash < right.hash);
        assert!(unique, "a run holds one change for each key");
        changes.retain(|change| change.old != change.new);
        Self::from_sorted(changes)
    }

    /// A run of changes that are sorted and unique already.
    fn from_sorted(changes: Vec<Change>) -> Self {
        let steps = (changes.len() / CHANGES_PER_FENCE_STEP).next_power_of_two();
        let fence_bits = steps.trailing_zeros();
        let mut fence = Vec::with_capacity(steps + 1);
        fence.push(0);
        for (index, change) in changes.iter().enumerate() {
            let index = u32::try_from(index).expect("a run holds less than 2^32 changes");
            // Steps that hold nothing start where the next one does.
            fence.resize(fence_step(change.hash, fence_bits) + 1, index);
        }
        let end = u32::try_from(changes.len()).expect("a run holds less than 2^32 changes");
        fence.resize(steps + 1, end);
        Self { changes: changes.into(), fence: fence.into(), fence_bits }
    }

    /// What happened to the key `hash`; `None` where the run does not know it.
    #[inline]
    #[must_use]
    pub fn get(&self, hash: KeyHash) -> Option<&Change> {
        let within = self.step_of(hash);
        let found = within.binary_search_by_key(&hash, |change| change.hash).ok()?;
        within.get(found)
    }

    /// What happened to all keys that a [`Checkpoint`](crate::Checkpoint) cannot tell from `hash`,
    /// this one among them.
    #[must_use]
    pub fn alike(&self, hash: KeyHash) -> &[Change] {
        // A step is never narrower than a checkpoint's view of a hash.
        let within = self.step_of(hash);
        let start = within.partition_point(|change| change.hash.prefix() < hash.prefix());
        let count = within[start..].partition_point(|change| change.hash.prefix() == hash.prefix());
        &within[start..start + count]
    }

    #[inline]
    fn step_of(&self, hash: KeyHash) -> &[Change] {
        let step = fence_step(hash, self.fence_bits);
        &self.changes[self.fence[step] as usize..self.fence[step + 1] as usize]
    }

    /// One run that does what `older` and then `newer` do. Changes that cancel out are left out.
    #[must_use]
    pub fn merge(newer: &Self, older: &Self) -> Self {
        let mut merged = Vec::with_capacity(newer.len() + older.len());
        let (mut newer, mut older) = (&*newer.changes, &*older.changes);
        while let ([of_newer, ..], [of_older, ..]) = (newer, older) {
            let (is_newer, is_older) =
                (of_newer.hash <= of_older.hash, of_older.hash <= of_newer.hash);
            if is_newer && is_older {
                merged.extend(compose(of_newer, of_older));
            } else {
                // Which one it is, no processor can guess: no branch.
                merged.push(*if is_newer { of_newer } else { of_older });
            }
            newer = &newer[usize::from(is_newer)..];
            older = &older[usize::from(is_older)..];
        }
        merged.extend_from_slice(newer);
        merged.extend_from_slice(older);
        merged.shrink_to_fit();
        Self::from_sorted(merged)
    }

    /// How many changes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub(crate) fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// All changes, by hash.
    pub fn iter(&self) -> std::slice::Iter<'_, Change> {
        self.changes.iter()
    }

    /// How many bytes of heap the run takes.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        size_of_val(&*self.changes) + size_of_val(&*self.fence)
    }
}

impl<'a> IntoIterator for &'a Run {
    type Item = &'a Change;
    type IntoIter = std::slice::Iter<'a, Change>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The first `bits` bits of a hash.
#[inline]
fn fence_step(hash: KeyHash, bits: u32) -> usize {
    // A shift by all 128 bits, where `bits` is 0, has no result.
    hash.0.checked_shr(u128::BITS - bits).unwrap_or(0) as usize
}

/// What two changes of one key amount to; `None` where that is nothing.
fn compose(newer: &Change, older: &Change) -> Option<Change> {
    let change = Change { new: newer.new, ..*older };
    (change.old != change.new).then_some(change)
}

/// How many runs a lookup passes at most.
pub const RUNS_MAX: usize = 8;
/// Half of them may be longer than this. Those fill more than a processor's first cache, so that each costs
/// a lookup a wait or two.
const SHORT_RUN_CHANGES: usize = 1024;

/// Puts `run` in front of `runs`, the newest first, and merges until each is a few times as long as the
/// one before it and at most [`RUNS_MAX`] are left, besides the `kept` oldest, which stay as they are.
///
/// The runs that are in use elsewhere stay as they are: merging makes new ones.
pub fn push_run(runs: &mut Vec<Arc<Run>>, run: Run, kept: usize) {
    let newer = |runs: &[Arc<Run>]| runs.len().saturating_sub(kept);
    runs.insert(0, Arc::new(run));
    while must_merge(&runs[..newer(runs)]) {
        let newer = runs.remove(0);
        runs[0] = Arc::new(Run::merge(&newer, &runs[0]));
    }
    runs.retain(|run| !run.is_empty());
}

/// Whether the newest two of `runs` become one.
///
/// Two runs stay apart only where the older one is so many times as long as the newer: then each change
/// is merged about that many times for each run that it passes through. Commits of one record come often,
/// and pass through runs that grow eightfold; buffers of thousands of them through runs that double.
/// In either case the count alone would not do: once the longest run is long, all others are, too, and a
/// commit of one record copies the shortest of them.
fn must_merge(runs: &[Arc<Run>]) -> bool {
    let [newest, older, ..] = runs else { return false };
    let (growth, count_max) = match newest.len() {
        ..SHORT_RUN_CHANGES => (8, RUNS_MAX),
        SHORT_RUN_CHANGES.. => (2, RUNS_MAX / 2),
    };
    runs.len() > count_max || older.len() < newest.len().saturating_mul(growth)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Model = BTreeMap<KeyHash, Location>;

    /// Half of the hashes lie close together, so that steps of the fence are empty and crowded.
    fn hash(number: u8) -> KeyHash {
        let number = u128::from(number);
        KeyHash(if number % 2 == 0 { number } else { number << 120 })
    }

    /// Applies `writes` to `model` and says what they changed.
    fn run_of(model: &mut Model, writes: &BTreeMap<u8, u8>) -> Run {
        let change = |(&key, &value): (&u8, &u8)| {
            let (hash, new) = (hash(key), Location::new(u64::from(value % 4)));
            let old = match new {
                Some(new) => model.insert(hash, new),
                None => model.remove(&hash),
            };
            Change { hash, old, new }
        };
        Run::from_changes(writes.iter().map(change).collect())
    }

    fn check_against(model: &Model, beneath: &Model, runs: &[Arc<Run>]) {
        for key in 0..=u8::MAX {
            let found = runs.iter().find_map(|run| run.get(hash(key)));
            let location = match found {
                Some(change) => change.new,
                None => beneath.get(&hash(key)).copied(),
            };
            assert_eq!(location, model.get(&hash(key)).copied(), "key {key}");
        }
    }

    proptest! {
        #[test]
        fn merged_runs_answer_as_the_runs_did(
            writes in prop::collection::vec(prop::collection::btree_map(0u8.., 0u8.., 0..60), 1..12)
        ) {
            let mut model = Model::new();
            run_of(&mut model, &(0..40).map(|key| (key * 3, key)).collect());
            let beneath = model.clone();
            let mut runs = Vec::new();
            for write in &writes {
                push_run(&mut runs, run_of(&mut model, write), 0);
                prop_assert!(runs.len() <= RUNS_MAX);
                check_against(&model, &beneath, &runs);
            }
            let all = runs.iter().skip(1).fold(
                runs.first().map_or(Run::from_changes(Vec::new()), |run| (**run).clone()),
                |newer, older| Run::merge(&newer, older),
            );
            for change in &all {
                prop_assert_eq!(change.old, beneath.get(&change.hash).copied());
                prop_assert_ne!(change.old, change.new);
            }
        }
    }

    #[test]
    fn runs_that_cancel_out_leave_nothing() {
        let location = Location::new(5);
        let put = Change { hash: hash(3), old: None, new: location };
        let delete = Change { hash: hash(3), old: location, new: None };
        let mut runs = Vec::new();
        push_run(&mut runs, Run::from_changes(vec![put]), 0);
        push_run(&mut runs, Run::from_changes(vec![delete]), 0);
        assert!(runs.is_empty());
    }

    #[test]
    fn runs_of_one_size_are_merged_like_a_binary_counter() {
        let mut runs = Vec::new();
        let mut merged_count = 0;
        for number in 0..64u128 {
            let changes = (0..100).map(|key| Change {
                hash: KeyHash((number << 64 | key) << 50),
                old: None,
                new: Some(Location::MIN),
            });
            let before: usize = runs.first().map_or(0, |run: &Arc<Run>| run.len());
            push_run(&mut runs, Run::from_changes(changes.collect()), 0);
            merged_count += if runs[0].len() == 100 { 0 } else { before };
        }
        let total: usize = runs.iter().map(|run| run.len()).sum();
        assert_eq!(total, 6400);
        assert!(merged_count < 6400 * 6);
    }

    #[test]
    fn a_short_run_in_front_of_many_changes_copies_few_of_them() {
        let change = |number: u128| Change {
            hash: KeyHash(number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)),
            old: None,
            new: Some(Location::MIN),
        };
        let mut runs = Vec::new();
        push_run(&mut runs, Run::from_changes((0..100_000).map(change).collect()), 0);
        let (mut copied, commits) = (0, 5_000);
        for number in 0..commits {
            let known: Vec<Arc<Run>> = runs.clone();
            push_run(&mut runs, Run::from_changes(vec![change(100_000 + number)]), 0);
            assert!(runs.len() <= RUNS_MAX);
            let new = runs.iter().filter(|run| !known.iter().any(|one| Arc::ptr_eq(one, run)));
            copied += new.map(|run| run.len() as u128).sum::<u128>();
        }
        assert!(copied < 64 * commits, "{copied} changes");
    }

    #[test]
    #[should_panic(expected = "one change for each key")]
    fn two_changes_of_one_key_are_refused() {
        let change = Change { hash: hash(1), old: None, new: None };
        let _ = Run::from_changes(vec![change, change]);
    }
}
