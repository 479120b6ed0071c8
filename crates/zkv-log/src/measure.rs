//! What `cargo xtask bench` holds the log against: its blocks as they stand in the file, the
//! compressor with the log's own parameters, and the dictionary's training alone.
//!
//! It is no part of the interface: it follows the crate's inside, and nothing else may use it.

use std::sync::Arc;

use crate::block::{BlockHeader, BlockKind};
use crate::codec::{Decoder, Encoder};
use crate::dictionary::{Dictionary, Interner};
use crate::entries::Entries;
use crate::error::Result;
use crate::layout::{BLOCK_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use crate::log::LogView;
use crate::options::LogOptions;
use crate::sampler::{Sampler, Scale};
use crate::segment::Segment;

/// A block of entries.
#[derive(Debug)]
pub struct MeasuredBlock<'a> {
    /// Where its payload starts, in bytes from the file's start.
    pub payload_offset: u64,
    /// Its payload's length in the file.
    pub payload_bytes: u32,
    /// Its zstd frame, with the magic number; `None` where it is stored raw.
    pub frame: Option<&'a [u8]>,
    /// What it holds, decompressed.
    pub raw: &'a [u8],
    /// What its frame needs.
    pub dictionary: Option<MeasuredDictionary>,
    /// How many commits end before it.
    pub commits_before: u64,
}

impl<'a> MeasuredBlock<'a> {
    /// Its entries.
    ///
    /// # Panics
    /// Where they do not fit the block; it was checked before.
    pub fn entries(&self) -> impl Iterator<Item = &'a [u8]> {
        let entries = Entries::parse(self.raw).expect("a block was checked");
        entries.map(|entry| entry.expect("a block was checked"))
    }
}

/// A dictionary of a log.
#[derive(Clone, Debug)]
pub struct MeasuredDictionary(Arc<Dictionary>);

impl MeasuredDictionary {
    /// Its bytes, as zstd takes them.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// Shows the blocks of `view` to `each`, in the order of the log.
///
/// # Errors
/// [`LogError::Corrupt`](crate::LogError::Corrupt) where a block is damaged, and
/// [`LogError::Io`](crate::LogError::Io).
pub fn for_each_block(view: &LogView, mut each: impl FnMut(&MeasuredBlock<'_>)) -> Result<()> {
    let mut decoder = Decoder::new();
    let mut commits_before = 0;
    for info in view.segments() {
        let segment = view.segments.by_slot.get(info.slot as usize).and_then(Option::as_ref);
        let Some(segment) = segment else { continue };
        let mut offset = SEGMENT_HEADER_BYTES;
        while offset < info.data_bytes {
            let header = header_at(view, segment, offset)?;
            // Holds the header against its checksum, with the rest of the block.
            let has_entries = view.load_block(segment, offset, &mut decoder)?;
            if has_entries {
                each(&measured(view, segment, offset, header, &decoder, commits_before)?);
            }
            commits_before += u64::from(header.tag.kind == BlockKind::Commit);
            offset += header.block_bytes();
        }
    }
    Ok(())
}

fn header_at(view: &LogView, segment: &Segment, offset: u32) -> Result<BlockHeader> {
    let mut header = [0; BLOCK_HEADER_BYTES as usize];
    let at = segment.place.start + u64::from(offset);
    view.shared.map.copy_out(at, &mut header).map_err(segment.unread(offset))?;
    BlockHeader::decode(header).ok_or_else(|| segment.damaged(offset, "a block"))
}

fn measured<'a>(
    view: &LogView,
    segment: &Segment,
    offset: u32,
    header: BlockHeader,
    decoder: &'a Decoder,
    commits_before: u64,
) -> Result<MeasuredBlock<'a>> {
    let shared = &view.shared;
    let dictionary = match header.tag.number {
        0 => None,
        number => {
            let found = segment.dictionary(&*shared.file, &shared.interner, number)?;
            Some(MeasuredDictionary(found))
        }
    };
    Ok(MeasuredBlock {
        payload_offset: segment.place.start + u64::from(offset + BLOCK_HEADER_BYTES),
        payload_bytes: header.payload_bytes,
        // The decoder has put the magic number in the place of the header's second half.
        frame: (header.tag.kind == BlockKind::EntriesZstd).then(|| &decoder.block[4..]),
        raw: &decoder.payload,
        dictionary,
        commits_before,
    })
}

/// Compresses as a log of this level does, one block after another.
pub struct Compressor(Encoder);

impl Compressor {
    /// A compressor for `level`.
    #[must_use]
    pub fn new(level: i32) -> Self {
        Self(Encoder::new(level))
    }

    /// Compresses `raw`, and returns how many bytes a block of it would take.
    pub fn compress(&mut self, raw: &[u8], dictionary: Option<&MeasuredDictionary>) -> usize {
        let dictionary = dictionary.map(|dictionary| &*dictionary.0);
        self.0.compress(raw, dictionary).map_or(raw.len(), <[u8]>::len)
    }
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Compressor").finish_non_exhaustive()
    }
}

/// Trains dictionaries as a log does, and does nothing else.
pub struct Training {
    sampler: Sampler,
    interner: Interner,
}

impl Training {
    /// The training of a new log with these options.
    #[must_use]
    pub fn new(options: &LogOptions) -> Self {
        let sampler = Sampler::new(None, usize::MAX, Scale::BESIDE_WRITES, options);
        Self { sampler, interner: Interner::default() }
    }

    /// Takes samples of what one commit holds.
    pub fn observe(&mut self, entries: &[&[u8]]) {
        self.sampler.observe(entries);
    }

    /// Trains, where it is time, and decides.
    pub fn attempt(&mut self) {
        self.sampler.attempt(&self.interner);
    }
}

impl std::fmt::Debug for Training {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Training").finish_non_exhaustive()
    }
}
