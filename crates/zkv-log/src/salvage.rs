//! Reading what is left of a damaged log, whichever parts of it are lost.
//!
//! Nothing here is guessed: each block is held against its checksum, which binds it to its store,
//! segment and place. Behind a bad block the next whole one is searched byte by byte. Files are
//! read, not mapped, so that a sector that cannot be read is lost and nothing else is. Where a read fails for
//! another reason, as for want of memory, nothing is known of what is there, and salvage gives up.

mod blocks;
mod checksums;
mod dictionaries;
mod identity;
mod nameless;
mod order;
mod parts;
mod past;
mod survey;

use std::path::Path;
use std::sync::Arc;

use zkv_io::{LockKind, OpenMode, Reads, Storage, StorageFile};

use crate::block::{BlockKind, is_whole};
use crate::checkpoint::LogCheckpoint;
use crate::codec::Decoder;
use crate::dictionary::DictionaryDigest;
use crate::entries::Entries;
use crate::error::{LogError, Result};
use crate::header::Identity;
use crate::image::Image;
use crate::layout::{BLOCK_HEADER_BYTES, SLOT_BYTES_MAX, SLOT_BYTES_MIN, seal_offset};
use crate::position::Position;
use crate::segment::Place;

use blocks::{BlockSearch, FoundBlock};
use dictionaries::Dictionaries;
use identity::Origin;
use order::{Member, Missing, Order, Turn};
use parts::{Item, classify};
use survey::Survey;

/// What is left of a log, read from its newest block to its oldest.
///
/// **What counts.** A block counts if a whole commit block stands behind it, in the order of the
/// log, or if something says that the log was durable up to it: a commit, a seal, a header, or an
/// index. What stands behind that is the tail that a crash leaves of a commit that was never whole:
/// nobody was told that it is there. A commit that has lost a block is no longer whole, and the
/// blocks that it has left count all the same: whoever reads them is told of the loss.
///
/// **What belongs to the log.** The newest roll call all of whose commit is there says so up to
/// itself, or an index does; later segments have later numbers. Where neither is left, every
/// segment that is found belongs to it. What a retire entry names does not, in either case, nor
/// what stood in a slot before its newest segment.
pub struct Salvage {
    file: Arc<Reads>,
    file_bytes: u64,
    has_file_header: bool,
    slot_bytes: u32,
    order: Order,
    /// Turns that are still to come.
    turns_left: usize,
    current: Option<Current>,
    digests: Vec<DictionaryDigest>,
    dictionaries: Dictionaries,
    decoder: Decoder,
}

/// The segment that is being read.
struct Current {
    turn: usize,
    place: Place,
    image: Image,
    /// The oldest first; those that were read are gone.
    items: Vec<Item>,
}

/// What an index file knows of the log.
#[derive(Clone, Debug)]
pub struct SalvageIndex {
    /// The store that the file says it belongs to.
    pub store_id: [u8; 16],
    /// See [`LogWriter::checkpoint`](crate::LogWriter::checkpoint).
    pub checkpoint: Vec<u8>,
}

/// The next older thing that was found, or found to be lost.
#[derive(Debug)]
pub enum Salvaged<'a> {
    /// A segment; what follows is in it.
    Segment(SalvagedSegment),
    /// A commit ends here; the blocks that follow are its own, up to the next end.
    CommitEnd,
    /// A block of entries.
    Block(SalvagedBlock<'a>),
    /// Blocks that cannot be read.
    Lost(LostBlocks),
    /// Segments of which nothing was found, and how many they are.
    MissingSegments(u64),
    /// The segment has lost what says where its blocks end, or what its seal says comes next: blocks
    /// may be missing.
    Doubt,
    /// What a crash left of a commit that was never whole.
    Torn,
}

/// A segment that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SalvagedSegment {
    /// Whether its header is whole.
    pub has_header: bool,
    /// Whether its seal is; the newest segment needs none.
    pub has_seal: bool,
}

/// Blocks that were lost together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostBlocks {
    /// Where they stood, in bytes from the file's start.
    pub offset: u64,
    /// How many bytes they took.
    pub bytes: u64,
    /// How many they were, at the least.
    pub block_count: u64,
}

/// A block of entries.
#[derive(Debug)]
pub struct SalvagedBlock<'a> {
    /// Where the block is found again.
    pub address: BlockAddress,
    /// Whether it counts: see [`Salvage`].
    pub is_committed: bool,
    /// Its entries.
    pub entries: Vec<&'a [u8]>,
}

/// Where a block is found again.
#[derive(Clone, Copy, Debug)]
pub struct BlockAddress {
    /// The number of its segment's turn.
    turn: u32,
    offset: u32,
    bytes: u32,
    kind: BlockKind,
    /// The number of the dictionary that it needs, among those of the log.
    dictionary: Option<u32>,
}

impl Salvage {
    /// Opens and locks the data file at `path`, and finds out what it holds. `index` is what an
    /// index file says, if there is one that may belong to it. `progress` is told how many bytes
    /// more were gone through, and the file's length, which that makes up to.
    ///
    /// Nothing is written.
    ///
    /// # Errors
    /// [`LogError::Io`] where the file cannot be opened or locked, or a read fails though what it was after may be
    /// there, as for want of memory; [`LogError::Locked`];
    /// [`LogError::NothingToSalvage`] where nothing in it says whose it is;
    /// [`LogError::UnsupportedVersion`] and [`LogError::UnsupportedFeatures`].
    pub fn open(
        storage: &dyn Storage,
        path: &Path,
        index: Option<&SalvageIndex>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let file = storage.open(path, OpenMode::ReadOnly).map_err(LogError::io("open"))?;
        if !file.try_lock(LockKind::Shared).map_err(LogError::io("lock"))? {
            return Err(LogError::Locked);
        }
        let reads = Arc::new(Reads::of(&file));
        let opened = Self::of_file(Arc::clone(&reads), index, progress);
        reads.check().map_err(LogError::io("read"))?;
        opened
    }

    fn of_file(
        file: Arc<Reads>,
        index: Option<&SalvageIndex>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let file_bytes = file.len().map_err(LogError::io("measure"))?;
        let by_headers = identity::find(&*file, file_bytes)?;
        let named = by_headers.or_else(|| by_index(&*file, file_bytes, index?));
        let (origin, nameless) = match named {
            Some(origin) => (origin, None),
            None => {
                let found = nameless::first_segment(&*file, file_bytes);
                let (origin, place) = found.ok_or(LogError::NothingToSalvage)?;
                (origin, Some(place))
            }
        };
        let has_file_header = origin.first_nonce.is_some();
        let slot_bytes = origin.identity.slot_bytes;
        let checkpoint = index
            .filter(|index| index.store_id == origin.identity.store_id)
            .and_then(|index| LogCheckpoint::decode(&index.checkpoint, slot_bytes));
        let mut survey = Survey::new(&*file, file_bytes, &origin, checkpoint.as_ref());
        let mut progress = |bytes| progress(bytes, file_bytes);
        match nameless {
            Some(place) => survey.add_nameless(place),
            None => {
                survey.run(&mut progress);
                survey.add_unnamed(&mut progress);
            }
        }
        let places = std::mem::take(&mut survey.dictionaries);
        let order = order::settle(survey);
        Ok(Self {
            has_file_header,
            slot_bytes,
            turns_left: order.turns.len(),
            order,
            current: None,
            digests: places.keys().copied().collect(),
            dictionaries: Dictionaries::new(places),
            decoder: Decoder::new(),
            file,
            file_bytes,
        })
    }

    /// Whether the file header is whole.
    #[must_use]
    pub fn has_file_header(&self) -> bool {
        self.has_file_header
    }

    /// Whether what the index file knows is of this log's past.
    #[must_use]
    pub fn goes_by_index(&self) -> bool {
        self.order.goes_by_index
    }

    /// The data file's length in bytes.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The bytes of a slot.
    #[must_use]
    pub fn slot_bytes(&self) -> u32 {
        self.slot_bytes
    }

    /// What comes next, going from the newest to the oldest; `None` before the first block.
    ///
    /// # Errors
    /// [`LogError::Io`] where a read fails though what it was after may be there, and from then on: see
    /// [`Salvage::read`].
    pub fn next_older(&mut self) -> Result<Option<Salvaged<'_>>> {
        self.check_reads()?;
        let Some(current) = &mut self.current else { return self.next_turn() };
        let Some(item) = current.items.pop() else {
            self.current = None;
            return self.next_turn();
        };
        let (place, turn) = (current.place, current.turn);
        let lost = |range: std::ops::Range<u32>, block_count| {
            Salvaged::Lost(LostBlocks {
                offset: place.start + u64::from(range.start),
                bytes: u64::from(range.end - range.start),
                block_count,
            })
        };
        let block = match item {
            Item::Lost { range, block_count } => return Ok(Some(lost(range, block_count))),
            Item::Doubt => return Ok(Some(Salvaged::Doubt)),
            Item::Torn => return Ok(Some(Salvaged::Torn)),
            Item::Block(block) if block.tag.kind == BlockKind::Commit => {
                return Ok(Some(Salvaged::CommitEnd));
            }
            Item::Block(block) => block,
        };
        let payload = block.payload(&current.image.bytes);
        let dictionary = block.dictionary.as_ref();
        let decoded = self.dictionaries.decode(
            &*self.file,
            &mut self.decoder,
            block.tag.kind,
            dictionary,
            payload,
        );
        self.file.check().map_err(LogError::io("read"))?;
        let range = block.offset..block.end();
        let entries = decoded.and_then(|()| entries(&self.decoder.payload));
        let Some(entries) = entries else { return Ok(Some(lost(range, 1))) };
        let position = Position { sequence: place.id.sequence, offset: block.offset };
        Ok(Some(Salvaged::Block(SalvagedBlock {
            address: address(turn, &block, &self.digests),
            is_committed: position < self.order.committed,
            entries,
        })))
    }

    fn next_turn(&mut self) -> Result<Option<Salvaged<'static>>> {
        let Some(turn) = self.turns_left.checked_sub(1) else { return Ok(None) };
        self.turns_left = turn;
        let member = match &self.order.turns[turn] {
            Turn::Found(member) => member,
            Turn::Missing(Missing { count }) => {
                return Ok(Some(Salvaged::MissingSegments(*count)));
            }
        };
        let place = member.place;
        let image = Image::read(&*self.file, place.start, place.slot_bytes, self.file_bytes);
        self.check_reads()?;
        let limit = image.end().min(seal_offset(place.slot_bytes)) as usize;
        let parts = BlockSearch::new(&image.bytes[..limit], place.seed, &self.digests).parts();
        let mut items = classify(parts, member, &image, &self.order);
        items.retain(|item| !matches!(item, Item::Block(block) if !is_told(block.tag.kind)));
        let found = SalvagedSegment {
            has_header: member.has_header,
            has_seal: member.is_newest || member.seal.is_some(),
        };
        self.current = Some(Current { turn, place, image, items });
        Ok(Some(Salvaged::Segment(found)))
    }

    /// The entries of a block that was found before; `None` where it can no longer be read.
    ///
    /// # Errors
    /// [`LogError::Io`] where a read fails though what it was after may be there, as for want of memory. Nothing can
    /// be said of that place, and so of nothing that is older: all later calls fail, too, and salvage has to be begun
    /// anew.
    pub fn read(&mut self, address: BlockAddress) -> Result<Option<Vec<&[u8]>>> {
        self.check_reads()?;
        let decoded = self.decode(address);
        self.check_reads()?;
        Ok(decoded.and_then(|()| entries(&self.decoder.payload)))
    }

    /// Puts the entries of a block that was found before into `decoder.payload`.
    fn decode(&mut self, address: BlockAddress) -> Option<()> {
        let Turn::Found(Member { place, .. }) = self.order.turns.get(address.turn as usize)? else {
            return None;
        };
        let mut block = vec![0; address.bytes as usize];
        self.file.read_at(place.start + u64::from(address.offset), &mut block).ok()?;
        let dictionary = match address.dictionary {
            Some(number) => Some(self.digests.get(number as usize)?),
            None => None,
        };
        let seed = dictionary.map_or(place.seed, |digest| place.seed.with_dictionary(digest));
        if !is_whole(&block, seed, address.offset) {
            return None;
        }
        let payload = &block[BLOCK_HEADER_BYTES as usize..];
        self.dictionaries.decode(&*self.file, &mut self.decoder, address.kind, dictionary, payload)
    }

    fn check_reads(&self) -> Result<()> {
        self.file.check().map_err(LogError::io("read"))
    }
}

/// Whose file it is, by whichever of its headers are whole; `None` where none is.
///
/// # Errors
/// Where the file header is of a newer version, and nothing contradicts it.
pub(crate) fn identity_by_any_header(
    file: &dyn StorageFile,
    file_bytes: u64,
) -> Result<Option<Identity>> {
    Ok(identity::find(file, file_bytes)?.map(|origin| origin.identity))
}

/// The identity, where an index file alone knows the store: its segments' blocks tell how long the
/// slots are.
fn by_index(file: &dyn StorageFile, file_bytes: u64, index: &SalvageIndex) -> Option<Origin> {
    let sizes = std::iter::successors(Some(SLOT_BYTES_MIN), |size| size.checked_mul(2));
    let identities = sizes.take_while(|size| *size <= SLOT_BYTES_MAX).map(|slot_bytes| Identity {
        store_id: index.store_id,
        // Only whoever writes to the log needs it.
        hash_key: [0; 32],
        slot_bytes,
    });
    identities.into_iter().find_map(|identity| {
        let checkpoint = LogCheckpoint::decode(&index.checkpoint, identity.slot_bytes)?;
        let origin = Origin { identity, first_nonce: None };
        let survey = Survey::new(file, file_bytes, &origin, Some(&checkpoint));
        survey.finds_any_first_block().then_some(origin)
    })
}

/// Whether whoever reads the log is told of such blocks.
fn is_told(kind: BlockKind) -> bool {
    matches!(kind, BlockKind::EntriesRaw | BlockKind::EntriesZstd | BlockKind::Commit)
}

fn address(turn: usize, block: &FoundBlock, digests: &[DictionaryDigest]) -> BlockAddress {
    let number = block.dictionary.and_then(|digest| digests.binary_search(&digest).ok());
    BlockAddress {
        // A file has fewer slots, and a log not more dictionaries, than 32 bits count.
        turn: u32::try_from(turn).unwrap_or(u32::MAX),
        offset: block.offset,
        bytes: block.bytes,
        kind: block.tag.kind,
        dictionary: number.and_then(|number| u32::try_from(number).ok()),
    }
}

fn entries(payload: &[u8]) -> Option<Vec<&[u8]>> {
    Entries::parse(payload).ok()?.collect::<Result<_, _>>().ok()
}

impl std::fmt::Debug for Salvage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = formatter.debug_struct("Salvage");
        debug.field("segments_left", &self.turns_left).finish_non_exhaustive()
    }
}
