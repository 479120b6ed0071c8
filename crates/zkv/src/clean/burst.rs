//! Portions that move together. What is moved is cold, and stays where it is put; what is written dies there
//! soon. So about a segment of portions goes to the log's end at once, and few segments hold both.

use std::collections::HashSet;
use std::time::Instant;

use zkv_log::{LogError, Packed, Prepacked, SegmentInfo};

use super::Cleaner;
use super::gather::Gatherer;
use super::mover::PackedPortion;
use super::thread::Budget;
use crate::error::{Error, Result};
use crate::shared::Shared;
use crate::sync::atomic::Ordering;

/// Memory for the records of portions that wait to be appended together.
const RECORD_BYTES_MAX: usize = 32 << 20;

/// How records are moved.
pub(super) struct Manner<P> {
    /// Records that are compressed together, before that.
    pub portion_bytes: usize,
    /// Portions are appended together as soon as they take so much of the log.
    pub burst_bytes: u64,
    /// When to end, behind the portion that it is at: somebody waits.
    pub until: Option<Instant>,
    /// Whether records that have blocks of their own go on as they were packed.
    pub keeps_prepacked: bool,
    pub pack: P,
}

impl<P> Manner<P> {
    /// Whether to end behind the portions that there are.
    fn is_over(&self, cleaner: &Cleaner) -> bool {
        cleaner.is_ending() || self.until.is_some_and(|until| until <= Instant::now())
    }
}

/// Portions that are compressed, and wait to be appended.
#[derive(Default)]
struct Burst {
    portions: Vec<PackedPortion>,
    payload_bytes: u64,
    record_bytes: usize,
    /// Segments of which nothing is needed once the portions are there.
    emptied: HashSet<u32>,
}

impl Burst {
    fn push(&mut self, portion: PackedPortion) {
        self.payload_bytes += portion.payload_bytes();
        self.record_bytes += portion.record_bytes();
        self.emptied.extend(portion.emptied());
        self.portions.push(portion);
    }

    fn is_full(&self, burst_bytes: u64) -> bool {
        self.payload_bytes >= burst_bytes || self.record_bytes >= RECORD_BYTES_MAX
    }
}

impl Shared {
    /// What goes to the log's end at once, so that it fills a segment wherever it begins.
    pub(super) fn burst_bytes(&self) -> u64 {
        let slot_bytes = u64::from(self.log.identity().slot_bytes);
        slot_bytes + slot_bytes / 4
    }

    /// Moves what is needed of `victims` to the log's end, at the moments that `budget` allows. The
    /// caller has the turn.
    pub(super) fn clean<P>(
        &self,
        mut victims: Vec<SegmentInfo>,
        manner: &Manner<P>,
        mut budget: Option<&mut Budget>,
    ) -> Result<()>
    where
        P: Fn(&[&[u8]], Vec<Option<Prepacked>>) -> Result<Packed, LogError>,
    {
        let log = self.view.load().committed.log.clone();
        // Of a second attempt, some may be gone by now, and their slots others'.
        let there: HashSet<u64> = log.segments().iter().map(|one| one.sequence).collect();
        victims.retain(|victim| there.contains(&victim.sequence));
        let mut gatherer = Gatherer::new(&self.keys, log, victims, manner.keeps_prepacked);
        loop {
            let burst = self.next_burst(&mut gatherer, manner)?;
            if burst.portions.is_empty() {
                return Ok(());
            }
            if let Some(budget) = &mut budget {
                budget.wait_for_segment(self, burst.payload_bytes)?;
            }
            self.append_burst(burst)?;
            if let Some(budget) = &mut budget {
                budget.wait(&self.cleaner);
            }
            if manner.is_over(&self.cleaner) {
                return Ok(());
            }
        }
    }

    fn next_burst<P>(&self, gatherer: &mut Gatherer<'_>, manner: &Manner<P>) -> Result<Burst>
    where
        P: Fn(&[&[u8]], Vec<Option<Prepacked>>) -> Result<Packed, LogError>,
    {
        let mut burst = Burst::default();
        loop {
            let mut cleaned = self.writer()?.cleaned.clone();
            // Their portions are appended before the next one.
            cleaned.extend(&burst.emptied);
            let committed = self.view.load().committed.clone();
            let looked = || self.cleaner.note_packed();
            let portion = gatherer.next_portion(&committed, &cleaned, manner.portion_bytes, looked);
            let Some(portion) = portion.map_err(|error| self.lookup_error(error))? else { break };
            drop(committed);
            let packed =
                PackedPortion::new(portion, &manner.pack).map_err(Error::data(&self.path))?;
            burst.push(packed);
            self.cleaner.note_packed();
            if burst.is_full(manner.burst_bytes) || manner.is_over(&self.cleaner) {
                break;
            }
        }
        Ok(burst)
    }

    /// Each portion is a commit, and none of others' comes between.
    fn append_burst(&self, burst: Burst) -> Result<()> {
        let mut writer = self.writer()?;
        for portion in burst.portions {
            let moved = writer.move_portion(portion);
            self.publish_committed(&writer);
            let moved = moved.map_err(|error| self.write_error(error))?;
            self.cleaner.written_bytes.store(writer.log.written_bytes(), Ordering::Relaxed);
            self.cleaner.note_moved(moved);
        }
        self.checkpoint_if_due(&mut writer);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    use zkv_io::MemoryStorage;
    use zkv_record::Record;

    use super::*;
    use crate::options::{Cleaning, Options};

    impl Shared {
        /// Moves what is needed of `segments` at once, and frees nothing.
        pub(crate) fn move_all(&self, segments: Vec<SegmentInfo>) -> Result<()> {
            self.move_all_while(segments, || ())
        }

        /// As [`Shared::move_all`], and does something while each portion is packed.
        pub(crate) fn move_all_while(
            &self,
            segments: Vec<SegmentInfo>,
            meanwhile: impl Fn(),
        ) -> Result<()> {
            let _turn = self.cleaner.take_turn();
            let pack = |entries: &[&[u8]], prepacked| {
                meanwhile();
                self.log.pack_again(entries, prepacked)
            };
            let manner = Manner {
                portion_bytes: 1 << 20,
                burst_bytes: 0,
                until: None,
                keeps_prepacked: true,
                pack,
            };
            self.clean(segments, &manner, None)
        }
    }

    /// Whether each record behind the first `skipped` segments was moved, in the log's order, where
    /// something else is written and flushed while each portion is packed.
    fn moved_between_others(burst_bytes: u64) -> Vec<bool> {
        let options = Options::new().storage(Arc::new(MemoryStorage::new())).slot_bytes(256 << 10);
        let store = options.cleaning(Cleaning::Off).open("store.zkv").unwrap();
        for number in 0..400u64 {
            let mut noise = vec![0; 8_000];
            fastrand::Rng::with_seed(number).fill(&mut noise);
            store.set_bytes(&number.to_be_bytes(), &noise).unwrap();
        }
        store.flush().unwrap();
        let shared = store.shared();
        let mut full = shared.view.load().committed.log.segments();
        full.retain(|segment| segment.is_sealed);
        let written_before = shared.writer().unwrap().log.end();
        let others = AtomicU64::new(1_000);
        let pack = |entries: &[&[u8]], prepacked| {
            let other = others.fetch_add(1, Ordering::Relaxed);
            store.set_bytes(&other.to_be_bytes(), b"other").unwrap();
            store.flush().unwrap();
            shared.log.pack_again(entries, prepacked)
        };
        let _turn = shared.cleaner.take_turn();
        let manner = Manner {
            portion_bytes: 500 << 10,
            burst_bytes,
            until: None,
            keeps_prepacked: true,
            pack,
        };
        shared.clean(full, &manner, None).unwrap();
        assert!(others.load(Ordering::Relaxed) > 1_004);
        let log = shared.view.load().committed.log.clone();
        let mut moved = Vec::new();
        for segment in log.segments() {
            let mut scan = log.scan(segment.slot, None).unwrap();
            while let Some(block) = scan.next_block().unwrap() {
                for entry in block.entries().unwrap() {
                    let key = Record::decode(entry.unwrap()).unwrap().key;
                    let number = u64::from_be_bytes(key.try_into().unwrap());
                    if block.position >= written_before {
                        moved.push(number < 1_000);
                    }
                }
            }
        }
        assert_eq!(store.verify(|_| {}).unwrap().findings, []);
        moved
    }

    #[test]
    fn what_is_moved_together_lies_together() {
        let runs = |burst_bytes| {
            let moved = moved_between_others(burst_bytes);
            moved.chunk_by(|one, next| one == next).filter(|run| run[0]).count()
        };
        assert!(runs(0) > 4);
        assert_eq!(runs(u64::MAX), 1);
    }
}
