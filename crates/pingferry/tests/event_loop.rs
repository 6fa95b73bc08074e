//! A proxy without threads, in an event loop of the test's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::cell::OnceCell;
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use pingferry::wire::echo_request;
use pingferry::{Config, Control, CoreConfig, Driver, PathConfig, Policy, RunError, SendError};
use pingferry_testnet::isolated;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

fn request(seq: u16) -> Vec<u8> {
    echo_request([10, 0, 0, 2].into(), [127, 0, 0, 1].into(), 7, seq, b"")
}

/// A driver that may ping loopback, with flows and sockets that are closed soon.
fn open() -> Driver {
    let policy = Policy { rules: vec!["allow 127.0.0.0/8".parse().unwrap()] };
    let core = CoreConfig::default().with_policy(policy);
    let soon = Duration::from_millis(50);
    Driver::open(Config::default().with_core(core.with_idle_timeout(soon).with_socket_linger(soon))).unwrap()
}

/// Turns until `is_done`, and sleeps between turns as a program would.
fn turn_until(driver: &mut Driver, mut is_done: impl FnMut(&Driver) -> bool) {
    while !is_done(driver) {
        assert!(driver.turn(Instant::now()).unwrap().is_continue());
        let at = driver.next_deadline();
        let left = at.map(|at| Timespec::try_from(at.saturating_duration_since(Instant::now())).unwrap());
        if !is_done(driver) {
            poll(&mut [PollFd::new(&*driver, PollFlags::IN)], left.as_ref()).unwrap();
        }
    }
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn echoes_cross_without_a_thread_and_flows_end_in_time() {
    isolated(|| {
        let before = threads();
        let mut driver = open();
        let (back, replies) = channel();
        let path = driver.attach(PathConfig::default(), move |packet: &[u8]| back.send(packet.to_vec())).unwrap();
        let mut received = Vec::new();
        for round in 0..5 {
            for seq in 0..500 {
                path.send(&request(round * 500 + seq)).unwrap();
            }
            turn_until(&mut driver, |_| {
                received.extend(replies.try_iter().map(|reply| u16::from_be_bytes([reply[26], reply[27]])));
                received.len() == usize::from(round + 1) * 500
            });
        }
        assert!(received.into_iter().eq(0..2500));
        turn_until(&mut driver, |driver| driver.stats().flows == 0 && driver.stats().sockets == 0);
        assert_eq!(threads(), before);
        assert_eq!(driver.stats().counters.flows_expired, 1);
        drop(driver);
        assert_eq!(path.send(&request(0)), Err(SendError::Closed));
    });
}

#[test]
fn it_ends_when_it_is_stopped_also_by_a_callback() {
    isolated(|| {
        let mut driver = open();
        let control: Arc<OnceLock<Control>> = Arc::default();
        let callback = {
            let control = Arc::clone(&control);
            move |_: &[u8]| {
                let control = control.get().unwrap();
                assert!(matches!(control.close(), Err(RunError::WouldDeadlock)));
                drop(control.attach(PathConfig::default(), |_: &[u8]| {}).unwrap());
            }
        };
        let path = driver.attach(PathConfig::default(), callback).unwrap();
        control.set(Control::clone(&driver)).unwrap();
        (0..10).for_each(|seq| path.send(&request(seq)).unwrap());
        let ended = OnceCell::new();
        while ended.get().is_none() {
            if driver.turn(Instant::now()).unwrap().is_break() {
                ended.set(driver.wait().unwrap()).unwrap();
            } else {
                poll(&mut [PollFd::new(&driver, PollFlags::IN)], None).unwrap();
            }
        }
        let stats = ended.into_inner().unwrap();
        assert!(stats.counters.requests_sent() == 10 && stats.counters.add_up(), "{stats:?}");
        assert!(driver.turn(Instant::now()).unwrap().is_break());
    });
}

#[test]
fn what_was_taken_is_sent_when_it_is_dropped() {
    isolated(|| {
        let driver = open();
        let path = driver.attach(PathConfig::default(), |_: &[u8]| {}).unwrap();
        (0..100).for_each(|seq| path.send(&request(seq)).unwrap());
        let control = Control::clone(&driver);
        drop(driver);
        assert_eq!(control.wait().unwrap().counters.requests_sent(), 100);
    });
}
