//! A `Vec<u8>`, read as bytes.
//!
//! serde reads it element by element, since for it `u8` is a type like any other: 3 ns a byte, three
//! times what decompressing it takes. postcard writes both alike, so where it is a `Vec<u8>` that
//! asks, it gets all of its bytes at once.

use std::any::TypeId;
use std::fmt;

use castaway::cast;
use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

use super::Left;

/// Whether `V` is what serde reads a `Vec<u8>` with, and whatever else is made of one.
#[inline]
pub(super) fn asks_for_bytes<'de, V: Visitor<'de>>() -> bool {
    let asked = Vec::<u8>::deserialize(WhoAsks);
    asked.is_err_and(|Asked(visitor)| visitor == Some(typeid::of::<V>()))
}

/// Takes bytes in the place of a visitor that [`asks_for_bytes`].
pub(super) struct Bytes<'a, V> {
    pub visitor: V,
    pub left: &'a mut Left,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Bytes<'_, V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(formatter)
    }

    #[inline]
    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<V::Value, E> {
        self.left.take_elements(bytes.len())?;
        let mut value = None::<V::Value>;
        if let Ok(vec) = cast!(&mut value, &mut Option<Vec<u8>>) {
            *vec = Some(bytes.to_vec());
        }
        value.ok_or_else(|| E::invalid_type(Unexpected::Bytes(bytes), &self.visitor))
    }
}

/// A deserializer whose error is the type of the visitor that asks it for a sequence.
struct WhoAsks;

#[derive(Debug)]
struct Asked(Option<TypeId>);

impl<'de> Deserializer<'de> for WhoAsks {
    type Error = Asked;

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Asked> {
        Err(Asked(Some(typeid::of::<V>())))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Asked> {
        Err(Asked(None))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl Error for Asked {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self(None)
    }
}

impl std::error::Error for Asked {}

impl fmt::Display for Asked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("who asks is all that was of interest")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Notes whether the visitor of a sequence asks for bytes.
    struct Notes<'a>(&'a mut bool);

    impl<'de> Deserializer<'de> for Notes<'_> {
        type Error = Asked;

        fn deserialize_seq<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Asked> {
            *self.0 = asks_for_bytes::<V>();
            Err(Asked(None))
        }

        fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Asked> {
            self.deserialize_seq(visitor)
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
            unit unit_struct newtype_struct tuple tuple_struct map struct enum identifier ignored_any
        }
    }

    fn is_read_as_bytes<T: serde::de::DeserializeOwned>() -> bool {
        let mut asks = false;
        assert!(T::deserialize(Notes(&mut asks)).is_err());
        asks
    }

    #[test]
    fn bytes_are_told_from_what_is_like_them() {
        assert!(is_read_as_bytes::<Vec<u8>>());
        assert!(is_read_as_bytes::<Box<[u8]>>());
        assert!(!is_read_as_bytes::<Vec<i8>>());
        assert!(!is_read_as_bytes::<Vec<bool>>());
        assert!(!is_read_as_bytes::<Vec<()>>());
        assert!(!is_read_as_bytes::<Vec<Vec<u8>>>());
        assert!(!is_read_as_bytes::<VecDeque<u8>>());
        assert!(!is_read_as_bytes::<[u8; 3]>());
        assert!(!is_read_as_bytes::<String>());
    }
}
