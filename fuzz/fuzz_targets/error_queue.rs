#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| pingferry_fuzz::error_queue(data));
