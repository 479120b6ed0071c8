//! Compaction: all of the store is written anew, as small as it gets.

use std::collections::HashSet;

use zkv_log::layout::MEMBER_BYTES;
use zkv_log::{FreeSlots, Packing, SegmentInfo};

use super::burst::Manner;
use crate::error::{Error, Result};
use crate::options::Cleaning;
use crate::shared::Shared;
use crate::store::Store;
use crate::sync::atomic::Ordering;
use crate::write::writer::Writer;

/// Memory for records that are sorted together.
const PORTION_BYTES: usize = 20 << 20;

/// Bytes that are cleaned for each that freeing them writes, which are dead in the file that is made.
const CLEANED_A_ROLL_CALL: u64 = 32;

/// How many segments at least may stand in the file's way to its end, one after another: of a store of a few, what
/// is moved may do so, too.
const LAST_TURNS_MIN: usize = 16;

/// How to compact a store.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct CompactOptions {
    level: Option<i32>,
}

/// How far a compaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactProgress {
    /// Segments that were written anew.
    pub segments_done: u64,
    /// All that there were.
    pub segments_total: u64,
}

impl CompactOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// zstd's level for what is written anew, -7 to 22 but for 0, default that of the store's
    /// [`Options`](crate::Options). Level 9 takes ten times as long as 5, and 19 twenty times as long.
    pub fn compression_level(mut self, level: i32) -> Self {
        self.level = Some(level);
        self
    }
}

impl Store {
    /// Writes the whole store anew: only what is needed, in as few segments as it takes, sorted by key
    /// as far as 20 MiB of memory allow, with a new dictionary, trained on the first of it. The file is
    /// cut where it ends then. Reads and writes go on meanwhile; writes that overwrite faster than this moves records
    /// wait for it now and then, up to a second each.
    ///
    /// It takes two slots of room on the disk, and 1,280 bytes a segment, and nothing that a snapshot holds comes
    /// back before that is dropped. Whatever interrupts it, what was done stays done; closing the store interrupts
    /// it, unless that close fails. A store that is written to needs it seldom: see
    /// [`Options::cleaning`](crate::Options::cleaning).
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("pages.zkv");
    /// let store = zkv::Store::open(&path)?;
    /// store.set("answer", &42u32)?;
    /// store.compact(|progress| {
    ///     println!("{} of {} segments", progress.segments_done, progress.segments_total);
    /// })?;
    /// # store.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::CleaningNeedsRoom`] where the disk is full, and neither free slots nor what is dead gives
    /// room enough: it says how much does. Of kind `Io` where something else cannot be written, `Corrupt`
    /// where something that may be needed cannot be read, `ReadOnly`, `Misuse` after `close`. The store is
    /// whole all the same.
    pub fn compact(&self, progress: impl FnMut(CompactProgress)) -> Result<()> {
        self.compact_with(&CompactOptions::default(), progress)
    }

    /// As [`Store::compact`], as `options` say.
    ///
    /// # Errors
    /// As [`Store::compact`]; of kind `Misuse` also where the level is out of its range.
    pub fn compact_with(
        &self,
        options: &CompactOptions,
        mut progress: impl FnMut(CompactProgress),
    ) -> Result<()> {
        let shared = self.shared();
        let mut log_options = shared.options.log.clone();
        log_options.compression_level = options.level.unwrap_or(log_options.compression_level);
        log_options.check().map_err(Error::data(&shared.path))?;
        let raw_bytes = shared.live().0.live_raw_bytes();
        let packing = Packing::new(&shared.log, &log_options, raw_bytes);
        let mut compact = || shared.mended(|| shared.compact(&packing, &mut progress));
        let compacted = compact().or_else(|error| match error.is_without_room() {
            // Segments that hold little give room for those that hold more.
            true => shared.clean_all().and_then(|()| compact()),
            false => Err(error),
        });
        compacted.map_err(|error| shared.name_room(error))
    }
}

impl Shared {
    fn compact(&self, packing: &Packing, progress: &mut dyn FnMut(CompactProgress)) -> Result<()> {
        let _compacting = self.cleaner.begin_compaction();
        let mut left = {
            let _turn = self.cleaner.take_turn();
            let mut writer = self.writer()?;
            self.flush_all(&mut writer)?;
            let mut segments = writer.log.log().view().segments();
            segments.reverse();
            segments
        };
        let segments_total = left.len() as u64;
        let mut report = |left: usize| {
            let segments_done = segments_total - left as u64;
            progress(CompactProgress { segments_done, segments_total });
        };
        report(left.len());
        loop {
            match self.compact_next(&mut left, packing) {
                // Without the turn: whoever listens may clean, or close the store.
                Ok(true) => report(left.len()),
                Ok(false) => break,
                Err(error) => self.go_on_unless_closed(error)?,
            }
        }
        // Beside writers, what stands in the way next may be theirs: there is an end to it all the same.
        let segments = self.log.view().segments().len();
        for _ in 0..segments.max(LAST_TURNS_MIN) {
            match self.write_last_anew(packing) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => self.go_on_unless_closed(error)?,
            }
        }
        let _turn = self.cleaner.take_turn();
        // What is written next is like what is here.
        packing.hand_over(&self.log);
        let mut writer = self.writer()?;
        self.cut(&mut writer)?;
        writer.log.trim().map_err(Error::data(&self.path))
    }

    /// Writes the next of `left` anew; `false` where there are none.
    fn compact_next(&self, left: &mut Vec<SegmentInfo>, packing: &Packing) -> Result<bool> {
        let _turn = self.cleaner.take_turn();
        let Some(batch) = self.next_batch(left)? else { return Ok(false) };
        let is_written = self.write_anew(batch.clone(), packing);
        if matches!(is_written, Err(Error::Closed)) {
            // For where the store is not closed, after all.
            left.extend(batch.into_iter().rev());
        }
        is_written?;
        self.write_dead_anew(left, packing)?;
        Ok(true)
    }

    /// What a close has cut short goes on where that close fails. The caller has no turn: others wait for it.
    pub(super) fn go_on_unless_closed(&self, error: Error) -> Result<()> {
        if !matches!(error, Error::Closed) {
            return Err(error);
        }
        self.cleaner.wait_for_closings();
        self.check_writable()
    }

    /// Where others overwrite so much meanwhile that they wait for the cleaning, writes anew what is left of that,
    /// as the thread would, but for `left`, whose turn comes. No more than a burst of it: there is an end to this
    /// beside somebody who writes without pause.
    fn write_dead_anew(&self, left: &[SegmentInfo], packing: &Packing) -> Result<()> {
        let Cleaning::Automatic { dead_percent, .. } = self.options.cleaning else { return Ok(()) };
        let victims = {
            let writer = self.writer()?;
            let survey = self.survey(&writer);
            if !self.cleaner.is_behind.load(Ordering::Relaxed) {
                return Ok(());
            }
            let left: HashSet<u64> = left.iter().map(|segment| segment.sequence).collect();
            let is_skipped =
                |one: &SegmentInfo| left.contains(&one.sequence) || self.cleaner.is_damaged(one);
            survey.victims(dead_percent.into(), self.burst_bytes(), is_skipped)
        };
        match victims.is_empty() {
            true => Ok(()),
            false => self.write_anew(victims, packing),
        }
    }

    /// Writes the last segment of the file anew where it stands in the way of cutting that; `false` where none does.
    fn write_last_anew(&self, packing: &Packing) -> Result<bool> {
        let _turn = self.cleaner.take_turn();
        let last = {
            let mut writer = self.writer()?;
            if !writer.cleaned.is_empty() {
                self.checkpoint(&mut writer)?;
            }
            self.last_in_the_way(&mut writer, |_| 0)?
        };
        let Some(last) = last else { return Ok(false) };
        self.write_anew(vec![last], packing)?;
        self.write_dead_anew(&[], packing)?;
        Ok(true)
    }

    fn write_anew(&self, segments: Vec<SegmentInfo>, packing: &Packing) -> Result<()> {
        let pack = |entries: &[&[u8]], _| packing.pack(&self.log, entries);
        // Each portion by itself: it takes the memory of several.
        let (portion_bytes, burst_bytes, until) = (PORTION_BYTES, 0, None);
        // All of it is compressed as the options say now.
        let manner = Manner { portion_bytes, burst_bytes, until, keeps_prepacked: false, pack };
        {
            let _moving = self.cleaner.begin_moving();
            self.clean(segments, &manner, None)?;
        }
        if self.cleaner.is_ending() {
            // Whoever closes the store waits for this.
            return Err(Error::Closed);
        }
        let mut writer = self.writer()?;
        match self.is_freeing_worth_it(&writer) {
            true => self.checkpoint(&mut writer),
            false => Ok(()),
        }
    }

    /// Whether what was cleaned is more than what freeing it writes: of a log of many segments, the two roll calls
    /// of a checkpoint and of what is freed behind it are longer than a slot.
    fn is_freeing_worth_it(&self, writer: &Writer) -> bool {
        let segments = writer.committed.log.segments().len();
        let roll_calls = (2 * segments * MEMBER_BYTES) as u64;
        let cleaned = writer.cleaned.len() as u64 * u64::from(self.log.identity().slot_bytes);
        roll_calls * CLEANED_A_ROLL_CALL <= cleaned
    }

    /// The oldest segments that together need about one slot, or what is left of the last segment where
    /// no slot is free: they are free when another one is begun. Those that have been cleaned meanwhile
    /// are passed over. The one that is being written comes last: by then there is room for another.
    fn next_batch(&self, left: &mut Vec<SegmentInfo>) -> Result<Option<Vec<SegmentInfo>>> {
        let mut writer = self.writer()?;
        let survey = writer.survey();
        let FreeSlots { at_end, before, .. } = writer.log.free_slots();
        let room_bytes = match at_end + before > 0 {
            true => self.log.identity().slot_bytes,
            false => writer.log.room_bytes(),
        };
        let (mut batch, mut needed_bytes) = (Vec::new(), 0);
        while let Some(segment) = left.last() {
            if segment.sequence == writer.log.end().sequence {
                if !batch.is_empty() {
                    break;
                }
                // What is left stands in the segment that is being written.
                self.rebase(&mut writer)?;
            }
            let needed = survey.needed_bytes(segment);
            needed_bytes += needed.unwrap_or(0);
            if !batch.is_empty() && needed_bytes > u64::from(room_bytes) {
                break;
            }
            batch.extend(needed.map(|_| *segment));
            left.pop();
        }
        Ok((!batch.is_empty()).then_some(batch))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::sync::{Arc, Mutex};

    use zkv_io::MemoryStorage;

    use super::super::share::FirstShare;
    use super::super::tests::in_time;
    use super::*;
    use crate::options::Options;

    #[test]
    fn a_listener_may_clean_and_close_the_store() {
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let storage = Arc::new(MemoryStorage::new());
            let store = Options::new().storage(storage).slot_bytes(256 << 10);
            let store = store.open("store.zkv").unwrap();
            for number in 0..4_000u64 {
                store.set_bytes(&(number % 2_000).to_be_bytes(), &noise(number)).unwrap();
            }
            let mut cleaned = Vec::new();
            let compacted = store.compact(|progress| {
                cleaned.push(store.clean().map_err(|error| error.kind()));
                // Meanwhile the cleaning thread looks whether there is something to do.
                std::thread::sleep(std::time::Duration::from_millis(120));
                if progress.segments_done > 0 {
                    store.clone().close().unwrap();
                }
            });
            done.send((compacted, cleaned)).unwrap();
        });
        let (compacted, cleaned) =
            is_done.recv_timeout(std::time::Duration::from_secs(60)).expect("it hangs");
        assert!(matches!(compacted, Err(Error::Closed)), "{compacted:?}");
        assert_eq!(cleaned, [Ok(()), Ok(())]);
    }

    #[test]
    fn the_cleaning_thread_leaves_a_store_alone_that_is_compacted() {
        let storage = Arc::new(MemoryStorage::new());
        let storage = || Arc::clone(&storage) as Arc<dyn zkv_io::Storage>;
        let options = || Options::new().storage(storage()).slot_bytes(256 << 10);
        let store = options().cleaning(Cleaning::Off).open("store.zkv").unwrap();
        for number in 0..10_000u64 {
            store.set_bytes(&number.to_be_bytes(), &noise(number)).unwrap();
        }
        store.flush().unwrap();
        for number in (0..10_000u64).filter(|number| number % 5 > 1) {
            store.delete_bytes(&number.to_be_bytes()).unwrap();
        }
        store.close().unwrap();
        let store = options().open("store.zkv").unwrap();
        // The thread has something to look at while the listener takes its time.
        store.set_bytes(b"news", b"").unwrap();
        store.compact(|_| std::thread::sleep(std::time::Duration::from_millis(20))).unwrap();
        assert_eq!(store.stats().unwrap().cleaning.marks_dropped, 6_000);
        assert_eq!(store.len(), 4_001);
    }

    fn noise(seed: u64) -> Vec<u8> {
        let mut value = vec![0; 400];
        fastrand::Rng::with_seed(seed).fill(&mut value);
        value
    }

    /// Each roll call names all segments: behind each slot, two of them were longer than what it gave back.
    #[test]
    fn a_compaction_of_many_small_segments_takes_little_room() {
        const SLOT: u32 = 64 << 10;
        let storage = Arc::new(MemoryStorage::new());
        let path = std::path::Path::new("store.zkv");
        let log = zkv_log::LogOptions { slot_bytes: SLOT, ..Default::default() };
        zkv_log::create(&*storage, path, &log).unwrap();
        let store = Options::new().storage(Arc::clone(&storage) as _).open(path).unwrap();
        for number in 0..60_000u64 {
            store.set_bytes(&number.to_be_bytes(), &noise(number)).unwrap();
        }
        store.flush().unwrap();
        let file_bytes = || store.stats().unwrap().data_file_bytes;
        let (before, mut most, mut segments) = (file_bytes(), 0, 0);
        store
            .compact(|progress| {
                segments = progress.segments_total;
                most = file_bytes().max(most);
            })
            .unwrap();
        assert!(segments > 350, "{segments} segments");
        let room = most - before;
        let roll_calls = before / CLEANED_A_ROLL_CALL;
        assert!(room < 8 * u64::from(SLOT) + 1280 * segments + roll_calls, "{room} bytes");
        assert_eq!(store.len(), 60_000);
    }

    #[test]
    fn a_close_waits_for_no_compaction_to_give_its_turn_back() {
        let storage = Arc::new(MemoryStorage::new());
        let store = Options::new().storage(storage).open("store.zkv").unwrap();
        store.set_bytes(b"key", b"value").unwrap();
        let shared = store.shared();
        shared.cleaner.state().first_share = FirstShare::Open;
        let _compacting = shared.cleaner.begin_compaction();
        let _turn = shared.cleaner.take_turn();
        let of_close = Arc::clone(shared);
        in_time(move || of_close.clean_in_closing().unwrap());
    }

    /// Who asked for it was told that the store was closed, and it was not.
    #[test]
    fn a_close_waits_for_no_more_than_one_batch_and_where_it_fails_the_compaction_goes_on() {
        let storage = Arc::new(MemoryStorage::new());
        let options = Options::new().storage(storage).slot_bytes(256 << 10);
        let store = options.cleaning(Cleaning::Off).open("store.zkv").unwrap();
        for number in 0..4_000u64 {
            store.set_bytes(&number.to_be_bytes(), &noise(number)).unwrap();
        }
        let cleaner = &store.shared().cleaner;
        let (reports, closing) = (AtomicU64::new(0), Mutex::new(None));
        std::thread::scope(|scope| {
            let compacted = store.compact(|progress| {
                assert!(progress.segments_total > 4);
                if reports.fetch_add(1, Ordering::Relaxed) > 0 {
                    return;
                }
                // As whoever closes the store has it while it stops the cleaning thread.
                *closing.lock().unwrap() = Some(cleaner.begin_closing());
                cleaner.state().is_ending = true;
                scope.spawn(|| {
                    while cleaner.stats().moved_bytes == 0 {
                        std::thread::yield_now();
                    }
                    assert_eq!(reports.load(Ordering::Relaxed), 1);
                    cleaner.state().is_ending = false;
                    // It has found no room for what waits in buffers.
                    closing.lock().unwrap().take();
                });
            });
            compacted.unwrap();
        });
        assert!(reports.into_inner() > 4);
        assert_eq!(store.len(), 4_000);
        assert_eq!(store.verify(|_| {}).unwrap().findings, []);
    }

    /// Neither the thread nor the compaction looked at what is overwritten before that was over.
    #[test]
    fn what_is_overwritten_beside_a_compaction_is_cleaned_with_it() {
        let storage = Arc::new(MemoryStorage::new());
        let options = Options::new().storage(storage).slot_bytes(256 << 10);
        let store = options.memory_buffer_bytes(64 << 10).open("store.zkv").unwrap();
        let write = |number: u64, seed: u64| {
            store.set_bytes(&number.to_be_bytes(), &noise(seed)).unwrap();
        };
        const HOT: u64 = 500;
        const KEYS: u64 = 6_500;
        (0..KEYS).for_each(|number| write(number, number));
        store.flush().unwrap();
        let (mut rounds, mut most) = (0, 0);
        store
            .compact(|_| {
                rounds += 1;
                (0..10 * HOT).for_each(|number| write(number % HOT, KEYS * rounds + number));
                store.flush().unwrap();
                most = most.max(store.stats().unwrap().data_file_bytes);
            })
            .unwrap();
        let live_bytes = KEYS * 420;
        assert!(rounds > 5, "{rounds} times");
        assert!(most < 4 * live_bytes, "{most} bytes, of {live_bytes}, in {rounds} rounds");
        assert_eq!(store.len(), KEYS);
        assert_eq!(store.verify(|_| {}).unwrap().findings, []);
    }
}
