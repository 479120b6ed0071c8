//! What stood in a slot before says where the log goes on, or how far it is durable.

use super::*;

/// A log in whose slot 2, which is free, lies the roll call that the last header names: what is appended next
/// goes there.
fn log_that_goes_on_over_its_roll_call() -> (SimDisk, LogWriter) {
    let (disk, mut writer) = log_with_a_free_slot(1);
    for number in 3..5 {
        writer.append(&[&noise(number, 40_000)]).unwrap();
    }
    writer.free(&[2]).unwrap();
    writer.log().sync(writer.end()).unwrap();
    (disk, writer)
}

/// Opens what a process that ended left, by the log alone.
fn check_end(disk: &SimDisk, writer: LogWriter, what: &str) {
    let end = writer.end();
    drop(writer);
    let left = try_open(&disk.kill(), None).unwrap_or_else(|error| panic!("{error}: {what}"));
    assert_eq!(left.writer.unwrap().end(), end, "{what}");
}

#[test]
fn a_full_disk_leaves_the_way_to_the_newest_roll_call() {
    let (disk, mut writer) = log_that_goes_on_over_its_roll_call();
    disk.set_capacity(Some(disk.used_bytes()));
    // The last slot's seal makes the file longer.
    writer.append(&[&noise(5, 40_000)]).unwrap_err();
    check_end(&disk, writer, "a full disk");
}

#[test]
fn a_seal_or_a_header_that_is_refused_leaves_the_way_to_the_newest_roll_call() {
    for write in [WriteFailure::Nothing, WriteFailure::Half] {
        for (number, what) in [(1, "the seal"), (2, "the header in slot 2")] {
            let (disk, mut writer) = log_that_goes_on_over_its_roll_call();
            let (end, truth) = (writer.end(), slots(&writer.log()));
            let error = std::io::ErrorKind::StorageFull;
            let (calls, sync) = (Calls::Changes, SyncFailure::CacheNew);
            disk.set_fault(Some(Fault { calls, number, lasts: false, error, write, sync }));
            writer.append(&[&noise(5, 40_000)]).unwrap_err();
            disk.set_fault(None);
            assert_eq!((writer.end(), slots(&writer.log())), (end, truth));
            check_end(&disk, writer, &format!("{what}, {write:?}"));
        }
    }
}

#[test]
fn an_end_mark_that_was_not_synced_before_older_bytes_is_not_taken_for_durable() {
    for seed in 0..5 {
        let (disk, mut writer) = log_with_a_free_slot(seed);
        // In slot 0 again; the mark ends a page, so that nothing else is written to that.
        let page_end = 36 << 10;
        let overhead = SEGMENT_HEADER_BYTES + 2 * COMMIT_BLOCK_BYTES + 9;
        writer.append(&[&noise(9, (page_end - overhead) as usize)]).unwrap();
        disk.set_fault(failed_sync(2));
        writer.close().unwrap_err();
        disk.set_fault(None);
        drop(writer);
        let next = disk.kill();
        let mut writer = open(&next);
        assert_eq!(writer.end().offset, page_end);
        writer.append(&[b"next"]).unwrap();
        drop(writer);
        for left in cut_now(&next) {
            try_open(&left, None).unwrap();
        }
    }
}
