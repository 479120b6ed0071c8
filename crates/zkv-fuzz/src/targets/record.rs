//! The decoders of records, heads and piece keys.

use zkv_record::{Head, KeyHasher, Kind, Namespace, PieceKey, Record};

pub(crate) fn run(input: &[u8]) {
    if let Ok(record) = Record::decode(input) {
        let mut bytes = Vec::new();
        record.encode_into(&mut bytes);
        assert_eq!(bytes.len(), record.encoded_bytes());
        // Varints need not have been in their shortest form, so the bytes may differ.
        assert_eq!(Record::decode(&bytes), Ok(record));
        if record.kind == Kind::Head {
            check_head(record.value);
        }
        let hasher = KeyHasher::new([3; 32]);
        let _ = hasher.hash(Namespace::Collection(record.collection), record.key);
    }
    check_head(input);
    if let Ok(key) = PieceKey::decode(input) {
        assert_eq!(key.encode(), input);
    }
}

fn check_head(bytes: &[u8]) {
    let Ok(head) = Head::decode(bytes) else { return };
    assert_eq!(head.encode(), bytes);
    let count = head.piece_count();
    assert!((1..=65_536).contains(&count));
    let whole = u64::from(count - 1) * u64::from(head.piece_bytes);
    assert_eq!(whole + u64::from(head.piece_bytes_at(count - 1)), head.value_bytes);
    assert_eq!(head.piece_bytes_at(count), 0);
}
