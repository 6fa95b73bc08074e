//! From settings to what the library takes.

use std::io;
use std::path::Path;

use pingferry::ingress::PcapFile;
use pingferry::trace::Sampling;
use pingferry::{Config, CoreConfig, DomainId, PathConfig, Policy, ProbeConfig, Rate, Rule, Sharing};
use pingferry_sys::netlink::Netlink;

use super::model::{Ingress, Settings};
use super::number::{Count, Mtu};
use super::values::{Crossing, Gateways, OtherTraffic, Sockets, Text};
use crate::error::CliError;

/// The MTU of paths that neither a setting nor a device gives one.
const MTU: usize = 1500;

/// The proxy's configuration. Creates the pcap file.
pub(crate) fn proxy_config(settings: &Settings) -> Result<Config, CliError> {
    let unlimited = |count: Option<Count>| count.map_or(usize::MAX, to_usize);
    let core = CoreConfig::default()
        .with_idle_timeout(settings.idle_timeout.0.get())
        .with_sharing(match settings.sockets {
            Sockets::Shared => Sharing::Shared,
            Sockets::PerFlow => Sharing::PerFlow,
        })
        .with_max_flows(to_usize(settings.max_flows))
        .with_max_flows_per_source(unlimited(settings.max_flows_per_source))
        .with_max_sockets(unlimited(settings.max_sockets))
        .with_rate(settings.rate.map(per_second))
        .with_rate_per_source(settings.rate_per_source.map(per_second))
        .with_policy(policy(&settings.policy))
        .with_observe_flows(settings.admin.is_some() || settings.otlp.is_some())
        .with_targets(settings.metrics_target.iter().map(|target| target.0.prefix.0).collect());
    Ok(Config::default()
        .with_core(core)
        .with_source_v4(settings.icmpv4_src)
        .with_source_v6(settings.icmpv6_src.as_ref().map(|source| source.0.address))
        .with_scope_id(scope_id(settings)?)
        .with_interface(settings.interface.clone())
        .with_busy_poll(settings.busy_poll.map(|length| length.0.get()))
        .with_workers(settings.workers.get() as usize)
        .with_sampling(settings.otlp.is_some().then(|| Sampling::new(settings.otlp_ratio.0.get())))
        .with_pcap(settings.pcap.as_deref().map(create_pcap).transpose()?))
}

/// The configuration of an ingress's paths. `mtu` is that of its device, if it has one. `default` are its gateways if none are
/// configured.
pub(crate) fn path_config(
    ingress: &Ingress,
    domain: Option<DomainId>,
    mtu: Option<u32>,
    default: Gateways,
) -> PathConfig {
    let mtu = mtu.or(ingress.mtu.map(Mtu::get)).map_or(MTU, |mtu| mtu as usize);
    let probes = ProbeConfig::default()
        .with_udp(ingress.udp == Some(Crossing::Probes))
        .with_tcp(ingress.has_tcp())
        .with_denied_ports(ingress.deny_port.iter().flatten().map(|ports| ports.0.0.clone()).collect());
    let config = PathConfig::default()
        .with_domain(domain)
        .with_mtu(mtu)
        .with_probes(probes)
        .with_prohibit_others(ingress.other_traffic != Some(OtherTraffic::Drop));
    with_live_settings(config, ingress, default)
}

/// Sets what can change while the ingress is served.
pub(super) fn with_live_settings(config: PathConfig, ingress: &Ingress, default: Gateways) -> PathConfig {
    let gateway = ingress.gateway.unwrap_or_default();
    config
        .with_gateway_v4(gateway.v4.or(default.v4))
        .with_gateway_v6(gateway.v6.or(default.v6))
        .with_sources(ingress.source.iter().flatten().map(|prefix| prefix.0.0).collect())
        .with_policy(policy(&ingress.policy))
}

/// The domain of each ingress: the number of the first ingress in it. The connections of a Unix socket share one only if it is
/// named.
pub(crate) fn domains(ingresses: &[Ingress]) -> impl Iterator<Item = Option<DomainId>> {
    (0..).zip(ingresses).map(move |(number, ingress)| {
        let shared = |(_, other): &(u32, &Ingress)| ingress.domain.is_some() && other.domain == ingress.domain;
        let first = (0..).zip(ingresses).find(shared).map(|(first, _)| first);
        first.or(ingress.tun.is_some().then_some(number)).map(DomainId)
    })
}

pub(crate) fn policy(rules: &[Text<Rule>]) -> Policy {
    Policy { rules: rules.iter().map(|rule| rule.0).collect() }
}

fn to_usize(count: Count) -> usize {
    count.get() as usize
}

fn per_second(count: Count) -> Rate {
    Rate { per_second: count.get(), burst: count.get() }
}

fn create_pcap(path: &Path) -> Result<PcapFile, CliError> {
    PcapFile::create(path).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput => CliError::usage(format!("{}: {error}", path.display())),
        _ => CliError::from_creating("cannot write", path, &error),
    })
}

/// The interface of link-local addresses: that of `icmpv6_src`, otherwise `interface`.
fn scope_id(settings: &Settings) -> Result<u32, CliError> {
    let of_source = settings.icmpv6_src.as_ref().and_then(|source| source.0.interface.as_ref());
    let Some(interface) = of_source.or(settings.interface.as_ref()) else { return Ok(0) };
    let index = Netlink::open().and_then(|mut netlink| netlink.index(interface));
    index.map_err(|error| CliError::usage(format!("{error}; to list interfaces, run: ip link")))
}
