//! An unprivileged ICMP proxy as a library.
#![forbid(unsafe_code)]
