//! Hashing the keys of records.

use zkv_index::KeyHash;
use zkv_record::{KeyHasher, Kind, Namespace, Record};

/// Hashes keys as the index knows them.
#[derive(Clone, Debug)]
pub(crate) struct Keys(KeyHasher);

impl Keys {
    pub(crate) fn new(hash_key: [u8; 32]) -> Self {
        Self(KeyHasher::new(hash_key))
    }

    /// A user's key.
    #[inline]
    pub(crate) fn hash(&self, collection: u32, key: &[u8]) -> KeyHash {
        KeyHash(u128::from_be_bytes(self.0.hash(Namespace::Collection(collection), key)))
    }

    /// The key of a piece of a long value.
    pub(crate) fn hash_piece(&self, key: &[u8]) -> KeyHash {
        KeyHash(u128::from_be_bytes(self.0.hash(Namespace::Pieces, key)))
    }

    /// The key of a record from the log.
    pub(crate) fn hash_record(&self, record: &Record<'_>) -> KeyHash {
        let namespace = match record.kind {
            Kind::Piece => Namespace::Pieces,
            Kind::Put | Kind::Delete | Kind::Head => Namespace::Collection(record.collection),
        };
        KeyHash(u128::from_be_bytes(self.0.hash(namespace, record.key)))
    }
}
