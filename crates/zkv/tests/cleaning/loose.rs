//! Records that were committed one by one, or a few at a time, are packed together.

use super::*;

/// Two records of a kind, one that compresses and one that does not.
fn small_records(number: u64) -> [Vec<u8>; 2] {
    let text = format!(r#"{{"id":{number},"kind":"event","title":"number {number}","lang":"en"}}"#);
    [text.into_bytes(), noise(number, 60)]
}

#[test]
fn what_was_committed_record_by_record_is_packed_together_once() {
    for (kind, count) in [(0, 20_000u64), (1, 10_000)] {
        let storage = MemoryStorage::new();
        let store = options(&storage).cleaning(Cleaning::Off).open(PATH).unwrap();
        let mut expected = HashMap::new();
        for number in 0..count {
            let (key, value) = (number.to_be_bytes().to_vec(), small_records(number)[kind].clone());
            store.set_bytes(&key, &value).unwrap();
            store.flush().unwrap();
            expected.insert(key, value);
        }
        let before = store.stats().unwrap();
        assert!(before.segments >= 4 && before.dead_bytes < u64::from(SLOT), "{before:?}");
        store.clean().unwrap();
        let cleaned = store.stats().unwrap();
        let share = [50, 100][kind];
        assert!(cleaned.live_bytes * 100 < before.live_bytes * share, "{before:?} {cleaned:?}");
        // Together, and then once more to the file's front.
        assert!(cleaned.cleaning.moved_records <= 2 * count, "{cleaned:?}");
        check(&store, &expected);
        // What hardly compresses is not packed again and again.
        store.clean().unwrap();
        assert_eq!(store.stats().unwrap().written_bytes, cleaned.written_bytes);
        store.close().unwrap();
        let store = open(&storage);
        store.clean().unwrap();
        assert_eq!(store.stats().unwrap().cleaning.moved_records, 0);
        check(&store, &expected);
    }
}

#[test]
fn blocks_that_are_short_because_they_shall_be_are_not_packed_again() {
    let storage = MemoryStorage::new();
    let options = || options(&storage).cleaning(Cleaning::Off).block_bytes(64);
    let store = options().open(PATH).unwrap();
    let expected: HashMap<Vec<u8>, Vec<u8>> =
        (0..12_000u64).map(|number| (number.to_be_bytes().to_vec(), noise(number, 60))).collect();
    for (key, value) in &expected {
        store.set_bytes(key, value).unwrap();
    }
    in_time(&store, Store::clean);
    let stats = store.stats().unwrap();
    assert!(stats.segments >= 4, "{stats:?}");
    assert_eq!(stats.cleaning.moved_records, 0);
    check(&store, &expected);
}

/// Of a long value, its segment counts the few bytes of the key.
#[test]
fn what_seems_loose_however_it_is_packed_is_packed_once() {
    let storage = MemoryStorage::new();
    let cleaning = Cleaning::automatic().dead_percent(5).write_percent(50);
    let options = options(&storage).memory_buffer_bytes(16 << 20).block_bytes(64);
    let store = options.cleaning(cleaning).open(PATH).unwrap();
    let value = vec![0; 65_537];
    let mut batch = WriteBatch::new();
    const KEYS: u32 = 30_000;
    for number in 0..KEYS {
        batch.set_bytes(&number.to_be_bytes()[1..], &value);
    }
    store.write(batch).unwrap();
    in_time(&store, Store::clean);
    let stats = store.stats().unwrap();
    assert!((1..=2 * u64::from(KEYS)).contains(&stats.cleaning.moved_records), "{stats:?}");
    assert_eq!(store.get_bytes(&[0, 0, 7]).unwrap(), Some(value));
}

#[test]
fn one_call_packs_however_many_segments_are_loose() {
    let storage = MemoryStorage::new();
    let open = || options(&storage).cleaning(Cleaning::Off).open(PATH).unwrap();
    let store = open();
    let mut count = 0u64;
    while !count.is_multiple_of(1000) || store.stats().unwrap().segments < 150 {
        store.set_bytes(&count.to_be_bytes(), &noise(count, 240)).unwrap();
        store.flush().unwrap();
        count += 1;
    }
    store.close().unwrap();
    let store = open();
    store.clean().unwrap();
    let stats = store.stats().unwrap();
    assert!(stats.cleaning.moved_records > count / 3, "{count} {stats:?}");
    assert_eq!(store.len(), count);
}
