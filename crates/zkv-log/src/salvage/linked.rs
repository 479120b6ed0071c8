//! Commits that follow one another in a segment of which nothing says whose it is, and what they prove.
//!
//! A CRC is linear: blocks that were moved by some distance are whole with another seed than their own, and
//! those whose offsets have changed by the same bits agree on it. So agreeing on a seed is no proof where a
//! value may be a data file. Three more things are: commits that lead to one another, block by block and by
//! their chains, are of one log, so that all of them agree or all of them were moved; what such a commit says to
//! be durable ends where one of them does; and none says that of more than stands before it, or of what ends
//! within another one of them. Of those that were moved, the one that ends there is another one than the one
//! that ended there at first. If both are among them, they do not agree on a seed, or were moved by nothing. If
//! the first one is not, all were moved towards the start, and those before it did not say less than those
//! behind it, unless a sync was under way for as long as it took to write all that they were moved by.

use std::collections::{BTreeMap, HashSet};

use zkv_io::StorageFile;

use crate::block::{BlockHeader, BlockKind, Seed};
use crate::header::{Identity, SegmentHeader};
use crate::layout::{BLOCK_HEADER_BYTES, COMMIT_BLOCK_BYTES, COMMIT_BYTES, seal_offset};
use crate::position::Position;
use crate::walk::{Chain, CommitMark, commit_block_starts};

use super::blocks::BlockSearch;
use super::checksums::seed_of_block;
use super::image::Image;

/// Commits that follow one another, and prove that some of them were durable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linked {
    pub seed: Seed,
    /// The number of the last one.
    pub last_commit: u64,
    /// Up to where they say that the log was durable: in their own segment, whose number it has.
    pub proven: Position,
}

/// What looks like a commit block.
#[derive(Clone, Copy)]
struct Commit {
    start: u32,
    seed: u32,
    checksum: u32,
    mark: CommitMark,
}

/// Commits of which each leads to the next one.
struct Run {
    commits: Vec<Commit>,
    ends: HashSet<u32>,
}

/// The commits in `slot` that follow one another, agree on a seed and prove something, but for those of the segment
/// that `known` has; none where a header says that the slot is another store's.
pub(crate) fn linked_without_a_name(
    file: &dyn StorageFile,
    identity: &Identity,
    slot: u32,
    file_bytes: u64,
    known: Option<Seed>,
) -> Vec<Linked> {
    let image = Image::read(file, identity.slot_start(slot), identity.slot_bytes, file_bytes);
    // A header of this log may be an older segment's, whose pages have come back, or stand in the wrong slot.
    match SegmentHeader::decode(&image.bytes) {
        Ok(header) if header.identity != *identity => Vec::new(),
        _ => linked_beside(&image.bytes, identity.slot_bytes, known).collect(),
    }
}

/// The commits in `bytes`, which stand at `offset` of their segment, whosever they are, that follow one another,
/// agree on a seed and prove something.
pub(crate) fn linked_commits(bytes: &[u8], offset: u32) -> impl Iterator<Item = Linked> {
    runs(bytes, offset, |_| true).into_iter().filter_map(|run| run.linked())
}

/// As [`linked_commits`], of all that a slot holds, but for what stands within whole blocks of segments with the
/// seeds `known`: nothing was written over those, so that it is theirs, or within one of their values.
pub(super) fn linked_beside(
    bytes: &[u8],
    slot_bytes: u32,
    known: impl IntoIterator<Item = Seed>,
) -> impl Iterator<Item = Linked> {
    let limit = bytes.len().min(seal_offset(slot_bytes) as usize);
    let parts =
        known.into_iter().flat_map(|seed| BlockSearch::new(&bytes[..limit], seed, &[]).parts());
    let blocks = parts.filter_map(|part| Some((part.block()?.offset, part.block()?.end())));
    // Those of one segment do not overlap, and the ends of the others only leave out less.
    let blocks: BTreeMap<u32, u32> = blocks.collect();
    let is_beside =
        |start: u32| blocks.range(..=start).next_back().is_none_or(|(_, end)| *end <= start);
    runs(bytes, 0, is_beside).into_iter().filter_map(|run| run.linked())
}

/// What `bytes` hold of commits that start where `may_start` says.
fn runs(bytes: &[u8], offset: u32, may_start: impl Fn(u32) -> bool) -> Vec<Run> {
    let starts = commit_block_starts(bytes).filter_map(|start| u32::try_from(start).ok());
    let starts = starts.filter(|start| may_start(*start));
    let commits = starts.filter_map(|start| Some((start, commit_at(bytes, start, offset)?)));
    let commits: BTreeMap<u32, Commit> = commits.collect();
    let mut runs: Vec<Run> = Vec::new();
    let mut run_of: BTreeMap<u32, usize> = BTreeMap::new();
    // No log has more blocks; a file made for it may have the same ones looked at over and over.
    let mut blocks_left = bytes.len() / BLOCK_HEADER_BYTES as usize;
    for (start, commit) in &commits {
        let number = *run_of.entry(*start).or_insert_with(|| {
            runs.push(Run { commits: Vec::new(), ends: HashSet::new() });
            runs.len() - 1
        });
        runs[number].commits.push(*commit);
        runs[number].ends.insert(commit.start + COMMIT_BLOCK_BYTES);
        if let Some(next) = next_commit(bytes, *start, commit, &mut blocks_left) {
            run_of.insert(next, number);
        }
    }
    runs
}

fn commit_at(bytes: &[u8], start: u32, offset: u32) -> Option<Commit> {
    let block = bytes.get(start as usize..)?.get(..COMMIT_BLOCK_BYTES as usize)?;
    let mark = CommitMark::decode(&block[BLOCK_HEADER_BYTES as usize..])?;
    let start = offset + start;
    let (checksum, seed) = seed_of_block(block, start)?;
    Some(Commit { start, seed, checksum, mark })
}

/// Where in `bytes` the commit block stands to which the blocks behind `commit`, which stands at `start`, lead.
fn next_commit(bytes: &[u8], start: u32, commit: &Commit, blocks_left: &mut usize) -> Option<u32> {
    let mut chain: Chain = commit.mark.chain.and(commit.checksum);
    let mut at = start + COMMIT_BLOCK_BYTES;
    loop {
        *blocks_left = blocks_left.checked_sub(1)?;
        let rest = bytes.get(at as usize..)?;
        let header = BlockHeader::decode(*rest.first_chunk()?)?;
        if header.tag.kind == BlockKind::Commit {
            let payload = rest.get(BLOCK_HEADER_BYTES as usize..COMMIT_BLOCK_BYTES as usize)?;
            let is_next = header.payload_bytes as usize == COMMIT_BYTES
                && CommitMark::decode(payload).is_some_and(|mark| mark.chain == chain);
            return is_next.then_some(at);
        }
        chain = chain.and(header.checksum);
        at = at.checked_add(header.block_bytes())?;
    }
}

impl Run {
    fn linked(&self) -> Option<Linked> {
        let first = self.commits.first()?;
        let is_proof = |commit: &&Commit| {
            let proven = commit.mark.synced_upto.offset;
            proven <= commit.start && self.ends.contains(&proven)
        };
        let proofs = self.commits.iter().filter(is_proof);
        let proven = proofs.map(|commit| commit.mark.synced_upto).max()?;
        // Blocks that were moved say what was true of another place.
        let may_stand_here = |commit: &Commit| {
            let Position { sequence, offset } = commit.mark.synced_upto;
            let is_within = sequence == proven.sequence && first.start < offset;
            !is_within || (offset <= commit.start && self.ends.contains(&offset))
        };
        if !self.commits.iter().all(may_stand_here) {
            return None;
        }
        let last_commit = self.commits.iter().map(|commit| commit.mark.number).max()?;
        self.commits.iter().all(|commit| commit.seed == first.seed).then_some(Linked {
            seed: Seed::from_number(first.seed),
            last_commit,
            proven,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Tag, put_block};
    use crate::layout::SEGMENT_HEADER_BYTES;

    const SEQUENCE: u64 = 9;

    /// A segment of commits of one entry each, of which each says what is durable, given where those before it
    /// end.
    fn commits(entries: &[usize], durable: impl Fn(&[u32]) -> u32) -> Vec<u8> {
        let seed = Seed::from_number(77);
        let mut bytes = vec![0; SEGMENT_HEADER_BYTES as usize];
        let (mut chain, mut ends) = (Chain::default(), Vec::new());
        for (number, entry_bytes) in (1..).zip(entries) {
            let entries = Tag { kind: BlockKind::EntriesRaw, number: 0 };
            for is_commit in [false, true] {
                let offset = u32::try_from(bytes.len()).unwrap();
                if is_commit {
                    let synced_upto = Position { sequence: SEQUENCE, offset: durable(&ends) };
                    let mark = CommitMark { number, synced_upto, chain };
                    mark.put(&mut bytes, seed, offset, false);
                    ends.push(u32::try_from(bytes.len()).unwrap());
                } else {
                    let value = vec![1; *entry_bytes];
                    put_block(&mut bytes, seed, offset, entries, &[&value]);
                }
                let checksum = *bytes[offset as usize..].first_chunk().unwrap();
                chain = chain.and(u32::from_le_bytes(checksum));
            }
        }
        bytes
    }

    /// Some commits are as long as others; each says that those up to the `lag`th before it are durable.
    fn segment(count: usize, lag: usize) -> Vec<u8> {
        let entries: Vec<usize> = (0..count).map(|number| 36 + 12 * (number / 8 % 2)).collect();
        commits(&entries, |ends| ends.len().checked_sub(lag).map_or(0, |before| ends[before]))
    }

    #[test]
    fn what_is_left_of_a_segment_proves_where_it_was_durable() {
        let bytes = segment(40, 2);
        let end = u32::try_from(bytes.len()).unwrap();
        let found: Vec<Linked> = linked_commits(&bytes[1000..], 1000).collect();
        let [Linked { seed, last_commit: 40, proven }] = found[..] else { panic!("{found:?}") };
        assert_eq!((seed, proven.sequence), (Seed::from_number(77), SEQUENCE));
        assert!(1000 < proven.offset && proven.offset < end);
    }

    /// Wherever it is moved, and whatever is left of it there.
    #[test]
    fn a_segment_that_was_moved_proves_nothing() {
        for lag in [1, 2, 7] {
            let bytes = segment(40, lag);
            for distance in (1..2000).chain((1..100).map(|times| times * 256)) {
                let ahead = [vec![0; distance], bytes.clone()].concat();
                let back = bytes.get(distance..).unwrap_or(&[]);
                for (moved, whither) in [(&ahead[..], "ahead"), (back, "back")] {
                    let found = linked_commits(moved, 0).count();
                    assert_eq!(found, 0, "{distance} {whither}, {lag}");
                }
            }
        }
    }

    /// The commit that first ended there is not among them.
    #[test]
    fn what_was_moved_to_where_a_durable_commit_ended_proves_nothing() {
        const MOVED: usize = 4096;
        // The fourth one behind the long one ends by `MOVED` behind the first one of all, which is durable.
        let entries = [&[36, MOVED - 344][..], &[36; 20]].concat();
        let bytes = commits(&entries, |ends| ends.first().copied().unwrap_or(0));
        let moved = &bytes[MOVED..];
        let run = &runs(moved, 0, |_| true)[0];
        let first = run.commits[0];
        assert!(run.commits.iter().all(|commit| commit.seed == first.seed), "they agree");
        let durable = first.mark.synced_upto.offset;
        assert!(first.start < durable && run.ends.contains(&durable), "one ends there");
        assert_eq!(linked_commits(moved, 0).count(), 0);
        assert_eq!(linked_commits(&bytes, 0).count(), 1);
    }

    /// As where a data file is a value, in the very place where it was written.
    #[test]
    fn what_stands_within_whole_blocks_of_a_known_segment_proves_nothing() {
        const SLOT: u32 = 64 << 10;
        let inner = segment(40, 2);
        let (known, other) = (Seed::from_number(5), Seed::from_number(6));
        let entries = Tag { kind: BlockKind::EntriesRaw, number: 0 };
        let mut bytes = vec![0; SEGMENT_HEADER_BYTES as usize];
        let value = &inner[SEGMENT_HEADER_BYTES as usize + 50..];
        put_block(&mut bytes, known, SEGMENT_HEADER_BYTES, entries, &[&[1; 42], value]);
        assert_eq!(bytes[400..], inner[400..]);
        let count = |bytes: &[u8], seed| linked_beside(bytes, SLOT, seed).count();
        let found = [None, Some(other), Some(known)].map(|seed| count(&bytes, seed));
        assert_eq!(found, [1, 1, 0]);
        // What was written over the block is not its own.
        bytes[300] ^= 1;
        assert_eq!(count(&bytes, Some(known)), 1);
    }

    #[test]
    fn a_lost_block_parts_what_stands_before_it_from_what_stands_behind() {
        let mut bytes = segment(40, 1);
        bytes[2000..2100].fill(0);
        assert_eq!(linked_commits(&bytes, 0).count(), 2);
    }

    #[test]
    fn no_run_is_longer_to_look_at_than_the_bytes() {
        // Commit blocks in each other, of which each leads to the end.
        let mut bytes = segment(1, 1).split_off(300);
        bytes.truncate(COMMIT_BLOCK_BYTES as usize);
        let bytes = bytes.repeat(20_000);
        assert_eq!(linked_commits(&bytes, 0).count(), 0);
    }
}
