//! UDP and TCP probes: what traceroute and its kin send besides echo requests.
//!
//! # Theory of operation
//!
//! A probe is a UDP datagram, or a TCP SYN, with a hop limit below [`PROBE_HOP_LIMIT`] when it arrives: somebody wants to learn
//! about the path. Whatever else uses UDP or TCP starts with a hop limit of 64 or more, and does not cross. So pingferry is
//! neither a UDP nor a TCP proxy.
//!
//! A *probe flow* has a socket of its own. For UDP it is what one client sends from one port, so that all its datagrams leave
//! from one port too, and routers that balance load by ports treat them alike. For TCP it is one SYN. A flow lives for seconds
//! after its last probe ([`IDLE_TIMEOUT`]).
//!
//! The kernel gives the destination of a UDP probe that an ICMP error quotes, and the quoted payload, but neither the quoted
//! header of IP nor that of UDP. A flow therefore remembers its newest probes, and the error is matched with one of them:
//!
//! - the destination's address and port are the probe's;
//! - where the whole payload is quoted, its length and checksum are the probe's;
//! - of several such probes it is the oldest that had no answer, because answers rarely overtake each other.
//!
//! The client receives the error with a quote of exactly the packet that it sent.
//!
//! A host may answer a UDP probe with datagrams. They must come from an address and port that was probed, and carry at most
//! [`AMPLIFICATION`] times as many bytes as the probes of the flow, so that a client that forges its source cannot make pingferry
//! flood it (RFC 9000 §8 has the same limit). A SYN is answered with a SYN and ACK or a RST.

pub(crate) mod table;

use std::time::Duration;

use crate::config::Rate;

/// Datagrams and SYNs with this hop limit on arrival, or a higher one, are no probes: 64 is the lowest initial value in use for
/// other traffic (RFC 1700, and Linux), and traceroute tries 30 hops by default.
pub const PROBE_HOP_LIMIT: u8 = 64;

/// How long a flow waits for an answer to its newest probe. Traceroute waits for 5 s, mtr for 10 s.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// How many probes a flow remembers: all that mtr and traceroute have in flight (30 hops, 3 probes each), and some.
pub(crate) const PROBES_PER_FLOW: usize = 128;

/// How many datagrams a UDP flow may send: enough for ten probes of each of 30 hops in a second.
pub(crate) const FLOW_RATE: Rate = Rate { per_second: 300, burst: 128 };

/// How many times the bytes that a UDP flow sent may be returned to it.
pub(crate) const AMPLIFICATION: u64 = 3;

/// A socket that sends the probes of one flow. Numbers are not used again for a long time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProbeSocketId(pub u32);
