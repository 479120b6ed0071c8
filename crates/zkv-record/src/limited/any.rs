//! The visitor of a value whose bytes, and not its type, say whether it nests.

use std::fmt;

use serde::de::{Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Visitor};

use super::{Left, Limited};

/// A visitor that counts a level where it turns out that there is one.
pub(super) struct Any<'a, V> {
    inner: V,
    left: &'a mut Left,
}

impl<'a, V> Any<'a, V> {
    #[inline]
    pub(super) fn new(inner: V, left: &'a mut Left) -> Self {
        Self { inner, left }
    }
}

/// Methods that nest nothing.
macro_rules! forward {
    ($($method:ident($type:ty);)*) => {$(
        #[inline]
        fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        }
    )*};
}

/// Methods that go one level down.
macro_rules! nest {
    ($($method:ident($trait:ident) in $in_sequence:literal;)*) => {$(
        #[inline]
        fn $method<A: $trait<'de>>(self, access: A) -> Result<V::Value, A::Error> {
            self.left.descend()?;
            let visitor = Limited::<_, $in_sequence> { inner: self.inner, left: &mut *self.left };
            let value = visitor.$method(access)?;
            self.left.depth += 1;
            Ok(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Any<'_, V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(formatter)
    }

    forward! {
        visit_bool(bool);
        visit_i8(i8);
        visit_i16(i16);
        visit_i32(i32);
        visit_i64(i64);
        visit_i128(i128);
        visit_u8(u8);
        visit_u16(u16);
        visit_u32(u32);
        visit_u64(u64);
        visit_u128(u128);
        visit_f32(f32);
        visit_f64(f64);
        visit_char(char);
        visit_str(&str);
        visit_borrowed_str(&'de str);
        visit_string(String);
        visit_bytes(&[u8]);
        visit_borrowed_bytes(&'de [u8]);
        visit_byte_buf(Vec<u8>);
    }

    #[inline]
    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    #[inline]
    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    nest! {
        visit_some(Deserializer) in false;
        visit_newtype_struct(Deserializer) in false;
        visit_seq(SeqAccess) in true;
        visit_map(MapAccess) in false;
        visit_enum(EnumAccess) in false;
    }
}
