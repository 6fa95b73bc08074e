//! An edge and connectors that the test plays: who may register, what crosses, and what a hostile connector achieves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::process::{Command, Stdio};
use std::time::Duration;

use pingferry_proto::wire::{IcmpError, IpHeader, IpPacket, echo_request, write_checksum};
use pingferry_testnet::{isolated, require_program, require_tun};
use pingferry_tunnel::control::Answer;
use pingferry_tunnel::edge::DropReason;

use self::support::{Connector, GATEWAY, GATEWAY_6, SOON, TestEdge, block_on, dial, echo_reply, no_secret, reply_to};

/// For each family: the client, a host behind the tunnel, and a router in between.
const HOSTS: [[&str; 3]; 2] = [[GATEWAY, "10.0.0.7", "203.0.113.9"], [GATEWAY_6, "fd00::7", "2001:db8:9::9"]];

fn can_run() -> bool {
    require_tun() && require_program("ping")
}

fn ping(args: &[&str]) -> Command {
    let mut command = Command::new("ping");
    command.args(args).env("LC_ALL", "C").stdout(Stdio::piped());
    command
}

/// The output of a ping that runs while the connector answers.
async fn ping_answered_by(connector: &Connector, args: &[&str]) -> String {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let run = move || ping(&args.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap();
    let ping = tokio::task::spawn_blocking(run);
    let output = tokio::select! {
        () = connector.answer() => panic!("the connection ended"),
        output = ping => output.unwrap(),
    };
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_ping_goes_through_a_connector_of_either_kind() {
    isolated(|| {
        if !can_run() {
            return;
        }
        let edge = TestEdge::start();
        block_on(async {
            let stock = Connector::stock(&edge, 1, 0).await;
            let small = ["-c3", "-i0.01", "fd00::7"];
            let output = ping_answered_by(&stock, &small).await;
            assert!(output.contains("3 received"), "{output}");
            drop(stock);

            let mut own = Connector::own(&edge, 2, 0).await;
            own.control.peer.advertise(&["10.0.0.0/16".parse().unwrap(), "172.16.0.0/12".parse().unwrap()]);
            let answer = own.control.next().await.unwrap();
            assert_eq!(answer, Some(Answer::Advertised(Some(vec!["10.0.0.0/16".parse().unwrap()]))));
            let output = ping_answered_by(&own, &["-c3", "-i0.01", "10.0.0.7"]).await;
            assert!(output.contains("3 received"), "{output}");
            let output = ping_answered_by(&own, &["-c1", "10.1.0.7"]).await;
            assert!(output.contains("Destination Host Unreachable"), "not advertised: {output}");
        });
        let counters = edge.stop();
        assert_eq!((counters.registrations, counters.returned), (2, 6), "{counters:?}");
    });
}

#[test]
fn the_edge_says_why_nothing_comes_back() {
    isolated(|| {
        if !can_run() {
            return;
        }
        let edge = TestEdge::start();
        for (host, gateway, error) in [
            ("172.16.0.1", GATEWAY, "Destination Net Unreachable"),
            ("10.0.0.7", GATEWAY, "Destination Host Unreachable"),
            ("fd00::7", GATEWAY_6, "Destination unreachable: Address unreachable"),
        ] {
            let output = String::from_utf8(ping(&["-c1", host]).output().unwrap().stdout).unwrap();
            assert!(output.contains(&format!("From {gateway} icmp_seq=1 {error}")), "{output}");
        }
        assert_eq!((edge.dropped(DropReason::NoPrefix), edge.dropped(DropReason::NobodyConnected)), (1, 2));
    });
}

#[test]
fn a_wrong_secret_and_an_unknown_tunnel_are_refused_alike() {
    isolated(|| {
        if !require_tun() {
            return;
        }
        let edge = TestEdge::start();
        block_on(async {
            let mut wrong_secret = edge.registration(1, 0);
            wrong_secret.secret = no_secret();
            let mut unknown_tunnel = edge.registration(1, 0);
            unknown_tunnel.tunnel_id = uuid::Uuid::from_u128(7);
            let mut refusals = Vec::new();
            for registration in [wrong_secret, unknown_tunnel] {
                refusals.push(Connector::dial(&edge).await.register(&registration).await.unwrap_err());
            }
            assert_eq!(refusals[0], refusals[1]);
            assert!(!refusals[0].should_retry && refusals[0].cause == "unauthorized", "{refusals:?}");
        });
        let counters = edge.stop();
        assert_eq!((counters.registrations, counters.registrations_refused), (0, 2), "{counters:?}");
    });
}

/// An ICMP message as a packet.
fn message(source: &str, destination: &str, icmp_type: u8, body: &[u8]) -> Vec<u8> {
    let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
    let mut message = [&[icmp_type, 0, 0, 0, 0, 0, 0, 0], body].concat();
    write_checksum(source, destination, &mut message);
    IpPacket { header: IpHeader::icmp(source, destination), payload: &message }.to_bytes()
}

/// A packet of another protocol.
fn other(source: &str, destination: &str, protocol: u8) -> Vec<u8> {
    let header = IpHeader { protocol, ..IpHeader::icmp(source.parse().unwrap(), destination.parse().unwrap()) };
    IpPacket { header, payload: &[0; 40] }.to_bytes()
}

/// What no connector may send, and the reason for which each packet is dropped.
fn forbidden() -> Vec<(Vec<u8>, DropReason)> {
    let mut packets = Vec::new();
    for [client, host, router] in HOSTS {
        let request = echo_request(client.parse().unwrap(), host.parse().unwrap(), 7, 1, b"");
        let of_nobody = echo_request(client.parse().unwrap(), router.parse().unwrap(), 7, 1, b"");
        let allowed: &[u8] = if client.contains(':') { &[1, 2, 3, 4, 129, 161] } else { &[0, 3, 11, 12, 43] };
        for icmp_type in (0..=u8::MAX).filter(|icmp_type| !allowed.contains(icmp_type)) {
            packets.push((message(host, client, icmp_type, &request), DropReason::ForbiddenType));
        }
        for protocol in [2, 4, 6, 17, 41, 47, 89, 132] {
            packets.push((other(host, client, protocol), DropReason::NotIcmp));
        }
        packets.push((echo_reply(router, client), DropReason::ForeignSource));
        packets.push((echo_reply(host, router), DropReason::NobodyAsked));
        packets.push((message(router, client, 3, &of_nobody), DropReason::ForeignQuote));
        packets.push((message(router, client, 3, &other(client, host, 6)), DropReason::ForeignQuote));
        packets.push((message(router, client, 3, &request[..request.len() - 8]), DropReason::ForeignQuote));
    }
    packets.push((vec![], DropReason::Malformed));
    packets.push((vec![0x45; 10], DropReason::Malformed));
    packets
}

#[test]
fn a_hostile_connector_reaches_the_kernel_with_answers_only() {
    isolated(|| {
        if !can_run() {
            return;
        }
        let edge = TestEdge::start();
        let capture = edge.capture();
        block_on(async {
            let connector = Connector::stock(&edge, 1, 0).await;
            for [_, host, _] in HOSTS {
                let mut ping = ping(&["-c1", "-W1", host]).spawn().unwrap();
                connector.receive().await;
                ping.kill().unwrap();
                ping.wait().unwrap();
            }
            let forbidden = forbidden();
            for (packet, _) in &forbidden {
                connector.quic.send_datagram_wait([packet, &[1][..]].concat().into()).await.unwrap();
            }
            // Types that an edge does not take.
            for datagram in [vec![], vec![9], vec![0; 17], vec![1; 30], [&[0; 29][..], &[2]].concat()] {
                connector.quic.send_datagram_wait(datagram.into()).await.unwrap();
            }
            for [client, host, router] in HOSTS {
                let request = echo_request(client.parse().unwrap(), host.parse().unwrap(), 7, 1, b"");
                let parsed = IpPacket::parse(&request).unwrap();
                let error = IcmpError::time_exceeded(parsed.header.family());
                let (header, error) = error.about(&parsed, &request, router.parse().unwrap());
                connector.send(&IpPacket { header, payload: &error }.to_bytes());
                connector.send(&reply_to(&request));
            }
            edge.wait("all datagrams", |counters| counters.returned == 4);
            // The kernel solicits routers by itself.
            for reason in DropReason::ALL.iter().filter(|reason| **reason != DropReason::LinkControl) {
                let expected = forbidden.iter().filter(|(_, of)| of == reason).count() as u64;
                let expected = match reason {
                    DropReason::UnknownDatagram => 4,
                    // The datagram whose type says that it is a packet.
                    DropReason::Malformed => expected + 1,
                    _ => expected,
                };
                assert_eq!(edge.dropped(*reason), expected, "{reason:?}");
            }
        });
        let mut entered = Vec::new();
        while let Some(captured) = capture.receive(Duration::from_millis(100)).unwrap() {
            if !captured.outgoing {
                entered.push(IpPacket::parse(&captured.packet).unwrap().payload[0]);
            }
        }
        assert_eq!(entered, [11, 0, 3, 129], "the types of what the kernel got");
    });
}

#[test]
fn before_it_registers_a_connection_can_do_nothing_and_ends() {
    isolated(|| {
        if !require_tun() {
            return;
        }
        let edge = TestEdge::start();
        block_on(async {
            let (_endpoint, quic) = dial(&edge).await;
            quic.send_datagram([&echo_reply("10.0.0.7", GATEWAY)[..], &[1]].concat().into()).unwrap();
            edge.wait("the datagram", |counters| counters.drops.of(DropReason::Unregistered) == 1);
            let ended = tokio::time::timeout(SOON, quic.closed()).await;
            assert!(ended.is_ok(), "it ends although it is not idle");
        });
        edge.wait("its end", |counters| counters.unregistered == 1);
    });
}

#[test]
fn of_two_connections_with_one_number_the_newer_serves() {
    isolated(|| {
        if !can_run() {
            return;
        }
        let edge = TestEdge::start();
        block_on(async {
            let old = Connector::stock(&edge, 1, 3).await;
            let other = Connector::stock(&edge, 1, 2).await;
            let new = Connector::stock(&edge, 1, 3).await;
            tokio::time::timeout(SOON, old.quic.closed()).await.expect("the old one is closed");
            assert!(other.quic.close_reason().is_none() && new.quic.close_reason().is_none());
            drop(other);
            edge.wait("one connection", |counters| counters.connections == 1);
            let output = ping_answered_by(&new, &["-c2", "-i0.01", "10.0.0.7"]).await;
            assert!(output.contains("2 received"), "{output}");
        });
        assert_eq!(edge.counters().replaced, 1);
    });
}

#[test]
fn after_it_unregisters_a_connection_gets_nothing_new_and_its_answers_count() {
    isolated(|| {
        if !can_run() {
            return;
        }
        let edge = TestEdge::start();
        block_on(async {
            let mut leaving = Connector::stock(&edge, 1, 0).await;
            let mut ping = ping(&["-c1", "-W5", "10.0.0.7"]).spawn().unwrap();
            let request = leaving.receive().await;
            leaving.control.peer.unregister();
            assert_eq!(leaving.control.next().await.unwrap(), Some(Answer::Unregistered));
            leaving.control.peer.abort("rpc: shutdown");
            leaving.control.finish().await.unwrap();
            edge.wait("no connection", |counters| counters.connections == 0);
            leaving.send(&reply_to(&request));
            let status = tokio::task::spawn_blocking(move || ping.wait().unwrap()).await.unwrap();
            assert!(status.success(), "the reply that was on its way came back");
            assert!(leaving.quic.close_reason().is_none(), "the connector closes the connection");
        });
        let output = ping(&["-c1", "10.0.0.7"]).output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("Destination Host Unreachable"));
    });
}

#[test]
fn a_reload_disconnects_who_has_no_tunnel_any_more() {
    isolated(|| {
        if !require_tun() {
            return;
        }
        let edge = TestEdge::start();
        block_on(async {
            let connector = Connector::stock(&edge, 1, 0).await;
            let text = std::fs::read_to_string(&edge.files.tunnels).unwrap();
            std::fs::write(&edge.files.tunnels, text.replace("10.0.0.0/8", "10.0.0.0/9")).unwrap();
            edge.reload();
            assert_eq!(edge.counters().connections, 1, "other prefixes do not matter");
            std::fs::write(&edge.files.tunnels, "").unwrap();
            edge.reload();
            tokio::time::timeout(SOON, connector.quic.closed()).await.expect("disconnected");
        });
    });
}
