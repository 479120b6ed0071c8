//! Writes that gather before they are committed, in a file once they are too many for memory.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use zkv_index::KeyHash;
use zkv_io::{Cursor, FileStorage, Overrun, Scratch, put_varint};

use crate::error::Error;
use crate::keys::Keys;
use crate::read::view::KeyRef;
use crate::write::write_set::Write;

/// Bytes that are kept in memory before they go to the file.
const MEMORY_BYTES: usize = 4 << 20;

/// Wishes cannot be kept in a file, or read from it again.
#[derive(Debug)]
pub(crate) struct SpillError(io::Error);

impl From<io::Error> for SpillError {
    fn from(error: io::Error) -> Self {
        Self(error)
    }
}

impl From<SpillError> for Error {
    fn from(SpillError(cause): SpillError) -> Self {
        Self::Batch { folder: std::env::temp_dir(), cause }
    }
}

/// One write, as it was asked for.
#[derive(Clone, Copy)]
#[cfg_attr(test, derive(Debug, PartialEq, Eq))]
pub(crate) struct Wish<'a> {
    /// The collection, by its number among those that the batch knows.
    pub collection: u32,
    pub key: &'a [u8],
    /// `None` deletes.
    pub value: Option<&'a [u8]>,
}

/// Wishes in their order.
#[derive(Default)]
pub(crate) struct Wishes {
    /// The newest, encoded.
    memory: Vec<u8>,
    file: Option<SpillFile>,
    count: u32,
}

struct SpillFile {
    scratch: Scratch,
    bytes: u64,
}

impl Wish<'_> {
    fn encode_into(&self, bytes: &mut Vec<u8>) {
        let value_bytes = self.value.map_or(0, |value| value.len() as u64 + 1);
        put_varint(bytes, self.collection.into());
        put_varint(bytes, self.key.len() as u64);
        put_varint(bytes, value_bytes);
        bytes.extend_from_slice(self.key);
        bytes.extend_from_slice(self.value.unwrap_or_default());
    }
}

impl<'a> Wish<'a> {
    /// The first wish of `bytes`, and what is behind it.
    fn split_from(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Overrun> {
        let mut cursor = Cursor::new(bytes);
        let collection = u32::try_from(cursor.varint()?).map_err(|_| Overrun)?;
        let mut length = || usize::try_from(cursor.varint()?).map_err(|_| Overrun);
        let (key_bytes, value_bytes) = (length()?, length()?);
        let key = cursor.bytes(key_bytes)?;
        let value = value_bytes.checked_sub(1).map(|bytes| cursor.bytes(bytes)).transpose()?;
        Ok((Self { collection, key, value }, cursor.rest()))
    }
}

impl Wishes {
    /// # Errors
    /// Where the file cannot be written.
    pub(crate) fn push(&mut self, wish: &Wish<'_>) -> Result<(), SpillError> {
        wish.encode_into(&mut self.memory);
        self.count =
            self.count.checked_add(1).ok_or(io::Error::from(io::ErrorKind::StorageFull))?;
        if self.memory.len() < MEMORY_BYTES {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(SpillFile::create()?),
        };
        file.scratch.file()?.write_at(file.bytes, &self.memory)?;
        file.bytes += self.memory.len() as u64;
        self.memory.clear();
        // A long value has made it grow.
        self.memory.shrink_to(2 * MEMORY_BYTES);
        Ok(())
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// What they take in memory and in a file.
    pub(crate) fn bytes(&self) -> u64 {
        self.memory.len() as u64 + self.file.as_ref().map_or(0, |file| file.bytes)
    }

    /// How much memory they take; `None` where some are in a file.
    pub(crate) fn bytes_in_memory(&self) -> Option<usize> {
        self.file.is_none().then_some(self.memory.len())
    }

    /// Shows them to `each`, in their order, with their numbers.
    pub(crate) fn for_each<E: From<SpillError>>(
        &self,
        mut each: impl FnMut(u32, Wish<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut number = 0;
        let mut show = |bytes: &[u8]| -> Result<usize, E> {
            let mut rest = bytes;
            while let Ok((wish, behind)) = Wish::split_from(rest) {
                each(number, wish)?;
                number += 1;
                rest = behind;
            }
            Ok(bytes.len() - rest.len())
        };
        if let Some(file) = &self.file {
            file.read(&mut show)?;
        }
        show(&self.memory)?;
        Ok(())
    }
}

impl SpillFile {
    fn create() -> io::Result<Self> {
        let beside = std::env::temp_dir().join("zkv-batch");
        let scratch = Scratch::create(Arc::new(FileStorage), &beside)?;
        Ok(Self { scratch, bytes: 0 })
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> Result<(), SpillError> {
        Ok(self.scratch.file()?.read_at(at, into)?)
    }

    /// Shows all bytes to `show`, which says how many of those it was shown it has taken.
    fn read<E: From<SpillError>>(
        &self,
        show: &mut impl FnMut(&[u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        let (mut at, mut held) = (0, Vec::new());
        while at < self.bytes {
            let start = held.len();
            let more = usize::try_from(self.bytes - at).unwrap_or(MEMORY_BYTES).min(MEMORY_BYTES);
            held.resize(start + more, 0);
            self.read_at(at, &mut held[start..])?;
            at += more as u64;
            let taken = show(&held)?;
            held.drain(..taken);
        }
        // What this process wrote itself is not all there.
        if held.is_empty() {
            Ok(())
        } else {
            Err(SpillError(io::ErrorKind::InvalidData.into()).into())
        }
    }
}

/// Wishes that are too many for a buffer, ready to be committed.
pub(crate) struct Spilled {
    wishes: Wishes,
    /// The collections' numbers in the store.
    ids: Vec<u32>,
    keys: Arc<SpilledKeys>,
    /// Which wishes count, by their numbers: of each key the last.
    last: Vec<bool>,
}

/// The keys of a batch, in the order of their hashes, each once.
pub(crate) struct SpilledKeys {
    keys: Vec<SpilledKey>,
    collections: BTreeSet<u32>,
}

#[derive(Clone, Copy)]
struct SpilledKey {
    hash: KeyHash,
    number: u32,
    collection: u32,
}

impl SpilledKeys {
    /// All of them, with their collections.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (KeyHash, u32)> + '_ {
        self.keys.iter().map(|key| (key.hash, key.collection))
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The collections that they are of, by their numbers in the store.
    pub(crate) fn collections(&self) -> &BTreeSet<u32> {
        &self.collections
    }

    pub(crate) fn has(&self, hash: KeyHash) -> bool {
        self.keys.binary_search_by_key(&hash, |key| key.hash).is_ok()
    }
}

impl Spilled {
    pub(crate) fn new(wishes: Wishes, ids: Vec<u32>, keys: &Keys) -> Result<Self, SpillError> {
        let mut all = Vec::with_capacity(wishes.count() as usize);
        wishes.for_each(|number, wish| {
            let collection = ids[wish.collection as usize];
            let hash = keys.hash(collection, wish.key);
            all.push(SpilledKey { hash, number, collection });
            Ok::<(), SpillError>(())
        })?;
        all.sort_unstable_by_key(|key| (key.hash, std::cmp::Reverse(key.number)));
        all.dedup_by_key(|key| key.hash);
        let mut last = vec![false; wishes.count() as usize];
        let mut collections = BTreeSet::new();
        for key in &all {
            last[key.number as usize] = true;
            collections.insert(key.collection);
        }
        let keys = SpilledKeys { keys: all, collections };
        Ok(Self { wishes, ids, keys: Arc::new(keys), last })
    }

    pub(crate) fn keys(&self) -> &Arc<SpilledKeys> {
        &self.keys
    }

    /// Shows what counts to `each`, as writes.
    pub(crate) fn for_each<E: From<SpillError>>(
        &self,
        keys: &Keys,
        inline_bytes_max: usize,
        mut each: impl FnMut(Write<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.wishes.for_each(|number, wish| {
            if !self.last[number as usize] {
                return Ok(());
            }
            let collection = self.ids[wish.collection as usize];
            each(write_of(&wish, collection, keys, inline_bytes_max))
        })
    }

    /// The wishes, for another attempt.
    pub(crate) fn into_wishes(self) -> Wishes {
        self.wishes
    }
}

/// What a wish asks to be written.
pub(crate) fn write_of<'a>(
    wish: &Wish<'a>,
    collection: u32,
    keys: &Keys,
    inline_bytes_max: usize,
) -> Write<'a> {
    let hash = keys.hash(collection, wish.key);
    let key = KeyRef { hash, key: wish.key, collection, is_piece: false };
    match wish.value {
        Some(value) => Write::put(key, value, inline_bytes_max),
        None => Write::delete(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(number: u32) -> (Vec<u8>, Option<Vec<u8>>) {
        let key = (number % 700).to_le_bytes().to_vec();
        let value = vec![number.to_le_bytes()[0]; (number * 37 % 9000) as usize];
        (key, (!number.is_multiple_of(5)).then_some(value))
    }

    fn filled(count: u32) -> Wishes {
        let mut wishes = Wishes::default();
        for number in 0..count {
            let (key, value) = wish(number);
            let wish = Wish { collection: number % 3, key: &key, value: value.as_deref() };
            wishes.push(&wish).unwrap();
        }
        wishes
    }

    #[test]
    fn wishes_come_back_in_their_order_from_memory_and_file() {
        for count in [0, 1, 100, 5000] {
            let wishes = filled(count);
            assert_eq!(wishes.bytes_in_memory().is_some(), count < 5000);
            let mut seen = 0;
            let shown = wishes.for_each(|number, found| {
                let (key, value) = wish(number);
                let expected = Wish { collection: number % 3, key: &key, value: value.as_deref() };
                assert_eq!((number, found), (seen, expected));
                seen += 1;
                Ok::<(), SpillError>(())
            });
            shown.unwrap();
            assert_eq!(seen, count);
        }
    }

    #[test]
    fn a_long_value_leaves_no_memory_behind() {
        let mut wishes = Wishes::default();
        let value = vec![7; 8 * MEMORY_BYTES];
        wishes.push(&Wish { collection: 0, key: b"long", value: Some(&value) }).unwrap();
        assert!(wishes.memory.capacity() <= 2 * MEMORY_BYTES);
        let shown = wishes.for_each(|_, wish| {
            assert_eq!(wish.value, Some(&*value));
            Ok::<(), SpillError>(())
        });
        shown.unwrap();
    }

    #[test]
    fn of_each_key_the_last_wish_counts() {
        let keys = Keys::new([7; 32]);
        let spilled = Spilled::new(filled(5000), vec![0, 20, 30], &keys).unwrap();
        let mut count = 0;
        let shown = spilled.for_each(&keys, 1 << 20, |write| {
            assert!(spilled.keys().has(write.hash));
            count += 1;
            Ok::<(), SpillError>(())
        });
        shown.unwrap();
        // 700 keys in each of three collections; 700 and 3 have no common factor.
        assert_eq!((count, spilled.keys().iter().count()), (2100, 2100));
        assert!(!spilled.keys().has(keys.hash(0, b"none")));
    }
}
