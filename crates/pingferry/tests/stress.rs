//! Many paths, and everything that can be done with them at once, from many threads and from callbacks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use pingferry::wire::echo_request;
use pingferry::{Config, Control, CoreConfig, Path, PathConfig, Policy, Proxy};
use pingferry_testnet::{eventually, isolated};

const PATIENCE: Duration = Duration::from_secs(60);

fn request(ident: u16, seq: u16) -> Vec<u8> {
    echo_request([10, 0, 0, 2].into(), [127, 0, 0, 1].into(), ident, seq, b"")
}

/// A proxy that may ping loopback.
fn open(workers: usize, processors: usize) -> Proxy {
    let policy = Policy { rules: vec!["allow 127.0.0.0/8".parse().unwrap()] };
    let core = CoreConfig::default().with_policy(policy).with_idle_timeout(Duration::from_millis(100));
    // A table for more flows takes memory page by page, wherever their hashes are.
    let core = core.with_socket_linger(Duration::from_millis(100)).with_max_flows(4096);
    Proxy::open(Config::default().with_core(core).with_workers(workers).with_processors(processors)).unwrap()
}

/// Resident memory of this process, in kilobytes.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// What a thread does in turn with paths that all threads share.
fn disturb(control: &Control, paths: &Mutex<Vec<Arc<Path>>>, sent: &AtomicU64, round: u32) {
    let count = |taken: bool| _ = sent.fetch_add(u64::from(taken), Ordering::Relaxed);
    let some = || {
        let paths = paths.lock().unwrap();
        paths.get(round as usize % paths.len().max(1)).cloned()
    };
    match round % 8 {
        0 | 1 => {
            let weak = control.clone();
            let callback = move |packet: &[u8]| {
                // As a program does that closes a client's path when it hears from it.
                if packet[25].is_multiple_of(16) {
                    let _ = weak.set_policy(&Policy { rules: vec!["allow 127.0.0.0/8".parse().unwrap()] });
                    drop(weak.attach(PathConfig::default(), |_: &[u8]| {}));
                }
            };
            if let Ok(path) = control.attach(PathConfig::default(), callback) {
                paths.lock().unwrap().push(Arc::new(path));
            }
        }
        2 => drop(paths.lock().unwrap().pop()),
        3 => some().into_iter().for_each(|path| path.detach()),
        4 => some().into_iter().for_each(|path| _ = path.configure(&PathConfig::default().with_mtu(1400))),
        5 => assert!(control.stats().counters.add_up()),
        _ => {
            if let Some(path) = some() {
                (0..10).for_each(|seq| count(path.send(&request(round as u16, seq)).is_ok()));
            }
        }
    }
}

#[test]
fn everything_at_once_ends_in_time_and_adds_up() {
    isolated(|| {
        for (workers, processors) in [(1, 1), (1, 2), (2, 4)] {
            let (done, finished) = channel();
            thread::spawn(move || {
                let proxy = open(workers, processors);
                let (paths, sent) = (Arc::new(Mutex::default()), Arc::new(AtomicU64::new(0)));
                let threads: Vec<_> = (0..6)
                    .map(|number| {
                        let (control, paths, sent) = (proxy.control(), Arc::clone(&paths), Arc::clone(&sent));
                        thread::spawn(move || {
                            (0..2000).for_each(|round| disturb(&control, &paths, &sent, round * 7 + number));
                        })
                    })
                    .collect();
                threads.into_iter().for_each(|thread| thread.join().unwrap());
                let stats = proxy.close().unwrap();
                assert!(stats.counters.add_up(), "{stats:?}");
                // What did not fit into a queue is counted too.
                let refused = stats.counters.request_drops[pingferry::DropReason::QueueFull];
                assert_eq!(stats.counters.packets - refused, sent.load(Ordering::Relaxed));
                done.send(()).unwrap();
            });
            finished.recv_timeout(PATIENCE).expect("a deadlock");
        }
    });
}

#[test]
fn paths_that_come_and_go_leave_nothing() {
    isolated(|| {
        let proxy = open(1, 1);
        let (back, replies) = channel();
        let ping_by_new_paths = |count: u16| {
            for number in 0..count {
                let back = back.clone();
                let path = proxy.attach(PathConfig::default(), move |_: &[u8]| back.send(())).unwrap();
                path.send(&request(number, 1)).unwrap();
                replies.recv_timeout(PATIENCE).unwrap();
            }
        };
        let idle = || eventually("idle", || Ok(proxy.stats().flows + proxy.stats().sockets == 0));
        // The first ones fill the tables that the next ones use again.
        ping_by_new_paths(2000);
        idle().unwrap();
        let (before, open) = (memory(), descriptors());
        ping_by_new_paths(20_000);
        idle().unwrap();
        let (after, still_open) = (memory(), descriptors());
        println!("20,000 paths: {before} kB before, {after} kB after, {still_open} descriptors");
        assert!(after < before + 2048, "{before} kB before, {after} kB after");
        assert!(still_open <= open + 4, "{open} descriptors before, {still_open} after");
        assert_eq!(proxy.close().unwrap().counters.replies_returned(), 22_000);
    });
}

#[test]
fn a_proxy_with_a_hundred_paths_is_small() {
    isolated(|| {
        let (before, threads) = (memory(), || fs::read_dir("/proc/self/task").unwrap().count());
        let of_test = threads();
        let proxy = open(1, 1);
        let (back, replies) = channel();
        let paths: Vec<Path> = (0..100)
            .map(|_| {
                let back = back.clone();
                proxy.attach(PathConfig::default(), move |_: &[u8]| back.send(())).unwrap()
            })
            .collect();
        for (path, ident) in paths.iter().zip(0..) {
            path.send(&request(ident, 1)).unwrap();
            replies.recv_timeout(PATIENCE).unwrap();
        }
        let (used, of_proxy) = (memory() - before, threads() - of_test);
        println!("100 paths: {used} kB, {of_proxy} threads");
        assert!(used <= 6 << 10 && of_proxy == 1, "{used} kB, {of_proxy} threads");
    });
}

#[test]
fn an_idle_path_takes_little() {
    const PATHS: u64 = 10_000;
    isolated(|| {
        let proxy = open(1, 1);
        let attach = || proxy.attach(PathConfig::default(), |_: &[u8]| {}).unwrap();
        let first = attach();
        let before = memory();
        let paths: Vec<Path> = (0..PATHS).map(|_| attach()).collect();
        let bytes = (memory() - before) * 1024 / PATHS;
        println!("an idle path: {bytes} bytes");
        assert!(bytes <= 4096, "{bytes} bytes");
        drop((first, paths));
    });
}
