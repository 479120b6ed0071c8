//! A share of the cleaning that somebody waits for. The thread looks a while after the first write, and cleans in
//! portions that take their time: programs that end before that, each time, would never clean.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use zkv_log::SegmentInfo;

use super::Cleaner;
use super::loose::SEALS_READ_MAX;
use super::thread::{Asker, Budget};
use crate::error::Result;
use crate::options::Cleaning;
use crate::shared::Shared;
use crate::sync::atomic::Ordering;

/// A share reads so many bytes for each that it may move, at the most, so that it ends, too, where next to nothing of
/// what it reads has to be moved: all that is given back.
const LOOKED_TIMES: u64 = 4;
/// How long a share takes at the most, but for the portion that it is at and for freeing what was cleaned.
const SHARE_TIME: Duration = Duration::from_secs(1);
/// How long writes wait for that of the thread, all of them together: a little longer, for the portion that it is at.
const SHARE_WAIT_MAX: Duration = Duration::from_millis(1_500);
/// Records that a share moves together: few enough that it can end in time at high levels, too.
pub(super) const SHARE_PORTION_BYTES: usize = 256 << 10;

/// Who has cleaned since the thread was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum FirstShare {
    #[default]
    Open,
    /// The thread is at it.
    OfThread,
    /// A write is, which was there before the thread.
    OfWrite,
    /// A write has been.
    Written,
    /// The thread has, or has found nothing to clean.
    Done,
}

/// What may still be done.
pub(super) struct Share {
    moved_bytes_max: u64,
    looked_bytes_left: u64,
    /// It ends then, but for the portion that it is at.
    pub(super) until: Instant,
}

impl Share {
    pub(super) fn is_left(&self, cleaner: &Cleaner) -> bool {
        let moved_bytes = cleaner.moved_bytes.load(Ordering::Relaxed);
        moved_bytes < self.moved_bytes_max && self.looked_bytes_left > 0
    }

    pub(super) fn is_over(&self) -> bool {
        self.until <= Instant::now()
    }

    /// Leaves of `victims`, of which each is to be read, as many as it takes.
    pub(super) fn take(&mut self, victims: &mut Vec<SegmentInfo>) {
        let left = &mut self.looked_bytes_left;
        let taken = victims.iter().take_while(|victim| {
            let is_taken = *left > 0;
            *left = left.saturating_sub(victim.data_bytes.into());
            is_taken
        });
        let count = taken.count();
        victims.truncate(count);
    }
}

/// The share that a write has taken on.
struct OfWrite<'a>(&'a Cleaner);

impl Drop for OfWrite<'_> {
    fn drop(&mut self) {
        {
            let mut state = self.0.state();
            if state.first_share == FirstShare::OfWrite {
                state.first_share = FirstShare::Written;
            }
        }
        self.0.changed.notify_all();
    }
}

impl Cleaner {
    /// Lets the caller clean in the thread's place, where nobody has begun.
    fn begin_share(&self) -> Option<OfWrite<'_>> {
        let mut state = self.state();
        if state.first_share != FirstShare::Open || state.is_ending || state.compactions > 0 {
            return None;
        }
        state.first_share = FirstShare::OfWrite;
        Some(OfWrite(self))
    }

    /// Where the thread is at its first share, waits for that; whether it is done then. Nobody waits again
    /// behind a wait that was for nothing.
    fn wait_for_first_share(&self) -> bool {
        let mut state = self.state();
        if state.first_share != FirstShare::OfThread {
            return false;
        }
        let end = *state.share_wait_ends.get_or_insert_with(|| Instant::now() + SHARE_WAIT_MAX);
        while state.first_share == FirstShare::OfThread && state.is_running {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || state.compactions > 0 {
                return false;
            }
            let waited = self.changed.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        state.first_share == FirstShare::Done
    }

    /// Notes that the thread has cleaned, unless it was cut short.
    fn end_first_share(&self) {
        {
            let mut state = self.state();
            if !state.is_ending {
                state.first_share = FirstShare::Done;
            }
        }
        self.changed.notify_all();
    }
}

impl Shared {
    /// As much as others have written, or a segment, without what has been moved.
    fn share(&self) -> Share {
        let moved = self.cleaner.moved_bytes.load(Ordering::Relaxed);
        let others = self.cleaner.written_bytes().saturating_sub(moved);
        let bytes = self.burst_bytes().max(others);
        let looked_bytes_left = LOOKED_TIMES * bytes.saturating_sub(moved);
        Share { moved_bytes_max: bytes, looked_bytes_left, until: Instant::now() + SHARE_TIME }
    }

    /// What the thread does first, for which a write may wait.
    pub(super) fn clean_first_share(&self, dead_percent: u64, budget: &mut Budget) -> Result<()> {
        if self.cleaner.state().first_share == FirstShare::Done {
            return Ok(());
        }
        let cleaned =
            self.clean_what_is_due(dead_percent, Asker::Thread(budget, Some(self.share())));
        self.cleaner.end_first_share();
        cleaned
    }

    /// Where the store is closed before the thread has cleaned anything, cleans in its place, but moves no more than
    /// was written.
    pub(crate) fn clean_in_closing(&self) -> Result<()> {
        let Cleaning::Automatic { dead_percent, .. } = self.options.cleaning else { return Ok(()) };
        // A compaction ends by itself where the store is closed: nobody waits for its turn.
        let is_done = self.cleaner.state().first_share == FirstShare::Done;
        if is_done || self.cleaner.is_compacting() {
            return Ok(());
        }
        let dead_percent = dead_percent.into();
        self.learn_what_is_loose(SEALS_READ_MAX);
        {
            let mut writer = self.writer()?;
            // What waits in buffers has the first claim to the room that there is.
            self.flush_all(&mut writer)?;
            if writer.survey().victims(dead_percent, self.burst_bytes(), |_| false).is_empty() {
                return Ok(());
            }
        }
        self.clean_what_is_due(dead_percent, Asker::OfShare(self.share()))
    }

    /// Behind a write that has reached the log: where so much is dead that writes wait for the cleaning, the first
    /// that finds this cleans its share before the thread has begun, or waits for that of the thread. The program
    /// may end without closing the store. The caller holds no lock that cleaning needs.
    pub(crate) fn clean_behind(&self, written: Result<()>) -> Result<()> {
        if written.is_ok() && self.cleaner.is_behind.load(Ordering::Relaxed) {
            // What was written is written: what cannot be cleaned is looked at by the thread.
            let _ = self.clean_share();
        }
        written
    }

    #[cold]
    fn clean_share(&self) -> Result<()> {
        let Cleaning::Automatic { dead_percent, .. } = self.options.cleaning else { return Ok(()) };
        let of_write = self.cleaner.begin_share();
        if of_write.is_some() {
            self.learn_what_is_loose(SEALS_READ_MAX);
            self.clean_what_is_due(dead_percent.into(), Asker::OfShare(self.share()))?;
        } else if !self.cleaner.wait_for_first_share() {
            return Ok(());
        }
        // Nothing is given back before that.
        self.has_freed_cleaned()?;
        self.survey(&*self.writer()?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use zkv_io::MemoryStorage;
    use zkv_sim::{Act, Watched};

    use super::*;
    use crate::options::Options;
    use crate::store::Store;

    const SLOT: u64 = 256 << 10;

    /// A store of 60 segments, of which two or three are live. Its thread is not there before something is written.
    fn behind() -> Store {
        behind_on(MemoryStorage::new())
    }

    fn behind_on(storage: impl zkv_io::Storage + 'static) -> Store {
        let storage: Arc<dyn zkv_io::Storage> = Arc::new(storage);
        let options = || Options::new().storage(Arc::clone(&storage)).slot_bytes(256 << 10);
        let store = options().cleaning(Cleaning::Off).open("store.zkv").unwrap();
        for number in 0..500u64 {
            store.set_bytes(&(number % 20).to_be_bytes(), &noise(number)).unwrap();
        }
        store.close().unwrap();
        let store = options().open("store.zkv").unwrap();
        let shared = store.shared();
        shared.survey(&shared.writer().unwrap());
        assert!(shared.cleaner.is_behind.load(Ordering::Relaxed));
        store
    }

    fn noise(seed: u64) -> Vec<u8> {
        let mut value = vec![0; 30_000];
        fastrand::Rng::with_seed(seed).fill(&mut value);
        value
    }

    fn cleaned_segments(store: &Store) -> u64 {
        store.stats().unwrap().cleaning.segments
    }

    #[test]
    fn a_share_ends_also_where_nothing_is_left_to_be_moved() {
        let store = behind();
        store.shared().clean_behind(Ok(())).unwrap();
        let stats = store.stats().unwrap();
        // A segment and a quarter, four times, and that at which it ends.
        assert!((5..=6).contains(&stats.cleaning.segments), "{stats:?}");
        assert!(stats.free_bytes + stats.cleaning.bytes_cut >= 5 * SLOT, "{stats:?}");
        // Whoever writes next waits for the thread.
        store.shared().clean_behind(Ok(())).unwrap();
        assert_eq!(cleaned_segments(&store), stats.cleaning.segments);
        store.clean().unwrap();
        assert_eq!(store.len(), 20);
        assert_eq!(store.verify(|_| {}).unwrap().findings, []);
    }

    /// Programs that never close their store would leave it for ever as it is otherwise.
    #[test]
    fn a_share_whose_time_is_over_moves_one_portion() {
        let options = Options::new().storage(Arc::new(MemoryStorage::new())).slot_bytes(256 << 10);
        let store = options.cleaning(Cleaning::Off).open("store.zkv").unwrap();
        for number in 0..400u64 {
            // A segment holds several portions.
            let value = [&noise(number)[..3_000], &[0; 27_000]].concat();
            store.set_bytes(&number.to_be_bytes(), &value).unwrap();
        }
        for number in (0..400u64).filter(|number| number % 3 > 0) {
            store.delete_bytes(&number.to_be_bytes()).unwrap();
        }
        store.flush().unwrap();
        let shared = store.shared();
        let (mut shares, mut before) = (0, 0);
        while shared.survey(&shared.writer().unwrap()).is_behind(25) {
            let share = Share { until: Instant::now(), ..shared.share() };
            shared.clean_what_is_due(25, Asker::OfShare(share)).unwrap();
            shared.has_freed_cleaned().unwrap();
            let moved = store.stats().unwrap().cleaning.moved_records - before;
            let portion_records = SHARE_PORTION_BYTES as u64 / 30_000 + 1;
            assert!((1..=portion_records).contains(&moved), "{moved} records");
            before += moved;
            shares += 1;
        }
        assert!(shares > 1, "{shares} shares");
        assert_eq!(store.len(), 134);
        assert_eq!(store.verify(|_| {}).unwrap().findings, []);
    }

    #[test]
    fn a_write_that_has_failed_or_is_beside_a_compaction_does_not_clean() {
        let store = behind();
        let shared = store.shared();
        assert!(shared.clean_behind(Err(crate::Error::Conflict)).is_err());
        let compacting = shared.cleaner.begin_compaction();
        shared.clean_behind(Ok(())).unwrap();
        drop(compacting);
        let turn = shared.cleaner.take_turn();
        shared.clean_behind(Ok(())).unwrap();
        drop(turn);
        assert_eq!(cleaned_segments(&store), 0);
    }

    /// To be called with the turn, which the thread waits for.
    fn begin_share_of_thread(store: &Store) {
        let shared = store.shared();
        store.set_bytes(b"news", b"").unwrap();
        shared.flush_all(&mut shared.writer().unwrap()).unwrap();
        while shared.cleaner.state().first_share != FirstShare::OfThread {
            std::thread::yield_now();
        }
    }

    /// Each of them waited for as long as one may.
    #[test]
    fn writes_wait_for_a_share_that_takes_long_only_once() {
        let store = behind();
        let shared = store.shared();
        let turn = shared.cleaner.take_turn();
        begin_share_of_thread(&store);
        let (done, is_done) = channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut wait_ends = Vec::new();
                for _ in 0..100 {
                    shared.clean_behind(Ok(())).unwrap();
                    wait_ends.push(shared.cleaner.state().share_wait_ends);
                }
                done.send(wait_ends).unwrap();
            });
            let outcome = is_done.recv_timeout(Duration::from_secs(120));
            assert_eq!(shared.cleaner.state().first_share, FirstShare::OfThread);
            drop(turn);
            let wait_ends = outcome.expect("each of them waits");
            assert!(wait_ends[0].is_some());
            assert!(wait_ends.iter().all(|end| *end == wait_ends[0]));
        });
    }

    #[test]
    fn a_write_waits_for_the_first_share_of_the_thread() {
        let store = behind();
        let shared = store.shared();
        let turn = shared.cleaner.take_turn();
        begin_share_of_thread(&store);
        // A machine that is busy may take longer than anybody waits.
        let far = Instant::now() + Duration::from_secs(3600);
        shared.cleaner.state().share_wait_ends = Some(far);
        let (done, outcome) = channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                store.flush().unwrap();
                let stats = store.stats().unwrap();
                done.send((stats.cleaning, stats.free_bytes)).unwrap();
            });
            let early = outcome.recv_timeout(Duration::from_millis(20));
            assert_eq!(early, Err(RecvTimeoutError::Timeout));
            drop(turn);
            let (cleaning, free_bytes) = outcome.recv().unwrap();
            assert!(cleaning.segments >= 5, "{cleaning:?}");
            assert!(free_bytes + cleaning.bytes_cut >= 5 * SLOT, "{cleaning:?}");
        });
    }

    #[test]
    fn who_makes_a_collection_keeps_nobody_from_others_while_it_cleans() {
        let is_watched = Arc::new(AtomicBool::new(false));
        let (entered, is_entered) = channel();
        let (leave, may_leave) = channel::<()>();
        let (of_disk, may_leave) = (Arc::clone(&is_watched), Mutex::new(may_leave));
        let storage = Watched::new(Arc::new(MemoryStorage::new()), move |act, path| {
            let is_index = act == Act::Write && path.to_string_lossy().contains(".idx");
            if is_index && of_disk.swap(false, Ordering::Relaxed) {
                entered.send(()).unwrap();
                let _ = may_leave.lock().unwrap().recv_timeout(Duration::from_secs(120));
            }
            Ok(())
        });
        let store = behind_on(storage);
        is_watched.store(true, Ordering::Relaxed);
        let (done, is_done) = channel();
        std::thread::scope(|scope| {
            scope.spawn(|| store.collection::<u64, u64>("new").unwrap());
            // Nothing else writes an index file than what frees the share.
            is_entered.recv_timeout(Duration::from_secs(60)).expect("it does not clean");
            scope.spawn(|| done.send(store.raw_collection("new").is_some()).unwrap());
            let outcome = is_done.recv_timeout(Duration::from_secs(60));
            leave.send(()).unwrap();
            assert_eq!(outcome, Ok(true));
        });
        assert!(cleaned_segments(&store) >= 5);
    }

    #[test]
    fn who_closes_the_store_cleans_where_the_thread_was_cut_short() {
        for (first_share, is_cleaned) in
            [(FirstShare::Open, true), (FirstShare::OfThread, true), (FirstShare::Done, false)]
        {
            let store = behind();
            let shared = store.shared();
            shared.cleaner.state().first_share = first_share;
            shared.clean_in_closing().unwrap();
            assert_eq!(cleaned_segments(&store) > 0, is_cleaned, "{first_share:?}");
        }
    }
}
