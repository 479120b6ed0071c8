//! What a store holds block by block, found by walking it while it is whole, and what must be left
//! of it where some of its bytes are not.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use zkv_io::MemoryStorage;
use zkv_log::layout::{FILE_HEADER_BYTES, seal_block_bytes, seal_offset, slot_start};
use zkv_log::{Access, LogOptions, OpenFile};
use zkv_record::{Head, Kind, PieceKey, Record};

use crate::common::faulty::{PATH, read_file};

const ENTRIES: u8 = 2;
pub const DICTIONARY: u8 = 3;
pub const COMMIT: u8 = 6;

/// One block of a store.
pub struct Block {
    /// In bytes from the file's start.
    pub bytes: Range<u64>,
    pub position: (u64, u32),
    pub kind: u8,
    number: u8,
    /// Of a dictionary its name, of entries that of the one they need.
    pub digest: Option<[u8; 32]>,
    records: Vec<Vec<u8>>,
}

/// One segment of a store.
pub struct Segment {
    pub sequence: u64,
    pub start: u64,
    pub header: Range<u64>,
    pub seal: Option<Range<u64>>,
}

pub struct Model {
    pub bytes: Vec<u8>,
    pub segments: Vec<Segment>,
    /// In the order of the log.
    pub blocks: Vec<Block>,
}

/// What salvage must find.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expected {
    pub contents: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Keys to which something lost may have happened later.
    pub doubtful: BTreeSet<Vec<u8>>,
    /// Keys whose values have lost a piece.
    pub incomplete: BTreeSet<Vec<u8>>,
}

impl Model {
    /// Walks the store, which must be whole.
    pub fn of(memory: &MemoryStorage) -> Self {
        let bytes = read_file(memory, PATH);
        let storage = Arc::new(memory.clone());
        let options = LogOptions::default();
        let file = OpenFile::open(storage, Path::new(PATH), Access::ReadOnly, options).unwrap();
        let view = file.recover(None).unwrap().log.view();
        let slot_bytes = view.identity().slot_bytes;
        let mut model = Self { bytes, segments: Vec::new(), blocks: Vec::new() };
        for info in view.segments() {
            let start = slot_start(info.slot, slot_bytes);
            let mut records = HashMap::new();
            let mut scan = view.scan(info.slot, None).unwrap();
            while let Some(block) = scan.next_block().unwrap() {
                let entries =
                    block.entries().unwrap().map(|entry| entry.unwrap().to_vec()).collect();
                records.insert(block.position.offset, entries);
            }
            let seal_start = start + u64::from(seal_offset(slot_bytes));
            let seal = seal_start..seal_start + u64::from(seal_block_bytes(slot_bytes));
            model.segments.push(Segment {
                sequence: info.sequence,
                start,
                header: start..start + 256,
                seal: info.is_sealed.then_some(seal),
            });
            model.walk(info.sequence, start, info.data_bytes, records);
        }
        model
    }

    fn walk(
        &mut self,
        sequence: u64,
        start: u64,
        data_end: u32,
        mut records: HashMap<u32, Vec<Vec<u8>>>,
    ) {
        let mut digests = HashMap::new();
        let mut offset = 256;
        while offset < data_end {
            let at = start + u64::from(offset);
            let header = &self.bytes[usize::try_from(at).unwrap()..];
            let (kind, number) = (header[4] & 15, header[4] >> 4);
            let payload_bytes = u32::from_le_bytes([header[5], header[6], header[7], 0]);
            if kind == DICTIONARY {
                let digest: [u8; 32] = header[8..40].try_into().unwrap();
                digests.insert(number, digest);
            }
            self.blocks.push(Block {
                bytes: at..at + 8 + u64::from(payload_bytes),
                position: (sequence, offset),
                kind,
                number,
                digest: digests.get(&number).copied().filter(|_| kind <= DICTIONARY),
                records: records.remove(&offset).unwrap_or_default(),
            });
            offset += 8 + payload_bytes;
        }
        assert!(records.is_empty() && offset == data_end);
    }

    pub fn dictionary_count(&self) -> usize {
        self.blocks.iter().filter(|block| block.kind == DICTIONARY).count()
    }

    /// What must be left where the bytes of `damage` are anything else.
    pub fn expected(&self, damage: &[Range<u64>]) -> Expected {
        let is_hit = |bytes: &Range<u64>| {
            damage.iter().any(|hit| hit.start < bytes.end && bytes.start < hit.end)
        };
        let dictionaries: HashSet<[u8; 32]> = self
            .blocks
            .iter()
            .filter(|block| block.kind == DICTIONARY && !is_hit(&block.bytes))
            .filter_map(|block| block.digest)
            .collect();
        let is_left = |block: &Block| {
            let needs = block.digest.filter(|_| block.kind <= ENTRIES && block.number > 0);
            !is_hit(&block.bytes) && needs.is_none_or(|digest| dictionaries.contains(&digest))
        };
        let committed = self.committed(&is_hit);
        let mut found = Newest::default();
        for segment in self.segments.iter().rev() {
            let blocks = self.blocks.iter().filter(|block| block.position.0 == segment.sequence);
            let is_last = segment.seal.is_none();
            // Nothing tells where it ended.
            found.is_newer_lost |= segment.seal.as_ref().is_some_and(is_hit);
            for block in blocks.rev() {
                if !is_left(block) {
                    // At the log's end, it looks as if a crash had torn it.
                    found.is_newer_lost |= !is_last || block.position < committed;
                } else if block.position < committed {
                    block.records.iter().for_each(|record| found.take(record));
                }
            }
        }
        found.finish()
    }

    /// The end of the last commit block that is left, or what is left proves.
    fn committed(&self, is_hit: &dyn Fn(&Range<u64>) -> bool) -> (u64, u32) {
        let position = |at: u64| {
            let bytes = &self.bytes[usize::try_from(at).unwrap()..][..12];
            let sequence = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            (sequence, u32::from_le_bytes(bytes[8..].try_into().unwrap()))
        };
        let commits = self.blocks.iter().filter(|block| block.kind == COMMIT);
        let commits = commits.filter(|block| !is_hit(&block.bytes));
        let ends = commits.clone().map(|block| (block.position.0, block.position.1 + 1));
        let proofs = commits.map(|block| position(block.bytes.start + 8 + 24));
        let headers = self.segments.iter().filter(|segment| !is_hit(&segment.header));
        let headers = headers.map(|segment| position(segment.start + 100));
        let seals = self.segments.iter().filter_map(|segment| segment.seal.clone());
        let seals = seals.filter(|seal| !is_hit(seal)).map(|seal| position(seal.start + 8 + 32));
        ends.chain(proofs).chain(headers).chain(seals).max().unwrap_or_default()
    }
}

/// The newest record of a key; a mark has neither value nor head.
struct NewestRecord {
    value: Option<Vec<u8>>,
    head: Option<Head>,
    is_doubtful: bool,
}

/// The newest record of each key, as they come from the newest to the oldest.
#[derive(Default)]
struct Newest {
    is_newer_lost: bool,
    keys: BTreeMap<Vec<u8>, NewestRecord>,
    pieces: HashMap<PieceKey, Vec<u8>>,
}

impl Newest {
    fn take(&mut self, record: &[u8]) {
        let record = Record::decode(record).unwrap();
        if record.kind == Kind::Piece {
            let key = PieceKey::decode(record.key).unwrap();
            self.pieces.entry(key).or_insert(record.value.to_vec());
            return;
        }
        let value = (record.kind == Kind::Put).then(|| record.value.to_vec());
        let head = (record.kind == Kind::Head).then(|| Head::decode(record.value).unwrap());
        let entry = NewestRecord { value, head, is_doubtful: self.is_newer_lost };
        self.keys.entry(record.key.to_vec()).or_insert(entry);
    }

    fn finish(self) -> Expected {
        let mut expected = Expected::default();
        for (key, NewestRecord { value, head, is_doubtful }) in self.keys {
            let value = match (value, head) {
                (Some(value), _) => value,
                (None, None) => continue,
                (None, Some(head)) => {
                    let pieces = (0..head.piece_count())
                        .map(|number| self.pieces.get(&head.piece_key(number)));
                    let pieces: Option<Vec<&Vec<u8>>> = pieces.collect();
                    let value =
                        pieces.map(|pieces| pieces.into_iter().flatten().copied().collect());
                    let Some(value) =
                        value.filter(|value: &Vec<u8>| value.len() as u64 == head.value_bytes)
                    else {
                        expected.incomplete.insert(key);
                        continue;
                    };
                    value
                }
            };
            if is_doubtful {
                expected.doubtful.insert(key.clone());
            }
            expected.contents.insert(key, value);
        }
        expected
    }
}

pub const FILE_HEADER: Range<u64> = 0..FILE_HEADER_BYTES;
