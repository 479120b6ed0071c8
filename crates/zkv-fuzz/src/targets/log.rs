//! A data file as the log sees it, which knows no keys; and its checkpoints, which have no checksum of
//! their own.

use std::path::Path;
use std::sync::Arc;

use zkv_log::{
    Access, EntryAddress, Location, LogOptions, LogView, LogWriter, OpenFile, Recovered, Room,
    SegmentInfo,
};

use super::data::DATA;
use crate::random::Random;
use crate::storage::SeededStorage;

/// Blocks and locations looked at in one run.
const BLOCKS_MAX: usize = 300;

pub(crate) fn run(input: &[u8]) {
    let storage = SeededStorage::new(3, [(Path::new(DATA), input)]);
    let Some(file) = open(&storage, Access::ReadOnly) else { return };
    if let Ok(recovered) = file.recover(None) {
        read(&recovered.log.view());
    }
    drop(file);
    let checkpoint = write(&storage);
    let Some(checkpoint) = checkpoint else { return };
    let seed = input.iter().fold(0, |sum: u64, byte| sum.wrapping_mul(31) + u64::from(*byte));
    let mut random = Random::new(seed);
    for _ in 0..4 {
        recover_with(&storage, &checkpoint);
        recover_with(&storage, &changed(&checkpoint, &mut random));
    }
}

fn open(storage: &SeededStorage, access: Access) -> Option<OpenFile> {
    let options =
        LogOptions { compression_level: 1, compression_threads: 1, ..LogOptions::default() };
    OpenFile::open(Arc::new(storage.clone()), Path::new(DATA), access, options).ok()
}

fn read(view: &LogView) {
    let segments = view.segments();
    let _ = view.dictionary_count();
    let mut locations = Vec::new();
    for segment in segments.iter().take(8) {
        let Ok(mut scan) = view.scan(segment.slot, None) else { continue };
        for _ in 0..BLOCKS_MAX {
            let Ok(Some(block)) = scan.next_block() else { break };
            locations.push(block.location);
            if let Ok(entries) = block.entries() {
                entries.take_while(Result::is_ok).count();
            }
        }
        let offset = segment.data_bytes / 2;
        let SegmentInfo { slot, sequence, .. } = *segment;
        let _ = view.read(EntryAddress { sequence, slot, offset, ordinal: 1 });
    }
    for location in locations.into_iter().step_by(3).take(50) {
        // No entry is the one looked for, so all of the cell is read.
        let _ = view.find(location, |_| None::<()>);
        let _ = view.visit(location, |_| {});
    }
    for number in [1, 255, 256, 300, u64::MAX] {
        let number = std::num::NonZeroU64::new(number).unwrap_or(std::num::NonZeroU64::MIN);
        let _ = view.find(Location::from_number(number), |_| None::<()>);
    }
}

/// Appends, frees and closes, and returns a checkpoint of what it leaves behind.
fn write(storage: &SeededStorage) -> Option<Vec<u8>> {
    let file = open(storage, Access::ReadWrite)?;
    let Recovered { log, writer, .. } = file.recover(None).ok()?;
    let mut writer = writer?;
    let appended = append(&mut writer, &[7; 40_000]);
    let first = log.view().segments().first().map(|segment| segment.slot);
    let _ = writer.free(&first.into_iter().collect::<Vec<_>>());
    // An aborted commit.
    if let (Ok(packed), Ok(mut commit)) = (log.pack(&[b"aborted"]), writer.begin()) {
        let _ = commit.append(&packed);
    }
    let _ = append(&mut writer, b"behind it");
    if let Some(appended) = appended {
        let _ = log.view().read(appended);
    }
    let checkpoint = writer.checkpoint().ok();
    let _ = writer.close();
    read(&log.view());
    checkpoint
}

fn append(writer: &mut LogWriter, entry: &[u8]) -> Option<EntryAddress> {
    let packed = writer.log().pack(&[entry]).ok()?;
    let mut commit = writer.begin().ok()?;
    let address = commit.append(&packed).ok()?.into_iter().next();
    commit.finish(Room::Ahead).ok()?;
    address
}

fn recover_with(storage: &SeededStorage, checkpoint: &[u8]) {
    let Some(file) = open(storage, Access::ReadOnly) else { return };
    if let Ok(recovered) = file.recover(Some(checkpoint)) {
        read(&recovered.log.view());
    }
}

fn changed(checkpoint: &[u8], random: &mut Random) -> Vec<u8> {
    let mut changed = checkpoint.to_vec();
    crate::mutate::mutate(&mut changed, &[0..108, 108..160], checkpoint, random);
    changed
}
