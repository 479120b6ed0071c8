//! A deserializer that notes what it is asked for, and answers with plain values.

use std::any::type_name;
use std::borrow::Cow::{self, Borrowed, Owned};
use std::fmt;
use std::iter::empty;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeSeed, Deserializer, Error, VariantAccess, Visitor};

use super::access::{AtField, Choice, Elements, Fields};
use super::trace::{Asked, Container, Place, Question, Trace};

/// What is read as text, in the forms that common types take: numbers, dates and times, addresses,
/// URLs, UUIDs.
const STRINGS: &[Cow<'static, str>] = &[
    Borrowed(""),
    Borrowed("0"),
    Borrowed("2000-01-01T00:00:00Z"),
    Borrowed("2000-01-01T00:00:00"),
    Borrowed("2000-01-01"),
    Borrowed("00:00:00"),
    Borrowed("0.0.0.0"),
    Borrowed("::"),
    Borrowed("0.0.0.0:0"),
    Borrowed("[::]:0"),
    Borrowed("http://a/"),
    Borrowed("00000000-0000-0000-0000-000000000000"),
];

/// Nothing, a UUID, a hash.
const BYTES: &[Cow<'static, [u8]>] = &[Borrowed(&[]), Borrowed(&[0; 16]), Borrowed(&[0; 32])];

/// The value that was given is not taken. What the type says about it is not of interest.
#[derive(Debug)]
pub(super) struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("refused")
    }
}

impl std::error::Error for Refused {}

impl Error for Refused {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

/// Reads one place.
pub(super) struct Tracer<'t> {
    trace: &'t mut Trace,
    place: Place,
}

impl<'t> Tracer<'t> {
    pub(super) fn new(trace: &'t mut Trace, place: Place) -> Self {
        Self { trace, place }
    }

    /// Reads a plain value: the first of `answers` that is not known to be refused. Before those, where numbers are
    /// given, comes what `of_number` makes of one.
    fn plain<A: Clone, R>(
        self,
        word: &'static str,
        answers: &[A],
        of_number: impl FnOnce(u32) -> Option<A>,
        visit: impl FnOnce(A) -> Result<R, Refused>,
    ) -> Result<R, Refused> {
        let place = self.trace.note(self.place, Question::Plain(word));
        let Asked::Plain { answer, number_refused, .. } = self.trace.places[place] else {
            return Err(Refused);
        };
        let next = &mut self.trace.next_number;
        let number = next.filter(|_| !number_refused).and_then(of_number);
        let is_number = number.is_some();
        *next = next.map(|next| next + u32::from(is_number));
        let visited = visit(number.unwrap_or_else(|| answers[answer].clone()));
        if visited.is_ok() || !is_number && answer + 1 == answers.len() {
            return visited;
        }
        if let Asked::Plain { answer, number_refused, .. } = &mut self.trace.places[place] {
            match is_number {
                true => *number_refused = true,
                false => *answer += 1,
            }
            self.trace.learn();
        }
        visited
    }

    /// Reads text.
    fn string<'de, V: Visitor<'de>>(
        self,
        visitor: V,
        of_number: impl FnOnce(u32) -> Option<Cow<'static, str>>,
    ) -> Result<V::Value, Refused> {
        self.plain("string", STRINGS, of_number, |answer| match answer {
            Borrowed(text) => visitor.visit_borrowed_str(text),
            Owned(text) => visitor.visit_string(text),
        })
    }

    /// Reads whatever the type takes.
    fn any<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.plain(
            "any",
            &[0, 1, 2, 3, 4],
            |_| None,
            |answer| match answer {
                0 => visitor.visit_unit(),
                1 => visitor.visit_u64(0),
                2 => visitor.visit_borrowed_str(""),
                3 => visitor.visit_seq(SeqDeserializer::new(empty::<()>())),
                _ => visitor.visit_map(MapDeserializer::new(empty::<((), ())>())),
            },
        )
    }

    /// Reads a container: with content and, where that is known or refused, without.
    fn container<R>(
        self,
        container: Container,
        read: impl FnOnce(&mut Trace, &[Place]) -> Result<R, Refused>,
    ) -> Result<R, Refused> {
        self.trace.ask(|trace| {
            let place = trace.note(self.place, Question::Container(container));
            if !trace.tries_content(place) {
                return read(trace, &[]);
            }
            let Asked::Container { inner, .. } = &trace.places[place] else {
                return Err(Refused);
            };
            let inner = inner.clone();
            trace.attempt(place, 0, |trace| read(trace, &inner))
        })
    }

    /// Reads a type with a name: `read` gets the place of what it holds.
    fn named<'de, V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
        read: impl FnOnce(Tracer<'_>, V) -> Result<V::Value, Refused>,
    ) -> Result<V::Value, Refused> {
        // A sign between a format and a type of its own, such as serde_json's `RawValue`.
        if name.starts_with('$') {
            // Not a type of the user's that happens to be called so.
            self.trace.asks_the_data |= name.contains("private");
            return self.any(visitor);
        }
        let number = self.trace.type_number(type_name::<V>(), name);
        self.trace.note(self.place, Question::Type(number));
        let place = self.trace.types[number].place;
        self.trace
            .ask(|trace| trace.within(number, |trace| read(Tracer::new(trace, place), visitor)))
    }

    fn unit(self) {
        self.trace.note(self.place, Question::Unit);
    }

    fn newtype(self) -> Result<Self, Refused> {
        let place = self.trace.note(self.place, Question::Tuple(1));
        match &self.trace.places[place] {
            Asked::Tuple { elements, .. } => Ok(Self { place: elements[0], trace: self.trace }),
            _ => Err(Refused),
        }
    }

    fn tuple<'de, V: Visitor<'de>>(self, count: usize, visitor: V) -> Result<V::Value, Refused> {
        let place = self.trace.note(self.place, Question::Tuple(count));
        let Asked::Tuple { elements, .. } = &self.trace.places[place] else { return Err(Refused) };
        let places = elements.clone();
        visitor.visit_seq(Elements::new(self.trace, places, count))
    }

    fn fields<'de, V: Visitor<'de>>(
        self,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let place = self.trace.note(self.place, Question::Fields(names));
        let Asked::Fields { fields, in_sequence } = &self.trace.places[place] else {
            return Err(Refused);
        };
        if *in_sequence {
            let places: Vec<Place> = fields.iter().map(|field| field.place).collect();
            let count = places.len();
            return visitor.visit_seq(Elements::new(self.trace, places, count));
        }
        let mut at = AtField::new(place, fields);
        let visited = visitor.visit_map(Fields { trace: &mut *self.trace, at: &mut at });
        if visited.is_err() {
            at.note_refusal(self.trace);
        }
        visited
    }
}

/// A number, where the type has such.
fn integer<A: TryFrom<u32>>(number: u32) -> Option<A> {
    number.try_into().ok()
}

/// Values that hold no others, the answers to try, and what is made of a number.
macro_rules! plain {
    ($($method:ident $word:literal $visit:ident $answers:expr, $of_number:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
            self.plain($word, $answers, $of_number, |answer| visitor.$visit(answer))
        }
    )*};
}

impl<'de> Deserializer<'de> for Tracer<'_> {
    type Error = Refused;

    plain! {
        deserialize_bool "bool" visit_bool &[false, true], |_| None;
        deserialize_i8 "i8" visit_i8 &[0, 1], integer;
        deserialize_i16 "i16" visit_i16 &[0, 1], integer;
        deserialize_i32 "i32" visit_i32 &[0, 1], integer;
        deserialize_i64 "i64" visit_i64 &[0, 1], integer;
        deserialize_i128 "i128" visit_i128 &[0, 1], integer;
        deserialize_u8 "u8" visit_u8 &[0, 1], integer;
        deserialize_u16 "u16" visit_u16 &[0, 1], integer;
        deserialize_u32 "u32" visit_u32 &[0, 1], integer;
        deserialize_u64 "u64" visit_u64 &[0, 1], integer;
        deserialize_u128 "u128" visit_u128 &[0, 1], integer;
        deserialize_f32 "f32" visit_f32 &[0.0, 1.0], |number| u16::try_from(number).ok().map(f32::from);
        deserialize_f64 "f64" visit_f64 &[0.0, 1.0], |number| Some(number.into());
        deserialize_char "char" visit_char &['0', 'a'], char::from_u32;
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_string(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.string(visitor, |number| Some(Owned(number.to_string())))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.string(visitor, |_| None)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_byte_buf(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let of_number = |number| u8::try_from(number).ok().map(|byte| Owned(vec![byte]));
        self.plain("bytes", BYTES, of_number, |answer| match answer {
            Borrowed(bytes) => visitor.visit_borrowed_bytes(bytes),
            Owned(bytes) => visitor.visit_byte_buf(bytes),
        })
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.trace.asks_the_data = true;
        self.any(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_any(visitor)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.plain("()", &[()], |_| None, |()| visitor.visit_unit())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.container(Container::Option, |trace, inner| match inner.first() {
            Some(inner) => visitor.visit_some(Tracer::new(trace, *inner)),
            None => visitor.visit_none(),
        })
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.container(Container::Sequence, |trace, inner| {
            visitor.visit_seq(Elements::new(trace, inner.to_vec(), inner.len()))
        })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.container(Container::Map, |trace, inner| {
            visitor.visit_map(Elements::new(trace, inner.to_vec(), inner.len()))
        })
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.named(name, visitor, |tracer, visitor| {
            tracer.unit();
            visitor.visit_unit()
        })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.named(name, visitor, |tracer, visitor| visitor.visit_newtype_struct(tracer.newtype()?))
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        count: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let place = self.place;
        self.trace.ask(|trace| Tracer::new(trace, place).tuple(count, visitor))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        count: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.named(name, visitor, |tracer, visitor| tracer.tuple(count, visitor))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.named(name, visitor, |tracer, visitor| tracer.fields(fields, visitor))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.named(name, visitor, |Tracer { trace, place }, visitor| {
            let place = trace.note(place, Question::Variants(variants));
            let number = trace.choose_variant(place).ok_or(Refused)?;
            trace
                .attempt(place, number, |trace| visitor.visit_enum(Choice { trace, place, number }))
        })
    }

    fn is_human_readable(&self) -> bool {
        self.trace.human_readable
    }
}

impl<'de> VariantAccess<'de> for Tracer<'_> {
    type Error = Refused;

    fn unit_variant(self) -> Result<(), Refused> {
        self.unit();
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Refused> {
        seed.deserialize(self.newtype()?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, count: usize, visitor: V) -> Result<V::Value, Refused> {
        self.tuple(count, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.fields(fields, visitor)
    }
}
