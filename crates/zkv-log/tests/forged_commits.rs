//! Values that whoever supplies them has made to look like commits of a later segment: whole with some seed, each
//! leading to the next one by its chain, and telling that the log was durable further on.

#[path = "common/mod.rs"]
mod common;

use std::path::Path;

use zkv_io::crc32c;
use zkv_log::layout::{BLOCK_HEADER_BYTES, COMMIT, COMMIT_BYTES, SEGMENT_HEADER_BYTES, slot_start};
use zkv_log::{Salvage, Salvaged};

use common::{PATH, SLOT, all, bytes_of, new_log, noise, open, slots, storage_of};

const SEED: u32 = 0x1234_5678;
const LATER: u64 = 9;

/// Two commits that will stand from `at` of a segment on.
fn forged(at: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut chain = 7;
    for seed in [1, 2] {
        let offset = at + u32::try_from(bytes.len()).unwrap();
        // As a number that is not too high, and what does not compress.
        let mut payload = noise(seed, COMMIT_BYTES);
        payload[7] = 0;
        let mut put = |name, value: &[u8]| {
            let (_, at, _) = COMMIT.iter().find(|(found, ..)| *found == name).unwrap();
            payload[*at..at + value.len()].copy_from_slice(value);
        };
        put("sequence", &LATER.to_le_bytes());
        put("synced_sequence", &LATER.to_le_bytes());
        put("synced_offset", &offset.to_le_bytes());
        put("chain", &u32::to_le_bytes(chain));
        let [l0, l1, l2, ..] = u32::to_le_bytes(COMMIT_BYTES.try_into().unwrap());
        let tagged = [&[6, l0, l1, l2], &payload[..]].concat();
        let checksum = crc32c(crc32c(SEED, &offset.to_le_bytes()), &tagged).to_le_bytes();
        bytes.extend([&checksum[..], &tagged].concat());
        chain = crc32c(chain, &checksum);
    }
    bytes
}

/// Behind a block's header and the count of its entries.
const VALUE_OFFSET: u32 = BLOCK_HEADER_BYTES + 1;

#[test]
fn a_torn_block_that_holds_forged_commits_is_no_damage() {
    let (storage, mut writer) = new_log();
    writer.append(&[b"kept"]).unwrap();
    writer.log().sync(writer.end()).unwrap();
    let torn = writer.end().offset;
    let before = noise(5, 20_000);
    writer.append(&[&[before, forged(torn + VALUE_OFFSET + 20_000)].concat()]).unwrap();
    let mut bytes = bytes_of(&storage);
    let at = usize::try_from(slot_start(0, SLOT)).unwrap() + torn as usize;
    assert_eq!(bytes[at + 20_009..at + 20_013], forged(torn + VALUE_OFFSET + 20_000)[..4]);
    bytes[at..at + 4].fill(0);
    let writer = open(&storage_of(&bytes));
    assert_eq!(all(&writer.log()), [b"kept"]);
}

#[test]
fn forged_commits_in_a_free_slot_are_neither_damage_nor_salvaged() {
    let (storage, mut writer) = new_log();
    for seed in 0..4 {
        let at = writer.end().offset + VALUE_OFFSET + 20_000;
        let forged = if seed == 0 { Vec::new() } else { forged(SEGMENT_HEADER_BYTES + 20_009) };
        assert!(seed == 0 || at > 40_000, "the next segment has it");
        writer
            .append(&[&[noise(20 + seed, 20_000), forged, noise(10 + seed, 35_000)].concat()])
            .unwrap();
    }
    let freed = writer.free(&[1, 2]).unwrap();
    writer.log().sync(freed.end).unwrap();
    // Its header names the roll call.
    writer.append(&[&noise(40, 60_000)]).unwrap();
    writer.append(&[b"kept"]).unwrap();
    writer.log().sync(writer.end()).unwrap();
    let used: Vec<u32> = slots(&writer.log()).iter().map(|(slot, _)| *slot).collect();
    let free = [1, 2].into_iter().find(|slot| !used.contains(slot)).unwrap();
    drop(writer);
    let mut bytes = bytes_of(&storage);
    let start = usize::try_from(slot_start(free, SLOT)).unwrap();
    let forged = forged(SEGMENT_HEADER_BYTES + 20_009);
    assert_eq!(bytes[start + 256 + 20_009..][..forged.len()], forged);
    for lost in [1, 512, 4096] {
        // What says whose the free slot was.
        bytes[start..start + lost].fill(0);
        let writer = open(&storage_of(&bytes));
        assert!(all(&writer.log()).contains(&b"kept".to_vec()), "{lost} bytes");
        drop(writer);
        let storage = storage_of(&bytes);
        let mut salvage = Salvage::open(&storage, Path::new(PATH), None, &mut |_, _| {}).unwrap();
        let mut is_newest_kept = None;
        while let Some(next) = salvage.next_older().unwrap() {
            assert!(!matches!(next, Salvaged::MissingSegments(_) | Salvaged::Lost(_)), "{next:?}");
            if let Salvaged::Block(block) = next {
                is_newest_kept.get_or_insert(block.entries == [b"kept"]);
            }
        }
        assert_eq!(is_newest_kept, Some(true), "{lost} bytes");
    }
}
