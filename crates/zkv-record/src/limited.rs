//! A deserializer around another one that counts how deep and how many: what a type asks for is
//! checked before it is done.
//!
//! Bytes that somebody forged can nest a recursive type deeper than the stack, and claim a sequence
//! of any length whose elements take no bytes. Neither can be known from the bytes alone, so the
//! counting happens where the type's own `Deserialize` comes by.

mod any;
mod bytes;

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use any::Any;
use bytes::Bytes;

use crate::error::{CodecError, RecordError};
use crate::limits::elements_max;

/// How much more a value may hold.
pub(crate) struct Left {
    /// Levels below the present one.
    depth: u32,
    depth_max: u32,
    /// Elements of sequences and maps.
    elements: usize,
    elements_max: usize,
    /// Which of them was used up: the error itself is of the wrapped deserializer's type.
    exhausted: Option<Exhausted>,
}

/// What a value has too much of.
#[derive(Clone, Copy)]
enum Exhausted {
    Depth,
    Elements,
}

impl Left {
    /// What a value of so many bytes may hold.
    pub(crate) fn new(bytes: usize, depth_max: u32) -> Self {
        let elements_max = elements_max(bytes);
        let (depth, elements) = (depth_max, elements_max);
        Self { depth, depth_max, elements, elements_max, exhausted: None }
    }

    /// Why a value is not read that failed with `error`.
    pub(crate) fn why(&self, error: CodecError) -> RecordError {
        match self.exhausted {
            Some(Exhausted::Depth) => RecordError::TooDeep { max: self.depth_max },
            Some(Exhausted::Elements) => RecordError::TooManyElements { max: self.elements_max },
            None => RecordError::Decode(error),
        }
    }

    #[inline]
    fn descend<E: Error>(&mut self) -> Result<(), E> {
        match self.depth.checked_sub(1) {
            Some(depth) => {
                self.depth = depth;
                Ok(())
            }
            None => self.fail(Exhausted::Depth),
        }
    }

    #[inline]
    fn take_elements<E: Error>(&mut self, count: usize) -> Result<(), E> {
        match self.elements.checked_sub(count) {
            Some(elements) => {
                self.elements = elements;
                Ok(())
            }
            None => self.fail(Exhausted::Elements),
        }
    }

    #[cold]
    fn fail<E: Error>(&mut self, what: Exhausted) -> Result<(), E> {
        self.exhausted = Some(what);
        Err(E::custom("a limit is exceeded"))
    }
}

/// A deserializer, a visitor, a seed or an access, and what is left. `IN_SEQUENCE` where the bytes
/// say how many elements there are, and not the type, and each is to be counted.
pub(crate) struct Limited<'a, T, const IN_SEQUENCE: bool = false> {
    inner: T,
    left: &'a mut Left,
}

impl<'a, T> Limited<'a, T> {
    #[inline]
    pub(crate) fn new(inner: T, left: &'a mut Left) -> Self {
        Self { inner, left }
    }
}

/// Methods that nest nothing, and so need no counting.
macro_rules! forward {
    ($($method:ident($($argument:ident: $type:ty),*);)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method($($argument,)* visitor)
        }
    )*};
}

/// Methods that go one level down.
macro_rules! nest {
    ($($method:ident($($argument:ident: $type:ty),*);)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            self.left.descend()?;
            let value = self.inner.$method($($argument,)* Limited::new(visitor, &mut *self.left))?;
            self.left.depth += 1;
            Ok(value)
        }
    )*};
}

/// Methods that may go one level down: the bytes decide.
macro_rules! leave_open {
    ($($method:ident();)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method(Any::new(visitor, self.left))
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Limited<'_, D> {
    type Error = D::Error;

    forward! {
        deserialize_bool();
        deserialize_i8();
        deserialize_i16();
        deserialize_i32();
        deserialize_i64();
        deserialize_i128();
        deserialize_u8();
        deserialize_u16();
        deserialize_u32();
        deserialize_u64();
        deserialize_u128();
        deserialize_f32();
        deserialize_f64();
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_unit();
        deserialize_unit_struct(name: &'static str);
        deserialize_identifier();
        deserialize_ignored_any();
    }

    leave_open! {
        deserialize_any();
        // JSON has bytes as an array.
        deserialize_bytes();
        deserialize_byte_buf();
    }

    nest! {
        deserialize_option();
        deserialize_newtype_struct(name: &'static str);
        deserialize_tuple(count: usize);
        deserialize_tuple_struct(name: &'static str, count: usize);
        deserialize_map();
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.left.descend()?;
        // JSON has bytes as an array.
        let value = if !self.inner.is_human_readable() && bytes::asks_for_bytes::<V>() {
            self.inner.deserialize_bytes(Bytes { visitor, left: &mut *self.left })?
        } else {
            let visitor = Limited::<_, true> { inner: visitor, left: &mut *self.left };
            self.inner.deserialize_seq(visitor)?
        };
        self.left.depth += 1;
        Ok(value)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// What the methods that nest may call, and nothing else.
impl<'de, V: Visitor<'de>, const IN_SEQUENCE: bool> Visitor<'de> for Limited<'_, V, IN_SEQUENCE> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(formatter)
    }

    #[inline]
    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    #[inline]
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(Limited::new(deserializer, self.left))
    }

    #[inline]
    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<V::Value, D::Error> {
        self.inner.visit_newtype_struct(Limited::new(deserializer, self.left))
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.inner.visit_seq(Limited::<_, IN_SEQUENCE> { inner: access, left: self.left })
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Limited::new(access, self.left))
    }

    #[inline]
    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(Limited::new(access, self.left))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Limited<'_, S> {
    type Value = S::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Limited::new(deserializer, self.left))
    }
}

impl<'de, A: SeqAccess<'de>, const IN_SEQUENCE: bool> SeqAccess<'de>
    for Limited<'_, A, IN_SEQUENCE>
{
    type Error = A::Error;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        let element = self.inner.next_element_seed(Limited::new(seed, &mut *self.left))?;
        if IN_SEQUENCE && element.is_some() {
            self.left.take_elements(1)?;
        }
        Ok(element)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Limited<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        let key = self.inner.next_key_seed(Limited::new(seed, &mut *self.left))?;
        if key.is_some() {
            self.left.take_elements(1)?;
        }
        Ok(key)
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(Limited::new(seed, &mut *self.left))
    }

    /// Whoever reserves memory by it gets no more than what can still come: postcard does not hold
    /// the count against the bytes here.
    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint().map(|count| count.min(self.left.elements))
    }
}

impl<'de, 'a, A: EnumAccess<'de>> EnumAccess<'de> for Limited<'a, A> {
    type Error = A::Error;
    type Variant = Limited<'a, A::Variant>;

    #[inline]
    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), A::Error> {
        let (value, variant) = self.inner.variant_seed(seed)?;
        Ok((value, Limited::new(variant, self.left)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Limited<'_, A> {
    type Error = A::Error;

    #[inline]
    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    #[inline]
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.newtype_variant_seed(Limited::new(seed, self.left))
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(
        self,
        count: usize,
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.inner.tuple_variant(count, Limited::new(visitor, self.left))
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.inner.struct_variant(fields, Limited::new(visitor, self.left))
    }
}
