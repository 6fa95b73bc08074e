//! What helps in each row of the table, as far as it depends on the situation.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use rustix::io::Errno;

use super::container::Container;
use super::remedy::{Given, How, Remedy, instead, now, now_and_at_boot, set, sysctl};
use super::situation::{EVERY_GROUP, Situation};

const PING_GROUP_RANGE: &str = "net.ipv4.ping_group_range";

/// Lets the process open ping sockets.
pub(super) fn ping_group_range(at: &Situation) -> Vec<Remedy> {
    let text = |low, high| format!("{low} {high}");
    let gid = at.groups.effective;
    let widest = at.gids.widest_range(gid);
    let (widest, every) = (text(widest.low, widest.high), text(EVERY_GROUP.low, EVERY_GROUP.high));
    // With the network of the host, what a container is started with does not count.
    if !at.owns_network {
        return vec![Remedy::new(How::OnHost, set(PING_GROUP_RANGE, &every))];
    }
    let option = format!("--sysctl {PING_GROUP_RANGE}=\"{widest}\"");
    let given = Given {
        docker: &option,
        podman: &option,
        // Kubernetes has this sysctl in its safe set since 1.18, so the node does not have to allow it.
        pod: &format!("securityContext: {{sysctls: [{{name: {PING_GROUP_RANGE}, value: \"{widest}\"}}]}}"),
        lxc: &format!("lxc.sysctl.{PING_GROUP_RANGE} = {widest}"),
    };
    if at.container.is_none() && at.gids.has_every_gid() {
        let mut remedies = sysctl(PING_GROUP_RANGE, &widest);
        remedies.insert(1, Remedy::new(How::NowForOneGroup, set(PING_GROUP_RANGE, &text(gid, gid))));
        return remedies;
    }
    // Root of a network of its own can set it there, until the network ends.
    let is_own = at.container.is_none() || at.can_set_range;
    let mut remedies = if is_own { now(set(PING_GROUP_RANGE, &widest)) } else { Vec::new() };
    remedies.extend(given.to(at.container));
    if !is_own {
        let command = format!("{}  # with the network of the host", set(PING_GROUP_RANGE, &every));
        remedies.push(Remedy::new(How::OnHost, command));
    }
    remedies
}

/// Gives TUN devices to a container.
pub(super) fn give_tun(at: &Situation) -> Vec<Remedy> {
    let given = Given {
        docker: "--device /dev/net/tun",
        podman: "--device /dev/net/tun",
        // A pod has no devices without a device plugin, unless it is privileged.
        pod: "securityContext: {privileged: true}",
        lxc: "lxc.cgroup2.devices.allow = c 10:200 rwm, and: \
              lxc.mount.entry = /dev/net/tun dev/net/tun none bind,create=file",
    };
    given.to(at.container)
}

pub(super) fn tun_in_unit() -> Vec<Remedy> {
    vec![Remedy::new(How::Unit, "PrivateDevices=no DeviceAllow=/dev/net/tun rw")]
}

/// Lets every user open `/dev/net/tun`, as most distributions do. A container has the mode of the host.
pub(super) fn tun_mode(at: &Situation) -> Vec<Remedy> {
    let command = "chmod 666 /dev/net/tun";
    if at.container.is_some() {
        return vec![Remedy::new(How::OnHost, command)];
    }
    now_and_at_boot(command, r#"KERNEL=="tun", MODE="0666""#, "/etc/udev/rules.d/60-pingferry.rules")
}

/// Creates a device that a user can attach to with so many queues.
pub(super) fn add_tun(name: &str, user: u32, queues: usize) -> String {
    let multi_queue = if queues > 1 { " multi_queue" } else { "" };
    format!("ip tuntap add dev {name} mode tun{multi_queue} user {user} && ip link set {name} up")
}

/// Lets root make a device for the user. Root of a container cannot either, except for that of LXC.
pub(super) fn made_by_root(name: &str, at: &Situation) -> Vec<Remedy> {
    let has_root = matches!(at.container, None | Some(Container::Lxc));
    if has_root { now(add_tun(name, at.user, 1)) } else { Vec::new() }
}

/// Creates such a device in the place of another one.
pub(super) fn replace(name: &str, user: u32, queues: usize) -> String {
    format!("ip link delete {name} && {}", add_tun(name, user, queues))
}

/// Lets the process enter a namespace that belongs to `owner`.
pub(super) fn enter(owner: Option<u32>, at: &Situation) -> Vec<Remedy> {
    if at.unit.is_some() {
        let lines = "AmbientCapabilities=CAP_SYS_ADMIN CapabilityBoundingSet=CAP_SYS_ADMIN RestrictNamespaces=no";
        return vec![Remedy::new(How::Unit, lines)];
    }
    instead(match owner {
        Some(user) => format!("run pingferry as user {user}: sudo -u '#{user}' pingferry …"),
        None => "run pingferry as root, or as the user who created it".into(),
    })
}

/// Why namespaces cannot be created, and what allows it.
pub(super) fn create_namespaces(errno: Errno, at: &Situation) -> (&'static str, Vec<Remedy>) {
    let forbidding = [
        (at.max_user_namespaces == Some(0), "user.max_user_namespaces", "15000"),
        (at.unprivileged_userns_clone == Some(0), "kernel.unprivileged_userns_clone", "1"),
        (at.apparmor_restrict_unprivileged_userns == Some(1), "kernel.apparmor_restrict_unprivileged_userns", "0"),
    ];
    let forbidding = forbidding.into_iter().filter(|(forbids, ..)| *forbids);
    let mut remedies: Vec<Remedy> = forbidding.flat_map(|(_, name, value)| sysctl(name, value)).collect();
    if !remedies.is_empty() {
        if at.container.is_some() {
            remedies.retain(|remedy| remedy.how == How::Now);
            remedies.iter_mut().for_each(|remedy| remedy.how = How::OnHost);
        }
        return ("user namespaces are turned off", remedies);
    }
    if matches!(errno, Errno::NOSPC | Errno::USERS) {
        let cause = "a limit of namespaces is reached";
        return (cause, instead("to see the limits, run: sysctl user.max_user_namespaces user.max_net_namespaces"));
    }
    if at.unit.is_some() {
        return ("the unit does not allow namespaces", vec![Remedy::new(How::Unit, "RestrictNamespaces=no")]);
    }
    let given = Given {
        docker: "--security-opt seccomp=unconfined",
        podman: "--security-opt seccomp=unconfined",
        pod: "securityContext: {seccompProfile: {type: Unconfined}}",
        lxc: "lxc.include = /usr/share/lxc/config/nesting.conf",
    };
    ("a security module, a seccomp filter or a chroot does not allow user namespaces", given.to(at.container))
}

/// Lets a container write sysctls of its network.
pub(super) fn writable_sysctls(at: &Situation) -> Vec<Remedy> {
    if at.unit.is_some() {
        return vec![Remedy::new(How::Unit, "ProtectKernelTunables=no")];
    }
    let given = Given {
        docker: "--security-opt systempaths=unconfined",
        podman: "--security-opt unmask=/proc/sys",
        pod: "securityContext: {procMount: Unmasked}",
        lxc: "lxc.mount.auto = proc:rw",
    };
    given.to(at.container)
}

pub(super) fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(super) fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}
