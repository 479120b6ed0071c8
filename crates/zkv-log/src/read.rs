//! Reading entries by location or address: one block, copied out of the map, checked, decompressed.

use std::sync::Arc;

use crate::block::{BlockHeader, BlockKind, Tag, is_whole};
use crate::codec::Decoder;
use crate::entries::Entries;
use crate::error::{LogError, Result};
use crate::layout::{BLOCK_HEADER_BYTES, CELL_BYTES};
use crate::log::LogView;
use crate::position::{EntryAddress, Location};
use crate::segment::Segment;

/// A read copies this much at once: most blocks, whose payload is about 300 bytes long, and what
/// else stands in their cell. A second copy would wait for the first.
const AHEAD_BYTES: u32 = 768;
/// A cell and most of a block that starts in it.
const PREFETCH_BYTES: u32 = 512;

impl LogView {
    /// Looks for an entry among the blocks that start at `location`, the newest block first.
    /// `matches` is shown one entry after another, and returns what it wants of the one it knows.
    ///
    /// Returns `None` where no entry matches, or the slot holds no segment of this view.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] where a block at the location is damaged, and [`LogError::Io`].
    #[inline]
    pub fn find<T>(
        &self,
        location: Location,
        mut matches: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some((segment, cell)) = self.cell_of(location) else { return Ok(None) };
        let cell_start = segment.place.start + u64::from(cell * CELL_BYTES);
        // While the cell table's byte is on its way.
        self.shared.map.prefetch(cell_start, PREFETCH_BYTES);
        let first = segment.first_block(&*self.shared.map, cell);
        let mut decoder = self.shared.decoders.take();
        let Ok(first) = first else {
            return self.find_checked(segment, cell, None, &mut decoder, &mut matches);
        };
        let found = self.find_in_cell(segment, first, &mut decoder, &mut matches);
        if matches!(found, Ok(Some(_))) || !segment.is_sealed() {
            return found;
        }
        self.find_checked(segment, cell, Some((first, found)), &mut decoder, &mut matches)
    }

    /// Asks for the memory that a look at `location` reads first: where several follow each other, the
    /// processor then waits for all of them at once. It changes nothing.
    pub fn prefetch(&self, location: Location) {
        if let Some((segment, cell)) = self.cell_of(location) {
            let map = &*self.shared.map;
            segment.prefetch_first_block(map, cell);
            map.prefetch(segment.place.start + u64::from(cell * CELL_BYTES), PREFETCH_BYTES);
        }
    }

    /// Shows all entries of the blocks that start at `location` to `visit`, the newest block first.
    ///
    /// # Errors
    /// As [`LogView::find`].
    pub fn visit(&self, location: Location, mut visit: impl FnMut(&[u8])) -> Result<()> {
        let Some((segment, cell)) = self.cell_of(location) else { return Ok(()) };
        let first = match segment.first_block(&*self.shared.map, cell) {
            Ok(first) => first,
            Err(_) => segment.first_block_checked(&*self.shared.file, cell)?.0,
        };
        let mut decoder = self.shared.decoders.take();
        let mut show = |entry: &[u8]| -> Option<()> {
            visit(entry);
            None
        };
        self.find_in_cell(segment, first, &mut decoder, &mut show).map(|_| ())
    }

    /// The byte of the cell table that led to what was `tried` may be damaged, or could not be read: a
    /// location without its entry is so rare that the table can be held against its checksum each time.
    #[cold]
    fn find_checked<T>(
        &self,
        segment: &Segment,
        cell: u32,
        tried: Option<(u32, Result<Option<T>>)>,
        decoder: &mut Decoder,
        matches: &mut impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<Option<T>> {
        let (checked, is_lossy) = segment.first_block_checked(&*self.shared.file, cell)?;
        let found = match tried {
            Some((first, found)) if first == checked => found,
            _ => self.find_in_cell(segment, checked, decoder, matches),
        };
        match found {
            Ok(None) if is_lossy => Err(segment.damaged(cell * CELL_BYTES, "a block")),
            found => found,
        }
    }

    #[inline]
    fn find_in_cell<T>(
        &self,
        segment: &Segment,
        first: u32,
        decoder: &mut Decoder,
        matches: &mut impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<Option<T>> {
        let end = ((first / CELL_BYTES + 1) * CELL_BYTES).min(self.end_of(segment));
        self.copy_ahead(segment, first, decoder)?;
        let mut starts = BlockStarts::default();
        let mut offset = first;
        while offset < end && starts.push(offset) {
            let copied = decoder.block.get((offset - first) as usize..);
            let header = copied.and_then(|bytes| BlockHeader::decode(*bytes.first_chunk()?));
            offset = offset.saturating_add(header.map_or(CELL_BYTES, |found| found.block_bytes()));
        }
        let mut copied = Some(first);
        // The newest last: a key that was written twice into one cell stands in two blocks.
        for start in starts.iter().rev() {
            if copied.take() != Some(start) {
                self.copy_ahead(segment, start, decoder)?;
            }
            if !self.load_copied(segment, start, decoder)? {
                continue;
            }
            let damaged = |_| segment.damaged(start, "a block's entries");
            for entry in Entries::parse(&decoder.payload).map_err(damaged)? {
                if let Some(found) = matches(entry.map_err(damaged)?) {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// Copies the block at `offset` out of the map, checks the copy, and decompresses it into
    /// `decoder.payload`; `false` where it is whole and holds no entries.
    pub(crate) fn load_block(
        &self,
        segment: &Segment,
        offset: u32,
        decoder: &mut Decoder,
    ) -> Result<bool> {
        self.copy_ahead(segment, offset, decoder)?;
        self.load_copied(segment, offset, decoder)
    }

    /// Copies what stands at `offset` into `decoder.block`: most blocks whole, in one copy.
    #[inline]
    fn copy_ahead(&self, segment: &Segment, offset: u32, decoder: &mut Decoder) -> Result<()> {
        match self.copy(segment, offset, AHEAD_BYTES, decoder) {
            Ok(()) => Ok(()),
            Err(_) => self.copy_cell(segment, offset, decoder),
        }
    }

    /// Copies what stands at `offset` up to its cell's end: where more cannot be read, the block may end
    /// before that, and the headers of those behind it are there.
    #[cold]
    fn copy_cell(&self, segment: &Segment, offset: u32, decoder: &mut Decoder) -> Result<()> {
        let bytes = CELL_BYTES - offset % CELL_BYTES;
        self.copy(segment, offset, bytes.max(BLOCK_HEADER_BYTES), decoder)
    }

    #[inline]
    fn copy(
        &self,
        segment: &Segment,
        offset: u32,
        bytes_max: u32,
        decoder: &mut Decoder,
    ) -> Result<()> {
        let bytes = segment.end().saturating_sub(offset).min(bytes_max);
        decoder.block.resize(bytes as usize, 0);
        let at = segment.place.start + u64::from(offset);
        self.shared.map.copy_out(at, &mut decoder.block).map_err(segment.unread(offset))
    }

    /// As [`LogView::load_block`], where `decoder.block` holds the start of the block already, or
    /// all of it and more.
    #[inline]
    fn load_copied(&self, segment: &Segment, offset: u32, decoder: &mut Decoder) -> Result<bool> {
        let damaged = || segment.damaged(offset, "a block");
        let header = decoder.block.first_chunk().and_then(|bytes| BlockHeader::decode(*bytes));
        let header = header.ok_or_else(damaged)?;
        if header.block_bytes() > segment.end().saturating_sub(offset) {
            return Err(damaged());
        }
        let copied = decoder.block.len();
        decoder.block.resize(header.block_bytes() as usize, 0);
        if let Some(rest) = decoder.block.get_mut(copied..) {
            let at = segment.place.start + u64::from(offset) + copied as u64;
            self.shared.map.copy_out(at, rest).map_err(segment.unread(offset))?;
        }
        // Apart from the decoder for as long as that works on it.
        let mut block = std::mem::take(&mut decoder.block);
        let opened = self.open_block(segment, offset, header.tag, &mut block, decoder);
        decoder.block = block;
        opened
    }

    /// Checks `block`, a copy of the one at `offset` with this tag, and decompresses it into
    /// `decoder.payload`; `false` where it is whole and holds no entries. Its header is of no use
    /// behind that.
    #[inline]
    pub(crate) fn open_block(
        &self,
        segment: &Segment,
        offset: u32,
        tag: Tag,
        block: &mut [u8],
        decoder: &mut Decoder,
    ) -> Result<bool> {
        let damaged = || segment.damaged(offset, "a block");
        let with_entries = matches!(tag.kind, BlockKind::EntriesRaw | BlockKind::EntriesZstd);
        let shared = &self.shared;
        let named = if with_entries && tag.number > 0 {
            Some(segment.dictionary_name(&*shared.file, &shared.interner, tag.number)?)
        } else {
            None
        };
        let seed = named.map_or(segment.place.seed, |named| named.seed);
        if !is_whole(block, seed, offset) {
            return Err(damaged());
        }
        match tag.kind {
            BlockKind::EntriesZstd => {
                if let Some(named) = named
                    && !decoder.has_dictionary(&named.digest)
                {
                    let found = segment.dictionary(&*shared.file, &shared.interner, tag.number)?;
                    decoder.dictionary = Some(found);
                }
                let max = segment.place.slot_bytes as usize;
                decoder.decompress_block(block, named.is_some(), max).ok_or_else(damaged)?;
            }
            BlockKind::EntriesRaw => {
                decoder.payload.clear();
                decoder.payload.extend_from_slice(&block[BLOCK_HEADER_BYTES as usize..]);
            }
            _ => {}
        }
        Ok(with_entries)
    }

    /// Whether the disk can read the start of the file: where it cannot, an error of it says nothing of the
    /// place that was to be read.
    #[must_use]
    pub fn can_read_start(&self) -> bool {
        self.shared.file.read_at(0, &mut [0]).is_ok()
    }

    /// The entry at `address`.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] where the block is damaged or has no such entry, and where this view does not
    /// have the entry's segment, as it was freed; [`LogError::Io`].
    pub fn read(&self, address: EntryAddress) -> Result<Vec<u8>> {
        let offset = address.offset;
        let at = self.shared.identity.slot_start(address.slot) + u64::from(offset);
        let missing = || LogError::Corrupt { offset: at, what: "no such entry" };
        let found = self.segments.get(address.slot);
        let is_its_own = |segment: &&Arc<Segment>| segment.id().sequence == address.sequence;
        let segment = found.filter(is_its_own).ok_or_else(missing)?;
        let mut decoder = self.shared.decoders.take();
        if !self.load_block(segment, offset, &mut decoder)? {
            return Err(missing());
        }
        let mut entries = Entries::parse(&decoder.payload).map_err(|_| missing())?;
        let entry = entries.nth(address.ordinal as usize).ok_or_else(missing)?;
        Ok(entry.map_err(|_| missing())?.to_vec())
    }
}

/// The starts of the blocks of one cell: at most one for every eight bytes.
#[derive(Default)]
struct BlockStarts {
    offsets: [u32; (CELL_BYTES / BLOCK_HEADER_BYTES) as usize],
    count: usize,
}

impl BlockStarts {
    #[inline]
    fn push(&mut self, offset: u32) -> bool {
        match self.offsets.get_mut(self.count) {
            Some(place) => {
                *place = offset;
                self.count += 1;
                true
            }
            None => false,
        }
    }

    #[inline]
    fn iter(&self) -> impl DoubleEndedIterator<Item = u32> {
        self.offsets[..self.count].iter().copied()
    }
}
