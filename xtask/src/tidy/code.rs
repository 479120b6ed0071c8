//! Rust source without its comments and literals, so that a check for a word finds code only.

/// `source` with every comment, string and character literal blanked. Line ends stay, so lines
/// keep their numbers.
pub fn code_only(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let skipped = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => string(rest),
            '\'' => character(rest),
            'r' | 'b' | 'c' if !code.ends_with(is_word) => prefixed_string(rest),
            _ => 0,
        };
        if skipped == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            let (blanked, after) = rest.split_at(skipped);
            code.push(' ');
            code.extend(blanked.chars().filter(|&c| c == '\n'));
            rest = after;
        }
    }
    code
}

/// Whether a character can be part of an identifier.
pub fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The length of the block comment that `text` starts with; they nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// The length of the string literal that `text` starts with.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of the character literal that `text` starts with; 0 for a lifetime.
fn character(text: &str) -> usize {
    let inner = &text[1..];
    if let Some(escape) = inner.strip_prefix('\\') {
        // What is escaped may be a quote itself.
        let end = escape.char_indices().skip(1).find(|(_, character)| *character == '\'');
        return end.map_or(0, |(at, _)| at + "'\\'".len());
    }
    let Some(first) = inner.chars().next() else { return 0 };
    if inner[first.len_utf8()..].starts_with('\'') { first.len_utf8() + 2 } else { 0 }
}

/// The length of the literal that `text` starts with, behind a prefix (`b"`, `c"`, `r#"`, `br"`,
/// `b'`); 0 where it is no literal.
fn prefixed_string(text: &str) -> usize {
    let prefix = text.find(|c| !matches!(c, 'r' | 'b' | 'c')).unwrap_or(text.len());
    let after = &text[prefix..];
    if prefix > 2 {
        return 0;
    }
    if text[..prefix].ends_with('r') {
        let hashes = after.find(|c| c != '#').unwrap_or(after.len());
        if !after[hashes..].starts_with('"') {
            return 0;
        }
        let end = format!("\"{}", &after[..hashes]);
        let inner = &after[hashes + 1..];
        let inner_bytes = inner.find(&end).map_or(inner.len(), |at| at + end.len());
        return prefix + hashes + 1 + inner_bytes;
    }
    match after.chars().next() {
        Some('"') => prefix + string(after),
        Some('\'') if character(after) > 0 => prefix + character(after),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The code with every run of blanks as one, so that cases stay readable.
    fn check(source: &str, expected: &str) {
        let code = code_only(source);
        assert_eq!(code.lines().count(), source.lines().count(), "{source}");
        assert_eq!(code.split_whitespace().collect::<Vec<_>>().join(" "), expected, "{source}");
    }

    #[test]
    fn comments_and_literals_go_and_code_stays() {
        let cases = [
            ("a // word\nb", "a b"),
            ("a /* word /* word */ word */ b", "a b"),
            ("f(\"word \\\" word\", x)", "f( , x)"),
            ("f(r#\"word \" word\"#, x)", "f( , x)"),
            ("f(br\"word\", b\"word\", c\"word\")", "f( , , )"),
            ("f('\"', word, '\\'', b'\"')", "f( , word, , )"),
            ("fn f<'a>(x: &'a str) -> char { 'a' }", "fn f<'a>(x: &'a str) -> char { }"),
            ("bar\"word\"", "bar"),
            ("r#type + crc", "r#type + crc"),
            ("\"word\nword\" x", "x"),
            ("'\\u{1F600}' é 'é' x", "é x"),
        ];
        for (source, expected) in cases {
            check(source, expected);
        }
    }

    #[test]
    fn unfinished_source_ends_the_scan() {
        for source in ["\"word", "/* word", "r#\"word", "'", "b", "'\\", "b'\\"] {
            let code = code_only(source);
            assert!(!code.contains("word"), "{source}");
        }
    }
}
