//! The library with real sockets, in a network namespace of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use pingferry::{
    Config, CoreConfig, DomainId, DropReason, Family, OpenError, Path, PathConfig, Policy, Proxy, SendError,
};
use pingferry_proto::wire::{Echo, IpPacket, echo_request};
use pingferry_sys::namespace::Netns;
use pingferry_sys::ping::{Outgoing, RawBatch, RawSocket, SendBatch};
use pingferry_sys::tun::TunConfig;
use pingferry_testnet::{Host, eventually, isolated, link, require_tun};
use rustix::event::{PollFd, PollFlags, poll};

const PATIENCE: Duration = Duration::from_secs(10);

fn echo(source: &str, destination: &str, ident: u16, payload: &[u8]) -> Vec<u8> {
    echo_request(source.parse().unwrap(), destination.parse().unwrap(), ident, 1, payload)
}

/// A proxy that may ping loopback.
fn open() -> Proxy {
    let policy = Policy { rules: vec!["allow 127.0.0.0/8".parse().unwrap(), "allow ::1".parse().unwrap()] };
    let core = CoreConfig::default().with_policy(policy);
    Proxy::open(Config::default().with_core(core)).unwrap()
}

fn attach(proxy: &Proxy) -> (Path, Receiver<Vec<u8>>) {
    let (back, replies) = channel();
    let path = proxy.attach(PathConfig::default(), move |packet: &[u8]| drop(back.send(packet.to_vec()))).unwrap();
    (path, replies)
}

#[test]
fn a_duration_out_of_its_range_is_an_error() {
    let core = CoreConfig::default();
    for (config, message) in [
        (
            Config::default().with_core(core.clone().with_idle_timeout(Duration::MAX)),
            "`idle_timeout` must be from 1ms to ",
        ),
        (
            Config::default().with_core(core.clone().with_idle_timeout(Duration::ZERO)),
            "`idle_timeout` must be from 1ms to ",
        ),
        (Config::default().with_core(core.with_socket_linger(Duration::MAX)), "`socket_linger` must be from 0ns to "),
        (Config::default().with_busy_poll(Some(Duration::MAX)), "`busy_poll` must be from 0ns to 1s"),
    ] {
        let error = Proxy::open(config).unwrap_err();
        assert!(matches!(error, OpenError::OutOfRange(_)) && error.to_string().starts_with(message), "{error}");
    }
}

#[test]
fn echoes_cross_in_both_families() {
    isolated(|| {
        let proxy = open();
        let (path, replies) = attach(&proxy);
        for (client, host) in [("10.0.0.2", "127.0.0.1"), ("fd00::2", "::1")] {
            for payload in [&b""[..], b"x", &[7; 1400]] {
                path.send(&echo(client, host, 0x1234, payload)).unwrap();
                let reply = replies.recv_timeout(PATIENCE).unwrap();
                let packet = IpPacket::parse(&reply).unwrap();
                assert_eq!(packet.header.source.to_string(), host);
                assert_eq!(packet.header.destination.to_string(), client);
                assert_eq!(Echo::parse_reply(packet.header.family(), packet.payload).unwrap().ident, 0x1234);
                assert_eq!(packet.payload[8..], *payload);
            }
        }
        let stats = proxy.close().unwrap();
        assert_eq!((stats.counters.requests_sent(), stats.counters.replies_returned()), (6, 6));
    });
}

#[test]
fn each_path_has_a_domain_of_its_own_unless_it_is_given_one() {
    isolated(|| {
        let proxy = open();
        let named = PathConfig::default().with_domain(Some(DomainId(0)));
        for (config, flows) in [(PathConfig::default(), 2), (named, 1)] {
            let before = proxy.stats().counters.flows_opened;
            let (back, replies) = channel();
            let paths = [0, 1].map(|number| {
                let back = back.clone();
                let callback = move |packet: &[u8]| drop(back.send((number, packet.to_vec())));
                proxy.attach(config.clone(), callback).unwrap()
            });
            for (number, path) in paths.iter().enumerate() {
                path.send(&echo("10.0.0.2", "127.0.0.1", 1, b"")).unwrap();
                assert_eq!(replies.recv_timeout(PATIENCE).unwrap().0, number);
            }
            assert_eq!(proxy.stats().counters.flows_opened - before, flows);
        }
    });
}

#[test]
fn packets_of_a_flow_keep_their_order_with_one_thread_and_with_two() {
    const FLOWS: u16 = 5;
    isolated(|| {
        for processors in [1, 2] {
            let policy = Policy { rules: vec!["allow 127.0.0.0/8".parse().unwrap()] };
            let core = CoreConfig::default().with_policy(policy);
            let proxy = Proxy::open(Config::default().with_core(core).with_processors(processors)).unwrap();
            let (path, replies) = attach(&proxy);
            let mut seqs = vec![Vec::new(); usize::from(FLOWS)];
            for seq in 1..=4000 {
                for ident in 0..FLOWS {
                    path.send(&echo_request([10, 0, 0, 2].into(), [127, 0, 0, 1].into(), ident, seq, b"")).unwrap();
                }
                // So many outstanding that there is always something to do, and none is lost.
                let outstanding = if seq < 4000 { 100 } else { 0 };
                let count = |seqs: &[Vec<u16>]| seqs.iter().map(Vec::len).sum::<usize>();
                while count(&seqs) + outstanding < usize::from(seq) * usize::from(FLOWS) {
                    let reply = replies.recv_timeout(PATIENCE).unwrap();
                    let packet = IpPacket::parse(&reply).unwrap();
                    let echo = Echo::parse_reply(packet.header.family(), packet.payload).unwrap();
                    seqs[usize::from(echo.ident)].push(echo.seq);
                }
            }
            assert!(seqs.iter().all(|seqs| seqs.iter().copied().eq(1..=4000)), "{processors} processors");
        }
    });
}

#[test]
fn packets_of_a_flow_keep_their_order_through_a_tun_device() {
    const FLOWS: u16 = 7;
    const SEQS: u16 = 3000;
    isolated(|| {
        if !require_tun() {
            return;
        }
        let (client, ferry) = (Host::new("client").unwrap(), Host::new("ferry").unwrap());
        let host: IpAddr = "198.18.0.1".parse().unwrap();
        ferry.add_address("lo", host.into()).unwrap();
        let policy = Policy { rules: vec!["allow 198.18.0.1".parse().unwrap()] };
        let core = CoreConfig::default().with_policy(policy);
        let proxy = ferry.run(|| Proxy::open(Config::default().with_core(core).with_processors(2))).unwrap().unwrap();
        let addresses = vec!["10.0.0.2/24".parse().unwrap()];
        let device = TunConfig::new("tun0").with_addresses(addresses);
        let (tun, ..) = client.run(|| device.open()).unwrap().unwrap();
        client.add_route(host.into(), None, "tun0").unwrap();
        proxy.attach_tun(PathConfig::default(), [tun]).unwrap();

        let raw = client.run(|| RawSocket::open(8 << 20)).unwrap().unwrap();
        let (mut sender, mut receiver) = (SendBatch::new(), RawBatch::new());
        let mut seqs = vec![Vec::new(); usize::from(FLOWS)];
        for seq in 1..=SEQS {
            let requests = (0..FLOWS).map(|ident| echo_request(host, host, ident, seq, b"")[20..].to_vec());
            let requests: Vec<_> = requests.collect();
            let messages = requests.iter().map(|message| Outgoing {
                destination: host,
                scope_id: 0,
                hop_limit: 64,
                traffic_class: 0,
                message,
            });
            assert_eq!(raw.send(&mut sender, messages).unwrap(), requests.len());
            // So many outstanding that there is always something to do, and none is lost.
            let outstanding = if seq < SEQS { 100 } else { 0 };
            while seqs.iter().map(Vec::len).sum::<usize>() + outstanding < usize::from(seq * FLOWS) {
                let readable = poll(&mut [PollFd::new(&raw, PollFlags::IN)], Some(&PATIENCE.try_into().unwrap()));
                assert_eq!(readable.unwrap(), 1, "no reply");
                receiver.receive(&raw).unwrap();
                for packet in receiver.iter() {
                    let echo = Echo::parse_reply(Family::V4, &packet[20..]).unwrap();
                    seqs[usize::from(echo.ident)].push(echo.seq);
                }
            }
        }
        assert!(seqs.iter().all(|seqs| seqs.iter().copied().eq(1..=SEQS)));
    });
}

#[test]
fn a_full_batch_crosses_without_loss() {
    isolated(|| {
        let proxy = open();
        let (path, replies) = attach(&proxy);
        for ident in 0..500 {
            path.send(&echo("10.0.0.2", "127.0.0.1", ident, b"")).unwrap();
        }
        let mut idents: Vec<u16> = (0..500)
            .map(|_| replies.recv_timeout(PATIENCE).unwrap())
            .map(|reply| u16::from_be_bytes([reply[24], reply[25]]))
            .collect();
        idents.sort_unstable();
        assert!(idents.into_iter().eq(0..500));
        assert_eq!(proxy.stats().sockets, 500);
    });
}

#[test]
fn several_workers_share_the_domains() {
    isolated(|| {
        let policy = Policy { rules: vec!["allow 127.0.0.0/8".parse().unwrap()] };
        let core = CoreConfig::default().with_policy(policy);
        let proxy = Proxy::open(Config::default().with_core(core).with_workers(2)).unwrap();
        let (back, replies) = channel();
        let paths = [0, 1, 2].map(|domain| {
            let back = back.clone();
            let config = PathConfig::default().with_domain(Some(DomainId(domain)));
            proxy.attach(config, move |packet: &[u8]| drop(back.send((domain, packet.to_vec())))).unwrap()
        });
        for (domain, path) in (0u32..).zip(&paths) {
            path.send(&echo("10.0.0.2", "127.0.0.1", 1, b"")).unwrap();
            assert_eq!(replies.recv_timeout(PATIENCE).unwrap().0, domain);
        }
        let stats = proxy.close().unwrap();
        assert_eq!((stats.flows, stats.counters.replies_returned()), (3, 3));
    });
}

#[test]
fn bad_packets_are_counted() {
    isolated(|| {
        let proxy = open();
        let (path, replies) = attach(&proxy);
        path.send(b"").unwrap();
        path.send(&[0; 70_000]).unwrap();
        path.send(&echo("10.0.0.2", "127.0.0.1", 1, b"")).unwrap();
        replies.recv_timeout(PATIENCE).unwrap();
        let drops = proxy.stats().counters.request_drops;
        assert_eq!((drops[DropReason::Truncated], drops[DropReason::Oversized], drops.total()), (1, 1, 2));
    });
}

#[test]
fn paths_end_with_their_handle_and_with_the_proxy() {
    isolated(|| {
        let proxy = open();
        let (first, first_replies) = attach(&proxy);
        let (second, second_replies) = attach(&proxy);
        drop(first);
        assert!(first_replies.recv_timeout(PATIENCE).is_err(), "its callback is dropped");
        second.send(&echo("10.0.0.2", "127.0.0.1", 1, b"")).unwrap();
        second_replies.recv_timeout(PATIENCE).unwrap();

        let control = proxy.control();
        control.stop();
        proxy.wait().unwrap();
        assert_eq!(second.send(b""), Err(SendError::Closed));
        control.stop();
    });
}

#[test]
fn a_flood_fills_the_queue_but_never_blocks() {
    isolated(|| {
        let proxy = open();
        let (busy, at_work) = channel();
        let (go_on, wait) = channel::<()>();
        let path = proxy
            .attach(PathConfig::default(), move |_: &[u8]| {
                busy.send(()).unwrap();
                // Ends when the test drops its end.
                let _ = wait.recv();
            })
            .unwrap();
        path.send(&echo("10.0.0.2", "127.0.0.1", 1, b"")).unwrap();
        at_work.recv_timeout(PATIENCE).unwrap();
        let refused = (0..5000).find_map(|_| path.send(b"").err());
        assert_eq!(refused, Some(SendError::Full));
        drop(go_on);
    });
}

#[test]
fn a_callback_that_panics_harms_its_own_path_only() {
    isolated(|| {
        let proxy = open();
        let (calls, called) = channel();
        let panicking = proxy.attach(PathConfig::default(), move |_: &[u8]| -> () {
            calls.send(()).unwrap();
            panic!("in the callback");
        });
        let panicking = panicking.unwrap();
        let (path, replies) = attach(&proxy);
        for ident in [1, 2] {
            panicking.send(&echo("10.0.0.2", "127.0.0.1", ident, b"")).unwrap();
            path.send(&echo("10.0.0.3", "127.0.0.1", ident, b"")).unwrap();
            replies.recv_timeout(PATIENCE).unwrap();
        }
        eventually("all replies", || Ok(proxy.stats().counters.replies_received == 4)).unwrap();
        let stats = proxy.close().unwrap();
        assert_eq!(stats.counters.reply_drops[DropReason::DeliveryFailed], 2);
        assert_eq!(called.iter().count(), 1, "it is not called again");
    });
}

#[test]
fn without_permission_it_does_not_open() {
    isolated(|| {
        let bare = Netns::create().unwrap();
        let refused = bare.run(|| Proxy::open(Config::default()).map(drop)).unwrap();
        assert!(matches!(refused, Err(OpenError::NotPermitted { .. })), "{refused:?}");
    });
}

#[test]
fn the_proxy_lives_where_it_was_opened() {
    isolated(|| {
        let elsewhere = Host::new("elsewhere").unwrap();
        let target = Host::new("target").unwrap();
        let [here, there] = ["192.0.2.2/24", "192.0.2.1/24"].map(|address| [address.parse().unwrap()]);
        link(&elsewhere, "eth0", &here, &target, "eth0", &there, None).unwrap();
        let proxy = elsewhere.run(open).unwrap();
        let (path, replies) = attach(&proxy);
        path.send(&echo("10.0.0.2", "192.0.2.1", 1, b"")).unwrap();
        replies.recv_timeout(PATIENCE).unwrap();
    });
}

#[test]
fn the_example_embeds_it() {
    isolated(|| {
        let elsewhere = Host::new("elsewhere").unwrap();
        let target = Host::new("target").unwrap();
        let [here, there] = ["192.0.2.2/24", "192.0.2.1/24"].map(|address| [address.parse().unwrap()]);
        link(&elsewhere, "eth0", &here, &target, "eth0", &there, None).unwrap();
        let output = elsewhere.output(Command::new(example("embed")).arg("192.0.2.1")).unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("60 bytes from 192.0.2.1, hop limit 63\n1 sent, 1 returned"), "{output:?}");
    });
}

/// Cargo builds the examples with the tests, next to them.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(|deps| deps.parent()).unwrap().join("examples").join(name)
}
