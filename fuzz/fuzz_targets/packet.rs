//! Calls the body of the target, `pingferry_fuzz::packet`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pingferry_fuzz::packet(data));
