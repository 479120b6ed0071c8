//! What the mender makes right is what the library takes for whole.

use std::path::Path;
use std::sync::Arc;

use zkv::IndexState;
use zkv_fuzz::corpus;
use zkv_fuzz::mend::{mend_file, mend_index, mend_pair, parts_of_file, parts_of_index};
use zkv_fuzz::targets::find;
use zkv_io::{MemoryStorage, OpenMode, Storage};
use zkv_log::layout::{BLOCK_HEADER_BYTES, COMMIT};

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let inputs = corpus::inputs(find(target).unwrap()).unwrap();
    let is_seed = |path: &Path| path.components().any(|part| part.as_os_str() == "seeds");
    inputs.into_iter().filter(|(path, _)| is_seed(path)).map(|(_, bytes)| bytes).collect()
}

fn mended(bytes: &[u8], mend: fn(&mut [u8])) -> Vec<u8> {
    let mut mended = bytes.to_vec();
    mend(&mut mended);
    mended
}

#[test]
fn whole_files_stay_as_they_are() {
    for seed in seeds("data") {
        assert!(mended(&seed, mend_file) == seed);
    }
    for seed in seeds("index") {
        assert!(mended(&seed, mend_index) == seed);
    }
    for seed in seeds("verify") {
        assert!(mended(&seed, mend_pair) == seed);
    }
}

/// What verifying makes of the index of a store in one input.
fn index_state(input: &[u8], index_start: usize) -> IndexState {
    let storage = MemoryStorage::new();
    let (data, index) = input.split_at(index_start);
    for (path, bytes) in [("store.zkv", data), ("store.zkv.idx", index)] {
        let file = storage.open(Path::new(path), OpenMode::CreateNew).unwrap();
        file.write_at(0, bytes).unwrap();
    }
    let options = zkv::Options::new().storage(Arc::new(storage));
    zkv::verify("store.zkv", options, |_| {}).unwrap().index
}

#[test]
fn an_index_is_made_to_belong_to_changed_data() {
    let mut fields = COMMIT.iter();
    let (_, synced_sequence, _) = fields.find(|(name, ..)| *name == "synced_sequence").unwrap();
    let mut count = 0;
    for mut input in seeds("verify") {
        let Some(index) = input.windows(8).position(|bytes| bytes == b"zkvindex") else {
            continue;
        };
        let parts = parts_of_file(&input[..index]);
        let commit = parts.into_iter().find(|part| input[part.start + 4] & 0xF == 6).unwrap();
        // Where it says how far the log was durable; the chain of all that follows changes.
        input[commit.start + BLOCK_HEADER_BYTES as usize + synced_sequence] ^= 1;
        mend_file(&mut input[..index]);
        assert_eq!(index_state(&input, index), IndexState::SetAside);
        mend_pair(&mut input);
        assert_ne!(index_state(&input, index), IndexState::SetAside);
        count += 1;
    }
    assert_eq!(count, 2);
}

#[test]
fn checksums_that_were_spoilt_are_made_right() {
    for seed in seeds("data") {
        for part in parts_of_file(&seed) {
            // A block's checksum stands first. Headers have another place for theirs, and a seal may
            // be that of a segment that was there before.
            let mut spoilt = seed.clone();
            let is_block =
                (1..7).contains(&(seed[part.start + 4] & 0xF)) && seed[part.start] != 0x8B;
            if is_block {
                spoilt[part.start..part.start + 4].fill(0xAA);
                assert!(mended(&spoilt, mend_file) == seed, "{part:?}");
            }
        }
    }
    for seed in seeds("index") {
        let header = &parts_of_index(&seed)[0];
        let mut spoilt = seed.clone();
        spoilt[header.start + 12..header.start + 16].fill(0xAA);
        // The check bits of the first bucket.
        spoilt[512 + 62..512 + 64].fill(0xAA);
        assert!(mended(&spoilt, mend_index) == seed);
    }
}
