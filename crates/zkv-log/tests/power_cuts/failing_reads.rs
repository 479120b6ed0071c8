//! Reads that fail, once or for ever.

use std::io::ErrorKind;

use zkv_log::LogError;
use zkv_sim::{Calls, Fault, SyncFailure, WriteFailure};

use super::common::noise;
use super::{log_with_a_free_slot, open, try_open};

fn read_fault(number: u64, lasts: bool, error: ErrorKind) -> Fault {
    let (write, sync) = (WriteFailure::Nothing, SyncFailure::CacheNew);
    Fault { calls: Calls::Reads, number, lasts, error, write, sync }
}

#[test]
fn a_read_that_fails_while_a_commit_is_abandoned_loses_no_way_to_the_newest_roll_call() {
    for (number, lasts) in (1..20).flat_map(|number| [(number, false), (number, true)]) {
        let (disk, mut writer) = log_with_a_free_slot(1);
        let end = writer.end();
        let packed = writer.log().pack(&[&noise(8, 40_000)]).unwrap();
        let mut commit = writer.begin().unwrap();
        commit.append(&packed).unwrap();
        disk.set_fault(Some(read_fault(number, lasts, ErrorKind::Other)));
        drop(commit);
        disk.set_fault(None);
        drop(writer);
        assert_eq!(open(&disk.kill()).end(), end, "read {number}, for ever: {lasts}");
    }
}

#[test]
fn a_read_that_fails_for_now_while_a_log_is_opened_is_no_damage() {
    let (disk, mut writer) = log_with_a_free_slot(1);
    let checkpoint = writer.checkpoint().unwrap();
    writer.append(&[&noise(8, 40_000)]).unwrap();
    let end = writer.end();
    drop(writer);
    for checkpoint in [None, Some(&*checkpoint)] {
        let mut failed = 0;
        for number in 1.. {
            let disk = disk.kill();
            disk.set_fault(Some(read_fault(number, false, ErrorKind::OutOfMemory)));
            match try_open(&disk, checkpoint) {
                Ok(left) => assert_eq!(left.writer.unwrap().end(), end, "read {number}"),
                Err(LogError::Io { cause, .. }) if cause.kind() == ErrorKind::OutOfMemory => {
                    failed += 1;
                }
                Err(error) => panic!("read {number}: {error}"),
            }
            if disk.counted_calls() < number {
                break;
            }
        }
        assert!(failed > 5, "{failed}");
    }
}
