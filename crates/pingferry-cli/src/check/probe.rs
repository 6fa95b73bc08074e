//! Examines the machine without changing it.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use pingferry::Family;
use pingferry_sys::namespace::isolate;
use pingferry_sys::ping::{PingSocket, SocketOptions};
use pingferry_sys::preflight::{self, Groups};

use super::report::{Admission, Descriptors, Permission, Reach, Report, TunDevice, UserNamespaces};

pub(super) fn report() -> Report {
    Report {
        ipv4: reach(Family::V4),
        ipv6: reach(Family::V6),
        permission: permission(),
        descriptors: descriptors(),
        tun: tun_device(),
        user_namespaces: user_namespaces(),
    }
}

fn reach(family: Family) -> Reach {
    let options = SocketOptions::new(family).with_receive_buffer(1 << 16);
    Reach {
        socket: PingSocket::open(&options).map(drop).map_err(Into::into),
        source: preflight::default_source_address(family).map_err(Into::into),
    }
}

pub(super) fn permission() -> Permission {
    let groups = preflight::groups().unwrap_or_else(|_of_supplementary| Groups {
        effective: rustix::process::getegid().as_raw(),
        supplementary: Vec::new(),
    });
    let admission =
        |range: preflight::GroupRange| Admission { low: range.low, high: range.high, admits: range.admits(&groups) };
    let ping_group_range = preflight::ping_group_range().map(admission).map_err(Into::into);
    Permission {
        // A kernel without user namespaces has no map; every group exists there.
        every_gid_exists: fs::read_to_string("/proc/self/gid_map").map_or(true, |map| has_every_gid(&map)),
        effective_gid: groups.effective,
        supplementary_gids: groups.supplementary,
        ping_group_range,
    }
}

/// Whether both ends of the range of all groups, 0 and 2147483647, are in a `gid_map`. Its lines have the first group
/// inside, the first group outside, and the number of groups (user_namespaces(7)).
fn has_every_gid(map: &str) -> bool {
    let has = |gid: u64| {
        map.lines().any(|line| {
            let mut numbers = line.split_whitespace().map_while(|word| word.parse::<u64>().ok());
            matches!((numbers.next(), numbers.nth(1)), (Some(first), Some(count))
                if (first..first.saturating_add(count)).contains(&gid))
        })
    };
    has(0) && has(2_147_483_647)
}

fn descriptors() -> Descriptors {
    let limit = preflight::descriptor_limit();
    let limited = |descriptors| Some(descriptors).filter(|count| *count != u64::MAX);
    Descriptors { soft: limited(limit.soft), hard: limited(limit.hard) }
}

fn tun_device() -> TunDevice {
    let device = Path::new("/dev/net/tun");
    let opened = OpenOptions::new().read(true).write(true).open(device);
    TunDevice { exists: device.exists(), open: opened.map(drop).map_err(Into::into) }
}

fn user_namespaces() -> UserNamespaces {
    UserNamespaces {
        create: create_user_namespace().map_err(Into::into),
        max_user_namespaces: sysctl("/proc/sys/user/max_user_namespaces"),
        unprivileged_userns_clone: sysctl("/proc/sys/kernel/unprivileged_userns_clone"),
        apparmor_restrict_unprivileged_userns: sysctl("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
    }
}

/// Starts a child in a new user and network namespace, which end with it. It does not matter what the child does: it
/// starts only if the namespaces could be created.
fn create_user_namespace() -> io::Result<()> {
    let mut child = Command::new("/proc/self/exe");
    child.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    isolate(&mut child).status().map(drop)
}

fn sysctl(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_map_of_all_groups_has_every_group() {
        assert!(has_every_gid("         0          0 4294967295\n"));
        assert!(has_every_gid("0 1000 1\n1 100000 4294000000\n"));
        assert!(!has_every_gid("0 1000 1\n"));
        assert!(!has_every_gid("0 1000 1\n1 100000 65536\n"));
        assert!(!has_every_gid("1000 1000 4000000000\n"));
        assert!(!has_every_gid(""));
    }
}
