//! A serializer that writes nothing, and notes what a value would write: the variants of its enums, and numbers.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use crate::codec::Codec;

/// What a value would write.
#[derive(Default)]
pub(super) struct Noted {
    variants: Vec<&'static str>,
    /// Whole numbers, and texts and bytes that stand for such.
    numbers: BTreeSet<u32>,
}

impl Noted {
    /// `None` where the value's `Serialize` fails.
    pub(super) fn of<T: Serialize>(value: &T, codec: Codec) -> Option<Self> {
        let mut noted = Self::default();
        value.serialize(Noting { noted: &mut noted, codec }).ok()?;
        // Sets and maps may have another order each time.
        noted.variants.sort_unstable();
        Some(noted)
    }

    /// The names of all variants, in no order.
    pub(super) fn variants(&self) -> &[&'static str] {
        &self.variants
    }

    /// Whether it has all of `numbers` that `other` has.
    pub(super) fn has_those_of(&self, other: &Self, mut numbers: Range<u32>) -> bool {
        numbers.all(|number| self.numbers.contains(&number) || !other.numbers.contains(&number))
    }
}

/// What a value is read by.
struct Noting<'n> {
    noted: &'n mut Noted,
    codec: Codec,
}

impl Noting<'_> {
    fn number(self, number: impl TryInto<u32>) -> fmt::Result {
        self.noted.numbers.extend(number.try_into().ok());
        Ok(())
    }

    fn inner<T: Serialize + ?Sized>(&mut self, value: &T) -> fmt::Result {
        value.serialize(Noting { noted: &mut *self.noted, codec: self.codec })
    }
}

macro_rules! numbers {
    ($($method:ident($type:ty);)*) => {$(
        fn $method(self, value: $type) -> fmt::Result {
            self.number(value)
        }
    )*};
}

/// Methods whose values have nothing of interest.
macro_rules! nothing {
    ($($method:ident($($argument:ty),*);)*) => {$(
        fn $method(self, $(_: $argument),*) -> fmt::Result {
            Ok(())
        }
    )*};
}

/// Methods that begin what holds others.
macro_rules! begin {
    ($($method:ident($($argument:ty),*);)*) => {$(
        fn $method(self, $(_: $argument),*) -> Result<Self, fmt::Error> {
            Ok(self)
        }
    )*};
}

/// Methods that begin a variant that holds others.
macro_rules! begin_variant {
    ($($method:ident;)*) => {$(
        fn $method(
            self,
            _: &'static str,
            _: u32,
            variant: &'static str,
            _: usize,
        ) -> Result<Self, fmt::Error> {
            self.noted.variants.push(variant);
            Ok(self)
        }
    )*};
}

impl Serializer for Noting<'_> {
    type Ok = ();
    type Error = fmt::Error;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    numbers! {
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_i128(i128);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_u128(u128);
        serialize_char(char);
    }

    nothing! {
        serialize_bool(bool);
        serialize_unit();
        serialize_unit_struct(&'static str);
        serialize_none();
    }

    begin! {
        serialize_seq(Option<usize>);
        serialize_tuple(usize);
        serialize_tuple_struct(&'static str, usize);
        serialize_map(Option<usize>);
        serialize_struct(&'static str, usize);
    }

    begin_variant! {
        serialize_tuple_variant;
        serialize_struct_variant;
    }

    fn serialize_f32(self, value: f32) -> fmt::Result {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> fmt::Result {
        // Whole numbers are shown without a point.
        self.serialize_str(&value.to_string())
    }

    fn serialize_str(self, value: &str) -> fmt::Result {
        self.noted.numbers.extend(value.parse::<u32>().ok());
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> fmt::Result {
        self.noted.numbers.extend(value.iter().map(|byte| u32::from(*byte)));
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(mut self, value: &T) -> fmt::Result {
        self.inner(value)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        mut self,
        _: &'static str,
        value: &T,
    ) -> fmt::Result {
        self.inner(value)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> fmt::Result {
        self.noted.variants.push(variant);
        Ok(())
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        mut self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> fmt::Result {
        self.noted.variants.push(variant);
        self.inner(value)
    }

    fn is_human_readable(&self) -> bool {
        self.codec.is_human_readable()
    }
}

/// What a serializer goes on with.
macro_rules! go_on {
    ($($kind:ident: $($method:ident($($name:ty)?)),*;)*) => {$(
        impl $kind for Noting<'_> {
            type Ok = ();
            type Error = fmt::Error;

            $(fn $method<T: Serialize + ?Sized>(
                &mut self,
                $(_: $name,)?
                value: &T,
            ) -> fmt::Result {
                self.inner(value)
            })*

            fn end(self) -> fmt::Result {
                Ok(())
            }
        }
    )*};
}

go_on! {
    SerializeSeq: serialize_element();
    SerializeTuple: serialize_element();
    SerializeTupleStruct: serialize_field();
    SerializeTupleVariant: serialize_field();
    SerializeMap: serialize_key(), serialize_value();
    SerializeStruct: serialize_field(&'static str);
    SerializeStructVariant: serialize_field(&'static str);
}
