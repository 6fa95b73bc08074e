//! Calls the body of the target, `pingferry_fuzz::edge`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pingferry_fuzz::edge(data));
