//! The reasons why packets are dropped, and a counter for each reason.

use std::fmt;
use std::ops::{AddAssign, Index, IndexMut};

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident => $label:literal,)+) => {
        /// Why a packet was not forwarded. Each dropped packet has exactly one reason.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum DropReason {
            $($(#[$doc])* $name,)+
        }

        impl DropReason {
            /// Every reason, in the order in which a packet is examined.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$name,)+];

            /// The stable name in logs and metrics: lower case with underscores.
            pub const fn label(self) -> &'static str {
                match self {
                    $(DropReason::$name => $label,)+
                }
            }
        }
    };
}

drop_reasons! {
    /// Larger than an IP packet can be, or than the ingress can carry.
    Oversized => "oversized",
    /// Ends before its own headers say it does.
    Truncated => "truncated",
    /// Neither IPv4 nor IPv6.
    BadVersion => "bad_version",
    /// An IPv4 header length below 20 bytes (RFC 791 §3.1).
    BadHeaderLength => "bad_header_length",
    /// An IPv4 total length below its header length.
    BadTotalLength => "bad_total_length",
    /// The IPv4 header checksum is wrong (RFC 1812 §5.2.2).
    BadHeaderChecksum => "bad_header_checksum",
    /// IPv4 options that do not parse.
    BadOptions => "bad_options",
    /// IPv6 extension headers that do not parse, or stand in a wrong order (RFC 8200 §4.1).
    BadExtensionHeader => "bad_extension_header",
    /// An IPv4 source route option or an IPv6 routing header.
    SourceRouted => "source_routed",
    /// The source is not an address a host can have: unspecified, loopback, multicast or broadcast (RFC 1812 §5.3.7).
    InvalidSource => "invalid_source",
    /// A source that the path may not have.
    SpoofedSource => "spoofed_source",
    /// Source and destination are the same.
    SourceIsDestination => "source_is_destination",
    /// pingferry's own probe, routed back into an ingress.
    Loop => "loop",
    /// Another protocol than the ICMP of its family.
    NotIcmp => "not_icmp",
    /// An ICMP message that is not an echo request.
    NotEchoRequest => "not_echo_request",
    /// An echo request with a code other than 0.
    BadCode => "bad_code",
    /// The ICMP checksum is wrong.
    BadIcmpChecksum => "bad_icmp_checksum",
    /// The hop limit ends here (RFC 1812 §5.3.1).
    HopLimitExceeded => "hop_limit_exceeded",
    /// The policy refuses the destination.
    DestinationRefused => "destination_refused",
    /// A fragment that no fragment can be: empty, not of whole units, or beyond the largest packet.
    BadFragment => "bad_fragment",
    /// A fragment that came before.
    DuplicateFragment => "duplicate_fragment",
    /// A fragment that overlaps with others of its datagram, which is void then (RFC 5722 §4).
    FragmentOverlap => "fragment_overlap",
    /// A fragment whose datagram was not whole in time (RFC 8200 §4.5).
    ReassemblyTimeout => "reassembly_timeout",
    /// A fragment whose datagram gave way to newer ones.
    ReassemblyFull => "reassembly_full",
    /// More requests than the rate of the source, or of all together, allows.
    RateExceeded => "rate_exceeded",
    /// No socket could be opened to send from.
    NoSocket => "no_socket",
    /// The kernel has no route to the destination.
    NoRoute => "no_route",
    /// The destination cannot be reached on its link.
    HostUnreachable => "host_unreachable",
    /// Larger than the path to the destination carries.
    TooBig => "too_big",
    /// The kernel's own policy refuses to send: a firewall, or a broadcast address.
    SendProhibited => "send_prohibited",
    /// The kernel has no buffer for the packet.
    SendBufferFull => "send_buffer_full",
    /// The kernel refuses to send for another reason.
    SendFailed => "send_failed",
    /// What a ping socket received is not an echo reply.
    NotEchoReply => "not_echo_reply",
    /// A reply from an address that was not asked through this socket.
    UnexpectedPeer => "unexpected_peer",
    /// A reply to another kind of query or with another identifier than was sent.
    UnexpectedReply => "unexpected_reply",
    /// A reply to a sequence number that was not sent.
    UnexpectedSeq => "unexpected_seq",
    /// An ICMP error that quotes no request of its socket.
    UnexpectedQuote => "unexpected_quote",
    /// The hop limit of an answer ends here.
    ReplyHopLimitExceeded => "reply_hop_limit_exceeded",
    /// The path a packet came from or has to go back to is closed.
    PathClosed => "path_closed",
    /// The ingress did not take a packet for its path: its queue is full, or it is gone.
    DeliveryFailed => "delivery_failed",
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// How many packets were dropped, by reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drops([u64; DropReason::ALL.len()]);

impl Default for Drops {
    fn default() -> Self {
        Self([0; DropReason::ALL.len()])
    }
}

#[expect(clippy::indexing_slicing, reason = "the array has one element for each reason")]
impl Index<DropReason> for Drops {
    type Output = u64;

    fn index(&self, reason: DropReason) -> &u64 {
        &self.0[reason as usize]
    }
}

#[expect(clippy::indexing_slicing, reason = "the array has one element for each reason")]
impl IndexMut<DropReason> for Drops {
    fn index_mut(&mut self, reason: DropReason) -> &mut u64 {
        &mut self.0[reason as usize]
    }
}

impl Drops {
    /// The reasons that occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> {
        DropReason::ALL.iter().map(|&reason| (reason, self[reason])).filter(|&(_, count)| count > 0)
    }

    /// All drops together.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl AddAssign<&Drops> for Drops {
    fn add_assign(&mut self, other: &Drops) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, count)| *sum += count);
    }
}
