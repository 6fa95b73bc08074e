//! Checks before the first ping: who may open a ping socket, the source address, and the limit of descriptors.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::str::FromStr;

use pingferry_proto::Family;
use rustix::process::{self, Resource, Rlimit};

use crate::error_context::with_context;

/// One sysctl for both families, separate for each network namespace.
pub(crate) const PING_GROUP_RANGE: &str = "/proc/sys/net/ipv4/ping_group_range";

/// The port of the discard service (RFC 863). A UDP socket connects to it and sends nothing.
const DISCARD: u16 = 9;

/// The groups that may open ping sockets: `net.ipv4.ping_group_range`
/// (`Documentation/networking/ip-sysctl.rst`).
///
/// # Examples
///
/// ```
/// use pingferry_sys::preflight::{GroupRange, Groups};
///
/// let range: GroupRange = "0\t2147483647\n".parse()?;
/// assert_eq!(range, GroupRange { low: 0, high: 2_147_483_647 });
/// assert!(range.contains(1000));
///
/// // A new network namespace starts with an empty range.
/// let nobody: GroupRange = "1\t0\n".parse()?;
/// assert!(!nobody.admits(&Groups { effective: 0, supplementary: vec![1] }));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupRange {
    /// The first group.
    pub low: u32,
    /// The last group. When it is less than `low`, no process may open a ping socket, not even one of root.
    pub high: u32,
}

impl GroupRange {
    /// Whether the group `gid` is in the range. Both ends belong to it.
    pub fn contains(&self, gid: u32) -> bool {
        (self.low..=self.high).contains(&gid)
    }

    /// Whether a process with these groups may open ping sockets: its effective group or any supplementary group is in
    /// the range. No capability replaces that (`ping_init_sock` in `net/ipv4/ping.c`).
    pub fn admits(&self, groups: &Groups) -> bool {
        self.contains(groups.effective) || groups.supplementary.iter().any(|&gid| self.contains(gid))
    }
}

impl FromStr for GroupRange {
    type Err = io::Error;

    /// Parses the text of the sysctl: two unsigned numbers. An end that is not mapped into the user namespace of the
    /// reader is shown as 65534 or 4294967294.
    ///
    /// # Errors
    ///
    /// `InvalidData` for any other text.
    fn from_str(text: &str) -> io::Result<Self> {
        let mut words = text.split_whitespace().map(str::parse);
        match (words.next(), words.next(), words.next()) {
            (Some(Ok(low)), Some(Ok(high)), None) => Ok(Self { low, high }),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("not a range of group IDs: {text:?}"))),
        }
    }
}

/// The groups that may open ping sockets in the calling thread's network namespace.
///
/// # Errors
///
/// `ENOENT` where `/proc` is not mounted, or any other error of reading the sysctl.
///
/// # Examples
///
/// ```
/// use pingferry_sys::preflight::{groups, ping_group_range};
///
/// let permitted = ping_group_range()?.admits(&groups()?);
/// println!("this process may open ping sockets: {permitted}");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn ping_group_range() -> io::Result<GroupRange> {
    std::fs::read_to_string(PING_GROUP_RANGE)
        .and_then(|text| text.parse())
        .map_err(|error| with_context(error, format!("read {PING_GROUP_RANGE}")))
}

/// The groups of a process, as numbers of its user namespace (credentials(7)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    /// The effective group ID.
    pub effective: u32,
    /// The supplementary group IDs.
    pub supplementary: Vec<u32>,
}

/// The groups of this process.
///
/// # Errors
///
/// Those of getgroups(2).
pub fn groups() -> io::Result<Groups> {
    let supplementary = process::getgroups()?.into_iter().map(rustix::process::Gid::as_raw).collect();
    Ok(Groups { effective: process::getegid().as_raw(), supplementary })
}

/// The source address that the kernel's routing chooses for packets to `destination`. Sends no packet: connecting a UDP
/// socket looks up the route (ip(7)).
///
/// # Errors
///
/// `ENETUNREACH` or `EHOSTUNREACH` when there is no route, `EAFNOSUPPORT` or `EADDRNOTAVAIL` when the host lacks that
/// address family.
///
/// # Examples
///
/// ```
/// use std::net::{IpAddr, Ipv4Addr};
///
/// use pingferry_sys::preflight::source_address;
///
/// let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// assert_eq!(source_address(loopback)?, loopback);
/// # Ok::<(), std::io::Error>(())
/// ```
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

/// The [`source_address`] for packets to the Internet. The destination is an address of a documentation prefix
/// (RFC 5737, RFC 3849), which the default route covers.
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

/// How many descriptors the process can have open (`RLIMIT_NOFILE`, getrlimit(2)). `u64::MAX` means no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorLimit {
    /// The limit in force.
    pub soft: u64,
    /// The value to which the process can raise the soft limit.
    pub hard: u64,
}

/// The limit of descriptors of this process.
///
/// # Examples
///
/// ```
/// use pingferry_sys::preflight::descriptor_limit;
///
/// let limit = descriptor_limit();
/// assert!(limit.soft <= limit.hard);
/// ```
pub fn descriptor_limit() -> DescriptorLimit {
    let limit = process::getrlimit(Resource::Nofile);
    DescriptorLimit { soft: limit.current.unwrap_or(u64::MAX), hard: limit.maximum.unwrap_or(u64::MAX) }
}

/// How many descriptors this process has open.
///
/// # Errors
///
/// `ENOENT` where `/proc` is not mounted.
pub fn open_descriptors() -> io::Result<u64> {
    let list = std::fs::read_dir("/proc/self/fd").map_err(|error| with_context(error, "count the open descriptors"))?;
    // The list has the descriptor that reads it.
    Ok(list.count().saturating_sub(1) as u64)
}

/// Raises the soft limit of descriptors to the hard limit. Returns the limits then in force.
///
/// # Errors
///
/// Those of setrlimit(2).
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
    fn both_ends_belong_to_a_range_and_no_group_to_an_empty_one() {
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
    fn an_open_descriptor_is_counted() {
        let before = open_descriptors().unwrap();
        let files: Vec<_> = (0..100).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        // Other tests open and close some meanwhile.
        assert!(open_descriptors().unwrap() > before + 50);
        drop(files);
    }

    #[test]
    fn raising_sets_the_soft_limit_to_the_hard_one() {
        let before = descriptor_limit();
        let after = raise_descriptor_limit().unwrap();
        assert_eq!(after, DescriptorLimit { soft: before.hard, hard: before.hard });
    }
}
