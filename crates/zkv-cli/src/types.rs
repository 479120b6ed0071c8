//! Keys and values as a person writes them, and as the store holds them.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::str::FromStr;

use clap::ValueEnum;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a key or a value is. All but bytes are stored as postcard encodes them, which is what
/// `store.set(key, value)` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Type {
    Bytes,
    Str,
    U64,
    I64,
}

impl Type {
    /// The stored form of `text`; what is wrong with it otherwise. Bytes, of which there may be
    /// gigabytes, are not copied.
    pub fn encode(self, text: &[u8]) -> Result<Cow<'_, [u8]>, String> {
        let encoded = match self {
            Self::Bytes => return Ok(Cow::Borrowed(text)),
            Self::Str => stored(utf8(text)?),
            Self::U64 => stored(&number::<u64>(text, self)?),
            Self::I64 => stored(&number::<i64>(text, self)?),
        };
        encoded.map(Cow::Owned)
    }

    /// Appends what a person reads to `into`; `false` where the stored bytes are something else.
    pub fn decode_into(self, stored: &[u8], into: &mut Vec<u8>) -> bool {
        let text = match self {
            Self::Bytes => {
                into.extend_from_slice(stored);
                return true;
            }
            Self::Str => shown::<String>(stored),
            Self::U64 => shown::<u64>(stored),
            Self::I64 => shown::<i64>(stored),
        };
        if let Some(text) = &text {
            into.extend_from_slice(text.as_bytes());
        }
        text.is_some()
    }

    /// The one whose stored form is that of a collection's type; `None` where that is none of these.
    pub fn of_collection(shape: &str) -> Option<Self> {
        match shape {
            "string" => Some(Self::Str),
            "u64" => Some(Self::U64),
            "i64" => Some(Self::I64),
            _ => None,
        }
    }

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

/// The bytes of a command-line argument: as they are on Unix, UTF-8 elsewhere.
pub fn argument_bytes(argument: &OsStr) -> &[u8] {
    argument.as_encoded_bytes()
}

fn stored<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, String> {
    postcard::to_allocvec(value).map_err(|error| error.to_string())
}

fn shown<T: DeserializeOwned + ToString>(stored: &[u8]) -> Option<String> {
    let (value, rest) = postcard::take_from_bytes::<T>(stored).ok()?;
    rest.is_empty().then(|| value.to_string())
}

fn utf8(text: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(text).map_err(|error| format!("no UTF-8 at byte {}", error.valid_up_to()))
}

fn number<T: FromStr>(text: &[u8], kind: Type) -> Result<T, String> {
    // What `echo 5 |` gives has a line end.
    utf8(text)?.trim().parse().map_err(|_| format!("no {}", kind.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_forms_are_those_of_postcard_and_round_trip() {
        let cases: [(Type, &str, &[u8]); 6] = [
            (Type::Bytes, "key", b"key"),
            (Type::Str, "key", b"\x03key"),
            (Type::U64, "300", b"\xAC\x02"),
            (Type::I64, "-1", b"\x01"),
            (Type::I64, "64", b"\x80\x01"),
            (Type::U64, "18446744073709551615", b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01"),
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
        for (kind, text) in [(Type::U64, "-1"), (Type::I64, "12x"), (Type::U64, "")] {
            let problem = kind.encode(text.as_bytes()).unwrap_err();
            assert!(text.is_empty() || !problem.contains(text), "{problem}");
        }
        assert_eq!(Type::Str.encode(b"ab\xFF").unwrap_err(), "no UTF-8 at byte 2");
        let mut shown = Vec::new();
        let wrong: [(Type, &[u8]); 4] = [
            (Type::Str, b"\x03ke"),
            (Type::Str, b"\x01\xFF"),
            (Type::U64, b""),
            (Type::I64, b"\0x"),
        ];
        for (kind, stored) in wrong {
            assert!(!kind.decode_into(stored, &mut shown), "{kind:?} {stored:?}");
        }
        assert!(shown.is_empty());
    }
}
