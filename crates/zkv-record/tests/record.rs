//! The record codec against every truncation, every flipped bit, and random records.

use proptest::prelude::*;
use zkv_record::{
    Head, KEY_BYTES_MAX, Kind, PIECE_BYTES_MAX, PIECE_BYTES_MIN, PieceKey, Record, RecordError,
    VALUE_BYTES_INLINE_MAX, VALUE_BYTES_MAX,
};

fn encoded(record: &Record<'_>) -> Vec<u8> {
    let mut bytes = b"before".to_vec();
    record.encode_into(&mut bytes);
    let record_bytes = bytes.split_off(b"before".len());
    assert_eq!(bytes, b"before");
    assert_eq!(record_bytes.len(), record.encoded_bytes());
    record_bytes
}

/// Decodes `bytes`; what decodes must survive another round trip (not be the same bytes: varints
/// may be longer than they need to be).
fn check_stable(bytes: &[u8]) -> Result<Record<'_>, RecordError> {
    let record = Record::decode(bytes)?;
    assert_eq!(Record::decode(&encoded(&record)), Ok(record));
    Ok(record)
}

fn corrupt<T>(field: &'static str) -> Result<T, RecordError> {
    Err(RecordError::Corrupt { field })
}

const KINDS: [Kind; 4] = [Kind::Put, Kind::Delete, Kind::Head, Kind::Piece];

fn samples() -> Vec<Record<'static>> {
    let mut samples = Vec::new();
    for kind in KINDS {
        for collection in [0, 1, 127, 128, u32::MAX] {
            for expires_at_ms in [None, Some(0), Some(1_795_392_000_000), Some(u64::MAX)] {
                let value: &[u8] = if kind == Kind::Delete { b"" } else { b"some value" };
                for origin in [None, Some(0), Some(77), Some(u64::MAX)] {
                    let key = b"a key";
                    samples.push(Record { kind, collection, expires_at_ms, origin, key, value });
                }
            }
        }
    }
    samples
}

#[test]
fn records_round_trip() {
    for record in samples() {
        assert_eq!(Record::decode(&encoded(&record)), Ok(record));
    }
}

#[test]
fn a_truncation_is_an_error_or_a_shorter_value() {
    for record in samples() {
        let bytes = encoded(&record);
        let value_start = bytes.len() - record.value.len();
        for end in 0..bytes.len() {
            let found = check_stable(&bytes[..end]);
            if end < value_start {
                assert!(matches!(found, Err(RecordError::Corrupt { .. })), "{record:?} to {end}");
            } else {
                // The entry's length, which the log checks, is the record's: it has none itself.
                let value = &record.value[..end - value_start];
                assert_eq!(found, Ok(Record { value, ..record }));
            }
        }
    }
}

#[test]
fn every_flipped_bit_gives_an_error_or_another_record() {
    for record in samples() {
        let mut bytes = encoded(&record);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(found) = check_stable(&bytes) {
                assert_ne!(found, record, "bit {bit} of {record:?} says nothing");
            }
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn unknown_flags_are_refused() {
    let mut bytes = encoded(&Record::put(b"key", b"value"));
    for bit in 5..8 {
        bytes[0] = 1 << bit;
        let refused = RecordError::UnsupportedFlags { flags: 1 << bit, known: 0x1F };
        assert_eq!(Record::decode(&bytes), Err(refused));
    }
}

#[test]
fn fields_out_of_their_range_are_refused() {
    let cases: [(&[u8], &str); 7] = [
        (b"", "flags byte"),
        (b"\x01\x01kv", "value length"),
        (b"\x04\x00\x01k", "collection"),
        (b"\x04\xff\xff\xff\xff\x10\x01k", "collection"),
        (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02\x01k", "expiry"),
        (b"\x00\x81\x80\x04", "key length"),
        (b"\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "key length"),
    ];
    for (bytes, field) in cases {
        assert_eq!(Record::decode(bytes), corrupt(field), "{bytes:x?}");
    }
}

#[test]
fn longer_varints_than_needed_are_read() {
    assert_eq!(Record::decode(b"\x00\x81\x00kv"), Ok(Record::put(b"k", b"v")));
}

#[test]
fn keys_and_values_end_at_their_limits() {
    let (key, value) = (vec![1; KEY_BYTES_MAX + 1], vec![2; VALUE_BYTES_INLINE_MAX + 1]);
    let longest = Record::put(&key[1..], &value[1..]);
    assert_eq!(Record::decode(&encoded(&longest)), Ok(longest));
    let bytes = encoded(&Record { key: &key, ..longest });
    assert_eq!(Record::decode(&bytes), corrupt("key length"));
    let bytes = encoded(&Record { value: &value, ..longest });
    assert_eq!(Record::decode(&bytes), corrupt("value length"));
}

#[test]
fn a_delete_marks_value_is_not_written() {
    let mark = Record { value: b"left over", ..Record::delete(b"key") };
    assert_eq!(encoded(&mark), encoded(&Record::delete(b"key")));
}

#[test]
fn debug_output_holds_neither_key_nor_value() {
    let text = format!("{:?}", Record::put(b"secret", b"hidden"));
    assert!(text.contains("key_bytes: 6"), "{text}");
    assert!(!text.contains("secret") && !text.contains("115") && !text.contains("hidden"));
}

#[test]
fn heads_outside_the_limits_are_refused() {
    let short = u64::from(PIECE_BYTES_MIN);
    let inline = VALUE_BYTES_INLINE_MAX as u64;
    let cases = [
        (short, PIECE_BYTES_MIN, corrupt("head's value length")),
        (short + 1, PIECE_BYTES_MIN, Ok(2)),
        (inline + 1, PIECE_BYTES_MIN, Ok(17)),
        (inline + 1, PIECE_BYTES_MAX, Ok(2)),
        (VALUE_BYTES_MAX, PIECE_BYTES_MIN, Ok(65_536)),
        (VALUE_BYTES_MAX + 1, PIECE_BYTES_MIN, corrupt("head's value length")),
        (u64::MAX, 0, corrupt("head's value length")),
        (VALUE_BYTES_MAX, 0, corrupt("head's piece length")),
        (VALUE_BYTES_MAX, PIECE_BYTES_MIN - 1, corrupt("head's piece length")),
        (VALUE_BYTES_MAX, PIECE_BYTES_MAX + 1, corrupt("head's piece length")),
    ];
    for (value_bytes, piece_bytes, expected) in cases {
        let head = Head { value_id: [9; 16], value_bytes, piece_bytes };
        let found = Head::decode(&head.encode()).map(|head| head.piece_count());
        assert_eq!(found, expected, "{head:?}");
    }
}

#[test]
fn heads_and_piece_keys_have_one_length() {
    let head = Head { value_id: [9; 16], value_bytes: 3 << 20, piece_bytes: 1 << 20 };
    check_length(&head.encode(), |bytes| Head::decode(bytes).is_ok());
    check_length(&head.piece_key(2).encode(), |bytes| PieceKey::decode(bytes).is_ok());
    assert_eq!(PieceKey::decode(&head.piece_key(2).encode()), Ok(head.piece_key(2)));
}

fn check_length(bytes: &[u8], decodes: impl Fn(&[u8]) -> bool) {
    let mut longer = bytes.to_vec();
    longer.push(0);
    for end in 0..=longer.len() {
        assert_eq!(decodes(&longer[..end]), end == bytes.len(), "{end} bytes");
    }
}

#[test]
fn the_pieces_of_a_value_add_up() {
    for value_bytes in [1_048_577, 1_572_864, 1_572_865, 104_857_600, VALUE_BYTES_MAX] {
        let head = Head { value_id: [9; 16], value_bytes, piece_bytes: 524_288 };
        let sum: u64 = (0..head.piece_count()).map(|n| u64::from(head.piece_bytes_at(n))).sum();
        assert_eq!(sum, value_bytes);
        assert!(head.piece_bytes_at(head.piece_count() - 1) > 0);
        assert_eq!(head.piece_bytes_at(head.piece_count()), 0);
        assert_eq!(head.piece_bytes_at(u32::MAX), 0);
    }
}

proptest! {
    #[test]
    fn random_records_round_trip(
        kind in prop::sample::select(&KINDS[..]),
        collection: u32,
        expires_at_ms: Option<u64>,
        origin: Option<u64>,
        key in prop::collection::vec(any::<u8>(), 0..300),
        value in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let value: &[u8] = if kind == Kind::Delete { b"" } else { &value };
        let record = Record { kind, collection, expires_at_ms, origin, key: &key, value };
        let bytes = encoded(&record);
        prop_assert_eq!(Record::decode(&bytes), Ok(record));
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        // An error is as good as a record here; what decodes is checked inside.
        let _ = check_stable(&bytes);
        let _ = Head::decode(&bytes);
        let _ = PieceKey::decode(&bytes);
    }
}
