//! Commits that meet at the writer and at the disk.

use std::io;
use std::sync::Arc;

use shuttle::rand::{Rng, RngCore, thread_rng};
use shuttle::thread;
use zkv::{Durability, Error, Options, Result, Store, WriteBatch};
use zkv_model::check;
use zkv_sim::{Calls, Cut, Fault, Growth, Image, PowerCut, SimDisk, SyncFailure, WriteFailure};

const THREADS: u8 = 3;
const COMMITS: u8 = 2;

/// A disk of which it is known what was made durable. What a failed sync loses is by chance.
fn disk() -> SimDisk {
    SimDisk::recording(thread_rng().next_u64())
}

fn open(disk: &SimDisk) -> Store {
    let options = Options::new().storage(Arc::new(disk.clone())).memory_buffer_bytes(64 << 10);
    options.slot_bytes(256 << 10).open("dir/store.zkv").unwrap()
}

/// Writes one key so that it is on stable storage when this returns, in one of the two ways.
fn set_synced(store: &Store, key: &[u8]) -> Result<()> {
    let mut batch = WriteBatch::new();
    batch.set_bytes(key, b"value");
    if thread_rng().gen_bool(0.7) {
        return store.write_with(batch, Durability::Synced);
    }
    store.write_with(batch, Durability::Buffered)?;
    store.sync()
}

/// What a power cut leaves now that takes all that nothing has made durable.
fn after_power_cut(disk: &SimDisk) -> Image {
    let mut durable = PowerCut::new();
    for event in disk.events(0) {
        durable.follow(&event);
    }
    let kept = vec![false; durable.pending().len()];
    durable.image(&Cut { kept, tear: None, growth: Growth::AsWritten })
}

/// Commits, and holds that each commit that was acknowledged is there after a power cut. Returns
/// whether all were.
fn commit_all(store: &Store, disk: &SimDisk, thread: u8) -> bool {
    let mut acknowledged = Vec::new();
    for number in 0..COMMITS {
        let key = [thread, number];
        if set_synced(store, &key).is_ok() {
            acknowledged.push(key);
        }
        let left = open(&SimDisk::from_image(&after_power_cut(disk), 2));
        for key in &acknowledged {
            assert!(left.contains_bytes(key).unwrap(), "acknowledged, and lost: {key:?}");
        }
    }
    acknowledged.len() == usize::from(COMMITS)
}

/// Runs threads that commit on one store; says whether every commit of theirs was acknowledged.
fn commit_side_by_side(store: &Store, disk: &SimDisk) -> bool {
    let threads = (0..THREADS).map(|thread| {
        let (store, disk) = (store.clone(), disk.clone());
        thread::spawn(move || commit_all(&store, &disk, thread))
    });
    let threads: Vec<_> = threads.collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).fold(true, |all, one| all & one)
}

#[test]
fn what_was_acknowledged_as_synced_survives_a_power_cut() {
    check(40, || {
        let disk = disk();
        let store = open(&disk);
        assert!(commit_side_by_side(&store, &disk));
        store.close().unwrap();
    });
}

#[test]
fn a_sync_that_failed_is_no_proof_for_anybody() {
    check(40, || {
        let disk = disk();
        let store = open(&disk);
        disk.set_fault(Some(Fault {
            calls: Calls::Syncs,
            number: thread_rng().gen_range(1..5),
            lasts: false,
            error: io::ErrorKind::Other,
            write: WriteFailure::Nothing,
            sync: SyncFailure::CacheNew,
        }));
        let all_acknowledged = commit_side_by_side(&store, &disk);
        assert!(
            !(all_acknowledged && disk.has_failed_sync()),
            "a failed sync that nobody was told"
        );
    });
}

#[test]
fn transactions_of_one_key_lose_nothing() {
    check(40, || {
        let store = open(&SimDisk::from_image(&Image::new(), 1));
        let add_one = |store: &Store| -> Result<()> {
            let mut transaction = store.begin()?;
            let count = transaction.get_bytes(b"count")?.map_or(0, |value| value[0]);
            transaction.set_bytes(b"count", &[count + 1])?;
            let ways = [Durability::Buffered, Durability::Flushed, Durability::Synced];
            transaction.commit_with(ways[thread_rng().gen_range(0..ways.len())])
        };
        let threads = (0..THREADS).map(|_| {
            let store = store.clone();
            thread::spawn(move || {
                while let Err(error) = add_one(&store) {
                    assert!(matches!(error, Error::Conflict), "{error}");
                }
            })
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(store.get_bytes(b"count").unwrap(), Some(vec![THREADS]));
        store.close().unwrap();
    });
}
