//! Where a process runs, as far as it matters for what it may do.

use std::fs::{self, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::{getegid, geteuid, getpid};
use rustix::thread::{CapabilitySet, capabilities};

use super::container::{Container, unit};
use crate::preflight::{GroupRange, Groups, PING_GROUP_RANGE, groups, ping_group_range};

/// Where a process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Situation {
    /// The container.
    pub container: Option<Container>,
    /// The systemd unit whose program the process is.
    pub unit: Option<String>,
    /// The effective user ID.
    pub user: u32,
    /// The groups.
    pub groups: Groups,
    /// `net.ipv4.ping_group_range`, or `None` where it cannot be read.
    pub ping_group_range: Option<GroupRange>,
    /// The groups of the user namespace.
    pub gids: GidMap,
    /// Whether the network namespace belongs to the user namespace of the process, which thus can be allowed to change it.
    pub owns_network: bool,
    /// Whether the process has `CAP_NET_ADMIN` in its user namespace.
    pub has_net_admin: bool,
    /// Whether the process can set `net.ipv4.ping_group_range` itself.
    pub can_set_range: bool,
    /// `user.max_user_namespaces`; 0 forbids.
    pub max_user_namespaces: Option<u64>,
    /// `kernel.unprivileged_userns_clone` of Debian's kernels; 0 forbids.
    pub unprivileged_userns_clone: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns` of Ubuntu's kernels; 1 removes all rights inside.
    pub apparmor_restrict_unprivileged_userns: Option<u64>,
}

impl Situation {
    /// A plain host, with every group, as this user and group. No group may open ping sockets.
    pub fn of_host(user: u32, group: u32) -> Self {
        Self {
            container: None,
            unit: None,
            user,
            groups: Groups { effective: group, supplementary: Vec::new() },
            ping_group_range: Some(GroupRange { low: 1, high: 0 }),
            gids: GidMap(vec![(0, 0, u32::MAX)]),
            owns_network: true,
            has_net_admin: user == 0,
            can_set_range: user == 0,
            max_user_namespaces: None,
            unprivileged_userns_clone: None,
            apparmor_restrict_unprivileged_userns: None,
        }
    }

    /// That of this process. What cannot be read is as on a plain host.
    pub fn detect() -> Self {
        let (user, group) = (geteuid().as_raw(), getegid().as_raw());
        let (root, variable) = (Path::new("/"), |name: &str| std::env::var(name).ok());
        let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
        Self {
            container: Container::detect(root, variable),
            unit: unit(root, getpid().as_raw_pid().unsigned_abs(), variable),
            groups: groups().unwrap_or_else(|_| Groups { effective: group, supplementary: Vec::new() }),
            ping_group_range: ping_group_range().ok(),
            gids: GidMap::of_process(),
            owns_network: owns_network(),
            has_net_admin: effective.contains(CapabilitySet::NET_ADMIN),
            can_set_range: OpenOptions::new().write(true).open(PING_GROUP_RANGE).is_ok(),
            max_user_namespaces: sysctl("user/max_user_namespaces"),
            unprivileged_userns_clone: sysctl("kernel/unprivileged_userns_clone"),
            apparmor_restrict_unprivileged_userns: sysctl("kernel/apparmor_restrict_unprivileged_userns"),
            ..Self::of_host(user, group)
        }
    }

    /// Whether the process may create devices in its network namespace (`tun_set_iff` in drivers/net/tun.c).
    pub fn can_create_devices(&self) -> bool {
        self.has_net_admin && self.owns_network
    }

    /// Whether `net.ipv4.ping_group_range` can be the reason why a ping socket was denied. Ends that do not exist in the user
    /// namespace cannot be compared.
    pub fn range_refuses(&self) -> bool {
        let admits = |range: GroupRange| range.admits(&self.groups) && !self.is_foreign(range);
        !self.ping_group_range.is_some_and(admits)
    }

    /// Whether the kernel shows numbers in the place of ends that do not exist in the user namespace
    /// (`from_kgid_munged` in kernel/user_namespace.c).
    pub(super) fn is_foreign(&self, range: GroupRange) -> bool {
        const OVERFLOW: [u32; 2] = [65_534, 4_294_967_294];
        !self.gids.has_every_gid() && [range.low, range.high].iter().any(|end| OVERFLOW.contains(end))
    }
}

/// The groups of a user namespace: the first inside, the first outside and the number of each line of `gid_map`
/// (user_namespaces(7)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GidMap(Vec<(u32, u32, u32)>);

impl GidMap {
    /// That of this process. A kernel without user namespaces has none; every group exists there.
    fn of_process() -> Self {
        fs::read_to_string("/proc/self/gid_map").map_or(Self(vec![(0, 0, u32::MAX)]), |text| Self::parse(&text))
    }

    /// Parses the text of `gid_map`. Other lines are left out.
    pub fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let mut numbers = line.split_whitespace().map_while(|word| word.parse().ok());
            Some((numbers.next()?, numbers.next()?, numbers.next()?))
        };
        Self(text.lines().filter_map(line).collect())
    }

    fn outside(&self, gid: u32) -> Option<u64> {
        self.0.iter().find_map(|(inside, outside, count)| {
            let offset = gid.checked_sub(*inside).filter(|offset| offset < count)?;
            Some(u64::from(*outside) + u64::from(offset))
        })
    }

    /// Whether both ends of the range of all groups, 0 and 2147483647, exist.
    pub fn has_every_gid(&self) -> bool {
        self.outside(0).is_some() && self.outside(EVERY_GROUP.high).is_some()
    }

    /// The widest range that a process of this user namespace can set and that admits `gid`: of all groups, of those that an
    /// unprivileged container has, or of this one. The kernel refuses with `EINVAL` a range whose ends do not exist in the
    /// writer's user namespace, and compares groups by their numbers outside of it (`ipv4_ping_group_range` in
    /// net/ipv4/sysctl_net_ipv4.c).
    pub fn widest_range(&self, gid: u32) -> GroupRange {
        let admits = |range: &GroupRange| {
            let ends = self.outside(range.low).zip(self.outside(range.high)).zip(self.outside(gid));
            ends.is_some_and(|((low, high), gid)| (low..=high).contains(&gid))
        };
        let ranges = [EVERY_GROUP, GroupRange { low: 0, high: 65_535 }];
        ranges.into_iter().find(admits).unwrap_or(GroupRange { low: gid, high: gid })
    }
}

/// The widest range of all (`GID_T_MAX` in net/ipv4/sysctl_net_ipv4.c).
pub(super) const EVERY_GROUP: GroupRange = GroupRange { low: 0, high: 2_147_483_647 };

fn sysctl(path: &str) -> Option<u64> {
    fs::read_to_string(Path::new("/proc/sys").join(path)).ok()?.trim().parse().ok()
}

/// Whether the network namespace of this process belongs to its user namespace. The kernel does not name the owner if that is
/// no descendant of the own one (ioctl_ns(2)). Where nothing can be found out, it is taken for granted.
fn owns_network() -> bool {
    let Ok(network) = fs::File::open("/proc/self/ns/net") else { return true };
    // SAFETY: NS_GET_USERNS takes no argument, and the descriptor is open.
    let owner = unsafe { libc::ioctl(network.as_raw_fd(), libc::NS_GET_USERNS) };
    if owner < 0 {
        return std::io::Error::last_os_error().raw_os_error() != Some(libc::EPERM);
    }
    // SAFETY: the kernel has just opened this descriptor, so nothing else owns it.
    let owner = fs::File::from(unsafe { OwnedFd::from_raw_fd(owner) });
    match (owner.metadata(), fs::metadata("/proc/self/ns/user")) {
        (Ok(owner), Ok(own)) => (owner.dev(), owner.ino()) == (own.dev(), own.ino()),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_range_has_ends_that_exist() {
        for (map, gid, range) in [
            ("         0          0 4294967295\n", 1000, (0, 2_147_483_647)),
            // Rootless Podman: the user's own group, and those of /etc/subgid.
            ("0 1000 1\n1 100000 65536\n", 65_534, (0, 65_535)),
            ("0 1000 1\n1 100000 65536\n", 0, (0, 65_535)),
            // LXC.
            ("0 100000 65536\n", 1000, (0, 65_535)),
            // The kernel compares the numbers outside, where 0 is behind the others.
            ("0 200000 1\n1 100000 65536\n", 65_534, (65_534, 65_534)),
            // `unshare -rn`, and exec.
            ("0 1000 1\n", 0, (0, 0)),
            ("1000 1000 1\n", 1000, (1000, 1000)),
            ("0 1000 1\n1 100000 4294000000\n", 7, (0, 2_147_483_647)),
        ] {
            let (low, high) = range;
            assert_eq!(GidMap::parse(map).widest_range(gid), GroupRange { low, high }, "{map}");
        }
    }

    #[test]
    fn only_a_map_of_all_groups_has_every_group() {
        for (map, has) in [
            ("         0          0 4294967295\n", true),
            ("0 1000 1\n1 100000 4294000000\n", true),
            ("0 1000 1\n", false),
            ("0 1000 1\n1 100000 65536\n", false),
            ("1000 1000 4000000000\n", false),
            ("", false),
        ] {
            assert_eq!(GidMap::parse(map).has_every_gid(), has, "{map}");
        }
    }
}
