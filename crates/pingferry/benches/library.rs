//! Measures the ways into the library in one process: how long a `send` takes, and how many echoes a second come back with 64
//! flows and 256 outstanding, to a host of its own for each flow and to one host for all. The targets are addresses of loopback,
//! in a namespace of its own. The TUN rows send through a device and the kernel, as the clients of `pingferry run` do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a benchmark may panic")]

use std::net::Ipv4Addr;
use std::sync::mpsc::channel;
use std::thread::yield_now;
use std::time::{Duration, Instant};

use pingferry::wire::echo_request;
use pingferry::{Config, Control, CoreConfig, Driver, Path, PathConfig, Policy, Proxy, TryRecvError};
use pingferry_sys::namespace::{allow_ping, unshare_as_root};
use pingferry_sys::netlink::{LOOPBACK, Netlink};
use pingferry_sys::ping::{Outgoing, RawBatch, RawSocket, SendBatch};
use pingferry_sys::tun::TunConfig;
use pingferry_testnet::Host;
use rustix::event::{PollFd, PollFlags, poll};

const FLOWS: u64 = 64;
const WINDOW: u64 = 256;
const LENGTH: Duration = Duration::from_secs(1);
const ROUNDS: usize = 5;
/// The first target, in a prefix of addresses of the loopback interface.
const TARGET: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const PREFIX: &str = "198.18.0.0/24";

fn main() {
    // First, because it needs a process with one thread.
    unshare_as_root().unwrap();
    Netlink::open().unwrap().set_up(LOOPBACK).unwrap();
    Netlink::open().unwrap().add_address(LOOPBACK, PREFIX.parse().unwrap()).unwrap();
    allow_ping(0, 0).unwrap();
    println!("send, warm            {:>9.1} ns", best((0..ROUNDS).map(|_| send_time()), f64::min));
    for hosts in [FLOWS, 1] {
        println!("{FLOWS} flows, {WINDOW} outstanding, {hosts} hosts");
        let rate = |name: &str, measure: fn(u64) -> f64| {
            println!("{name:<21} {:>9.0} echoes/s", best((0..ROUNDS).map(|_| measure(hosts)), f64::max));
        };
        rate("callback", callback);
        rate("pull", pull);
        rate("driver, no threads", driver);
        rate("TUN device", tun);
    }
}

/// The best of several rounds: what else runs on the machine only makes them worse.
fn best(rounds: impl Iterator<Item = f64>, better: fn(f64, f64) -> f64) -> f64 {
    rounds.reduce(better).unwrap()
}

fn config() -> Config {
    let policy = Policy { rules: vec![format!("allow {PREFIX}").parse().unwrap()] };
    Config::default().with_core(CoreConfig::default().with_policy(policy))
}

/// A gateway address that is none of the targets: echo requests to it are answered by the proxy and do not cross it.
fn path_config() -> PathConfig {
    PathConfig::default().with_gateway_v4(Some([10, 0, 0, 1].into()))
}

fn target(number: u64, hosts: u64) -> Ipv4Addr {
    Ipv4Addr::from_bits(TARGET.to_bits() + (number % FLOWS % hosts) as u32)
}

fn request(number: u64, hosts: u64) -> Vec<u8> {
    let (ident, seq) = ((number % FLOWS) as u16, (number / FLOWS) as u16);
    echo_request([10, 0, 0, 2].into(), target(number, hosts).into(), ident, seq, &[0; 56])
}

fn requests(hosts: u64) -> Vec<Vec<u8>> {
    (0..FLOWS * 64).map(|number| request(number, hosts)).collect()
}

/// Nanoseconds for a packet of a burst, while the proxy handles those before it: the median of the bursts.
fn send_time() -> f64 {
    const BURSTS: u64 = 200;
    const SENDS: u64 = 500;
    let proxy = Proxy::open(config()).unwrap();
    let path = proxy.attach(path_config(), |_: &[u8]| {}).unwrap();
    let request = request(0, 1);
    let mut times: Vec<u128> = (1..=BURSTS)
        .map(|burst| {
            let began = Instant::now();
            (0..SENDS).for_each(|_| path.send(&request).unwrap());
            let time = began.elapsed().as_nanos();
            while path.stats().packets < burst * SENDS {
                yield_now();
            }
            time
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2] as f64 / SENDS as f64
}

/// Sends as long as the time lasts and the window allows. `wait` returns how many replies came.
fn closed_loop(control: &Control, path: &Path, hosts: u64, mut wait: impl FnMut() -> u64) -> f64 {
    let requests = requests(hosts);
    let (began, mut sent, mut received) = (Instant::now(), 0, 0);
    while began.elapsed() < LENGTH {
        while sent < received + WINDOW {
            path.send(&requests[sent as usize % requests.len()]).unwrap();
            sent += 1;
        }
        received += wait();
    }
    rate(control, received, began)
}

/// Echoes a second. All of them must have crossed the proxy.
fn rate(control: &Control, received: u64, began: Instant) -> f64 {
    let rate = received as f64 / began.elapsed().as_secs_f64();
    assert!(control.stats().counters.replies_returned() >= received, "the proxy answered by itself");
    rate
}

fn callback(hosts: u64) -> f64 {
    let proxy = Proxy::open(config()).unwrap();
    let (back, replies) = channel();
    let control = proxy.control();
    let path = proxy.attach(path_config(), move |_: &[u8]| back.send(())).unwrap();
    closed_loop(&control, &path, hosts, || {
        replies.recv().unwrap();
        1 + replies.try_iter().count() as u64
    })
}

fn pull(hosts: u64) -> f64 {
    let proxy = Proxy::open(config()).unwrap();
    let control = proxy.control();
    let (path, mut replies) = proxy.attach_queue(path_config(), 1024).unwrap();
    closed_loop(&control, &path, hosts, || {
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

fn driver(hosts: u64) -> f64 {
    let mut driver = Driver::open(config()).unwrap();
    let (back, replies) = channel();
    let control = Control::clone(&driver);
    let path = driver.attach(path_config(), move |_: &[u8]| back.send(())).unwrap();
    closed_loop(&control, &path, hosts, || {
        assert!(driver.turn(Instant::now()).unwrap().is_continue());
        replies.try_iter().count() as u64
    })
}

fn tun(hosts: u64) -> f64 {
    let (client, ferry) = (Host::new("client").unwrap(), Host::new("ferry").unwrap());
    ferry.add_address("lo", PREFIX.parse().unwrap()).unwrap();
    let proxy = ferry.run(|| Proxy::open(config())).unwrap().unwrap();
    let device = TunConfig::new("tun0").with_addresses(vec!["10.0.0.2/24".parse().unwrap()]);
    let (tun, ..) = client.run(|| device.open()).unwrap().unwrap();
    client.add_route(PREFIX.parse().unwrap(), None, "tun0").unwrap();
    proxy.attach_tun(path_config(), [tun]).unwrap();
    let raw = client.run(|| RawSocket::open(8 << 20)).unwrap().unwrap();
    let (mut sender, mut receiver) = (SendBatch::new(), RawBatch::new());
    let requests: Vec<Vec<u8>> = requests(hosts).iter().map(|packet| packet[20..].to_vec()).collect();
    let (began, mut sent, mut received) = (Instant::now(), 0, 0);
    while began.elapsed() < LENGTH {
        while sent < received + WINDOW as usize {
            let count = (received + WINDOW as usize - sent).min(64);
            let messages = (sent..sent + count).map(|number| Outgoing {
                destination: target(number as u64, hosts).into(),
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
    rate(&proxy.control(), received as u64, began)
}
