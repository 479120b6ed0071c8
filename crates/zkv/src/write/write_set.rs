//! Writes that become visible together, and survive a crash together.

use std::borrow::Cow;
use std::sync::Arc;

use zkv_index::KeyHash;
use zkv_record::Record;

use crate::error::{Error, Result};
use crate::keys::Keys;
use crate::options::Durability;
use crate::read::view::{KeyRef, Moment};
use crate::shared::Shared;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::write::memtable::ENTRY_OVERHEAD_BYTES;
use crate::write::recent::Reads;
use crate::write::spill::Spilled;

/// One commit's writes, and what they depend on.
pub(crate) struct WriteSet<'a> {
    pub writes: Writes<'a>,
    /// What must not have been written since it was read.
    pub reads: Option<Box<Reads>>,
    /// The named collections that it writes to.
    pub collections: Vec<Numbered>,
    /// The collection that it gives another number, or none.
    pub moves: Option<Box<Move>>,
    pub durability: Durability,
}

/// Writes, one a key.
pub(crate) enum Writes<'a> {
    One(Write<'a>),
    Few(Vec<Write<'a>>),
    Many(&'a Spilled),
}

/// What happens to one key.
pub(crate) struct Write<'a> {
    pub hash: KeyHash,
    pub collection: u32,
    pub body: Body<'a>,
}

pub(crate) enum Body<'a> {
    /// An encoded record.
    Record(Vec<u8>),
    /// A value that is too long for one record.
    Large(Box<Large<'a>>),
}

impl Body<'_> {
    fn bytes(&self) -> usize {
        match self {
            Self::Record(record) => record.len(),
            Self::Large(large) => large.value.len(),
        }
    }
}

/// A key with a value that is stored in pieces.
pub(crate) struct Large<'a> {
    pub key: Cow<'a, [u8]>,
    pub value: Cow<'a, [u8]>,
}

/// What is known of a named collection while the store is open.
#[derive(Debug)]
pub(crate) struct CollectionState {
    /// Twice its number, and [`CollectionState::MOVES`].
    number: AtomicU64,
    opening: Opening,
}

/// One opening of a store; equal to its clones alone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Opening(Arc<()>);

impl PartialEq for Opening {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A collection, and the number that it had when something was prepared for it.
#[derive(Clone, Debug)]
pub(crate) struct Numbered {
    pub state: Arc<CollectionState>,
    pub id: u32,
}

/// A collection's new number.
#[derive(Debug)]
pub(crate) struct Move {
    pub of: Numbered,
    pub to: Option<u32>,
}

impl CollectionState {
    /// Where a collection was dropped.
    const NONE: u32 = u32::MAX;
    /// While a view is published in which it has another number, or none.
    const MOVES: u64 = 1;

    pub(crate) fn new(id: u32, opening: Opening) -> Self {
        Self { number: (u64::from(id) << 1).into(), opening }
    }

    /// # Errors
    /// Where the collection is of another store, or of another opening of this one.
    pub(crate) fn check_opening(&self, opening: &Opening) -> Result<()> {
        if self.opening == *opening { Ok(()) } else { Err(Error::OtherStore) }
    }

    /// The number that it has, or has had a moment ago; `None` once the collection is dropped.
    pub(crate) fn id(&self) -> Option<u32> {
        Self::id_of(self.number.load(Ordering::Acquire))
    }

    fn id_of(number: u64) -> Option<u32> {
        u32::try_from(number >> 1).ok().filter(|id| *id != Self::NONE)
    }

    /// Lets `read` look at the store, by the number that the collection has in each view meanwhile: again
    /// where that has changed, so that it should take less time than a commit does.
    ///
    /// # Errors
    /// Where the collection was dropped; those of `read`.
    #[inline]
    pub(crate) fn read<T>(
        &self,
        shared: &Shared,
        mut read: impl FnMut(u32) -> Result<T>,
    ) -> Result<T> {
        loop {
            let number = self.number_at_rest(shared);
            let found = read(Self::id_of(number).ok_or(Error::CollectionDropped)?);
            // In a view that has another number, some of what this one had may be cleaned away.
            if self.number.load(Ordering::Acquire) == number {
                return found;
            }
        }
    }

    /// A moment, and the collection's number in it.
    ///
    /// # Errors
    /// Where the collection was dropped.
    pub(crate) fn moment(&self, shared: &Shared) -> Result<(u32, Moment)> {
        self.read(shared, |id| Ok((id, shared.now())))
    }

    fn number_at_rest(&self, shared: &Shared) -> u64 {
        loop {
            let number = self.number.load(Ordering::Acquire);
            if number & Self::MOVES != 0 {
                drop(shared.front());
                continue;
            }
            return number;
        }
    }

    /// Tells readers to wait for [`CollectionState::end_move`]. The caller holds `front` until then.
    pub(crate) fn begin_move(&self) {
        self.number.fetch_or(Self::MOVES, Ordering::AcqRel);
    }

    /// Sets the number of the view that has been published.
    pub(crate) fn end_move(&self, id: Option<u32>) {
        self.number.store(u64::from(id.unwrap_or(Self::NONE)) << 1, Ordering::Release);
    }
}

impl Numbered {
    /// A collection with the number that it has now.
    pub(crate) fn now(state: &Arc<CollectionState>) -> Result<Self> {
        let id = state.id().ok_or(Error::CollectionDropped)?;
        Ok(Self { state: Arc::clone(state), id })
    }

    /// Whether it still has that number. Whoever holds `front` knows that it stays so meanwhile.
    pub(crate) fn is_current(&self) -> bool {
        self.state.id() == Some(self.id)
    }
}

impl<'a> Write<'a> {
    /// A put or a delete mark.
    pub(crate) fn new(keys: &Keys, record: &Record<'_>) -> Self {
        Self::hashed(keys.hash(record.collection, record.key), record)
    }

    #[inline]
    fn hashed(hash: KeyHash, record: &Record<'_>) -> Self {
        let mut bytes = Vec::with_capacity(record.encoded_bytes());
        record.encode_into(&mut bytes);
        Self { hash, collection: record.collection, body: Body::Record(bytes) }
    }

    /// A put of `value`, in pieces where it is longer than `inline_bytes_max`.
    #[inline]
    pub(crate) fn put(key: KeyRef<'a>, value: &'a [u8], inline_bytes_max: usize) -> Self {
        let KeyRef { hash, key, collection, .. } = key;
        if value.len() <= inline_bytes_max {
            return Self::hashed(hash, &Record { collection, ..Record::put(key, value) });
        }
        let body = Body::Large(Box::new(Large { key: key.into(), value: value.into() }));
        Self { hash, collection, body }
    }

    pub(crate) fn delete(key: KeyRef<'_>) -> Self {
        Self::hashed(key.hash, &Record { collection: key.collection, ..Record::delete(key.key) })
    }

    #[inline]
    pub(crate) fn is_record(&self) -> bool {
        self.record_bytes().is_some()
    }

    /// The length of its record, where it is one.
    #[inline]
    fn record_bytes(&self) -> Option<usize> {
        match &self.body {
            Body::Record(record) => Some(record.len()),
            Body::Large(_) => None,
        }
    }

    /// The same, without what it has borrowed.
    pub(crate) fn into_owned(self) -> Write<'static> {
        let body = match self.body {
            Body::Record(record) => Body::Record(record),
            Body::Large(large) => {
                let Large { key, value } = *large;
                let (key, value) = (key.into_owned().into(), value.into_owned().into());
                Body::Large(Box::new(Large { key, value }))
            }
        };
        Write { hash: self.hash, collection: self.collection, body }
    }
}

impl<'a> Writes<'a> {
    /// Those that are in memory.
    pub(crate) fn in_memory(&self) -> &[Write<'a>] {
        match self {
            Self::One(write) => std::slice::from_ref(write),
            Self::Few(writes) => writes,
            Self::Many(_) => &[],
        }
    }

    pub(crate) fn in_memory_mut(&mut self) -> &mut [Write<'a>] {
        match self {
            Self::One(write) => std::slice::from_mut(write),
            Self::Few(writes) => writes,
            Self::Many(_) => &mut [],
        }
    }

    /// The records and long values that are in memory.
    pub(crate) fn bytes_in_memory(&self) -> u64 {
        self.in_memory().iter().map(|write| write.body.bytes() as u64).sum()
    }

    /// All keys, with their collections.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (KeyHash, u32)> + '_ {
        let spilled = match self {
            Self::Many(spilled) => Some(spilled.keys().iter()),
            Self::One(_) | Self::Few(_) => None,
        };
        let in_memory = self.in_memory().iter().map(|write| (write.hash, write.collection));
        in_memory.chain(spilled.into_iter().flatten())
    }
}

/// What must still be so when writes take effect.
#[derive(Clone, Copy)]
pub(crate) struct Condition<'a> {
    pub reads: Option<&'a Reads>,
    pub collections: &'a [Numbered],
}

impl<'a> WriteSet<'a> {
    pub(crate) fn condition(&self) -> Condition<'_> {
        Condition { reads: self.reads.as_deref(), collections: &self.collections }
    }

    /// One write that depends on nothing.
    pub(crate) fn one(write: Write<'a>, durability: Durability) -> Self {
        Self {
            writes: Writes::One(write),
            reads: None,
            collections: Vec::new(),
            moves: None,
            durability,
        }
    }

    /// For who wants nothing but that what is there is as durable.
    pub(crate) fn of_nothing(durability: Durability) -> Self {
        let (writes, collections) = (Writes::Few(Vec::new()), Vec::new());
        Self { writes, reads: None, collections, moves: None, durability }
    }

    pub(crate) fn is_of_nothing(&self) -> bool {
        self.moves.is_none() && matches!(&self.writes, Writes::Few(writes) if writes.is_empty())
    }

    /// Whether it may wait in a buffer of `bytes_max`, which takes any one record. Several count as what they
    /// will take in memory there.
    pub(crate) fn fits_buffer(&self, bytes_max: usize) -> bool {
        debug_assert!(self.moves.is_none() && !matches!(self.writes, Writes::Many(_)));
        if self.durability != Durability::Buffered {
            return false;
        }
        match self.writes.in_memory() {
            [one] => one.is_record(),
            several => {
                let overhead = several.len() * ENTRY_OVERHEAD_BYTES;
                let bytes = several.iter().map(Write::record_bytes).sum::<Option<usize>>();
                bytes.is_some_and(|bytes| bytes + overhead <= bytes_max)
            }
        }
    }
}
