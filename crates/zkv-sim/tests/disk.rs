//! What the simulated disk may lose, and what it may not.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use zkv_io::{LockKind, OpenMode, Storage, StorageFile};
use zkv_sim::{
    BadSector, Calls, Cut, Fault, Growth, Image, Lasts, PowerCut, SimDisk, SyncFailure,
    WriteFailure,
};

const A: &str = "dir/a";

fn path(name: &str) -> &Path {
    Path::new(name)
}

fn new_file(disk: &SimDisk, name: &str) -> Arc<dyn StorageFile> {
    disk.open(path(name), OpenMode::CreateNew).unwrap()
}

/// A file that is durable, name and all, and what it holds.
fn durable_file(disk: &SimDisk, bytes: &[u8]) -> Arc<dyn StorageFile> {
    let file = new_file(disk, A);
    file.write_at(0, bytes).unwrap();
    file.sync_all().unwrap();
    disk.sync_dir(path("dir")).unwrap();
    file
}

/// What the file at `name` may hold after a power cut now; `None`: there is no such file.
fn outcomes(disk: &SimDisk, name: &str) -> BTreeSet<Option<Vec<u8>>> {
    let mut cut = PowerCut::new();
    disk.events(0).iter().for_each(|event| {
        cut.follow(event);
    });
    let cuts = cut.cuts(false, 5000, &mut fastrand::Rng::with_seed(5));
    cuts.iter().map(|way| cut.image(way).get(path(name)).map(<[u8]>::to_vec)).collect()
}

fn some(bytes: &[u8]) -> Option<Vec<u8>> {
    Some(bytes.to_vec())
}

fn fault(calls: Calls, number: u64, sync: SyncFailure) -> Fault {
    let (error, write) = (io::ErrorKind::StorageFull, WriteFailure::Half);
    Fault { calls, number, lasts: false, error, write, sync }
}

#[test]
fn unsynced_writes_are_kept_lost_and_reordered() {
    let disk = SimDisk::recording(1);
    let file = durable_file(&disk, b"....");
    file.write_at(0, b"x").unwrap();
    file.write_at(1, b"y").unwrap();
    let expected = [b"....", b"x...", b".y..", b"xy.."];
    assert_eq!(outcomes(&disk, A), expected.map(|bytes| some(bytes)).into());
    file.sync_data().unwrap();
    assert_eq!(outcomes(&disk, A), [some(b"xy..")].into());
}

#[test]
fn a_name_lasts_once_its_directory_is_synced() {
    let disk = SimDisk::recording(1);
    new_file(&disk, A).sync_all().unwrap();
    assert_eq!(outcomes(&disk, A), [None, some(b"")].into());
    disk.sync_dir(path("other")).unwrap();
    assert_eq!(outcomes(&disk, A).len(), 2);
    disk.sync_dir(path("dir")).unwrap();
    assert_eq!(outcomes(&disk, A), [some(b"")].into());
}

#[test]
fn a_rename_shows_the_old_file_or_the_new_one() {
    let disk = SimDisk::recording(1);
    durable_file(&disk, b"old");
    let file = new_file(&disk, "dir/b");
    file.write_at(0, b"new").unwrap();
    file.sync_all().unwrap();
    disk.rename(path("dir/b"), path(A)).unwrap();
    assert_eq!(outcomes(&disk, A), [some(b"old"), some(b"new")].into());
    disk.sync_dir(path("dir")).unwrap();
    assert_eq!(outcomes(&disk, A), [some(b"new")].into());
}

#[test]
fn large_writes_are_torn_and_lengths_come_before_bytes() {
    let disk = SimDisk::recording(1);
    let file = durable_file(&disk, b"");
    file.write_at(0, &[7; 1024]).unwrap();
    let found = outcomes(&disk, A);
    let half = [vec![7; 512], vec![0; 512]].concat();
    assert!(found.contains(&Some(vec![7; 512])), "the first sector alone");
    assert!(found.contains(&some(&half[512..].repeat(2))), "the length with zeros");
    let is_garbage =
        |bytes: &Vec<u8>| bytes.len() == 1024 && bytes[..] != [7; 1024] && bytes.contains(&1);
    assert!(found.iter().flatten().any(is_garbage), "the length with garbage");
}

#[test]
fn what_a_cut_leaves_behind_a_files_end_may_come_to_light_when_the_file_grows() {
    let disk = SimDisk::recording(1);
    let file = durable_file(&disk, b"..");
    file.write_at(2, b"abandoned").unwrap();
    let follow = |mut cut: PowerCut, disk: &SimDisk| {
        disk.events(0).iter().for_each(|event| {
            cut.follow(event);
        });
        cut
    };
    let short = Cut { kept: vec![true], tear: None, growth: Growth::Short };
    let image = follow(PowerCut::new(), &disk).image(&short);
    assert_eq!(image.get(path(A)).unwrap(), b"..");
    // Another process appends something else, of which only the length reaches the disk.
    let next = SimDisk::recording_from(&image, 2);
    let file = next.open(path(A), OpenMode::ReadWrite).unwrap();
    file.write_at(2, b"new").unwrap();
    let lost = Cut { kept: vec![false], tear: None, growth: Growth::Garbage };
    let cut = follow(PowerCut::from_image(&image), &next);
    assert_eq!(cut.image(&lost).get(path(A)).unwrap(), b"..aba");
    // Once synced, it is gone.
    file.sync_data().unwrap();
    file.write_at(5, b"er").unwrap();
    let cut = follow(PowerCut::from_image(&image), &next);
    let found = cut.image(&lost);
    assert_eq!(found.get(path(A)).unwrap()[..5], *b"..new");
    assert_ne!(found.get(path(A)).unwrap()[5..], *b"nd");
}

#[test]
fn what_a_cut_has_hidden_stays_until_its_page_is_written() {
    let disk = SimDisk::recording(1);
    let file = durable_file(&disk, &[b'.'; 5000]);
    file.write_at(5000, b"abandoned").unwrap();
    let events_of = |disk: &SimDisk, mut cut: PowerCut| {
        disk.events(0).iter().for_each(|event| _ = cut.follow(event));
        cut
    };
    let cut = |kept: bool, growth| Cut { kept: vec![kept], tear: None, growth };
    let image = events_of(&disk, PowerCut::new()).image(&cut(true, Growth::Short));
    // A sync that writes another page, and then one that loses all but a length.
    let next = SimDisk::recording_from(&image, 2);
    let file = next.open(path(A), OpenMode::ReadWrite).unwrap();
    file.write_at(0, b"x").unwrap();
    file.sync_data().unwrap();
    file.write_at(5000, b"new").unwrap();
    let followed = events_of(&next, PowerCut::from_image(&image));
    assert_eq!(followed.image(&cut(false, Growth::Garbage)).get(path(A)).unwrap()[5000..], *b"aba");
    // Of the next crash, too, what was not written over stays.
    for (kept, shown) in [(true, b"newndone"), (false, b"abandone")] {
        let image = followed.image(&cut(kept, Growth::Short));
        let third = SimDisk::recording_from(&image, 3);
        third.open(path(A), OpenMode::ReadWrite).unwrap().write_at(5000, &[b'-'; 8]).unwrap();
        let followed = events_of(&third, PowerCut::from_image(&image));
        let found = followed.image(&cut(false, Growth::Garbage));
        assert_eq!(found.get(path(A)).unwrap()[5000..], *shown);
    }
}

#[test]
fn only_cuts_that_keep_the_newest_change_are_new() {
    let disk = SimDisk::recording(1);
    let file = durable_file(&disk, b"..");
    file.write_at(0, b"x").unwrap();
    file.write_at(1, b"y").unwrap();
    let mut cut = PowerCut::new();
    disk.events(0).iter().for_each(|event| {
        cut.follow(event);
    });
    let cuts = cut.cuts(true, 100, &mut fastrand::Rng::with_seed(1));
    let plain = cuts.iter().filter(|cut| cut.growth == Growth::AsWritten && cut.tear.is_none());
    let found: BTreeSet<Vec<u8>> =
        plain.map(|way| cut.image(way).get(path(A)).unwrap().to_vec()).collect();
    assert_eq!(found, [b".y".to_vec(), b"xy".to_vec()].into());
}

#[test]
fn a_failed_sync_is_not_made_good_by_another_one() {
    for manner in [SyncFailure::CacheNew, SyncFailure::CacheReverted] {
        let disk = SimDisk::recording(3);
        let file = durable_file(&disk, &[1; 5000]);
        file.write_at(10, &[2; 10]).unwrap();
        disk.set_fault(Some(fault(Calls::Syncs, 1, manner)));
        assert!(!disk.has_failed_sync());
        file.sync_data().unwrap_err();
        assert!(disk.has_failed_sync());
        file.sync_data().unwrap();
        let seen = disk.image().get(path(A)).unwrap()[10];
        assert_eq!(seen == 2, manner == SyncFailure::CacheNew);
        let found = outcomes(&disk, A);
        assert_eq!(found.len(), 1, "{manner:?}: it was decided then");
        // What is written anew is: the rest of its page comes with it.
        file.write_at(0, &[3]).unwrap();
        file.sync_data().unwrap();
        let found = outcomes(&disk, A).pop_first().flatten().unwrap();
        assert_eq!((found[0], found[10]), (3, seen));
    }
}

#[test]
fn a_failure_that_is_told_late_comes_with_the_next_sync() {
    let disk = SimDisk::recording(1);
    let file = durable_file(&disk, b"..");
    file.write_at(0, b"x").unwrap();
    disk.set_fault(Some(fault(Calls::Syncs, 1, SyncFailure::ToldLate)));
    file.sync_data().unwrap();
    disk.set_fault(None);
    file.sync_data().unwrap_err();
    file.sync_data().unwrap();
}

#[test]
fn a_fault_strikes_once_or_for_ever_and_counts_its_own_calls() {
    let disk = SimDisk::recording(1);
    let file = durable_file(&disk, b"..");
    let once = fault(Calls::Changes, 2, SyncFailure::CacheNew);
    for (lasts, expected) in [(false, [true, false, true]), (true, [true, false, false])] {
        disk.set_fault(Some(Fault { lasts, ..once.clone() }));
        let done = expected.map(|_| {
            file.len().unwrap();
            file.write_at(0, b"x").is_ok()
        });
        assert!(!disk.has_failed_sync());
        assert_eq!((done, disk.counted_calls()), (expected, 3));
    }
    disk.set_fault(Some(Fault { calls: Calls::Reads, number: 1, ..once }));
    file.write_at(0, b"x").unwrap();
    assert_eq!(file.len().unwrap_err().kind(), io::ErrorKind::StorageFull);
}

#[test]
fn a_write_that_fails_arrives_as_far_as_the_fault_says() {
    let manners = [WriteFailure::Nothing, WriteFailure::Half, WriteFailure::AllButLast];
    for (write, expected) in manners.into_iter().zip([&b"...."[..], b"xy..", b"xyz."]) {
        let disk = SimDisk::recording(1);
        let file = durable_file(&disk, b"....");
        let once = fault(Calls::Changes, 1, SyncFailure::CacheNew);
        disk.set_fault(Some(Fault { write, ..once }));
        file.write_at(0, b"xyzw").unwrap_err();
        assert_eq!(disk.image().get(path(A)).unwrap(), expected, "{write:?}");
    }
}

#[test]
fn a_killed_process_leaves_its_files_and_nothing_else() {
    let disk = SimDisk::recording(1);
    let file = durable_file(&disk, b"..");
    file.write_at(0, b"x").unwrap();
    assert!(file.try_lock(LockKind::Exclusive).unwrap());
    let next = disk.kill();
    file.write_at(0, b"y").unwrap_err();
    let again = next.open(path(A), OpenMode::ReadWrite).unwrap();
    assert!(again.try_lock(LockKind::Exclusive).unwrap());
    drop(file);
    let third = next.open(path(A), OpenMode::ReadOnly).unwrap();
    assert!(!third.try_lock(LockKind::Shared).unwrap(), "the old handle holds no lock to free");
    assert_eq!(next.image().get(path(A)).unwrap(), b"x.");
}

#[test]
fn one_seed_gives_one_run() {
    let run = || {
        let disk = SimDisk::recording(9);
        let file = durable_file(&disk, &[0; 3000]);
        let mut random = [0; 16];
        disk.random(&mut random).unwrap();
        file.write_at(0, &random.repeat(200)).unwrap();
        let mut cut = PowerCut::from_image(&Image::new());
        disk.events(0).iter().for_each(|event| {
            cut.follow(event);
        });
        let cuts = cut.cuts(true, 50, &mut fastrand::Rng::with_seed(2));
        cuts.iter().map(|way| cut.image(way)).collect::<Vec<_>>()
    };
    assert!(run() == run());
}

#[test]
fn on_a_full_disk_only_growing_fails_and_what_is_removed_gives_room_once_nobody_has_it_open() {
    let disk = SimDisk::recording(1);
    let (one, two) = (new_file(&disk, "one"), new_file(&disk, "two"));
    one.write_at(0, &[1; 10]).unwrap();
    two.write_at(0, &[2; 6]).unwrap();
    assert_eq!(disk.used_bytes(), 16);
    disk.set_capacity(Some(17));
    one.write_at(0, &[3; 10]).unwrap();
    one.write_at(10, &[3]).unwrap();
    let full = |failed: io::Result<()>| {
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::StorageFull);
    };
    full(one.write_at(10, &[4; 2]));
    full(two.set_len(7));
    assert_eq!((one.len().unwrap(), two.len().unwrap()), (11, 6));
    two.set_len(5).unwrap();
    two.set_len(6).unwrap();
    let map = two.map().unwrap();
    disk.remove(path("two")).unwrap();
    drop(two);
    full(one.write_at(10, &[4; 2]));
    drop(map);
    one.write_at(10, &[4; 7]).unwrap();
    assert_eq!(disk.used_bytes(), 17);
}

#[test]
fn a_bad_sector_fails_whoever_touches_it_until_it_is_written_whole_or_cut_off() {
    let disk = SimDisk::recording(1);
    let file = durable_file(&disk, &[7; 4096]);
    let bad = |lasts| BadSector { offset: 512, bytes: 512, lasts };
    let map = file.map().unwrap();
    for lasts in [Lasts::ForEver, Lasts::UntilWritten, Lasts::ForAWhile] {
        disk.set_bad_sectors(path(A), vec![bad(lasts)]).unwrap();
        let lost = |offset, bytes| {
            let failed = file.read_at(offset, &mut vec![0; bytes]).map_err(|error| error.kind());
            let mapped = map.copy_out(offset, &mut vec![0; bytes]).map_err(|error| error.kind());
            assert_eq!(failed, mapped);
            failed == Err(io::ErrorKind::Other)
        };
        assert!(lost(511, 2) && lost(1023, 1) && lost(0, 4096) && !lost(0, 512) && !lost(1024, 9));
        let is_mended = lasts == Lasts::UntilWritten;
        // The rest of it would have to be read.
        assert_eq!(file.write_at(1000, &[8; 100]).is_err(), is_mended);
        assert_eq!(disk.has_refused_write(), is_mended || lasts == Lasts::ForAWhile);
        file.write_at(500, &[8; 600]).unwrap();
        assert_eq!(lost(600, 1), !is_mended);
        assert_eq!(disk.bad_sectors(path(A)).is_empty(), is_mended);
    }
    file.set_len(512).unwrap();
    file.set_len(4096).unwrap();
    file.read_at(0, &mut [0; 4096]).unwrap();
}
