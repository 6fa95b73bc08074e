//! Packets of up to 1,500 bytes allocate nothing, once the buffers have grown to what the program has outstanding.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::alloc::System;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use pingferry::wire::echo_request;
use pingferry::{Config, CoreConfig, Driver, Path, PathConfig, Policy, Proxy};
use pingferry_testnet::isolated;
use rustix::event::{PollFd, PollFlags, poll};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Echoes before allocations are counted, and while they are.
const WARM_UP: usize = 10_000;
const ECHOES: usize = 20_000;
const WINDOW: usize = 64;
const HEADERS: usize = 28;

fn config() -> Config {
    let policy = Policy { rules: vec!["allow 127.0.0.0/8".parse().unwrap()] };
    Config::default().with_core(CoreConfig::default().with_policy(policy))
}

/// Sends requests of 16 flows, of 28 to 1,500 bytes. `wait` waits for replies, and says how many came. What allocates, does so
/// less than once in a thousand echoes: a round may be larger than all before.
fn echoes_allocate_nothing(path: &Path, mut wait: impl FnMut() -> usize) {
    let requests: Vec<Vec<u8>> = (0..WINDOW)
        .map(|number| {
            let payload = vec![7; (1500 - HEADERS) * number / (WINDOW - 1)];
            echo_request([10, 0, 0, 2].into(), [127, 0, 0, 1].into(), number as u16 % 16, number as u16, &payload)
        })
        .collect();
    assert_eq!((requests[0].len(), requests[WINDOW - 1].len()), (HEADERS, 1500));
    let mut sent = 0;
    let mut received = 0;
    let mut ping = |count: usize| {
        let all = received + count;
        while received < all {
            while sent < all.min(received + WINDOW) {
                path.send(&requests[sent % WINDOW]).unwrap();
                sent += 1;
            }
            received += wait();
        }
    };
    ping(WARM_UP);
    let region = Region::new(ALLOCATOR);
    ping(ECHOES);
    let change = region.change();
    println!("{} allocations, {} reallocations for {ECHOES} echoes", change.allocations, change.reallocations);
    assert!(change.allocations + change.reallocations < ECHOES / 1000, "{change:?}");
}

#[test]
fn by_callback() {
    isolated(|| {
        let proxy = Proxy::open(config()).unwrap();
        let (count, waiting) = (Arc::new(AtomicUsize::new(0)), thread::current());
        let callback = {
            let count = Arc::clone(&count);
            move |_: &[u8]| {
                count.fetch_add(1, Ordering::SeqCst);
                waiting.unpark();
            }
        };
        let path = proxy.attach(PathConfig::default(), callback).unwrap();
        echoes_allocate_nothing(&path, || {
            thread::park();
            count.swap(0, Ordering::SeqCst)
        });
    });
}

#[test]
fn by_pull() {
    isolated(|| {
        let proxy = Proxy::open(config()).unwrap();
        let (path, mut replies) = proxy.attach_queue(PathConfig::default(), 1024).unwrap();
        echoes_allocate_nothing(&path, || {
            poll(&mut [PollFd::new(&replies, PollFlags::IN)], None).unwrap();
            let mut count = 0;
            while replies.try_recv().is_ok() {
                count += 1;
            }
            count
        });
    });
}

#[test]
fn by_a_driver() {
    isolated(|| {
        let mut driver = Driver::open(config()).unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let callback = {
            let count = Arc::clone(&count);
            move |_: &[u8]| _ = count.fetch_add(1, Ordering::SeqCst)
        };
        let path = driver.attach(PathConfig::default(), callback).unwrap();
        echoes_allocate_nothing(&path, || {
            poll(&mut [PollFd::new(&driver, PollFlags::IN)], None).unwrap();
            assert!(driver.turn(Instant::now()).unwrap().is_continue());
            count.swap(0, Ordering::SeqCst)
        });
    });
}
