//! The table, situation by situation.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use super::*;
use crate::preflight::GroupRange;

const CONTAINERS: [Container; 5] =
    [Container::Docker, Container::Podman, Container::Kubernetes, Container::Lxc, Container::Other];
const TUN: DeviceKind = DeviceKind::Tun { owner: Some(7), multi_queue: false };

fn host() -> Situation {
    Situation::of_host(1000, 1000)
}

/// User 1000 of a container, whose groups are those of /etc/subgid.
fn container(container: Container) -> Situation {
    Situation { container: Some(container), gids: GidMap::parse("0 1000 1\n1 100000 65536\n"), ..host() }
}

fn unit() -> Situation {
    Situation { unit: Some("pingferry.service".into()), ..host() }
}

fn look_up(operation: &Operation<'_>, errno: Errno, at: &Situation) -> Diagnosis {
    diagnose(operation, errno.raw_os_error(), at)
}

/// The line that is printed, for something that is a permission or is not.
fn line(operation: &Operation<'_>, errno: Errno, at: &Situation, is_permission: bool) -> String {
    let found = look_up(operation, errno, at);
    assert_eq!(found.is_permission, is_permission, "{operation:?} {errno} {at:?}");
    found.to_string()
}

fn commands(operation: &Operation<'_>, errno: Errno, at: &Situation) -> Vec<String> {
    look_up(operation, errno, at).remedies.into_iter().map(|remedy| remedy.command).collect()
}

#[test]
fn a_closed_range_of_groups_on_a_host() {
    let expected = "no group of this process is in net.ipv4.ping_group_range, which is \"1 0\" (no group); \
                    run as root: sysctl -w net.ipv4.ping_group_range=\"0 2147483647\"";
    assert_eq!(line(&Operation::OpenPingSocket, Errno::ACCESS, &host(), true), expected);
    let expected = [
        "sysctl -w net.ipv4.ping_group_range=\"0 2147483647\"",
        "sysctl -w net.ipv4.ping_group_range=\"1000 1000\"",
        "echo 'net.ipv4.ping_group_range = 0 2147483647' >> /etc/sysctl.d/60-pingferry.conf",
    ];
    assert_eq!(commands(&Operation::OpenPingSocket, Errno::ACCESS, &host()), expected);
    assert_eq!(commands(&Operation::OpenPingSocket, Errno::ACCESS, &unit()), expected);
    // A user namespace with one group and a network of its own.
    let inside = Situation { gids: GidMap::parse("0 1000 1"), ..Situation::of_host(0, 0) };
    assert_eq!(
        commands(&Operation::OpenPingSocket, Errno::ACCESS, &inside),
        ["sysctl -w net.ipv4.ping_group_range=\"0 0\""]
    );
    // The network of the host in another user namespace.
    let outside = Situation { owns_network: false, ..container(Container::Podman) };
    let expected = "run as root on the host: sysctl -w net.ipv4.ping_group_range=\"0 2147483647\"";
    assert!(line(&Operation::OpenPingSocket, Errno::ACCESS, &outside, true).ends_with(expected));
}

/// The kernel refuses ends that do not exist in the container: there, the widest range is that of its 65,536 groups.
#[test]
fn a_closed_range_of_groups_in_each_container() {
    let first = |at: &Situation| commands(&Operation::OpenPingSocket, Errno::ACCESS, at).remove(0);
    let option = "--sysctl net.ipv4.ping_group_range=\"0 65535\" IMAGE";
    let expected = [
        format!("docker run {option}"),
        format!("podman run {option}"),
        "securityContext: {sysctls: [{name: net.ipv4.ping_group_range, value: \"0 65535\"}]}".into(),
        "lxc.sysctl.net.ipv4.ping_group_range = 0 65535".into(),
        format!("docker run {option}"),
    ];
    assert_eq!(CONTAINERS.map(|kind| first(&container(kind))), expected);
    let root = Situation { can_set_range: true, ..container(Container::Lxc) };
    let both = commands(&Operation::OpenPingSocket, Errno::ACCESS, &root);
    assert_eq!(both[0], "sysctl -w net.ipv4.ping_group_range=\"0 65535\"");
    let all = Situation { gids: host().gids, ..container(Container::Docker) };
    assert!(first(&all).contains("\"0 2147483647\""));
    // With the network of the host, the engines refuse the option.
    for kind in CONTAINERS {
        let found = look_up(&Operation::OpenPingSocket, Errno::ACCESS, &container(kind));
        assert_eq!(found.remedies.last().unwrap().how, How::OnHost, "{kind:?}");
    }
}

#[test]
fn what_denies_a_ping_socket_besides_the_range() {
    let admitted = Situation { ping_group_range: Some(GroupRange { low: 0, high: 5000 }), ..host() };
    let ping = Operation::OpenPingSocket;
    assert!(line(&ping, Errno::ACCESS, &admitted, true).contains("a security module or a seccomp filter"));
    assert!(line(&ping, Errno::PERM, &host(), true).contains("a security module or a seccomp filter"));
    // In a rootless container, "1 0" is shown like this.
    let foreign = GroupRange { low: 65_534, high: 65_534 };
    let mut nobody = Situation { ping_group_range: Some(foreign), ..container(Container::Podman) };
    nobody.groups.effective = 65_534;
    let expected = "which is of groups that do not exist here; start the container with: podman run --sysctl";
    assert!(line(&ping, Errno::ACCESS, &nobody, true).contains(expected));
    let hidden = Situation { ping_group_range: None, ..host() };
    assert!(line(&ping, Errno::ACCESS, &hidden, true).contains("which is hidden; run as root: sysctl -w"));
    assert_eq!(line(&ping, Errno::AFNOSUPPORT, &host(), false), "this host has no such address family");
    assert!(line(&ping, Errno::AFNOSUPPORT, &unit(), false).contains("unit: RestrictAddressFamilies=AF_INET"));
    assert_eq!(line(&ping, Errno::PROTONOSUPPORT, &host(), false), "this kernel has no ping sockets");
    assert_eq!(line(&Operation::FindRoute, Errno::NETUNREACH, &host(), false), "there is no default route");
    assert_eq!(line(&ping, Errno::NOMEM, &host(), false), "");
}

#[test]
fn no_tun_devices() {
    let open = Operation::OpenTunFile;
    for errno in [Errno::NOENT, Errno::NODEV, Errno::NXIO] {
        let expected = "the driver of TUN devices is not loaded; run as root: modprobe tun";
        assert_eq!(line(&open, errno, &host(), false), expected);
        let given = CONTAINERS.map(|kind| commands(&open, errno, &container(kind)).remove(0));
        assert_eq!(given[..2], ["docker", "podman"].map(|name| format!("{name} run --device /dev/net/tun IMAGE")));
        assert!(given[2].contains("privileged") && given[3].contains("10:200"), "{given:?}");
    }
    assert!(
        line(&open, Errno::NOENT, &unit(), false).contains("or the unit hides the file; run as root: modprobe tun")
    );
    let expected = "the unit does not allow the device; in [Service] of the unit: PrivateDevices=no \
                    DeviceAllow=/dev/net/tun rw";
    assert_eq!(line(&open, Errno::PERM, &unit(), true), expected);
    let expected = "start the container with: podman run --device /dev/net/tun IMAGE";
    assert!(line(&open, Errno::PERM, &container(Container::Podman), true).ends_with(expected));
}

#[test]
fn a_tun_file_of_root_only() {
    let line = |at: &Situation| line(&Operation::OpenTunFile, Errno::ACCESS, at, true);
    assert!(line(&host()).ends_with("run as root: chmod 666 /dev/net/tun"), "{}", line(&host()));
    assert!(line(&container(Container::Docker)).ends_with("run as root on the host: chmod 666 /dev/net/tun"));
}

#[test]
fn a_device_cannot_be_created() {
    let create = Operation::CreateDevice("ping0");
    let first = |at: &Situation| commands(&create, Errno::PERM, at).remove(0);
    let command = "ip tuntap add dev ping0 mode tun user 1000 && ip link set ping0 up";
    let expected = format!("only CAP_NET_ADMIN lets a process create a device; run as root: {command}");
    assert_eq!(line(&create, Errno::PERM, &host(), true), expected);
    assert_eq!(first(&unit()), "AmbientCapabilities=CAP_NET_ADMIN CapabilityBoundingSet=CAP_NET_ADMIN");
    // Docker and Kubernetes give capabilities to root only.
    let expected = [
        "docker run --user 0 --cap-add NET_ADMIN IMAGE",
        "podman run --cap-add NET_ADMIN IMAGE",
        "securityContext: {capabilities: {add: [NET_ADMIN]}, runAsUser: 0}",
        command,
        "docker run --user 0 --cap-add NET_ADMIN IMAGE",
    ];
    assert_eq!(CONTAINERS.map(|kind| first(&container(kind))), expected);
    let root = Situation { user: 0, ..container(Container::Kubernetes) };
    assert_eq!(first(&root), "securityContext: {capabilities: {add: [NET_ADMIN]}}");
    let foreign = Situation { owns_network: false, ..host() };
    assert!(line(&create, Errno::PERM, &foreign, true).contains("run as root on the host: ip tuntap add"));
    assert!(line(&create, Errno::NAMETOOLONG, &host(), false).contains("15 bytes"));
}

#[test]
fn a_device_that_was_made_before() {
    let attach = |kind, queues| Operation::AttachDevice("ping0", kind, queues);
    let replaced = "run as root: ip link delete ping0 && ip tuntap add dev ping0 mode tun";
    let expected =
        format!("the device belongs to user 7, and this is user 1000; {replaced} user 1000 && ip link set ping0 up");
    assert_eq!(line(&attach(TUN, 1), Errno::PERM, &host(), true), expected);
    let expected = format!(
        "the device was made for one queue, and 4 workers need one each; {replaced} multi_queue user 1000 && \
         ip link set ping0 up"
    );
    assert_eq!(line(&attach(TUN, 4), Errno::INVAL, &host(), false), expected);
    assert!(line(&attach(DeviceKind::Tap, 1), Errno::INVAL, &host(), false).contains("a TAP device, with Ethernet"));
    let other = line(&attach(DeviceKind::Other, 1), Errno::INVAL, &host(), false);
    assert!(other.contains("another kind of device") && !other.contains("delete"), "{other}");
    assert!(line(&attach(TUN, 1), Errno::BUSY, &host(), false).contains("ip -details tuntap show dev ping0"));
}

#[test]
fn a_device_that_was_made_before_cannot_be_changed() {
    let (v4, v6) = ("192.0.2.1/24".parse().unwrap(), "::/0".parse().unwrap());
    for (operation, command) in [
        (Operation::SetUp("ping0"), "ip link set ping0 up"),
        (Operation::SetMtu("ping0", 1400), "ip link set ping0 mtu 1400"),
        (Operation::AddAddress("ping0", v4), "ip address add 192.0.2.1/24 dev ping0"),
        (Operation::AddRoute("ping0", v6), "ip -6 route add ::/0 dev ping0"),
    ] {
        let expected = format!("only CAP_NET_ADMIN lets a process change a device; run as root: {command}");
        assert_eq!(line(&operation, Errno::PERM, &host(), true), expected);
        assert_eq!(look_up(&operation, Errno::PERM, &unit()).remedies.last().unwrap().how, How::Unit);
    }
    assert!(line(&Operation::AddRoute("ping0", v4), Errno::EXIST, &host(), false).ends_with("--metric N"));
}

#[test]
fn namespaces_of_others() {
    let open = |path: &'static str| Operation::OpenNamespace(Path::new(path));
    let first = line(&open("/proc/1/ns/net"), Errno::ACCESS, &host(), true);
    assert!(
        first.contains("process 1 is the first process of this host") && first.contains("podman inspect"),
        "{first}"
    );
    let other = line(&open("/proc/12/ns/net"), Errno::ACCESS, &host(), true);
    assert!(other.contains("belongs to another user, or has more rights; run pingferry as"), "{other}");
    assert!(line(&open("/run/netns/x"), Errno::NOENT, &host(), false).ends_with("ip netns"));
    let enter = Operation::EnterNamespace(Some(7));
    assert!(line(&enter, Errno::PERM, &host(), true).ends_with("run pingferry as user 7: sudo -u '#7' pingferry …"));
    assert!(
        line(&Operation::EnterNamespace(None), Errno::PERM, &host(), true).contains("run pingferry as root, or as")
    );
    let own = line(&Operation::EnterNamespace(Some(1000)), Errno::PERM, &host(), true);
    assert!(own.starts_with("only CAP_SYS_ADMIN lets a process enter it; run pingferry as root"), "{own}");
    assert!(line(&enter, Errno::PERM, &unit(), true).contains("AmbientCapabilities=CAP_SYS_ADMIN"));
    assert!(line(&enter, Errno::INVAL, &host(), false).contains("names no network namespace"));
}

#[test]
fn user_namespaces_that_are_turned_off() {
    let forbidden = |set: fn(&mut Situation)| {
        let mut at = host();
        set(&mut at);
        at
    };
    for (at, sysctl) in [
        (forbidden(|at| at.max_user_namespaces = Some(0)), "user.max_user_namespaces=15000"),
        (forbidden(|at| at.unprivileged_userns_clone = Some(0)), "kernel.unprivileged_userns_clone=1"),
        (
            forbidden(|at| at.apparmor_restrict_unprivileged_userns = Some(1)),
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ] {
        for errno in [Errno::PERM, Errno::ACCESS, Errno::NOSPC, Errno::USERS] {
            let expected = format!("user namespaces are turned off; run as root: sysctl -w {sysctl}");
            assert_eq!(line(&Operation::CreateNamespaces, errno, &at, true), expected);
        }
        let inside = Situation { container: Some(Container::Docker), ..at };
        let expected = format!("run as root on the host: sysctl -w {sysctl}");
        assert!(line(&Operation::CreateNamespaces, Errno::PERM, &inside, true).ends_with(&expected));
    }
    // What allows them is not what forbids them.
    let allowed = forbidden(|at| {
        (at.max_user_namespaces, at.unprivileged_userns_clone) = (Some(15_000), Some(1));
        at.apparmor_restrict_unprivileged_userns = Some(0);
    });
    assert_eq!(commands(&Operation::CreateNamespaces, Errno::PERM, &allowed), [""; 0]);
}

#[test]
fn user_namespaces_that_no_sysctl_forbids() {
    let create = Operation::CreateNamespaces;
    let expected = [
        "docker run --security-opt seccomp=unconfined IMAGE",
        "podman run --security-opt seccomp=unconfined IMAGE",
        "securityContext: {seccompProfile: {type: Unconfined}}",
        "lxc.include = /usr/share/lxc/config/nesting.conf",
        "docker run --security-opt seccomp=unconfined IMAGE",
    ];
    assert_eq!(CONTAINERS.map(|kind| commands(&create, Errno::PERM, &container(kind)).remove(0)), expected);
    assert!(line(&create, Errno::PERM, &unit(), true).ends_with("in [Service] of the unit: RestrictNamespaces=no"));
    assert!(line(&create, Errno::NOSPC, &host(), true).contains("a limit of namespaces is reached"));
}

#[test]
fn sysctls_that_cannot_be_written() {
    let expected = [
        "docker run --security-opt systempaths=unconfined IMAGE",
        "podman run --security-opt unmask=/proc/sys IMAGE",
        "securityContext: {procMount: Unmasked}",
        "lxc.mount.auto = proc:rw",
        "docker run --security-opt systempaths=unconfined IMAGE",
    ];
    let set = Operation::SetSysctl;
    assert_eq!(CONTAINERS.map(|kind| commands(&set, Errno::ROFS, &container(kind)).remove(0)), expected);
    assert!(line(&set, Errno::ROFS, &unit(), true).ends_with("ProtectKernelTunables=no"));
    assert!(line(&set, Errno::ACCESS, &unit(), true).contains("AmbientCapabilities=CAP_NET_ADMIN"));
}

#[test]
fn files_and_addresses() {
    let path = Path::new("/nowhere/at all/s");
    let create = Operation::CreateFile(path);
    for errno in [Errno::ACCESS, Errno::ROFS] {
        assert!(line(&create, errno, &host(), true).ends_with("ls -ld /nowhere/at all"));
    }
    assert!(line(&create, Errno::NOENT, &host(), false).ends_with("run: mkdir -p /nowhere/at all"));
    assert!(line(&create, Errno::ADDRINUSE, &host(), false).contains("a file that is no socket is there"));
    assert!(line(&Operation::ReadFile(path), Errno::ACCESS, &host(), true).ends_with("ls -l /nowhere/at all/s"));
    assert!(line(&Operation::ChangeGroup, Errno::PERM, &host(), true).starts_with("this user is not in that group; "));
    let listen = Operation::Listen("[::]:853".parse().unwrap());
    assert!(line(&listen, Errno::ACCESS, &host(), true).contains("port 853"));
    assert!(line(&listen, Errno::ADDRINUSE, &host(), false).ends_with("ss -lntup"));
    assert!(line(&listen, Errno::ADDRNOTAVAIL, &host(), false).ends_with("ip address"));
}

#[test]
fn an_explained_error_keeps_its_errno_and_says_whether_it_is_a_permission() {
    let error = explain(Errno::USERS.into(), &Operation::CreateNamespaces);
    assert_eq!((error.kind(), crate::errno(&error)), (io::ErrorKind::PermissionDenied, Some(libc::EUSERS)));
    let error = explain(Errno::NOMEM.into(), &Operation::CreateNamespaces);
    assert_eq!(error.to_string(), io::Error::from(Errno::NOMEM).to_string());
    let error = explain(io::Error::other("no errno"), &Operation::CreateNamespaces);
    assert_eq!(error.to_string(), "no errno");
}
