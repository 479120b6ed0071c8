//! A serializer around another one that hands it bytes at once, and counts elements.
//!
//! serde writes a `Vec<u8>` element by element, as [`limited`](crate::limited) tells of reading one:
//! another 3 ns a byte. For postcard its encoding is that of bytes. What is caught are values of their
//! own, fields, and what is optional; elements of sequences and maps come as references, which cannot
//! be told.

use std::cell::Cell;
use std::fmt;

use castaway::cast;
use serde::ser::{
    Error, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

/// A value, a serializer, or what a serializer goes on with.
pub(crate) struct Bulk<'a, T> {
    inner: T,
    /// Those that a reader will count.
    elements: &'a Cell<usize>,
}

impl<'a, T> Bulk<'a, T> {
    #[inline]
    pub(crate) fn new(inner: T, elements: &'a Cell<usize>) -> Self {
        Self { inner, elements }
    }

    #[inline]
    fn count(&self, elements: usize) {
        self.elements.set(self.elements.get().saturating_add(elements));
    }
}

impl<T: Serialize + ?Sized> Serialize for Bulk<'_, &T> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Ok(bytes) = cast!(self.inner, &Vec<u8>) {
            self.count(bytes.len());
            serializer.serialize_bytes(bytes)
        } else if let Ok(bytes) = cast!(self.inner, &[u8]) {
            self.count(bytes.len());
            serializer.serialize_bytes(bytes)
        } else {
            self.inner.serialize(Bulk::new(serializer, self.elements))
        }
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

/// Methods that begin what holds others.
macro_rules! begin {
    ($($method:ident($($argument:ident: $type:ty),*) -> $kind:ident;)*) => {$(
        #[inline]
        fn $method(self, $($argument: $type),*) -> Result<Self::$kind, S::Error> {
            let inner = self.inner.$method($($argument),*)?;
            Ok(Bulk::new(inner, self.elements))
        }
    )*};
}

impl<'a, S: Serializer> Serializer for Bulk<'a, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Bulk<'a, S::SerializeSeq>;
    type SerializeTuple = Bulk<'a, S::SerializeTuple>;
    type SerializeTupleStruct = Bulk<'a, S::SerializeTupleStruct>;
    type SerializeTupleVariant = Bulk<'a, S::SerializeTupleVariant>;
    type SerializeMap = Bulk<'a, S::SerializeMap>;
    type SerializeStruct = Bulk<'a, S::SerializeStruct>;
    type SerializeStructVariant = Bulk<'a, S::SerializeStructVariant>;

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
        serialize_f32(value: f32);
        serialize_f64(value: f64);
        serialize_char(value: char);
        serialize_str(value: &str);
        serialize_bytes(value: &[u8]);
        serialize_none();
        serialize_unit();
        serialize_unit_struct(name: &'static str);
        serialize_unit_variant(name: &'static str, index: u32, variant: &'static str);
    }

    begin! {
        serialize_tuple(count: usize) -> SerializeTuple;
        serialize_tuple_struct(name: &'static str, count: usize) -> SerializeTupleStruct;
        serialize_tuple_variant(
            name: &'static str, index: u32, variant: &'static str, count: usize
        ) -> SerializeTupleVariant;
        serialize_struct(name: &'static str, count: usize) -> SerializeStruct;
        serialize_struct_variant(
            name: &'static str, index: u32, variant: &'static str, count: usize
        ) -> SerializeStructVariant;
    }

    #[inline]
    fn serialize_seq(self, count: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        self.count(count.unwrap_or_default());
        Ok(Bulk::new(self.inner.serialize_seq(count)?, self.elements))
    }

    #[inline]
    fn serialize_map(self, count: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        self.count(count.unwrap_or_default());
        Ok(Bulk::new(self.inner.serialize_map(count)?, self.elements))
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.serialize_some(&Bulk::new(value, self.elements))
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.inner.serialize_newtype_struct(name, &Bulk::new(value, self.elements))
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.inner.serialize_newtype_variant(name, index, variant, &Bulk::new(value, self.elements))
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
        impl<S: $kind> $kind for Bulk<'_, S> {
            type Ok = S::Ok;
            type Error = S::Error;

            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
                self.inner.$method(&Bulk::new(value, self.elements))
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
        impl<S: $kind> $kind for Bulk<'_, S> {
            type Ok = S::Ok;
            type Error = S::Error;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), S::Error> {
                self.inner.serialize_field(name, &Bulk::new(value, self.elements))
            }

            /// postcard would write nothing, and read what follows as the field.
            fn skip_field(&mut self, _: &'static str) -> Result<(), S::Error> {
                Err(S::Error::custom("a field is left out"))
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

impl<S: SerializeMap> SerializeMap for Bulk<'_, S> {
    type Ok = S::Ok;
    type Error = S::Error;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), S::Error> {
        self.inner.serialize_key(&Bulk::new(key, self.elements))
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        self.inner.serialize_value(&Bulk::new(value, self.elements))
    }

    #[inline]
    fn end(self) -> Result<S::Ok, S::Error> {
        self.inner.end()
    }
}
