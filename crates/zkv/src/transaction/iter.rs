//! Iterations as a transaction sees its store or collection.

use std::sync::Arc;

use crate::error::Result;
use crate::hashed::KeySet;
use crate::read::iter::{IterBytes, KeysBytes};
use crate::shared::Shared;

/// All keys and values as a transaction sees them, in no particular order. See
/// [`Transaction::iter_bytes`](super::Transaction::iter_bytes).
pub struct TransactionIter(pub(super) Overlay<(Vec<u8>, Vec<u8>), IterBytes>);

/// All keys as a transaction sees them, in no particular order. See
/// [`Transaction::keys_bytes`](super::Transaction::keys_bytes).
pub struct TransactionKeys(pub(super) Overlay<Vec<u8>, KeysBytes>);

/// What a transaction has written, and what is below and was not written by it.
pub(super) struct Overlay<T, I> {
    pub own: std::vec::IntoIter<T>,
    pub written: KeySet,
    pub below: I,
    pub collection: u32,
    pub shared: Arc<Shared>,
}

impl Iterator for TransactionIter {
    type Item = Result<(Vec<u8>, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next(|(key, _)| key)
    }
}

impl Iterator for TransactionKeys {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next(|key| key)
    }
}

impl<T, I: Iterator<Item = Result<T>>> Overlay<T, I> {
    fn next(&mut self, key_of: impl Fn(&T) -> &[u8]) -> Option<Result<T>> {
        if let Some(own) = self.own.next() {
            return Some(Ok(own));
        }
        loop {
            let entry = self.below.next()?;
            let is_written = entry.as_ref().is_ok_and(|entry| {
                self.written.contains(&self.shared.keys.hash(self.collection, key_of(entry)))
            });
            if !is_written {
                return Some(entry);
            }
        }
    }
}

impl std::fmt::Debug for TransactionIter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = formatter.debug_struct("TransactionIter");
        debug.field("below", &self.0.below).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for TransactionKeys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = formatter.debug_struct("TransactionKeys");
        debug.field("below", &self.0.below).finish_non_exhaustive()
    }
}
