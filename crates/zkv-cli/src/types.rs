//! Keys and values as a person writes them, and as the store holds them.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::str::FromStr;

use clap::ValueEnum;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

/// What a key or a value is, as the user gives it. All but bytes are stored as postcard encodes them, which is
/// what `store.set(key, value)` writes; in a collection, all are stored as its types ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Type {
    Bytes,
    Str,
    U64,
    I64,
}

impl Type {
    /// The type as the user names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Str => "str",
            Self::U64 => "u64",
            Self::I64 => "i64",
        }
    }
}

/// How a key or a value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it is given.
    Bytes,
    /// Behind its length, as a `Vec<u8>` is.
    CountedBytes,
    /// So many bytes, as a `[u8; N]` is.
    ByteArray(usize),
    Json,
    Str,
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
}

impl Form {
    /// That of a store's own keys and values.
    pub fn own(kind: Type) -> Self {
        match kind {
            Type::Bytes => Self::Bytes,
            Type::Str => Self::Str,
            Type::U64 => Self::U64,
            Type::I64 => Self::I64,
        }
    }

    /// That of a collection's type in postcard; `None` where a program alone can make one.
    pub fn of_collection(shape: &str) -> Option<Self> {
        Some(match shape {
            "bytes" | "[u8]" => Self::CountedBytes,
            "string" => Self::Str,
            "u8" => Self::U8,
            "u16" => Self::U16,
            "u32" => Self::U32,
            "u64" => Self::U64,
            "i8" => Self::I8,
            "i16" => Self::I16,
            "i32" => Self::I32,
            "i64" => Self::I64,
            _ => match shape.strip_prefix("[u8; ").and_then(|rest| rest.strip_suffix(']')) {
                Some(count) => Self::ByteArray(count.parse().ok()?),
                // A newtype is stored as what it holds.
                None => Self::of_collection(newtype_content(shape)?)?,
            },
        })
    }

    /// What the user names to give what has this form.
    pub fn given_as(self) -> Type {
        match self {
            Self::Bytes | Self::CountedBytes | Self::ByteArray(_) | Self::Json => Type::Bytes,
            Self::Str => Type::Str,
            Self::U8 | Self::U16 | Self::U32 | Self::U64 => Type::U64,
            Self::I8 | Self::I16 | Self::I32 | Self::I64 => Type::I64,
        }
    }

    /// The stored form of `text`; what is wrong with it otherwise. Bytes, of which there may be
    /// gigabytes, are not copied where they are stored as they are.
    pub fn encode(self, text: &[u8]) -> Result<Cow<'_, [u8]>, String> {
        let encoded = match self {
            Self::Bytes => return Ok(Cow::Borrowed(text)),
            Self::Json => return json(text).map(Cow::Borrowed),
            Self::ByteArray(count) if text.len() == count => return Ok(Cow::Borrowed(text)),
            Self::ByteArray(count) => Err(format!("not {count} bytes long")),
            Self::CountedBytes => stored(&text.len()).map(|count| [&count, text].concat()),
            Self::Str => stored(utf8(text)?),
            Self::U8 => stored(&number::<u8>(text, "u8")?),
            Self::U16 => stored(&number::<u16>(text, "u16")?),
            Self::U32 => stored(&number::<u32>(text, "u32")?),
            Self::U64 => stored(&number::<u64>(text, "u64")?),
            Self::I8 => stored(&number::<i8>(text, "i8")?),
            Self::I16 => stored(&number::<i16>(text, "i16")?),
            Self::I32 => stored(&number::<i32>(text, "i32")?),
            Self::I64 => stored(&number::<i64>(text, "i64")?),
        };
        encoded.map(Cow::Owned)
    }

    /// What a person reads; `None` where the stored bytes are something else. Those of which there may be
    /// gigabytes are not copied where they are read as they are.
    pub fn decode(self, stored: &[u8]) -> Option<Cow<'_, [u8]>> {
        if matches!(self, Self::Bytes | Self::Json) {
            return Some(Cow::Borrowed(stored));
        }
        let mut text = Vec::new();
        self.decode_into(stored, &mut text).then_some(Cow::Owned(text))
    }

    /// Appends what a person reads to `into`; `false` where the stored bytes are something else.
    pub fn decode_into(self, stored: &[u8], into: &mut Vec<u8>) -> bool {
        let text = match self {
            Self::Bytes | Self::Json => return append(Some(stored), into),
            Self::ByteArray(count) => {
                return append(Some(stored).filter(|stored| stored.len() == count), into);
            }
            Self::CountedBytes => return append(whole::<&[u8]>(stored), into),
            Self::Str => return append(whole::<&str>(stored).map(str::as_bytes), into),
            Self::U8 => shown::<u8>(stored),
            Self::U16 => shown::<u16>(stored),
            Self::U32 => shown::<u32>(stored),
            Self::U64 => shown::<u64>(stored),
            Self::I8 => shown::<i8>(stored),
            Self::I16 => shown::<i16>(stored),
            Self::I32 => shown::<i32>(stored),
            Self::I64 => shown::<i64>(stored),
        };
        append(text.as_ref().map(String::as_bytes), into)
    }
}

/// The shape of what a struct with one unnamed field holds, `Name(content)`.
fn newtype_content(shape: &str) -> Option<&str> {
    let (name, content) = shape.strip_suffix(')')?.split_once('(')?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (!name.is_empty() && name.bytes().all(is_name)).then_some(content)
}

/// The bytes of a command-line argument: as they are on Unix, UTF-8 elsewhere.
pub fn argument_bytes(argument: &OsStr) -> &[u8] {
    argument.as_encoded_bytes()
}

fn stored<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, String> {
    postcard::to_allocvec(value).map_err(|error| error.to_string())
}

/// The value that fills `stored`.
fn whole<'s, T: Deserialize<'s>>(stored: &'s [u8]) -> Option<T> {
    let (value, rest) = postcard::take_from_bytes::<T>(stored).ok()?;
    rest.is_empty().then_some(value)
}

fn shown<T: DeserializeOwned + ToString>(stored: &[u8]) -> Option<String> {
    whole::<T>(stored).map(|value| value.to_string())
}

fn append(text: Option<&[u8]>, into: &mut Vec<u8>) -> bool {
    into.extend_from_slice(text.unwrap_or_default());
    text.is_some()
}

fn utf8(text: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(text).map_err(|error| format!("no UTF-8 at byte {}", error.valid_up_to()))
}

fn number<T: FromStr>(text: &[u8], name: &str) -> Result<T, String> {
    // What `echo 5 |` gives has a line end.
    utf8(text)?.trim().parse().map_err(|_| format!("no {name}"))
}

/// A value of JSON, without white space around it: what stands behind one is refused when it is read.
fn json(text: &[u8]) -> Result<&[u8], String> {
    let text = utf8(text.trim_ascii())?;
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Ok(text.as_bytes()),
        Err(error) => Err(format!("no JSON (line {}, column {})", error.line(), error.column())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_forms_are_those_of_postcard_and_round_trip() {
        let cases: [(Form, &str, &[u8]); 12] = [
            (Form::Bytes, "key", b"key"),
            (Form::Str, "key", b"\x03key"),
            (Form::U64, "300", b"\xAC\x02"),
            (Form::I64, "-1", b"\x01"),
            (Form::I64, "64", b"\x80\x01"),
            (Form::U64, "18446744073709551615", b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01"),
            (Form::U8, "200", b"\xC8"),
            (Form::I8, "-1", b"\xFF"),
            (Form::U16, "300", b"\xAC\x02"),
            (Form::I32, "-1", b"\x01"),
            (Form::CountedBytes, "key", b"\x03key"),
            (Form::ByteArray(3), "key", b"key"),
        ];
        for (kind, text, expected) in cases {
            assert_eq!(kind.encode(text.as_bytes()).unwrap(), expected, "{text}");
            let mut shown = Vec::new();
            assert!(kind.decode_into(expected, &mut shown));
            assert_eq!(shown, text.as_bytes());
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_without_being_quoted() {
        for (kind, text) in [
            (Form::U64, "-1"),
            (Form::I64, "12x"),
            (Form::U64, ""),
            (Form::U8, "256"),
            (Form::I16, "32768"),
            (Form::Json, "{\"secret\""),
            (Form::ByteArray(4), "secret"),
        ] {
            let problem = kind.encode(text.as_bytes()).unwrap_err();
            assert!(text.is_empty() || !problem.contains(text), "{problem}");
        }
        assert_eq!(Form::Str.encode(b"ab\xFF").unwrap_err(), "no UTF-8 at byte 2");
        let mut shown = Vec::new();
        let wrong: [(Form, &[u8]); 8] = [
            (Form::Str, b"\x03ke"),
            (Form::Str, b"\x01\xFF"),
            (Form::U64, b""),
            (Form::I64, b"\0x"),
            (Form::U16, b"\x80\x80\x04"),
            (Form::U8, b"\xC8\x01"),
            (Form::CountedBytes, b"key"),
            (Form::ByteArray(2), b"key"),
        ];
        for (kind, stored) in wrong {
            assert!(!kind.decode_into(stored, &mut shown), "{kind:?} {stored:?}");
        }
        assert!(shown.is_empty());
    }

    #[test]
    fn the_form_of_a_collections_type_is_told_by_its_shape() {
        let cases = [
            ("string", Some(Form::Str)),
            ("u8", Some(Form::U8)),
            ("i64", Some(Form::I64)),
            ("[u8]", Some(Form::CountedBytes)),
            ("bytes", Some(Form::CountedBytes)),
            ("[u8; 32]", Some(Form::ByteArray(32))),
            ("Id(u32)", Some(Form::U32)),
            ("Outer(Id([u8; 4]))", Some(Form::ByteArray(4))),
            ("[[u8; 2]; 2]", None),
            ("[u8; 2]?", None),
            ("u8?", None),
            ("(u8, string)", None),
            ("(u8 | string)", None),
            ("Pair(u8, string)", None),
            ("Kind(A | B(u32))", None),
            ("Single(B(u32) |)", None),
            ("Page { id: u32 }", None),
            ("\"u8\"", None),
            ("bool", None),
            ("a name", None),
        ];
        for (shape, expected) in cases {
            assert_eq!(Form::of_collection(shape), expected, "{shape}");
        }
    }

    #[test]
    fn json_is_stored_without_what_stands_around_it() {
        assert_eq!(Form::Json.encode(b" {\"a\": 1}\n").unwrap(), &b"{\"a\": 1}"[..]);
        for text in [&b"{} {}"[..], b"", b"x", b"\"\xFF\""] {
            assert!(Form::Json.encode(text).is_err(), "{}", text.escape_ascii());
        }
    }
}
