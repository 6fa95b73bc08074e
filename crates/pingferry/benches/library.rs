//! Measures the ways into the library in one process: how long a `send` takes, and how many echoes a second come back with 256
//! outstanding. The target is loopback, in a namespace of its own. The TUN row sends through a device and the kernel, as the
//! clients of `pingferry run` do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a benchmark may panic")]

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use pingferry::wire::echo_request;
use pingferry::{Config, CoreConfig, Driver, Path, PathConfig, Policy, Proxy, TryRecvError};
use pingferry_sys::namespace::{allow_ping, unshare_as_root};
use pingferry_sys::netlink::{LOOPBACK, Netlink};
use pingferry_sys::ping::{Outgoing, RawBatch, RawSocket, SendBatch};
use pingferry_sys::tun::TunConfig;
use pingferry_testnet::Host;
use rustix::event::{PollFd, PollFlags, poll};

const WINDOW: u64 = 256;
const LENGTH: Duration = Duration::from_secs(1);
const ROUNDS: usize = 5;
const TARGET: [u8; 4] = [127, 0, 0, 1];

fn main() {
    // First, because it needs a process with one thread.
    unshare_as_root().unwrap();
    Netlink::open().unwrap().set_up(LOOPBACK).unwrap();
    allow_ping(0, 0).unwrap();
    println!("send, warm            {:>9.1} ns", best((0..ROUNDS).map(|_| send_time()), f64::min));
    let rate = |name: &str, measure: fn() -> f64| {
        let rates: Vec<f64> = (0..ROUNDS).map(|_| measure()).collect();
        println!("{name:<21} {:>9.0} echoes/s", best(rates.into_iter(), f64::max));
    };
    rate("callback", callback);
    rate("pull", pull);
    rate("driver, no threads", driver);
    rate("TUN device", tun);
}

/// The best of several rounds: what else runs on the machine only makes them worse.
fn best(rounds: impl Iterator<Item = f64>, better: fn(f64, f64) -> f64) -> f64 {
    rounds.reduce(better).unwrap()
}

fn config() -> Config {
    let policy = Policy { rules: vec!["allow 127.0.0.0/8".parse().unwrap(), "allow 198.18.0.1".parse().unwrap()] };
    Config::default().with_core(CoreConfig::default().with_policy(policy))
}

fn request(number: u64) -> Vec<u8> {
    echo_request([10, 0, 0, 2].into(), TARGET.into(), (number % 64) as u16, (number / 64) as u16, &[0; 56])
}

/// Nanoseconds for a packet, while the proxy has others to handle.
fn send_time() -> f64 {
    const SENDS: u64 = 100_000;
    let proxy = Proxy::open(config()).unwrap();
    let path = proxy.attach(PathConfig::default(), |_: &[u8]| {}).unwrap();
    path.set_queue_length(usize::MAX);
    let request = request(0);
    let time = || {
        let began = Instant::now();
        (0..SENDS).for_each(|_| path.send(&request).unwrap());
        began.elapsed().as_nanos() as f64 / SENDS as f64
    };
    // The first time the queue grows.
    time();
    time()
}

/// Sends as long as the time lasts and the window allows. `wait` returns how many replies came.
fn closed_loop(path: &Path, mut wait: impl FnMut() -> u64) -> f64 {
    let requests: Vec<Vec<u8>> = (0..64 * 64).map(request).collect();
    let (began, mut sent, mut received) = (Instant::now(), 0, 0);
    while began.elapsed() < LENGTH {
        while sent < received + WINDOW {
            path.send(&requests[sent as usize % requests.len()]).unwrap();
            sent += 1;
        }
        received += wait();
    }
    received as f64 / began.elapsed().as_secs_f64()
}

fn callback() -> f64 {
    let proxy = Proxy::open(config()).unwrap();
    let (back, replies) = channel();
    let path = proxy.attach(PathConfig::default(), move |_: &[u8]| back.send(())).unwrap();
    closed_loop(&path, || {
        replies.recv().unwrap();
        1 + replies.try_iter().count() as u64
    })
}

fn pull() -> f64 {
    let proxy = Proxy::open(config()).unwrap();
    let (path, mut replies) = proxy.attach_queue(PathConfig::default(), 1024).unwrap();
    closed_loop(&path, || {
        let mut count = 0;
        loop {
            match replies.try_recv() {
                Ok(_) => count += 1,
                Err(TryRecvError::Empty) if count == 0 => _ = poll(&mut [PollFd::new(&replies, PollFlags::IN)], None),
                Err(_) => return count,
            }
        }
    })
}

fn driver() -> f64 {
    let mut driver = Driver::open(config()).unwrap();
    let (back, replies) = channel();
    let path = driver.attach(PathConfig::default(), move |_: &[u8]| back.send(())).unwrap();
    closed_loop(&path, || {
        assert!(driver.turn(Instant::now()).unwrap().is_continue());
        replies.try_iter().count() as u64
    })
}

fn tun() -> f64 {
    let (client, ferry) = (Host::new("client").unwrap(), Host::new("ferry").unwrap());
    let target = "198.18.0.1".parse().unwrap();
    ferry.add_address("lo", "198.18.0.1/32".parse().unwrap()).unwrap();
    let proxy = ferry.run(|| Proxy::open(config())).unwrap().unwrap();
    let device = TunConfig::new("tun0").with_addresses(vec!["10.0.0.2/24".parse().unwrap()]);
    let (tun, ..) = client.run(|| device.open()).unwrap().unwrap();
    client.add_route("198.18.0.1/32".parse().unwrap(), None, "tun0").unwrap();
    proxy.attach_tun(PathConfig::default(), [tun]).unwrap();
    let raw = client.run(|| RawSocket::open(8 << 20)).unwrap().unwrap();
    let (mut sender, mut receiver) = (SendBatch::new(), RawBatch::new());
    let requests: Vec<Vec<u8>> = (0..64 * 64)
        .map(|number| echo_request(target, target, number % 64, number / 64, &[0; 56])[20..].to_vec())
        .collect();
    let (began, mut sent, mut received) = (Instant::now(), 0, 0);
    while began.elapsed() < LENGTH {
        while sent < received + WINDOW as usize {
            let count = (received + WINDOW as usize - sent).min(64);
            let messages = (sent..sent + count).map(|number| Outgoing {
                destination: target,
                scope_id: 0,
                hop_limit: 64,
                traffic_class: 0,
                message: &requests[number % requests.len()],
            });
            sent += raw.send(&mut sender, messages).unwrap();
        }
        poll(&mut [PollFd::new(&raw, PollFlags::IN)], None).unwrap();
        received += receiver.receive(&raw).unwrap();
    }
    received as f64 / began.elapsed().as_secs_f64()
}
