//! `pingferry check --policy`: what decides about a request.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pingferry::{DecidedBy, Decision, Policy};
use pingferry_sys::netlink::AddressMonitor;

use crate::config::build::policy;
use crate::config::flags::policy::PolicyFlags;
use crate::config::model::Settings;
use crate::error::CliError;

/// A request, and the policy that is asked about it.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Policy")]
pub(crate) struct Question {
    /// Say which rule decides about pings of this address, instead; exit with 0 if they are allowed, 1 if they are denied
    #[arg(long = "policy", value_name = "DEST")]
    pub(super) destination: Option<IpAddr>,
    /// Where they come from [default: a source that no rule names]
    #[arg(long = "from", value_name = "SOURCE", requires = "destination")]
    source: Option<IpAddr>,
    #[command(flatten)]
    rules: PolicyFlags,
}

impl Question {
    /// Puts the rules that were given before those of the settings.
    pub(super) fn apply(&self, settings: &mut Settings) {
        self.rules.apply(settings);
    }

    /// The decision about `destination`, and a line that tells it.
    pub(super) fn answer(&self, destination: IpAddr, settings: &Settings) -> Result<(bool, String), CliError> {
        let nobody = if destination.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let source = self.source.unwrap_or(nobody);
        if source.is_ipv4() != destination.is_ipv4() {
            return Err(CliError::usage(format!("{source} cannot ping {destination}: they are of different families")));
        }
        let policy = policy(&settings.policy);
        let decision = policy.decide(source, destination, is_group(destination));
        Ok((decision.allowed, tell(&policy, decision)))
    }
}

/// Which addresses are a broadcast is told by the networks of this host, if it tells.
fn is_group(destination: IpAddr) -> bool {
    let addresses = AddressMonitor::open().and_then(|mut monitor| monitor.addresses());
    addresses.unwrap_or_default().is_group(destination)
}

fn tell(policy: &Policy, Decision { allowed, by }: Decision) -> String {
    let verb = if allowed { "allowed" } else { "denied" };
    match by {
        DecidedBy::Rule(index) => {
            let rule = policy.rules.get(index).map(ToString::to_string).unwrap_or_default();
            format!("{verb} by rule {} of {}: {rule}", index + 1, policy.rules.len())
        }
        DecidedBy::Host => format!("{verb} by default: no rule matches"),
        DecidedBy::Refused { what, block } => {
            format!("{verb} by default: {what}; it takes an allow rule within {block}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_that_decides_is_told() {
        let rules = ["deny 10.1.0.0/16 from 192.168.0.0/16", "allow 10.0.0.0/8", "allow 127.0.0.1"];
        let policy = Policy { rules: rules.map(|rule| rule.parse().unwrap()).into() };
        for (source, destination, told) in [
            ("192.168.0.1", "10.1.0.1", "denied by rule 1 of 3: deny 10.1.0.0/16 from 192.168.0.0/16"),
            ("0.0.0.0", "10.1.0.1", "allowed by rule 2 of 3: allow 10.0.0.0/8"),
            ("0.0.0.0", "127.0.0.1", "allowed by rule 3 of 3: allow 127.0.0.1/32"),
            ("0.0.0.0", "127.0.0.2", "denied by default: loopback; it takes an allow rule within 127.0.0.0/8"),
            ("0.0.0.0", "192.0.2.1", "allowed by default: no rule matches"),
        ] {
            let decision = policy.decide(source.parse().unwrap(), destination.parse().unwrap(), false);
            assert_eq!(tell(&policy, decision), told);
        }
    }
}
