//! Decompressing and looking up ahead of an iteration, by several threads.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};

use zkv_log::{LogError, SegmentScan};

use super::judge::{Judge, JudgedCell};
use crate::sync::thread::{Builder, JoinHandle};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// More threads than these have nothing to do: whoever goes through the records cannot keep up.
const HELPERS_MAX: usize = 3;
/// Parts of 64 KiB that wait, for each thread.
const PARTS_A_THREAD: usize = 2;
/// Decompressed bytes behind which the rest of a part has to wait: it may have thousands of times its own.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// A cell that takes more is not kept to be used again.
const CELL_BYTES_KEPT: usize = 16 << 10;

/// Cells in their order, and what has kept more of their part from being read.
#[derive(Default)]
pub(super) struct Batch {
    pub cells: Vec<JudgedCell>,
    /// Of the cells, those behind these are left from before.
    pub count: usize,
    /// Behind them, and the scan that has met it.
    pub damage: Option<(LogError, Box<SegmentScan>)>,
    /// What is left of the part.
    rest: Option<Box<SegmentScan>>,
}

/// Parts of a log that are being decompressed. The threads end when this is dropped.
pub(super) struct Ahead {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    reader: Reader,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// There is something to do for helpers.
    has_work: Condvar,
    /// A helper has done something.
    has_done: Condvar,
}

#[derive(Default)]
struct Queue {
    /// In the order of the log.
    parts: VecDeque<Part>,
    /// The number of the first of them.
    first: u64,
    /// Cells that are used again.
    spare: Vec<Vec<JudgedCell>>,
    is_closed: bool,
}

struct Part {
    slot: u32,
    work: Work,
}

enum Work {
    Waiting(Box<SegmentScan>),
    /// Somebody decompresses it.
    Taken,
    Done(Batch),
    /// Whoever had it has panicked.
    Failed,
}

/// What decompresses one part after another.
struct Reader {
    judge: Judge,
    scan: Option<SegmentScan>,
}

impl Reader {
    fn new(judge: Judge) -> Self {
        Self { judge, scan: None }
    }

    fn read(&mut self, slot: u32, part: SegmentScan, mut cells: Vec<JudgedCell>) -> Batch {
        let scan = match &mut self.scan {
            Some(scan) => {
                scan.go_on_with(part);
                scan
            }
            None => self.scan.insert(part),
        };
        let (mut count, mut bytes) = (0, 0);
        let error = loop {
            if bytes >= BATCH_BYTES_MAX {
                let rest = self.scan.take().map(Box::new);
                return Batch { cells, count, damage: None, rest };
            }
            if cells.len() == count {
                cells.push(JudgedCell::default());
            }
            match scan.next_cell(cells[count].start()) {
                Ok(true) => {
                    self.judge.look_up(slot, &mut cells[count]);
                    bytes += cells[count].cell.payload_bytes();
                    count += 1;
                }
                Ok(false) => break None,
                Err(error) => break Some(error),
            }
        };
        let damage = error.and_then(|error| Some((error, Box::new(self.scan.take()?))));
        Batch { cells, count, damage, rest: None }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decompresses parts until nobody wants any.
    fn help(&self, mut reader: Reader) {
        let mut queue = self.queue();
        while !queue.is_closed {
            queue = match queue.take_waiting() {
                Some(taken) => self.read(taken, queue, &mut reader),
                None => self.has_work.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Decompresses a part that was taken.
    fn read<'a>(
        &'a self,
        (number, slot, part): (u64, u32, SegmentScan),
        mut queue: MutexGuard<'a, Queue>,
        reader: &mut Reader,
    ) -> MutexGuard<'a, Queue> {
        let cells = queue.spare.pop().unwrap_or_default();
        drop(queue);
        let mut taken = TakenPart { shared: self, number, work: Work::Failed };
        taken.work = Work::Done(reader.read(slot, part, cells));
        drop(taken);
        self.queue()
    }
}

impl Queue {
    fn take_waiting(&mut self) -> Option<(u64, u32, SegmentScan)> {
        let is_waiting = |part: &Part| matches!(part.work, Work::Waiting(_));
        let place = self.parts.iter().position(is_waiting)?;
        let part = &mut self.parts[place];
        match std::mem::replace(&mut part.work, Work::Taken) {
            Work::Waiting(scan) => Some((self.first + place as u64, part.slot, *scan)),
            _ => None,
        }
    }
}

/// A part that a helper has taken: also where it panics, somebody waits for it.
struct TakenPart<'a> {
    shared: &'a Shared,
    number: u64,
    work: Work,
}

impl Drop for TakenPart<'_> {
    fn drop(&mut self) {
        let mut queue = self.shared.queue();
        // Parts that nobody wants any more are gone.
        let place = self.number.checked_sub(queue.first).and_then(|place| place.try_into().ok());
        if let Some(part) = place.and_then(|place: usize| queue.parts.get_mut(place)) {
            part.work = std::mem::replace(&mut self.work, Work::Taken);
        }
        self.shared.has_done.notify_one();
    }
}

impl Ahead {
    /// Begins so many threads less one, since whoever asks takes part; `None` where that would be none.
    pub fn begin(threads: usize, judge: &Judge) -> Option<Self> {
        let shared = Arc::new(Shared::default());
        let begin = |_| {
            let (shared, reader) = (Arc::clone(&shared), Reader::new(judge.clone()));
            Builder::new().name("zkv-iterate".to_owned()).spawn(move || shared.help(reader)).ok()
        };
        let helpers: Vec<_> = (1..threads.min(HELPERS_MAX + 1)).map_while(begin).collect();
        let reader = Reader::new(judge.clone());
        (!helpers.is_empty()).then_some(Self { shared, helpers, reader })
    }

    /// Whether another part should be added.
    pub fn has_room(&self) -> bool {
        self.shared.queue().parts.len() < (1 + self.helpers.len()) * PARTS_A_THREAD
    }

    /// Adds the part that comes next, of the segment in `slot`.
    pub fn add(&self, slot: u32, part: SegmentScan) {
        let work = Work::Waiting(Box::new(part));
        self.shared.queue().parts.push_back(Part { slot, work });
        self.shared.has_work.notify_one();
    }

    /// Drops the parts of the segment in `slot` that come next.
    pub fn skip(&self, slot: u32) {
        let mut queue = self.shared.queue();
        while queue.parts.front().is_some_and(|part| part.slot == slot) {
            queue.parts.pop_front();
            queue.first += 1;
        }
    }

    /// The cells of the next part, and the slot of its segment; `None` where none was added. `used` is
    /// what was got before.
    pub fn next(&mut self, mut used: Batch) -> Option<(u32, Batch)> {
        used.cells.retain(|one| one.cell.payload_bytes() <= CELL_BYTES_KEPT);
        let shared = &*self.shared;
        let mut queue = shared.queue();
        queue.spare.push(used.cells);
        while !matches!(queue.parts.front()?.work, Work::Done(_) | Work::Failed) {
            // Rather than wait for the first part, one behind it is read.
            queue = match queue.take_waiting() {
                Some(taken) => shared.read(taken, queue, &mut self.reader),
                None => shared.has_done.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        }
        let part = queue.parts.front_mut()?;
        let slot = part.slot;
        let Work::Done(mut batch) = std::mem::replace(&mut part.work, Work::Failed) else {
            panic!("a thread that read ahead has panicked");
        };
        match batch.rest.take() {
            Some(rest) => part.work = Work::Waiting(rest),
            None => {
                queue.parts.pop_front();
                queue.first += 1;
            }
        }
        Some((slot, batch))
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        let mut queue = self.shared.queue();
        queue.is_closed = true;
        queue.parts.clear();
        drop(queue);
        self.shared.has_work.notify_all();
        for helper in self.helpers.drain(..) {
            // What it has panicked with was told, or nobody wants it any more.
            let _ = helper.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use zkv_io::MemoryStorage;

    use super::*;
    use crate::options::Options;
    use crate::store::Store;

    /// A store of three values, which are scanned in three parts, and who reads them.
    fn parts() -> (Store, Judge, Vec<SegmentScan>) {
        let storage = Arc::new(MemoryStorage::new());
        let store = Options::new().storage(storage).open("store.zkv").unwrap();
        for seed in 0..3 {
            let mut noise = vec![0; 100_000];
            fastrand::Rng::with_seed(seed).fill(&mut noise);
            store.set_bytes(&seed.to_be_bytes(), &noise).unwrap();
            store.flush().unwrap();
        }
        let judge = Judge::new(store.shared(), store.shared().now(), 0);
        let mut scan = judge.moment.committed().log.scan(0, None).unwrap();
        let parts = std::iter::from_fn(|| scan.split()).collect();
        (store, judge, parts)
    }

    fn without_helpers(shared: &Arc<Shared>, judge: &Judge) -> Ahead {
        let reader = Reader::new(judge.clone());
        Ahead { shared: Arc::clone(shared), helpers: Vec::new(), reader }
    }

    #[test]
    fn parts_come_in_their_order_whoever_is_done_first() {
        let (_store, judge, parts) = parts();
        assert!(3 <= parts.len());
        let count = parts.len();
        let shared = Arc::new(Shared::default());
        let mut ahead = without_helpers(&shared, &judge);
        for (slot, part) in (0..).zip(parts) {
            ahead.add(slot, part);
        }
        // A helper is slow with the first.
        let (number, slot, part) = shared.queue().take_waiting().unwrap();
        std::thread::scope(|scope| {
            let reading = scope.spawn(|| {
                let mut batch = Batch::default();
                let next = |_| {
                    let (slot, read) = ahead.next(std::mem::take(&mut batch)).unwrap();
                    batch = read;
                    slot
                };
                let slots: Vec<u32> = (0..count).map(next).collect();
                assert!(ahead.next(batch).is_none());
                slots
            });
            std::thread::sleep(Duration::from_millis(50));
            let work = Work::Done(Reader::new(judge.clone()).read(slot, part, Vec::new()));
            drop(TakenPart { shared: &shared, number, work });
            assert!(reading.join().unwrap().into_iter().eq(0..u32::try_from(count).unwrap()));
        });
    }

    #[test]
    fn of_what_compresses_well_little_is_decompressed_at_once() {
        let storage = Arc::new(MemoryStorage::new());
        let store = Options::new().storage(storage).open("store.zkv").unwrap();
        for number in 0..200u32 {
            store.set_bytes(&number.to_be_bytes(), &[0; 60_000]).unwrap();
        }
        store.flush().unwrap();
        let judge = Judge::new(store.shared(), store.shared().now(), 0);
        let mut scan = judge.moment.committed().log.scan(0, None).unwrap();
        let mut ahead = without_helpers(&Arc::default(), &judge);
        std::iter::from_fn(|| scan.split()).for_each(|part| ahead.add(0, part));
        let (mut batch, mut records) = (Batch::default(), 0);
        while let Some((_, next)) = ahead.next(batch) {
            batch = next;
            let cells = batch.cells[..batch.count].iter().map(|one| &one.cell);
            records += cells.clone().map(|cell| cell.len()).sum::<usize>();
            let bytes: usize = cells.map(|cell| cell.payload_bytes()).sum();
            // A cell has several blocks, which take little of the file.
            assert!(bytes < 2 * BATCH_BYTES_MAX, "{bytes}");
        }
        assert_eq!(records, 200);
    }

    #[test]
    #[should_panic(expected = "a thread that read ahead has panicked")]
    fn whoever_waits_for_a_thread_that_panicked_is_told() {
        let (_store, judge, parts) = parts();
        let shared = Arc::new(Shared::default());
        let mut ahead = without_helpers(&shared, &judge);
        ahead.add(0, parts.into_iter().next().unwrap());
        let (number, _, _part) = shared.queue().take_waiting().unwrap();
        drop(TakenPart { shared: &shared, number, work: Work::Failed });
        ahead.next(Batch::default());
    }
}
