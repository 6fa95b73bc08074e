//! The report for people: a table, followed by the fixes for what is missing.

use std::fmt::Display;

use super::fix::{self, Fix, How, Missing};
use super::report::{Descriptors, KernelError, Permission, Report};

/// A line of the table.
struct Row {
    here: bool,
    what: &'static str,
    found: String,
}

impl Row {
    fn of<T>(what: &'static str, result: &Result<T, KernelError>, found: impl FnOnce(&T) -> String) -> Self {
        let found = result.as_ref().map_or_else(ToString::to_string, found);
        Self { here: result.is_ok(), what, found }
    }
}

pub(super) fn render(report: &Report, fixes: &[Fix]) -> String {
    let mut text: String = rows(report)
        .iter()
        .map(|row| format!("{:<9}{:<21}{}\n", if row.here { "ok" } else { "missing" }, row.what, row.found))
        .collect();
    for fix in fixes {
        text.push('\n');
        text.push_str(title(fix.missing));
        text.push('\n');
        text.extend(fix.remedies.iter().map(|remedy| format!("  {:<21}{}\n", label(remedy.how), remedy.command)));
    }
    text
}

fn rows(report: &Report) -> [Row; 8] {
    let permission = &report.permission;
    // If a socket opens, the range admits this process. It can look otherwise, because groups that do not exist in the
    // user namespace cannot be compared.
    let range =
        Row { here: report.works() || !permission.refuses(), what: "ping_group_range", found: range(permission) };
    let descriptors = Row { here: true, what: "descriptors", found: descriptors(&report.descriptors) };
    [
        Row::of("IPv4 ping socket", &report.ipv4.socket, |()| "opens".into()),
        Row::of("IPv4 source address", &report.ipv4.source, ToString::to_string),
        Row::of("IPv6 ping socket", &report.ipv6.socket, |()| "opens".into()),
        Row::of("IPv6 source address", &report.ipv6.source, ToString::to_string),
        range,
        descriptors,
        Row::of("/dev/net/tun", &report.tun.open, |()| "opens".into()),
        Row::of("user namespaces", &report.user_namespaces.create, |()| "can be created".into()),
    ]
}

/// The range, and the groups of the process.
fn range(permission: &Permission) -> String {
    let range = match &permission.ping_group_range {
        Ok(range) if range.low > range.high => format!("{} {} (no group)", range.low, range.high),
        Ok(range) => format!("{} {}", range.low, range.high),
        Err(error) => format!("hidden ({error})"),
    };
    format!("{range}; {}", groups(permission))
}

fn groups(permission: &Permission) -> String {
    let gid = permission.effective_gid;
    let others: Vec<_> = permission.supplementary_gids.iter().filter(|other| **other != gid).collect();
    match others.as_slice() {
        [] => format!("this process has group {gid}"),
        others => format!("this process has group {gid} and also {}", list(others)),
    }
}

fn list(items: &[impl Display]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn descriptors(limit: &Descriptors) -> String {
    let soft = limit.soft.map_or("no limit".into(), |soft| soft.to_string());
    match limit.hard {
        hard if hard == limit.soft => soft,
        Some(hard) => format!("{soft}, can be raised to {hard}"),
        None => format!("{soft}, can be raised without limit"),
    }
}

fn title(missing: Missing) -> &'static str {
    match missing {
        Missing::PingSockets => "To allow ping sockets to this process, as root one of:",
        Missing::Tun => "To have TUN devices, as root one of:",
        Missing::UserNamespaces => "To allow user namespaces, as root one of:",
    }
}

fn label(how: How) -> &'static str {
    match how {
        How::Now => "now",
        How::NowForOneGroup => "or one group only",
        How::EveryBoot => "after every boot",
        How::Docker => "with Docker",
        How::Podman => "with Podman",
        How::Kubernetes => "in a Kubernetes pod",
    }
}

/// One line that says why neither family can ping: because of the range, or the kernel's error.
pub(super) fn no_ping(permission: &Permission, v4: &KernelError, v6: &KernelError) -> String {
    let denied = [v4, v6].iter().any(|error| error.is(rustix::io::Errno::ACCESS));
    let remedies = if denied { fix::ping_sockets(permission) } else { Vec::new() };
    match remedies.first() {
        Some(remedy) => format!(
            "cannot ping: net.ipv4.ping_group_range is {}. As root: {} (`pingferry check` shows other fixes)",
            range(permission),
            remedy.command
        ),
        None if denied => format!(
            "cannot ping: {v4}; {v6}. net.ipv4.ping_group_range admits this process: a security module or a \
             seccomp filter must have denied it (`pingferry check` shows more)"
        ),
        None => format!("cannot ping: {v4}; {v6} (`pingferry check` shows more)"),
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::super::report::Admission;
    use super::super::report::examples::{admitted, error, refused};
    use super::*;

    fn rendered(report: &Report) -> String {
        render(report, &fix::fixes(report))
    }

    #[test]
    fn a_machine_with_nothing_missing_is_a_short_table() {
        let expected = "\
ok       IPv4 ping socket     opens
ok       IPv4 source address  192.0.2.7
ok       IPv6 ping socket     opens
ok       IPv6 source address  2001:db8::7
ok       ping_group_range     0 2147483647; this process has group 1000 and also 27
ok       descriptors          1024, can be raised without limit
ok       /dev/net/tun         opens
ok       user namespaces      can be created
";
        assert_eq!(rendered(&admitted()), expected);
    }

    #[test]
    fn missing_things_are_marked_and_their_fixes_follow() {
        let mut report = refused();
        report.tun.open = Ok(());
        report.permission.supplementary_gids.clear();
        let expected = "\
missing  IPv4 ping socket     open a ping socket for IPv4: Permission denied
missing  IPv4 source address  find the source address: Network is unreachable
missing  IPv6 ping socket     open a ping socket for IPv6: Permission denied
missing  IPv6 source address  find the source address: Network is unreachable
missing  ping_group_range     1 0 (no group); this process has group 1000
ok       descriptors          1024, can be raised without limit
ok       /dev/net/tun         opens
missing  user namespaces      Operation not permitted

To allow ping sockets to this process, as root one of:
  now                  sysctl -w net.ipv4.ping_group_range=\"0 2147483647\"
  or one group only    sysctl -w net.ipv4.ping_group_range=\"1000 1000\"
  after every boot     echo 'net.ipv4.ping_group_range = 0 2147483647' >> /etc/sysctl.d/60-pingferry.conf
  with Docker          docker run --sysctl net.ipv4.ping_group_range=\"0 2147483647\" IMAGE
  with Podman          podman run --sysctl net.ipv4.ping_group_range=\"0 2147483647\" IMAGE
  in a Kubernetes pod  securityContext: {sysctls: [{name: net.ipv4.ping_group_range, value: \"0 2147483647\"}]}

To allow user namespaces, as root one of:
  now                  sysctl -w kernel.apparmor_restrict_unprivileged_userns=0
  after every boot     echo 'kernel.apparmor_restrict_unprivileged_userns = 0' >> /etc/sysctl.d/60-pingferry.conf
";
        assert_eq!(rendered(&report), expected);
    }

    #[test]
    fn a_range_that_seems_to_refuse_is_ok_if_a_socket_opens() {
        let mut report = admitted();
        report.permission.ping_group_range = Ok(Admission { low: 65_534, high: 4_294_967_294, admits: false });
        let line = "ok       ping_group_range     65534 4294967294; this process has group 1000 and also 27\n";
        assert!(rendered(&report).contains(line), "{}", rendered(&report));
    }

    #[test]
    fn the_limit_of_descriptors_includes_the_hard_limit() {
        let limit = |soft, hard| descriptors(&Descriptors { soft, hard });
        assert_eq!(limit(Some(64), Some(64)), "64");
        assert_eq!(limit(Some(64), Some(128)), "64, can be raised to 128");
        assert_eq!(limit(None, None), "no limit");
    }

    #[test]
    fn one_line_says_why_nothing_can_ping_and_how_to_fix_it() {
        let denied = || error(Errno::ACCESS, "IPv4: denied");
        let absent = || error(Errno::AFNOSUPPORT, "IPv6: no such family");
        let mut permission = refused().permission;
        assert_eq!(
            no_ping(&permission, &denied(), &absent()),
            "cannot ping: net.ipv4.ping_group_range is 1 0 (no group); this process has group 1000 and also 27. \
             As root: sysctl -w net.ipv4.ping_group_range=\"0 2147483647\" (`pingferry check` shows other fixes)"
        );
        assert_eq!(
            no_ping(&permission, &absent(), &absent()),
            "cannot ping: IPv6: no such family; IPv6: no such family (`pingferry check` shows more)"
        );
        permission.ping_group_range = Err(error(Errno::NOENT, "no /proc/sys"));
        let line = no_ping(&permission, &denied(), &absent());
        assert!(line.starts_with("cannot ping: net.ipv4.ping_group_range is hidden (no /proc/sys); this"), "{line}");
        permission.ping_group_range = Ok(Admission { low: 0, high: 5000, admits: true });
        let line = no_ping(&permission, &denied(), &absent());
        assert!(!line.contains("sysctl") && line.contains("seccomp"), "{line}");
    }
}
