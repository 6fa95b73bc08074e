//! The report for people: a verdict, a table, and the fixes for what is missing.

use std::fmt::Display;

use pingferry_sys::diagnosis::How;

use super::fix::{Fix, Missing};
use super::report::{Descriptors, KernelError, Permission, Report};
use super::verdict::verdict;

/// What a row of the table says.
#[derive(Clone, Copy)]
enum Mark {
    Ok,
    /// Pings do not cross without it.
    Missing,
    /// Something that is not there, and that pings do not need.
    No,
}

/// A line of the table.
struct Row {
    mark: Mark,
    what: &'static str,
    found: String,
}

impl Row {
    /// A row about something without which pings do not cross, if `else_mark` says so.
    fn of<T>(
        what: &'static str,
        result: &Result<T, KernelError>,
        else_mark: Mark,
        found: impl FnOnce(&T) -> String,
    ) -> Self {
        let mark = if result.is_ok() { Mark::Ok } else { else_mark };
        Self { mark, what, found: result.as_ref().map_or_else(ToString::to_string, found) }
    }

    /// A row about something that only a part of the command needs.
    fn optional(what: &'static str, result: &Result<(), KernelError>, found: &str, needed_for: &str) -> Self {
        let mut row = Self::of(what, result, Mark::No, |()| found.into());
        if result.is_err() {
            row.found = format!("{} (for {needed_for})", row.found);
        }
        row
    }
}

pub(super) fn render(report: &Report, fixes: &[Fix]) -> String {
    let mut text = format!("{}\n\n", verdict(report));
    text.extend(rows(report).iter().map(|row| format!("{:<9}{:<21}{}\n", mark(row.mark), row.what, row.found)));
    for fix in fixes {
        text.push_str(&format!("\n{}: {}. One of:\n", title(fix.missing), fix.cause));
        text.extend(fix.remedies.iter().map(|remedy| format!("  {:<21}{}\n", label(remedy.how), remedy.command)));
    }
    text
}

fn mark(mark: Mark) -> &'static str {
    match mark {
        Mark::Ok => "ok",
        Mark::Missing => "missing",
        Mark::No => "no",
    }
}

fn rows(report: &Report) -> [Row; 10] {
    let family = if report.works() { Mark::No } else { Mark::Missing };
    let opens = [&report.ipv4, &report.ipv6].iter().any(|reach| reach.socket.is_ok());
    // If a socket opens, the range admits this process. It can look otherwise, because groups that do not exist in the
    // user namespace cannot be compared.
    let is_admitted = opens || !report.situation.range_refuses();
    let range_mark = if is_admitted { Mark::Ok } else { Mark::Missing };
    let (tun, namespaces) = (&report.tun, &report.user_namespaces);
    [
        Row::of("IPv4 ping socket", &report.ipv4.socket, family, |()| "opens".into()),
        Row::of("IPv4 source address", &report.ipv4.source, family, ToString::to_string),
        Row::of("IPv6 ping socket", &report.ipv6.socket, family, |()| "opens".into()),
        Row::of("IPv6 source address", &report.ipv6.source, family, ToString::to_string),
        Row { mark: range_mark, what: "ping_group_range", found: range(&report.permission) },
        Row { mark: Mark::Ok, what: "descriptors", found: descriptors(&report.descriptors) },
        Row::optional("/dev/net/tun", &tun.open, "opens", "TUN devices and exec"),
        Row::optional("create a device", &tun.create, "possible", "run --tun, unless root has made the device"),
        Row::optional("user namespaces", &namespaces.create, "can be created", "exec and demo"),
        Row::of("exec", &report.exec, Mark::No, |()| "works".into()),
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
        Missing::PingSockets => "No ping sockets",
        Missing::Tun => "No TUN devices",
        Missing::CreateTun => "No new TUN devices",
        Missing::UserNamespaces => "No user namespaces",
    }
}

fn label(how: How) -> &'static str {
    match how {
        How::Now => "as root, now",
        How::NowForOneGroup => "or for one group",
        How::EveryBoot => "after every boot",
        How::OnHost => "on the host, as root",
        How::Unit => "[Service] of the unit",
        How::Docker => "with Docker",
        How::Podman => "with Podman",
        How::Kubernetes => "in the spec of a pod",
        How::Lxc => "configuration of LXC",
        _ => "or",
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::super::fix;
    use super::super::report::Admission;
    use super::super::report::examples::{admitted, error, refused};
    use super::*;

    fn rendered(report: &Report) -> String {
        render(report, &fix::fixes(report))
    }

    #[test]
    fn a_machine_with_nothing_missing_is_a_short_table() {
        let expected = "\
works: this process can ping over IPv4 and IPv6

ok       IPv4 ping socket     opens
ok       IPv4 source address  192.0.2.7
ok       IPv6 ping socket     opens
ok       IPv6 source address  2001:db8::7
ok       ping_group_range     0 2147483647; this process has group 1000 and also 27
ok       descriptors          1024, can be raised without limit
ok       /dev/net/tun         opens
ok       create a device      possible
ok       user namespaces      can be created
ok       exec                 works
";
        assert_eq!(rendered(&admitted()), expected);
    }

    #[test]
    fn missing_things_are_marked_and_their_fixes_follow() {
        let mut report = refused();
        report.tun.open = Ok(());
        report.tun.create = Err(error(Errno::PERM, "Operation not permitted"));
        report.permission.supplementary_gids.clear();
        let expected = "\
does not work: no group of this process is in net.ipv4.ping_group_range, which is \"1 0\" (no group)

missing  IPv4 ping socket     open a ping socket for IPv4: Permission denied
missing  IPv4 source address  find the source address: Network is unreachable
missing  IPv6 ping socket     open a ping socket for IPv6: Permission denied
missing  IPv6 source address  find the source address: Network is unreachable
missing  ping_group_range     1 0 (no group); this process has group 1000
ok       descriptors          1024, can be raised without limit
ok       /dev/net/tun         opens
no       create a device      Operation not permitted (for run --tun, unless root has made the device)
no       user namespaces      Operation not permitted (for exec and demo)
no       exec                 Operation not permitted

No ping sockets: no group of this process is in net.ipv4.ping_group_range, which is \"1 0\" (no group). One of:
  as root, now         sysctl -w net.ipv4.ping_group_range=\"0 2147483647\"
  or for one group     sysctl -w net.ipv4.ping_group_range=\"1000 1000\"
  after every boot     echo 'net.ipv4.ping_group_range = 0 2147483647' >> /etc/sysctl.d/60-pingferry.conf

No new TUN devices: only CAP_NET_ADMIN lets a process create a device. One of:
  as root, now         ip tuntap add dev ping0 mode tun user 1000 && ip link set ping0 up

No user namespaces: user namespaces are turned off. One of:
  as root, now         sysctl -w kernel.apparmor_restrict_unprivileged_userns=0
  after every boot     echo 'kernel.apparmor_restrict_unprivileged_userns = 0' >> /etc/sysctl.d/60-pingferry.conf
";
        assert_eq!(rendered(&report), expected);
    }

    #[test]
    fn nothing_harmless_is_missing() {
        let mut report = refused();
        report.ipv4 = admitted().ipv4;
        report.ipv6.socket = Err(error(Errno::AFNOSUPPORT, "no IPv6"));
        let text = rendered(&report);
        assert!(!text.contains("missing") && text.contains("\nno       IPv6 ping socket     no IPv6\n"), "{text}");
    }

    #[test]
    fn a_range_that_seems_to_refuse_is_ok_if_a_socket_opens() {
        let mut report = admitted();
        report.permission.ping_group_range = Ok(Admission { low: 65_534, high: 4_294_967_294, admits: false });
        report.situation.ping_group_range = refused().situation.ping_group_range;
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
}
