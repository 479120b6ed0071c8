//! A segment as a reader holds it: where its blocks are, and what they need to be read.

mod dictionaries;
mod walked;

use std::io;
use std::sync::atomic::AtomicU8;
use std::sync::{Arc, OnceLock};

use zkv_io::{FileMap, StorageFile, is_lost};

use crate::block::{BlockKind, Seed};
use crate::checkpoint::CheckpointDictionary;
use crate::dictionary::DictionaryDigest;
use crate::error::{LogError, Result};
use crate::header::Identity;
use crate::layout::{
    BLOCK_HEADER_BYTES, CELL_BYTES, DICTIONARIES_MAX, SEAL_FIELD_BYTES, seal_block_bytes,
    seal_offset,
};
use crate::seal::Seal;
use crate::sync::ArcSwap;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::walk::{Block, Seeds};
use dictionaries::SegmentDictionary;
use walked::Walked;

/// Which segment: one that was here before, in the same slot or with the same sequence number in
/// a copy of the file that went another way, differs in its nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentId {
    pub sequence: u64,
    pub slot: u32,
    pub nonce: u64,
}

/// A segment that belongs to the log.
#[derive(Debug)]
pub(crate) struct Segment {
    pub place: Place,
    /// The end of what may be read, in bytes from the segment's start.
    end: AtomicU32,
    cells: CellTable,
    /// Apart, since a large log has many segments, and each segment few dictionaries.
    dictionaries: [OnceLock<Box<SegmentDictionary>>; DICTIONARIES_MAX],
    /// What the seal said when it was first needed.
    contents: OnceLock<Contents>,
    /// Only where the seal is damaged, or the disk could not read it, and what it says was needed: a walk takes
    /// long. Replaced by that of a later walk, to which the disk gives more.
    walked: OnceLock<Box<ArcSwap<Walked>>>,
    /// Cloned by every version of this segment; whoever holds one keeps the slot from being used
    /// again.
    pub hold: Arc<()>,
}

#[derive(Debug)]
enum CellTable {
    /// The segment is being written: the table grows with it.
    Growing(Box<[AtomicU8]>),
    /// The table stands in the seal, and is read through the map.
    Sealed,
}

impl CellTable {
    fn growing(slot_bytes: u32, known: &[u8]) -> Self {
        let count = (slot_bytes / CELL_BYTES) as usize;
        let cells = known.iter().copied().chain(std::iter::repeat(0));
        Self::Growing(cells.take(count).map(AtomicU8::new).collect())
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Contents {
    pub dictionary_offsets: [u32; DICTIONARIES_MAX],
    /// Only where a seal says it.
    block_count: Option<u32>,
}

/// Where a segment lies, and what its blocks' checksums build on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub id: SegmentId,
    pub start: u64,
    pub slot_bytes: u32,
    pub store_id: [u8; 16],
    pub seed: Seed,
}

impl Place {
    pub(crate) fn new(identity: &Identity, id: SegmentId) -> Self {
        let Identity { store_id, slot_bytes, .. } = *identity;
        let (start, seed) = (identity.slot_start(id.slot), Seed::of_segment(&store_id, id));
        Self { id, start, slot_bytes, store_id, seed }
    }
}

impl Segment {
    /// A segment that is being written. `cells` is its table so far, of as many cells as are known.
    pub(crate) fn growing(place: Place, end: u32, cells: &[u8]) -> Self {
        Self::new(place, end, CellTable::growing(place.slot_bytes, cells), Arc::new(()))
    }

    /// A full segment, of which the seal knows the rest.
    pub(crate) fn sealed(place: Place, data_end: u32) -> Self {
        Self::new(place, data_end, CellTable::Sealed, Arc::new(()))
    }

    /// The same segment, once its seal is written.
    pub(crate) fn to_sealed(&self, data_end: u32) -> Self {
        Self::new(self.place, data_end, CellTable::Sealed, Arc::clone(&self.hold))
    }

    /// The same segment in writing, as it was at `end`, with dictionaries at these offsets, and no block
    /// that starts behind `last_cell`: that one was an aborted commit's.
    pub(crate) fn renewed(
        &self,
        end: u32,
        last_cell: u32,
        dictionary_offsets: [u32; DICTIONARIES_MAX],
    ) -> Self {
        let mut cells = self.growing_cells(end);
        cells.truncate(last_cell as usize + 1);
        let cells = CellTable::growing(self.place.slot_bytes, &cells);
        let mut renewed = Self::new(self.place, end, cells, Arc::clone(&self.hold));
        for (number, offset) in dictionary_offsets.iter().enumerate() {
            if *offset != 0 {
                renewed.dictionaries[number] = self.dictionaries[number].clone();
            }
        }
        renewed.set_contents(dictionary_offsets);
        renewed
    }

    fn new(place: Place, end: u32, cells: CellTable, hold: Arc<()>) -> Self {
        Self {
            place,
            end: AtomicU32::new(end),
            cells,
            dictionaries: [const { OnceLock::new() }; DICTIONARIES_MAX],
            contents: OnceLock::new(),
            walked: OnceLock::new(),
            hold,
        }
    }

    pub(crate) fn id(&self) -> SegmentId {
        self.place.id
    }

    pub(crate) fn is_sealed(&self) -> bool {
        matches!(self.cells, CellTable::Sealed)
    }

    /// The end of what may be read, in bytes from the segment's start.
    #[inline]
    pub(crate) fn end(&self) -> u32 {
        self.end.load(Ordering::Acquire)
    }

    /// Lets readers see all blocks up to `end`.
    pub(crate) fn publish(&self, end: u32) {
        self.end.store(end, Ordering::Release);
    }

    /// Notes that the first block of its cell starts at `offset`. Only the writer calls it, for
    /// cells that no reader looks at before the next [`Segment::publish`].
    pub(crate) fn note_block(&self, offset: u32) {
        if let CellTable::Growing(table) = &self.cells {
            let within = offset.to_le_bytes()[0];
            table[(offset / CELL_BYTES) as usize].store(within, Ordering::Relaxed);
        }
    }

    /// The cell table up to `end`, of a segment that is being written.
    pub(crate) fn growing_cells(&self, end: u32) -> Vec<u8> {
        match &self.cells {
            CellTable::Growing(table) => {
                let count = end.div_ceil(CELL_BYTES) as usize;
                table.iter().take(count).map(|cell| cell.load(Ordering::Relaxed)).collect()
            }
            CellTable::Sealed => Vec::new(),
        }
    }

    /// Where the first block starts that starts in `cell`, by a table that nobody has checked; where the seal
    /// was found damaged, by what a walk has found.
    #[inline]
    pub(crate) fn first_block(&self, map: &dyn FileMap, cell: u32) -> Result<u32> {
        let within = match &self.cells {
            CellTable::Growing(table) => {
                table.get(cell as usize).map_or(0, |entry| entry.load(Ordering::Relaxed))
            }
            CellTable::Sealed => match self.walked.get() {
                Some(walked) => return Ok(walked.load().first_block(cell)),
                None => {
                    let mut byte = [0];
                    map.copy_out(self.table_start() + u64::from(cell), &mut byte)
                        .map_err(self.unread(seal_offset(self.place.slot_bytes)))?;
                    byte[0]
                }
            },
        };
        Ok(cell * CELL_BYTES + u32::from(within))
    }

    /// Asks for what [`Segment::first_block`] reads.
    pub(crate) fn prefetch_first_block(&self, map: &dyn FileMap, cell: u32) {
        if self.is_sealed() {
            map.prefetch(self.table_start() + u64::from(cell), 1);
        }
    }

    fn table_start(&self) -> u64 {
        let fields = u64::from(BLOCK_HEADER_BYTES) + SEAL_FIELD_BYTES as u64;
        self.place.start + u64::from(seal_offset(self.place.slot_bytes)) + fields
    }

    /// Where the first block starts that starts in `cell`, by a table that was held against its
    /// checksum now, or by a walk; and whether others that start there may be lost.
    #[cold]
    pub(crate) fn first_block_checked(
        &self,
        file: &dyn StorageFile,
        cell: u32,
    ) -> Result<(u32, bool)> {
        if self.walked.get().is_none()
            && let Some(seal) = self.read_seal(file)?
        {
            let within = seal.cells.get(cell as usize).copied().map_or(0, u32::from);
            return Ok((cell * CELL_BYTES + within, false));
        }
        let walked = self.walked(file, |found| found.is_lossy(cell))?;
        Ok((walked.first_block(cell), walked.is_lossy(cell)))
    }

    /// Walks the segment, whose seal is damaged, unless that was done: all look for its blocks by what was
    /// found then.
    #[cold]
    pub(crate) fn walk(&self, file: &dyn StorageFile) -> Result<()> {
        self.walked(file, |_| false).map(|_| ())
    }

    /// What a walk has found; where that `lacks` something, and the disk gives what it did not give then, what
    /// another one finds.
    fn walked(
        &self,
        file: &dyn StorageFile,
        lacks: impl Fn(&Walked) -> bool,
    ) -> Result<Arc<Walked>> {
        let walk = || Walked::of(file, self.place, self.end());
        let kept = match self.walked.get() {
            Some(kept) => kept,
            None => {
                let found = walk()?;
                self.walked.get_or_init(|| Box::new(ArcSwap::from_pointee(found)))
            }
        };
        let found = kept.load_full();
        if !(lacks(&found) && found.can_find_more(file, self.place)?) {
            return Ok(found);
        }
        let found = Arc::new(walk()?);
        kept.store(Arc::clone(&found));
        Ok(found)
    }

    /// The segment's seal, where it is whole and the disk can read it.
    ///
    /// # Errors
    /// [`LogError::Io`] where it cannot be read this time, which says nothing of it.
    pub(crate) fn read_seal(&self, file: &dyn StorageFile) -> Result<Option<Seal>> {
        let mut block = vec![0; seal_block_bytes(self.place.slot_bytes) as usize];
        let offset = self.place.start + u64::from(seal_offset(self.place.slot_bytes));
        match file.read_at(offset, &mut block) {
            Ok(()) => Ok(Seal::decode_block(&block, &self.place)),
            Err(error) if is_lost(&error) => Ok(None),
            Err(error) => Err(LogError::io("read")(error)),
        }
    }

    /// How many blocks its seal says that it has, where that is known by now.
    pub(crate) fn block_count(&self) -> Option<u32> {
        self.contents.get()?.block_count
    }

    /// Reads the seal, unless somebody has; its damage is for those to find who need what it says.
    pub(crate) fn learn_block_count(&self, file: &dyn StorageFile) {
        if self.contents.get().is_none()
            && let Ok(Some(told)) = self.told_contents(file)
        {
            let _ = self.contents.set(told);
        }
    }

    /// What the seal says, where there is one that is whole.
    fn told_contents(&self, file: &dyn StorageFile) -> Result<Option<Contents>> {
        let seal = if self.is_sealed() { self.read_seal(file)? } else { None };
        Ok(seal.map(|seal| Contents {
            dictionary_offsets: seal.dictionary_offsets,
            block_count: Some(seal.block_count),
        }))
    }

    /// Where the dictionaries stand, 0 where there is none of that number; and whether those that `are_missing`
    /// may stand where the disk cannot read.
    fn dictionary_offsets(
        &self,
        file: &dyn StorageFile,
        are_missing: impl Fn(&[u32; DICTIONARIES_MAX]) -> bool,
    ) -> Result<([u32; DICTIONARIES_MAX], bool)> {
        if let Some(contents) = self.contents.get() {
            return Ok((contents.dictionary_offsets, false));
        }
        if self.walked.get().is_none()
            && let Some(told) = self.told_contents(file)?
        {
            return Ok((self.contents.get_or_init(|| told).dictionary_offsets, false));
        }
        let walked = self.walked(file, |found| are_missing(&found.dictionary_offsets))?;
        Ok((walked.dictionary_offsets, walked.may_lack_more()))
    }

    /// What is known without a look at the file: where the dictionaries of a segment in writing are.
    pub(crate) fn set_contents(&self, dictionary_offsets: [u32; DICTIONARIES_MAX]) {
        // A second version says the same of what the first one knew.
        let _ = self.contents.set(Contents { dictionary_offsets, block_count: None });
    }

    /// A read of what stands at `offset` has failed: what the segment has is damaged where somebody has cut it off.
    pub(crate) fn unread(&self, offset: u32) -> impl FnOnce(io::Error) -> LogError {
        move |cause| match cause.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged(offset, "the file ends before it"),
            _ => LogError::io("read")(cause),
        }
    }

    pub(crate) fn damaged(&self, offset: u32, what: &'static str) -> LogError {
        LogError::Corrupt { offset: self.place.start + u64::from(offset), what }
    }
}

/// Gathers what a seal says of a segment's blocks.
#[derive(Clone, Debug)]
pub(crate) struct ContentsBuilder {
    pub dictionary_offsets: [u32; DICTIONARIES_MAX],
    /// The dictionaries' names, of as many as were met.
    pub dictionary_digests: [Option<DictionaryDigest>; DICTIONARIES_MAX],
    pub cells: Vec<u8>,
    last_cell: u32,
}

impl ContentsBuilder {
    pub(crate) fn new(slot_bytes: u32) -> Self {
        Self {
            dictionary_offsets: [0; DICTIONARIES_MAX],
            dictionary_digests: [None; DICTIONARIES_MAX],
            cells: vec![0; (slot_bytes / CELL_BYTES) as usize],
            last_cell: 0,
        }
    }

    /// Goes on where a checkpoint has left off.
    pub(crate) fn resume(
        slot_bytes: u32,
        dictionaries: &[CheckpointDictionary],
        known_cells: &[u8],
        last_cell: u32,
    ) -> Self {
        let mut resumed = Self::new(slot_bytes);
        resumed.last_cell = last_cell;
        let cells = resumed.cells.iter_mut().zip(known_cells);
        cells.for_each(|(cell, known)| *cell = *known);
        for (number, dictionary) in dictionaries.iter().take(DICTIONARIES_MAX).enumerate() {
            resumed.dictionary_offsets[number] = dictionary.offset;
            resumed.dictionary_digests[number] = Some(dictionary.digest);
        }
        resumed
    }

    /// The seeds of all blocks whose dictionaries were met.
    pub(crate) fn seeds(&self, base: Seed) -> Seeds {
        let by_dictionary =
            self.dictionary_digests.map(|digest| digest.map(|name| base.with_dictionary(&name)));
        Seeds { base, by_dictionary }
    }

    /// The cell of the last block noted.
    pub(crate) fn last_cell(&self) -> u32 {
        self.last_cell
    }

    pub(crate) fn note(&mut self, block: &Block<'_>) {
        let cell = block.offset / CELL_BYTES;
        if cell != self.last_cell {
            self.last_cell = cell;
            self.cells[cell as usize] = block.offset.to_le_bytes()[0];
        }
        if block.tag.kind == BlockKind::Dictionary {
            let number = usize::from(block.tag.number).wrapping_sub(1);
            if let Some(place) = self.dictionary_offsets.get_mut(number)
                && let Some(digest) = block.payload.first_chunk()
            {
                *place = block.offset;
                self.dictionary_digests[number] = Some(*digest);
            }
        }
    }
}
