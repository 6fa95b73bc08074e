//! What to look at before any ping: who may open a ping socket, from which address, and how many.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::str::FromStr;

use pingferry_proto::Family;
use rustix::process::{self, Resource, Rlimit};

use crate::error_context::with_context;

/// The sysctl for both families, per network namespace.
const PING_GROUP_RANGE: &str = "/proc/sys/net/ipv4/ping_group_range";

/// The discard service: a UDP port for a socket that never sends (RFC 863).
const DISCARD: u16 = 9;

/// The groups that may open ping sockets, `low` to `high` (`Documentation/networking/ip-sysctl.rst`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupRange {
    /// First group.
    pub low: u32,
    /// Last group. Below `low` nobody may, not even root: that is the `1 0` of a new network namespace.
    pub high: u32,
}

impl GroupRange {
    /// Whether members of the group `gid` may open ping sockets.
    pub fn contains(&self, gid: u32) -> bool {
        (self.low..=self.high).contains(&gid)
    }

    /// Whether a process with these groups may: its effective or any supplementary one is in the range.
    pub fn admits(&self, groups: &Groups) -> bool {
        self.contains(groups.effective) || groups.supplementary.iter().any(|&gid| self.contains(gid))
    }
}

impl FromStr for GroupRange {
    type Err = io::Error;

    /// Parses the sysctl's text. Groups are unsigned: an end that is not mapped into the user namespace reads as
    /// 65534 or 4294967294.
    fn from_str(text: &str) -> io::Result<Self> {
        let mut words = text.split_whitespace().map(str::parse);
        match (words.next(), words.next(), words.next()) {
            (Some(Ok(low)), Some(Ok(high)), None) => Ok(Self { low, high }),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("not a range of groups: {text:?}"))),
        }
    }
}

/// The range of this network namespace.
///
/// # Errors
///
/// Those of reading the sysctl, which is missing where `/proc` is not mounted.
pub fn ping_group_range() -> io::Result<GroupRange> {
    std::fs::read_to_string(PING_GROUP_RANGE)
        .and_then(|text| text.parse())
        .map_err(|error| with_context(error, format!("read {PING_GROUP_RANGE}")))
}

/// The groups of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    /// The effective group.
    pub effective: u32,
    /// The supplementary groups.
    pub supplementary: Vec<u32>,
}

/// The groups of this process.
///
/// # Errors
///
/// Those of `getgroups`.
pub fn groups() -> io::Result<Groups> {
    let supplementary = process::getgroups()?.into_iter().map(rustix::process::Gid::as_raw).collect();
    Ok(Groups { effective: process::getegid().as_raw(), supplementary })
}

/// The source address that the kernel's routing chooses toward `destination`. No packet leaves.
///
/// # Errors
///
/// `ENETUNREACH` and the like when there is no route, `EAFNOSUPPORT` and `EADDRNOTAVAIL` without that family.
pub fn source_address(destination: IpAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match destination {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let probe = || {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((destination, DISCARD))?;
        socket.local_addr()
    };
    probe()
        .map(|address: SocketAddr| address.ip())
        .map_err(|error| with_context(error, format!("find the source address toward {destination}")))
}

/// [`source_address`] toward the Internet at large, for which an address of the documentation prefixes stands
/// (RFC 5737, RFC 3849).
///
/// # Errors
///
/// As for [`source_address`].
pub fn default_source_address(family: Family) -> io::Result<IpAddr> {
    source_address(match family {
        Family::V4 => Ipv4Addr::new(192, 0, 2, 1).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    })
}

/// How many descriptors the process can have; no limit is `u64::MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorLimit {
    /// In force now.
    pub soft: u64,
    /// To what the process can raise it.
    pub hard: u64,
}

/// The limit of descriptors (`RLIMIT_NOFILE`).
pub fn descriptor_limit() -> DescriptorLimit {
    let limit = process::getrlimit(Resource::Nofile);
    DescriptorLimit { soft: limit.current.unwrap_or(u64::MAX), hard: limit.maximum.unwrap_or(u64::MAX) }
}

/// Raises the soft limit of descriptors to the hard one, and returns what is in force then.
///
/// # Errors
///
/// Those of `setrlimit`.
pub fn raise_descriptor_limit() -> io::Result<DescriptorLimit> {
    let maximum = process::getrlimit(Resource::Nofile).maximum;
    process::setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .map_err(|error| with_context(error, "raise the limit of descriptors"))?;
    Ok(descriptor_limit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> GroupRange {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_is_two_unsigned_numbers() {
        assert_eq!(range("1\t0\n"), GroupRange { low: 1, high: 0 });
        assert_eq!(range("0\t2147483647\n"), GroupRange { low: 0, high: 2_147_483_647 });
        assert_eq!(range("65534\t4294967294\n"), GroupRange { low: 65_534, high: 4_294_967_294 });
        for text in ["", "\n", "1", "1 2 3", "-1 2", "1 4294967296", "a b"] {
            assert!(text.parse::<GroupRange>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn both_ends_belong_to_a_range_and_nobody_to_an_empty_one() {
        let ends = [99, 100, 200, 201].map(|gid| range("100 200").contains(gid));
        assert_eq!(ends, [false, true, true, false]);
        assert!([0, 1, u32::MAX].iter().all(|&gid| !range("1 0").contains(gid)));
    }

    #[test]
    fn a_supplementary_group_is_enough() {
        let groups = |effective, supplementary: &[u32]| Groups { effective, supplementary: supplementary.to_vec() };
        assert!(range("10 20").admits(&groups(15, &[])));
        assert!(range("10 20").admits(&groups(0, &[5, 20])));
        assert!(!range("10 20").admits(&groups(0, &[5, 21])));
    }

    #[test]
    fn raising_brings_the_soft_limit_to_the_hard_one() {
        let before = descriptor_limit();
        let after = raise_descriptor_limit().unwrap();
        assert_eq!(after, DescriptorLimit { soft: before.hard, hard: before.hard });
    }
}
