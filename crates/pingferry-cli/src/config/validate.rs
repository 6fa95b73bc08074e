//! What must hold between settings. What a single value can be is a matter of its type.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::model::{Ingress, Settings};
use super::values::Route;

/// Checks the whole configuration. The tables were [checked](check_table) when the file was read.
pub(crate) fn check(settings: &Settings) -> Result<(), String> {
    check_tun_keys(&settings.tun_ingress())?;
    let ingresses = settings.ingresses();
    if ingresses.is_empty() {
        return Err("nothing to serve: give --tun NAME, --unix PATH, or a file with an [[ingress]] table".into());
    }
    check_devices(&ingresses)?;
    check_domains(&ingresses, settings.workers.get())
}

/// What is allowed, but hardly meant: prefixes with bits beyond their length, which count as if these were zero.
pub(crate) fn warnings(settings: &Settings) -> Vec<String> {
    let ingresses = settings.ingresses();
    let rules = settings.policy.iter().chain(ingresses.iter().flat_map(|ingress| &ingress.policy));
    let of_rules = rules.flat_map(|rule| [Some(rule.0.destination), rule.0.source]).flatten();
    let sources = settings.source.iter().chain(ingresses.iter().flat_map(|ingress| ingress.source.iter().flatten()));
    let routes = ingresses.iter().flat_map(|ingress| &ingress.route).filter_map(|route| match route.0 {
        Route::Default => None,
        Route::To(prefix) => Some(prefix.0),
    });
    let prefixes = of_rules.chain(sources.map(|prefix| prefix.0.0)).chain(routes);
    let with_host_bits: BTreeSet<IpNet> = prefixes.filter(|prefix| prefix.trunc() != *prefix).collect();
    with_host_bits.into_iter().map(|prefix| format!("{prefix} has host bits, and means {}", prefix.trunc())).collect()
}

/// Checks an `[[ingress]]` table.
pub(super) fn check_table(ingress: &Ingress) -> Result<(), String> {
    match (&ingress.tun, &ingress.unix) {
        (None, None) => Err("an ingress needs `tun` or `unix`".into()),
        (Some(_), Some(_)) => Err("an ingress has `tun` or `unix`, not both: write a table for each".into()),
        _ => check_tun_keys(ingress),
    }
}

/// Checks the keys that only a TUN device has.
fn check_tun_keys(ingress: &Ingress) -> Result<(), String> {
    let Ingress { tun, netns, pid, address, route, metric, .. } = ingress;
    if let Some(name) = tun.as_ref().filter(|name| !is_device_name(name)) {
        return Err(format!("`tun` = \"{name}\": a device has a name of 1 to 15 bytes, without spaces, `/` and `:`"));
    }
    if netns.is_some() && pid.is_some() {
        return Err("`netns` and `pid` cannot be used together: both name the namespace of the TUN device".into());
    }
    let given = [
        ("netns", netns.is_some()),
        ("pid", pid.is_some()),
        ("address", !address.is_empty()),
        ("route", !route.is_empty()),
        ("metric", metric.is_some()),
    ];
    match given.into_iter().find(|(_, given)| *given && ingress.tun.is_none()) {
        Some((key, _)) => Err(format!("`{key}` needs `tun`: it is about a TUN device")),
        None => Ok(()),
    }
}

/// Whether the kernel takes it as the name of a device (`dev_valid_name` in net/core/dev.c).
fn is_device_name(name: &str) -> bool {
    let is_bad = |byte: u8| matches!(byte, b'/' | b':' | 0) || byte.is_ascii_whitespace();
    (1..=15).contains(&name.len()) && !matches!(name, "." | "..") && !name.bytes().any(is_bad)
}

/// A device or socket can be served once.
fn check_devices(ingresses: &[Ingress]) -> Result<(), String> {
    let is_repeated = |(number, ingress): &(usize, &Ingress)| {
        ingresses.iter().take(*number).any(|earlier| earlier.device() == ingress.device())
    };
    match ingresses.iter().enumerate().find(is_repeated) {
        Some((_, ingress)) => Err(format!("{} is given twice", ingress.name())),
        None => Ok(()),
    }
}

/// A flow belongs to one worker. The kernel spreads the flows of a TUN device over its queues, one for each worker, so
/// a flow that moves to another ingress of the domain can get to another worker.
fn check_domains(ingresses: &[Ingress], workers: u32) -> Result<(), String> {
    let shares = |a: &Ingress| a.domain.is_some() && ingresses.iter().filter(|b| a.domain == b.domain).count() > 1;
    if workers > 1 && ingresses.iter().any(|ingress| ingress.tun.is_some() && shares(ingress)) {
        return Err("a TUN device can share its `domain` only with `workers` = 1".into());
    }
    Ok(())
}
