//! What a store promises, case by case.

mod common;

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use zkv::{
    Collection, Durability, Error, ErrorKind, KEY_BYTES_MAX, MemoryStorage, Options, Store,
    WriteBatch,
};

use common::{Page, check, fill, index_path, page, place};

#[test]
fn typed_values_round_trip_through_reopening() {
    let place = place();
    let store = Store::open(&place.path).unwrap();
    fill(&store, 0, 3000);
    check(&store, 3000);
    store.close().unwrap();
    let store = Store::open(&place.path).unwrap();
    check(&store, 3000);
    assert!(store.delete(&7u64).unwrap());
    assert!(!store.delete(&7u64).unwrap());
    assert!(!store.contains(&7u64).unwrap());
    drop(store);
    let store = Store::open(&place.path).unwrap();
    assert_eq!(store.get::<_, Page>(&7u64).unwrap(), None);
    assert_eq!(store.len(), 2999);
}

#[test]
fn a_value_read_as_another_type_is_an_error() {
    let place = place();
    let store = Store::open(&place.path).unwrap();
    store.set("key", &(1u64, 2u64)).unwrap();
    let error = store.get::<_, u64>("key").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Encoding);
    assert_eq!(store.get::<_, (u64, u64)>("key").unwrap(), Some((1, 2)));
}

#[test]
fn typed_and_raw_records_are_the_same() {
    let place = place();
    let store = Store::open(&place.path).unwrap();
    store.set("a", "b").unwrap();
    assert_eq!(store.get_bytes(b"\x01a").unwrap().unwrap(), b"\x01b");
}

#[test]
fn a_value_that_cannot_be_encoded_changes_nothing() {
    struct Refuses;
    impl Serialize for Refuses {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("no"))
        }
    }
    let place = place();
    let store = Store::open(&place.path).unwrap();
    store.set("key", &1u8).unwrap();
    assert_eq!(store.set("key", &Refuses).unwrap_err().kind(), ErrorKind::Encoding);
    assert_eq!(store.get("key").unwrap(), Some(1u8));
}

#[test]
fn limits_are_held() {
    let place = place();
    let store = Store::open(&place.path).unwrap();
    let key = vec![1; 65_536];
    store.set_bytes(&key, b"v").unwrap();
    assert_eq!(store.get_bytes(&key).unwrap().unwrap(), b"v");
    let error = store.set_bytes(&vec![1; 65_537], b"v").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert!(error.to_string().contains("65537") && error.to_string().contains("65536"));
    for bytes in [1 << 20, (1 << 20) + 1] {
        let value = vec![9; bytes];
        store.set_bytes(b"k", &value).unwrap();
        assert!(store.get_bytes(b"k").unwrap().unwrap() == value);
    }
}

#[test]
fn options_out_of_range_are_named_with_their_range() {
    let place = place();
    let cases = [
        (
            Options::new().compression_level(-8),
            "compression_level is -8",
            "from -7 to 22, and not 0",
        ),
        (Options::new().compression_level(0), "compression_level is 0", "from -7 to 22, and not 0"),
        (Options::new().compression_level(23), "compression_level is 23", "from -7 to 22"),
        (Options::new().max_parallel_reads(0), "max_parallel_reads", "from 1 to 4096"),
        (Options::new().compression_threads(0), "compression_threads is 0", "from 1 to 256"),
        (Options::new().compression_threads(257), "compression_threads is 257", "from 1 to 256"),
        (Options::new().memory_buffer_bytes(1), "memory_buffer_bytes", "65536"),
        (Options::new().disk_buffer_bytes(1), "disk_buffer_bytes", "4096"),
        (Options::new().block_bytes(1), "block_bytes", "from 64 to 65536"),
        (Options::new().slot_bytes(3 << 20), "slot_bytes", "power of two"),
        (Options::new().slot_bytes(64 << 10), "slot_bytes", "262144"),
        (Options::new().flush_interval(Duration::ZERO), "flush_interval", "3600000"),
    ];
    for (options, name, range) in cases {
        let error = options.open(&place.path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse);
        let text = error.to_string();
        assert!(text.contains(name) && text.contains(range), "{text}");
        assert!(!place.path.exists());
    }
}

#[test]
fn any_number_of_threads_compresses_the_same_records() {
    for count in [1, 2, 256] {
        let place = place();
        let options = || Options::new().compression_threads(count).memory_buffer_bytes(1 << 20);
        let store = options().open(&place.path).unwrap();
        for number in 0..20_000u32 {
            store.set(&number, &format!("the value of {number}")).unwrap();
        }
        store.close().unwrap();
        let store = options().open(&place.path).unwrap();
        assert_eq!(store.iter_bytes().filter(Result::is_ok).count(), 20_000, "{count} threads");
        let value: Option<String> = store.get(&7u32).unwrap();
        assert_eq!(value.as_deref(), Some("the value of 7"));
    }
}

#[test]
fn values_in_pieces_are_stored_replaced_and_deleted() {
    let place = place();
    let store = Options::new().slot_bytes(1 << 20).open(&place.path).unwrap();
    let noise = |seed: u64, bytes: usize| -> Vec<u8> {
        let mut state = seed;
        let next = std::iter::repeat_with(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        });
        next.take(bytes).collect()
    };
    let (first, second) = (noise(1, 5_000_000), noise(2, 3_000_001));
    store.set_bytes(b"key", b"short").unwrap();
    store.set_bytes(b"key", &first).unwrap();
    assert!(store.get_bytes(b"key").unwrap().unwrap() == first);
    store.set_bytes(b"other", &second).unwrap();
    store.set_bytes(b"key", &second).unwrap();
    assert_eq!(store.len(), 2);
    assert_eq!(store.stats().unwrap().raw_bytes, 3 + 5 + 2 * 3_000_001);
    store.close().unwrap();
    fs::remove_file(index_path(&place.path)).unwrap();
    let store = Store::open(&place.path).unwrap();
    assert!(store.get_bytes(b"key").unwrap().unwrap() == second);
    assert_eq!(store.stats().unwrap().raw_bytes, 3 + 5 + 2 * 3_000_001);
    assert!(store.delete_bytes(b"key").unwrap());
    store.set_bytes(b"other", b"short again").unwrap();
    store.flush().unwrap();
    assert_eq!(store.stats().unwrap().raw_bytes, 5 + 11);
    let all: Vec<_> = store.iter_bytes().map(Result::unwrap).collect();
    assert_eq!(all, [(b"other".to_vec(), b"short again".to_vec())]);
}

#[test]
fn a_value_of_100_mib_round_trips() {
    let place = place();
    let store = Store::open(&place.path).unwrap();
    let value: Vec<u8> = (0..100u64 << 20).map(|at| (at >> 12).to_le_bytes()[0]).collect();
    store.set_bytes(b"large", &value).unwrap();
    store.close().unwrap();
    let store = Store::open(&place.path).unwrap();
    assert!(store.get_bytes(b"large").unwrap().unwrap() == value);
}

#[cfg(target_pointer_width = "64")]
#[test]
fn a_value_of_4_gib_is_over_the_limit() {
    let place = place();
    let store = Store::open(&place.path).unwrap();
    // Zeroed memory that nobody touches takes no room.
    let error = store.set_bytes(b"k", &vec![0; 1 << 32]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert!(error.to_string().contains("4294967295"), "{error}");
    assert_eq!(store.len(), 0);
}

#[test]
fn one_parallel_read_suffices_for_values_in_pieces() {
    let place = place();
    let store = Options::new().max_parallel_reads(1).open(&place.path).unwrap();
    store.set_bytes(b"k", &vec![3; 2 << 20]).unwrap();
    store.flush().unwrap();
    assert_eq!(store.get_bytes(b"k").unwrap().unwrap().len(), 2 << 20);
}

#[test]
fn a_second_opening_is_locked_out_at_once_and_free_after_the_first() {
    let place = place();
    let store = Store::open(&place.path).unwrap();
    assert_eq!(Store::open(&place.path).unwrap_err().kind(), ErrorKind::Locked);
    let error = Store::open_read_only(&place.path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.to_string().contains("store.zkv"), "{error}");
    drop(store);
    let (first, second) =
        (Store::open_read_only(&place.path).unwrap(), Store::open_read_only(&place.path).unwrap());
    assert_eq!(Store::open(&place.path).unwrap_err().kind(), ErrorKind::Locked);
    drop((first, second));
    Store::open(&place.path).unwrap();
}

#[test]
fn an_opening_waits_for_the_lock_as_long_as_it_is_told_to() {
    let place = place();
    let waiting = |wait| Options::new().lock_wait(wait);
    let store = Store::open(&place.path).unwrap();
    store.set("key", "value").unwrap();
    let start = Instant::now();
    let error = waiting(Duration::from_millis(100)).open(&place.path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(start.elapsed() >= Duration::from_millis(100));
    std::thread::scope(|scope| {
        let openings: Vec<_> = [false, true]
            .map(|is_read_only| {
                let options = waiting(Duration::from_secs(600));
                let path = &place.path;
                scope.spawn(move || {
                    let opened = if is_read_only {
                        options.open_read_only(path)
                    } else {
                        options.open(path)
                    };
                    let found: Option<String> = opened.unwrap().get("key").unwrap();
                    assert_eq!(found.as_deref(), Some("value"));
                })
            })
            .into();
        std::thread::sleep(Duration::from_millis(20));
        assert!(openings.iter().all(|opening| !opening.is_finished()));
        store.close().unwrap();
    });
    // Nothing else is waited for.
    let missing = place.path.with_extension("missing");
    let error = waiting(Duration::from_secs(600)).create(false).open(missing).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn a_missing_store_is_made_only_where_that_is_asked_for() {
    let place = place();
    let error = Options::new().create(false).open(&place.path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = Store::open_read_only(&place.path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(!place.path.exists());
    Store::open(&place.path).unwrap();
    assert!(place.path.exists());
}

#[test]
fn something_else_is_not_taken_for_a_store() {
    let place = place();
    for bytes in [&b"hello"[..], &[0; 10_000], &[0xFF; 10_000]] {
        fs::write(&place.path, bytes).unwrap();
        let error = Store::open(&place.path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(fs::read(&place.path).unwrap(), bytes, "untouched");
    }
}

#[test]
fn a_small_store_stays_small() {
    let place = place();
    let store = Store::open(&place.path).unwrap();
    for number in 0..3u64 {
        store.set(&number, &page(number)).unwrap();
    }
    store.close().unwrap();
    let bytes = fs::metadata(&place.path).unwrap().len()
        + fs::metadata(index_path(&place.path)).unwrap().len();
    assert!(bytes < 16 << 10, "{bytes} bytes");
}

#[cfg(unix)]
#[test]
fn dropping_the_last_handle_flushes() {
    let place = place();
    let store = Store::open(&place.path).unwrap();
    let clone = store.clone();
    store.set("a", &1u8).unwrap();
    drop(store);
    clone.set("b", &2u8).unwrap();
    drop(clone);
    let store = Store::open(&place.path).unwrap();
    assert_eq!((store.get("a").unwrap(), store.get("b").unwrap()), (Some(1u8), Some(2u8)));
}

#[test]
fn after_close_other_handles_read_and_do_not_write() {
    let place = place();
    let store = Store::open(&place.path).unwrap();
    let clone = store.clone();
    store.set("a", &1u8).unwrap();
    store.close().unwrap();
    assert_eq!(clone.get("a").unwrap(), Some(1u8));
    assert_eq!(clone.set("a", &2u8).unwrap_err().kind(), ErrorKind::Misuse);
    assert_eq!(clone.flush().unwrap_err().kind(), ErrorKind::Misuse);
}

#[test]
fn an_iteration_sees_the_store_as_it_was_when_it_began() {
    let place = place();
    let store = Store::open(&place.path).unwrap();
    fill(&store, 0, 2000);
    let mut iteration = store.iter_bytes();
    let first = iteration.next().unwrap().unwrap();
    for number in 0..2000u64 {
        store.delete(&number).unwrap();
    }
    fill(&store, 3000, 4000);
    store.flush().unwrap();
    let rest: Vec<_> = iteration.map(Result::unwrap).collect();
    assert_eq!(rest.len(), 1999);
    assert!(!rest.contains(&first));
    assert_eq!(store.len(), 1000);
}

#[test]
fn threads_read_and_write_side_by_side() {
    for durability in [Durability::Buffered, Durability::Flushed] {
        let place = place();
        let options = Options::new().durability(durability).memory_buffer_bytes(64 << 10);
        let store = options.open(&place.path).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let store = &store;
                scope.spawn(move || {
                    for number in (thread..4000).step_by(4) {
                        store.set(&number, &page(number)).unwrap();
                        assert_eq!(store.get(&number).unwrap(), Some(page(number)));
                    }
                });
            }
        });
        check(&store, 4000);
        store.close().unwrap();
        check(&Store::open(&place.path).unwrap(), 4000);
    }
}

#[test]
fn a_key_in_a_form_that_is_written_otherwise_is_refused() {
    let place = place();
    let store = Store::open(&place.path).unwrap();
    let hashes = store.collection::<[u8; 4], u32>("hashes").unwrap();
    hashes.set(&[3, 1, 2, 3], &1).unwrap();
    // Three bytes, as a slice, are written as the array's four are.
    for slice in [&[3, 1, 2, 3][..], &[1, 2, 3], &[]] {
        let refused = |result: zkv::Result<()>| {
            let error = result.unwrap_err();
            assert!(matches!(error, Error::KeyWrittenOtherwise), "{error:?}");
            assert_eq!(error.kind(), ErrorKind::Misuse);
        };
        refused(hashes.get(slice).map(drop));
        refused(hashes.set(slice, &2));
        refused(hashes.get_many(&[slice]).map(drop));
        refused(hashes.within(&store.begin().unwrap()).unwrap().set(slice, &2));
        let mut batch = WriteBatch::new();
        batch.set_in(&hashes, slice, &2);
        refused(store.write(batch));
    }
    let all: Result<Vec<_>, _> = hashes.iter().unwrap().collect();
    assert_eq!(all.unwrap(), [([3, 1, 2, 3], 1)]);

    let words = store.collection::<Vec<String>, u32>("words").unwrap();
    let key = ["one".to_owned(), "two".to_owned()];
    words.set(&key[..], &1).unwrap();
    assert_eq!(words.get(&key.to_vec()).unwrap(), Some(1));
    let bytes = store.collection::<Vec<u8>, u32>("bytes").unwrap();
    bytes.set(&[1, 2][..], &1).unwrap();
    assert_eq!(bytes.get(&vec![1, 2]).unwrap(), Some(1));
}

#[test]
fn a_transaction_may_ask_for_a_collection_that_it_makes() {
    let store = Options::new().storage(Arc::new(MemoryStorage::new())).open("s.zkv").unwrap();
    let mut runs = 0;
    let set = store.transaction(|transaction| {
        runs += 1;
        let pages: Collection<String, u64> = store.collection("pages")?;
        pages.within(transaction)?.set("home", &1)
    });
    assert!(set.is_ok(), "{set:?}");
    // It was not there when the first one began.
    assert_eq!(runs, 2);
    let pages: Collection<String, u64> = store.collection("pages").unwrap();
    assert_eq!(pages.get("home").unwrap(), Some(1));
}

#[test]
fn a_length_of_slots_that_is_refused_says_which_are_not() {
    for bytes in [3 << 20, 64 << 10, 32 << 20] {
        let refused = Options::new().slot_bytes(bytes).open("s.zkv").unwrap_err().to_string();
        assert!(refused.ends_with("must be a power of two from 262144 to 16777216"), "{refused}");
    }
}

#[test]
fn a_batch_tells_of_a_key_that_is_too_long_before_it_is_written() {
    let store = Options::new().storage(Arc::new(MemoryStorage::new())).open("s.zkv").unwrap();
    let mut batch = WriteBatch::new();
    batch.set_bytes(b"short", b"1");
    assert!(batch.failure().is_none());
    batch.set_bytes(&vec![0; KEY_BYTES_MAX + 1], b"2").set_bytes(b"other", b"3");
    assert_eq!(batch.failure().unwrap().kind(), ErrorKind::Limit);
    assert_eq!(store.write(batch).unwrap_err().kind(), ErrorKind::Limit);
    assert!(store.is_empty());
}

#[test]
fn a_collection_of_what_postcard_never_reads_is_not_made() {
    let store = Options::new().storage(Arc::new(MemoryStorage::new())).open("s.zkv").unwrap();
    let refused = store.collection::<String, serde_json::Value>("pages").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Encoding);
    assert!(refused.to_string().contains("JSON can do both"), "{refused}");
    assert!(store.collections().is_empty());
    let json = zkv::CollectionOptions::new().codec(zkv::Codec::Json);
    store.collection_with::<String, serde_json::Value>("pages", &json).unwrap();
}
