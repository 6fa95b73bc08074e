//! Echo requests and answers as values.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::net::IpAddr;
use std::time::Duration;

use pingferry::{Answers, Config, Content, CoreConfig, Echo, PathConfig, Policy, Proxy, Rate, TryRecvError};
use pingferry_testnet::{Host, eventually, isolated, link};
use rustix::event::{PollFd, PollFlags, poll};

const PATIENCE: Duration = Duration::from_secs(10);

/// What is expected of an answer: its key, who sent it, identifier and sequence number, and its data or the type of the error.
type Expected = (u32, IpAddr, u16, u16, Result<Vec<u8>, (u8, IpAddr)>);

fn next(answers: &mut Answers) -> Expected {
    loop {
        match answers.try_recv() {
            Ok(answer) => {
                let content = match answer.content {
                    Content::Reply(payload) => Ok(payload.to_vec()),
                    Content::Error { icmp_type, destination, .. } => Err((icmp_type, destination)),
                    _ => panic!("{answer:?}"),
                };
                return (answer.key, answer.from, answer.ident, answer.seq, content);
            }
            Err(TryRecvError::Empty) => {
                let timeout = PATIENCE.try_into().unwrap();
                assert_eq!(poll(&mut [PollFd::new(answers, PollFlags::IN)], Some(&timeout)), Ok(1), "no answer");
            }
            Err(TryRecvError::Closed) => panic!("closed"),
        }
    }
}

#[test]
fn replies_and_errors_come_back_as_values() {
    isolated(|| {
        let (ferry, router, target) =
            (Host::new("ferry").unwrap(), Host::router("router").unwrap(), Host::new("target").unwrap());
        let net = |addresses: [&str; 2]| addresses.map(|address| address.parse().unwrap());
        let ([f4, f6], [r4, r6]) =
            (net(["192.0.2.2/24", "2001:db8:1::2/64"]), net(["192.0.2.1/24", "2001:db8:1::1/64"]));
        link(&ferry, "eth0", &[f4, f6], &router, "eth0", &[r4, r6], None).unwrap();
        let ([s4, s6], [t4, t6]) =
            (net(["198.51.100.1/24", "2001:db8:2::1/64"]), net(["198.51.100.2/24", "2001:db8:2::2/64"]));
        link(&router, "eth1", &[s4, s6], &target, "eth0", &[t4, t6], None).unwrap();
        for (host, via) in [(&ferry, [r4.addr(), r6.addr()]), (&target, [s4.addr(), s6.addr()])] {
            host.add_route("0.0.0.0/0".parse().unwrap(), Some(via[0]), "eth0").unwrap();
            host.add_route("::/0".parse().unwrap(), Some(via[1]), "eth0").unwrap();
        }
        let proxy = ferry.run(|| Proxy::open(Config::default())).unwrap().unwrap();
        let (echoes, mut answers) = proxy.attach_echoes(PathConfig::default(), 100).unwrap();
        for (target, router, time_exceeded) in [(t4.addr(), r4.addr(), 11), (t6.addr(), r6.addr(), 3)] {
            let echo = Echo { key: 7, destination: target, ident: 0x1234, seq: 9, hop_limit: 64, payload: b"data" };
            echoes.send(echo).unwrap();
            assert_eq!(next(&mut answers), (7, target, 0x1234, 9, Ok(b"data".to_vec())));
            // The proxy is no hop, so the first router is reached by a hop limit of 1.
            echoes.send(Echo { key: 0x0fff_fffe, hop_limit: 1, ..echo }).unwrap();
            let error = Err((time_exceeded, target));
            assert_eq!(next(&mut answers), (0x0fff_fffe, router, 0x1234, 9, error));
            // Keys are clients of their own, and an answer is never in fragments.
            let payload = vec![7; 30_000];
            for key in 1..5 {
                echoes.send(Echo { key, payload: &payload, ..echo }).unwrap();
                let (of, from, _, _, content) = next(&mut answers);
                assert!((of, from) == (key, target) && content.is_ok_and(|reply| reply == payload), "{key}");
            }
        }
        drop(echoes);
        eventually("the end", || Ok(answers.try_recv() == Err(TryRecvError::Closed))).unwrap();
    });
}

#[test]
fn each_key_has_a_limit_of_its_own_and_a_refused_destination_is_an_error() {
    isolated(|| {
        let policy = Policy { rules: vec!["allow 127.0.0.0/8".parse().unwrap()] };
        let rate = Rate { per_second: 1, burst: 3 };
        let core = CoreConfig::default().with_policy(policy).with_rate_per_source(Some(rate));
        let proxy = Proxy::open(Config::default().with_core(core)).unwrap();
        let (echoes, mut answers) = proxy.attach_echoes(PathConfig::default(), 100).unwrap();
        let echo = Echo { key: 1, destination: [127, 0, 0, 1].into(), ident: 1, seq: 1, hop_limit: 64, payload: b"" };
        for key in [1, 2] {
            (0..3).for_each(|seq| echoes.send(Echo { key, seq, ..echo }).unwrap());
        }
        let mut keys: Vec<u32> = (0..6).map(|_| next(&mut answers)).map(|answer| answer.0).collect();
        keys.sort_unstable();
        assert_eq!(keys, [1, 1, 1, 2, 2, 2]);
        let destination = [240, 0, 0, 1].into();
        echoes.send(Echo { key: 3, destination, ..echo }).unwrap();
        let (key, _, ident, seq, content) = next(&mut answers);
        assert_eq!((key, ident, seq, content), (3, 1, 1, Err((3, destination))));
    });
}
