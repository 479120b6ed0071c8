//! A serializer around another one that counts how deep and how many, as
//! [`limited`](crate::limited) does of what is read: what nobody could read is not written. It never counts
//! less than any way to read the same bytes does.
//!
//! It also hands over bytes at once. serde writes a `Vec<u8>` element by element, another 3 ns a byte; its
//! encoding is that of bytes, as postcard and as JSON. What is caught are values of their own, fields, and
//! what is optional; elements of sequences and maps come as references, which cannot be told.

use std::cell::Cell;
use std::fmt;

use castaway::cast;
use serde::ser::{
    Error, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use crate::error::{CodecError, RecordError};

/// What a reader will count of a value.
pub(crate) struct Counts {
    depth_max: u32,
    /// Whether it becomes JSON: fields have names, so that one may be left out, bytes are a sequence, and
    /// numbers are finite.
    is_json: bool,
    deepest: Cell<u32>,
    elements: Cell<usize>,
    /// What nobody could read: the error itself is of the wrapped serializer's type.
    unreadable: Cell<Option<Unreadable>>,
}

/// Why a value could not be read.
#[derive(Clone, Copy)]
enum Unreadable {
    TooDeep,
    /// JSON has no such numbers.
    NotFinite,
}

impl Counts {
    pub(crate) fn new(depth_max: u32, is_json: bool) -> Self {
        let (deepest, elements, unreadable) = (Cell::new(0), Cell::new(0), Cell::new(None));
        Self { depth_max, is_json, deepest, elements, unreadable }
    }

    /// How many levels it nests.
    pub(crate) fn levels(&self) -> u32 {
        self.deepest.get()
    }

    /// Those of all sequences and maps.
    pub(crate) fn elements(&self) -> usize {
        self.elements.get()
    }

    /// Why a value is not written that failed with `error`.
    pub(crate) fn why(&self, error: CodecError) -> RecordError {
        match self.unreadable.get() {
            Some(Unreadable::TooDeep) => RecordError::TooDeep { max: self.depth_max },
            Some(Unreadable::NotFinite) => RecordError::Encode(CodecError::json_not_finite()),
            None => RecordError::Encode(error),
        }
    }

    #[cold]
    fn fail<E: Error>(&self, why: Unreadable) -> E {
        self.unreadable.set(Some(why));
        E::custom("it could not be read")
    }
}

/// A value, a serializer, or what a serializer goes on with.
pub(crate) struct Counted<'a, T> {
    inner: T,
    counts: &'a Counts,
    /// Levels that it lies within.
    depth: u32,
}

impl<'a, T> Counted<'a, T> {
    #[inline]
    pub(crate) fn new(inner: T, counts: &'a Counts) -> Self {
        Self { inner, counts, depth: 0 }
    }

    /// What belongs to this, on the same level.
    #[inline]
    fn with<U>(&self, inner: U) -> Counted<'a, U> {
        Counted { inner, counts: self.counts, depth: self.depth }
    }

    #[inline]
    fn descend<E: Error>(&mut self) -> Result<(), E> {
        let Self { counts, depth, .. } = self;
        if *depth == counts.depth_max {
            return Err(counts.fail(Unreadable::TooDeep));
        }
        *depth += 1;
        counts.deepest.set(counts.deepest.get().max(*depth));
        Ok(())
    }

    #[inline]
    fn check_finite<E: Error>(&self, is_finite: bool) -> Result<(), E> {
        if is_finite || !self.counts.is_json {
            return Ok(());
        }
        Err(self.counts.fail(Unreadable::NotFinite))
    }

    #[inline]
    fn count(&self, elements: usize) {
        let all = &self.counts.elements;
        all.set(all.get().saturating_add(elements));
    }
}

impl<T: Serialize + ?Sized> Serialize for Counted<'_, &T> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Ok(bytes) = cast!(self.inner, &Vec<u8>) {
            self.with(serializer).serialize_elements(bytes)
        } else if let Ok(bytes) = cast!(self.inner, &[u8]) {
            self.with(serializer).serialize_elements(bytes)
        } else {
            self.inner.serialize(self.with(serializer))
        }
    }
}

impl<S: Serializer> Counted<'_, S> {
    /// A sequence of bytes, as if it were bytes.
    #[inline]
    fn serialize_elements(mut self, bytes: &[u8]) -> Result<S::Ok, S::Error> {
        self.descend()?;
        self.count(bytes.len());
        self.inner.serialize_bytes(bytes)
    }
}

/// Methods whose values hold no others.
macro_rules! forward {
    ($($method:ident($($argument:ident: $type:ty),*);)*) => {$(
        #[inline]
        fn $method(self, $($argument: $type),*) -> Result<S::Ok, S::Error> {
            self.inner.$method($($argument),*)
        }
    )*};
}

/// Methods whose values hold no others, and are read as what may hold one.
macro_rules! nest {
    ($($method:ident($($argument:ident: $type:ty),*);)*) => {$(
        #[inline]
        fn $method(mut self, $($argument: $type),*) -> Result<S::Ok, S::Error> {
            self.descend()?;
            self.inner.$method($($argument),*)
        }
    )*};
}

/// Methods that begin what holds others.
macro_rules! begin {
    ($($method:ident($($argument:ident: $type:ty),*) -> $kind:ident;)*) => {$(
        #[inline]
        fn $method(mut self, $($argument: $type),*) -> Result<Self::$kind, S::Error> {
            self.descend()?;
            let Self { inner, counts, depth } = self;
            Ok(Counted { inner: inner.$method($($argument),*)?, counts, depth })
        }
    )*};
}

/// Methods that begin a variant that holds others. In JSON it is a map of one key with a map or an array, two
/// levels for whoever reads it as anything, such as an untagged enum; its own type counts one.
macro_rules! begin_variant {
    ($($method:ident -> $kind:ident;)*) => {$(
        #[inline]
        fn $method(
            mut self,
            name: &'static str,
            index: u32,
            variant: &'static str,
            count: usize,
        ) -> Result<Self::$kind, S::Error> {
            self.descend()?;
            if self.counts.is_json {
                self.descend()?;
            }
            let Self { inner, counts, depth } = self;
            Ok(Counted { inner: inner.$method(name, index, variant, count)?, counts, depth })
        }
    )*};
}

impl<'a, S: Serializer> Serializer for Counted<'a, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Counted<'a, S::SerializeSeq>;
    type SerializeTuple = Counted<'a, S::SerializeTuple>;
    type SerializeTupleStruct = Counted<'a, S::SerializeTupleStruct>;
    type SerializeTupleVariant = Counted<'a, S::SerializeTupleVariant>;
    type SerializeMap = Counted<'a, S::SerializeMap>;
    type SerializeStruct = Counted<'a, S::SerializeStruct>;
    type SerializeStructVariant = Counted<'a, S::SerializeStructVariant>;

    forward! {
        serialize_bool(value: bool);
        serialize_i8(value: i8);
        serialize_i16(value: i16);
        serialize_i32(value: i32);
        serialize_i64(value: i64);
        serialize_i128(value: i128);
        serialize_u8(value: u8);
        serialize_u16(value: u16);
        serialize_u32(value: u32);
        serialize_u64(value: u64);
        serialize_u128(value: u128);
        serialize_char(value: char);
        serialize_str(value: &str);
        serialize_unit();
        serialize_unit_struct(name: &'static str);
    }

    nest! {
        serialize_none();
    }

    begin! {
        serialize_tuple(count: usize) -> SerializeTuple;
        serialize_tuple_struct(name: &'static str, count: usize) -> SerializeTupleStruct;
        serialize_struct(name: &'static str, count: usize) -> SerializeStruct;
    }

    begin_variant! {
        serialize_tuple_variant -> SerializeTupleVariant;
        serialize_struct_variant -> SerializeStructVariant;
    }

    #[inline]
    fn serialize_unit_variant(
        mut self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.descend()?;
        self.inner.serialize_unit_variant(name, index, variant)
    }

    #[inline]
    fn serialize_f32(self, value: f32) -> Result<S::Ok, S::Error> {
        self.check_finite(value.is_finite())?;
        self.inner.serialize_f32(value)
    }

    #[inline]
    fn serialize_f64(self, value: f64) -> Result<S::Ok, S::Error> {
        self.check_finite(value.is_finite())?;
        self.inner.serialize_f64(value)
    }

    #[inline]
    fn serialize_bytes(mut self, value: &[u8]) -> Result<S::Ok, S::Error> {
        if self.counts.is_json {
            self.descend()?;
        }
        self.inner.serialize_bytes(value)
    }

    #[inline]
    fn serialize_seq(mut self, count: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        self.descend()?;
        self.count(count.unwrap_or_default());
        let Self { inner, counts, depth } = self;
        Ok(Counted { inner: inner.serialize_seq(count)?, counts, depth })
    }

    #[inline]
    fn serialize_map(mut self, count: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        self.descend()?;
        self.count(count.unwrap_or_default());
        let Self { inner, counts, depth } = self;
        Ok(Counted { inner: inner.serialize_map(count)?, counts, depth })
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(mut self, value: &T) -> Result<S::Ok, S::Error> {
        self.descend()?;
        let value = self.with(value);
        self.inner.serialize_some(&value)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        mut self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.descend()?;
        let value = self.with(value);
        self.inner.serialize_newtype_struct(name, &value)
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        mut self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.descend()?;
        let value = self.with(value);
        self.inner.serialize_newtype_variant(name, index, variant, &value)
    }

    #[inline]
    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.collect_str(value)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// What a serializer goes on with, where elements have no names.
macro_rules! elements {
    ($($kind:ident $method:ident;)*) => {$(
        impl<S: $kind> $kind for Counted<'_, S> {
            type Ok = S::Ok;
            type Error = S::Error;

            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
                let value = self.with(value);
                self.inner.$method(&value)
            }

            #[inline]
            fn end(self) -> Result<S::Ok, S::Error> {
                self.inner.end()
            }
        }
    )*};
}

/// The same, where they have.
macro_rules! fields {
    ($($kind:ident;)*) => {$(
        impl<S: $kind> $kind for Counted<'_, S> {
            type Ok = S::Ok;
            type Error = S::Error;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), S::Error> {
                let value = self.with(value);
                self.inner.serialize_field(name, &value)
            }

            /// postcard would write nothing, and read what follows as the field.
            fn skip_field(&mut self, name: &'static str) -> Result<(), S::Error> {
                match self.counts.is_json {
                    true => self.inner.skip_field(name),
                    false => Err(S::Error::custom("a field is left out")),
                }
            }

            #[inline]
            fn end(self) -> Result<S::Ok, S::Error> {
                self.inner.end()
            }
        }
    )*};
}

elements! {
    SerializeSeq serialize_element;
    SerializeTuple serialize_element;
    SerializeTupleStruct serialize_field;
    SerializeTupleVariant serialize_field;
}

fields! {
    SerializeStruct;
    SerializeStructVariant;
}

impl<S: SerializeMap> SerializeMap for Counted<'_, S> {
    type Ok = S::Ok;
    type Error = S::Error;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), S::Error> {
        let key = self.with(key);
        self.inner.serialize_key(&key)
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        let value = self.with(value);
        self.inner.serialize_value(&value)
    }

    #[inline]
    fn end(self) -> Result<S::Ok, S::Error> {
        self.inner.end()
    }
}
