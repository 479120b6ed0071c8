//! Bytes that never change: they are read by every later version.
//!
//! After a deliberate change of the format, `cargo xtask format bless` writes the file anew.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use zkv_record::{Head, KeyHasher, Kind, Namespace, PieceKey, Record};

const ID: [u8; 16] = *b"0123456789abcdef";

fn records() -> Vec<(&'static str, Record<'static>)> {
    let put = Record::put(b"key", b"value");
    vec![
        ("put", put),
        ("empty put", Record::put(b"", b"")),
        ("delete", Record::delete(b"key")),
        ("delete moved from segment 300", Record { origin: Some(300), ..Record::delete(b"key") }),
        ("put in collection 300", Record { collection: 300, ..put }),
        ("put that expires at 1 ms", Record { expires_at_ms: Some(1), ..put }),
        ("put in collection 1 that expires at 2026-11-23", {
            Record { collection: 1, expires_at_ms: Some(1_795_392_000_000), ..put }
        }),
        ("put of a key of 128 bytes", Record::put(&[b'k'; 128], b"v")),
    ]
}

fn golden_lines() -> Vec<(String, Vec<u8>)> {
    let mut lines = Vec::new();
    for (name, record) in records() {
        let mut bytes = Vec::new();
        record.encode_into(&mut bytes);
        lines.push((name.to_owned(), bytes));
    }
    let head = Head { value_id: ID, value_bytes: 2_500_000, piece_bytes: 524_288 };
    lines.push(("head of 2,500,000 bytes in pieces of 524,288".to_owned(), head.encode().into()));
    let key = PieceKey { value_id: ID, number: 258 };
    lines.push(("key of piece 258".to_owned(), key.encode().into()));
    let hasher = KeyHasher::new(*b"0123456789abcdef0123456789ABCDEF");
    for namespace in [Namespace::Collection(0), Namespace::Collection(1), Namespace::Pieces] {
        let hash = hasher.hash(namespace, b"key");
        lines.push((format!("hash of key in {namespace:?}"), hash.into()));
    }
    lines
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes every character");
        text
    })
}

fn golden_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/record.txt")
}

#[test]
fn bytes_are_those_of_the_golden_file() {
    let lines = golden_lines();
    let written: String =
        lines.iter().map(|(name, bytes)| format!("{name}: {}\n", hex(bytes))).collect();
    if std::env::var_os("ZKV_BLESS").is_some() {
        std::fs::write(golden_path(), &written).unwrap();
    }
    let golden = std::fs::read_to_string(golden_path()).unwrap().replace("\r\n", "\n");
    assert_eq!(written, golden, "a deliberate change of the format: cargo xtask format bless");
}

#[test]
fn the_page_shows_every_golden_row() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/format/record.md");
    let page = std::fs::read_to_string(page).unwrap();
    // One long key is as good as two screens of it.
    for (name, bytes) in golden_lines().into_iter().filter(|(_, bytes)| bytes.len() < 100) {
        let row = format!("| {name} | `{}` |", hex(&bytes));
        assert!(page.contains(&row), "docs/format/record.md has no row {row}");
    }
}

#[test]
fn golden_records_decode_to_what_they_were() {
    let lines = golden_lines();
    for ((name, record), (_, bytes)) in records().into_iter().zip(&lines) {
        assert_eq!(Record::decode(bytes), Ok(record), "{name}");
    }
    assert_eq!(records()[2].1.kind, Kind::Delete);
}
