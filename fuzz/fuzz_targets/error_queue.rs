//! Calls the body of the target, `pingferry_fuzz::error_queue`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pingferry_fuzz::error_queue(data));
