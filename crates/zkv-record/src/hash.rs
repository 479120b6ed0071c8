//! Key hashes: SipHash-2-4 with 128 bits, keyed by the store's secret.

use std::fmt;
use std::hash::Hasher;

use siphasher::sip128::SipHasher24;

/// Domain separation: BLAKE3's `derive_key` mode asks for context strings that are hard-coded,
/// unique and dated (BLAKE3 paper, section 6.2). It is part of the format.
const CONTEXT: &str = "zkv 2026-12-01 SipHash key of key hashes";
/// The namespace of pieces, behind those of all collections.
const PIECES: u64 = 1 << 32;

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
    /// What has taken in nothing yet, and what has taken in the number of a namespace.
    keyed: SipHasher24,
    default: SipHasher24,
    pieces: SipHasher24,
}

impl KeyHasher {
    /// A hasher with the store's secret.
    #[must_use]
    pub fn new(hash_key: [u8; 32]) -> Self {
        let mut key = [0; 16];
        key.copy_from_slice(&blake3::derive_key(CONTEXT, &hash_key)[..16]);
        let keyed = SipHasher24::new_with_key(&key);
        let (default, pieces) = (within(keyed, 0), within(keyed, PIECES));
        Self { keyed, default, pieces }
    }

    /// The hash of `key`.
    #[inline]
    #[must_use]
    pub fn hash(&self, namespace: Namespace, key: &[u8]) -> [u8; 16] {
        let hash = match namespace {
            Namespace::Collection(0) => self.default.hash(key),
            Namespace::Collection(collection) => within(self.keyed, collection.into()).hash(key),
            Namespace::Pieces => self.pieces.hash(key),
        };
        u128::from(hash).to_le_bytes()
    }
}

/// The namespace's number stands before the key in eight bytes, always, so no two pairs of namespace
/// and key give the same input. Eight are one word, behind which a key is hashed as if it stood alone.
#[inline]
fn within(mut keyed: SipHasher24, namespace: u64) -> SipHasher24 {
    keyed.write(&namespace.to_le_bytes());
    keyed
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

    /// From `vectors.h` of the reference implementation: the key is the bytes 0 to 15, the input as many from 0 on.
    #[test]
    fn the_hash_function_is_the_one_that_is_named() {
        let bytes: Vec<u8> = (0..63).collect();
        let hasher = SipHasher24::new_with_key(bytes.first_chunk().unwrap());
        for (length, expected) in [
            (0, 0xa3817f04ba25a8e66df67214c7550293_u128),
            (1, 0xda87c1d86b99af44347659119b22fc45),
            (15, 0x5493e99933b0a8117e08ec0f97cfc3d9),
            (63, 0x5150d1772f50834a503e069a973fbd7c),
        ] {
            let hash = u128::from(hasher.hash(&bytes[..length]));
            assert_eq!(hash.to_le_bytes(), expected.to_be_bytes(), "{length} bytes");
        }
    }

    #[test]
    fn a_key_hashes_as_the_bytes_of_its_namespace_and_its_own() {
        let hash_key = [3; 32];
        let hasher = KeyHasher::new(hash_key);
        let derived = blake3::derive_key(CONTEXT, &hash_key);
        let plain = SipHasher24::new_with_key(derived.first_chunk().unwrap());
        for bytes in [0, 1, 7, 8, 9, 60, 64, 1024, 70_000] {
            let key = vec![0x5A; bytes];
            for (namespace, number) in [
                (Namespace::Collection(0), 0),
                (Namespace::Collection(9), 9),
                (Namespace::Collection(u32::MAX), (1 << 32) - 1),
                (Namespace::Pieces, 1_u64 << 32),
            ] {
                let whole = plain.hash(&[&number.to_le_bytes()[..], &key].concat());
                let expected = u128::from(whole).to_le_bytes();
                assert_eq!(hasher.hash(namespace, &key), expected, "{bytes} of {namespace:?}");
            }
        }
    }

    #[test]
    fn debug_output_names_no_key() {
        assert_eq!(format!("{:?}", KeyHasher::new([0xAB; 32])), "KeyHasher { .. }");
    }
}
