//! What the mender makes right is what the library takes for whole.

use zkv_fuzz::corpus;
use zkv_fuzz::mend::{mend_file, mend_index, mend_pair, parts_of_file, parts_of_index};
use zkv_fuzz::targets::find;

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let inputs = corpus::inputs(find(target).unwrap()).unwrap();
    let is_seed =
        |path: &std::path::Path| path.components().any(|part| part.as_os_str() == "seeds");
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

#[test]
fn an_index_is_made_to_belong_to_changed_data() {
    let changed: Vec<_> = seeds("verify")
        .into_iter()
        .filter(|seed| {
            let Some(index) = seed.windows(8).position(|bytes| bytes == b"zkvindex") else {
                return false;
            };
            // A commit number before the watermark: the chain goes on from it.
            let mut spoilt = seed.clone();
            let commit =
                parts_of_file(&seed[..index]).into_iter().find(|part| seed[part.start + 4] == 6);
            spoilt[commit.expect("a commit").start + 16] ^= 1;
            let mended = mended(&spoilt, mend_pair);
            mended[..index] != seed[..index] && mended[index..] != seed[index..]
        })
        .collect();
    assert_eq!(changed.len(), 2);
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
