//! The reasons why packets are dropped, and a counter for each reason.

use std::fmt;

use crate::wire::icmp::IcmpError;

/// Defines reasons, each with its stable name, and a counter for each of them. The tunnel has reasons of its own.
#[doc(hidden)]
#[macro_export]
macro_rules! drop_reasons {
    (
        $(#[$reason_doc:meta])*
        enum DropReason { $($(#[$doc:meta])* $name:ident => $label:literal,)+ }
        $(#[$drops_doc:meta])*
        struct Drops;
    ) => {
        $(#[$reason_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum DropReason {
            $($(#[$doc])* $name,)+
        }

        impl DropReason {
            /// All reasons, in the order in which a packet is checked.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$name,)+];

            /// The stable name in logs and metrics: lower case with underscores.
            pub const fn label(self) -> &'static str {
                match self {
                    $(DropReason::$name => $label,)+
                }
            }
        }

        $(#[$drops_doc])*
        #[derive(Clone, PartialEq, Eq)]
        pub struct Drops([u64; DropReason::ALL.len()]);

        impl Drops {
            /// The reasons that occurred, and how often.
            pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> {
                DropReason::ALL.iter().map(|&reason| (reason, self[reason])).filter(|&(_, count)| count > 0)
            }

            /// All drops together.
            pub fn total(&self) -> u64 {
                self.0.iter().sum()
            }
        }

        impl ::core::fmt::Debug for Drops {
            /// Only the reasons that occurred.
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.debug_map().entries(self.iter()).finish()
            }
        }

        impl Default for Drops {
            fn default() -> Self {
                Self([0; DropReason::ALL.len()])
            }
        }

        #[expect(clippy::indexing_slicing, reason = "the array has one element for each reason")]
        impl ::core::ops::Index<DropReason> for Drops {
            type Output = u64;

            fn index(&self, reason: DropReason) -> &u64 {
                &self.0[reason as usize]
            }
        }

        #[expect(clippy::indexing_slicing, reason = "the array has one element for each reason")]
        impl ::core::ops::IndexMut<DropReason> for Drops {
            fn index_mut(&mut self, reason: DropReason) -> &mut u64 {
                &mut self.0[reason as usize]
            }
        }

        impl ::core::ops::AddAssign<&Drops> for Drops {
            fn add_assign(&mut self, other: &Drops) {
                self.0.iter_mut().zip(other.0).for_each(|(sum, count)| *sum += count);
            }
        }
    };
}

drop_reasons! {
    /// Why a packet was not forwarded. Each dropped packet has exactly one reason.
    enum DropReason {
        /// The queue in front of the path is full: packets come faster than they are handled.
        QueueFull => "queue_full",
        /// Larger than an IP packet can be, or than the ingress can carry.
        Oversized => "oversized",
        /// Shorter than its headers state.
        Truncated => "truncated",
        /// Neither IPv4 nor IPv6.
        BadVersion => "bad_version",
        /// An IPv4 header length below 20 bytes (RFC 791 §3.1).
        BadHeaderLength => "bad_header_length",
        /// An IPv4 total length below its header length.
        BadTotalLength => "bad_total_length",
        /// The IPv4 header checksum is wrong (RFC 1812 §5.2.2).
        BadHeaderChecksum => "bad_header_checksum",
        /// IPv4 options that do not parse (RFC 1812 §4.3.3.5).
        BadOptions => "bad_options",
        /// IPv6 extension headers that do not parse, or are in a wrong order (RFC 8200 §4.1).
        BadExtensionHeader => "bad_extension_header",
        /// An IPv6 option that must not be ignored by a node that does not know it (RFC 8200 §4.2).
        UnknownOption => "unknown_option",
        /// An IPv4 source route option, or an IPv6 routing header with segments left.
        SourceRouted => "source_routed",
        /// Neighbour or router discovery, or the membership of a multicast group: what a kernel and its link tell each other by
        /// themselves. It is no request that was refused.
        LinkControl => "link_control",
        /// The source is not an address a host can have: unspecified, loopback, multicast or broadcast (RFC 1812 §5.3.7).
        InvalidSource => "invalid_source",
        /// The path must not use this source address.
        SpoofedSource => "spoofed_source",
        /// Source and destination are the same.
        SourceIsDestination => "source_is_destination",
        /// A request that pingferry itself sent, routed back into an ingress.
        Loop => "loop",
        /// The protocol is not the ICMP of the packet's family, and the packet is no probe that crosses.
        NotIcmp => "not_icmp",
        /// An ICMP message that is not an echo request.
        NotEchoRequest => "not_echo_request",
        /// An extended echo request with a code other than 0 (RFC 8335 §2).
        BadCode => "bad_code",
        /// A TCP segment after a SYN that was answered: nothing follows a probe.
        FollowsProbe => "follows_probe",
        /// The checksum of a UDP datagram or a TCP segment is wrong.
        BadTransportChecksum => "bad_transport_checksum",
        /// The ICMP checksum is wrong.
        BadIcmpChecksum => "bad_icmp_checksum",
        /// A datagram to pingferry itself, where no UDP port is open.
        PortUnreachable => "port_unreachable",
        /// A packet to pingferry itself of a protocol that it does not have.
        ProtocolUnreachable => "protocol_unreachable",
        /// A TCP RST to pingferry itself, which answers none (RFC 9293 §3.10.7.1).
        TcpReset => "tcp_reset",
        /// The hop limit is used up (RFC 1812 §5.3.1).
        HopLimitExceeded => "hop_limit_exceeded",
        /// The policy refuses the destination.
        DestinationRefused => "destination_refused",
        /// An impossible fragment: empty, not of whole units of eight bytes, or beyond the largest packet.
        BadFragment => "bad_fragment",
        /// A fragment that has arrived before.
        DuplicateFragment => "duplicate_fragment",
        /// A fragment of a datagram with overlapping fragments (RFC 5722 §4).
        FragmentOverlap => "fragment_overlap",
        /// A fragment of a datagram that was still incomplete after 30 s on IPv4, or 60 s on IPv6.
        ReassemblyTimeout => "reassembly_timeout",
        /// A fragment of a datagram that was evicted for newer ones.
        ReassemblyFull => "reassembly_full",
        /// More requests than the rate limit of the source, of the path, or of all sources together, allows.
        RateExceeded => "rate_exceeded",
        /// There is no socket to send from, and none could be opened.
        NoSocket => "no_socket",
        /// The kernel has no route to the destination.
        NoRoute => "no_route",
        /// The destination cannot be reached on its link.
        HostUnreachable => "host_unreachable",
        /// Larger than the path MTU to the destination.
        TooBig => "too_big",
        /// The kernel prohibits the send: a prohibiting route, a firewall, or a broadcast address.
        SendProhibited => "send_prohibited",
        /// The send buffer is full.
        SendBufferFull => "send_buffer_full",
        /// The kernel did not send for another reason.
        SendFailed => "send_failed",
        /// A ping socket received a message that is not an echo reply.
        NotEchoReply => "not_echo_reply",
        /// A reply or ICMP error that belongs to no flow of its socket: no flow has this destination.
        UnexpectedPeer => "unexpected_peer",
        /// A reply of another kind, or with another identifier, than the request.
        UnexpectedReply => "unexpected_reply",
        /// A reply or ICMP error with a sequence number that was not sent.
        UnexpectedSeq => "unexpected_seq",
        /// An ICMP error that does not quote a request of its flow.
        UnexpectedQuote => "unexpected_quote",
        /// The answers to UDP probes have more than three times as many bytes as the probes.
        Amplification => "amplification",
        /// The hop limit of a reply or ICMP error is used up.
        ReplyHopLimitExceeded => "reply_hop_limit_exceeded",
        /// The path is closed: that of a packet, or that of a reply or ICMP error.
        PathClosed => "path_closed",
        /// The ingress did not accept a packet for its path: its queue is full, or it is gone.
        DeliveryFailed => "delivery_failed",
    }

    /// The number of dropped packets, by reason.
    ///
    /// ```
    /// use pingferry_proto::{DropReason, Drops};
    ///
    /// let mut drops = Drops::default();
    /// drops[DropReason::NotIcmp] += 2;
    /// assert_eq!(drops.iter().collect::<Vec<_>>(), [(DropReason::NotIcmp, 2)]);
    /// assert_eq!((drops.total(), DropReason::NotIcmp.label()), (2, "not_icmp"));
    /// assert_eq!(format!("{drops:?}"), "{NotIcmp: 2}");
    /// ```
    struct Drops;
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// So that parsers, which return a reason, can be used with `?`.
impl std::error::Error for DropReason {}

/// Why a packet is dropped, and the ICMP error that its sender receives, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reject {
    pub(crate) reason: DropReason,
    pub(crate) error: Option<IcmpError>,
}

impl Reject {
    pub(crate) fn with_error(reason: DropReason, error: IcmpError) -> Self {
        Self { reason, error: Some(error) }
    }
}

impl From<DropReason> for Reject {
    fn from(reason: DropReason) -> Self {
        Self { reason, error: None }
    }
}
