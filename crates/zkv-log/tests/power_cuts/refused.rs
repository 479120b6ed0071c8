//! Commits that the disk has no room for, and what becomes of the room that it had.

use std::path::Path;

use zkv_log::{LogError, LogWriter, Room, create};
use zkv_sim::SimDisk;

use super::{PATH, SLOT, all, cut_behind, log_with_a_free_slot, noise, open, options};

/// One commit of fifteen slots, of which five have room.
fn refuse(disk: &SimDisk, writer: &mut LogWriter) {
    disk.set_capacity(Some(disk.used_bytes() + 5 * u64::from(SLOT)));
    let entries: Vec<Vec<u8>> = (20..40).map(|seed| noise(seed, 40_000)).collect();
    let entries: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
    let error = writer.append(&entries).unwrap_err();
    assert!(matches!(error, LogError::Io { .. }), "{error}");
}

#[test]
fn a_commit_that_is_refused_leaves_the_file_as_long_as_it_was() {
    for room in [Room::Exact, Room::Ahead] {
        let disk = SimDisk::recording(1);
        create(&disk, Path::new(PATH), &options()).unwrap();
        let mut writer = open(&disk);
        let packed = writer.log().pack(&[b"first"]).unwrap();
        let mut commit = writer.begin().unwrap();
        commit.append(&packed).unwrap();
        commit.finish(room).unwrap();
        writer.log().sync(writer.end()).unwrap();
        // Whoever reads has the file mapped.
        let view = writer.log().view();
        let before = writer.log().file_bytes().unwrap();
        refuse(&disk, &mut writer);
        assert_eq!(writer.log().file_bytes().unwrap(), before);
        assert!(before.is_multiple_of(4096));
        // Others have the room, and what is within the file's length is still this one's.
        disk.set_capacity(Some(disk.used_bytes()));
        writer.append(&[b"second"]).unwrap();
        refuse(&disk, &mut writer);
        disk.set_capacity(None);
        writer.append(&[&noise(1, 40_000), &noise(2, 40_000)]).unwrap();
        writer.log().sync(writer.end()).unwrap();
        let expected =
            vec![b"first".to_vec(), b"second".to_vec(), noise(1, 40_000), noise(2, 40_000)];
        assert_eq!(all(&writer.log()), expected);
        assert_eq!(view.segments().len(), 1);
        drop((writer, view));
        assert_eq!(all(&open(&disk.kill()).log()), expected);
    }
}

#[test]
fn a_power_cut_behind_a_commit_that_was_refused_loses_nothing_and_brings_nothing_of_it() {
    let (disk, mut writer) = log_with_a_free_slot(3);
    let before = disk.event_count();
    let old = all(&writer.log());
    refuse(&disk, &mut writer);
    disk.set_capacity(None);
    writer.append(&[&noise(9, 40_000)]).unwrap();
    writer.append(&[&noise(10, 40_000)]).unwrap();
    let new = all(&writer.log());
    assert_eq!(new.len(), old.len() + 2);
    cut_behind(&disk, before, 6, |left, what| {
        let mut writer = left.writer.unwrap();
        let found = all(&writer.log());
        assert!(found.starts_with(&old) && new.starts_with(&found), "{what}");
        writer.append(&[b"goes on"]).unwrap();
        assert_eq!(all(&writer.log()).len(), found.len() + 1, "{what}");
    });
    drop(writer);
    assert_eq!(all(&open(&disk.kill()).log()), new);
}
