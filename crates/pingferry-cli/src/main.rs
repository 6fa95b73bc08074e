//! The pingferry command.
#![forbid(unsafe_code)]

fn main() {}
