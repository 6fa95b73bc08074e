//! An edge and connectors that the test plays: who may register, what crosses, and what a hostile connector achieves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;

use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use pingferry::trace::otlp::{ExportTraceServiceRequest, ResourceSpans, ScopeSpans, Span};
use pingferry_proto::wire::{IcmpError, IpHeader, IpPacket, echo_request, write_checksum};
use pingferry_testnet::{isolated, require_program, require_tun};
use pingferry_tunnel::control::Answer;
use pingferry_tunnel::edge::DropReason;
use pingferry_tunnel::transport::{DEFAULT_SERVER_NAME, RootCertStore, client_config, endpoint};
use pingferry_tunnel::wire::{DatagramV2, TraceIdentity};

use self::support::{
    Connector, GATEWAY, GATEWAY_6, SOON, TestEdge, block_on, dial, echo_reply, half_open, no_secret, reply_to,
};

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
            let small = ["-c3", "-i0.2", "fd00::7"];
            let output = ping_answered_by(&stock, &small).await;
            assert!(output.contains("3 received"), "{output}");
            drop(stock);

            let mut own = Connector::own(&edge, 2, 0).await;
            own.control.peer.advertise(&["10.0.0.0/16".parse().unwrap(), "172.16.0.0/12".parse().unwrap()]);
            let answer = own.control.next().await.unwrap();
            assert_eq!(answer, Some(Answer::Advertised(Some(vec!["10.0.0.0/16".parse().unwrap()]))));
            let output = ping_answered_by(&own, &["-c3", "-i0.2", "10.0.0.7"]).await;
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
            edge.wait("the datagram", |counters| counters.drops[DropReason::Unregistered] == 1);
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
            let output = ping_answered_by(&new, &["-c2", "-i0.2", "10.0.0.7"]).await;
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

#[test]
fn ten_thousand_clients_that_never_answer_keep_nobody_out() {
    isolated(|| {
        if !can_run() {
            return;
        }
        let edge = TestEdge::start();
        block_on(async {
            let connector = Connector::stock(&edge, 1, 0).await;
            half_open(&edge, 10_000).await;
            let other = Connector::stock(&edge, 2, 0).await;
            drop(connector);
            edge.wait("one connection", |counters| counters.connections == 1);
            let output = ping_answered_by(&other, &["-c2", "-i0.2", "10.0.0.7"]).await;
            assert!(output.contains("2 received"), "{output}");
        });
        let counters = edge.counters();
        // A quarter of what may be pending, and again as those time out; and what was retried and came back.
        assert!(counters.dials < 1000 && counters.retries > 5_000, "{counters:?}");
    });
}

#[test]
fn who_tries_again_and_again_is_ignored() {
    isolated(|| {
        if !require_tun() {
            return;
        }
        let edge = TestEdge::start();
        let authority = rcgen::generate_simple_self_signed(["other".into()]).unwrap();
        let mut other_roots = RootCertStore::empty();
        other_roots.add(authority.cert.der().clone()).unwrap();
        block_on(async {
            let (client, _) = endpoint("127.0.0.1:0".parse().unwrap(), None).unwrap();
            // It does not trust the edge, and dials again at once until it gets no answer.
            while edge.counters().dials_ignored == 0 {
                let config = client_config(other_roots.clone()).unwrap();
                let dialled = client.connect_with(config, edge.address, DEFAULT_SERVER_NAME).unwrap();
                let _ = tokio::time::timeout(Duration::from_secs(1), dialled).await;
            }
        });
        let counters = edge.counters();
        // Sixteen at once, and one more in two seconds.
        assert!((16..30).contains(&counters.unregistered), "{counters:?}");
    });
}

#[test]
fn spans_of_a_traced_ping_are_taken_and_forged_ones_are_not() {
    isolated(|| {
        if !can_run() {
            return;
        }
        let (sender, collected) = mpsc::sync_channel(10);
        let edge = TestEdge::start_with(Some((1.0, sender)));
        block_on(async {
            let connector = Connector::stock(&edge, 1, 0).await;
            let mut ping = ping(&["-c1", "-W5", "10.0.0.7"]).spawn().unwrap();
            let datagram = connector.quic.read_datagram().await.unwrap();
            let Ok(DatagramV2::TracedPacket { packet, identity }) = DatagramV2::parse(&datagram) else {
                panic!("not traced: {datagram:?}")
            };
            assert!(identity.is_sampled());
            connector.send(&reply_to(packet));
            assert!(ping.wait().unwrap().success());
            let forged = TraceIdentity { trace_id: 7, ..identity };
            for (identity, name) in [(forged, "forged"), (identity, "icmp-echo-request")] {
                let mut datagram = Vec::new();
                DatagramV2::Spans { spans: &spans(identity, name), identity }.encode(&mut datagram);
                connector.quic.send_datagram(datagram.into()).unwrap();
            }
            let collected = collected.recv_timeout(SOON).unwrap();
            let names: Vec<&str> = collected.spans().map(|span| span.name.as_str()).collect();
            assert_eq!(names, ["icmp-echo-request", "icmp-echo"], "the span of the edge is its parent");
        });
        let counters = edge.counters();
        assert_eq!((counters.traced, counters.spans, counters.spans_lost), (1, 1, 0), "{counters:?}");
        assert_eq!(counters.drops[DropReason::ForeignSpans], 1);
    });
}

fn spans(identity: TraceIdentity, name: &str) -> Vec<u8> {
    let span = Span {
        trace_id: identity.trace_id.to_be_bytes().into(),
        span_id: vec![7; 8],
        parent_span_id: identity.span_id.to_be_bytes().into(),
        name: name.into(),
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans { scope: None, spans: vec![span] }];
    let resource_spans = vec![ResourceSpans { resource: None, scope_spans, schema_url: String::new() }];
    ExportTraceServiceRequest { resource_spans }.to_bytes()
}

#[test]
fn nested_prefixes_go_to_the_connector_that_serves_the_longest() {
    isolated(|| {
        if !can_run() {
            return;
        }
        let edge = TestEdge::start();
        block_on(async {
            let serves = |client, prefixes: &'static [&'static str]| {
                let edge = &edge;
                async move {
                    let mut connector = Connector::own(edge, client, 0).await;
                    let prefixes: Vec<_> = prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect();
                    connector.control.peer.advertise(&prefixes);
                    assert_eq!(connector.control.next().await.unwrap(), Some(Answer::Advertised(Some(prefixes))));
                    connector
                }
            };
            let outer = serves(1, &["10.0.0.0/8"]).await;
            let [inner, replica] =
                [serves(2, &["10.1.0.0/16"]).await, serves(3, &["10.1.0.0/16", "10.2.3.0/24"]).await];
            // Nobody answers: what counts is who gets the request.
            let ask = |host: &str| drop(ping(&["-c1", "-W1", host]).spawn().unwrap().wait_with_output());
            let got = |packet: Vec<u8>| IpPacket::parse(&packet).unwrap().header.destination.to_string();
            tokio::task::block_in_place(|| ask("10.3.0.1"));
            assert_eq!(got(outer.receive().await), "10.3.0.1");
            tokio::task::block_in_place(|| ask("10.2.3.4"));
            assert_eq!(got(replica.receive().await), "10.2.3.4");
            // Of two with the same prefix, one gets all of a host, and none of it comes to the outer one.
            tokio::task::block_in_place(|| ask("10.1.0.1"));
            let first = tokio::select! {
                packet = inner.receive() => got(packet),
                packet = replica.receive() => got(packet),
                packet = outer.receive() => panic!("to the outer one: {packet:?}"),
            };
            assert_eq!(first, "10.1.0.1");
            drop((inner, replica));
            edge.wait("one connection", |counters| counters.connections == 1);
            // Only the outer one is left.
            tokio::task::block_in_place(|| ask("10.1.0.1"));
            assert_eq!(got(outer.receive().await), "10.1.0.1");
        });
    });
}

#[test]
fn a_tunnel_has_a_limit_of_connections_and_says_when_to_come_back() {
    isolated(|| {
        if !require_tun() {
            return;
        }
        let edge = TestEdge::start();
        block_on(async {
            let mut connectors = Vec::new();
            for number in 0..256 {
                connectors.push(Connector::stock(&edge, number / 64, (number % 64) as u8).await);
            }
            let mut last = Connector::dial(&edge).await;
            let refusal = last.register(&edge.registration(9, 0)).await.unwrap_err();
            assert!(refusal.should_retry && refusal.retry_after == Duration::from_secs(30), "{refusal:?}");
            // A new connection in the place of an old one is none more.
            connectors.push(Connector::stock(&edge, 0, 0).await);
            drop(connectors.pop());
            edge.wait("room", |counters| counters.connections < 256);
            last = Connector::dial(&edge).await;
            last.register(&edge.registration(9, 0)).await.unwrap();
        });
        assert_eq!(edge.counters().registrations_refused, 1);
    });
}
