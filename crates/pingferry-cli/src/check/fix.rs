//! Commands that fix what is missing.

use rustix::io::Errno;
use serde::Serialize;

use super::report::{KernelError, Permission, Report, TunDevice, UserNamespaces};

const PING_GROUP_RANGE: &str = "net.ipv4.ping_group_range";
const EVERY_GROUP: &str = "0 2147483647";

/// Something that is missing, and its remedies. One of them is enough.
#[derive(Debug, Serialize)]
pub(super) struct Fix {
    pub(super) missing: Missing,
    pub(super) remedies: Vec<Remedy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Missing {
    PingSockets,
    Tun,
    UserNamespaces,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Remedy {
    pub(super) how: How,
    /// A shell command for root. For Kubernetes, a part of the pod's `spec`.
    pub(super) command: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum How {
    /// Until the next boot.
    Now,
    /// Until the next boot, for one group only.
    NowForOneGroup,
    /// From the next boot on.
    EveryBoot,
    Docker,
    Podman,
    Kubernetes,
}

/// The fixes for everything that is missing according to the report, as far as commands can fix it.
pub(super) fn fixes(report: &Report) -> Vec<Fix> {
    let denied = [&report.ipv4, &report.ipv6].iter().any(|reach| is_denied(&reach.socket));
    let ping = if denied { ping_sockets(&report.permission) } else { Vec::new() };
    let fixes = [
        (Missing::PingSockets, ping),
        (Missing::Tun, report.tun.open.as_ref().err().map_or(Vec::new(), |error| tun(&report.tun, error))),
        (Missing::UserNamespaces, user_namespaces(&report.user_namespaces)),
    ];
    let fixable = fixes.into_iter().filter(|(_, remedies)| !remedies.is_empty());
    fixable.map(|(missing, remedies)| Fix { missing, remedies }).collect()
}

pub(super) fn is_denied(opened: &Result<(), KernelError>) -> bool {
    opened.as_ref().is_err_and(|error| error.is(Errno::ACCESS))
}

/// Empty if the range admits the process: then something else denied it.
pub(super) fn ping_sockets(permission: &Permission) -> Vec<Remedy> {
    if !permission.refuses() {
        return Vec::new();
    }
    let gid = permission.effective_gid;
    let one_group = format!("{gid} {gid}");
    let (range, mut remedies) = if permission.every_gid_exists {
        let narrow = Remedy { how: How::NowForOneGroup, command: set(PING_GROUP_RANGE, &one_group) };
        let [now, every_boot] = sysctl(PING_GROUP_RANGE, EVERY_GROUP);
        (EVERY_GROUP, vec![now, narrow, every_boot])
    } else {
        // The group numbers are those of this user namespace, so the setting is for its network namespace and not for
        // the whole machine. It cannot be kept over a boot.
        (one_group.as_str(), vec![Remedy { how: How::Now, command: set(PING_GROUP_RANGE, &one_group) }])
    };
    remedies.extend(containers(&format!("--sysctl {PING_GROUP_RANGE}=\"{range}\"")));
    // Kubernetes has this sysctl in its safe set since 1.18, so the node does not have to allow it.
    let pod = format!("securityContext: {{sysctls: [{{name: {PING_GROUP_RANGE}, value: \"{range}\"}}]}}");
    remedies.push(Remedy { how: How::Kubernetes, command: pod });
    remedies
}

fn tun(device: &TunDevice, error: &KernelError) -> Vec<Remedy> {
    let mut remedies = Vec::new();
    // The file can exist without the driver. Opening it then fails with ENODEV or ENXIO.
    if !device.exists || error.is(Errno::NODEV) || error.is(Errno::NXIO) {
        remedies.push(Remedy { how: How::Now, command: "modprobe tun".into() });
        remedies.push(Remedy { how: How::EveryBoot, command: "echo tun >> /etc/modules-load.d/pingferry.conf".into() });
    } else if error.is(Errno::ACCESS) {
        remedies.push(Remedy { how: How::Now, command: "chmod 666 /dev/net/tun".into() });
    }
    remedies.extend(containers("--device /dev/net/tun"));
    remedies
}

fn user_namespaces(found: &UserNamespaces) -> Vec<Remedy> {
    if found.create.is_ok() {
        return Vec::new();
    }
    let forbidding = [
        (found.max_user_namespaces == Some(0), "user.max_user_namespaces", "15000"),
        (found.unprivileged_userns_clone == Some(0), "kernel.unprivileged_userns_clone", "1"),
        (found.apparmor_restrict_unprivileged_userns == Some(1), "kernel.apparmor_restrict_unprivileged_userns", "0"),
    ];
    let forbidding = forbidding.into_iter().filter(|(forbids, ..)| *forbids);
    let mut remedies: Vec<_> = forbidding.flat_map(|(_, name, value)| sysctl(name, value)).collect();
    if remedies.is_empty() {
        // No sysctl explains the error, so the seccomp profile of a container is the most likely cause.
        remedies.extend(containers("--security-opt seccomp=unconfined"));
    }
    remedies
}

fn sysctl(name: &str, value: &str) -> [Remedy; 2] {
    let keep = format!("echo '{name} = {value}' >> /etc/sysctl.d/60-pingferry.conf");
    [Remedy { how: How::Now, command: set(name, value) }, Remedy { how: How::EveryBoot, command: keep }]
}

fn set(name: &str, value: &str) -> String {
    let value = if value.contains(' ') { format!("\"{value}\"") } else { value.into() };
    format!("sysctl -w {name}={value}")
}

fn containers(option: &str) -> [Remedy; 2] {
    [(How::Docker, "docker"), (How::Podman, "podman")]
        .map(|(how, program)| Remedy { how, command: format!("{program} run {option} IMAGE") })
}

#[cfg(test)]
mod tests {
    use super::super::report::Admission;
    use super::super::report::examples::{admitted, error, refused};
    use super::*;

    fn commands(report: &Report, missing: Missing) -> Vec<String> {
        let fixes = fixes(report).into_iter().filter(|fix| fix.missing == missing);
        fixes.flat_map(|fix| fix.remedies).map(|remedy| remedy.command).collect()
    }

    #[test]
    fn nothing_missing_needs_no_fix() {
        assert!(fixes(&admitted()).is_empty());
    }

    #[test]
    fn ping_sockets_have_remedies_for_all_groups_one_group_every_boot_and_containers() {
        let expected = [
            r#"sysctl -w net.ipv4.ping_group_range="0 2147483647""#,
            r#"sysctl -w net.ipv4.ping_group_range="1000 1000""#,
            "echo 'net.ipv4.ping_group_range = 0 2147483647' >> /etc/sysctl.d/60-pingferry.conf",
            r#"docker run --sysctl net.ipv4.ping_group_range="0 2147483647" IMAGE"#,
            r#"podman run --sysctl net.ipv4.ping_group_range="0 2147483647" IMAGE"#,
            r#"securityContext: {sysctls: [{name: net.ipv4.ping_group_range, value: "0 2147483647"}]}"#,
        ];
        assert_eq!(commands(&refused(), Missing::PingSockets), expected);
    }

    #[test]
    fn a_user_namespace_with_one_group_gets_a_range_of_that_group() {
        let mut report = refused();
        report.permission.effective_gid = 0;
        report.permission.every_gid_exists = false;
        let expected = [
            r#"sysctl -w net.ipv4.ping_group_range="0 0""#,
            r#"docker run --sysctl net.ipv4.ping_group_range="0 0" IMAGE"#,
            r#"podman run --sysctl net.ipv4.ping_group_range="0 0" IMAGE"#,
            r#"securityContext: {sysctls: [{name: net.ipv4.ping_group_range, value: "0 0"}]}"#,
        ];
        assert_eq!(commands(&report, Missing::PingSockets), expected);
    }

    #[test]
    fn a_range_that_admits_the_process_needs_no_fix() {
        let mut report = refused();
        report.permission.ping_group_range = Ok(Admission { low: 0, high: 5000, admits: true });
        assert!(commands(&report, Missing::PingSockets).is_empty());
        report.permission.ping_group_range = Err(error(Errno::NOENT, "no /proc"));
        assert!(!commands(&report, Missing::PingSockets).is_empty());
    }

    #[test]
    fn a_missing_family_is_not_fixed_by_the_range() {
        let mut report = refused();
        report.ipv4.socket = Ok(());
        report.ipv6.socket = Err(error(Errno::AFNOSUPPORT, "Address family not supported by protocol"));
        assert!(commands(&report, Missing::PingSockets).is_empty());
    }

    #[test]
    fn the_fix_for_tun_follows_from_its_error() {
        let mut report = refused();
        let first_two = |report: &Report| commands(report, Missing::Tun).into_iter().take(2).collect::<Vec<_>>();
        let load = ["modprobe tun", "echo tun >> /etc/modules-load.d/pingferry.conf"];
        let pass = ["docker run --device /dev/net/tun IMAGE", "podman run --device /dev/net/tun IMAGE"];
        assert_eq!(first_two(&report), load);
        for (errno, expected) in
            [(Errno::NODEV, load), (Errno::ACCESS, ["chmod 666 /dev/net/tun", pass[0]]), (Errno::PERM, pass)]
        {
            report.tun = TunDevice { exists: true, open: Err(error(errno, "")) };
            assert_eq!(first_two(&report), expected);
        }
    }

    #[test]
    fn the_fix_for_user_namespaces_is_the_sysctl_that_forbids_them() {
        let mut report = refused();
        report.user_namespaces.unprivileged_userns_clone = Some(1);
        let expected = [
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
            "echo 'kernel.apparmor_restrict_unprivileged_userns = 0' >> /etc/sysctl.d/60-pingferry.conf",
        ];
        assert_eq!(commands(&report, Missing::UserNamespaces), expected);
        let found = &mut report.user_namespaces;
        (found.unprivileged_userns_clone, found.max_user_namespaces) = (Some(0), Some(0));
        let now: Vec<_> = commands(&report, Missing::UserNamespaces).into_iter().step_by(2).take(2).collect();
        assert_eq!(now, ["sysctl -w user.max_user_namespaces=15000", "sysctl -w kernel.unprivileged_userns_clone=1"]);
    }

    #[test]
    fn user_namespaces_that_no_sysctl_forbids_need_a_container_option() {
        let mut report = refused();
        report.user_namespaces.apparmor_restrict_unprivileged_userns = Some(0);
        let expected = ["docker", "podman"].map(|p| format!("{p} run --security-opt seccomp=unconfined IMAGE"));
        assert_eq!(commands(&report, Missing::UserNamespaces), expected);
    }
}
