//! The seeds that fuzzing starts from, and where they and the found cases lie.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use zkv::{Options, Store};
use zkv_index::{Change, Checkpoint, CheckpointMeta, KeyHash, Location, Run, Thresholds};
use zkv_log::{Access, LogOptions, LogWriter, OpenFile};
use zkv_record::{Head, Kind, PieceKey, Record, encode};

use crate::random::Random;
use crate::storage::SeededStorage;
use crate::targets::Target;

/// Keys that the seeds hold.
pub const KNOWN_KEYS: &[&[u8]] = &[b"", b"a", b"pieces", b"word 17"];

/// The data file that every index of the `index` target stands beside.
pub const INDEXED_STORE: &[u8] = include_bytes!("../../../fuzz/seeds/data/closed");

const DATA: &str = "store.zkv";
const INDEX: &str = "store.zkv.idx";

/// The folder that holds seeds and cases.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// The seeds of a target, and then the cases found with it, by name.
///
/// # Errors
/// Where a folder or file cannot be read.
pub fn inputs(target: &Target) -> std::io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut inputs = Vec::new();
    for seeds in target.seeds {
        inputs.extend(read_folder(&folder().join("seeds").join(seeds))?);
    }
    let cases = folder().join("cases").join(target.name);
    if cases.is_dir() {
        inputs.extend(read_folder(&cases)?);
    }
    Ok(inputs)
}

fn read_folder(folder: &Path) -> std::io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let bytes = std::fs::read(&path)?;
        files.push((path, bytes));
    }
    files.sort();
    Ok(files)
}

/// Writes the seeds anew: `cargo xtask fuzz seeds`.
///
/// # Errors
/// Where a folder or file cannot be written.
pub fn write_seeds() -> std::io::Result<()> {
    let mut seeds: Vec<(&str, String, Vec<u8>)> = Vec::new();
    let (closed, index) = small_store(true);
    let appended = appended(&index);
    seeds.push(("stores", "appended".into(), [&*closed, &*appended].concat()));
    seeds.push(("stores", "first".into(), [&*closed, &*index].concat()));
    seeds.push(("data", "closed".into(), closed));
    seeds.push(("index", "appended".into(), appended));
    seeds.push(("index", "first".into(), index));
    seeds.push(("data", "killed".into(), small_store(false).0));
    seeds.push(("data", "collections".into(), collections()));
    seeds.push(("data", "segments".into(), segments()));
    seeds.push(("data", "raw".into(), raw()));
    seeds.extend(records().into_iter().map(|(name, bytes)| ("record", name.into(), bytes)));
    seeds.extend(typed().into_iter().map(|(name, bytes)| ("typed", name.into(), bytes)));
    seeds.extend((0..6).map(|seed| ("operations", format!("random-{seed}"), operations(seed))));
    seeds.extend((0..3).map(|seed| ("operations", format!("cleaning-{seed}"), cleaning(seed))));
    for (kind, name, bytes) in seeds {
        let folder = folder().join("seeds").join(kind);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(name), bytes)?;
    }
    Ok(())
}

fn options(storage: &SeededStorage) -> Options {
    Options::new()
        .storage(Arc::new(storage.clone()))
        .slot_bytes(256 << 10)
        .flush_interval(Duration::from_secs(3600))
}

fn fill(store: &Store) {
    for number in 0..40 {
        let word = format!("word {number}");
        store.set_bytes(word.as_bytes(), word.repeat(number).as_bytes()).expect("a write");
    }
    store.set_bytes(b"", b"an empty key").expect("a write");
    store.flush().expect("a flush");
    store.set_bytes(b"a", b"1").expect("a write");
    store.delete_bytes(b"word 3").expect("a delete");
    store.set_bytes(b"pieces", &[5; 150_000]).expect("a write");
    store.set_bytes(b"a", b"2").expect("a write");
    store.flush().expect("a flush");
}

/// Data and index of a small store.
fn small_store(is_closed: bool) -> (Vec<u8>, Vec<u8>) {
    let storage = SeededStorage::new(10, []);
    let store = options(&storage).open(DATA).expect("a new store");
    fill(&store);
    let killed = storage.read(Path::new(DATA)).unwrap_or_default();
    store.close().expect("a close");
    let closed = storage.read(Path::new(DATA)).unwrap_or_default();
    let index = storage.read(Path::new(INDEX)).unwrap_or_default();
    (if is_closed { closed } else { killed }, index)
}

/// Three collections, of which one was dropped and one cleared, beside the default one.
fn collections() -> Vec<u8> {
    let storage = SeededStorage::new(14, []);
    let store = options(&storage).open(DATA).expect("a new store");
    for name in ["dropped", "cleared", "kept"] {
        let collection = store.collection::<u32, String>(name).expect("a new collection");
        for number in 0..12 {
            collection.set(&number, &format!("{name} {number}")).expect("a write");
        }
        collection.set(&12, &"in pieces ".repeat(12_000)).expect("a write");
        store.flush().expect("a flush");
        collection.delete(&3).expect("a delete");
        if name == "cleared" {
            collection.clear().expect("a clear");
            collection.set(&4, &"again".to_owned()).expect("a write");
        }
    }
    fill(&store);
    store.drop_collection("dropped").expect("a collection is dropped");
    store.close().expect("a close");
    storage.read(Path::new(DATA)).unwrap_or_default()
}

/// The same index, with another table behind the first.
fn appended(index: &[u8]) -> Vec<u8> {
    let path = Path::new(INDEX);
    let storage = SeededStorage::new(13, [(path, index)]);
    let store_id = index[16..32].try_into().expect("a store id has 16 bytes");
    let checkpoint = Checkpoint::open(&storage, path, store_id, true).expect("a whole index");
    let section = |kind| checkpoint.section(kind).expect("a whole index").unwrap_or_default();
    let sections = [1, 2, 3, 4, 5].map(|kind| (kind, section(kind)));
    let sections = sections.each_ref().map(|(kind, bytes)| (*kind, &bytes[..]));
    let meta = CheckpointMeta {
        store_id,
        watermark: checkpoint.watermark(),
        sections: &sections,
        key_count: checkpoint.key_count(),
    };
    let change = Change { hash: KeyHash(7 << 100), old: None, new: Location::new(3) };
    let run = Run::from_changes(vec![change]);
    let thresholds = Thresholds {
        base_bytes_least: 0,
        besides_base_eighths_max: u64::MAX,
        ..Thresholds::DEFAULT
    };
    checkpoint.write_next_with(&storage, path, &run, &meta, &thresholds).expect("an append");
    storage.read(path).unwrap_or_default()
}

/// A log of small segments, with dictionaries, roll calls, and a slot that is used again.
fn segments() -> Vec<u8> {
    let storage = SeededStorage::new(11, []);
    let log_options =
        LogOptions { slot_bytes: 64 << 10, compression_threads: 1, ..LogOptions::default() };
    let mut writer = new_log(&storage, log_options);
    let mut random = Random::new(12);
    for round in 0..14u32 {
        let records: Vec<Vec<u8>> =
            (0..700).map(|number| document(round * 700 + number, &mut random)).collect();
        let entries: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
        writer.append(&entries).expect("an append");
        writer.checkpoint().expect("a roll call");
        if round == 8 {
            writer.free(&[0]).expect("a retire entry");
        }
    }
    writer.close().expect("a close");
    storage.read(Path::new(DATA)).unwrap_or_default()
}

/// A log of records of every kind in blocks that are not compressed, so that changed bytes are
/// changed records.
fn raw() -> Vec<u8> {
    let storage = SeededStorage::new(14, []);
    let log_options =
        LogOptions { slot_bytes: 128 << 10, block_bytes: 64, ..LogOptions::default() };
    let mut writer = new_log(&storage, log_options);
    let head = Head { value_id: [7; 16], value_bytes: 65_700, piece_bytes: 65_536 }.encode();
    let keys = [0, 1].map(|number| PieceKey { value_id: [7; 16], number }.encode());
    let put = Record::put(b"a", b"value");
    let commits = [
        vec![put, Record::put(b"", b"x"), Record::put(b"word 17", b"seventeen")],
        vec![Record { collection: 300, ..put }, Record { expires_at_ms: Some(1 << 40), ..put }],
        vec![
            Record { kind: Kind::Piece, ..Record::put(&keys[0], &[5; 65_536]) },
            Record { kind: Kind::Piece, ..Record::put(&keys[1], &[6; 164]) },
            Record { kind: Kind::Head, ..Record::put(b"pieces", &head) },
        ],
        vec![Record::delete(b"word 17"), Record::put(b"a", b"again"), Record::put(b"b", b"last")],
    ];
    for commit in commits {
        let entries: Vec<Vec<u8>> = commit.iter().map(encoded).collect();
        writer.append(&entries.iter().map(Vec::as_slice).collect::<Vec<_>>()).expect("an append");
    }
    writer.checkpoint().expect("a roll call");
    writer.close().expect("a close");
    storage.read(Path::new(DATA)).unwrap_or_default()
}

fn new_log(storage: &SeededStorage, options: LogOptions) -> LogWriter {
    let path = Path::new(DATA);
    zkv_log::create(storage, path, &options).expect("a new log");
    let file = OpenFile::open(Arc::new(storage.clone()), path, Access::ReadWrite, options);
    let recovered = file.and_then(|file| file.recover(None)).expect("a whole log");
    recovered.writer.expect("it was opened to be written")
}

fn encoded(record: &Record<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(record.encoded_bytes());
    record.encode_into(&mut bytes);
    bytes
}

fn document(number: u32, random: &mut Random) -> Vec<u8> {
    let value = format!(
        r#"{{"id":{number},"kind":"page","title":"number {}","lang":"en","tags":["a","b"]}}"#,
        random.number() % 10_000
    );
    encoded(&Record::put(&number.to_le_bytes(), value.as_bytes()))
}

fn records() -> Vec<(&'static str, Vec<u8>)> {
    let put = Record::put(b"key", b"value");
    let head = Head { value_id: [7; 16], value_bytes: 2_500_000, piece_bytes: 524_288 };
    let of_head = Record { kind: Kind::Head, value: &head.encode(), ..put };
    vec![
        ("put", encoded(&put)),
        ("delete", encoded(&Record::delete(b"key"))),
        ("options", encoded(&Record { collection: 300, expires_at_ms: Some(1 << 40), ..put })),
        ("long-key", encoded(&Record::put(&[b'k'; 300], b""))),
        ("head-record", encoded(&of_head)),
        ("head", head.encode().to_vec()),
        ("piece-key", PieceKey { value_id: [7; 16], number: 258 }.encode().to_vec()),
    ]
}

fn typed() -> Vec<(&'static str, Vec<u8>)> {
    fn of(choice: u8, value: &impl Serialize) -> Vec<u8> {
        let mut bytes = vec![choice];
        encode(value, &mut bytes).expect("a value that can be encoded");
        bytes
    }
    fn json(choice: u8, text: &str) -> Vec<u8> {
        [&[choice], text.as_bytes()].concat()
    }
    vec![
        // A node in a node in a branch of three leaves.
        ("tree", vec![0, 2, 2, 3, 3, 0, 0, 0]),
        ("tree-named", vec![0, 4, 1, b'n', 1, 5, 1, 2, 0]),
        ("tree-deep", [&[0][..], &[2; 200]].concat()),
        ("list", vec![1, 1, 1, 1, 0]),
        (
            "page",
            of(
                2,
                &(
                    "title",
                    [("a", [1u32, 2])].into_iter().collect::<std::collections::BTreeMap<_, _>>(),
                    [(); 3].to_vec(),
                    (0.5f64, 1f32, 'x', 7u128, -3i16),
                    Some(true),
                ),
            ),
        ),
        ("units", vec![3, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]),
        ("units-nested", of(4, &vec![vec![(); 100]; 3])),
        ("map", vec![5, 1, 2, 0, 1, 4]),
        ("pairs", of(6, &vec![(Some(()), "x")])),
        ("bytes-map", vec![7, 1, 2, 1, 2]),
        ("json-tree", json(8, r#"{"Pair":[{"Node":{"Number":-7}},{"Branch":["Leaf","Leaf"]}]}"#)),
        ("json-tree-named", json(8, r#"{"Named":{"name":"n","inner":{"Branch":[]}}}"#)),
        ("json-list", json(9, r#"{"value":null,"next":{"next":null,"value":null}}"#)),
        ("json-any", json(10, r#"{"a":[1,-2,null,true],"\u00fc\n":{"b":"text"},"":[[[]]]}"#)),
        ("json-page", {
            let page =
                r#"{"title":"t","links":{"a":[1,2]},"marks":[null],"score":[0.5,1e3,"x",7,-3]}"#;
            json(11, page)
        }),
    ]
}

/// Batches that fill segments, small writes between them, and what gives the space back.
fn cleaning(seed: u64) -> Vec<u8> {
    let kinds = [20, 0, 7, 20, 22, 16, 20, 13, 7, 18, 23, 14, 20, 22, 15];
    let mut random = Random::new(seed);
    let mut bytes = vec![seed.to_le_bytes()[0]];
    let operations = kinds.iter().cycle().take(60);
    bytes.extend(operations.flat_map(|kind| [*kind, random.byte(), random.byte()]));
    bytes
}

fn operations(seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes = vec![seed.to_le_bytes()[0]];
    bytes.extend((0..300).map(|_| random.byte()));
    bytes
}
