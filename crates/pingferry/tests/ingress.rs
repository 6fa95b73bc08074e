//! Ingresses of one's own, and those that wrap another.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use pingferry::ingress::{Delayed, Deliveries, Ingress, Lossy, PacketBatch, PacketSink, PacketSource, Pcap, PcapFile};
use pingferry::{Config, CoreConfig, DropReason, PathConfig, Policy, Proxy, Tag};
use pingferry_proto::wire::{IpPacket, echo_request};
use pingferry_testnet::{eventually, isolated};

const PATIENCE: Duration = Duration::from_secs(10);

/// A proxy that may ping 127.0.0.1.
fn open(config: Config) -> Proxy {
    let policy = Policy { rules: vec!["allow 127.0.0.1".parse().unwrap()] };
    Proxy::open(config.with_core(CoreConfig::default().with_policy(policy))).unwrap()
}

fn request(seq: u16) -> Vec<u8> {
    echo_request([10, 0, 0, 2].into(), [127, 0, 0, 1].into(), 7, seq, b"payload")
}

/// A path whose ICMP errors have an address to come from.
fn with_gateway() -> PathConfig {
    PathConfig::default().with_gateway_v4(Some([10, 0, 0, 1].into()))
}

fn seq(reply: &[u8]) -> u16 {
    u16::from_be_bytes([reply[26], reply[27]])
}

/// A client and its ingress, by a pair of sockets.
fn pair() -> (UnixDatagram, Datagrams) {
    let (client, server) = UnixDatagram::pair().unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    server.set_nonblocking(true).unwrap();
    (client, Datagrams(server))
}

struct Datagrams(UnixDatagram);

impl Ingress for Datagrams {
    type Source = Self;
    type Sink = Self;

    fn split(self) -> io::Result<(Self, Self)> {
        Ok((Self(self.0.try_clone()?), self))
    }
}

impl AsFd for Datagrams {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl PacketSource for Datagrams {
    fn receive(&mut self, batch: &mut PacketBatch) -> io::Result<()> {
        batch.fill(|buffer| match self.0.recv(buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => Ok(Some(len)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        })
    }

    fn name(&self) -> String {
        "datagrams".into()
    }
}

impl PacketSink for Datagrams {
    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        self.0.send(packet).map(drop)
    }
}

fn receive(client: &UnixDatagram) -> Vec<u8> {
    let mut buffer = [0; 2000];
    let len = client.recv(&mut buffer).unwrap();
    buffer[..len].to_vec()
}

#[test]
fn an_ingress_of_ones_own_is_served_until_it_ends() {
    isolated(|| {
        let proxy = open(Config::default());
        let (client, ingress) = pair();
        let attachment = proxy.attach_ingress(PathConfig::default(), ingress).unwrap();
        for number in 0..50 {
            client.send(&request(number)).unwrap();
            assert_eq!(seq(&receive(&client)), number);
        }
        // An empty datagram ends it; the proxy goes on.
        client.send(&[]).unwrap();
        let (other, ingress) = pair();
        proxy.attach_ingress(PathConfig::default(), ingress).unwrap();
        other.send(&request(1)).unwrap();
        receive(&other);
        assert_eq!((attachment.stats().packets, attachment.stats().delivered()), (50, 50));
        assert_eq!(proxy.close().unwrap().counters.replies_returned(), 51);
    });
}

#[test]
fn a_lossy_ingress_loses_packets_both_ways() {
    isolated(|| {
        let proxy = open(Config::default());
        let (client, ingress) = pair();
        let attachment = proxy.attach_ingress(PathConfig::default(), Lossy::new(ingress, 4)).unwrap();
        (0..80).for_each(|number| _ = client.send(&request(number)).unwrap());
        // Of 80 requests 60 arrive, and of their replies 45.
        let replies: Vec<u16> = (0..45).map(|_| seq(&receive(&client))).collect();
        assert!(replies.iter().all(|number| number % 4 != 3), "{replies:?}");
        eventually("all requests", || Ok(attachment.stats().deliveries_attempted == 60)).unwrap();
        assert_eq!(attachment.stats().packets, 60);
        client.set_nonblocking(true).unwrap();
        assert!(client.recv(&mut [0; 100]).is_err(), "no other reply");
    });
}

#[test]
fn a_delayed_ingress_keeps_packets_back_and_in_order() {
    const DELAY: Duration = Duration::from_millis(30);
    isolated(|| {
        let proxy = open(Config::default());
        let (client, ingress) = pair();
        proxy.attach_ingress(PathConfig::default(), Delayed::new(ingress, DELAY)).unwrap();
        let start = Instant::now();
        (0..20).for_each(|number| _ = client.send(&request(number)).unwrap());
        let replies: Vec<u16> = (0..20).map(|_| seq(&receive(&client))).collect();
        // No packet can be early, however busy the machine is.
        assert!(start.elapsed() >= DELAY);
        assert!(replies.into_iter().eq(0..20));
        client.send(&[]).unwrap();
        eventually("the path to end", || Ok(client.send(&request(0)).is_err())).unwrap();
    });
}

/// The packets of a pcap file.
fn packets(file: &[u8]) -> Vec<&[u8]> {
    let word = |at: usize| u32::from_ne_bytes(file[at..at + 4].try_into().unwrap());
    assert_eq!((word(0), word(16), word(20)), (0xa1b2_3c4d, 65_535, 101), "magic, snapshot length, link type");
    let (mut at, mut packets) = (24, Vec::new());
    while at < file.len() {
        let len = word(at + 8) as usize;
        assert_eq!(word(at + 12) as usize, len, "whole packets");
        packets.push(&file[at + 16..at + 16 + len]);
        at += 16 + len;
    }
    packets
}

#[test]
fn a_capture_has_what_clients_send_and_receive() {
    isolated(|| {
        let folder = tempfile::tempdir().unwrap();
        for whole_proxy in [false, true] {
            let path = folder.path().join("clients.pcap");
            let file = PcapFile::create(&path).unwrap();
            let (client, ingress) = pair();
            let proxy = if whole_proxy {
                let proxy = open(Config::default().with_pcap(Some(file)));
                proxy.attach_ingress(PathConfig::default(), ingress).unwrap();
                proxy
            } else {
                let proxy = open(Config::default());
                proxy.attach_ingress(PathConfig::default(), Pcap::new(ingress, file)).unwrap();
                proxy
            };
            let mut expected = Vec::new();
            for number in 0..5 {
                expected.push(request(number));
                client.send(&request(number)).unwrap();
                expected.push(receive(&client));
            }
            proxy.close().unwrap();
            assert_eq!(packets(&std::fs::read(&path).unwrap()), expected);
        }
    });
}

/// Gives each packet a tag, and passes on which tags come back.
struct Tagged(UnixDatagram);
struct TagSink(Sender<(Option<Tag>, Option<DropReason>)>);

impl AsFd for Tagged {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl PacketSource for Tagged {
    fn receive(&mut self, batch: &mut PacketBatch) -> io::Result<()> {
        let mut buffer = [0; 2000];
        while let Ok(len) = self.0.recv(&mut buffer) {
            // By its sequence number.
            let tag = u32::from(seq(&buffer)).try_into().ok().map(Tag);
            batch.push_copy(&buffer[..len], tag);
        }
        Ok(())
    }

    fn name(&self) -> String {
        "tagged datagrams".into()
    }
}

impl PacketSink for TagSink {
    fn send(&mut self, _packet: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn send_batch(&mut self, batch: &mut Deliveries<'_>) {
        while let Some(delivery) = batch.next() {
            self.0.send((delivery.tag, None)).unwrap();
        }
    }

    fn report_drop(&mut self, tag: Tag, reason: DropReason) {
        self.0.send((Some(tag), Some(reason))).unwrap();
    }
}

#[test]
fn tags_come_back_with_replies_and_drops() {
    isolated(|| {
        let proxy = open(Config::default());
        let (client, Datagrams(server)) = pair();
        let (sender, reports): (_, Receiver<_>) = channel();
        proxy.attach_ingress(with_gateway(), (Tagged(server), TagSink(sender))).unwrap();
        let tag = |number: u32| Some(Tag(number.try_into().unwrap()));
        client.send(&request(5)).unwrap();
        assert_eq!(reports.recv_timeout(PATIENCE).unwrap(), (tag(5), None));
        client.send(&request(0)).unwrap();
        assert_eq!(reports.recv_timeout(PATIENCE).unwrap(), (None, None), "without a tag");
        // Refused by the policy: the packet is dropped, and its sender gets an ICMP error.
        client.send(&echo_request([10, 0, 0, 2].into(), [127, 0, 0, 2].into(), 7, 9, b"")).unwrap();
        let mut both = [reports.recv_timeout(PATIENCE).unwrap(), reports.recv_timeout(PATIENCE).unwrap()];
        both.sort_by_key(|(_, reason)| reason.is_some());
        assert_eq!(both, [(tag(9), None), (tag(9), Some(DropReason::DestinationRefused))]);
    });
}

#[test]
fn a_tag_comes_back() {
    isolated(|| {
        let proxy = open(Config::default());
        let (told, tags) = channel();
        let path = proxy.attach(PathConfig::default(), TagSink(told)).unwrap();
        let [one, two] = [1, 2].map(|number| Tag(number.try_into().unwrap()));
        path.send_tagged(&request(1), one).unwrap();
        assert_eq!(tags.recv_timeout(PATIENCE).unwrap(), (Some(one), None));
        path.send_tagged(b"no packet", two).unwrap();
        assert_eq!(tags.recv_timeout(PATIENCE).unwrap(), (Some(two), Some(DropReason::Truncated)));
    });
}

#[test]
fn a_path_can_be_configured_while_it_lives() {
    isolated(|| {
        let proxy = open(Config::default());
        let (client, ingress) = pair();
        let attachment = proxy.attach_ingress(PathConfig::default(), ingress).unwrap();
        let large = echo_request([10, 0, 0, 2].into(), [127, 0, 0, 1].into(), 7, 1, &[0; 1200]);
        let fragments = || {
            client.send(&large).unwrap();
            let first = receive(&client);
            match IpPacket::parse(&first).unwrap().header.fragment {
                Some(_) => [first, receive(&client), receive(&client)].map(|packet| packet.len()).to_vec(),
                None => vec![first.len()],
            }
        };
        assert_eq!(fragments(), [1228]);
        attachment.configure(&PathConfig::default().with_mtu(576)).unwrap();
        assert_eq!(fragments(), [572, 572, 124]);
        let sources = vec!["10.9.0.0/16".parse().unwrap()];
        attachment.configure(&PathConfig::default().with_sources(sources)).unwrap();
        client.send(&request(1)).unwrap();
        eventually("the drop", || Ok(proxy.stats().counters.request_drops[DropReason::SpoofedSource] == 1)).unwrap();
    });
}

#[test]
fn the_rules_of_a_path_come_before_those_of_the_proxy() {
    isolated(|| {
        let proxy = open(Config::default());
        let policy = |rule: &str| Policy { rules: vec![rule.parse().unwrap()] };
        let (client, ingress) = pair();
        let attachment = proxy.attach_ingress(with_gateway(), ingress).unwrap();
        let is_answered = |host: [u8; 4]| {
            client.send(&echo_request([10, 0, 0, 2].into(), host.into(), 7, 1, b"")).unwrap();
            // An echo reply, or Destination Unreachable.
            receive(&client)[20] == 0
        };
        assert!(is_answered([127, 0, 0, 1]) && !is_answered([127, 0, 0, 2]));
        attachment.configure(&with_gateway().with_policy(policy("allow 127.0.0.2"))).unwrap();
        assert!(is_answered([127, 0, 0, 1]) && is_answered([127, 0, 0, 2]));
        attachment.configure(&with_gateway().with_policy(policy("deny 127.0.0.1"))).unwrap();
        assert!(!is_answered([127, 0, 0, 1]) && !is_answered([127, 0, 0, 2]));
    });
}
