//! The verdict: whether pings cross, in one line.

use pingferry_sys::diagnosis::Operation;

use super::report::{Reach, Report};

/// Begins with `works`, `works for IPv4 only`, `works for IPv6 only` or `does not work`.
pub(super) fn verdict(report: &Report) -> String {
    let (v4, v6) = (&report.ipv4, &report.ipv6);
    match (v4.works(), v6.works()) {
        (true, true) => format!("works: this process can ping over IPv4 and IPv6{}", limit(v4, v6)),
        (true, false) => format!("works for IPv4 only; IPv6: {}{}", why(report, v6), limit(v4, v4)),
        (false, true) => format!("works for IPv6 only; IPv4: {}{}", why(report, v4), limit(v6, v6)),
        (false, false) => match (why(report, v4), why(report, v6)) {
            (v4, v6) if v4 == v6 => format!("does not work: {v4}"),
            (v4, v6) => format!("does not work: IPv4: {v4}; IPv6: {v6}"),
        },
    }
}

/// Which of the families that work reach the hosts of their own networks only.
fn limit(v4: &Reach, v6: &Reach) -> &'static str {
    match (v4.source.is_ok(), v6.source.is_ok()) {
        (true, true) => "",
        (true, false) => "; IPv6 has no default route: only hosts of its own networks",
        (false, true) => "; IPv4 has no default route: only hosts of its own networks",
        (false, false) => "; there is no default route: only hosts of its own networks",
    }
}

/// Why a family does not work.
fn why(report: &Report, reach: &Reach) -> String {
    let errors =
        [(Operation::OpenPingSocket, reach.socket.as_ref().err()), (Operation::FindRoute, reach.source.as_ref().err())];
    let failed = errors.into_iter().find_map(|(operation, error)| Some((operation, error?)));
    let Some((operation, error)) = failed else { return String::new() };
    let cause = report.diagnose(&operation, error).cause;
    if cause.is_empty() { error.to_string() } else { cause }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::super::report::examples::{admitted, error, refused};
    use super::*;

    #[test]
    fn it_says_what_works_and_why_the_rest_does_not() {
        let no_route = || Err(error(Errno::NETUNREACH, "unreachable"));
        let no_family = || Err(error(Errno::AFNOSUPPORT, "no such family"));
        let mut report = admitted();
        assert_eq!(verdict(&report), "works: this process can ping over IPv4 and IPv6");
        (report.ipv6.source, report.ipv6.has_network) = (no_route(), false);
        assert_eq!(verdict(&report), "works for IPv4 only; IPv6: there is no default route");
        report.ipv6.socket = no_family();
        assert_eq!(verdict(&report), "works for IPv4 only; IPv6: this host has no such address family");
        report.ipv4.source = no_route();
        assert!(verdict(&report).ends_with("; there is no default route: only hosts of its own networks"));
        report.ipv4.has_network = false;
        assert_eq!(
            verdict(&report),
            "does not work: IPv4: there is no default route; IPv6: this host has no such address family"
        );
        report.ipv6 = admitted().ipv6;
        assert_eq!(verdict(&report), "works for IPv6 only; IPv4: there is no default route");
        report.ipv6.source = no_route();
        report.ipv4 = admitted().ipv4;
        let limited = "works: this process can ping over IPv4 and IPv6; IPv6 has no default route: only hosts of its own networks";
        assert_eq!(verdict(&report), limited);
    }

    #[test]
    fn a_denial_is_why_it_does_not_work() {
        let expected =
            "does not work: no group of this process is in net.ipv4.ping_group_range, which is \"1 0\" (no group)";
        assert_eq!(verdict(&refused()), expected);
        let mut report = refused();
        report.ipv6.socket = Err(error(Errno::NOMEM, "no memory"));
        assert!(verdict(&report).ends_with("; IPv6: no memory"));
    }
}
