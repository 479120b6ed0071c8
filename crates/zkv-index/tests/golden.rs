//! Files of released versions open and answer for ever.
//!
//! `ZKV_BLESS=1 cargo test -p zkv-index --test golden` writes the present version's files anew, which
//! only a deliberate change of an unreleased format calls for. Those of released ones never change.

mod support;

use std::path::{Path, PathBuf};

use support::{
    ALWAYS_APPEND, CLASHING, FaultStorage, Model, check, first_run, hash, location, meta, open,
    path, read, run_of, storage_with,
};
use zkv_index::{Location, Run, write_first};

/// A store's life: its index file in the end, and what that holds.
struct Sample {
    name: &'static str,
    bytes: Vec<u8>,
    model: Model,
    run_count: usize,
}

fn samples() -> [Sample; 3] {
    [empty(), first(), chain()]
}

fn empty() -> Sample {
    let storage = FaultStorage::default();
    let run = Run::from_changes(Vec::new());
    write_first(&storage, path(), &run, &meta(b"", &[])).unwrap();
    Sample { name: "empty", bytes: read(&storage, path()), model: Model::new(), run_count: 1 }
}

fn first() -> Sample {
    let (storage, mut model) = (FaultStorage::default(), Model::new());
    let run = first_run(&mut model, 100);
    write_first(&storage, path(), &run, &meta(&[0x57; 128], SECTIONS)).unwrap();
    Sample { name: "first", bytes: read(&storage, path()), model, run_count: 1 }
}

const SECTIONS: &[(u32, &[u8])] = &[(1, b"segment table"), (2, b""), (0xFFFF_FFFF, &[3; 65])];

/// Two tables merged into one, two more, locations of up to 47 bits, and keys that share a prefix.
fn chain() -> Sample {
    let (storage, mut model) = (FaultStorage::default(), Model::new());
    let run = first_run(&mut model, 60);
    let mut last = write_first(&storage, path(), &run, &meta(b"0", &[])).unwrap();
    for round in 1..8 {
        let moved = (0..12).map(|key| (key * round, Location::new(key * 1000 + round)));
        let clashing = (CLASHING..CLASHING + 5).map(|key| (key, Location::new(round)));
        let large = [(round, Some(location((1 << 47) - round))), (round + 20, None)];
        let run = run_of(&mut model, moved.chain(clashing).chain(large));
        let watermark = [b'0' + u8::try_from(round).unwrap()];
        let meta = meta(&watermark, SECTIONS);
        last = last.write_next_with(&storage, path(), &run, &meta, &ALWAYS_APPEND).unwrap();
    }
    let run_count = last.run_count();
    Sample { name: "chain", bytes: read(&storage, path()), model, run_count }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v2")
}

#[test]
fn golden_files_open_and_answer() {
    for Sample { name, bytes, model, run_count } in samples() {
        let file = folder().join(name).with_extension("idx");
        if std::env::var_os("ZKV_BLESS").is_some() {
            std::fs::create_dir_all(folder()).unwrap();
            std::fs::write(&file, &bytes).unwrap();
        }
        let golden = std::fs::read(&file).unwrap();
        let checkpoint = open(&storage_with(&golden)).unwrap();
        check(&checkpoint, &model, (0..200).map(hash));
        assert_eq!((checkpoint.key_count(), checkpoint.run_count()), (7, run_count), "{name}");
        if name != "empty" {
            for (kind, bytes) in SECTIONS {
                assert_eq!(checkpoint.section(*kind).unwrap().unwrap(), *bytes, "{name}");
            }
        }
        // This build writes what version 2 is: nothing in it depends on the platform.
        assert_eq!(golden, bytes, "{name}: see the head of this file");
    }
}
