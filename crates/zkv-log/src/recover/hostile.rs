//! Logs that somebody forged, with every checksum right.

use std::path::Path;
use std::sync::Arc;

use zkv_io::{MemoryStorage, Storage};

use crate::block::BlockKind;
use crate::checkpoint::LogCheckpoint;
use crate::dictionary::Dictionary;
use crate::error::LogError;
use crate::layout::{DICTIONARY_BYTES_MAX, SLOT_BYTES_MIN};
use crate::log::Log;
use crate::open::{Access, OpenFile, Recovered, create};
use crate::options::LogOptions;
use crate::segment::SegmentId;
use crate::writer::{LogWriter, Room};

const PATH: &str = "log";

fn open(storage: &MemoryStorage) -> OpenFile {
    let options = LogOptions { slot_bytes: SLOT_BYTES_MIN, ..LogOptions::default() };
    let shared: Arc<dyn Storage> = Arc::new(storage.clone());
    OpenFile::open(shared, Path::new(PATH), Access::ReadWrite, options).unwrap()
}

fn new_log(storage: &MemoryStorage) -> LogWriter {
    let options = LogOptions { slot_bytes: SLOT_BYTES_MIN, ..LogOptions::default() };
    create(storage, Path::new(PATH), &options).unwrap();
    open(storage).recover(None).unwrap().writer.unwrap()
}

/// An entry that fills most of a segment.
fn fill_segment(writer: &mut LogWriter) {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_le_bytes()[3]
    };
    let entry: Vec<u8> = (0..60_000).map(|_| next()).collect();
    writer.append(&[&entry]).unwrap();
}

#[test]
fn a_roll_call_that_lists_a_slot_twice_is_refused() {
    let storage = MemoryStorage::new();
    let mut writer = new_log(&storage);
    fill_segment(&mut writer);
    fill_segment(&mut writer);
    fill_segment(&mut writer);
    let first = writer.members.values().next().unwrap().id();
    let second = SegmentId { sequence: 2, ..first };
    let mut commit = writer.begin().unwrap();
    let place = commit.put_members(BlockKind::RollCall, &[first, second]).unwrap();
    let committed = commit.finish(Room::Exact).unwrap();
    writer.roll_call.written = vec![(place, committed.end)];
    writer.log().sync(committed.end).unwrap();
    writer.note_durable_roll_call();
    // Its header names the roll call.
    fill_segment(&mut writer);
    writer.close().unwrap();
    drop(writer);
    let refused = open(&storage).recover(None).unwrap_err();
    assert!(matches!(refused, LogError::Corrupt { what: "a slot of two segments", .. }));
}

#[test]
fn a_checkpoint_that_cannot_be_true_is_set_aside() {
    let storage = MemoryStorage::new();
    let mut writer = new_log(&storage);
    fill_segment(&mut writer);
    fill_segment(&mut writer);
    let bytes = writer.checkpoint().unwrap();
    writer.close().unwrap();
    drop(writer);
    let honest = LogCheckpoint::decode(&bytes, SLOT_BYTES_MIN).unwrap();
    let replay_from = |checkpoint: &LogCheckpoint| {
        let Recovered { replay_from, .. } =
            open(&storage).recover(Some(&checkpoint.encode())).unwrap();
        replay_from
    };
    assert_eq!(replay_from(&honest), Some(honest.watermark));
    let mut slot_twice = honest.clone();
    slot_twice.segments[0].id.slot = slot_twice.segments[1].id.slot;
    let too_many_blocks = LogCheckpoint { block_count: u32::MAX, ..honest.clone() };
    let too_late = LogCheckpoint { last_commit: u64::MAX, ..honest };
    for forged in [slot_twice, too_many_blocks, too_late] {
        assert_eq!(replay_from(&forged), None, "{forged:?}");
    }
}

fn entries_of(log: &Log) -> usize {
    let view = log.view();
    let segments = view.segments();
    let mut count = 0;
    for segment in segments {
        let mut scan = view.scan(segment.slot, None).unwrap();
        while let Some(block) = scan.next_block().unwrap() {
            count += block.entries().unwrap().map(Result::unwrap).count();
        }
    }
    count
}

#[test]
fn a_dictionary_that_has_made_room_for_others_is_read_again() {
    let storage = MemoryStorage::new();
    let mut writer = new_log(&storage);
    let document = |n: u32| {
        let number = n.wrapping_mul(2_654_435_761);
        format!(r#"{{"id":{number},"kind":"page","title":"no {number}","lang":"en"}}"#)
    };
    for round in 0..3 {
        let documents: Vec<String> = (round * 3000..(round + 1) * 3000).map(document).collect();
        let entries: Vec<&[u8]> = documents.iter().map(String::as_bytes).collect();
        writer.append(&entries).unwrap();
    }
    writer.close().unwrap();
    drop(writer);
    let log = open(&storage).recover(None).unwrap().log;
    assert_eq!(entries_of(&log), 9000);
    let (shared, view) = (&log.shared, log.view());
    let segments = view.segments.by_slot.iter().flatten();
    let digests: Vec<_> =
        segments.flat_map(|segment| segment.dictionary_digests(&*shared.file).unwrap()).collect();
    assert!(!digests.is_empty() && shared.interner.get(&digests[0]).is_some());
    for number in 0..100u32 {
        let mut bytes = vec![0; DICTIONARY_BYTES_MAX];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        shared.interner.intern(Dictionary::new(bytes).unwrap());
    }
    assert!(shared.interner.get(&digests[0]).is_none());
    assert_eq!(entries_of(&log), 9000);
    assert!(shared.interner.get(&digests[0]).is_some());
}
