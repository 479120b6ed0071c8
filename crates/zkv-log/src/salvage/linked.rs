//! Commits that follow one another in a segment of which nothing says whose it is, and what they prove.
//!
//! A CRC is linear: blocks that were moved by some distance are whole with another seed than their own, and
//! those whose offsets have changed by the same bits agree on it. So agreeing on a seed is no proof where a
//! value may be a data file. Two more things are: commits that lead to one another, block by block and by
//! their chains, are of one log, so that all of them agree or all of them were moved; and what such a commit
//! says to be durable ends where one of them does. Of those that were moved, the one that ends there is
//! another one than the one that ended there at first: if both agreed on the seed, they had been moved by
//! nothing.

use std::collections::{BTreeMap, HashSet};

use zkv_io::StorageFile;

use crate::block::{BlockHeader, BlockKind, Seed};
use crate::header::{Identity, SegmentHeader};
use crate::layout::{BLOCK_HEADER_BYTES, COMMIT_BLOCK_BYTES, COMMIT_BYTES};
use crate::position::Position;
use crate::walk::{Chain, CommitMark, commit_block_starts};

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

/// The commits in `slot` that follow one another, agree on a seed and prove something; none where a header says
/// whose the segment is, be it another store's.
pub(crate) fn linked_without_a_name(
    file: &dyn StorageFile,
    identity: &Identity,
    slot: u32,
    file_bytes: u64,
) -> Vec<Linked> {
    let image = Image::read(file, identity.slot_start(slot), identity.slot_bytes, file_bytes);
    match SegmentHeader::decode(&image.bytes) {
        Ok(_) => Vec::new(),
        Err(_) => linked_commits(&image.bytes, 0).collect(),
    }
}

/// The commits in `bytes`, which stand at `offset` of their segment, whosever they are, that follow one another,
/// agree on a seed and prove something.
pub(crate) fn linked_commits(bytes: &[u8], offset: u32) -> impl Iterator<Item = Linked> {
    runs(bytes, offset).into_iter().filter_map(|run| run.linked())
}

fn runs(bytes: &[u8], offset: u32) -> Vec<Run> {
    let starts = commit_block_starts(bytes).filter_map(|start| u32::try_from(start).ok());
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

    /// A segment of commits of one block each, some of them as long as others; each says that those up to the
    /// `lag`th before it are durable.
    fn segment(count: usize, lag: usize) -> Vec<u8> {
        let seed = Seed::from_number(77);
        let mut bytes = vec![0; SEGMENT_HEADER_BYTES as usize];
        let (mut chain, mut ends) = (Chain::default(), Vec::new());
        for number in 0..count {
            let entries = Tag { kind: BlockKind::EntriesRaw, number: 0 };
            for is_commit in [false, true] {
                let offset = u32::try_from(bytes.len()).unwrap();
                if is_commit {
                    let durable = number.checked_sub(lag).map_or(0, |before| ends[before]);
                    let synced_upto = Position { sequence: SEQUENCE, offset: durable };
                    let mark = CommitMark { number: number as u64 + 1, synced_upto, chain };
                    mark.put(&mut bytes, seed, offset, false);
                    ends.push(u32::try_from(bytes.len()).unwrap());
                } else {
                    let value = vec![1; 36 + 12 * (number / 8 % 2)];
                    put_block(&mut bytes, seed, offset, entries, &[&value]);
                }
                let checksum = *bytes[offset as usize..].first_chunk().unwrap();
                chain = chain.and(u32::from_le_bytes(checksum));
            }
        }
        bytes
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
