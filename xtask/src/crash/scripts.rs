//! Which workloads are run: all short ones, some that are written out, and long ones by seed.

use zkv::Durability;

use super::model::DEFAULT;
use super::workload::{BUFFER_BYTES, HUGE_BYTES, IndexFile, LARGE_BYTES, Operation, Workload};

/// What the exhaustive run is made of: each kind of operation, and each kind of value.
pub const ALPHABET: [Operation; 18] = [
    Operation::Set(DEFAULT, 0, 40),
    Operation::Set(DEFAULT, 1, 900),
    Operation::Set(DEFAULT, 0, LARGE_BYTES),
    Operation::Set(DEFAULT, 1, HUGE_BYTES),
    Operation::Delete(DEFAULT, 0),
    Operation::Batch { key: 0, bytes: 60, count: 4 },
    Operation::Batch { key: 0, bytes: 18_000, count: 4 },
    Operation::Transact { key: 0, bytes: 50, is_synced: true },
    Operation::Clear(1),
    Operation::Drop(1),
    Operation::Flush,
    Operation::Sync,
    Operation::Reopen,
    Operation::Kill,
    Operation::LoseIndex,
    Operation::RebuildIndex,
    Operation::Backup,
    Operation::Compact,
];

/// Workloads of more than three operations that chance seldom finds, each with every durability.
const DIRECTED: &[&str] = &[
    // The index file is ahead of the log: by what is missing, and by what is something else.
    "s0.40,backup,s1.900,s0.50,d0,reopen,restore,s2.40,reopen,s1.40",
    "s0.40,backup,s1.900,rebuild-index,restore,s2.900,kill,s1.40",
    // What was buffered of a collection that was cleared, and what an index knew of one that was dropped.
    "c1.s0.40,c1.s1.40,c1.clear,c1.s2.40,reopen,s0.40",
    "c1.s0.40,rebuild-index,c1.drop,kill,flush,s0.40",
    // By segments.
    "s0.40,backup,s1.300000,s2.300000,reopen,restore,s1.300000,d0,kill,s2.40",
];

/// Workloads that give space back: what is looked at begins with the first operation that does. Seed 8
/// is that of values which fill a segment with more than is moved at once.
const CLEANING: &[&str] = &[
    // A mark moves twice, while the segment of what it speaks of stays: that is mostly alive. That of a
    // key that is there again goes.
    "flushed/index/1/s40.900,s41.900,b100.60000x12,b0.60000x12,d40,d41,b0.60000x12,s41.60,\
     b0.60000x12,clean,b0.60000x12,b0.60000x12,clean,lose-index",
    // The segment that a mark speaks of goes first, and the mark later.
    "buffered/index/1/s40.900,b0.60000x12,d40,b0.60000x12,b0.60000x12,clean,b0.60000x12,clean,\
     b0.60000x12,clean,lose-index",
    // A key is deleted, moved, set again, deleted again. Another one is in one cell twice.
    "flushed/index/1/s40.900,s41.20,s41.30,b0.60000x12,d40,b0.60000x12,clean,s40.50,b0.60000x12,clean,d40,\
     b0.60000x12,clean,kill,b0.60000x12",
    // In pieces.
    "flushed/index/8/b0.60000x30,s40.900,b0.60000x30,b20.60000x30,d40,b0.60000x30,clean,compact",
    // Freed slots are used again, behind a snapshot that held them.
    "synced/index/1/b0.60000x12,hold,b0.60000x12,b0.60000x12,clean,b20.60000x12,release,clean,\
     b20.60000x12,b0.60000x12,reopen",
    "buffered/index/1/s0.300000,s1.300000,hold,s0.300000,d1,s2.300000,compact,s3.300000,s4.300000,\
     release,compact,s5.300000",
    // All of it becomes one segment, and the file is cut.
    "synced/index/1/b0.60000x12,b20.60000x12,c1.s40.900,c1.d40,b0.60000x12,c1.clear,compact,s1.40,\
     compact,kill,s1.50",
    "flushed/no-index/1/b0.60000x12,b0.60000x12,d0,compact,b0.60000x12,b0.60000x12,clean,reopen",
    // What was cleared and dropped is in the index until its segment goes.
    "flushed/index/1/c2.s3.900,b0.60000x12,c2.drop,b0.60000x12,c1.clear,c2.s3.50,clean,b0.60000x12,\
     c2.d3,b0.60000x12,clean,rebuild-index,b0.60000x12",
    // The last number of a collection is in none of its records any more, but for one of a dropped one.
    "flushed/index/1/b0.60000x12,c2.s3.900,b0.60000x12,b100.60000x12,c2.s4.50,b120.60000x12,c2.drop,\
     b0.60000x12,b0.60000x12,clean,lose-index,c3.s1.40",
    // An index file that was out of use knows segments that were freed, and whose slots were used again.
    "flushed/index/1/b0.60000x12,s40.900,reopen,switch-index,d40,b0.60000x12,b0.60000x12,clean,\
     b0.60000x12,b0.60000x12,clean,switch-index,s1.40,clean,switch-index,compact,switch-index",
    // A backup of a store that was cleaned, and one of a cleaned store's past in its place.
    "flushed/index/1/b0.60000x12,s40.900,backup,d40,b0.60000x12,b0.60000x12,clean,b0.60000x12,\
     backup,s40.50,compact,restore,clean,b0.60000x12",
    // The index file is appended to, and a crash leaves the checkpoint before, of which segments were freed.
    "flushed/appended/1/b0.60000x12,s40.900,c1.s40.40,rebuild-index,b0.60000x12,d40,b0.60000x12,clean,s41.60,\
     b0.60000x12,clean,b0.60000x12,kill,compact,reopen,s40.50,b0.60000x12,clean",
    "synced/appended/1/b0.60000x12,hold,b0.60000x12,b0.60000x12,clean,b20.60000x12,release,clean,\
     rebuild-index,b20.60000x12,clean,switch-index,d0,b0.60000x12,clean,switch-index,clean",
];

impl Workload {
    /// The workloads that are written out, but for those that clean.
    pub fn directed() -> Result<Vec<Self>, String> {
        let durabilities = ["synced", "flushed", "buffered"];
        let texts = DIRECTED.iter().flat_map(|operations| {
            durabilities.map(|durability| format!("{durability}/index/1/{operations}"))
        });
        texts.map(|text| text.parse()).collect()
    }

    /// Those that give space back.
    pub fn cleaning() -> Result<Vec<Self>, String> {
        CLEANING.iter().map(|text| text.parse()).collect()
    }

    /// All workloads of `count` operations of the alphabet, with all durabilities.
    pub fn all(count: u32) -> Vec<Self> {
        let letters = ALPHABET.len();
        let mut all = Vec::new();
        for durability in [Durability::Synced, Durability::Flushed, Durability::Buffered] {
            for number in 0..letters.pow(count) {
                let digits = (0..count).scan(number, |left, _| {
                    let letter = ALPHABET[*left % letters];
                    *left /= letters;
                    Some(letter)
                });
                let operations = digits.collect();
                // As often the one as the other, whichever operations there are.
                let is_appended = number.count_ones() % 2 == 1;
                let index = if is_appended { IndexFile::Appended } else { IndexFile::Rewritten };
                all.push(Self { durability, index, seed: 1, operations });
            }
        }
        all
    }

    /// A long workload, chosen by `seed`. Most values are small; some runs write enough to fill
    /// segments and to train dictionaries.
    pub fn random(seed: u64) -> Self {
        Self::random_with(seed, seed.is_multiple_of(3))
    }

    /// As [`Workload::random`], of those that clean or of the others.
    pub fn random_with(seed: u64, cleans: bool) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let durabilities = [Durability::Synced, Durability::Flushed, Durability::Buffered];
        let durability = durabilities[random.usize(..3)];
        let index = match random.u8(..8) {
            0 => IndexFile::Unused,
            _ if seed % 2 == 1 => IndexFile::Appended,
            _ => IndexFile::Rewritten,
        };
        let (keys, most_bytes) = (random.u8(2..24), [60, 1500, 9000][random.usize(..3)]);
        let operations = if cleans {
            let count = random.usize(6..20);
            (0..count).map(|_| cleaning_operation(&mut random)).collect()
        } else {
            let count = random.usize(4..60);
            (0..count).map(|_| random_operation(&mut random, keys, most_bytes)).collect()
        };
        Self { durability, index, seed, operations }
    }

    /// What another process does with the store after a crash of this one.
    pub fn next_life(&self, number: u32) -> Self {
        let seed = self.seed ^ u64::from(number) << 20 ^ self.operations.len() as u64;
        // Where little was written, one that fills segments would take most of the time.
        let cleans = self.first_cleaning().is_some() && self.buffer_bytes().is_some();
        let next = Self::random_with(seed, cleans);
        let operations = next.operations.into_iter().take(6).collect();
        Self { operations, ..next }
    }
}

/// One of few operations that fill segments, kill most of what they hold, and give it back.
fn cleaning_operation(random: &mut fastrand::Rng) -> Operation {
    let (key, place) = (random.u8(..14), [DEFAULT, DEFAULT, 1, 2][random.usize(..4)]);
    match random.u8(..100) {
        0..30 => {
            Operation::Batch { key, bytes: random.u32(20_000..60_000), count: random.u8(6..14) }
        }
        30..36 => Operation::Set(place, key, HUGE_BYTES),
        36..44 => Operation::Set(place, key, random.u32(..2_000)),
        44..54 => Operation::Delete(place, key),
        54..57 => Operation::Clear(random.u8(1..3)),
        57..59 => Operation::Drop(random.u8(1..3)),
        59..73 => Operation::Clean,
        73..78 => Operation::Compact,
        78..82 => Operation::Hold,
        82..85 => Operation::Release,
        85..88 => Operation::SwitchIndex,
        88..91 => Operation::Reopen,
        91..94 => Operation::Kill,
        94 => Operation::LoseIndex,
        95..97 => Operation::RebuildIndex,
        97 => Operation::Backup,
        98 => Operation::Restore,
        _ => Operation::Sync,
    }
}

fn random_operation(random: &mut fastrand::Rng, keys: u8, most_bytes: u32) -> Operation {
    let key = random.u8(..keys);
    let place = [DEFAULT, DEFAULT, 1, 2][random.usize(..4)];
    match random.u8(..100) {
        0..46 => Operation::Set(place, key, random.u32(..most_bytes)),
        46..49 => Operation::Set(place, key, random.u32(66_000..LARGE_BYTES)),
        49 => Operation::Set(place, key, HUGE_BYTES),
        50..60 => Operation::Delete(place, key),
        60..67 => {
            let bytes = random.u32(..most_bytes.min(BUFFER_BYTES / 16));
            Operation::Batch { key, bytes, count: random.u8(1..10) }
        }
        // Longer than a buffer, and longer than a slot.
        67..69 => Operation::Batch { key, bytes: random.u32(9_000..20_000), count: 8 },
        69 => Operation::Batch { key, bytes: 60_000, count: 12 },
        70..75 => {
            Operation::Transact { key, bytes: random.u32(..most_bytes), is_synced: random.bool() }
        }
        75..78 => Operation::Clear(random.u8(1..3)),
        78..80 => Operation::Drop(random.u8(1..3)),
        80..83 => Operation::Flush,
        83..86 => Operation::Sync,
        86..90 => Operation::Reopen,
        90..94 => Operation::Kill,
        94..96 => Operation::LoseIndex,
        96..98 => Operation::RebuildIndex,
        98 => Operation::Backup,
        _ => Operation::Restore,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use zkv_sim::{Event, SimDisk};

    use super::super::session::Session;
    use super::*;

    const SEGMENT_MAGIC: &[u8] = b"\x8bzkvseg\n";
    const INDEX_MAGIC: &[u8] = b"zkvindex";

    /// Segments that were freed, bytes that were cut off, and segments begun in slots that others had.
    fn done_by(workload: &Workload) -> (u64, u64, usize) {
        let mut session = Session::new(workload, SimDisk::recording(workload.seed));
        session.open().unwrap();
        let (mut segments, mut bytes_cut) = (0, 0);
        for (number, operation) in workload.operations.iter().enumerate() {
            session.step(number, *operation).unwrap();
            session.compare().unwrap();
            if matches!(operation, Operation::Clean | Operation::Compact) {
                let done = session.store.as_ref().unwrap().stats().unwrap().cleaning;
                (segments, bytes_cut) = (segments + done.segments, bytes_cut + done.bytes_cut);
            }
        }
        session.end_process();
        let mut begun: BTreeMap<u64, BTreeSet<Vec<u8>>> = BTreeMap::new();
        for event in session.disk.events(0) {
            if let Event::Write { offset, bytes, .. } = event
                && bytes.starts_with(SEGMENT_MAGIC)
            {
                // With its sequence number.
                begun.entry(offset).or_default().insert(bytes[68..76].to_vec());
            }
        }
        (segments, bytes_cut, begun.values().map(|of_slot| of_slot.len() - 1).sum())
    }

    #[test]
    fn workloads_that_clean_free_segments_use_slots_again_and_cut_the_file() {
        let done: Vec<_> = Workload::cleaning().unwrap().iter().map(done_by).collect();
        assert!(done.iter().all(|(segments, ..)| *segments > 1), "{done:?}");
        assert!(done.iter().filter(|(_, cut, _)| *cut > 0).count() > 3, "{done:?}");
        assert!(done.iter().filter(|(_, _, used_again)| *used_again > 1).count() > 3, "{done:?}");
    }

    #[test]
    fn index_files_are_appended_to_while_segments_are_freed() {
        let all = Workload::cleaning().unwrap();
        let appended = all.iter().filter(|workload| workload.index == IndexFile::Appended);
        let headers: Vec<usize> = appended
            .map(|workload| {
                let mut session = Session::new(workload, SimDisk::recording(workload.seed));
                session.open().unwrap();
                for (number, operation) in workload.operations.iter().enumerate() {
                    session.step(number, *operation).unwrap();
                }
                session.end_process();
                let behind_the_first = |event: &Event| {
                    matches!(event, Event::Write { offset: 1.., bytes, .. } if bytes.starts_with(INDEX_MAGIC))
                };
                session.disk.events(0).iter().filter(|event| behind_the_first(event)).count()
            })
            .collect();
        assert!(headers.len() > 1 && headers.iter().all(|count| *count > 1), "{headers:?}");
    }

    #[test]
    fn the_exhaustive_run_has_every_order_of_every_operation() {
        let all = Workload::all(2);
        assert_eq!(all.len(), 3 * 18 * 18);
        let has = |first, second| all.iter().any(|one| one.operations == [first, second]);
        assert!(has(ALPHABET[17], ALPHABET[0]) && has(ALPHABET[0], ALPHABET[17]));
    }
}
