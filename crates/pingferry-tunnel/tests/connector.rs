//! A connector and edges that the test plays: how it registers, serves and ends, and what a hostile edge achieves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod played_edge;

use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use pingferry::trace::otlp::{ExportTraceServiceRequest, KeyValue, Span, Status};
use pingferry_proto::wire::{Echo, IpPacket, echo_request, emit_fragmented};
use pingferry_testnet::isolated;
use pingferry_tunnel::connector::{Connector, ConnectorConfig, ConnectorError};
use pingferry_tunnel::control::{FEATURE_PREFIXES, Refusal, Request};
use pingferry_tunnel::wire::{DatagramV2, DatagramV3, DatagramVersion, RegistrationCode, TraceIdentity, UdpFlow};
use quinn::{ConnectionError, ReadError, ReadToEndError, VarInt};
use tokio::time::timeout;

use self::played_edge::{Connected, PlayedEdge, Running, SOON, block_on};

const CLIENT: &str = "198.51.100.7";
const TARGET: &str = "127.0.0.1";

fn ping(ident: u16, seq: u16) -> Vec<u8> {
    ping_to(TARGET, ident, seq)
}

fn ping_to(target: &str, ident: u16, seq: u16) -> Vec<u8> {
    echo_request(CLIENT.parse().unwrap(), target.parse().unwrap(), ident, seq, b"payload")
}

/// Source, identifier and sequence number of a reply.
fn reply(packet: &[u8]) -> (IpAddr, u16, u16) {
    let packet = IpPacket::parse(packet).unwrap();
    let echo = Echo::parse_reply(packet.header.family(), packet.payload).unwrap();
    assert_eq!(packet.header.destination, CLIENT.parse::<IpAddr>().unwrap());
    (packet.header.source, echo.ident, echo.seq)
}

async fn assert_serves(connected: &Connected, ident: u16, seq: u16) {
    connected.send(&ping(ident, seq)).await;
    assert_eq!(reply(&connected.receive().await), (TARGET.parse().unwrap(), ident, seq));
}

#[test]
fn it_registers_serves_and_goes_on_for_the_grace_period() {
    isolated(|| {
        block_on(async {
            let edge = PlayedEdge::start();
            let running = Running::start(edge.config(1), |config| config.grace_period = Duration::from_secs(1));
            let mut connected = edge.accept().await;
            let registration = &connected.registration;
            assert_eq!(registration.tunnel_id, edge.token().tunnel_id);
            assert_eq!(registration.secret, edge.token().secret);
            assert_eq!((registration.connection_index, registration.options.previous_attempts), (0, 0));
            assert_eq!(registration.options.client.features, ["support_datagram_v2", FEATURE_PREFIXES]);
            assert_eq!(connected.advertised, edge.config(1).advertise);
            assert_serves(&connected, 7, 1).await;

            running.stop();
            let Request::Unregister(call) = connected.request().await else { panic!() };
            connected.control.peer.server.done(call);
            let stopped = Instant::now();
            assert!(connected.control.next().await.is_err(), "the session is aborted");
            // Replies are still carried.
            assert_serves(&connected, 7, 2).await;
            let closed = connected.connection.closed().await;
            assert!(
                matches!(closed, ConnectionError::ApplicationClosed(close) if close.error_code == VarInt::from_u32(0))
            );
            assert!(stopped.elapsed() > Duration::from_millis(500), "the grace period was cut short");
            running.ended().await.unwrap();
        });
    });
}

#[test]
fn a_flow_moves_at_once_to_the_connection_that_it_comes_by() {
    isolated(|| {
        block_on(async {
            let edge = PlayedEdge::start();
            let _running = Running::start(edge.config(2), |_| {});
            let first = edge.accept().await;
            let second = edge.accept().await;
            assert_ne!(first.registration.connection_index, second.registration.connection_index);
            assert_eq!(first.registration.options.client.id, second.registration.options.client.id);
            assert_serves(&first, 7, 1).await;
            assert_serves(&second, 7, 2).await;
            assert_serves(&first, 7, 3).await;
            // A new connection with the same index. The flow has not been idle.
            first.connection.close(VarInt::from_u32(0), b"");
            let again = edge.accept().await;
            assert_eq!(again.registration.connection_index, first.registration.connection_index);
            assert_serves(&again, 7, 4).await;
            assert_serves(&second, 7, 5).await;
        });
    });
}

#[test]
fn equal_clients_of_two_edges_do_not_share_flows() {
    isolated(|| {
        block_on(async {
            let edges = [PlayedEdge::start(), PlayedEdge::start()];
            let mut config = edges[0].config(1);
            config.edges.push(edges[1].address());
            config.roots.roots.extend(edges[1].config(1).roots.roots);
            let running = Running::start(config, |_| {});
            let [first, second] = [edges[0].accept().await, edges[1].accept().await];
            for seq in 1..4 {
                first.send(&ping(7, seq)).await;
                second.send(&ping(7, seq)).await;
                for connected in [&first, &second] {
                    assert_eq!(reply(&connected.receive().await), (TARGET.parse().unwrap(), 7, seq));
                }
            }
            assert_eq!(running.proxy_counters().flows_opened, 2);
        });
    });
}

/// Sends the requests of a range of flows, 100 at a time, and returns how many were answered, each by its own reply.
async fn serve_flows(connected: &Connected, flows: Range<u16>) -> usize {
    let source = |flow: u16| IpAddr::from([198, 51, 100, (flow / 256) as u8]);
    let flows: Vec<u16> = flows.collect();
    let mut answered = 0;
    for some in flows.chunks(100) {
        for flow in some {
            let payload = flow.to_be_bytes();
            connected.send(&echo_request(source(*flow), TARGET.parse().unwrap(), *flow, 1, &payload)).await;
        }
        let mut waiting: HashSet<u16> = some.iter().copied().collect();
        while !waiting.is_empty() {
            let bytes = connected.receive().await;
            let packet = IpPacket::parse(&bytes).unwrap();
            let echo = Echo::parse_reply(packet.header.family(), packet.payload).unwrap();
            assert!(waiting.remove(&echo.ident), "a reply to no request");
            assert_eq!(packet.header.destination, source(echo.ident));
            assert_eq!(packet.payload[8..], echo.ident.to_be_bytes());
            answered += 1;
        }
    }
    answered
}

#[test]
fn ten_thousand_flows_stay_apart_while_a_connection_ends() {
    isolated(|| {
        block_on(async {
            let edge = PlayedEdge::start();
            let running = Running::start(edge.config(2), |_| {});
            let [first, second] = [edge.accept().await, edge.accept().await];
            assert_eq!(serve_flows(&first, 0..5000).await, 5000);
            assert_eq!(serve_flows(&second, 5000..10_000).await, 5000);
            // All flows of the first connection go on by the second, and back by a new one.
            first.connection.close(VarInt::from_u32(0), b"");
            assert_eq!(serve_flows(&second, 0..5000).await, 5000);
            let again = edge.accept().await;
            assert_eq!(serve_flows(&again, 0..10_000).await, 10_000);
            let counters = running.proxy_counters();
            assert_eq!((counters.flows_opened, counters.requests_sent()), (10_000, 25_000), "{counters:?}");
        });
    });
}

#[test]
fn an_edge_reaches_nothing_but_what_is_advertised() {
    isolated(|| {
        block_on(async {
            let edge = PlayedEdge::start();
            let running = Running::start(edge.config(1), |config| {
                config.policy.rules = vec!["deny 127.0.0.2".parse().unwrap(), "allow 10.0.0.0/8".parse().unwrap()];
            });
            let connected = edge.accept().await;
            for target in ["10.0.0.1", "127.0.0.2", "192.0.2.1", "169.254.169.254", "224.0.0.1"] {
                connected.send(&ping_to(target, 7, 1)).await;
            }
            // UDP, and what is no packet at all.
            let mut udp = ping(7, 1);
            udp[9] = 17;
            connected.send(&udp).await;
            connected.send(b"\x45").await;
            assert_serves(&connected, 8, 1).await;
            let counters = running.proxy_counters();
            assert_eq!(counters.requests_sent(), 1, "{counters:?}");
        });
    });
}

#[test]
fn streams_of_an_edge_are_refused_each_in_its_way() {
    isolated(|| {
        block_on(async {
            let edge = PlayedEdge::start();
            let running = Running::start(edge.config(1), |_| {});
            let connected = edge.accept().await;

            // Data: the same eight bytes, and a ConnectResponse with an error.
            let data = b"\x0a\x36\xcd\x12\xa1\x3e01";
            let answer = connected.stream(data).await.unwrap();
            assert_eq!(answer[..8], *data);
            assert!(answer.windows(9).any(|text| text == b"only ICMP"), "{answer:?}");

            // What nobody knows is reset, and so is what is cut short.
            for unknown in [&b"GET / "[..], b"\0"] {
                let reset = connected.stream(unknown).await.unwrap_err();
                let ReadToEndError::Read(ReadError::Reset(code)) = reset else { panic!("{reset}") };
                assert_eq!(code, VarInt::from_u32(0));
            }

            // A session in which nothing is asked ends without an answer.
            assert_eq!(connected.stream(b"\x52\xbb\x82\x5c\xdb\x65").await.unwrap(), b"");
            assert_serves(&connected, 7, 1).await;
            assert_eq!(running.counters.snapshot().streams_refused, 4);
        });
    });
}

#[test]
fn a_hostile_edge_does_not_stop_it() {
    isolated(|| {
        block_on(async {
            let edge = PlayedEdge::start();
            let running = Running::start(edge.config(1), |_| {});
            let mut connected = edge.accept().await;
            // More streams than it allows at once, none of which says anything.
            let mut streams = Vec::new();
            while let Ok(Ok(stream)) = timeout(Duration::from_millis(100), connected.connection.open_bi()).await {
                streams.push(stream);
                assert!(streams.len() < 1000, "the number of streams is not limited");
            }
            assert!(timeout(Duration::from_millis(100), connected.connection.open_uni()).await.is_err());
            for length in [0, 1, 25, 100, 1200] {
                for kind in 0..=u8::MAX {
                    let mut garbage = vec![0x45; length];
                    garbage.push(kind);
                    connected.send_datagram(garbage).await;
                }
            }
            assert_serves(&connected, 7, 1).await;
            let counters = running.counters.snapshot();
            assert!(counters.datagrams_malformed > 1000 && counters.datagrams_refused > 0, "{counters:?}");
            // A message that says it has 64 MiB ends the connection, and the connector comes back.
            connected.control.peer.raw = vec![0, 0, 0, 0, 0, 0, 0x80, 0];
            connected.control.flush().await.unwrap();
            timeout(SOON, connected.connection.closed()).await.unwrap();
            assert_serves(&edge.accept().await, 7, 2).await;
        });
    });
}

#[test]
fn a_udp_flow_of_version_3_is_refused_with_a_message() {
    isolated(|| {
        block_on(async {
            let edge = PlayedEdge::start();
            let _running = Running::start(edge.config(1), |config| config.datagrams = DatagramVersion::V3);
            let connected = edge.accept().await;
            assert!(connected.registration.options.client.features.contains(&"support_datagram_v3_2".into()));
            let flow = UdpFlow {
                flow: [7; 16],
                destination: "192.0.2.1:53".parse().unwrap(),
                idle_seconds: 10,
                is_traced: false,
                payload: None,
            };
            let mut datagram = Vec::new();
            DatagramV3::UdpRegistration(flow).encode(&mut datagram);
            connected.send_datagram(datagram).await;
            let answer = connected.datagram().await;
            let Ok(DatagramV3::RegistrationResponse { code, flow, .. }) = DatagramV3::parse(&answer) else { panic!() };
            assert_eq!((code, flow), (RegistrationCode::Message, [7; 16]));
            // Packets have the type in front.
            let mut datagram = Vec::new();
            DatagramV3::Packet(&ping(7, 1)).encode(&mut datagram);
            connected.send_datagram(datagram).await;
            let answer = connected.datagram().await;
            let Ok(DatagramV3::Packet(packet)) = DatagramV3::parse(&answer) else { panic!() };
            assert_eq!(reply(packet).2, 1);
        });
    });
}

fn traced(packet: &[u8], flags: u8) -> Vec<u8> {
    let mut datagram = Vec::new();
    let identity = TraceIdentity { trace_id: 1, span_id: 2, flags };
    DatagramV2::TracedPacket { packet, identity }.encode(&mut datagram);
    datagram
}

/// What the connector sends until there are `count` spans: the spans, and the sequence numbers of replies.
async fn spans(connected: &Connected, count: usize) -> (Vec<Span>, Vec<u16>) {
    let (mut spans, mut replies) = (Vec::new(), Vec::new());
    while spans.len() < count {
        let datagram = connected.datagram().await;
        match DatagramV2::parse(&datagram).unwrap() {
            DatagramV2::Packet(packet) if packet[20] == 0 => replies.push(reply(packet).2),
            DatagramV2::Packet(error) => assert_eq!(error[20], 3),
            DatagramV2::Spans { spans: bytes, identity } => {
                assert_eq!((identity.trace_id, identity.span_id), (1, 2));
                spans.extend(ExportTraceServiceRequest::parse(bytes).unwrap().spans().cloned());
            }
            other => panic!("{other:?}"),
        }
    }
    (spans, replies)
}

#[test]
fn a_traced_request_has_a_span_and_the_first_reply_too() {
    isolated(|| {
        block_on(async {
            let edge = PlayedEdge::start();
            let _running = Running::start(edge.config(1), |_| {});
            let connected = edge.accept().await;
            // Not sampled: no span.
            connected.send_datagram(traced(&ping(6, 1), 0)).await;
            assert_eq!(reply(&connected.receive().await), (TARGET.parse().unwrap(), 6, 1));

            connected.send_datagram(traced(&ping(7, 1), 1)).await;
            let (first, _) = spans(&connected, 2).await;
            let names: Vec<&str> = first.iter().map(|span| span.name.as_str()).collect();
            assert_eq!(names, ["icmp-echo-request", "icmp-echo-reply"]);
            for span in &first {
                assert_eq!((span.trace_id.as_slice(), span.span_id.len()), (&1u128.to_be_bytes()[..], 8));
                assert_eq!((span.parent_span_id.as_slice(), span.flags), (&2u64.to_be_bytes()[..], 0x301));
                assert_eq!(span.status.as_ref().map(|status| status.code), Some(Status::OK));
                assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
            }
            let expected = vec![
                KeyValue::text("src", CLIENT),
                KeyValue::text("dst", TARGET),
                KeyValue::int("originalEchoID", 7),
                KeyValue::int("seq", 1),
            ];
            assert_eq!(first[0].attributes[..4], expected);
            let keys = |span: &Span| span.attributes.iter().map(|attribute| attribute.key.clone()).collect::<Vec<_>>();
            assert_eq!(keys(&first[0])[4..], ["port", "newFlow"]);
            assert_eq!(keys(&first[1]), ["originalEchoID", "echoID", "dst", "seq"]);
            // A later request of the flow has only its own span, and a refused one tells why.
            connected.send_datagram(traced(&ping(7, 2), 1)).await;
            connected.send_datagram(traced(&ping_to("10.0.0.1", 7, 3), 1)).await;
            let (mut second, _) = spans(&connected, 2).await;
            second.sort_by_key(|span| span.status.as_ref().map(|status| status.code));
            let status = second[1].status.clone().unwrap();
            assert_eq!((second[0].name.as_str(), status.code), ("icmp-echo-request", Status::ERROR));
            assert!(!status.message.is_empty());
        });
    });
}

#[test]
fn large_replies_come_in_fragments_that_fit() {
    isolated(|| {
        block_on(async {
            let edge = PlayedEdge::start();
            let _running = Running::start(edge.config(1), |_| {});
            let connected = edge.accept().await;
            let request = echo_request(CLIENT.parse().unwrap(), TARGET.parse().unwrap(), 7, 1, &[1; 4000]);
            let whole = IpPacket::parse(&request).unwrap();
            let mut header = whole.header;
            header.dont_fragment = false;
            let mut fragments = Vec::new();
            let piece = emit_fragmented(&header, whole.payload, 1200, &mut fragments);
            for fragment in fragments.chunks(piece) {
                connected.send(fragment).await;
            }
            let mut len = 0;
            while len < whole.payload.len() {
                let packet = connected.receive().await;
                let parsed = IpPacket::parse(&packet).unwrap();
                assert!(parsed.header.fragment.is_some());
                len += parsed.payload.len();
            }
            assert_eq!(len, whole.payload.len());
        });
    });
}

#[test]
fn an_edge_that_refuses_for_good_ends_it_with_the_cause() {
    isolated(|| {
        block_on(async {
            let edge = PlayedEdge::start();
            let running = Running::start(edge.config(1), |_| {});
            let refusal = Refusal { cause: "unauthorized".into(), ..Refusal::default() };
            edge.refuse(&refusal).await;
            let Err(ConnectorError::Refused(address, cause)) = running.ended().await else { panic!() };
            assert_eq!((address, cause.as_str()), (edge.address(), "unauthorized"));
        });
    });
}

#[test]
fn it_tries_again_when_the_edge_says_so_and_not_before() {
    isolated(|| {
        block_on(async {
            let edge = PlayedEdge::start();
            let _running = Running::start(edge.config(1), |_| {});
            let retry_after = Duration::from_millis(1500);
            let refusal = Refusal { cause: "later".into(), retry_after, should_retry: true };
            let before = Instant::now();
            edge.refuse(&refusal).await;
            let connected = edge.accept().await;
            assert!(before.elapsed() >= retry_after, "{:?}", before.elapsed());
            assert_eq!(connected.registration.options.previous_attempts, 1);
        });
    });
}

#[test]
fn an_edge_that_is_not_trusted_gets_no_secret() {
    isolated(|| {
        block_on(async {
            let (edge, other) = (PlayedEdge::start(), PlayedEdge::start());
            let mut config = edge.config(1);
            config.roots = other.config(1).roots;
            let running = Running::start(config, |_| {});
            assert!(edge.fails_to_accept().await.contains("certificate"));
            assert_eq!(running.counters.snapshot().connections_registered, 0);
            drop(running);
            let mut config = edge.config(1);
            config.server_name = "edge.example".into();
            let _running = Running::start(config, |_| {});
            assert!(edge.fails_to_accept().await.contains("certificate"));
        });
    });
}

#[test]
fn a_connector_without_an_edge_or_a_prefix_does_not_start() {
    isolated(|| {
        block_on(async {
            let edge = PlayedEdge::start();
            let open = |change: &dyn Fn(&mut ConnectorConfig)| {
                let mut config = edge.config(1);
                change(&mut config);
                Connector::open(config).unwrap_err()
            };
            assert!(matches!(open(&|config| config.edges.clear()), ConnectorError::NoEdge));
            assert!(matches!(open(&|config| config.advertise.clear()), ConnectorError::NoPrefix));
            let prefix = |number: u32| ipnet::Ipv4Net::new_assert(number.into(), 32).into();
            let many = |config: &mut ConnectorConfig| config.advertise = (0..257).map(prefix).collect();
            assert!(matches!(open(&many), ConnectorError::TooManyPrefixes));
        });
    });
}
