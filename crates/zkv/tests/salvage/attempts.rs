//! What a commit that was given up has left beside the store that went on.

use super::*;

/// A batch is one commit.
fn one_buffer(memory: &MemoryStorage) -> Options {
    small(memory).memory_buffer_bytes(1 << 20)
}

/// A store killed within a batch over two slots, of which all has arrived but a page in the first of them.
fn killed_within_a_batch() -> MemoryStorage {
    let memory = MemoryStorage::new();
    let store = one_buffer(&memory).open(PATH).unwrap();
    store.set_bytes(b"overwritten", b"old").unwrap();
    store.set_bytes(b"deleted", b"old").unwrap();
    store.set_bytes(b"buffers", &noise(1, 100_000)).unwrap();
    store.close().unwrap();
    // With the index file that this writes, the header behind it is the first to name the newest roll call.
    let store = one_buffer(&memory).open(PATH).unwrap();
    let mut batch = WriteBatch::new();
    for number in 0..200 {
        batch.set_bytes(format!("batch {number}").as_bytes(), &noise(number, 1000));
    }
    batch.set_bytes(b"overwritten", b"given up");
    batch.set_bytes(b"deleted", b"given up");
    store.write(batch).unwrap();
    store.flush().unwrap();
    let killed = killed(&memory);
    let mut bytes = read_file(&killed, PATH);
    assert!(bytes.len() > (4 << 10) + SLOT as usize);
    bytes[160 << 10..164 << 10].fill(0);
    write_file(&killed, PATH, &bytes);
    killed
}

#[test]
fn a_batch_that_was_given_up_is_not_brought_in_the_place_of_what_came_later() {
    let memory = killed_within_a_batch();
    let store = one_buffer(&memory).open(PATH).unwrap();
    assert_eq!(store.get_bytes(b"overwritten").unwrap().as_deref(), Some(&b"old"[..]));
    store.set_bytes(b"overwritten", b"new").unwrap();
    store.delete_bytes(b"deleted").unwrap();
    store.close().unwrap();
    let (bytes, index) = (read_file(&memory, PATH), read_file(&memory, INDEX));
    for index in [Some(&index[..]), None] {
        let found = salvage(&bytes, index);
        let expected = [(&b"buffers"[..], noise(1, 100_000)), (b"overwritten", b"new".to_vec())];
        let expected = expected.map(|(key, value)| (key.to_vec(), value));
        assert_eq!(found.found.contents, BTreeMap::from(expected));
        assert!(found.report.is_complete(), "{:?}", found.report);
    }
}
