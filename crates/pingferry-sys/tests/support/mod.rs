//! Helpers that build requests and the ICMP errors of routers, and send them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test helpers report failures by panicking")]
#![allow(dead_code, reason = "each test binary uses a part of the helpers")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

use pingferry_proto::Family;
use pingferry_sys::ping::{ErrorBatch, Outgoing, PingSocket, ReceiveBatch, SendBatch, SocketOptions};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto};

/// How long a test waits for a packet before it fails.
const TIMEOUT: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

pub(crate) fn options(family: Family) -> SocketOptions {
    SocketOptions::new(family).with_receive_buffer(4 << 20)
}

pub(crate) fn open(family: Family) -> PingSocket {
    PingSocket::open(&options(family)).unwrap()
}

pub(crate) fn loopback(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    }
}

/// An echo request with `size` bytes of payload.
pub(crate) fn request(family: Family, seq: u16, size: usize) -> Vec<u8> {
    let kind = match family {
        Family::V4 => 8,
        Family::V6 => 128,
    };
    let mut message = vec![kind, 0, 0, 0, 0, 0];
    message.extend(seq.to_be_bytes());
    message.extend((0..size).map(|i| (i * 7) as u8));
    message
}

pub(crate) fn outgoing(destination: IpAddr, message: &[u8]) -> Outgoing<'_> {
    Outgoing { destination, scope_id: 0, hop_limit: 64, traffic_class: 0, message }
}

/// Sends one message.
pub(crate) fn send(socket: &PingSocket, message: Outgoing<'_>) {
    assert_eq!(SendBatch::new().send(socket, [message]).unwrap(), 1);
}

/// Waits until the socket has a reply or an error.
pub(crate) fn wait(socket: &PingSocket) {
    let mut poll_fd = [PollFd::new(socket, PollFlags::IN)];
    assert_eq!(poll(&mut poll_fd, Some(&TIMEOUT)).unwrap(), 1, "no reply or error within ten seconds");
}

/// The sequence number of an echo message.
pub(crate) fn seq(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[6], message[7]])
}

/// Reads errors and replies until there are this many of each, and returns their sequence numbers in the order of arrival.
pub(crate) fn read(socket: &PingSocket, errors: usize, replies: usize) -> (Vec<u16>, Vec<u16>) {
    let (mut error_batch, mut reply_batch) = (ErrorBatch::new(), ReceiveBatch::new());
    let (mut error_seqs, mut reply_seqs) = (Vec::new(), Vec::new());
    while error_seqs.len() < errors || reply_seqs.len() < replies {
        wait(socket);
        while error_batch.receive(socket).unwrap() > 0 {
            error_seqs.extend(error_batch.iter().map(|error| seq(error.quoted)));
        }
        while !reply_batch.receive(socket).unwrap().is_empty() {
            reply_seqs.extend(reply_batch.iter().map(|reply| seq(reply.message)));
            reply_batch.clear();
        }
    }
    (error_seqs, reply_seqs)
}

/// Sends an ICMP error from the loopback address to itself. `body` follows the first 8 bytes, and `length` is the length
/// field of RFC 4884.
pub(crate) fn send_error(family: Family, kind: u8, code: u8, length: u8, body: &[u8]) {
    let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
    let (domain, protocol) = match family {
        Family::V4 => (AddressFamily::INET, ipproto::ICMP),
        Family::V6 => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    // The length of the quotation (RFC 4884 sections 4.1 to 4.3).
    message[if family == Family::V4 { 5 } else { 4 }] = length;
    message.extend(body);
    if family == Family::V4 {
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum);
    }
    let raw = rustix::net::socket(domain, SocketType::RAW, Some(protocol)).unwrap();
    let to = SocketAddr::new(loopback(family), 0);
    rustix::net::sendto(raw.as_fd(), &message, SendFlags::empty(), &to).unwrap();
}

/// The IP packet of an echo request from loopback to `destination`, as a router quotes it.
pub(crate) fn quoted(destination: IpAddr, ident: u16, seq: u16, payload: usize) -> Vec<u8> {
    let mut message = request(Family::of(destination), seq, payload);
    message[4..6].copy_from_slice(&ident.to_be_bytes());
    let length = (message.len() as u16).to_be_bytes();
    let header = match destination {
        IpAddr::V4(destination) => {
            let total = (message.len() as u16 + 20).to_be_bytes();
            let start = [0x45, 0, total[0], total[1], 0, 0, 0, 0, 1, 1, 0, 0];
            [&start[..], &Ipv4Addr::LOCALHOST.octets(), &destination.octets()].concat()
        }
        IpAddr::V6(destination) => {
            let start = [0x60, 0, 0, 0, length[0], length[1], 58, 1];
            [&start[..], &Ipv6Addr::LOCALHOST.octets(), &destination.octets()].concat()
        }
    };
    [header, message].concat()
}

/// Sends `socket` an ICMP error from loopback that reports `destination` as unreachable, and waits until it is queued.
pub(crate) fn send_unreachable(socket: &PingSocket, destination: IpAddr, seq: u16) {
    let quoted = quoted(destination, socket.ident(), seq, 0);
    match destination {
        IpAddr::V4(_) => send_error(Family::V4, 3, 1, 0, &quoted),
        IpAddr::V6(_) => send_error(Family::V6, 1, 3, 0, &quoted),
    }
    wait(socket);
}

/// The Internet checksum (RFC 1071).
pub(crate) fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |&low| u32::from(low)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}
