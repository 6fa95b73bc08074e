//! Examines the machine without changing it.

use std::fs::OpenOptions;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use pingferry::Family;
use pingferry_sys::diagnosis::Situation;
use pingferry_sys::namespace::isolate;
use pingferry_sys::netlink::AddressMonitor;
use pingferry_sys::ping::{PingSocket, SocketOptions};
use pingferry_sys::preflight;
use pingferry_sys::process::in_child;
use rustix::io::Errno;

use super::report::{
    Admission, Descriptors, Environment, KernelError, Permission, Reach, Report, TunDevice, UserNamespaces,
};
use crate::exec;

/// Examines the machine. The process must have one thread.
pub(super) fn report() -> Report {
    let situation = Situation::detect();
    let (tun, user_namespaces) = (tun_device(&situation), user_namespaces(&situation));
    Report {
        ipv4: reach(Family::V4),
        ipv6: reach(Family::V6),
        permission: permission(&situation),
        descriptors: descriptors(),
        exec: exec(&tun, &user_namespaces),
        tun,
        user_namespaces,
        environment: Environment::of(&situation),
        situation,
    }
}

fn reach(family: Family) -> Reach {
    let options = SocketOptions::new(family).with_receive_buffer(1 << 16);
    Reach {
        socket: PingSocket::open(&options).map(drop).map_err(Into::into),
        source: preflight::default_source_address(family).map_err(Into::into),
        has_network: has_network(family),
    }
}

/// Whether this host has an address of the family that is valid beyond its links, and so a network whose hosts it reaches
/// without a default route.
fn has_network(family: Family) -> bool {
    let own = AddressMonitor::open().and_then(|mut monitor| monitor.addresses()).unwrap_or_default().own;
    own.into_iter().any(|address| match address {
        _ if Family::of(address) != family || address.is_loopback() => false,
        IpAddr::V4(address) => !address.is_link_local(),
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    })
}

fn permission(situation: &Situation) -> Permission {
    let groups = &situation.groups;
    let admission =
        |range: preflight::GroupRange| Admission { low: range.low, high: range.high, admits: range.admits(groups) };
    Permission {
        every_gid_exists: situation.gids.has_every_gid(),
        effective_gid: groups.effective,
        supplementary_gids: groups.supplementary.clone(),
        ping_group_range: preflight::ping_group_range().map(admission).map_err(Into::into),
    }
}

fn descriptors() -> Descriptors {
    let limit = preflight::descriptor_limit();
    let limited = |descriptors| Some(descriptors).filter(|count| *count != u64::MAX);
    Descriptors { soft: limited(limit.soft), hard: limited(limit.hard) }
}

/// A device is not created, because other programs of the host would notice it.
fn tun_device(situation: &Situation) -> TunDevice {
    let device = Path::new("/dev/net/tun");
    let open = OpenOptions::new().read(true).write(true).open(device).map(drop).map_err(KernelError::from);
    let create = match &open {
        Err(error) => Err(error.clone()),
        Ok(()) if situation.can_create_devices() => Ok(()),
        Ok(()) => Err(io::Error::from(Errno::PERM).into()),
    };
    TunDevice { exists: device.exists(), open, create }
}

fn user_namespaces(situation: &Situation) -> UserNamespaces {
    UserNamespaces {
        create: create_user_namespace().map_err(Into::into),
        max_user_namespaces: situation.max_user_namespaces,
        unprivileged_userns_clone: situation.unprivileged_userns_clone,
        apparmor_restrict_unprivileged_userns: situation.apparmor_restrict_unprivileged_userns,
    }
}

/// Starts a child in a new user and network namespace, which end with it. It does not matter what the child does: it
/// starts only if the namespaces could be created.
fn create_user_namespace() -> io::Result<()> {
    let mut child = Command::new("/proc/self/exe");
    child.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    isolate(&mut child).status().map(drop)
}

/// Whether `exec` works: does in a child what `exec` does, if what it needs is there.
fn exec(tun: &TunDevice, user_namespaces: &UserNamespaces) -> Result<(), KernelError> {
    user_namespaces.create.clone()?;
    tun.open.clone()?;
    let open = || exec::open_network().map(|(tun, mtu)| (vec![tun.into()], mtu));
    in_child(open).map(drop).map_err(Into::into)
}
