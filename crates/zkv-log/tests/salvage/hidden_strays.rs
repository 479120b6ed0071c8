//! What a power cut has left of segments that were given up, and whose headers it has lost.

use zkv_log::layout::SEGMENT_HEADER_BYTES;
use zkv_sim::{Image, PowerCut, SimDisk};

use super::common::{all, free_all};
use super::*;

/// What is lost of the first segment that is given up, besides what the log's own segment had of them.
#[derive(Clone, Copy, Debug)]
struct Loss {
    /// How much of its start.
    header_bytes: u64,
    /// The sector in which its seal starts.
    sector_of_seal: bool,
}

fn losses() -> impl Iterator<Item = Loss> {
    [u64::from(SEGMENT_HEADER_BYTES), 512, 4096].into_iter().flat_map(|header_bytes| {
        [false, true].map(|sector_of_seal| Loss { header_bytes, sector_of_seal })
    })
}

/// A log of entries 0 to 19, behind which two commits have begun a segment each, which a power cut has made
/// strays: all that was written to the first slot is lost, the header of the second stray, and `loss` of the first.
fn with_strays(has_roll_call: bool, is_closed: bool, loss: Loss) -> Vec<u8> {
    let (storage, mut writer) = new_log();
    append(&mut writer, 0..20);
    if has_roll_call {
        // Which no header names yet.
        writer.checkpoint().unwrap();
    }
    if is_closed {
        writer.close().unwrap();
    }
    writer.log().sync(writer.end()).unwrap();
    let durable = bytes_of(&storage);
    append(&mut writer, 20..110);
    append(&mut writer, 110..160);
    assert_eq!(slots(&writer.log()), [(0, 1), (1, 2), (2, 3)]);
    let mut bytes = bytes_of(&storage);
    let second = slot_start(1, SLOT);
    bytes[durable.len()..usize::try_from(second).unwrap()].fill(0);
    bytes[..durable.len()].copy_from_slice(&durable);
    zero(&mut bytes, second..second + loss.header_bytes);
    if loss.sector_of_seal {
        let sector = (second + u64::from(seal_offset(SLOT))) / 512 * 512;
        zero(&mut bytes, sector..sector + 512);
    }
    let third = slot_start(2, SLOT);
    zero(&mut bytes, third..third + u64::from(SEGMENT_HEADER_BYTES));
    bytes
}

fn open_disk(disk: &SimDisk) -> LogWriter {
    let storage = Arc::new(disk.clone());
    let file = OpenFile::open(storage, Path::new(PATH), Access::ReadWrite, options());
    file.unwrap().recover(None).unwrap().writer.unwrap()
}

/// The log goes on, and is closed: it is healthy, and salvage brings nothing that was given up.
fn check_that_it_goes_on(storage: &dyn Storage, mut writer: LogWriter, what: &str) {
    append(&mut writer, 300..301);
    append(&mut writer, 301..303);
    writer.close().unwrap();
    drop(writer);
    let found = try_salvage(storage, None).unwrap();
    assert!(found.is_certain() && found.uncommitted.is_empty(), "{what}: {found:?}");
    assert_eq!(found.set(), (0..20).chain(300..303).collect(), "{what}");
}

#[test]
fn a_commit_that_was_given_up_is_not_brought_where_its_header_is_lost() {
    for (has_roll_call, is_closed) in [(false, false), (false, true), (true, false), (true, true)] {
        for loss in losses() {
            let storage = storage_of(&with_strays(has_roll_call, is_closed, loss));
            let writer = open(&storage);
            let what = format!("{loss:?}, roll call {has_roll_call}, closed {is_closed}");
            check_that_it_goes_on(&storage, writer, &what);
        }
    }
}

#[test]
fn a_power_cut_while_it_is_wiped_brings_no_commit_that_was_given_up() {
    for loss in losses() {
        let mut left = Image::new();
        left.insert(PATH, with_strays(true, true, loss));
        let disk = SimDisk::recording_from(&left, 1);
        open_disk(&disk).mend().unwrap();
        let (mut cut, mut random) = (PowerCut::from_image(&left), fastrand::Rng::with_seed(1));
        for event in disk.events(0) {
            let is_new = cut.follow(&event);
            for way in cut.cuts(is_new, 40, &mut random) {
                let disk = SimDisk::from_image(&cut.image(&way), 2);
                let writer = open_disk(&disk);
                check_that_it_goes_on(&disk, writer, &format!("{loss:?}, {event}, {way:?}"));
            }
        }
    }
}

/// An opening reads no more than a few slots in search of them; the repair behind it reads all.
#[test]
fn none_of_many_commits_that_were_given_up_is_brought() {
    let (storage, mut writer) = new_log();
    append(&mut writer, 0..20);
    writer.log().sync(writer.end()).unwrap();
    let durable = bytes_of(&storage);
    (1..15).for_each(|number| append(&mut writer, number * 60..number * 60 + 60));
    let slot_count = u32::try_from(slots(&writer.log()).len()).unwrap();
    assert!(slot_count > 12);
    let mut bytes = bytes_of(&storage);
    bytes[durable.len()..usize::try_from(slot_start(1, SLOT)).unwrap()].fill(0);
    bytes[..durable.len()].copy_from_slice(&durable);
    for slot in 1..slot_count {
        // Of the first page of some the disk has lost no more than the header.
        let lost = if slot % 2 == 0 { u64::from(SEGMENT_HEADER_BYTES) } else { 4096 };
        zero(&mut bytes, slot_start(slot, SLOT)..slot_start(slot, SLOT) + lost);
        if slot + 1 < slot_count {
            let sector = (slot_start(slot, SLOT) + u64::from(seal_offset(SLOT))) / 512 * 512;
            zero(&mut bytes, sector..sector + 512);
        }
    }
    let storage = storage_of(&bytes);
    let writer = open(&storage);
    check_that_it_goes_on(&storage, writer, "many");
}

/// A power cut brings back the header of the segment that was there, and keeps the blocks of a commit behind it.
#[test]
fn a_slot_that_was_cut_off_and_is_begun_anew_hides_no_commit_that_was_given_up() {
    let disk = SimDisk::recording(1);
    create(&disk, Path::new(PATH), &options()).unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    let mut writer = open_disk(&disk);
    append(&mut writer, 1000..1400);
    writer.log().sync(writer.end()).unwrap();
    free_all(&mut writer);
    append(&mut writer, 0..20);
    writer.log().sync(writer.end()).unwrap();
    assert!(writer.cut().unwrap() > u64::from(SLOT));
    // Nobody is told that these are there.
    append(&mut writer, 20..80);
    append(&mut writer, 80..200);
    assert!(slots(&writer.log()).len() > 2);
    drop(writer);
    let mut cut = PowerCut::new();
    for event in disk.events(0) {
        cut.follow(&event);
    }
    let ways = cut.cuts(false, 200, &mut fastrand::Rng::with_seed(1));
    assert!(ways.len() > 20, "{} ways", ways.len());
    for way in ways {
        let disk = SimDisk::from_image(&cut.image(&way), 2);
        let mut writer = open_disk(&disk);
        append(&mut writer, 300..301);
        writer.close().unwrap();
        let kept: Vec<Vec<u8>> = all(&writer.log());
        drop(writer);
        let disk = disk.kill();
        let found = try_salvage(&disk, None).unwrap();
        assert!(found.is_certain(), "{way:?}: {found:?}");
        assert_eq!(found.numbers.len(), kept.len(), "{way:?}");
        assert!(found.numbers.iter().all(|number| kept.contains(&entry(*number))), "{way:?}");
    }
}
