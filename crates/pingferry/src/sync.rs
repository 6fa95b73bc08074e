//! Atomics and locks, in the form that loom can check: `./dev loom` builds this crate's tests with `--cfg loom`.

#[cfg(all(not(loom), feature = "tun"))]
pub(crate) use std::sync::Mutex;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

#[cfg(loom)]
pub(crate) use loom::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU8, Ordering},
};
