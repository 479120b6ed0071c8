//! Going through all keys, without values.

use std::sync::Arc;

use super::IterBytes;
use crate::error::Result;
use crate::metadata::catalog::DEFAULT;
use crate::read::view::Moment;
use crate::shared::Shared;
use crate::store::Store;

/// All keys of a store at one moment, in no particular order. See
/// [`Store::keys_bytes`](crate::Store::keys_bytes).
///
/// These are the keys of the records that an [`IterBytes`] yields, with the same errors where the file is damaged. A
/// long value, which lies in pieces, is not put together: it takes no memory, and no error tells that its pieces
/// are damaged.
pub struct KeysBytes {
    records: IterBytes,
}

impl Store {
    /// As [`Store::iter_bytes`], of keys alone. Long values take no memory: see [`KeysBytes`].
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = zkv::Store::open(directory.path().join("pages.zkv"))?;
    /// store.set_bytes(b"home", b"Welcome")?;
    /// let keys: Vec<Vec<u8>> = store.keys_bytes().collect::<zkv::Result<_>>()?;
    /// assert_eq!(keys, [b"home"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn keys_bytes(&self) -> KeysBytes {
        let shared = self.shared();
        KeysBytes::new(shared, shared.now(), DEFAULT)
    }
}

impl KeysBytes {
    /// Goes through the buffers and the log of `moment`.
    pub(crate) fn new(shared: &Arc<Shared>, moment: Moment, collection: u32) -> Self {
        Self { records: IterBytes::new(shared, moment, collection) }
    }

    /// As [`Iterator::next`], lending the key until the next call.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = zkv::Store::open(directory.path().join("pages.zkv"))?;
    /// store.set_bytes(b"home", b"Welcome")?;
    /// let (mut keys, mut bytes) = (store.keys_bytes(), 0);
    /// while let Some(key) = keys.next_borrowed() {
    ///     bytes += key?.len();
    /// }
    /// assert_eq!(bytes, 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`IterBytes::next_borrowed`], but for long values.
    #[inline]
    pub fn next_borrowed(&mut self) -> Option<Result<&[u8]>> {
        let yielded = match self.records.next_yielded()? {
            Ok(yielded) => yielded,
            Err(error) => return Some(Err(error)),
        };
        Some(Ok(yielded.split(self.records.record(yielded.source)).0))
    }
}

impl Iterator for KeysBytes {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_borrowed().map(|key| key.map(<[u8]>::to_vec))
    }
}

impl std::fmt::Debug for KeysBytes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("KeysBytes").field("records", &self.records).finish()
    }
}
