use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use clap::Args;

use super::super::model::Settings;
use super::super::number::{BusyPoll, Count, IdleTimeout};
use super::super::values::{Gateways, Prefix, ScopedAddress, Sockets, Text};
use super::policy::PolicyFlags;
use super::traffic::TrafficFlags;
use super::{set, set_list, set_option};
use crate::error::CliError;

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Proxy")]
pub(crate) struct ProxyFlags {
    /// Ping from this IPv4 address [default: chosen by the kernel's routing]
    #[arg(long, value_name = "ADDR", env = "PINGFERRY_ICMPV4_SRC")]
    icmpv4_src: Option<Ipv4Addr>,
    /// Ping from this IPv6 address [default: chosen by the kernel's routing]
    #[arg(long, value_name = "ADDR[%IFACE]", env = "PINGFERRY_ICMPV6_SRC")]
    icmpv6_src: Option<Text<ScopedAddress>>,
    /// Ping through this interface only; this also keeps pingferry's own probes from being routed back to it
    #[arg(long, value_name = "IFACE", env = "PINGFERRY_INTERFACE")]
    interface: Option<String>,
    /// The source address of ICMP errors that pingferry generates, once for each family [default: the address it pings
    /// from]
    #[arg(long, value_name = "ADDR", value_delimiter = ',', env = "PINGFERRY_GATEWAY")]
    gateway: Vec<IpAddr>,
    /// Close a flow that was idle for this long [default: 60s]
    #[arg(long, value_name = "DURATION", env = "PINGFERRY_IDLE_TIMEOUT")]
    idle_timeout: Option<Text<IdleTimeout>>,
    /// Whether flows to different destinations share a socket [default: shared]
    #[arg(long, value_name = "HOW", env = "PINGFERRY_SOCKETS")]
    sockets: Option<Sockets>,
    /// Keep at most this many flows; one more evicts one of the domain and source with the most [default: 262144]
    #[arg(long, value_name = "N", env = "PINGFERRY_MAX_FLOWS")]
    max_flows: Option<Count>,
    /// Keep at most this many flows of one source; one more evicts its oldest [default: no limit]
    #[arg(long, value_name = "N", env = "PINGFERRY_MAX_FLOWS_PER_SOURCE")]
    max_flows_per_source: Option<Count>,
    /// Open at most this many ping sockets; clients that ping the same host need one each [default: limited by
    /// descriptors]
    #[arg(long, value_name = "N", env = "PINGFERRY_MAX_SOCKETS")]
    max_sockets: Option<Count>,
    /// Send at most this many requests a second in all, with bursts of the same size [default: no limit]
    #[arg(long, value_name = "N", env = "PINGFERRY_RATE")]
    rate: Option<Count>,
    /// Send at most this many requests a second for each source, with bursts of the same size [default: no limit]
    #[arg(long, value_name = "N", env = "PINGFERRY_RATE_PER_SOURCE")]
    rate_per_source: Option<Count>,
    /// Accept only packets from this source, drop others as spoofed; repeatable [default: any source]
    #[arg(long, value_name = "CIDR", value_delimiter = ',', env = "PINGFERRY_SOURCE")]
    source: Vec<Text<Prefix>>,
    /// After a packet, poll for the next one for this long before sleeping: replies come faster, for more processor
    /// time [default: 50us when packets come that fast]
    #[arg(long, value_name = "DURATION", env = "PINGFERRY_BUSY_POLL")]
    busy_poll: Option<Text<BusyPoll>>,
    /// Write the packets that clients send and receive to this pcap file, for Wireshark or tcpdump
    #[arg(long, value_name = "FILE", env = "PINGFERRY_PCAP")]
    pcap: Option<PathBuf>,
    #[command(flatten)]
    traffic: TrafficFlags,
    #[command(flatten)]
    policy: PolicyFlags,
}

impl ProxyFlags {
    /// # Errors
    /// The gateways are of the same family.
    pub(crate) fn apply(&self, settings: &mut Settings) -> Result<(), CliError> {
        set_option(&mut settings.icmpv4_src, &self.icmpv4_src);
        set_option(&mut settings.icmpv6_src, &self.icmpv6_src);
        set_option(&mut settings.interface, &self.interface);
        if !self.gateway.is_empty() {
            settings.gateway =
                Gateways::try_from(self.gateway.clone()).map_err(|why| CliError::usage(format!("--gateway: {why}")))?;
        }
        set(&mut settings.idle_timeout, self.idle_timeout.as_ref());
        set(&mut settings.sockets, self.sockets.as_ref());
        set(&mut settings.max_flows, self.max_flows.as_ref());
        set_option(&mut settings.max_flows_per_source, &self.max_flows_per_source);
        set_option(&mut settings.max_sockets, &self.max_sockets);
        set_option(&mut settings.rate, &self.rate);
        set_option(&mut settings.rate_per_source, &self.rate_per_source);
        set_list(&mut settings.source, &self.source);
        set_option(&mut settings.busy_poll, &self.busy_poll);
        set_option(&mut settings.pcap, &self.pcap);
        self.traffic.apply(settings);
        self.policy.apply(settings);
        Ok(())
    }
}
