//! Logs whose checksums are right and whose contents are not: verifying ends, and panics at nothing.

use std::path::Path;
use std::sync::Arc;

use zkv_io::{MemoryStorage, OpenMode, Storage, crc32c};

use crate::header::SegmentHeader;
use crate::layout::{
    BLOCK_HEADER_BYTES, COMMIT_BLOCK_BYTES, FILE_HEADER_BYTES, SEGMENT_HEADER_BYTES,
    SEGMENT_HEADER_FIELD_BYTES, seal_offset,
};
use crate::mark::sign;
use crate::open::{Access, OpenFile, create};
use crate::options::LogOptions;
use crate::segment::Place;
use crate::verify::{LogFinding, LogVisitor, VerifiedEntry};
use crate::walk::{BlockWalk, Seeds};

const SLOT: u32 = 64 << 10;
const PATH: &str = "log";

/// Blocks longer than this hold entries, of which any bytes are as good.
const PAYLOAD_BYTES_MAX: usize = 400;

#[derive(Default)]
struct Count(usize);

impl LogVisitor for Count {
    fn finding(&mut self, _: LogFinding) {
        self.0 += 1;
    }
    fn entry(&mut self, _: &VerifiedEntry<'_>) {}
    fn done(&mut self, _: u64) {}
}

struct Sample {
    storage: MemoryStorage,
    bytes: Vec<u8>,
    places: Vec<Place>,
}

fn open(storage: &MemoryStorage, access: Access) -> OpenFile {
    let options = LogOptions { slot_bytes: SLOT, ..LogOptions::default() };
    OpenFile::open(Arc::new(storage.clone()), Path::new(PATH), access, options).unwrap()
}

/// Two full segments and a third, with every kind of block but dictionaries, and one freed.
fn sample() -> Sample {
    let storage = MemoryStorage::new();
    let options = LogOptions { slot_bytes: SLOT, ..LogOptions::default() };
    create(&storage, Path::new(PATH), &options).unwrap();
    let mut writer = open(&storage, Access::ReadWrite).recover(None).unwrap().writer.unwrap();
    for number in 0..3u8 {
        writer.append(&[b"short", &vec![number; 60_000]]).unwrap();
        let noise: Vec<u8> = (0..58_000u64)
            .map(|at| (at + 7).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()[0] ^ number)
            .collect();
        writer.append(&[&noise]).unwrap();
    }
    writer.checkpoint().unwrap();
    writer.free(&[0]).unwrap();
    writer.close().unwrap();
    let file = writer.log().file().clone();
    let places = writer.members.values().map(|segment| segment.place).collect();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    Sample { storage, bytes, places }
}

impl Sample {
    /// Verifies the log with `changed` at `offset`, and says how much was found.
    fn findings(&self, offset: u64, changed: &[u8]) -> usize {
        let file = self.storage.open(Path::new(PATH), OpenMode::ReadWrite).unwrap();
        let at = usize::try_from(offset).unwrap();
        file.write_at(offset, changed).unwrap();
        let mut count = Count::default();
        open(&self.storage, Access::ReadOnly).verifier(None).run(&mut count).unwrap();
        file.write_at(offset, &self.bytes[at..at + changed.len()]).unwrap();
        count.0
    }

    fn slot(&self, place: &Place) -> &[u8] {
        let start = usize::try_from(place.start).unwrap();
        &self.bytes[start..self.bytes.len().min(start + SLOT as usize)]
    }

    /// Flips every bit of the block at `offset`, from its tag on, and makes its checksum right, and the signature
    /// of a commit.
    fn forge_block(&self, place: &Place, offset: u32, block: &[u8]) {
        for bit in 4 * 8..block.len() * 8 {
            let mut forged = block.to_vec();
            forged[bit / 8] ^= 1 << (bit % 8);
            if block.len() == COMMIT_BLOCK_BYTES as usize {
                let payload = &mut forged[BLOCK_HEADER_BYTES as usize..];
                sign(payload, &place.store_id, place.id.slot, offset);
            }
            let checksum = place.seed.checksum(offset, &forged[4..]);
            forged[..4].copy_from_slice(&checksum.to_le_bytes());
            self.findings(place.start + u64::from(offset), &forged);
        }
    }
}

#[test]
fn forged_blocks_and_seals_make_no_panic() {
    let sample = sample();
    assert_eq!(sample.findings(0, &[]), 0);
    for place in &sample.places {
        let slot = sample.slot(place);
        let blocks =
            &slot[SEGMENT_HEADER_BYTES as usize..slot.len().min(seal_offset(SLOT) as usize)];
        let walk = BlockWalk::new(blocks, SEGMENT_HEADER_BYTES, Seeds::new(place.seed));
        for block in walk.filter(|block| block.payload.len() <= PAYLOAD_BYTES_MAX) {
            let bytes = &slot[block.offset as usize..block.end() as usize];
            sample.forge_block(place, block.offset, bytes);
        }
        if let Some(seal) = slot.get(seal_offset(SLOT) as usize..) {
            sample.forge_block(place, seal_offset(SLOT), seal);
        }
    }
}

#[test]
fn forged_headers_make_no_panic() {
    let sample = sample();
    for place in &sample.places {
        let header = &sample.slot(place)[..SEGMENT_HEADER_FIELD_BYTES];
        assert!(SegmentHeader::decode(header).is_ok());
        let checked = SEGMENT_HEADER_FIELD_BYTES - 4;
        // A seal repeats the header, and has a digest of it.
        let is_sealed = sample.slot(place).len() == SLOT as usize;
        for bit in 0..checked * 8 {
            let mut forged = header.to_vec();
            forged[bit / 8] ^= 1 << (bit % 8);
            let checksum = crc32c(0, &forged[..checked]);
            forged[checked..].copy_from_slice(&checksum.to_le_bytes());
            let found = sample.findings(place.start, &forged);
            assert!(found > 0 || !is_sealed, "bit {bit}");
        }
        for filler in [0, 0x7F, 0xFF] {
            let mut forged = header.to_vec();
            // Its numbers: sequence, slot, nonce, roll call, synced place.
            forged[68..checked].fill(filler);
            let checksum = crc32c(0, &forged[..checked]);
            forged[checked..].copy_from_slice(&checksum.to_le_bytes());
            let found = sample.findings(place.start, &forged);
            assert!(found > 0 || !is_sealed, "{filler}");
        }
    }
}

#[test]
fn a_header_whose_roll_call_stands_behind_everything_makes_no_panic() {
    let storage = MemoryStorage::new();
    let options = LogOptions { slot_bytes: SLOT, ..LogOptions::default() };
    create(&storage, Path::new(PATH), &options).unwrap();
    let file = storage.open(Path::new(PATH), OpenMode::ReadWrite).unwrap();
    let mut forged = [0; SEGMENT_HEADER_FIELD_BYTES];
    file.read_at(FILE_HEADER_BYTES, &mut forged).unwrap();
    // The roll call: in this segment, at the last offset that there is.
    forged[88..96].copy_from_slice(&1u64.to_le_bytes());
    forged[96..100].copy_from_slice(&u32::MAX.to_le_bytes());
    let checked = SEGMENT_HEADER_FIELD_BYTES - 4;
    let checksum = crc32c(0, &forged[..checked]);
    forged[checked..].copy_from_slice(&checksum.to_le_bytes());
    file.write_at(FILE_HEADER_BYTES, &forged).unwrap();
    let mut count = Count::default();
    open(&storage, Access::ReadOnly).verifier(None).run(&mut count).unwrap();
    assert!(count.0 > 0);
}
