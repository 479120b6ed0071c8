//! Key hashes: BLAKE3, keyed by the store's secret, cut to 128 bits.

use std::fmt;

/// The longest key that is hashed, together with its collection's number, in one compression.
const SHORT_KEY_BYTES_MAX: usize = blake3::BLOCK_LEN - size_of::<u32>();

/// Domain separation: BLAKE3's `derive_key` mode asks for context strings that are hard-coded,
/// unique and dated (BLAKE3 paper, section 6.2). They are part of the format.
const COLLECTIONS_CONTEXT: &str = "zkv 2026-11-23 key hashes of named collections";
const PIECES_CONTEXT: &str = "zkv 2026-11-23 key hashes of value pieces";

/// Where a key lives. Equal keys of different namespaces have unrelated hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Namespace {
    /// The keys of a collection; 0 is the default one.
    Collection(u32),
    /// The internal keys of [`Kind::Piece`](crate::Kind::Piece) records.
    Pieces,
}

/// Hashes keys with a secret of the store's own, so that nobody without it can make keys collide.
///
/// ```
/// use zkv_record::{KeyHasher, Namespace};
/// let hasher = KeyHasher::new([1; 32]);
/// let hash = hasher.hash(Namespace::Collection(0), b"key");
/// assert_eq!(hash, hasher.hash(Namespace::Collection(0), b"key"));
/// assert_ne!(hash, hasher.hash(Namespace::Collection(1), b"key"));
/// assert_ne!(hash, hasher.hash(Namespace::Pieces, b"key"));
/// ```
#[derive(Clone)]
pub struct KeyHasher {
    default: [u8; 32],
    collections: [u8; 32],
    pieces: [u8; 32],
}

impl KeyHasher {
    /// A hasher with the store's secret.
    #[must_use]
    pub fn new(hash_key: [u8; 32]) -> Self {
        Self {
            default: hash_key,
            collections: blake3::derive_key(COLLECTIONS_CONTEXT, &hash_key),
            pieces: blake3::derive_key(PIECES_CONTEXT, &hash_key),
        }
    }

    /// The hash of `key`: one compression for keys up to 64 bytes of the default collection, and
    /// up to 60 of another.
    #[inline]
    #[must_use]
    pub fn hash(&self, namespace: Namespace, key: &[u8]) -> [u8; 16] {
        let hash = match namespace {
            Namespace::Collection(0) => blake3::keyed_hash(&self.default, key),
            Namespace::Collection(collection) => self.hash_in_collection(collection, key),
            Namespace::Pieces => blake3::keyed_hash(&self.pieces, key),
        };
        let mut short = [0; 16];
        short.copy_from_slice(&hash.as_bytes()[..16]);
        short
    }

    /// The collection's number stands before the key in four bytes, always, so no two pairs of
    /// collection and key give the same input.
    fn hash_in_collection(&self, collection: u32, key: &[u8]) -> blake3::Hash {
        let prefix = collection.to_le_bytes();
        if key.len() <= SHORT_KEY_BYTES_MAX {
            let mut input = [0; blake3::BLOCK_LEN];
            let end = prefix.len() + key.len();
            input[..prefix.len()].copy_from_slice(&prefix);
            input[prefix.len()..end].copy_from_slice(key);
            return blake3::keyed_hash(&self.collections, &input[..end]);
        }
        blake3::Hasher::new_keyed(&self.collections).update(&prefix).update(key).finalize()
    }
}

impl fmt::Debug for KeyHasher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The keys are secret: whoever has them can make keys collide.
        formatter.debug_struct("KeyHasher").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_key_of_a_collection_hashes_as_its_prefix_and_bytes() {
        let hasher = KeyHasher::new([3; 32]);
        for bytes in [0, 1, 59, 60, 61, 64, 1024, 70_000] {
            let key = vec![0x5A; bytes];
            let mut input = 9u32.to_le_bytes().to_vec();
            input.extend_from_slice(&key);
            let whole = blake3::keyed_hash(&hasher.collections, &input);
            let hash = hasher.hash(Namespace::Collection(9), &key);
            assert_eq!(hash, whole.as_bytes()[..16], "key of {bytes} bytes");
        }
    }

    #[test]
    fn debug_output_names_no_key() {
        assert_eq!(format!("{:?}", KeyHasher::new([0xAB; 32])), "KeyHasher { .. }");
    }
}
