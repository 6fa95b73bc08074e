//! A client that makes IP packets itself.

use std::os::fd::OwnedFd;
use std::path::Path;

use pingferry_proto::wire::{IPPROTO_TCP, IPPROTO_UDP, IpHeader, IpPacket, Sum, echo_request};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

/// A client of `--unix`.
pub struct Client(OwnedFd);

impl Client {
    pub fn connect(path: &Path) -> Self {
        Self::try_connect(path).expect("a process listens")
    }

    /// `None` if nobody listens at the path.
    pub fn try_connect(path: &Path) -> Option<Self> {
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::connect(&socket, &SocketAddrUnix::new(path).unwrap()).ok()?;
        Some(Self(socket))
    }

    pub fn send(&self, packet: &[u8]) {
        assert!(self.try_send(packet), "the connection is closed");
    }

    /// Returns false if the connection is closed.
    pub fn try_send(&self, packet: &[u8]) -> bool {
        rustix::net::send(&self.0, packet, SendFlags::NOSIGNAL).is_ok()
    }

    /// The next packet, or an empty one if the connection is closed.
    pub fn receive(&self) -> Vec<u8> {
        let timeout = Timespec { tv_sec: 10, tv_nsec: 0 };
        assert!(self.is_readable_within(timeout), "no packet came");
        self.read()
    }

    /// Reads all packets that have come.
    pub fn drain(&self) {
        while self.is_readable_within(Timespec::default()) {
            self.read();
        }
    }

    fn is_readable_within(&self, timeout: Timespec) -> bool {
        poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout)).unwrap() == 1
    }

    fn read(&self) -> Vec<u8> {
        let mut buffer = vec![0; 70_000];
        let received = rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty());
        buffer.truncate(received.map_or(0, |(len, _)| len));
        buffer
    }
}

/// An echo request with sequence number 1.
pub fn echo(source: &str, destination: &str, ident: u16, payload: &[u8]) -> Vec<u8> {
    echo_request(source.parse().unwrap(), destination.parse().unwrap(), ident, 1, payload)
}

/// A UDP datagram without payload, with a hop limit as of traceroute.
pub fn udp_probe(source: &str, destination: &str, source_port: u16, port: u16) -> Vec<u8> {
    let datagram = [source_port, port, 8, 0].map(u16::to_be_bytes).concat();
    transport(source, destination, IPPROTO_UDP, datagram, 6)
}

/// A TCP segment that opens a connection, with a hop limit as of traceroute.
pub fn syn(source: &str, destination: &str, source_port: u16, port: u16) -> Vec<u8> {
    let mut segment = [source_port, port].map(u16::to_be_bytes).concat();
    segment.extend([0, 0, 0, 7, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    transport(source, destination, IPPROTO_TCP, segment, 16)
}

fn transport(source: &str, destination: &str, protocol: u8, mut payload: Vec<u8>, checksum_at: usize) -> Vec<u8> {
    let header = IpHeader::icmp(source.parse().unwrap(), destination.parse().unwrap());
    let header = IpHeader { protocol, hop_limit: 9, ..header };
    let sum = Sum::pseudo_header(header.source, header.destination, protocol, payload.len()).with(&payload);
    payload[checksum_at..checksum_at + 2].copy_from_slice(&sum.checksum());
    IpPacket { header, payload: &payload }.to_bytes()
}
