//! The log's dictionaries: made, shared by openings, and not relied on where they are damaged.

use std::path::Path;
use std::sync::Arc;

use zkv_io::{MemoryStorage, OpenMode, Storage};
use zkv_log::{Access, Cell, LogOptions, LogWriter, OpenFile, Prepacked, Room, create};

const PATH: &str = "log";

fn options() -> LogOptions {
    LogOptions { slot_bytes: 1 << 20, ..LogOptions::default() }
}

fn new_log() -> MemoryStorage {
    let storage = MemoryStorage::new();
    create(&storage, Path::new(PATH), &options()).unwrap();
    storage
}

fn open(storage: &MemoryStorage, checkpoint: Option<&[u8]>) -> LogWriter {
    let storage = Arc::new(storage.clone());
    let file = OpenFile::open(storage, Path::new(PATH), Access::ReadWrite, options()).unwrap();
    file.recover(checkpoint).unwrap().writer.unwrap()
}

/// Sentences of words that recur from document to document.
fn documents(count: u32) -> Vec<String> {
    let document = |n: u32| {
        let word = |at: u32| (n * 31 + at).wrapping_mul(2_654_435_761) >> 22;
        let words = (0..12).map(|at| format!("w{:x}ord", word(at).wrapping_mul(40_503)));
        format!(r#"{{"id":{n},"title":"{}"}}"#, words.collect::<Vec<_>>().join(" "))
    };
    (0..count).map(document).collect()
}

fn slices(documents: &[String]) -> Vec<&[u8]> {
    documents.iter().map(|document| document.as_bytes()).collect()
}

#[test]
fn dictionaries_serve_reads_after_reopening() {
    let storage = new_log();
    let documents = documents(20_000);
    let mut writer = open(&storage, None);
    let addresses = writer.append(&slices(&documents)).unwrap();
    let one = writer.append(&slices(&documents[1..2])).unwrap();
    drop(writer);
    let log = open(&storage, None).log();
    assert_eq!(log.view().dictionary_count().unwrap(), 1);
    for (address, document) in addresses.iter().zip(&documents).step_by(97) {
        assert_eq!(log.view().read(*address).unwrap(), document.as_bytes());
    }
    assert_eq!(log.view().read(one[0]).unwrap(), documents[1].as_bytes());
    drop(log);
    let mut writer = open(&storage, None);
    let again = writer.append(&slices(&documents[2..3])).unwrap();
    assert_eq!(writer.log().view().read(again[0]).unwrap(), documents[2].as_bytes());
}

#[test]
fn another_opening_goes_on_with_the_dictionary_that_was_used_last() {
    let storage = new_log();
    let documents = documents(20_000);
    let few = slices(&documents[..100]);
    let without = open(&storage, None).log().pack(&few).unwrap().payload_bytes();
    let mut writer = open(&storage, None);
    writer.append(&slices(&documents)).unwrap();
    let before = writer.log().pack(&few).unwrap().payload_bytes();
    assert!(before * 4 < without * 3, "{before} of {without}");
    drop(writer);
    let mut writer = open(&storage, None);
    assert_eq!(writer.log().pack(&few).unwrap().payload_bytes(), before);
    // A segment without blocks has no dictionary yet.
    writer.rebase().unwrap();
    drop(writer);
    assert_eq!(open(&storage, None).log().pack(&few).unwrap().payload_bytes(), before);
}

#[test]
fn nothing_is_written_that_needs_a_damaged_dictionary() {
    let storage = new_log();
    let documents = documents(3000);
    let mut writer = open(&storage, None);
    writer.append(&slices(&documents)).unwrap();
    let checkpoint = writer.checkpoint().unwrap();
    drop(writer);
    // Packed with the dictionary that the file had.
    let packed = open(&storage, Some(&checkpoint)).log().pack(&slices(&documents)).unwrap();
    // The dictionary's block comes first.
    let file = storage.open(Path::new(PATH), OpenMode::ReadWrite).unwrap();
    let place = 4096 + 256 + 100;
    let mut byte = [0];
    file.read_at(place, &mut byte).unwrap();
    file.write_at(place, &[!byte[0]]).unwrap();
    let mut writer = open(&storage, Some(&checkpoint));
    let mut commit = writer.begin().unwrap();
    let addresses = commit.append(&packed).unwrap();
    commit.finish(Room::Exact).unwrap();
    let view = writer.log().view();
    for (address, document) in addresses.iter().zip(&documents) {
        assert_eq!(view.read(*address).unwrap(), document.as_bytes());
    }
}

#[test]
fn the_number_of_an_aborted_commits_dictionary_is_given_anew() {
    let documents = documents(6000);
    let (first, second) = documents.split_at(3000);
    // Another log trains a dictionary of its own.
    let packed_elsewhere = open(&new_log(), None).log().pack(&slices(second)).unwrap();
    // What is longer than the buffer is written before the commit is aborted, and wiped then.
    let options = LogOptions { write_buffer_bytes: 4096, ..options() };
    let storage = Arc::new(new_log());
    let file = OpenFile::open(storage, Path::new(PATH), Access::ReadWrite, options).unwrap();
    let mut writer = file.recover(None).unwrap().writer.unwrap();
    let before = writer.append(&[b"before"]).unwrap();
    let view = writer.log().view();
    let packed = writer.log().pack(&slices(first)).unwrap();
    let mut commit = writer.begin().unwrap();
    commit.append(&packed).unwrap();
    drop(commit);
    let mut commit = writer.begin().unwrap();
    let addresses = commit.append(&packed_elsewhere).unwrap();
    commit.finish(Room::Exact).unwrap();
    assert_eq!(view.read(before[0]).unwrap(), b"before");
    let view = writer.log().view();
    assert_eq!(view.dictionary_count().unwrap(), 1);
    for (address, document) in addresses.iter().zip(second) {
        assert_eq!(view.read(*address).unwrap(), document.as_bytes());
    }
}

#[test]
fn a_dictionary_of_noise_serves_where_the_noise_recurs() {
    let mut writer = open(&new_log(), None);
    let mut state = 5u64;
    let mut noise = |bytes: usize| -> Vec<u8> {
        let next = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        });
        next.take(bytes).collect()
    };
    let recurring: Vec<Vec<u8>> = (0..100).map(|_| noise(900)).collect();
    let entries: Vec<&[u8]> = (0..800).map(|at| &*recurring[at * 7 % 100]).collect();
    let addresses = writer.append(&entries).unwrap();
    let view = writer.log().view();
    assert_eq!(view.dictionary_count().unwrap(), 1);
    for (address, entry) in addresses.iter().zip(entries) {
        assert_eq!(view.read(*address).unwrap(), entry);
    }
}

/// The entries of all segments, with those as they were packed that have blocks of their own.
fn moved(writer: &LogWriter) -> Vec<(Vec<u8>, Option<Prepacked>)> {
    let (view, mut cell, mut moved) = (writer.log().view(), Cell::default(), Vec::new());
    for segment in view.segments() {
        let mut scan = view.scan(segment.slot, None).unwrap().with_prepacked();
        while scan.next_cell(&mut cell).unwrap() {
            for number in 0..cell.len() {
                moved.push((cell.entry(number).to_vec(), cell.take_prepacked(number)));
            }
        }
    }
    moved
}

#[test]
fn entries_with_blocks_of_their_own_are_packed_again_as_they_were_with_their_dictionary_alone() {
    let storage = new_log();
    // Of 200 bytes some share a block; of 2,000, or of noise, each has one.
    let texts = documents(3000);
    let mut entries: Vec<Vec<u8>> = texts.iter().map(|text| text.clone().into_bytes()).collect();
    entries.extend(texts.chunks(15).map(|some| some.concat().into_bytes()));
    entries
        .push((0..100_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect());
    let slices: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
    let mut writer = open(&storage, None);
    writer.append(&slices).unwrap();
    drop(writer);
    let better = LogOptions { compression_level: 12, ..options() };
    let file = Arc::new(storage.clone());
    let file = OpenFile::open(file, Path::new(PATH), Access::ReadWrite, better).unwrap();
    let mut writer = file.recover(None).unwrap().writer.unwrap();
    let (again, prepacked): (Vec<_>, Vec<_>) = moved(&writer).into_iter().unzip();
    assert!(again == entries);
    let alone = prepacked.iter().flatten().count();
    assert!((201..400).contains(&alone), "{alone}");
    let slices: Vec<&[u8]> = again.iter().map(Vec::as_slice).collect();
    let as_it_was = writer.log().pack_again(&slices, prepacked.clone()).unwrap();
    let anew = writer.log().pack(&slices).unwrap();
    assert!(anew.payload_bytes() < as_it_was.payload_bytes(), "{}", anew.payload_bytes());
    let mut commit = writer.begin().unwrap();
    let addresses = commit.append(&as_it_was).unwrap();
    commit.finish(Room::Exact).unwrap();
    for (address, entry) in addresses.iter().zip(&entries) {
        assert!(writer.log().view().read(*address).unwrap() == *entry);
    }
    // Another log has no dictionary, or another one: there, they are compressed.
    let mut other = open(&new_log(), None);
    let packed = other.log().pack_again(&slices[3000..], prepacked[3000..].to_vec()).unwrap();
    assert_eq!(packed.payload_bytes(), other.log().pack(&slices[3000..]).unwrap().payload_bytes());
    let mut commit = other.begin().unwrap();
    let addresses = commit.append(&packed).unwrap();
    commit.finish(Room::Exact).unwrap();
    for (address, entry) in addresses.iter().zip(&entries[3000..]) {
        assert!(other.log().view().read(*address).unwrap() == *entry);
    }
}
