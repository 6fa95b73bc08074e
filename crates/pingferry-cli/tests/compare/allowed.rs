//! The differences between a router and pingferry that are allowed. Any other one fails the test, and so does a row
//! that no case needs.

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
    reply("identification", "", CUT_OFF),
    reply("flow label", "v6", CUT_OFF),
    reply("DF", "a reply with DF", CUT_OFF),
    reply("options", "option", "pingferry sends none"),
    reply("length", "option", "because of the options"),
    error("identification", "v4", CUT_OFF),
    error("flow label", "v6", CUT_OFF),
    Difference { about: &[About::Error], field: "quoted hop limit", within: "", reason: UNKNOWN_DISTANCE },
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
    other("v6 1353 bytes in fragments of 1400", PACKET_TOO_BIG, LEAVES_WHOLE),
    other("v6 1353 bytes in fragments of 1280", PACKET_TOO_BIG, LEAVES_WHOLE),
    other("v6 1360 bytes in fragments, the first time", PACKET_TOO_BIG, LEAVES_WHOLE),
    other("v6 fragments too big for the path", ECHO_REPLY_V6, "it leaves in fragments that fit every link"),
];

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
        EXCEPTIONS.iter().find(|row| row.case == case.name)
    }
}

/// Looks up whether differences are allowed, and records which rows were needed.
#[derive(Default)]
pub struct Register([bool; DIFFERENCES.len()]);

impl Register {
    pub fn allows(&mut self, about: About, field: &str, case: &Case) -> bool {
        let row = |row: &Difference| row.about.contains(&about) && row.field == field && case.name.contains(row.within);
        let found = DIFFERENCES.iter().position(row);
        found.inspect(|row| self.0[*row] = true).is_some()
    }

    /// The rows that no case needed.
    pub fn unused(&self) -> impl Iterator<Item = String> {
        let unused = DIFFERENCES.iter().zip(&self.0).filter(|(_, used)| !**used);
        unused.map(|(Difference { about, field, within, reason }, _)| {
            format!("allowed, but equal: {about:?}: {field} in {within:?}: {reason}")
        })
    }
}
