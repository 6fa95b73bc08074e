//! The differences that a router makes when it is a host with ping sockets. There must be no others, and each of these is
//! seen: a row that nothing needs fails the test.

use super::cases::Case;

/// Which packets a difference is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// The request, at its destination.
    Arrived,
    Reply,
    /// Time Exceeded in transit, whose quote is that of a packet with a hop limit of 1.
    TimeExceeded,
    /// Any other error.
    Error,
}

/// A field that may differ.
pub struct Difference {
    pub about: &'static [About],
    pub field: &'static str,
    /// Only in cases with this in their name.
    pub within: &'static str,
    pub reason: &'static str,
}

/// A case with another answer, or none.
pub struct Exception {
    pub case: &'static str,
    /// The ICMP type that comes instead.
    pub instead: Option<u8>,
    pub reason: &'static str,
}

pub const DIFFERENCES: &[Difference] = &[
    arrived("source", "", "the proxy's host asks, for all clients"),
    arrived("ident", "", "a ping socket has its own"),
    arrived("identification", "v4", OWN_HEADER),
    arrived("flow label", "v6", OWN_HEADER),
    arrived("options", "option", OWN_HEADER),
    arrived("extension headers", "options", OWN_HEADER),
    arrived("length", "option", "that of the options"),
    reply("identification", "", CUT_OFF),
    reply("flow label", "v6", CUT_OFF),
    reply("DF", "a reply with DF", CUT_OFF),
    reply("options", "option", "the request had none"),
    reply("length", "option", "that of the options"),
    error("identification", "v4", CUT_OFF),
    error("flow label", "v6", CUT_OFF),
    Difference { about: &[About::Error], field: "quoted hop limit", within: "", reason: UNKNOWN_DISTANCE },
    error("quoted identification", "fragments", QUOTED_FRAGMENT),
    error("quoted fragment", "fragments", QUOTED_FRAGMENT),
    error("quoted length", "fragments", QUOTED_FRAGMENT),
    error("quoted bytes", "v6 fragments", "the quoted fragment header has 8"),
    error("length", "v6 fragments", "that of the quote"),
];

pub const EXCEPTIONS: &[Exception] = &[
    lost("v4 type 3 code 16", "the kernel does not know the code (NR_ICMP_UNREACH in include/uapi/linux/icmp.h)"),
    lost("v4 type 11 code 1", "the kernel keeps it to itself (ICMP_EXC_FRAGTIME in net/ipv4/icmp.c)"),
    lost(
        "v6 extended echo with hop limit 2",
        "the kernel looks for echo requests only (icmpv6_err in net/ipv6/icmp.c)",
    ),
    lost("v4 a reply from another host", FILTERED),
    lost("v6 a reply from another host", FILTERED),
    other("v6 1353 bytes in fragments of 1400", PACKET_TOO_BIG, LEAVES_WHOLE),
    other("v6 1353 bytes in fragments of 1280", PACKET_TOO_BIG, LEAVES_WHOLE),
    other("v6 1360 bytes in fragments, the first time", PACKET_TOO_BIG, LEAVES_WHOLE),
    other("v6 fragments too big for the path", ECHO_REPLY_V6, "it leaves in fragments that every link carries"),
];

const PACKET_TOO_BIG: u8 = 2;
const ECHO_REPLY_V6: u8 = 129;
const OWN_HEADER: &str = "the kernel makes the IP header";
const CUT_OFF: &str = "the kernel does not say what it was";
const UNKNOWN_DISTANCE: &str = "the kernel does not give the quoted IP header: how far the offender is, is not known";
const QUOTED_FRAGMENT: &str =
    "the request was put together and cut anew: what is quoted is known from the ICMP header on";
const LEAVES_WHOLE: &str =
    "put together it fits the first link, and the kernel does not cut what fits until it is told";
const FILTERED: &str = "only who was asked may answer";

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
        EXCEPTIONS.iter().find(|row| row.case == case.name)
    }
}

/// Looks up which differences are allowed, and notes it.
#[derive(Default)]
pub struct Register([bool; DIFFERENCES.len()]);

impl Register {
    pub fn allows(&mut self, about: About, field: &str, case: &Case) -> bool {
        let row = |row: &Difference| row.about.contains(&about) && row.field == field && case.name.contains(row.within);
        let found = DIFFERENCES.iter().position(row);
        found.inspect(|row| self.0[*row] = true).is_some()
    }

    /// The rows that nothing needed.
    pub fn unused(&self) -> impl Iterator<Item = String> {
        let unused = DIFFERENCES.iter().zip(&self.0).filter(|(_, used)| !**used);
        unused.map(|(Difference { about, field, within, reason }, _)| {
            format!("allowed, but equal: {about:?}: {field} in {within:?}: {reason}")
        })
    }
}
