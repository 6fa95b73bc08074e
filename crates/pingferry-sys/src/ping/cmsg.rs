//! Control messages: options and metadata of a single message (cmsg(3)).
//!
//! A control message has a header (`size_t` length including the header, `int` level, `int` type) and data, each padded
//! to the size of a `size_t` (`include/linux/socket.h`). To send, a struct of that layout is used. To receive, the bytes
//! are parsed. Neither needs `unsafe`.

use std::ffi::c_int;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use pingferry_proto::Family;

use super::address;

/// The size of the length field in bytes.
const LENGTH: usize = size_of::<usize>();
/// The size of the header in bytes.
const HEADER: usize = LENGTH + 2 * size_of::<c_int>();

/// The size in bytes of a buffer for all control messages of one received message: hop limit, traffic class, the time of
/// arrival and, from the error queue, the extended error with an IPv6 address. The kernel drops control messages that do not fit.
pub(super) const BUFFER_SIZE: usize = 160;

/// A control message whose data is an `int`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct IntMessage {
    length: usize,
    level: c_int,
    kind: c_int,
    value: c_int,
}

const _: () = {
    // SAFETY: CMSG_SPACE only computes a size.
    let space = unsafe { libc::CMSG_SPACE(size_of::<c_int>() as u32) };
    assert!(size_of::<IntMessage>() == space as usize, "IntMessage must have the padding that the kernel expects");
};

impl IntMessage {
    const fn new(level: c_int, kind: c_int, value: u8) -> Self {
        Self { length: HEADER + size_of::<c_int>(), level, kind, value: value as c_int }
    }
}

/// The control messages of a message to send.
#[derive(Clone, Copy)]
pub(super) struct SendControl {
    messages: [IntMessage; 2],
    count: usize,
}

impl SendControl {
    /// Sets the hop limit, and the traffic class unless it is 0, the default of a socket. Omitting it saves an allocation:
    /// the kernel copies up to 36 bytes of control messages to its stack, and allocates memory for more
    /// (`____sys_sendmsg` in net/socket.c).
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

/// The control messages of a received message.
#[derive(Clone, Copy, Default)]
pub(super) struct Received {
    pub(super) hop_limit: Option<u8>,
    pub(super) traffic_class: u8,
    pub(super) arrived: Option<SystemTime>,
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
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => received.arrived = timestamp(message.data),
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
    /// The offset in the data at which RFC 4884 extensions begin, or 0.
    pub(super) extensions_at: u16,
    pub(super) offender: Option<IpAddr>,
}

impl ExtendedError {
    fn parse(data: &[u8]) -> Option<Self> {
        let (&[e0, e1, e2, e3, origin, kind, code, _], rest) = data.split_first_chunk()?;
        let (&[i0, i1, i2, i3, at0, at1, _, _], offender) = rest.split_first_chunk()?;
        Some(Self {
            errno: i32::from_ne_bytes([e0, e1, e2, e3]),
            origin,
            kind,
            code,
            info: u32::from_ne_bytes([i0, i1, i2, i3]),
            extensions_at: u16::from_ne_bytes([at0, at1]),
            offender: address::parse(offender).map(|address| address.ip()),
        })
    }
}

struct Message<'a> {
    level: c_int,
    kind: c_int,
    data: &'a [u8],
}

/// Iterates over the control messages in a buffer. Stops at the first one whose length is invalid.
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

/// A `struct timespec` of two 64-bit fields. On 32-bit machines it may have two of 32 bits, which end in 2038 and are not read.
fn timestamp(data: &[u8]) -> Option<SystemTime> {
    let (seconds, nanoseconds) = data.split_first_chunk()?;
    let (seconds, nanoseconds) = (i64::from_ne_bytes(*seconds), i64::from_ne_bytes(nanoseconds.try_into().ok()?));
    let nanoseconds = u32::try_from(nanoseconds).ok().filter(|nanoseconds| *nanoseconds < 1_000_000_000)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(u64::try_from(seconds).ok()?, nanoseconds))
}

/// A value of 0 to 255, which the kernel writes as an `int`, or as one byte for `IP_TOS`.
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
    fn unknown_messages_are_ignored() {
        let unknown = message(libc::SOL_SOCKET, libc::SO_TIMESTAMP, &[0; 16]);
        let hops = message(libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, &3i32.to_ne_bytes());
        assert_eq!(Received::parse(&[unknown, hops].concat()).hop_limit, Some(3));
    }

    #[test]
    fn a_time_of_arrival_is_read_and_an_impossible_one_is_not() {
        let stamp = |seconds: i64, nanoseconds: i64| {
            let data = [seconds.to_ne_bytes(), nanoseconds.to_ne_bytes()].concat();
            Received::parse(&message(libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS, &data)).arrived
        };
        assert_eq!(stamp(7, 8), Some(SystemTime::UNIX_EPOCH + Duration::new(7, 8)));
        assert_eq!((stamp(-1, 0), stamp(0, -1), stamp(0, 1_000_000_000)), (None, None, None));
        let short = Received::parse(&message(libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS, &[0; 8]));
        assert_eq!(short.arrived, None);
    }

    #[test]
    fn an_extended_error_has_every_field() {
        let mut data = vec![0; 16];
        data[..4].copy_from_slice(&libc::EHOSTUNREACH.to_ne_bytes());
        data[4..7].copy_from_slice(&[libc::SO_EE_ORIGIN_ICMP, 11, 1]);
        data[8..12].copy_from_slice(&1400u32.to_ne_bytes());
        data[12..14].copy_from_slice(&108u16.to_ne_bytes());
        // The extensions are invalid, as the kernel sees it: that is the client's to judge.
        data[14] = 1;
        let offender: IpAddr = "192.0.2.7".parse().unwrap();
        data.extend(address::SocketAddress::new(offender, 0).bytes());
        let error = Received::parse(&message(libc::IPPROTO_IP, libc::IP_RECVERR, &data)).error.unwrap();
        assert_eq!((error.errno, error.origin), (libc::EHOSTUNREACH, libc::SO_EE_ORIGIN_ICMP));
        assert_eq!((error.kind, error.code, error.info), (11, 1, 1400));
        assert_eq!(error.extensions_at, 108);
        assert_eq!(error.offender, Some(offender));
    }

    #[test]
    fn parsing_stops_at_truncated_messages_and_wrong_lengths() {
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
