//! The table: what was tried, the errno and the situation, and for each the cause and what helps.
//!
//! The first row that matches decides. A row without remedy is one that no command of this host can change.

use ipnet::IpNet;
use rustix::io::Errno;

use super::remedy::{How, Remedy, capability, instead, now, now_and_at_boot};
use super::situation::Situation;
use super::{Diagnosis, Operation, fixes};
use crate::netlink::DeviceKind;
use crate::preflight::GroupRange;

pub(super) fn look_up(operation: &Operation<'_>, errno: Errno, at: &Situation) -> Diagnosis {
    use Operation as O;
    match operation {
        O::OpenPingSocket | O::FindRoute => ping(operation, errno, at),
        O::OpenTunFile | O::CreateDevice(_) => tun(operation, errno, at),
        O::AttachDevice(name, kind, queues) => attach(name, *kind, *queues, errno, at),
        O::SetUp(_) | O::SetMtu(..) | O::AddAddress(..) | O::AddRoute(..) => configure(operation, errno, at),
        O::OpenNamespace(_) | O::EnterNamespace(_) | O::CreateNamespaces => namespace(operation, errno, at),
        O::SetSysctl => sysctl(errno, at),
        O::CreateFile(_) | O::ChangeGroup | O::ReadFile(_) | O::Listen(_) => file(operation, errno),
    }
}

fn ping(operation: &Operation<'_>, errno: Errno, at: &Situation) -> Diagnosis {
    use Operation as O;
    match (operation, errno) {
        (O::OpenPingSocket, Errno::ACCESS) if at.range_refuses() => Diagnosis::permission(
            format!("no group of this process is in net.ipv4.ping_group_range, which is {}", range(at)),
            fixes::ping_group_range(at),
        ),
        (O::OpenPingSocket, Errno::ACCESS | Errno::PERM) => Diagnosis::permission(
            "net.ipv4.ping_group_range admits this process, so a security module or a seccomp filter denied it",
            Vec::new(),
        ),
        (O::OpenPingSocket, Errno::AFNOSUPPORT) if at.unit.is_some() => Diagnosis::fault(
            "this host has no such address family, or the unit does not allow it",
            vec![Remedy::new(How::Unit, "RestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK AF_UNIX")],
        ),
        (O::OpenPingSocket, Errno::AFNOSUPPORT) => Diagnosis::fault("this host has no such address family", Vec::new()),
        (O::OpenPingSocket, Errno::PROTONOSUPPORT | Errno::PROTOTYPE) => {
            Diagnosis::fault("this kernel has no ping sockets", Vec::new())
        }
        (O::FindRoute, Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::ADDRNOTAVAIL) => {
            Diagnosis::fault("there is no default route", Vec::new())
        }
        (O::FindRoute, Errno::AFNOSUPPORT) => Diagnosis::fault("this host has no such address family", Vec::new()),
        _ => Diagnosis::unknown(errno),
    }
}

fn tun(operation: &Operation<'_>, errno: Errno, at: &Situation) -> Diagnosis {
    use Operation as O;
    match (operation, errno) {
        // The file can exist without the driver.
        (O::OpenTunFile, Errno::NOENT | Errno::NODEV | Errno::NXIO) if at.container.is_some() => {
            Diagnosis::fault("this container has no TUN devices", fixes::give_tun(at))
        }
        (O::OpenTunFile, Errno::NOENT) if at.unit.is_some() => Diagnosis::fault(
            "the driver of TUN devices is not loaded, or the unit hides the file",
            [now("modprobe tun"), fixes::tun_in_unit()].concat(),
        ),
        (O::OpenTunFile, Errno::NOENT | Errno::NODEV | Errno::NXIO) => Diagnosis::fault(
            "the driver of TUN devices is not loaded",
            now_and_at_boot("modprobe tun", "tun", "/etc/modules-load.d/pingferry.conf"),
        ),
        (O::OpenTunFile, Errno::ACCESS) => {
            Diagnosis::permission("the mode of /dev/net/tun does not let this user open it", fixes::tun_mode(at))
        }
        (O::OpenTunFile, Errno::PERM) if at.unit.is_some() => {
            Diagnosis::permission("the unit does not allow the device", fixes::tun_in_unit())
        }
        (O::OpenTunFile, Errno::PERM) => {
            Diagnosis::permission("the device was not given to this container or control group", fixes::give_tun(at))
        }
        (O::CreateDevice(_), Errno::NAMETOOLONG) => Diagnosis::fault("", instead("choose a name of at most 15 bytes")),
        (O::CreateDevice(name), Errno::PERM) if !at.owns_network => Diagnosis::permission(
            "the network belongs to the host, where only CAP_NET_ADMIN lets a process create devices",
            vec![Remedy::new(How::OnHost, fixes::add_tun(name, at.user, 1))],
        ),
        (O::CreateDevice(name), Errno::PERM) => Diagnosis::permission(
            "only CAP_NET_ADMIN lets a process create a device",
            [capability("NET_ADMIN", at), fixes::made_by_root(name, at)].concat(),
        ),
        _ => Diagnosis::unknown(errno),
    }
}

fn attach(name: &str, kind: DeviceKind, queues: usize, errno: Errno, at: &Situation) -> Diagnosis {
    let replaced = || now(fixes::replace(name, at.user, queues));
    match (errno, kind) {
        (_, DeviceKind::Tap) => {
            Diagnosis::fault("it is a TAP device, with Ethernet frames, and not a TUN device", replaced())
        }
        (_, DeviceKind::Other) => Diagnosis::fault(
            "it is another kind of device, and not a TUN device",
            instead("choose another name, which no device has: to list devices, run: ip link"),
        ),
        (Errno::PERM, DeviceKind::Tun { owner, .. }) => {
            let owner = owner.map_or("no user".into(), |owner| format!("user {owner}"));
            let cause = format!("the device belongs to {owner}, and this is user {}", at.user);
            Diagnosis::permission(cause, [replaced(), capability("NET_ADMIN", at)].concat())
        }
        (Errno::INVAL, DeviceKind::Tun { multi_queue: false, .. }) => Diagnosis::fault(
            format!("the device was made for one queue, and {queues} workers need one each"),
            replaced(),
        ),
        (Errno::BUSY | Errno::TOOBIG, _) => Diagnosis::fault(
            "another process serves the device",
            instead(format!("to see which, run: ip -details tuntap show dev {name}")),
        ),
        _ => Diagnosis::unknown(errno),
    }
}

fn configure(operation: &Operation<'_>, errno: Errno, at: &Situation) -> Diagnosis {
    use Operation as O;
    let command = match operation {
        O::SetUp(name) => format!("ip link set {name} up"),
        O::SetMtu(name, mtu) => format!("ip link set {name} mtu {mtu}"),
        O::AddAddress(name, address) => format!("ip address add {address} dev {name}"),
        O::AddRoute(name, network) => format!("ip {}route add {network} dev {name}", family(*network)),
        _ => return Diagnosis::unknown(errno),
    };
    match (operation, errno) {
        (_, Errno::PERM | Errno::ACCESS) => Diagnosis::permission(
            "only CAP_NET_ADMIN lets a process change a device",
            [now(command), capability("NET_ADMIN", at)].concat(),
        ),
        (O::AddRoute(..), Errno::EXIST) => Diagnosis::fault(
            "",
            instead("remove that route (ip route del), or give another metric, of which the lowest wins: --metric N"),
        ),
        _ => Diagnosis::unknown(errno),
    }
}

fn namespace(operation: &Operation<'_>, errno: Errno, at: &Situation) -> Diagnosis {
    use Operation as O;
    match (operation, errno) {
        (O::OpenNamespace(path), Errno::ACCESS | Errno::PERM) if path.starts_with("/proc/1/") => Diagnosis::permission(
            "process 1 is the first process of this host, not that of a container; another number names the container's \
             process here",
            instead("for example: podman inspect --format '{{.State.Pid}}' NAME"),
        ),
        (O::OpenNamespace(path), Errno::ACCESS | Errno::PERM) if path.starts_with("/proc/") => Diagnosis::permission(
            "the process belongs to another user, or has more rights",
            instead("run pingferry as the user of that process, or as root"),
        ),
        (O::OpenNamespace(_), Errno::NOENT) => Diagnosis::fault("", instead("to list namespaces, run: ip netns")),
        (O::OpenNamespace(_), Errno::ACCESS) => {
            Diagnosis::permission("the file does not let this user open it", instead("run pingferry as root"))
        }
        (O::EnterNamespace(_), Errno::INVAL) => {
            Diagnosis::fault("the file names no network namespace", instead("to list namespaces, run: ip netns"))
        }
        (O::EnterNamespace(Some(owner)), Errno::PERM) if *owner == at.user => {
            Diagnosis::permission("only CAP_SYS_ADMIN lets a process enter it", fixes::enter(None, at))
        }
        (O::EnterNamespace(owner), Errno::PERM) => {
            Diagnosis::permission("the namespace belongs to another user", fixes::enter(*owner, at))
        }
        // The limits of namespaces give ENOSPC, a nesting of more than 32 user namespaces EUSERS.
        (O::CreateNamespaces, Errno::PERM | Errno::ACCESS | Errno::NOSPC | Errno::USERS) => {
            let (cause, remedies) = fixes::create_namespaces(errno, at);
            Diagnosis::permission(cause, remedies)
        }
        _ => Diagnosis::unknown(errno),
    }
}

fn sysctl(errno: Errno, at: &Situation) -> Diagnosis {
    match errno {
        Errno::ROFS => Diagnosis::permission("/proc/sys is read-only here", fixes::writable_sysctls(at)),
        Errno::INVAL => Diagnosis::permission("a group does not exist in this user namespace", Vec::new()),
        Errno::ACCESS | Errno::PERM => {
            Diagnosis::permission("only CAP_NET_ADMIN lets a process do that", capability("NET_ADMIN", at))
        }
        _ => Diagnosis::unknown(errno),
    }
}

fn file(operation: &Operation<'_>, errno: Errno) -> Diagnosis {
    use Operation as O;
    match (operation, errno) {
        (O::CreateFile(path), Errno::ACCESS | Errno::PERM | Errno::ROFS) => Diagnosis::permission(
            "its folder must be writable",
            instead(format!("to see its rights, run: ls -ld {}", fixes::folder(path).display())),
        ),
        (O::CreateFile(path), Errno::NOENT) => Diagnosis::fault(
            "its folder does not exist",
            instead(format!("run: mkdir -p {}", fixes::folder(path).display())),
        ),
        (O::CreateFile(path), Errno::ADDRINUSE) if fixes::is_socket(path) => Diagnosis::fault(
            "another process listens there",
            instead(format!("to see which, run: ss -xlp src {}", path.display())),
        ),
        (O::CreateFile(path), Errno::ADDRINUSE) => Diagnosis::fault(
            "a file that is no socket is there",
            instead(format!("if nobody needs it, run: rm {}", path.display())),
        ),
        (O::ChangeGroup, Errno::PERM) => Diagnosis::permission(
            "this user is not in that group",
            instead("to see its groups, run: id; to add it to one, run as root: usermod -aG GROUP USER"),
        ),
        (O::ReadFile(path), Errno::ACCESS) => Diagnosis::permission(
            "",
            instead(format!("this user must be able to read it; to see its rights, run: ls -l {}", path.display())),
        ),
        (O::Listen(address), Errno::ACCESS | Errno::PERM) => Diagnosis::permission(
            format!(
                "port {} is below net.ipv4.ip_unprivileged_port_start and needs CAP_NET_BIND_SERVICE",
                address.port()
            ),
            instead("choose a port from 1024 on"),
        ),
        (O::Listen(_), Errno::ADDRINUSE) => Diagnosis::fault("", instead("to see who listens there, run: ss -lntup")),
        (O::Listen(_), Errno::ADDRNOTAVAIL) => Diagnosis::fault("", instead("to list addresses, run: ip address")),
        _ => Diagnosis::unknown(errno),
    }
}

fn family(network: IpNet) -> &'static str {
    if network.addr().is_ipv6() { "-6 " } else { "" }
}

fn range(at: &Situation) -> String {
    match at.ping_group_range {
        Some(range) if at.is_foreign(range) => "of groups that do not exist here".into(),
        Some(GroupRange { low, high }) if low > high => format!("\"{low} {high}\" (no group)"),
        Some(GroupRange { low, high }) => format!("\"{low} {high}\""),
        None => "hidden".into(),
    }
}
