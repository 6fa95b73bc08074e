//! Atomics and locks, in the form that loom can check: `./dev loom` builds this crate's tests with `--cfg loom`.

#[cfg(not(loom))]
pub(crate) use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU8, Ordering},
};

#[cfg(loom)]
pub(crate) use loom::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU8, Ordering},
};
