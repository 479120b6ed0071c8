//! The target `verify-mended` of `zkv-fuzz`, for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| zkv_fuzz::targets::run("verify-mended", input));
