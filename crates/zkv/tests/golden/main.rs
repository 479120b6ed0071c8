//! Stores that earlier versions wrote open for ever.
//!
//! `cargo xtask format bless` writes the files of the present version anew; those of released
//! versions never change. zstd's output may differ from version to version, so what is held against
//! the files is that they open and answer, not their bytes.

mod corrupt;

use std::fs;
use std::path::{Path, PathBuf};

use zkv::{Options, Store};

/// Records of every kind: short, overwritten, deleted, in pieces, under an empty key.
fn fill(store: &Store) {
    store.set_bytes(b"", b"an empty key").unwrap();
    store.set_bytes(b"gone", b"deleted later").unwrap();
    for number in 0u32..200 {
        store.set(&number, &format!("value {number}")).unwrap();
    }
    store.flush().unwrap();
    store.set(&7u32, "overwritten").unwrap();
    store.delete_bytes(b"gone").unwrap();
    store.set_bytes(b"pieces", &long_value()).unwrap();
}

fn long_value() -> Vec<u8> {
    (0..200_000u32).map(|at| (at / 1000).to_le_bytes()[0]).collect()
}

fn check(store: &Store) {
    assert_eq!(store.len(), 202);
    assert_eq!(store.get_bytes(b"").unwrap().unwrap(), b"an empty key");
    assert_eq!(store.get_bytes(b"gone").unwrap(), None);
    assert_eq!(store.get::<_, String>(&7u32).unwrap().unwrap(), "overwritten");
    assert_eq!(store.get::<_, String>(&199u32).unwrap().unwrap(), "value 199");
    assert!(store.get_bytes(b"pieces").unwrap().unwrap() == long_value());
    assert_eq!(store.iter_bytes().map(Result::unwrap).count(), 202);
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn bless() {
    let directory = golden().join("v1");
    for name in ["closed", "killed"] {
        let path = directory.join(format!("{name}.zkv"));
        let _ = fs::remove_file(&path);
        let _ = fs::remove_file(path.with_extension("zkv.idx"));
        let store = Options::new().slot_bytes(256 << 10).open(&path).unwrap();
        fill(&store);
        if name == "closed" {
            store.close().unwrap();
        } else {
            store.flush().unwrap();
            let copy = fs::read(&path).unwrap();
            drop(store);
            fs::remove_file(path.with_extension("zkv.idx")).unwrap();
            fs::write(&path, copy).unwrap();
        }
    }
}

#[test]
fn stores_of_every_version_open_and_answer() {
    if std::env::var_os("ZKV_BLESS").is_some() {
        bless();
    }
    let mut opened = 0;
    let folders = fs::read_dir(golden()).unwrap().map(|entry| entry.unwrap());
    for version in folders.filter(|folder| folder.file_name().to_string_lossy().starts_with('v')) {
        for file in fs::read_dir(version.path()).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "zkv") {
                continue;
            }
            check(&Store::open_read_only(&path).unwrap());
            let copy = tempfile::tempdir().unwrap();
            let copied = copy.path().join("copy.zkv");
            fs::copy(&path, &copied).unwrap();
            let index = path.with_extension("zkv.idx");
            if index.exists() {
                fs::copy(&index, copied.with_extension("zkv.idx")).unwrap();
            }
            let store = Store::open(&copied).unwrap();
            check(&store);
            store.set(&1000u32, "new").unwrap();
            store.close().unwrap();
            assert_eq!(Store::open(&copied).unwrap().len(), 203);
            opened += 1;
        }
    }
    assert!(opened >= 2, "the golden files are gone");
}
