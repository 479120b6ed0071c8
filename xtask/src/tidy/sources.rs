//! What a source file may hold.

use crate::tidy::code::{code_only, is_word};
use crate::workspace::Source;

/// The longest a file may be, in lines: beyond it, nobody reads it whole.
const LINES_MAX: usize = 500;

/// The modules that may hold `unsafe`: the one memory map, the dictionary trainer's call, and a rival
/// that cannot be called without.
const UNSAFE_ALLOWED: &[&str] = &[
    "crates/zkv-io/src/map.rs",
    "crates/zkv-log/src/train.rs",
    "crates/zkv-bench/src/engines/lmdb.rs",
];

/// The storage seam's real implementation, and the map of its files. The command line reads and
/// writes the user's own files, fuzzing its seeds, and benchmarks
/// their input.
const FILES_ALLOWED: &[&str] = &[
    "crates/zkv-io/src/file_storage.rs",
    "crates/zkv-io/src/file_storage/",
    "crates/zkv-io/src/map.rs",
    "crates/zkv-cli/",
    "crates/zkv-fuzz/",
    "crates/zkv-measure/",
    "crates/zkv-bench/",
    "xtask/",
];

/// Words that promise later work, in pieces: this file is checked, too.
const PROMISES: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("for", " now"),
    concat!("todo", "!"),
    concat!("unimplemented", "!"),
];

/// What is wrong with `source`.
pub fn check(source: &Source) -> Vec<String> {
    let code = code_only(&source.text);
    let mut problems = Vec::new();
    let checks = [check_unsafe, check_files, check_promises, check_length, check_docs];
    for check in checks {
        problems.extend(check(source, &code));
    }
    problems
}

fn check_unsafe(source: &Source, code: &str) -> Vec<String> {
    if UNSAFE_ALLOWED.contains(&source.path.as_str()) {
        return Vec::new();
    }
    let blocks = lines_with(code, "unsafe");
    let lints = lines_with(code, "unsafe_code").filter(|(_, line)| {
        // Forbidding it once more is welcome.
        ["allow", "expect", "warn"].iter().any(|level| line.contains(level))
    });
    let remedy = "`unsafe` outside the modules that may have it";
    blocks.chain(lints).map(|(number, _)| at(source, number, remedy)).collect()
}

fn check_files(source: &Source, code: &str) -> Vec<String> {
    let allowed = FILES_ALLOWED.iter().any(|start| source.path.starts_with(start));
    if allowed || is_test(&source.path) {
        return Vec::new();
    }
    let code = without_tests(code);
    let mut problems: Vec<String> = lines_with(code, "std::fs")
        .map(|(number, _)| at(source, number, "`std::fs` outside the storage seam"))
        .collect();
    for (start, _) in code.match_indices("std::{") {
        let end = code[start..].find(';').map_or(code.len(), |end| start + end);
        if words(&code[start..end]).any(|word| word == "fs") {
            let number = code[..start].lines().count().max(1);
            problems.push(at(source, number, "`std::fs` outside the storage seam"));
        }
    }
    problems
}

fn check_promises(source: &Source, _code: &str) -> Vec<String> {
    PROMISES
        .iter()
        .flat_map(|promise| lines_with(&source.text, promise))
        .map(|(number, _)| at(source, number, "finish it, or file an issue"))
        .collect()
}

fn check_length(source: &Source, _code: &str) -> Vec<String> {
    let count = source.text.lines().count();
    if count <= LINES_MAX {
        return Vec::new();
    }
    vec![format!("{}: {count} lines, over {LINES_MAX}; split it", source.path)]
}

fn check_docs(source: &Source, _code: &str) -> Vec<String> {
    let is_root = source.path.ends_with("src/lib.rs") || source.path.ends_with("src/main.rs");
    // "//! A b" is the least that says anything.
    let first = source.text.lines().next().unwrap_or_default();
    if !is_root || (first.starts_with("//! ") && first.len() > 8) {
        return Vec::new();
    }
    vec![format!("{}: a crate starts with `//!` and what it is", source.path)]
}

/// Tests, examples and benches use the file system as a user would.
fn is_test(path: &str) -> bool {
    let folders = ["/tests/", "/examples/", "/benches/"];
    folders.iter().any(|folder| path.contains(folder)) || path.ends_with("/tests.rs")
}

/// The code before the test module, which stands last in a file.
fn without_tests(code: &str) -> &str {
    code.find("\n#[cfg(test)]\nmod ").map_or(code, |end| &code[..end])
}

/// The numbers, from 1, and texts of the lines that hold `pattern` as whole words.
fn lines_with<'a>(text: &'a str, pattern: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    let holds = move |line: &str| {
        line.match_indices(pattern).any(|(start, _)| {
            let end = start + pattern.len();
            // A pattern that ends in a sign ends there.
            let ends = !pattern.ends_with(is_word) || !line[end..].starts_with(is_word);
            ends && !line[..start].ends_with(is_word)
        })
    };
    (1..).zip(text.lines()).filter(move |(_, line)| holds(line))
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c| !is_word(c)).filter(|word| !word.is_empty())
}

fn at(source: &Source, number: usize, problem: &str) -> String {
    format!("{}:{number}: {problem}", source.path)
}

#[cfg(test)]
mod tests;
