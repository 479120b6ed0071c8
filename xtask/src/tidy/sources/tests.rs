//! Each check catches what is planted for it, and lets pass what only looks like it.

use super::*;

fn problems(path: &str, text: &str) -> Vec<String> {
    check(&Source { path: path.to_owned(), text: text.to_owned() })
}

fn check_found(path: &str, text: &str, expected: &[&str]) {
    let found = problems(path, text);
    assert_eq!(found.len(), expected.len(), "{path}: {text:?}: {found:?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(path) && found.contains(expected), "{found} is no {expected}");
    }
}

const ELSEWHERE: &str = "crates/zkv-index/src/run.rs";

#[test]
fn unsafe_is_found_outside_its_two_modules() {
    let block = "fn f() {\n    unsafe { g() }\n}\n";
    check_found(ELSEWHERE, block, &[":2: `unsafe`"]);
    check_found("crates/zkv-io/src/cursor.rs", "#[allow(unsafe_code)]\n", &[":1: `unsafe`"]);
    check_found("crates/zkv-io/tests/a.rs", "unsafe impl Send for A {}\n", &[":1: `unsafe`"]);
    for allowed in UNSAFE_ALLOWED {
        check_found(allowed, block, &[]);
    }
}

#[test]
fn the_word_unsafe_in_prose_and_names_passes() {
    let text = "// unsafe is forbidden\n#![forbid(unsafe_code)]\nconst A: &str = \"unsafe\";\n\
        fn not_unsafe() {}\n";
    check_found(ELSEWHERE, text, &[]);
}

#[test]
fn the_file_system_is_found_outside_the_seam() {
    check_found(ELSEWHERE, "use std::fs;\n", &[":1: `std::fs`"]);
    check_found(ELSEWHERE, "\nfn f() { std::fs::remove_file(p) }\n", &[":2: `std::fs`"]);
    check_found(ELSEWHERE, "use std::{\n    fs::File,\n    io,\n};\n", &[":1: `std::fs`"]);
    check_found("crates/zkv/src/lib.rs", "//! A store.\nuse std::fs;\n", &[":2: `std::fs`"]);
}

#[test]
fn the_file_system_passes_where_it_belongs() {
    let paths = [
        "crates/zkv-io/src/file_storage.rs",
        "crates/zkv-cli/src/import.rs",
        "crates/zkv/tests/reopen.rs",
        "crates/zkv-log/examples/log.rs",
        "crates/zkv-log/src/log/tests.rs",
        "xtask/src/tidy.rs",
    ];
    for path in paths {
        check_found(path, "use std::fs;\n", &[]);
    }
    check_found(ELSEWHERE, "use std::{io, fmt};\nuse zkv_io::fs_name;\n// std::fs\n", &[]);
    check_found(ELSEWHERE, "fn f() {}\n\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n", &[]);
}

#[test]
fn promises_are_found_in_comments_too() {
    for promise in PROMISES {
        check_found(ELSEWHERE, &format!("fn f() {{}}\n// {promise}\n"), &[":2: finish it"]);
    }
    check_found(ELSEWHERE, "// a method; before nowhere; mastodon\n", &[]);
}

#[test]
fn long_files_are_found() {
    check_found(ELSEWHERE, &"\n".repeat(500), &[]);
    check_found(ELSEWHERE, &"\n".repeat(501), &["501 lines, over 500"]);
}

#[test]
fn a_crate_without_docs_is_found() {
    for text in ["", "mod a;\n", "//!\n", "//! TBD\n"] {
        check_found("crates/zkv-io/src/lib.rs", text, &["a crate starts with"]);
        check_found("crates/zkv-cli/src/main.rs", text, &["a crate starts with"]);
        check_found(ELSEWHERE, text, &[]);
    }
}
