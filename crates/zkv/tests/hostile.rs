//! Stores that somebody forged, with every checksum right: answers are anybody's guess, but nothing
//! takes more memory or time than its bytes are worth.

mod common;

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zkv::{
    Codec, Collection, CollectionOptions, Error, ErrorKind, Options, SalvageEvent, Store,
    WriteBatch,
};
use zkv_index::{Checkpoint, CheckpointMeta, Run, write_first};
use zkv_io::{MemoryStorage, OpenMode, Storage};
use zkv_log::{Access, LogOptions, OpenFile};
use zkv_record::{Head, Kind, PIECE_BYTES_MIN, PieceKey, Record, VALUE_BYTES_MAX};

use common::faulty::{INDEX, PATH, noise, options, read_file, write_file};

const DATA: &str = "store.zkv";

/// A store whose log holds these records, whatever they say.
fn forged(records: &[(Kind, Vec<u8>, Vec<u8>)]) -> MemoryStorage {
    let (storage, options) = (MemoryStorage::new(), LogOptions::default());
    zkv_log::create(&storage, Path::new(DATA), &options).unwrap();
    let shared = Arc::new(storage.clone());
    let file = OpenFile::open(shared, Path::new(DATA), Access::ReadWrite, options).unwrap();
    let mut writer = file.recover(None).unwrap().writer.unwrap();
    let encode = |(kind, key, value): &(Kind, Vec<u8>, Vec<u8>)| {
        let mut bytes = Vec::new();
        Record { kind: *kind, ..Record::put(key, value) }.encode_into(&mut bytes);
        bytes
    };
    let encoded: Vec<Vec<u8>> = records.iter().map(encode).collect();
    let entries: Vec<&[u8]> = encoded.iter().map(Vec::as_slice).collect();
    writer.append(&entries).unwrap();
    writer.close().unwrap();
    storage
}

fn open(storage: &MemoryStorage) -> Store {
    Options::new().storage(Arc::new(storage.clone())).open(DATA).unwrap()
}

fn data_bytes(storage: &MemoryStorage) -> u64 {
    storage.open(Path::new(DATA), OpenMode::ReadOnly).unwrap().len().unwrap()
}

fn head(value_id: u8, value_bytes: u64) -> Head {
    Head { value_id: [value_id; 16], value_bytes, piece_bytes: PIECE_BYTES_MIN }
}

fn piece(value_id: u8, number: u32, bytes: usize) -> (Kind, Vec<u8>, Vec<u8>) {
    let key = PieceKey { value_id: [value_id; 16], number }.encode();
    (Kind::Piece, key.to_vec(), vec![number.to_le_bytes()[0]; bytes])
}

fn head_record(key: &[u8], head: &Head) -> (Kind, Vec<u8>, Vec<u8>) {
    (Kind::Head, key.to_vec(), head.encode().to_vec())
}

#[test]
fn a_piece_longer_than_its_head_says_is_not_gathered() {
    let long = head(1, 100_000);
    let records = [
        piece(1, 0, 1 << 20),
        piece(1, 1, 34_464),
        head_record(b"key", &long),
        piece(2, 0, 65_536),
    ];
    let store = open(&forged(&records));
    assert_eq!(store.get_bytes(b"key").unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn heads_that_share_a_value_yield_it_once_in_an_iteration() {
    let mut records = vec![piece(1, 0, 65_536), piece(1, 1, 34_464)];
    records.extend((0..50).map(|key| head_record(&[key], &head(1, 100_000))));
    let store = open(&forged(&records));
    let values: Vec<_> = store.iter_bytes().collect();
    assert_eq!(values.len(), 50);
    assert_eq!(values.iter().filter(|value| value.is_ok()).count(), 1);
    assert_eq!(store.get_bytes(&[7]).unwrap().unwrap().len(), 100_000);
}

#[test]
fn heads_that_share_a_value_bring_it_once_in_a_salvage_and_are_told_of() {
    let mut records = vec![piece(1, 0, 65_536), piece(1, 1, 34_464)];
    records.extend((0..50).map(|key| head_record(&[key], &head(1, 100_000))));
    let storage = forged(&records);
    let options = || Options::new().storage(Arc::new(storage.clone()));
    let verified = zkv::verify(DATA, options(), |_| {}).unwrap();
    assert_eq!(verified.findings.len(), 49, "{verified:?}");
    assert!(verified.findings.iter().all(|finding| finding.what.contains("another key")));
    assert!(!verified.is_sound());
    let mut incomplete = 0;
    let salvaged = zkv::salvage(DATA, "rescued.zkv", options(), |event| {
        incomplete += u32::from(matches!(event, SalvageEvent::IncompleteValue { .. }));
    });
    let report = salvaged.unwrap();
    assert_eq!((report.keys, report.incomplete_values, incomplete), (1, 49, 49));
    assert_eq!(report.bytes, 1 + 100_000);
    assert!(!report.is_complete());
}

#[test]
fn replacing_heads_without_pieces_costs_no_marks() {
    // Each claims 65,536 pieces.
    let heads = (0..200).map(|key| head_record(&[key], &head(key, VALUE_BYTES_MAX)));
    let storage = forged(&heads.collect::<Vec<_>>());
    let store = open(&storage);
    let before = data_bytes(&storage);
    for key in 0..200 {
        store.set_bytes(&[key], b"replaced").unwrap();
    }
    store.flush().unwrap();
    assert!(data_bytes(&storage) - before < 20_000);
    assert_eq!(store.get_bytes(&[7]).unwrap().unwrap(), b"replaced");
}

#[test]
fn a_log_that_contradicts_itself_is_not_read_again_for_each_get() {
    let storage = forged(&[head_record(b"key", &head(1, 100_000))]);
    let store = open(&storage);
    let before = data_bytes(&storage);
    for _ in 0..500 {
        let error = store.get_bytes(b"key").unwrap_err();
        assert!(matches!(error, Error::Disagreement { .. }), "{error}");
    }
    // Each rebuild appends a roll call.
    assert!(data_bytes(&storage) - before < 16 * 100);
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Nested {
    inner: Option<Box<Nested>>,
}

fn nested(levels: u32) -> Nested {
    let around = |inner| Nested { inner: Some(Box::new(inner)) };
    (0..levels).fold(Nested { inner: None }, |inner, _| around(inner))
}

#[test]
fn a_value_that_nests_deeper_than_the_option_says_is_neither_written_nor_read() {
    fn check<T: std::fmt::Debug>(refused: Result<T, Error>) {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit);
        assert!(error.to_string().contains("max_decode_depth"), "{error}");
    }
    let storage = MemoryStorage::new();
    let options = || Options::new().storage(Arc::new(storage.clone()));
    let (store, deep) = (options().max_decode_depth(300).open(DATA).unwrap(), nested(100));
    store.set("key", &deep).unwrap();
    store.write(batch_of(&deep, 300)).unwrap();
    check(store.write(batch_of(&deep, 128)));
    assert_eq!(store.get::<_, Nested>("key").unwrap(), Some(nested(100)));
    store.close().unwrap();
    let store = options().open(DATA).unwrap();
    check(store.get::<_, Nested>("key"));
    check(store.set("other", &deep));
    check(store.write(batch_of(&deep, 300)));
    check(store.transaction(|tx| tx.set("other", &deep)));
    for codec in [Codec::Postcard, Codec::Json] {
        let of_nested = CollectionOptions::new().codec(codec);
        let collection =
            store.collection_with::<String, Nested>(&format!("{codec:?}"), &of_nested).unwrap();
        check(collection.set("other", &deep));
        collection.set("key", &nested(10)).unwrap();
        assert_eq!(collection.get("key").unwrap(), Some(nested(10)));
    }
    store.write(batch_of(&nested(10), 128)).unwrap();
    assert_eq!(store.get::<_, Nested>("batch").unwrap(), Some(nested(10)));
    assert!(!store.contains("other").unwrap());
}

#[test]
fn what_is_too_deep_is_told_what_helps_where_it_is_a_key_or_in_a_batch() {
    let options = Options::new().storage(Arc::new(MemoryStorage::new()));
    let (store, deep) = (options.max_decode_depth(300).open(DATA).unwrap(), nested(100));
    let mut batch = WriteBatch::new();
    batch.set(&deep, &1u8);
    let keys: Collection<Nested, u8> = store.collection("deep").unwrap();
    for refused in [store.set(&deep, &1u8), store.write(batch), keys.set(&deep, &1)] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit);
        let message = error.to_string();
        assert!(message.contains("the key") && !message.contains("max_decode_depth"), "{message}");
    }
    let message = store.write(batch_of(&deep, 128)).unwrap_err().to_string();
    assert!(message.contains("`WriteBatch::max_decode_depth`"), "{message}");
}

fn batch_of(value: &Nested, levels: u32) -> WriteBatch {
    let mut batch = WriteBatch::new().max_decode_depth(levels);
    batch.set("batch", value);
    batch
}

#[test]
fn a_value_longer_than_the_option_says_is_neither_written_nor_read() {
    let storage = MemoryStorage::new();
    let long = vec![7; (1 << 20) + 1];
    let store = open(&storage);
    store.set_bytes(b"key", &long).unwrap();
    store.close().unwrap();
    let options = || Options::new().storage(Arc::new(storage.clone()));
    let store = options().max_value_bytes(1 << 20).open(DATA).unwrap();
    assert_eq!(store.get_bytes(b"key").unwrap_err().kind(), ErrorKind::Limit);
    assert_eq!(store.set_bytes(b"other", &long).unwrap_err().kind(), ErrorKind::Limit);
    assert!(store.contains_bytes(b"key").unwrap());
    assert!(store.delete_bytes(b"key").unwrap());
    for outside in [0, (1 << 20) - 1, 1 << 32] {
        let error = options().max_value_bytes(outside).open(DATA).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse);
    }
}

#[test]
fn an_index_whose_sections_are_longer_than_any_of_its_data_file_is_not_salvaged_by() {
    let memory = MemoryStorage::new();
    let store = options(&memory).open(PATH).unwrap();
    let value = noise(1, 1000);
    store.set_bytes(b"key", &value).unwrap();
    store.close().unwrap();
    // Of the log, only the record is left, and the index alone says that it was ever whole.
    let mut data = read_file(&memory, PATH);
    let at = data.windows(value.len()).position(|bytes| bytes == value).unwrap();
    data[at + value.len()..].fill(0);
    write_file(&memory, PATH, &data);

    let store_id = data[16..32].try_into().unwrap();
    let old = Checkpoint::open(&memory, Path::new(INDEX), store_id, false).unwrap();
    let log = old.section(1).unwrap().unwrap();
    let longest = (64 << 20) + 1024 * data.len();
    for more in [0, 1] {
        let long = vec![0; longest - log.len() + more];
        let sections: [(u32, &[u8]); 2] = [(1, &log), (99, &long)];
        let watermark = &log[..24];
        let meta = CheckpointMeta { store_id, watermark, sections: &sections, key_count: 1 };
        let none = Run::from_changes(Vec::new());
        write_first(&memory, Path::new(INDEX), &none, &meta).unwrap();
        let rescued = format!("rescued-{more}.zkv");
        let report = zkv::salvage(PATH, &rescued, options(&memory), |_| {}).unwrap();
        let found = (report.keys, report.uncommitted_records);
        assert_eq!(found, if more == 0 { (1, 0) } else { (0, 1) }, "{report:?}");
    }
}
