//! The sans-IO core of pingferry.
#![forbid(unsafe_code)]

mod family;

pub use family::Family;
