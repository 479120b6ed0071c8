//! What was asked for, as a graph, and the search through all that can be asked for.
//!
//! One run of a type's `Deserialize` sees one variant of each enum, so there are as many runs as
//! it takes until one learns nothing new. A recursive type must come to an end in each: where a type
//! is met within itself, an option is none, a sequence empty, and an enum the variant that was read
//! first of all.

use std::ops::Range;

use serde::de::DeserializeOwned;

use super::tracer::{Refused, Tracer};
use crate::codec::Codec;
use crate::limits::DECODE_DEPTH_MAX;

/// How often anything may be asked for, over all runs. 40 enums of 26 variants each, which hold one
/// another, take 10,000 questions and 0.2 s; types of another kind take a hundred.
const QUESTIONS_MAX: u32 = 1 << 17;

/// How many places a graph may have.
const PLACES_MAX: usize = 1 << 14;

/// How many elements of a tuple have places of their own; the others share the last one.
const ELEMENTS_MAX: usize = 64;

/// How deep types without a name nest, from one with a name on: only those that hold themselves nest deeper, and
/// what such a type has of large arrays lies on the stack once a level.
const UNNAMED_DEPTH_MAX: u32 = 32;

/// The first number that is given where each is to be another one: no default, and not the first of a type.
const NUMBER_MIN: u32 = 2;

/// A place in the graph: where something is asked for.
pub(super) type Place = usize;

/// Everything that a type asked for.
pub(super) struct Trace {
    pub places: Vec<Asked>,
    pub types: Vec<Named>,
    pub human_readable: bool,
    /// Whether anything asked the data what it is.
    pub asks_the_data: bool,
    /// The next number to give, where each place is first tried with one that no other has in this run.
    pub next_number: Option<u32>,
    /// The types within which the run is, from the outermost on.
    within: Vec<usize>,
    /// How many of them were met within themselves.
    repeated: u32,
    depth: u32,
    /// How much of that lies within the innermost type with a name.
    unnamed_depth: u32,
    questions: u32,
    /// How often something new was learnt.
    learnt: u32,
    /// Whether the present run learnt anything, or tried anything again.
    moved: bool,
}

/// What was asked for at one place.
#[derive(Debug)]
pub(super) enum Asked {
    /// Nothing: something before it was refused.
    Nothing,
    /// A value that holds no others, by the word for it. A number of its own, where such are given, and so many
    /// answers were refused.
    Plain {
        word: &'static str,
        number_refused: bool,
        answer: usize,
    },
    /// No value at all: what a unit struct and a unit variant hold.
    Unit,
    /// What can be empty.
    Container {
        container: Container,
        attempt: Attempt,
        inner: Vec<Place>,
    },
    Tuple {
        count: usize,
        elements: Vec<Place>,
    },
    /// The fields of a struct. Read in a sequence where the type does not take a map.
    Fields {
        fields: Vec<Field>,
        in_sequence: bool,
    },
    Variants(Vec<Variant>),
    Type(usize),
    /// More than one thing, in different runs.
    Either(Vec<Place>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Container {
    Option,
    Sequence,
    Map,
}

#[derive(Debug)]
pub(super) struct Field {
    pub name: &'static str,
    pub place: Place,
    /// It was refused at least once, and is therefore given last: the others are seen then.
    pub refused: bool,
    /// Its name stands for another field, which was there: it is an alias.
    pub alias: bool,
}

#[derive(Debug)]
pub(super) struct Variant {
    pub name: &'static str,
    pub attempt: Attempt,
    pub place: Place,
}

/// A type with a name.
pub(super) struct Named {
    /// What tells it from another one of this name, such as the same generic type of another
    /// argument: the compiler's name of its visitor. That is held against those of this trace alone
    /// and never shown, as compilers differ in it. Should two types share it, the second is taken
    /// for the first.
    visitor: &'static str,
    pub name: &'static str,
    pub place: Place,
}

/// What became of trying the content of a container, or a variant. Moments are counts of what was
/// learnt.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Attempt {
    tried: bool,
    first_success: Option<u32>,
    /// When that attempt began: what was learnt in it may help the next one.
    last_failure: Option<u32>,
}

impl Attempt {
    /// Whether it has never succeeded, and may now.
    fn is_open(self, now: u32) -> bool {
        self.first_success.is_none() && self.may_succeed(now)
    }

    fn may_succeed(self, now: u32) -> bool {
        self.last_failure.is_none_or(|moment| moment < now)
    }
}

/// What is asked for, before it has places.
#[derive(Clone, Copy)]
pub(super) enum Question {
    Plain(&'static str),
    Unit,
    Container(Container),
    Tuple(usize),
    Fields(&'static [&'static str]),
    Variants(&'static [&'static str]),
    Type(usize),
}

impl Trace {
    /// Everything that `T` asks for.
    pub(super) fn of<T: DeserializeOwned>(codec: Codec) -> Self {
        // Whether the values came about does not matter: what they asked for does.
        Self::with_each(codec, |_: T| ())
    }

    /// As [`Trace::of`], and calls `each` with the values that came about.
    pub(super) fn with_each<T: DeserializeOwned>(codec: Codec, mut each: impl FnMut(T)) -> Self {
        let mut trace = Self::new(codec, None);
        trace.run(|value, _| each(value));
        trace
    }

    /// Calls `each` with values that come about where each number and text within one is another, as far as the
    /// type takes them, and with those numbers.
    pub(super) fn with_each_of_numbers<T: DeserializeOwned>(
        codec: Codec,
        each: impl FnMut(T, Range<u32>),
    ) {
        Self::new(codec, Some(NUMBER_MIN)).run(each);
    }

    fn new(codec: Codec, next_number: Option<u32>) -> Self {
        Self {
            places: vec![Asked::Nothing],
            types: Vec::new(),
            human_readable: codec.is_human_readable(),
            asks_the_data: false,
            next_number,
            within: Vec::new(),
            repeated: 0,
            depth: 0,
            unnamed_depth: 0,
            questions: 0,
            learnt: 0,
            moved: true,
        }
    }

    fn run<T: DeserializeOwned>(&mut self, mut each: impl FnMut(T, Range<u32>)) {
        while std::mem::take(&mut self.moved) && self.questions <= QUESTIONS_MAX {
            self.next_number = self.next_number.map(|_| NUMBER_MIN);
            if let Ok(value) = T::deserialize(Tracer::new(self, 0)) {
                each(value, NUMBER_MIN..self.next_number.unwrap_or(NUMBER_MIN));
            }
        }
    }

    /// Goes one question deeper, for as long as `ask` takes. Refused where that is deeper than a value
    /// may be, or the questions are too many.
    pub(super) fn ask<R>(
        &mut self,
        ask: impl FnOnce(&mut Self) -> Result<R, Refused>,
    ) -> Result<R, Refused> {
        self.questions += 1;
        let is_full = self.questions > QUESTIONS_MAX || self.places.len() > PLACES_MAX;
        let is_deep = self.depth == DECODE_DEPTH_MAX || self.unnamed_depth == UNNAMED_DEPTH_MAX;
        if is_full || is_deep {
            return Err(Refused);
        }
        self.depth += 1;
        self.unnamed_depth += 1;
        let answer = ask(self);
        self.depth -= 1;
        self.unnamed_depth -= 1;
        answer
    }

    /// Goes into the type of `number`, for as long as `ask` takes.
    pub(super) fn within<R>(&mut self, number: usize, ask: impl FnOnce(&mut Self) -> R) -> R {
        let repeats = u32::from(self.within.contains(&number));
        self.within.push(number);
        self.repeated += repeats;
        let unnamed_depth = std::mem::take(&mut self.unnamed_depth);
        let answer = ask(self);
        self.unnamed_depth = unnamed_depth;
        self.repeated -= repeats;
        self.within.pop();
        answer
    }

    /// The number of a named type.
    pub(super) fn type_number(&mut self, visitor: &'static str, name: &'static str) -> usize {
        let known = |one: &Named| one.visitor == visitor && one.name == name;
        if let Some(number) = self.types.iter().position(known) {
            return number;
        }
        let place = self.new_place();
        self.types.push(Named { visitor, name, place });
        self.types.len() - 1
    }

    /// Notes the question asked at `place`, and returns the place that has its answers: another
    /// one where `place` was asked something else before.
    pub(super) fn note(&mut self, place: Place, question: Question) -> Place {
        let others = match &self.places[place] {
            Asked::Nothing => {
                self.learn();
                self.places[place] = self.asked(question);
                return place;
            }
            Asked::Either(others) => others.clone(),
            asked if asked.answers(question) => return place,
            _ => Vec::new(),
        };
        if let Some(other) = others.iter().find(|other| self.places[**other].answers(question)) {
            return *other;
        }
        self.learn();
        let asked = self.asked(question);
        let new = self.new_place();
        self.places[new] = asked;
        if others.is_empty() {
            let first = self.new_place();
            self.places.swap(place, first);
            self.places[place] = Asked::Either(vec![first, new]);
        } else if let Asked::Either(others) = &mut self.places[place] {
            others.push(new);
        }
        new
    }

    /// Whether to try the content of the container at `place`.
    pub(super) fn tries_content(&self, place: Place) -> bool {
        let Asked::Container { attempt, inner, .. } = &self.places[place] else { return false };
        self.repeated == 0 && self.is_worth_trying(*attempt, inner)
    }

    /// The variant to try at `place`, if any can come to an end.
    pub(super) fn choose_variant(&self, place: Place) -> Option<usize> {
        let Asked::Variants(variants) = &self.places[place] else { return None };
        if self.repeated == 0 {
            let new = variants.iter().position(|one| !one.attempt.tried);
            let worth = |one: &Variant| self.is_worth_trying(one.attempt, &[one.place]);
            if let Some(chosen) = new.or_else(|| variants.iter().position(worth)) {
                return Some(chosen);
            }
        }
        // What was read first holds only what had been read before, and so on: that ends.
        let read = variants
            .iter()
            .enumerate()
            .filter_map(|(number, one)| one.attempt.first_success.map(|moment| (moment, number)));
        read.min().map(|(_, number)| number)
    }

    fn is_worth_trying(&self, attempt: Attempt, behind: &[Place]) -> bool {
        attempt.may_succeed(self.learnt)
            && (attempt.first_success.is_none() || self.is_open_behind(behind))
    }

    /// Whether anything is left to try at `places` or behind them. What is left of a type within
    /// which the run is does not count: it is not tried there.
    fn is_open_behind(&self, places: &[Place]) -> bool {
        let mut seen = vec![false; self.places.len()];
        let mut rest = places.to_vec();
        while let Some(place) = rest.pop() {
            if std::mem::replace(&mut seen[place], true) {
                continue;
            }
            match &self.places[place] {
                Asked::Type(number) if self.within.contains(number) => {}
                asked if asked.is_open(self.learnt) => return true,
                _ => self.push_behind(place, &mut rest),
            }
        }
        false
    }

    /// Tries the content of the container at `place` or, of an enum, the variant of this number, and
    /// notes what became of it.
    pub(super) fn attempt<R>(
        &mut self,
        place: Place,
        variant: usize,
        read: impl FnOnce(&mut Self) -> Result<R, Refused>,
    ) -> Result<R, Refused> {
        let start = self.learnt;
        let result = read(self);
        let attempt = match &mut self.places[place] {
            Asked::Container { attempt, .. } => attempt,
            Asked::Variants(variants) => &mut variants[variant].attempt,
            _ => return result,
        };
        attempt.tried = true;
        if result.is_err() {
            self.moved |= attempt.last_failure.replace(start) != Some(start);
        } else if attempt.first_success.is_none() {
            // The moment is later than that of everything inside it.
            attempt.first_success = Some(self.learnt + 1);
            self.learn();
        }
        result
    }

    /// Something is known that was not.
    pub(super) fn learn(&mut self) {
        self.learnt += 1;
        self.moved = true;
    }

    fn new_place(&mut self) -> Place {
        self.places.push(Asked::Nothing);
        self.places.len() - 1
    }

    fn new_places(&mut self, count: usize) -> Vec<Place> {
        (0..count).map(|_| self.new_place()).collect()
    }

    fn asked(&mut self, question: Question) -> Asked {
        match question {
            Question::Plain(word) => Asked::Plain { word, number_refused: false, answer: 0 },
            Question::Unit => Asked::Unit,
            Question::Container(container) => {
                let inner = self.new_places(if container == Container::Map { 2 } else { 1 });
                Asked::Container { container, attempt: Attempt::default(), inner }
            }
            Question::Tuple(count) => {
                Asked::Tuple { count, elements: self.new_places(count.min(ELEMENTS_MAX)) }
            }
            Question::Fields(names) => {
                let field = |name: &&'static str| Field {
                    name,
                    place: self.new_place(),
                    refused: false,
                    alias: false,
                };
                Asked::Fields { fields: names.iter().map(field).collect(), in_sequence: false }
            }
            Question::Variants(names) => {
                let variant = |name: &&'static str| Variant {
                    name,
                    attempt: Attempt::default(),
                    place: self.new_place(),
                };
                Asked::Variants(names.iter().map(variant).collect())
            }
            Question::Type(number) => Asked::Type(number),
        }
    }

    /// Adds the places right behind one.
    fn push_behind(&self, place: Place, to: &mut Vec<Place>) {
        match &self.places[place] {
            Asked::Nothing | Asked::Plain { .. } | Asked::Unit => {}
            Asked::Container { inner: places, .. }
            | Asked::Tuple { elements: places, .. }
            | Asked::Either(places) => to.extend(places),
            Asked::Fields { fields, .. } => to.extend(fields.iter().map(|field| field.place)),
            Asked::Variants(variants) => to.extend(variants.iter().map(|one| one.place)),
            Asked::Type(number) => to.push(self.types[*number].place),
        }
    }
}

impl Asked {
    /// Whether it is what `question` asks for.
    fn answers(&self, question: Question) -> bool {
        match (self, question) {
            (Self::Plain { word, .. }, Question::Plain(asked)) => *word == asked,
            (Self::Unit, Question::Unit) => true,
            (Self::Container { container, .. }, Question::Container(asked)) => *container == asked,
            (Self::Tuple { count, .. }, Question::Tuple(asked)) => *count == asked,
            (Self::Fields { fields, .. }, Question::Fields(names)) => {
                fields.iter().map(|field| &field.name).eq(names)
            }
            (Self::Variants(variants), Question::Variants(names)) => {
                variants.iter().map(|variant| &variant.name).eq(names)
            }
            (Self::Type(number), Question::Type(asked)) => *number == asked,
            _ => false,
        }
    }

    fn is_open(&self, now: u32) -> bool {
        match self {
            Self::Container { attempt, .. } => attempt.is_open(now),
            Self::Variants(variants) => variants.iter().any(|one| one.attempt.is_open(now)),
            _ => false,
        }
    }
}
