use super::*;
use crate::policy::rule::ParseRuleError;

fn policy(rules: &[&str]) -> Policy {
    Policy { rules: rules.iter().map(|rule| rule.parse().unwrap()).collect() }
}

/// Of the host 198.51.100.1 in 192.0.2.0/24.
fn host() -> HostAddresses {
    let own = ["198.51.100.1", "2001:db8:5::1", "127.0.0.1"].map(|address| address.parse().unwrap());
    HostAddresses { own: own.into(), broadcast: ["192.0.2.255".parse().unwrap()].into() }
}

fn decide(policy: &Policy, source: &str, destination: &str) -> Decision {
    policy.decide(source.parse().unwrap(), destination.parse().unwrap(), &host())
}

#[test]
fn the_default_refuses_all_but_single_other_hosts() {
    for (destination, what) in [
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("127.0.0.1", "loopback"),
        ("127.9.9.9", "loopback"),
        ("224.0.0.1", "multicast"),
        ("239.255.255.255", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("ff02::1", "multicast"),
        ("::ffff:192.0.2.1", "IPv4-mapped"),
        ("240.0.0.1", "reserved"),
        ("169.254.169.254", "metadata service"),
        ("fd00:ec2::254", "metadata service"),
        ("192.0.2.255", "broadcast"),
        ("198.51.100.1", "own address of the host"),
        ("2001:db8:5::1", "own address of the host"),
    ] {
        let Decision { allowed, by } = decide(&Policy::default(), "10.0.0.1", destination);
        assert!(
            !allowed && matches!(by, DecidedBy::Refused { what: said, .. } if said == what),
            "{destination}: {by:?}"
        );
    }
    for destination in [
        "192.0.2.1",
        "10.0.0.1",
        "223.255.255.255",
        "2001:db8::1",
        "fe80::1",
        "fd00::1",
        "169.254.1.1",
        "2001:db8:5::2",
    ] {
        let decision = decide(&Policy::default(), "10.0.0.9", destination);
        assert_eq!(decision, Decision { allowed: true, by: DecidedBy::Host }, "{destination}");
    }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let policy = policy(&[
        "allow 10.1.2.3",
        "deny 10.1.0.0/16 from 192.168.0.0/16",
        "allow 10.0.0.0/8",
        "deny 10.1.2.3",
        "deny 0.0.0.0/0",
        "deny 2001:db8::/32",
    ]);
    for (source, destination, allowed, by) in [
        ("192.168.1.1", "10.1.2.3", true, DecidedBy::Rule(0)),
        ("192.168.1.1", "10.1.2.4", false, DecidedBy::Rule(1)),
        ("192.169.1.1", "10.1.2.4", true, DecidedBy::Rule(2)),
        ("192.168.1.1", "10.2.2.4", true, DecidedBy::Rule(2)),
        ("192.168.1.1", "192.0.2.1", false, DecidedBy::Rule(4)),
        ("192.168.1.1", "127.0.0.1", false, DecidedBy::Rule(4)),
        ("fd00::1", "2001:db8::1", false, DecidedBy::Rule(5)),
        ("fd00::1", "2001:db9::1", true, DecidedBy::Host),
    ] {
        assert_eq!(decide(&policy, source, destination), Decision { allowed, by }, "{source} → {destination}");
    }
}

#[test]
fn a_rule_within_a_refused_block_allows_its_prefix() {
    let policy = policy(&["allow 127.0.0.0/30", "allow ff02::/16 from fd00::/8"]);
    for (source, destination, allowed) in [
        ("10.0.0.1", "127.0.0.1", true),
        ("10.0.0.1", "127.0.0.4", false),
        ("fd00::1", "::1", false),
        ("fd00::1", "ff02::1", true),
        ("fe80::1", "ff02::1", false),
    ] {
        assert_eq!(decide(&policy, source, destination).allowed, allowed, "{source} → {destination}");
    }
}

#[test]
fn a_rule_wider_than_a_refused_block_does_not_allow_it() {
    let policy = policy(&["allow 0.0.0.0/0 from 10.0.0.0/8", "allow ::/0"]);
    for destination in ["127.0.0.1", "224.0.0.1", "255.255.255.255", "0.0.0.0", "::1", "ff02::1"] {
        let Decision { allowed, by } = decide(&policy, "10.0.0.1", destination);
        assert!(!allowed && matches!(by, DecidedBy::Refused { .. }), "{destination}: {by:?}");
    }
    assert_eq!(decide(&policy, "10.0.0.1", "192.0.2.1").by, DecidedBy::Rule(0));
}

#[test]
fn a_broadcast_address_is_allowed_only_by_a_rule_for_it_alone() {
    let (source, broadcast) = ("10.0.0.1".parse().unwrap(), "192.0.2.255".parse().unwrap());
    for (rules, allowed, by) in [
        (&[][..], false, DecidedBy::Refused { what: "broadcast", block: "192.0.2.255/32".parse().unwrap() }),
        (
            &["allow 192.0.2.0/24"],
            false,
            DecidedBy::Refused { what: "broadcast", block: "192.0.2.255/32".parse().unwrap() },
        ),
        (&["allow 192.0.2.255"], true, DecidedBy::Rule(0)),
        (&["deny 192.0.2.0/24", "allow 192.0.2.255"], false, DecidedBy::Rule(0)),
    ] {
        assert_eq!(policy(rules).decide(source, broadcast, &host()), Decision { allowed, by }, "{rules:?}");
    }
}

#[test]
fn an_ipv6_form_of_a_refused_ipv4_address_is_refused() {
    let denies = policy(&["deny 10.0.0.0/8"]);
    for (v4, what) in [
        ("127.0.0.1", Some("loopback")),
        ("224.0.0.1", Some("multicast")),
        ("169.254.169.254", Some("metadata service")),
        ("240.1.2.3", Some("reserved")),
        ("192.0.2.255", Some("broadcast")),
        ("198.51.100.1", Some("own address of the host")),
        ("10.1.2.3", None),
    ] {
        let v4: Ipv4Addr = v4.parse().unwrap();
        let [a, b, c, d] = v4.octets().map(u16::from);
        let (high, low) = (a << 8 | b, c << 8 | d);
        for form in [
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low),
            Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
        ] {
            let Decision { allowed, by } = decide(&denies, "fd00::1", &form.to_string());
            let expected = match what {
                Some(what) => DecidedBy::Refused { what, block: IpNet::from(IpAddr::from(form)) },
                None => DecidedBy::Rule(0),
            };
            assert_eq!((allowed, by), (false, expected), "{form}");
            let allows = policy(&["allow ::/0", &format!("allow {form}"), "deny 10.0.0.0/8"]);
            let by = if what.is_some() { DecidedBy::Rule(1) } else { DecidedBy::Rule(0) };
            assert_eq!(decide(&allows, "fd00::1", &form.to_string()), Decision { allowed: true, by }, "{form}");
        }
    }
    for form in ["64:ff9b::203.0.113.1", "2002:cb00:7101::1", "64:ff9b:1::203.0.113.1"] {
        assert!(decide(&Policy::default(), "fd00::1", form).allowed, "{form}");
    }
    assert!(
        decide(&policy(&["allow 10.0.0.0/8", "deny ::/0"]), "fd00::1", "64:ff9b::10.0.0.1").by == DecidedBy::Rule(1)
    );
}

#[test]
fn an_own_address_is_allowed_only_by_a_rule_for_it_alone() {
    for (rules, allowed) in [
        (&[][..], false),
        (&["allow 0.0.0.0/0"], false),
        (&["allow 198.51.100.0/24"], false),
        (&["allow 198.51.100.1"], true),
    ] {
        assert_eq!(decide(&policy(rules), "10.0.0.1", "198.51.100.1").allowed, allowed, "{rules:?}");
    }
}

#[test]
fn a_rule_is_printed_in_canonical_form() {
    for (text, canonical) in [
        ("allow 10.0.0.0/8", "allow 10.0.0.0/8"),
        ("deny  10.1.0.0/16  from 192.168.0.0/16", "deny 10.1.0.0/16 from 192.168.0.0/16"),
        ("allow 192.0.2.1 from fd00::/8", ""),
        ("deny 2001:db8::1 from fd00::1", "deny 2001:db8::1/128 from fd00::1/128"),
    ] {
        let written = text.parse::<Rule>().map_or_else(|_| String::new(), |rule| rule.to_string());
        assert_eq!(written, canonical);
    }
}

#[test]
fn a_text_that_is_not_a_rule_is_an_error() {
    for (text, error) in [
        ("", ParseRuleError::Form),
        ("allow", ParseRuleError::Form),
        ("permit 10.0.0.0/8", ParseRuleError::Form),
        ("allow 10.0.0.0/8 to 10.0.0.0/8", ParseRuleError::Form),
        ("allow 10.0.0.0/8 from", ParseRuleError::Form),
        ("allow 10.0.0.0/33", ParseRuleError::Prefix("10.0.0.0/33".into())),
        ("deny 10.0.0.0/8 from here", ParseRuleError::Prefix("here".into())),
        ("deny 10.0.0.0/8 from fd00::/8", ParseRuleError::Families),
    ] {
        assert_eq!(text.parse::<Rule>(), Err(error), "{text}");
    }
}
