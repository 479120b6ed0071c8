//! The notation of shapes.

use std::fmt::Write as _;

use super::trace::{Asked, Container, Place, Trace};

/// What stands for what was never asked for.
const UNKNOWN: &str = "_";

/// Words that a type's name has to be told from.
const WORDS: &[&str] = &[
    "any", "bool", "i8", "i16", "i32", "i64", "i128", "u8", "u16", "u32", "u64", "u128", "f32",
    "f64", "char", "string", "bytes", UNKNOWN,
];

/// The first bytes of the digest, in hexadecimal digits.
const DIGEST_CHARACTERS: usize = 32;

/// All that was asked for.
pub(super) fn whole(trace: &Trace) -> String {
    let mut writer = Writer { trace, text: String::new(), labels: vec![None; trace.types.len()] };
    writer.place(0);
    writer.text
}

/// The name of the outermost type, or its kind in JSON.
pub(super) fn outermost(trace: &Trace) -> String {
    let mut place = 0;
    let mut options = String::new();
    while let Asked::Container { container: Container::Option, inner, .. } = &trace.places[place] {
        options.push('?');
        place = inner[0];
    }
    let kind = match &trace.places[place] {
        Asked::Nothing => UNKNOWN.to_owned(),
        Asked::Plain { word, .. } => kind_of(word).to_owned(),
        Asked::Container { container: Container::Map, .. } => "{string: any}".to_owned(),
        Asked::Type(number) => type_name(trace.types[*number].name),
        Asked::Either(_) => "any".to_owned(),
        _ => "[any]".to_owned(),
    };
    kind + &options
}

fn kind_of(word: &'static str) -> &'static str {
    match word {
        "char" => "string",
        "bytes" => "[any]",
        "()" => "null",
        "any" | "bool" | "string" => word,
        _ => "number",
    }
}

/// `text` where it is at most `bytes_max` long, else its beginning and a digest of it all.
pub(super) fn shorten(mut text: String, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text;
    }
    let digest = blake3::hash(text.as_bytes()).to_hex();
    let end = format!(".. blake3:{}", &digest[..DIGEST_CHARACTERS]);
    let cut = bytes_max - end.len();
    text.truncate((0..=cut).rfind(|at| text.is_char_boundary(*at)).unwrap_or(0));
    text + &end
}

struct Writer<'t> {
    trace: &'t Trace,
    text: String,
    /// How the types are called that are written out already.
    labels: Vec<Option<String>>,
}

impl Writer<'_> {
    fn place(&mut self, place: Place) {
        match &self.trace.places[place] {
            Asked::Nothing => self.text.push_str(UNKNOWN),
            Asked::Plain { word, .. } => self.text.push_str(word),
            Asked::Type(number) => self.named(*number),
            Asked::Container { container, inner, .. } => self.container(*container, inner),
            Asked::Tuple { count: 0, .. } => self.text.push_str("()"),
            Asked::Tuple { count, elements } if self.are_same(elements) => {
                self.text.push('[');
                self.place(elements[0]);
                let _ = write!(self.text, "; {count}]");
            }
            Asked::Either(places) => {
                self.text.push('(');
                self.list(places, " | ", |writer, place| writer.place(*place));
                self.text.push(')');
            }
            Asked::Unit | Asked::Tuple { .. } | Asked::Fields { .. } | Asked::Variants(_) => {
                self.content(place);
            }
        }
    }

    fn container(&mut self, container: Container, inner: &[Place]) {
        match container {
            Container::Option => {
                self.place(inner[0]);
                self.text.push('?');
            }
            Container::Sequence => {
                self.text.push('[');
                self.place(inner[0]);
                self.text.push(']');
            }
            Container::Map => {
                self.text.push('{');
                self.list(inner, ": ", |writer, place| writer.place(*place));
                self.text.push('}');
            }
        }
    }

    /// A type is written out where it is met first, and called by its name from there on.
    fn named(&mut self, number: usize) {
        if let Some(label) = &self.labels[number] {
            self.text.push_str(label);
            return;
        }
        let types = &self.trace.types;
        let is_namesake = |other: &usize| {
            self.labels[*other].is_some() && types[*other].name == types[number].name
        };
        let namesakes = (0..types.len()).filter(is_namesake).count();
        let mut label = type_name(types[number].name);
        if namesakes > 0 {
            let _ = write!(label, "#{}", namesakes + 1);
        }
        self.text.push_str(&label);
        self.labels[number] = Some(label);
        self.content(types[number].place);
    }

    /// What a type or variant holds, behind its name.
    fn content(&mut self, place: Place) {
        match &self.trace.places[place] {
            Asked::Unit => {}
            Asked::Tuple { count, elements } => {
                self.text.push('(');
                self.list(elements, ", ", |writer, place| writer.place(*place));
                if *count > elements.len() {
                    let _ = write!(self.text, "; {count}");
                }
                self.text.push(')');
            }
            Asked::Fields { fields, .. } if fields.is_empty() => self.text.push_str(" {}"),
            Asked::Fields { fields, .. } => {
                self.text.push_str(" { ");
                let fields: Vec<_> = fields.iter().filter(|field| !field.alias).collect();
                self.list(&fields, ", ", |writer, field| {
                    writer.text.push_str(&quoted(field.name));
                    writer.text.push_str(": ");
                    writer.place(field.place);
                });
                self.text.push_str(" }");
            }
            Asked::Variants(variants) => {
                self.text.push('(');
                self.list(variants, " | ", |writer, variant| {
                    writer.text.push_str(&quoted(variant.name));
                    writer.content(variant.place);
                });
                // What has one variant is still no newtype.
                let end = match variants.len() {
                    0 => "|)",
                    1 => " |)",
                    _ => ")",
                };
                self.text.push_str(end);
            }
            _ => {
                self.text.push('(');
                self.place(place);
                self.text.push(')');
            }
        }
    }

    fn list<T>(&mut self, items: &[T], between: &str, write: impl Fn(&mut Self, &T)) {
        for (number, item) in items.iter().enumerate() {
            if number > 0 {
                self.text.push_str(between);
            }
            write(self, item);
        }
    }

    /// Whether the same was asked for at all `places`.
    fn are_same(&self, places: &[Place]) -> bool {
        places.windows(2).all(|pair| self.is_same(pair[0], pair[1]))
    }

    fn is_same(&self, one: Place, other: Place) -> bool {
        let all = |these: &[Place], those: &[Place]| {
            these.iter().zip(those).all(|(this, that)| self.is_same(*this, *that))
        };
        match (&self.trace.places[one], &self.trace.places[other]) {
            (Asked::Nothing, Asked::Nothing) => true,
            (Asked::Plain { word: one, .. }, Asked::Plain { word: other, .. }) => one == other,
            (Asked::Type(one), Asked::Type(other)) => one == other,
            (
                Asked::Container { container: one, inner: these, .. },
                Asked::Container { container: other, inner: those, .. },
            ) => one == other && all(these, those),
            (
                Asked::Tuple { count: one, elements: these },
                Asked::Tuple { count: other, elements: those },
            ) => one == other && all(these, those),
            _ => false,
        }
    }
}

fn type_name(name: &str) -> String {
    if WORDS.contains(&name) { format!("\"{name}\"") } else { quoted(name) }
}

/// A name that is no plain word in quotes, so that no name reads like a part of the notation.
fn quoted(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if !name.is_empty() && name.bytes().all(is_plain) {
        return name.to_owned();
    }
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}
