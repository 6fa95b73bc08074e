//! `pingferry check --policy`: which rule decides about a request.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pingferry::{DecidedBy, Decision, HostAddresses, Policy};
use pingferry_sys::netlink::AddressMonitor;
use serde::Serialize;

use crate::config::build::policy;
use crate::config::flags::policy::PolicyFlags;
use crate::config::model::{Ingress, Settings};
use crate::error::CliError;

/// A request to decide about, and rules for it.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Policy")]
pub(crate) struct Question {
    /// Instead, print which rule decides about pings of this address; exit with 0 if they are allowed, 1 if denied
    #[arg(long = "policy", value_name = "DEST")]
    pub(super) destination: Option<IpAddr>,
    /// The address that pings [default: a source that no rule names]
    #[arg(long = "from", value_name = "SOURCE", requires = "destination")]
    source: Option<IpAddr>,
    /// The ingress that the ping comes in at, by its TUN device or socket path [default: one without rules of its own]
    #[arg(long, value_name = "NAME", requires = "destination")]
    ingress: Option<String>,
    #[command(flatten)]
    rules: PolicyFlags,
}

/// The answer. Its keys in JSON are stable; more can be added.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    destination: IpAddr,
    /// As given.
    source: Option<IpAddr>,
    /// As given.
    ingress: Option<String>,
    pub(super) allowed: bool,
    /// The rule that decides; none if the default does.
    rule: Option<String>,
    pub(super) why: String,
}

impl Question {
    /// Puts the rules that were given before those of the settings.
    pub(super) fn apply(&self, settings: &mut Settings) {
        self.rules.apply(settings);
    }

    /// Whether pings of `destination` are allowed, and why.
    pub(super) fn decide(&self, destination: IpAddr, settings: &Settings) -> Result<Answer, CliError> {
        let unnamed = if destination.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let source = self.source.unwrap_or(unnamed);
        if source.is_ipv4() != destination.is_ipv4() {
            return Err(CliError::usage(format!("{source} cannot ping {destination}: they are of different families")));
        }
        let mut rules = self.ingress(settings)?.policy;
        rules.extend_from_slice(&settings.policy);
        let policy = policy(&rules);
        let decision = policy.decide(source, destination, &host_addresses());
        Ok(Answer {
            destination,
            source: self.source,
            ingress: self.ingress.clone(),
            allowed: decision.allowed,
            rule: match decision.by {
                DecidedBy::Rule(index) => policy.rules.get(index).map(ToString::to_string),
                DecidedBy::Host | DecidedBy::Refused { .. } => None,
            },
            why: describe(&policy, decision),
        })
    }

    fn ingress(&self, settings: &Settings) -> Result<Ingress, CliError> {
        let Some(name) = &self.ingress else { return Ok(Ingress::default()) };
        let is_named = |ingress: &Ingress| {
            ingress.tun.as_ref() == Some(name) || ingress.unix.as_ref().is_some_and(|path| path.as_os_str() == &**name)
        };
        let named = settings.ingresses().into_iter().find(is_named);
        named.ok_or_else(|| CliError::usage(format!("--ingress: no ingress has TUN device or socket {name}")))
    }
}

/// The addresses of this host, if it lists them.
fn host_addresses() -> HostAddresses {
    let addresses = AddressMonitor::open().and_then(|mut monitor| monitor.addresses());
    addresses.unwrap_or_default()
}

fn describe(policy: &Policy, Decision { allowed, by }: Decision) -> String {
    let verb = if allowed { "allowed" } else { "denied" };
    match by {
        DecidedBy::Rule(index) => {
            let rule = policy.rules.get(index).map(ToString::to_string).unwrap_or_default();
            format!("{verb} by rule {} of {}: {rule}", index + 1, policy.rules.len())
        }
        DecidedBy::Host => format!("{verb} by default: no rule matches"),
        DecidedBy::Refused { what, block } => {
            format!("{verb} by default: {what}; only an allow rule within {block} allows it")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_the_rule_that_decides() {
        let rules = ["deny 10.1.0.0/16 from 192.168.0.0/16", "allow 10.0.0.0/8", "allow 127.0.0.1"];
        let policy = Policy { rules: rules.map(|rule| rule.parse().unwrap()).into() };
        for (source, destination, line) in [
            ("192.168.0.1", "10.1.0.1", "denied by rule 1 of 3: deny 10.1.0.0/16 from 192.168.0.0/16"),
            ("0.0.0.0", "10.1.0.1", "allowed by rule 2 of 3: allow 10.0.0.0/8"),
            ("0.0.0.0", "127.0.0.1", "allowed by rule 3 of 3: allow 127.0.0.1/32"),
            ("0.0.0.0", "127.0.0.2", "denied by default: loopback; only an allow rule within 127.0.0.0/8 allows it"),
            ("0.0.0.0", "192.0.2.1", "allowed by default: no rule matches"),
        ] {
            let decision =
                policy.decide(source.parse().unwrap(), destination.parse().unwrap(), &HostAddresses::default());
            assert_eq!(describe(&policy, decision), line);
        }
    }
}
