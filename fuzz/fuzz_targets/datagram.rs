//! Calls the body of the target, `pingferry_fuzz::datagram`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pingferry_fuzz::datagram(data));
