//! The differences between a router and pingferry that are allowed. Any other one fails the test, and so does a row
//! that no case needs.

use std::collections::BTreeSet;

use super::cases::Case;

/// Which packets a difference is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// The request as it arrives at its destination.
    Arrived,
    Reply,
    /// Time Exceeded in transit. It quotes a packet with a hop limit of 1.
    TimeExceeded,
    /// Any other error.
    Error,
}

/// A field that may differ.
pub struct Difference {
    pub about: &'static [About],
    pub field: &'static str,
    /// Allowed only in cases with this in their name.
    pub within: &'static str,
    pub reason: &'static str,
}

/// A case with another response, or none.
pub struct Exception {
    /// What the name of the case begins with.
    pub case: &'static str,
    /// The ICMP type that comes instead.
    pub instead: Option<u8>,
    pub reason: &'static str,
}

pub const DIFFERENCES: &[Difference] = &[
    arrived("source", "", "the proxy's host sends the requests of all clients"),
    arrived("ident", "", "each ping socket has its own"),
    arrived("identification", "v4", OWN_HEADER),
    arrived("flow label", "v6", OWN_HEADER),
    arrived("options", "option", OWN_HEADER),
    arrived("extension headers", "options", OWN_HEADER),
    arrived("length", "option", "because of the options"),
    arrived("UDP checksum", "UDP", "the source address is the proxy's"),
    arrived("rest of the segment", "SYN", "the kernel writes the TCP header"),
    arrived("DF", "v4 SYN", "the kernel writes the IP header"),
    reply("identification", "", CUT_OFF),
    reply("flow label", "v6", CUT_OFF),
    reply("DF", "a reply with DF", CUT_OFF),
    reply("options", "option", "pingferry sends none"),
    reply("length", "option", "because of the options"),
    error("identification", "v4", CUT_OFF),
    error("flow label", "v6", CUT_OFF),
    Difference { about: &[About::Error], field: "quoted hop limit", within: "", reason: UNKNOWN_DISTANCE },
    error("rest", ": the length of", NO_LENGTH),
    error("rest", "v4 echo: extensions after a quote", TOO_SHORT_FOR_EXTENSIONS),
    error("rest", "v4 UDP: extensions after a quote", TOO_SHORT_FOR_EXTENSIONS),
    error("extensions", ": extensions after a quote", TOO_SHORT_FOR_EXTENSIONS),
    error("quoted bytes", ": extensions after a quote", TOO_SHORT_FOR_EXTENSIONS),
    error("after the quoted packet", ": extensions after a quote", TOO_SHORT_FOR_EXTENSIONS),
    error("quoted DF", "quote with DF", QUOTED_HEADER),
    error("quoted options", "option", QUOTED_HEADER),
    error("quoted bytes", "option", QUOTED_HEADER),
    error("quoted length", "option", QUOTED_HEADER),
    error("length", "option", "because of the quote"),
    error("quoted identification", "fragments", QUOTED_FRAGMENT),
    error("quoted fragment", "fragments", QUOTED_FRAGMENT),
    error("quoted length", "fragments", QUOTED_FRAGMENT),
    error("quoted bytes", "v6 fragments", "the quoted fragment header has 8 bytes"),
    error("length", "v6 fragments", "because of the quote"),
];

pub const EXCEPTIONS: &[Exception] = &[
    lost("v4 type 3 code 16", "the kernel does not know the code (NR_ICMP_UNREACH in include/uapi/linux/icmp.h)"),
    lost("v4 type 11 code 1", "the kernel does not report it to sockets (ICMP_EXC_FRAGTIME in net/ipv4/icmp.c)"),
    lost(
        "v6 extended echo with hop limit 2",
        "the kernel handles quoted echo requests only (icmpv6_err in net/ipv6/icmp.c)",
    ),
    lost("v4 a reply from another host", FILTERED),
    lost("v6 a reply from another host", FILTERED),
    lost("v4 a message of type", NO_RESPONSE),
    lost("v6 a message of type", NO_RESPONSE),
    lost("v4 a wrong checksum in", WRONG_CHECKSUM),
    lost("v6 a wrong checksum in", WRONG_CHECKSUM),
    lost("v4 a quote that is too short", TOO_SHORT),
    lost("v6 a quote that is too short", TOO_SHORT),
    lost("v4 a quote of what was not sent", NOT_SENT),
    lost("v6 a quote of what was not sent", NOT_SENT),
    lost("v4 a quote with a wrong", NOT_SENT),
    other("v4 a quote with a changed", DESTINATION_UNREACHABLE, QUOTED_HEADER),
    other("v6 1353 bytes in fragments of 1400", PACKET_TOO_BIG, LEAVES_WHOLE),
    other("v6 1353 bytes in fragments of 1280", PACKET_TOO_BIG, LEAVES_WHOLE),
    other("v6 1360 bytes in fragments, the first time", PACKET_TOO_BIG, LEAVES_WHOLE),
    other("v6 fragments too big for the path", ECHO_REPLY_V6, "it leaves in fragments that fit every link"),
];

const DESTINATION_UNREACHABLE: u8 = 3;
const PACKET_TOO_BIG: u8 = 2;
const ECHO_REPLY_V6: u8 = 129;
const OWN_HEADER: &str = "the kernel writes the IP header";
const CUT_OFF: &str = "the kernel does not report it to sockets";
const UNKNOWN_DISTANCE: &str =
    "the kernel does not report the quoted IP header, so the distance of the offender is unknown";
const QUOTED_FRAGMENT: &str =
    "the request was reassembled and fragmented again, and the quote is known only from the ICMP header on";
const LEAVES_WHOLE: &str =
    "the reassembled packet fits the first link, and the kernel does not fragment it until it gets Packet Too Big";
const NO_LENGTH: &str = "the kernel tells the length of the quote only if extensions follow it (ipv4_icmp_error_rfc4884 in net/ipv4/icmp.c)";
const TOO_SHORT_FOR_EXTENSIONS: &str = "the kernel accepts no extensions after less than 128 bytes (RFC 4884 §4); their bytes arrive as a part of the quote";
const QUOTED_HEADER: &str = "the kernel does not report the quoted IP header";
const NO_RESPONSE: &str = "only replies and errors cross (RFC 5508 REQ-11)";
const WRONG_CHECKSUM: &str = "the kernel drops it (RFC 5508 REQ-3)";
const TOO_SHORT: &str =
    "the kernel finds no socket without 8 bytes of the request (icmp_socket_deliver in net/ipv4/icmp.c)";
const NOT_SENT: &str = "the client did not send the quoted packet (RFC 5508 REQ-4)";
const FILTERED: &str = "only the host that was pinged can reply";

const fn arrived(field: &'static str, within: &'static str, reason: &'static str) -> Difference {
    Difference { about: &[About::Arrived], field, within, reason }
}

const fn reply(field: &'static str, within: &'static str, reason: &'static str) -> Difference {
    Difference { about: &[About::Reply], field, within, reason }
}

const fn error(field: &'static str, within: &'static str, reason: &'static str) -> Difference {
    Difference { about: &[About::TimeExceeded, About::Error], field, within, reason }
}

const fn lost(case: &'static str, reason: &'static str) -> Exception {
    Exception { case, instead: None, reason }
}

const fn other(case: &'static str, icmp_type: u8, reason: &'static str) -> Exception {
    Exception { case, instead: Some(icmp_type), reason }
}

impl Exception {
    pub fn of(case: &Case) -> Option<&'static Self> {
        EXCEPTIONS.iter().find(|row| case.name.starts_with(row.case))
    }
}

/// Looks up whether differences are allowed, and records the numbers of the rows that were needed.
#[derive(Default)]
pub struct Register(BTreeSet<usize>);

impl Register {
    pub fn allows(&mut self, about: About, field: &str, case: &Case) -> bool {
        let row = |row: &Difference| row.about.contains(&about) && row.field == field && case.name.contains(row.within);
        let found = DIFFERENCES.iter().position(row);
        self.0.extend(found);
        found.is_some()
    }

    /// The rows that no case needed.
    pub fn unused(&self, cases: &[Case]) -> impl Iterator<Item = String> {
        let differences = DIFFERENCES.iter().enumerate().filter(|(row, _)| !self.0.contains(row));
        let exceptions = EXCEPTIONS.iter().filter(|row| !cases.iter().any(|case| case.name.starts_with(row.case)));
        differences
            .map(|(_, Difference { about, field, within, reason })| {
                format!("allowed, but equal: {about:?}: {field} in {within:?}: {reason}")
            })
            .chain(exceptions.map(|Exception { case, .. }| format!("an exception for no case: {case}")))
    }
}
