//! JSON lines: the key within a line, without building a tree of it, and lines for other records.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::write::EncoderWriter;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Puts into `key` what the field `field` of the JSON object in `line` holds: the characters of a
/// text, or the digits of a number as they are written.
///
/// The whole line is checked; what is wrong with it is returned, without any of its contents.
pub fn key_of(line: &[u8], field: &str, key: &mut Vec<u8>) -> Result<(), String> {
    let mut search = Search { field, found: None, is_repeated: false };
    visit_object(line, &mut search)?;
    if search.is_repeated {
        return Err(format!("the field {field:?} occurs twice"));
    }
    let raw = search.found.ok_or_else(|| format!("there is no field {field:?}"))?;
    key.clear();
    if scalar_into(raw, key) {
        Ok(())
    } else {
        Err(format!("the field {field:?} is neither text nor a number"))
    }
}

/// Whether `line` is one line with a JSON object whose field `field` holds `key`: then the line alone tells
/// the record. A carriage return at its end is none of it where it is read back.
pub fn holds_key(line: &[u8], field: &str, key: &[u8]) -> bool {
    let mut found = Vec::new();
    let is_line = memchr::memchr(b'\n', line).is_none() && !line.ends_with(b"\r");
    is_line && key_of(line, field, &mut found).is_ok() && found == key
}

/// Writes `{"key":..,"value":..}`, without a line end. It is not made as a whole: of values there may be
/// gigabytes.
pub fn wrap_into(key: &[u8], value: &[u8], mut into: impl Write) -> io::Result<()> {
    into.write_all(b"{")?;
    part_into("key", key, &mut into)?;
    into.write_all(b",")?;
    part_into("value", value, &mut into)?;
    into.write_all(b"}")
}

/// Writes `{"event":..,"key":..}`, without a line end.
pub fn event_into(event: &str, key: &[u8], mut into: impl Write) -> io::Result<()> {
    write!(into, "{{\"event\":\"{event}\",")?;
    part_into("key", key, &mut into)?;
    into.write_all(b"}")
}

fn part_into(name: &str, bytes: &[u8], mut into: impl Write) -> io::Result<()> {
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            write!(into, "\"{name}\":")?;
            Ok(serde_json::to_writer(into, text)?)
        }
        Err(_) => {
            write!(into, "\"{name}_base64\":\"")?;
            let mut encoder = EncoderWriter::new(&mut into, &STANDARD);
            encoder.write_all(bytes)?;
            encoder.finish()?;
            drop(encoder);
            into.write_all(b"\"")
        }
    }
}

/// What [`wrap_into`] makes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair<'a> {
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    key_base64: Option<Cow<'a, str>>,
    value: Option<Cow<'a, str>>,
    value_base64: Option<Cow<'a, str>>,
}

/// The key and the value of a line that [`wrap_into`] has made. What is wrong with it is returned, without any
/// of its contents.
pub fn unwrap(line: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
    let refused = |column: usize| {
        format!(
            "no {{\"key\":\"..\",\"value\":\"..\"}} as `zkv export` writes it (column {column}); of other \
             JSON lines, --key names the field that is the key"
        )
    };
    // An array would do for serde.
    if line.trim_ascii_start().first() != Some(&b'{') {
        return Err(refused(0));
    }
    let pair: Pair<'_> = serde_json::from_slice(line).map_err(|error| refused(error.column()))?;
    let key = part(pair.key, pair.key_base64).map_err(|problem| format!("the key {problem}"))?;
    let value =
        part(pair.value, pair.value_base64).map_err(|problem| format!("the value {problem}"))?;
    Ok((key, value))
}

fn part(text: Option<Cow<'_, str>>, base64: Option<Cow<'_, str>>) -> Result<Vec<u8>, &'static str> {
    match (text, base64) {
        (Some(text), None) => Ok(text.into_owned().into_bytes()),
        (None, Some(base64)) => {
            STANDARD.decode(base64.as_bytes()).map_err(|_| "is no Base64 of RFC 4648")
        }
        (None, None) => Err("is missing"),
        (Some(_), Some(_)) => Err("is there twice"),
    }
}

/// Appends the characters of a JSON text, or the digits of a number; `false` for anything else.
fn scalar_into(raw: &str, into: &mut Vec<u8>) -> bool {
    match raw.as_bytes() {
        [b'"', inner @ .., b'"'] if memchr::memchr(b'\\', inner).is_none() => {
            into.extend_from_slice(inner);
            true
        }
        [b'"', ..] => match serde_json::from_str::<String>(raw) {
            Ok(text) => {
                into.extend_from_slice(text.as_bytes());
                true
            }
            Err(_) => false,
        },
        [b'-' | b'0'..=b'9', ..] => {
            into.extend_from_slice(raw.as_bytes());
            true
        }
        _ => false,
    }
}

/// Looks at all fields of the object in `line`, and notes the one that is looked for.
fn visit_object<'de>(line: &'de [u8], search: &mut Search<'de, '_>) -> Result<(), String> {
    // serde_json does not check the characters of what it skips.
    let text = std::str::from_utf8(line)
        .map_err(|error| format!("no UTF-8 at byte {}", error.valid_up_to() + 1))?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    // The messages of serde_json's own quote what it found.
    deserializer
        .deserialize_map(ObjectVisitor(search))
        .and_then(|()| deserializer.end())
        .map_err(|error| format!("no JSON object on one line (column {})", error.column()))
}

/// Looks for the field that is the key.
struct Search<'de, 'f> {
    field: &'f str,
    found: Option<&'de str>,
    is_repeated: bool,
}

struct ObjectVisitor<'s, 'de, 'f>(&'s mut Search<'de, 'f>);

impl<'de> Visitor<'de> for ObjectVisitor<'_, 'de, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        while let Some(is_it) = object.next_key_seed(NameIs(self.0.field))? {
            if is_it {
                let raw: &RawValue = object.next_value()?;
                self.0.is_repeated |= self.0.found.replace(raw.get()).is_some();
            } else {
                object.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// Tells whether a name is the one looked for, without copying it.
struct NameIs<'f>(&'f str);

impl<'de> DeserializeSeed<'de> for NameIs<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for NameIs<'_> {
    type Value = bool;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a field's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(line: &str, field: &str) -> Result<String, String> {
        let mut key = b"left over".to_vec();
        key_of(line.as_bytes(), field, &mut key)?;
        Ok(String::from_utf8(key).unwrap())
    }

    #[test]
    fn keys_are_the_characters_of_a_text_and_the_digits_of_a_number() {
        let cases = [
            (r#"{"id":"a b","x":[1,{"id":2}]}"#, "a b"),
            (r#" { "x" : null , "id" : 12345678901234567890123 } "#, "12345678901234567890123"),
            (r#"{"id":-1.50e3}"#, "-1.50e3"),
            (r#"{"id":"ß\u00df\n\"\\"}"#, "ßß\n\"\\"),
            (r#"{"id":""}"#, ""),
            (r#"{"\u0069d":"escaped name"}"#, "escaped name"),
        ];
        for (line, expected) in cases {
            assert_eq!(key(line, "id").as_deref(), Ok(expected), "{line}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said_without_quoting_it() {
        let cases = [
            ("", "no JSON object on one line (column 0)"),
            ("[\"secret\"]", "no JSON object on one line (column 0)"),
            ("\"secret\"", "no JSON object on one line (column 8)"),
            ("{\"secret\":1", "no JSON object on one line (column 11)"),
            ("{\"id\":1} secret", "no JSON object on one line (column 10)"),
            ("{\"id\":1,\"id\":2}", "the field \"id\" occurs twice"),
            ("{\"secret\":1}", "there is no field \"id\""),
            ("{\"id\":[1]}", "the field \"id\" is neither text nor a number"),
            ("{\"id\":null}", "the field \"id\" is neither text nor a number"),
            ("{\"id\":\"\\ud800\"}", "the field \"id\" is neither text nor a number"),
        ];
        for (line, expected) in cases {
            assert_eq!(key(line, "id").unwrap_err(), expected, "{line}");
        }
        let mut unused = Vec::new();
        let problem = key_of(b"{\"id\":1,\"x\":\"\xFF\"}", "id", &mut unused).unwrap_err();
        assert_eq!(problem, "no UTF-8 at byte 14");
    }

    #[test]
    fn a_line_tells_its_record_only_with_its_key_in_a_field() {
        let cases: [(&[u8], &[u8], bool); 10] = [
            (b"{\"id\":\"k\",\"x\":1}", b"k", true),
            (b"{\"x\":1,\"id\":\"\\u006b\"}\t", b"k", true),
            (b"{\"id\":\"k\"}\r", b"k", false),
            (b"{\"id\":42}", b"42", true),
            (b"{\"x\":{\"id\":\"k\"}}", b"k", false),
            (b"{\"k\":1}", b"k", false),
            (b"{\"id\":\"k\",\n\"x\":1}", b"k", false),
            (b"{\"id\":\"k\"", b"k", false),
            (b"\"k\"", b"k", false),
            (b"{\"id\":\"k\",\"x\":\"\xFF\"}", b"k", false),
        ];
        for (line, key, expected) in cases {
            assert_eq!(holds_key(line, "id", key), expected, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn records_and_events_are_wrapped_and_bytes_are_base64() {
        let mut line = Vec::new();
        wrap_into(b"a\"b", b"line\nline", &mut line).unwrap();
        assert_eq!(line, br#"{"key":"a\"b","value":"line\nline"}"#);
        line.clear();
        wrap_into(b"\xFF", b"\x00\xFE", &mut line).unwrap();
        assert_eq!(line, br#"{"key_base64":"/w==","value_base64":"AP4="}"#);
        for (key, expected) in [
            (&b"a\"b"[..], &br#"{"event":"incomplete-value","key":"a\"b"}"#[..]),
            (b"\xFF", br#"{"event":"incomplete-value","key_base64":"/w=="}"#),
        ] {
            line.clear();
            event_into("incomplete-value", key, &mut line).unwrap();
            assert_eq!(line, expected);
        }
    }

    #[test]
    fn what_was_wrapped_is_unwrapped() {
        let parts: [&[u8]; 5] =
            [b"", b"a\"b\\", b"line\nline\0", "\u{df}\u{1F600}".as_bytes(), b"\xFF\x00"];
        for key in parts {
            for value in parts {
                let mut line = Vec::new();
                wrap_into(key, value, &mut line).unwrap();
                assert_eq!(unwrap(&line), Ok((key.to_vec(), value.to_vec())));
            }
        }
    }

    #[test]
    fn what_is_no_pair_is_refused_without_quoting_it() {
        let cases = [
            (r#"{"id":"secret","v":1}"#, "--key"),
            (r#"{"key":"secret"}"#, "the value is missing"),
            (r#"{"key":"secret","value":{"a":1}}"#, "--key"),
            (r#"{"value":"secret"}"#, "the key is missing"),
            (r#"{"key":"secret","key_base64":"AA==","value":""}"#, "the key is there twice"),
            (r#"{"key":"","key":"secret","value":""}"#, "--key"),
            (r#"{"key":"","value_base64":"secret!"}"#, "the value is no Base64"),
            (r#"{"key":"","value":""} secret"#, "--key"),
            (r#"["secret",null,"b",null]"#, "--key"),
        ];
        for (line, expected) in cases {
            let problem = unwrap(line.as_bytes()).unwrap_err();
            assert!(problem.contains(expected) && !problem.contains("secret"), "{problem}");
        }
    }
}
