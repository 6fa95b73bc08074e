//! Control messages: what goes beside the bytes of a message, both ways.
//!
//! A control message is a header (`size_t` length including the header, `int` level, `int` type) and its data, each
//! padded to the size of a `size_t` (`include/linux/socket.h`). They are written as a struct of that layout and
//! read from bytes, so neither needs `unsafe`.

use std::ffi::c_int;
use std::net::IpAddr;

use pingferry_proto::Family;

use super::address;

const LENGTH: usize = size_of::<usize>();
const HEADER: usize = LENGTH + 2 * size_of::<c_int>();

/// Bytes that hold all control messages of one arriving message: hop limit, traffic class and, on the error queue,
/// the extended error with an IPv6 address.
pub(super) const ROOM: usize = 160;

/// `SO_EE_RFC4884_FLAG_INVALID` (`include/uapi/linux/errqueue.h`).
const RFC4884_INVALID: u8 = 1;

/// A control message with an `int`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct IntMessage {
    length: usize,
    level: c_int,
    kind: c_int,
    value: c_int,
}

const _: () = {
    // SAFETY: CMSG_SPACE is arithmetic.
    let space = unsafe { libc::CMSG_SPACE(size_of::<c_int>() as u32) };
    assert!(size_of::<IntMessage>() == space as usize, "IntMessage has the kernel's padding");
};

impl IntMessage {
    const fn new(level: c_int, kind: c_int, value: u8) -> Self {
        Self { length: HEADER + size_of::<c_int>(), level, kind, value: value as c_int }
    }
}

/// What a message that leaves asks for.
#[derive(Clone, Copy)]
pub(super) struct SendControl {
    messages: [IntMessage; 2],
    count: usize,
}

impl SendControl {
    /// A traffic class of 0 is what sockets have anyway. To leave it out matters: up to 36 bytes of control messages find
    /// room on the kernel's stack, more are allocated (`____sys_sendmsg` in net/socket.c).
    pub(super) const fn new(family: Family, hop_limit: u8, traffic_class: u8) -> Self {
        let messages = match family {
            Family::V4 => [
                IntMessage::new(libc::IPPROTO_IP, libc::IP_TTL, hop_limit),
                IntMessage::new(libc::IPPROTO_IP, libc::IP_TOS, traffic_class),
            ],
            Family::V6 => [
                IntMessage::new(libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, hop_limit),
                IntMessage::new(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, traffic_class),
            ],
        };
        Self { messages, count: if traffic_class == 0 { 1 } else { 2 } }
    }

    pub(super) fn messages(&self) -> &[IntMessage] {
        self.messages.get(..self.count).unwrap_or_default()
    }
}

/// What the kernel says about a message that arrived.
#[derive(Clone, Copy, Default)]
pub(super) struct Received {
    pub(super) hop_limit: Option<u8>,
    pub(super) traffic_class: u8,
    pub(super) error: Option<ExtendedError>,
}

impl Received {
    pub(super) fn parse(control: &[u8]) -> Self {
        let mut received = Self::default();
        for message in Messages(control) {
            match (message.level, message.kind) {
                (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                    received.hop_limit = octet(message.data);
                }
                (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    received.traffic_class = octet(message.data).unwrap_or(0);
                }
                (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) => {
                    received.error = ExtendedError::parse(message.data);
                }
                _ => {}
            }
        }
        received
    }
}

/// `struct sock_extended_err` with the address that follows it (`include/uapi/linux/errqueue.h`).
#[derive(Clone, Copy)]
pub(super) struct ExtendedError {
    pub(super) errno: i32,
    pub(super) origin: u8,
    pub(super) kind: u8,
    pub(super) code: u8,
    pub(super) info: u32,
    /// Where RFC 4884 extensions begin in the data, or 0.
    pub(super) extensions_at: u16,
    /// The extensions fail their checksum.
    pub(super) extensions_invalid: bool,
    pub(super) offender: Option<IpAddr>,
}

impl ExtendedError {
    fn parse(data: &[u8]) -> Option<Self> {
        let (&[e0, e1, e2, e3, origin, kind, code, _], rest) = data.split_first_chunk()?;
        let (&[i0, i1, i2, i3, at0, at1, flags, _], offender) = rest.split_first_chunk()?;
        Some(Self {
            errno: i32::from_ne_bytes([e0, e1, e2, e3]),
            origin,
            kind,
            code,
            info: u32::from_ne_bytes([i0, i1, i2, i3]),
            extensions_at: u16::from_ne_bytes([at0, at1]),
            extensions_invalid: flags & RFC4884_INVALID != 0,
            offender: address::parse(offender),
        })
    }
}

struct Message<'a> {
    level: c_int,
    kind: c_int,
    data: &'a [u8],
}

/// The control messages in a buffer; ends at the first that does not fit.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let (length, rest) = self.0.split_first_chunk()?;
        let (level, rest) = rest.split_first_chunk()?;
        let (kind, _) = rest.split_first_chunk()?;
        let length = usize::from_ne_bytes(*length);
        let data = self.0.get(HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(LENGTH)..).unwrap_or_default();
        Some(Message { level: c_int::from_ne_bytes(*level), kind: c_int::from_ne_bytes(*kind), data })
    }
}

/// A value of 0 to 255 that the kernel writes as `int`, or for `IP_TOS` as one byte.
fn octet(data: &[u8]) -> Option<u8> {
    match *data {
        [value] => Some(value),
        [a, b, c, d] => u8::try_from(c_int::from_ne_bytes([a, b, c, d])).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(level: c_int, kind: c_int, data: &[u8]) -> Vec<u8> {
        let mut bytes = (HEADER + data.len()).to_ne_bytes().to_vec();
        bytes.extend(level.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(LENGTH), 0xaa);
        bytes
    }

    #[test]
    fn hop_limit_and_traffic_class_are_read_in_any_order_and_size() {
        let ttl = message(libc::IPPROTO_IP, libc::IP_TTL, &64i32.to_ne_bytes());
        let tos = message(libc::IPPROTO_IP, libc::IP_TOS, &[0xb8]);
        for bytes in [[ttl.clone(), tos.clone()].concat(), [tos, ttl].concat()] {
            let received = Received::parse(&bytes);
            assert_eq!((received.hop_limit, received.traffic_class), (Some(64), 0xb8));
        }
    }

    #[test]
    fn unknown_messages_are_passed_over() {
        let unknown = message(libc::SOL_SOCKET, libc::SO_TIMESTAMP, &[0; 16]);
        let hops = message(libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, &3i32.to_ne_bytes());
        assert_eq!(Received::parse(&[unknown, hops].concat()).hop_limit, Some(3));
    }

    #[test]
    fn an_extended_error_has_every_field() {
        let mut data = vec![0; 16];
        data[..4].copy_from_slice(&libc::EHOSTUNREACH.to_ne_bytes());
        data[4..7].copy_from_slice(&[libc::SO_EE_ORIGIN_ICMP, 11, 1]);
        data[8..12].copy_from_slice(&1400u32.to_ne_bytes());
        data[12..14].copy_from_slice(&108u16.to_ne_bytes());
        data[14] = 1;
        let offender: IpAddr = "192.0.2.7".parse().unwrap();
        data.extend(address::SocketAddress::new(offender, 0).bytes());
        let error = Received::parse(&message(libc::IPPROTO_IP, libc::IP_RECVERR, &data)).error.unwrap();
        assert_eq!((error.errno, error.origin), (libc::EHOSTUNREACH, libc::SO_EE_ORIGIN_ICMP));
        assert_eq!((error.kind, error.code, error.info), (11, 1, 1400));
        assert_eq!((error.extensions_at, error.extensions_invalid), (108, true));
        assert_eq!(error.offender, Some(offender));
    }

    #[test]
    fn cut_or_lying_lengths_end_the_reading() {
        let bytes = message(libc::IPPROTO_IP, libc::IP_TTL, &64i32.to_ne_bytes());
        for len in 0..HEADER + 4 {
            assert_eq!(Received::parse(&bytes[..len]).hop_limit, None, "{len}");
        }
        for length in [0, 1, HEADER - 1, HEADER + 9, usize::MAX] {
            let mut bytes = bytes.clone();
            bytes[..LENGTH].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(Received::parse(&bytes).hop_limit, None, "{length}");
        }
    }
}
