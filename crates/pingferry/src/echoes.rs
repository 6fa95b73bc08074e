//! Echo requests and their answers as values, for programs that have no IP packets.
//!
//! # Theory of operation
//!
//! The endpoint knows packets only, so each request is written as one. Its source address says whose it is: the key is a part of
//! an address that nobody else has on this path, from 240.0.0.0/4 (reserved, RFC 1112 §4) or, each with a /64 of its own,
//! from fd70:696e::/32 (RFC 4193). The path's MTU is that of the largest packet, so no answer is fragmented.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};

use pingferry_proto::wire::{EchoKind, IpHeader, IpPacket, emit_fragmented, write_checksum};
use pingferry_proto::{Family, PathConfig};

use crate::error::SendError;
use crate::handle::{Attachment, Path};
use crate::ingress::replies::{Replies, TryRecvError};

/// The bytes of an ICMP header.
const ICMP_HEADER: usize = 8;
/// A fragment header: its size, and its number (RFC 8200 §4.5).
const FRAGMENT_HEADER: usize = 8;
const IPPROTO_FRAGMENT: u8 = 44;
const KEYS: u32 = 0xf000_0000;
const PREFIX_V6: [u16; 2] = [0xfd70, 0x696e];

/// An echo request of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo<'a> {
    /// Whose request it is: a number below 2^28. Each key is a client of its own for limits and fair shares.
    pub key: u32,
    /// The host to ping.
    pub destination: IpAddr,
    /// The client's identifier, which comes back.
    pub ident: u16,
    /// The client's sequence number, which comes back.
    pub seq: u16,
    /// The hop limit that the request leaves with: 1 to 254. The proxy is no hop here.
    pub hop_limit: u8,
    /// The data, at most 65,507 bytes.
    pub payload: &'a [u8],
}

/// What came back for an [`Echo`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer<'a> {
    /// Whose request it answers.
    pub key: u32,
    /// Who sent it: the host, or the router that had to report an error.
    pub from: IpAddr,
    /// The identifier of the request.
    pub ident: u16,
    /// The sequence number of the request.
    pub seq: u16,
    /// The hop limit that it arrived with, less one.
    pub hop_limit: u8,
    /// What it says.
    pub content: Content<'a>,
}

/// What an [`Answer`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Content<'a> {
    /// The host has replied, with this data.
    Reply(&'a [u8]),
    /// An ICMP error of a router, a host, or the proxy.
    Error {
        /// Where the request went.
        destination: IpAddr,
        /// The type, as the family numbers it (RFC 792, RFC 4443).
        icmp_type: u8,
        /// The code.
        code: u8,
        /// The four bytes after the checksum, for example the MTU of Fragmentation Needed or Packet Too Big.
        rest: u32,
    },
}

/// A path for echo requests: of [`Control::attach_echoes`](crate::Control::attach_echoes). It is closed when it is dropped.
///
/// It dereferences to its [`Attachment`]. Limits hold for each key as for each source of another path.
///
/// ```no_run
/// use pingferry::{Config, Content, Echo, PathConfig, Proxy};
///
/// # async fn ping() -> Result<(), Box<dyn std::error::Error>> {
/// let proxy = Proxy::open(Config::default())?;
/// let (echoes, mut answers) = proxy.attach_echoes(PathConfig::default(), 1000)?;
/// let destination = "192.0.2.1".parse()?;
/// echoes.send(Echo { key: 7, destination, ident: 1, seq: 1, hop_limit: 64, payload: b"hello" })?;
/// while let Some(answer) = answers.recv().await {
///     match answer.content {
///         Content::Reply(payload) => println!("{} bytes from {}", payload.len(), answer.from),
///         error => println!("{}: {error:?}", answer.from),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Echoes {
    path: Path,
    // Held to write a packet and hand it in. The path's lock is taken under it.
    scratch: Mutex<Scratch>,
}

/// The request at hand. Its memory is kept, so that none is allocated.
#[derive(Debug, Default)]
struct Scratch {
    message: Vec<u8>,
    packets: Vec<u8>,
    identification: u32,
}

/// Answers to echo requests: of [`Control::attach_echoes`](crate::Control::attach_echoes). It waits in the same ways as
/// [`Replies`].
#[derive(Debug)]
pub struct Answers(Replies);

/// What a path for echoes needs of its configuration.
pub(crate) fn config(config: PathConfig) -> PathConfig {
    config.with_mtu(*PathConfig::MTU.end()).with_sources(Vec::new())
}

impl Echoes {
    pub(crate) fn new(path: Path) -> Self {
        Self { path, scratch: Mutex::default() }
    }

    /// Sends an echo request. Never blocks.
    ///
    /// # Errors
    /// As [`Path::send`].
    pub fn send(&self, echo: Echo<'_>) -> Result<(), SendError> {
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let Scratch { message, packets, identification } = &mut *scratch;
        let family = Family::of(echo.destination);
        let mut header = IpHeader::icmp(source(echo.key, family), echo.destination);
        header.hop_limit = echo.hop_limit.saturating_add(1);
        header.identification = *identification;
        *identification = identification.wrapping_add(1);
        message.clear();
        message.extend_from_slice(&[EchoKind::Echo.request_type(family), 0, 0, 0]);
        message.extend_from_slice(&echo.ident.to_be_bytes());
        message.extend_from_slice(&echo.seq.to_be_bytes());
        message.extend_from_slice(echo.payload);
        write_checksum(header.source, header.destination, message);
        packets.clear();
        let length = emit_fragmented(&header, message, largest(&header, message), packets);
        self.path.send_batch(packets.chunks(length.max(1))).map(drop)
    }
}

/// The largest packet to write. A whole packet of IPv6 must not be fragmented on its way, but what comes in pieces may leave in
/// smaller ones. So what not every link with IPv6 carries (RFC 8200 §5) comes in two.
fn largest(header: &IpHeader, message: &[u8]) -> usize {
    let whole = header.wire_len() + message.len();
    if header.source.is_ipv4() || whole <= PathConfig::MIN_MTU_V6 {
        whole
    } else {
        whole / 2 + PathConfig::MIN_MTU_V6 / 2
    }
}

impl Deref for Echoes {
    type Target = Attachment;

    fn deref(&self) -> &Attachment {
        &self.path
    }
}

impl Answers {
    pub(crate) fn new(replies: Replies) -> Self {
        Self(replies)
    }

    /// The next answer, if one waits. It does not wait.
    ///
    /// # Errors
    /// None waits, or none will ever come.
    pub fn try_recv(&mut self) -> Result<Answer<'_>, TryRecvError> {
        let reply = self.0.try_recv()?;
        // What is no answer, which the proxy does not send here, is as good as none.
        parse(reply.into_packet()).ok_or(TryRecvError::Empty)
    }

    /// The next answer. `None` if none will ever come, because the path or the proxy is closed.
    pub async fn recv(&mut self) -> Option<Answer<'_>> {
        self.0.recv().await.and_then(|reply| parse(reply.into_packet()))
    }
}

/// Readable when an answer waits, or when the path is closed.
impl AsFd for Answers {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The address of the client with a key.
fn source(key: u32, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(KEYS | key & !KEYS).into(),
        Family::V6 => {
            let [a, b] = PREFIX_V6;
            let (high, low) = ((key & !KEYS) >> 16, key & 0xffff);
            Ipv6Addr::new(a, b, high as u16, low as u16, 0, 0, 0, 1).into()
        }
    }
}

fn key(source: IpAddr) -> u32 {
    match source {
        IpAddr::V4(address) => address.to_bits() & !KEYS,
        IpAddr::V6(address) => (address.to_bits() >> 64) as u32,
    }
}

fn parse(packet: &[u8]) -> Option<Answer<'_>> {
    let IpPacket { header, payload } = IpPacket::parse(packet).ok()?;
    let [icmp_type, code, _, _, r0, r1, r2, r3] = *payload.first_chunk()?;
    let rest = payload.get(ICMP_HEADER..)?;
    let (ident, seq, content) = if icmp_type == EchoKind::Echo.reply_type(header.family()) {
        (u16::from_be_bytes([r0, r1]), u16::from_be_bytes([r2, r3]), Content::Reply(rest))
    } else {
        let (destination, request) = quoted(rest, header.family())?;
        let [.., i0, i1, s0, s1]: [u8; ICMP_HEADER] = *request.first_chunk()?;
        let content = Content::Error { destination, icmp_type, code, rest: u32::from_be_bytes([r0, r1, r2, r3]) };
        (u16::from_be_bytes([i0, i1]), u16::from_be_bytes([s0, s1]), content)
    };
    Some(Answer { key: key(header.destination), from: header.source, ident, seq, hop_limit: header.hop_limit, content })
}

/// The destination of the quoted packet, and its message. The packet may be cut off, so it is not parsed as a whole. It was
/// written here: without options, and with a fragment header at most.
fn quoted(quote: &[u8], family: Family) -> Option<(IpAddr, &[u8])> {
    match family {
        Family::V4 => Some(((*quote.get(16..)?.first_chunk::<4>()?).into(), quote.get(20..)?)),
        Family::V6 => {
            let is_fragment = *quote.get(6)? == IPPROTO_FRAGMENT;
            let start = if is_fragment { 40 + FRAGMENT_HEADER } else { 40 };
            Some(((*quote.get(24..)?.first_chunk::<16>()?).into(), quote.get(start..)?))
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_as_an_address() {
        for family in [Family::V4, Family::V6] {
            for number in [0, 1, 0xffff, 0x1_0000, 0x0fff_fffe] {
                assert_eq!(key(source(number, family)), number);
            }
        }
    }
}
