//! Moving what is needed to the log's end, in commits of their own.

use std::collections::HashSet;

use zkv_log::{LogError, Packed, Prepacked, Room};
use zkv_record::Record;

use super::gather::{Needed, Oldest, Portion, Still};
use crate::read::cache::CheckpointId;
use crate::write::resolve::{Resolved, order_by_key};
use crate::write::writer::{WriteError, Writer};

/// A portion that is compressed: that takes longer than anything else, and holds up nobody.
pub(crate) struct PackedPortion {
    portion: Portion,
    /// The numbers of the portion's records in the order of their keys, in which they are packed.
    order: Vec<usize>,
    packed: Packed,
}

/// What moving a portion has done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moved {
    pub records: u64,
    pub marks_dropped: u64,
    /// Bytes written to the log.
    pub bytes: u64,
    /// Segments of which nothing is needed any longer.
    pub segments: u64,
}

impl PackedPortion {
    pub(crate) fn new(
        mut portion: Portion,
        pack: impl FnOnce(&[&[u8]], Vec<Option<Prepacked>>) -> Result<Packed, LogError>,
    ) -> Result<Self, LogError> {
        // By hash, as the index lies in memory.
        portion.moved.sort_unstable_by(|left, right| {
            left.hash.cmp(&right.hash).then_with(|| needed_until(right).cmp(&needed_until(left)))
        });
        let moved = portion.moved.len();
        // Of a key that was deleted several times, the mark that is needed longest speaks for all.
        portion.moved.dedup_by_key(|one| one.hash);
        portion.marks_dropped += (moved - portion.moved.len()) as u64;
        let order = order_by_key(&portion.moved);
        let prepacked = order.iter().map(|number| {
            let one = &portion.moved[*number];
            portion.prepacked.remove(&(one.hash, one.old.existing()?.location))
        });
        let prepacked = prepacked.collect();
        let packed = pack(&entries(&portion, &order), prepacked)?;
        Ok(Self { portion, order, packed })
    }

    /// What it takes of the log.
    pub(crate) fn payload_bytes(&self) -> u64 {
        self.packed.payload_bytes() as u64
    }

    /// The memory of its records.
    pub(crate) fn record_bytes(&self) -> usize {
        self.portion.bytes
    }

    /// Segments of which it holds the last that is needed.
    pub(crate) fn emptied(&self) -> &[u32] {
        &self.portion.emptied
    }
}

/// How long a record is needed: a mark until all segments up to its origin are gone.
fn needed_until(one: &Resolved<'_>) -> u64 {
    let origin = || Record::decode(one.record.get()).ok()?.origin;
    if one.old.existing().is_some() { u64::MAX } else { origin().unwrap_or(0) }
}

fn entries<'a>(portion: &'a Portion, order: &[usize]) -> Vec<&'a [u8]> {
    order.iter().map(|number| portion.moved[*number].record.get()).collect()
}

impl Writer {
    /// Appends what is still needed of `packed`, as one commit.
    pub(crate) fn move_portion(&mut self, packed: PackedPortion) -> Result<Moved, WriteError> {
        let PackedPortion { mut portion, order, packed } = packed;
        self.catch_up()?;
        let needed =
            Needed { committed: &self.committed, keys: &self.keys, oldest: Oldest::beginning() };
        let mut forgotten = Vec::new();
        for one in std::mem::take(&mut portion.forgotten) {
            if needed.is_to_forget(&one)? {
                forgotten.push(one);
            }
        }
        let mut is_kept = Vec::with_capacity(order.len());
        for number in &order {
            let still = needed.look_again(&portion.moved[*number])?;
            is_kept.push(matches!(still, Still::Needed));
            if let Still::Dropped(dropped) = still {
                forgotten.push(dropped);
            }
        }
        let repacked = self.log.log().repack(&packed, &entries(&portion, &order), &is_kept);
        let packed = repacked.unwrap_or(packed);
        let kept = order.iter().zip(&is_kept).filter(|(_, kept)| **kept);
        let kept: Vec<usize> = kept.map(|(number, _)| *number).collect();
        // The one that is being written may hold what others have packed loosely.
        let (first, written_before) = (self.log.end().sequence + 1, self.log.written_bytes());
        let mut append = self.append(&|_| false)?;
        append.put_packed(&portion.moved, &kept, &packed)?;
        append.forget(&forgotten);
        append.finish(Room::Exact)?;
        self.moved_to.extend(first..=self.log.end().sequence);
        for slot in &portion.emptied {
            self.live.forget(*slot);
            self.cleaned.insert(*slot);
        }
        Ok(Moved {
            records: kept.len() as u64,
            marks_dropped: portion.marks_dropped,
            bytes: self.log.written_bytes() - written_before,
            segments: portion.emptied.len() as u64,
        })
    }

    /// Frees the segments that were cleaned: to be called behind a checkpoint of all of them.
    pub(crate) fn free_cleaned(&mut self) -> Result<(), WriteError> {
        let cleaned = self.cleaned.clone();
        self.free(&cleaned)
    }

    /// Frees those of `slots` whose segments were cleaned, once no index file leads to them. All of them go in
    /// one commit, since a mark may have been left behind with the other one that it spoke of.
    pub(crate) fn free(&mut self, slots: &HashSet<u32>) -> Result<(), WriteError> {
        let slots: Vec<u32> = self.cleaned.intersection(slots).copied().collect();
        if slots.is_empty() {
            return Ok(());
        }
        let end = self.log.free(&slots)?.end;
        slots.iter().for_each(|slot| {
            self.cleaned.remove(slot);
        });
        // A record may come to the very place of an older one of its key, in a slot that is used again. Then
        // nothing has changed for the index, where no file of it was written, and yet the value is another.
        self.committed.checkpoint_id = CheckpointId::next();
        self.committed.log = self.log.view();
        self.log.log().sync(end)?;
        let left = self.committed.log.segments();
        let left: HashSet<u64> = left.iter().map(|segment| segment.sequence).collect();
        self.moved_to.retain(|sequence| left.contains(sequence));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use zkv_io::MemoryStorage;
    use zkv_record::{Kind, PieceKey};

    use super::*;
    use crate::options::{Cleaning, Options};
    use crate::store::Store;

    fn options(storage: &Arc<MemoryStorage>) -> Options {
        let options = Options::new().storage(storage.clone()).slot_bytes(256 << 10);
        options.cleaning(Cleaning::Off).memory_buffer_bytes(64 << 10)
    }

    fn noise(seed: u64) -> Vec<u8> {
        let mut bytes = vec![0; 4_000];
        fastrand::Rng::with_seed(seed).fill(&mut bytes);
        bytes
    }

    /// Of each kind 80 keys, in more than a segment.
    fn filled(storage: &Arc<MemoryStorage>) -> Store {
        let store = options(storage).open("store.zkv").unwrap();
        let dropped = store.collection::<u64, Vec<u8>>("dropped").unwrap();
        for number in 0..80u64 {
            store.set(&number, &noise(number)).unwrap();
            dropped.set(&number, &noise(number)).unwrap();
        }
        drop(dropped);
        store.flush().unwrap();
        store
    }

    /// Moves all of the full segments, and does something while the first portion is packed.
    fn clean_while(store: &Store, meanwhile: impl Fn()) {
        clean_from(0, store, meanwhile);
    }

    /// As [`clean_while`], without the oldest ones.
    fn clean_from(first: usize, store: &Store, meanwhile: impl Fn()) {
        let shared = store.shared();
        let mut full = shared.view.load().committed.log.segments();
        full.retain(|segment| segment.is_sealed);
        full.drain(..first);
        assert!(full.len() > 1);
        shared.move_all_while(full, meanwhile).unwrap();
        assert_eq!(store.verify(|_| {}).unwrap().findings, []);
        shared.checkpoint(&mut shared.writer().unwrap()).unwrap();
        assert!(shared.cleaner.stats().segments > 1);
        assert_eq!(store.verify(|_| {}).unwrap().findings, []);
    }

    #[test]
    fn what_is_written_while_a_portion_is_packed_stays() {
        let storage = Arc::new(MemoryStorage::new());
        let store = filled(&storage);
        clean_while(&store, || {
            store.set(&1u64, &noise(1_000)).unwrap();
            store.delete(&2u64).unwrap();
            store.drop_collection("dropped").unwrap();
            store.flush().unwrap();
        });
        let check = |store: &Store| {
            assert_eq!(store.get::<_, Vec<u8>>(&0u64).unwrap(), Some(noise(0)));
            assert_eq!(store.get::<_, Vec<u8>>(&1u64).unwrap(), Some(noise(1_000)));
            assert_eq!(store.get::<_, Vec<u8>>(&2u64).unwrap(), None);
            assert_eq!((store.len(), store.iter_bytes().count()), (79, 79));
        };
        check(&store);
        store.close().unwrap();
        check(&options(&storage).use_index_file(false).open("store.zkv").unwrap());
    }

    #[test]
    fn a_delete_does_not_move_behind_what_was_set_while_its_portion_was_packed() {
        let storage = Arc::new(MemoryStorage::new());
        let store = filled(&storage);
        store.delete(&3u64).unwrap();
        store.delete(&4u64).unwrap();
        for number in 100..180u64 {
            store.set(&number, &noise(number)).unwrap();
        }
        store.flush().unwrap();
        // The oldest segment has what the deletes speak of.
        clean_from(1, &store, || {
            store.set(&3u64, &noise(3_000)).unwrap();
            store.flush().unwrap();
        });
        let check = |store: &Store| {
            assert_eq!(store.get::<_, Vec<u8>>(&3u64).unwrap(), Some(noise(3_000)));
            assert_eq!(store.get::<_, Vec<u8>>(&4u64).unwrap(), None);
            assert_eq!((store.len(), store.iter_bytes().count()), (159, 159));
        };
        check(&store);
        store.close().unwrap();
        // Of the log alone, the last word counts.
        check(&options(&storage).use_index_file(false).open("store.zkv").unwrap());
    }

    #[test]
    fn an_index_that_is_made_anew_while_a_portion_is_packed_stays_right() {
        let store = filled(&Arc::new(MemoryStorage::new()));
        store.drop_collection("dropped").unwrap();
        clean_while(&store, || store.rebuild_index().unwrap());
    }

    /// The segment of each mark in the log, and the origin that it names.
    fn marks(store: &Store) -> Vec<(u64, Option<u64>)> {
        let log = store.shared().view.load().committed.log.clone();
        let mut marks = Vec::new();
        for segment in log.segments() {
            let mut scan = log.scan(segment.slot, None).unwrap();
            while let Some(block) = scan.next_block().unwrap() {
                for entry in block.entries().unwrap() {
                    let record = Record::decode(entry.unwrap()).unwrap();
                    if record.kind == Kind::Delete {
                        marks.push((segment.sequence, record.origin));
                    }
                }
            }
        }
        marks
    }

    /// Otherwise each move would make it younger, and it would outlive what it speaks of.
    #[test]
    fn a_mark_that_moves_again_names_the_segment_that_it_was_written_to() {
        let storage = Arc::new(MemoryStorage::new());
        let store = options(&storage).open("store.zkv").unwrap();
        let mut numbers = 0u64..;
        let mut fill = || {
            for number in numbers.by_ref().take(80) {
                store.set(&number, &noise(number)).unwrap();
            }
            store.flush().unwrap();
        };
        fill();
        for number in 0..10u64 {
            store.delete(&number).unwrap();
        }
        store.flush().unwrap();
        let (written_to, origin) = marks(&store)[0];
        assert_eq!(origin, None);
        let shared = store.shared();
        for _ in 0..2 {
            fill();
            let mut victims = shared.view.load().committed.log.segments();
            // What was deleted stays in the first one.
            victims.retain(|segment| segment.is_sealed && segment.sequence > 1);
            shared.move_all(victims).unwrap();
            shared.checkpoint(&mut shared.writer().unwrap()).unwrap();
            let marks = marks(&store);
            assert_eq!(marks.len(), 10);
            assert!(marks.iter().all(|mark| mark.0 > written_to && mark.1 == Some(written_to)));
        }
        // With the first segment, all of them go.
        store.compact(|_| {}).unwrap();
        assert_eq!(marks(&store), []);
        assert_eq!(store.len(), 230);
    }

    /// Such records are forged: names of pieces are drawn at random, and each is one collection's.
    #[test]
    fn pieces_of_one_name_in_two_collections_are_cleaned_without_a_panic() {
        let store = options(&Arc::new(MemoryStorage::new())).open("store.zkv").unwrap();
        let shared = store.shared();
        let key = PieceKey { value_id: [7; 16], number: 0 }.encode();
        for name in ["a", "b"] {
            store.collection::<u64, Vec<u8>>(name).unwrap().set(&1, &noise(1)).unwrap();
            store.flush().unwrap();
            let mut writer = shared.writer().unwrap();
            let collection =
                writer.committed.catalog.names().map(|(_, entry)| entry.id).max().unwrap();
            let piece = Record { kind: Kind::Piece, collection, ..Record::put(&key, b"piece") };
            let mut bytes = Vec::new();
            piece.encode_into(&mut bytes);
            let mut append = writer.append(&|_| false).unwrap();
            append.add_pieces(&[(shared.keys.hash_piece(&key), bytes)]).unwrap();
            append.finish(Room::Exact).unwrap();
            shared.checkpoint(&mut writer).unwrap();
        }
        for name in ["a", "b"] {
            store.drop_collection(name).unwrap();
        }
        shared.checkpoint(&mut shared.writer().unwrap()).unwrap();
        // The index is made anew, and has neither.
        store.compact(|_| {}).unwrap();
        assert_eq!(store.verify(|_| {}).unwrap().findings, []);
        store.set(&1_u64, &2_u64).unwrap();
        store.flush().unwrap();
        assert_eq!(store.get(&1_u64).unwrap(), Some(2_u64));
    }
}
