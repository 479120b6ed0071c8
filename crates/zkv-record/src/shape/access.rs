//! What a tracer gives of sequences, maps, structs and enums.

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::trace::{Asked, Field, Place, Trace};
use super::tracer::{Refused, Tracer};

/// So many elements, or one key and its value.
pub(super) struct Elements<'t> {
    trace: &'t mut Trace,
    /// Elements behind the last place are read there, too.
    places: Vec<Place>,
    count: usize,
    next: usize,
}

impl<'t> Elements<'t> {
    pub(super) fn new(trace: &'t mut Trace, places: Vec<Place>, count: usize) -> Self {
        Self { trace, places, count, next: 0 }
    }
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Refused;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Refused> {
        let place = self.places.get(self.next).or(self.places.last()).copied();
        let Some(place) = place.filter(|_| self.next < self.count) else { return Ok(None) };
        self.next += 1;
        seed.deserialize(Tracer::new(self.trace, place)).map(Some)
    }
}

impl<'de> MapAccess<'de> for Elements<'_> {
    type Error = Refused;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Refused> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Refused> {
        self.next_element_seed(seed)?.ok_or(Refused)
    }
}

/// The fields of a struct as a map, which names them: they can come in any order.
pub(super) struct Fields<'t, 'a> {
    pub trace: &'t mut Trace,
    pub at: &'a mut AtField,
}

/// How far a struct was read.
pub(super) struct AtField {
    place: Place,
    order: Vec<usize>,
    next: usize,
    /// The field whose name was read, and whose value was not.
    named: Option<usize>,
}

impl AtField {
    pub(super) fn new(place: Place, fields: &[Field]) -> Self {
        let mut order: Vec<usize> =
            (0..fields.len()).filter(|number| !fields[*number].alias).collect();
        order.sort_by_key(|number| fields[*number].refused);
        Self { place, order, next: 0, named: None }
    }

    /// Learns from the type's refusal what not to give it the next time.
    pub(super) fn note_refusal(&self, trace: &mut Trace) {
        let Asked::Fields { fields, in_sequence } = &mut trace.places[self.place] else { return };
        match self.named {
            Some(number) => fields[number].alias = true,
            None if self.next == 0 => *in_sequence = true,
            None => return,
        }
        trace.learn();
    }
}

impl<'de> MapAccess<'de> for Fields<'_, '_> {
    type Error = Refused;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Refused> {
        let Some(number) = self.at.order.get(self.at.next).copied() else { return Ok(None) };
        self.at.next += 1;
        let Asked::Fields { fields, .. } = &self.trace.places[self.at.place] else {
            return Err(Refused);
        };
        let name = Name { name: fields[number].name, number };
        let key = seed.deserialize(name)?;
        self.at.named = Some(number);
        Ok(Some(key))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Refused> {
        let number = self.at.named.take().ok_or(Refused)?;
        let Asked::Fields { fields, .. } = &self.trace.places[self.at.place] else {
            return Err(Refused);
        };
        let value = seed.deserialize(Tracer::new(self.trace, fields[number].place));
        if value.is_err()
            && let Asked::Fields { fields, .. } = &mut self.trace.places[self.at.place]
            && !std::mem::replace(&mut fields[number].refused, true)
        {
            self.trace.learn();
        }
        value
    }
}

/// One variant of an enum.
pub(super) struct Choice<'t> {
    pub trace: &'t mut Trace,
    pub place: Place,
    pub number: usize,
}

impl<'de, 't> EnumAccess<'de> for Choice<'t> {
    type Error = Refused;
    type Variant = Tracer<'t>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Tracer<'t>), Refused> {
        let Asked::Variants(variants) = &self.trace.places[self.place] else {
            return Err(Refused);
        };
        let variant = &variants[self.number];
        let value = seed.deserialize(Name { name: variant.name, number: self.number })?;
        let place = variant.place;
        Ok((value, Tracer::new(self.trace, place)))
    }
}

/// The name of a field or variant, or its number where that is asked for.
struct Name {
    name: &'static str,
    number: usize,
}

impl<'de> Deserializer<'de> for Name {
    type Error = Refused;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_borrowed_str(self.name)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_u64(self.number as u64)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_u64(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}
