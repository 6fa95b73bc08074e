//! The line of the log that says what a process serves, and what of it does not work.

use std::net::IpAddr;

use pingferry::{Control, Family, PathConfig};
use pingferry_sys::preflight::default_source_address;
use tracing::info;

use crate::config::model::{Ingress, Settings};
use crate::config::reload::Served;

/// Logs the line. `degraded` is what the confinement lacks.
pub(super) fn log(
    settings: &Settings,
    served: &[Served],
    names: &[String],
    control: &Control,
    degraded: Option<String>,
) {
    let ingresses: Vec<String> = served.iter().zip(names).map(|(served, name)| ingress(served, name)).collect();
    let families = [(Family::V4, "IPv4"), (Family::V6, "IPv6")];
    let not_served = families.into_iter().filter(|(family, _)| !control.serves(*family));
    let not_served =
        not_served.map(|(_, name)| format!("{name} is not served; to see how to fix it, run: pingferry check"));
    let degraded: Vec<String> = not_served.chain(degraded).collect();
    info!(
        version = env!("CARGO_PKG_VERSION"),
        ingresses = ingresses.join("; "),
        sources = sources(settings).join(", "),
        rules = settings.policy.len(),
        confined = !settings.no_sandbox,
        degraded = if degraded.is_empty() { "nothing".to_owned() } else { degraded.join("; ") },
        "serving"
    );
}

/// Where an ingress is, with its addresses.
fn ingress(served: &Served, name: &str) -> String {
    let Ingress { netns, pid, address, policy, .. } = &served.ingress;
    let namespace = match (netns, pid) {
        (Some(path), _) => format!("in namespace {}", path.display()),
        (None, Some(pid)) => format!("in the namespace of process {pid}"),
        (None, None) => "in this namespace".to_owned(),
    };
    let addresses: Vec<String> = address.iter().map(|address| address.0.to_string()).collect();
    let addresses = if addresses.is_empty() { String::new() } else { format!(", addresses {}", addresses.join(" ")) };
    let rules = if policy.is_empty() { String::new() } else { format!(", {} rules of its own", policy.len()) };
    format!("{name} {namespace}{addresses}, gateway {}{rules}", gateway(&served.config))
}

/// The addresses that pingferry's own ICMP errors come from.
fn gateway(config: &PathConfig) -> String {
    let gateways = [config.gateway_v4.map(IpAddr::V4), config.gateway_v6.map(IpAddr::V6)];
    let gateways: Vec<String> = gateways.into_iter().flatten().map(|address| address.to_string()).collect();
    if gateways.is_empty() { "the source address".to_owned() } else { gateways.join(" ") }
}

/// The addresses that pings leave from, if they go to hosts behind the default route.
fn sources(settings: &Settings) -> Vec<String> {
    let chosen =
        |family| default_source_address(family).map_or_else(|_| "no route".to_owned(), |address| address.to_string());
    let v4 = settings.icmpv4_src.map_or_else(|| chosen(Family::V4), |address| address.to_string());
    let v6 = settings.icmpv6_src.as_ref().map_or_else(|| chosen(Family::V6), |source| source.0.to_string());
    vec![format!("IPv4 {v4}"), format!("IPv6 {v6}")]
}
