//! Damaged files, and what opening and reading them must give, case by case.
//!
//! `cargo xtask format bless` makes the files of `corrupt/` anew from the code below.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zkv::{Error, Options, Store};
use zkv_io::{MemoryStorage, OpenMode, Storage, crc32c};
use zkv_log::layout::{
    FILE_HEADER_BYTES, FILE_HEADER_FIELD_BYTES, SEGMENT_HEADER_FIELD_BYTES, SLOT_BYTES_MIN,
    seal_offset, slot_start,
};
use zkv_log::{Access, LogError, LogOptions, LogWriter, OpenFile};
use zkv_record::Record;

const DATA: &str = "store.zkv";
const INDEX: &str = "store.zkv.idx";
const KEY_COUNT: u8 = 20;

/// The two files of a store.
#[derive(Clone, Debug, Default, PartialEq)]
struct Files {
    data: Vec<u8>,
    index: Option<Vec<u8>>,
}

/// What opening a store gives, and reading all of its keys.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// All keys have their values.
    Whole,
    /// Opening fails so, and changes nothing.
    Refused(&'static str),
    /// One key cannot be read; all others have their values.
    OneKeyLost(&'static str),
}

use Expected::{OneKeyLost, Refused, Whole};

/// Its files' name, how they are made, and what they give.
type Case = (&'static str, fn() -> Files, Expected);

const CASES: &[Case] = &[
    ("bad-magic", bad_magic, Refused("no zkv data file")),
    ("newer-version", newer_version, Refused("version 2, supported 1")),
    ("unknown-features", unknown_features, Refused("features 0x4")),
    ("damaged-header", damaged_header, Whole),
    ("flipped-block", flipped_block, Refused("corrupt at 4691: a block that was durable")),
    ("flipped-block-indexed", flipped_block_indexed, OneKeyLost("corrupt at 4691: a block")),
    ("torn-tail", torn_tail, Whole),
    ("lost-seal", lost_seal, Refused("corrupt at 44741: a block that was durable")),
    ("lost-segment-header", lost_segment_header, Whole),
    ("retired-segment", retired_segment, Whole),
    ("foreign-index", foreign_index, Whole),
    ("stale-index", stale_index, Whole),
    ("newer-index", || index_of_version(3), Whole),
    ("older-index", || index_of_version(1), Whole),
    ("flipped-bucket", flipped_bucket, Whole),
];

fn key(number: u8) -> Vec<u8> {
    vec![b'k', number]
}

fn value(number: u8) -> Vec<u8> {
    noise(number.into(), 100)
}

/// Bytes that do not compress, so that each value has its own block, where all versions of zstd put
/// it.
fn noise(seed: u32, count: usize) -> Vec<u8> {
    let mut state = seed + 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_le_bytes()[3]
    };
    (0..count).map(|_| next()).collect()
}

fn options(storage: &MemoryStorage) -> Options {
    let storage = Arc::new(storage.clone());
    Options::new().storage(storage).slot_bytes(256 << 10).block_bytes(64)
}

fn read_file(storage: &MemoryStorage, name: &str) -> Option<Vec<u8>> {
    let file = storage.open(Path::new(name), OpenMode::ReadOnly).ok()?;
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    Some(bytes)
}

fn files(storage: &MemoryStorage) -> Files {
    Files { data: read_file(storage, DATA).unwrap(), index: read_file(storage, INDEX) }
}

fn storage_with(files: &Files) -> MemoryStorage {
    let storage = MemoryStorage::new();
    let index = files.index.iter().map(|index| (INDEX, index));
    for (name, bytes) in std::iter::once((DATA, &files.data)).chain(index) {
        let file = storage.open(Path::new(name), OpenMode::CreateNew).unwrap();
        file.write_at(0, bytes).unwrap();
    }
    storage
}

/// A store of all keys, as closing leaves it.
fn closed() -> Files {
    let storage = MemoryStorage::new();
    let store = options(&storage).open(DATA).unwrap();
    fill(&store, 0, KEY_COUNT);
    store.close().unwrap();
    files(&storage)
}

fn fill(store: &Store, from: u8, to: u8) {
    for number in from..to {
        store.set_bytes(&key(number), &value(number)).unwrap();
    }
    store.flush().unwrap();
}

fn without_index(files: Files) -> Files {
    Files { index: None, ..files }
}

fn put_checksum(fields: &mut [u8]) {
    let (checked, checksum) = fields.split_last_chunk_mut::<4>().unwrap();
    *checksum = crc32c(0, checked).to_le_bytes();
}

/// The file header's fields and the first segment's, which repeats them.
fn headers(data: &mut [u8]) -> [&mut [u8]; 2] {
    let (file, segment) = data.split_at_mut(usize::try_from(FILE_HEADER_BYTES).unwrap());
    [&mut file[..FILE_HEADER_FIELD_BYTES], &mut segment[..SEGMENT_HEADER_FIELD_BYTES]]
}

fn bad_magic() -> Files {
    let mut files = closed();
    for header in headers(&mut files.data) {
        header[1] = b'Z';
    }
    files
}

fn newer_version() -> Files {
    let mut files = closed();
    // Where a newer version puts its checksum, nobody knows.
    for header in headers(&mut files.data) {
        header[8] = 2;
    }
    files
}

fn unknown_features() -> Files {
    let mut files = closed();
    for header in headers(&mut files.data) {
        header[12] = 4;
        put_checksum(header);
    }
    files
}

fn damaged_header() -> Files {
    let mut files = closed();
    files.data[..100].fill(0xEE);
    without_index(files)
}

/// The third block of entries.
fn flipped_block_indexed() -> Files {
    let mut files = closed();
    files.data[4691 + 50] ^= 1;
    files
}

fn flipped_block() -> Files {
    without_index(flipped_block_indexed())
}

/// What was written last is half there.
fn torn_tail() -> Files {
    let storage = MemoryStorage::new();
    let store = options(&storage).open(DATA).unwrap();
    fill(&store, 0, KEY_COUNT);
    // Behind the log's end there are zeros, up to the end of a page.
    let end = |files: &Files| files.data.iter().rposition(|byte| *byte != 0).unwrap();
    let whole = end(&files(&storage));
    store.set_bytes(b"lost", b"in the crash").unwrap();
    store.flush().unwrap();
    let mut torn = files(&storage);
    torn.data.truncate((whole + end(&torn)) / 2);
    without_index(torn)
}

fn log_writer(storage: &MemoryStorage) -> LogWriter {
    let options =
        LogOptions { slot_bytes: SLOT_BYTES_MIN, block_bytes: 64, ..LogOptions::default() };
    zkv_log::create(storage, Path::new(DATA), &options).unwrap();
    let file =
        OpenFile::open(Arc::new(storage.clone()), Path::new(DATA), Access::ReadWrite, options);
    file.unwrap().recover(None).unwrap().writer.unwrap()
}

fn append(writer: &mut LogWriter, records: &[Record<'_>]) {
    let mut encoded = Vec::new();
    for record in records {
        let mut bytes = Vec::new();
        record.encode_into(&mut bytes);
        encoded.push(bytes);
    }
    let entries: Vec<&[u8]> = encoded.iter().map(Vec::as_slice).collect();
    writer.append(&entries).unwrap();
}

/// Two segments: the first has all keys and a filler, the second a filler that did not fit there, and
/// the mark that both fillers are gone.
fn two_segments(storage: &MemoryStorage) -> LogWriter {
    let mut writer = log_writer(storage);
    let pairs: Vec<_> = (0..KEY_COUNT).map(|number| (key(number), value(number))).collect();
    let records: Vec<_> = pairs.iter().map(|(key, value)| Record::put(key, value)).collect();
    append(&mut writer, &records);
    let filler = noise(1000, 38_000);
    append(&mut writer, &[Record::put(b"filler", &filler)]);
    append(&mut writer, &[Record::put(b"filler", &filler)]);
    append(&mut writer, &[Record::delete(b"filler")]);
    writer.checkpoint().unwrap();
    writer
}

fn lost_seal() -> Files {
    let storage = MemoryStorage::new();
    two_segments(&storage).close().unwrap();
    let mut files = files(&storage);
    let seal = usize::try_from(slot_start(0, SLOT_BYTES_MIN)).unwrap()
        + seal_offset(SLOT_BYTES_MIN) as usize;
    files.data[seal..seal + 8].fill(0);
    files
}

fn lost_segment_header() -> Files {
    let storage = MemoryStorage::new();
    two_segments(&storage).close().unwrap();
    let mut files = files(&storage);
    for slot in 0..2 {
        let start = usize::try_from(slot_start(slot, SLOT_BYTES_MIN)).unwrap();
        files.data[start..start + 64].fill(0);
    }
    files
}

/// The first segment is still in its slot, header and all, and holds a key that was deleted.
fn retired_segment() -> Files {
    let storage = MemoryStorage::new();
    let mut writer = log_writer(&storage);
    append(&mut writer, &[Record::put(b"deleted", b"long ago")]);
    let filler = noise(1000, 38_000);
    append(&mut writer, &[Record::put(b"deleted too", &filler)]);
    append(&mut writer, &[Record::put(b"filler", &filler), Record::delete(b"filler")]);
    let pairs: Vec<_> = (0..KEY_COUNT).map(|number| (key(number), value(number))).collect();
    let records: Vec<_> = pairs.iter().map(|(key, value)| Record::put(key, value)).collect();
    append(&mut writer, &records);
    writer.free(&[0]).unwrap();
    writer.close().unwrap();
    files(&storage)
}

fn foreign_index() -> Files {
    Files { index: closed().index, ..closed() }
}

fn stale_index() -> Files {
    let storage = MemoryStorage::new();
    let store = options(&storage).open(DATA).unwrap();
    fill(&store, 0, KEY_COUNT / 2);
    store.set_bytes(&key(3), b"an older value").unwrap();
    store.close().unwrap();
    let stale = files(&storage).index;
    let store = options(&storage).open(DATA).unwrap();
    fill(&store, 3, KEY_COUNT);
    store.close().unwrap();
    Files { index: stale, ..files(&storage) }
}

/// Nothing in it is found by the hashes that this version has.
fn index_of_version(version: u8) -> Files {
    let mut files = closed();
    let index = files.index.as_mut().unwrap();
    index[8] = version;
    index[12..16].fill(0);
    let check = crc32c(0, &index[..512]);
    index[12..16].copy_from_slice(&check.to_le_bytes());
    files
}

fn flipped_bucket() -> Files {
    let mut files = closed();
    for bucket in 0..2 {
        files.index.as_mut().unwrap()[512 + bucket * 64 + 5] ^= 0x10;
    }
    files
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/corrupt")
}

fn bless() {
    fs::create_dir_all(folder()).unwrap();
    for (name, make, _) in CASES {
        let Files { data, index } = make();
        let path = folder().join(name).with_extension("zkv");
        fs::write(&path, data).unwrap();
        if let Some(index) = index {
            fs::write(path.with_extension("zkv.idx"), index).unwrap();
        }
    }
}

fn load(name: &str) -> Files {
    let path = folder().join(name).with_extension("zkv");
    Files { data: fs::read(&path).unwrap(), index: fs::read(path.with_extension("zkv.idx")).ok() }
}

/// The variant and what it names.
fn describe(error: &Error) -> String {
    match error {
        Error::Data { cause, .. } => match cause {
            LogError::NotALog => "no zkv data file".into(),
            LogError::UnsupportedVersion { found, supported } => {
                format!("version {found}, supported {supported}")
            }
            LogError::UnsupportedFeatures(bits) => format!("features {bits:#x}"),
            LogError::Corrupt { offset, what } => format!("corrupt at {offset}: {what}"),
            other => format!("{other:?}"),
        },
        other => format!("{other:?}"),
    }
}

/// The errors of reading each key and all of them, without repetition.
fn read_all(store: &Store) -> Vec<String> {
    let mut errors = Vec::new();
    for number in 0..KEY_COUNT {
        match store.get_bytes(&key(number)) {
            Ok(found) => assert_eq!(found, Some(value(number)), "key {number}"),
            Err(error) => errors.push(describe(&error)),
        }
    }
    assert_eq!(store.get_bytes(b"deleted").unwrap(), None);
    assert_eq!(store.len(), u64::from(KEY_COUNT));
    let entries: Vec<_> = store.iter_bytes().collect();
    errors.extend(entries.iter().filter_map(|entry| entry.as_ref().err()).map(describe));
    errors.dedup();
    if errors.is_empty() {
        assert_eq!(entries.len(), usize::from(KEY_COUNT));
    }
    errors
}

#[test]
fn damaged_files_give_what_the_table_says() {
    if std::env::var_os("ZKV_BLESS").is_some() {
        bless();
    }
    for (name, _, expected) in CASES {
        let files = load(name);
        for read_only in [true, false] {
            let storage = storage_with(&files);
            let options = options(&storage).create(false);
            let opened = if read_only { options.open_read_only(DATA) } else { options.open(DATA) };
            match (opened, expected) {
                (Err(error), Refused(why)) => {
                    assert_eq!(describe(&error), *why, "{name}");
                    assert_eq!(self::files(&storage), files, "{name}: changed by a refusal");
                }
                (Ok(store), Whole) => assert_eq!(read_all(&store), [""; 0], "{name}"),
                (Ok(store), OneKeyLost(why)) => assert_eq!(read_all(&store), [*why], "{name}"),
                (opened, _) => panic!("{name}: {expected:?}, and not {:?}", opened.map(drop)),
            }
            if read_only {
                assert_eq!(self::files(&storage), files, "{name}: changed by reading");
            }
        }
    }
}

#[test]
fn a_version_is_named_with_the_newest_that_is_supported() {
    let storage = storage_with(&load("newer-version"));
    let error = options(&storage).open(DATA).unwrap_err();
    assert_eq!(error.kind(), zkv::ErrorKind::UnsupportedVersion);
    let message = error.to_string();
    assert!(message.contains("version 2") && message.contains("up to 1"), "{message}");
}
