//! The blocks of a closed store in memory, for loops that do with them what a store must, and
//! nothing else.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;

use zkv_io::{FileMap, FileStorage, OpenMode, Storage};
use zkv_log::layout::{BLOCK_HEADER_BYTES, CELL_BYTES};
use zkv_log::measure::{MeasuredBlock, MeasuredDictionary, for_each_block};
use zkv_log::{Access, LogOptions, LogView, OpenFile};
use zkv_record::Record;
use zstd_safe::{DCtx, DDict};

use crate::Failure;

/// One block.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// Its payload in the file, where a frame lacks its magic number.
    pub file_offset: u64,
    /// Its length there.
    pub file_bytes: u32,
    /// Its frame within `Blocks::frames`, magic number included; the payload where it is raw.
    start: usize,
    bytes: usize,
    is_frame: bool,
    dictionary: Option<usize>,
}

/// All blocks, their frames one behind another as in the file.
pub struct Blocks {
    /// Where each one is.
    pub blocks: Vec<Block>,
    frames: Vec<u8>,
    dictionaries: Vec<DDict<'static>>,
    raw_bytes_max: usize,
    of_key: HashMap<u64, u32>,
    hasher: RandomState,
}

/// zstd's frame magic number (RFC 8878, section 3.1.1), which the file leaves out.
const FRAME_MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

/// The log of the closed store at `path`.
pub fn open_log(path: &Path) -> Result<LogView, Failure> {
    let storage = Arc::new(FileStorage);
    let file = OpenFile::open(storage, path, Access::ReadOnly, LogOptions::default())?;
    Ok(file.recover(None)?.log.view())
}

impl Blocks {
    /// Those of the closed store at `path`.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let mut loaded = Self {
            blocks: Vec::new(),
            frames: Vec::new(),
            dictionaries: Vec::new(),
            raw_bytes_max: 0,
            of_key: HashMap::new(),
            hasher: RandomState::new(),
        };
        let mut known = Vec::new();
        for_each_block(&open_log(path)?, |block| loaded.add(block, &mut known))?;
        Ok(loaded)
    }

    fn add(&mut self, block: &MeasuredBlock<'_>, known: &mut Vec<MeasuredDictionary>) {
        let dictionary = block.dictionary.as_ref().map(|dictionary| {
            let place = known.iter().position(|known| known.bytes() == dictionary.bytes());
            place.unwrap_or_else(|| {
                self.dictionaries.push(DDict::create(dictionary.bytes()));
                known.push(dictionary.clone());
                known.len() - 1
            })
        });
        let start = self.frames.len();
        self.frames.extend_from_slice(block.frame.unwrap_or(block.raw));
        self.raw_bytes_max = self.raw_bytes_max.max(block.raw.len());
        let number = u32::try_from(self.blocks.len()).unwrap_or(u32::MAX);
        for record in block.entries().filter_map(|entry| Record::decode(entry).ok()) {
            self.of_key.insert(self.hasher.hash_one(record.key), number);
        }
        self.blocks.push(Block {
            file_offset: block.payload_offset,
            file_bytes: block.payload_bytes,
            start,
            bytes: self.frames.len() - start,
            is_frame: block.frame.is_some(),
            dictionary,
        });
    }

    /// The block that holds `key`.
    pub fn of_key(&self, key: &[u8]) -> Option<Block> {
        let number = *self.of_key.get(&self.hasher.hash_one(key))?;
        self.blocks.get(usize::try_from(number).ok()?).copied()
    }

    /// How many blocks start behind `block` in its cell. A get comes upon the last one first, and
    /// decompresses all those before it finds its key.
    pub fn later_in_cell(&self, block: &Block) -> u64 {
        // Slots start a whole number of cells behind the file header, which is one, too.
        let cell = |block: &Block| {
            (block.file_offset - u64::from(BLOCK_HEADER_BYTES)) / u64::from(CELL_BYTES)
        };
        let behind = self.blocks.partition_point(|other| other.file_offset <= block.file_offset);
        let sharing = self.blocks[behind..].iter().take_while(|other| cell(other) == cell(block));
        sharing.count() as u64
    }

    /// How many dictionaries differ.
    #[must_use]
    pub fn dictionary_count(&self) -> usize {
        self.dictionaries.len()
    }
}

/// Decompresses blocks, with everything prepared that can be.
pub struct BareReader<'a> {
    blocks: &'a Blocks,
    context: DCtx<'static>,
    raw: Vec<u8>,
    copy: Vec<u8>,
}

impl<'a> BareReader<'a> {
    /// A reader of `blocks`.
    #[must_use]
    pub fn new(blocks: &'a Blocks) -> Self {
        let raw = Vec::with_capacity(blocks.raw_bytes_max);
        Self { blocks, context: DCtx::create(), raw, copy: Vec::new() }
    }

    /// Decompresses the block from memory, and returns how long it is.
    pub fn read_memory(&mut self, block: &Block) -> usize {
        let frame = &self.blocks.frames[block.start..block.start + block.bytes];
        read(&mut self.context, &self.blocks.dictionaries, block, frame, &mut self.raw)
    }

    /// Copies the block out of the mapped file, and decompresses the copy.
    pub fn read_map(&mut self, map: &dyn FileMap, block: &Block) -> Result<usize, Failure> {
        let magic = if block.is_frame { &FRAME_MAGIC[..] } else { &[] };
        self.copy.resize(magic.len() + block.file_bytes as usize, 0);
        let (front, back) = self.copy.split_at_mut(magic.len());
        front.copy_from_slice(magic);
        map.copy_out(block.file_offset, back)?;
        let dictionaries = &self.blocks.dictionaries;
        Ok(read(&mut self.context, dictionaries, block, &self.copy, &mut self.raw))
    }
}

fn read(
    context: &mut DCtx<'static>,
    dictionaries: &[DDict<'static>],
    block: &Block,
    stored: &[u8],
    raw: &mut Vec<u8>,
) -> usize {
    raw.clear();
    if !block.is_frame {
        raw.extend_from_slice(stored);
        return raw.len();
    }
    let done = match block.dictionary {
        Some(number) => context.decompress_using_ddict(raw, stored, &dictionaries[number]),
        None => context.decompress(raw, stored),
    };
    done.unwrap_or(0)
}

/// A map of the file at `path`.
pub fn map(path: &Path) -> Result<Arc<dyn FileMap>, Failure> {
    Ok(FileStorage.open(path, OpenMode::ReadOnly)?.map()?)
}
